"""Roamers and strangers in simulated lives: who goes everywhere, and who has no business there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from copycat.errors import CommandFailed
from copycat.server.sessions import Session
from copycat.system import FENCED
from copycat.testing import Simulation
from copycat.testing.life import Life
from copycat.testing.moody import MACHINES, Moody
from copycat.testing.plan import Plan
from copycat.testing.simulate import run


def test_the_caller_of_what_fences_a_machine_is_told() -> None:
    """The command that exceeded the stack has an answer, as those have that come after it."""
    with Simulation(1, machines=MACHINES) as sim:

        async def work(cc: Any) -> list[str]:
            moody: Any = cc.machine("/deep", Moody)
            told = []
            for call in (moody.deep, moody.read):
                with pytest.raises(CommandFailed) as failure:
                    async with asyncio.timeout(5.0):
                        await call()
                told.append(failure.value.error_type)
            return told

        assert sim.run(work) == ["RecursionError", FENCED]


@pytest.mark.parametrize("seed", [40700, 40701])
def test_guests_break_nothing(seed: int) -> None:
    """Everything that users and strangers may think of is answered, refused or survived."""
    plan = Plan(seed, faults=("kill", "resets"), roamers=2, strangers_every=0.5, seconds=25.0)
    report = Life(plan).live()
    assert report.acknowledged > 0


def test_a_stranger_that_acts_for_others_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """If members took any secret for the right one, strangers would end sessions of others."""
    monkeypatch.setattr(Session, "is_proven_by", lambda self, secret: True)
    failures = [
        run(Plan(seed, faults=(), strangers_every=0.3, seconds=20.0))[1]
        for seed in range(40710, 40713)
    ]
    assert any(failures)
