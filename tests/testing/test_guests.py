"""Roamers and strangers in simulated lives: who goes everywhere, and who has no business there."""

from __future__ import annotations

import pytest

from copycat.server.sessions import Session
from copycat.testing.life import Life
from copycat.testing.plan import Plan
from copycat.testing.simulate import run


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
