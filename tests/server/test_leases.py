"""Whole members with reads by leases: quick while the lease holds, and never stale (H29)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from statistics import mean
from typing import Any

import pytest

from copycat.errors import CopycatError
from copycat.machine import StateMachine, command, query
from copycat.testing import Simulation
from copycat.types import Consistency

LEASE = Consistency.LINEARIZABLE_LEASE
LAST = 15


class Register(StateMachine):
    """A value."""

    def __init__(self) -> None:
        self.value = 0

    @command
    def set(self, value: int) -> None:
        """Change it."""
        self.value = value

    @query
    def get(self) -> int:
        """What it is."""
        return self.value

    @query(consistency=LEASE)
    def quick(self) -> int:
        """The same by a lease."""
        return self.value


def live(
    story: Callable[[Simulation, Any], Awaitable[None]], seed: int, *, skew: float = 0.0
) -> None:
    """Three members, a client, and what happens to them."""
    with Simulation(seed, machines=[Register], clock_skew=skew) as sim:

        async def workload(cc: Any) -> None:
            await story(sim, cc.machine("/r", Register))

        sim.run(workload)
        sim.check()


async def took(sim: Simulation, call: Awaitable[object]) -> float:
    """Virtual seconds until ``call`` was answered."""
    begun = sim.now
    await call
    return sim.now - begun


@pytest.mark.parametrize("seed", range(3))
def test_a_lease_saves_the_round(seed: int) -> None:
    """While lease reads are in use they ask nobody; others go on to ask, also at the same time."""

    async def story(sim: Simulation, register: Any) -> None:
        await register.set(1)
        await register.quick()
        quick = [await took(sim, register.quick()) for _ in range(20)]
        strict = [await took(sim, register.get()) for _ in range(20)]
        view = register.at(consistency=LEASE)
        viewed = [await took(sim, view.get()) for _ in range(20)]
        assert mean(quick + viewed) < 0.7 * mean(strict)
        # The leader alone can answer by its lease for a while, and nothing else.
        sim.isolate(sim.leader)
        assert await took(sim, register.quick()) < 0.01
        with pytest.raises(CopycatError):
            await register.at(timeout=0.3).get()

    live(story, seed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fault", ["isolated", "paused", "suspended", "alone of its mind"])
def test_an_overthrown_leader_answers_nothing(fault: str, seed: int) -> None:
    """What another leader has acknowledged is seen by every lease read that begins afterwards,
    though the old leader still believes to lead, or slept, or the others forgot it in a crash."""

    async def story(sim: Simulation, register: Any) -> None:
        await register.set(1)
        for _ in range(2):
            assert await register.quick() == 1
        old, hosting = sim.leader, sim._hosting
        assert old is not None
        others = [name for name in sim.members if name != old]
        written = write_elsewhere(sim, old)
        for name in others:  # the reader has nobody else to turn to
            hosting.network.block("workload-1", name)
        process = hosting.hosts[old].process
        assert process is not None
        if fault == "paused":
            process.pause(3.0)
        elif fault == "suspended":
            process.suspend(3.0)
        else:
            sim.isolate(old)
        if fault == "alone of its mind":
            for name in others:
                sim.crash(name)
                sim.restart(name)
        end = sim.now + 4.0
        while not written or written[-1] < LAST or sim.now < end + 1.0:
            if sim.now > end:
                sim.heal()
            before = written[-1] if written else 1
            with contextlib.suppress(CopycatError):
                assert await register.at(timeout=0.3).quick() >= before
            await asyncio.sleep(0.005)
        assert await register.quick() == LAST

    live(story, seed, skew=0.09)


def write_elsewhere(sim: Simulation, old: str) -> list[int]:
    """Write 2, 3... as a client that does not reach ``old``; the list grows by what is
    acknowledged."""
    process = sim._hosting.client_process("writer")
    sim._hosting.network.block("writer", old)
    written: list[int] = []

    async def write() -> None:
        async with sim._hosting.connect(process, timeout=30.0) as cc:
            for value in range(2, LAST + 1):
                await cc.machine("/r", Register).set(value)
                written.append(value)
                await asyncio.sleep(0.1)

    process.spawn(write())
    return written
