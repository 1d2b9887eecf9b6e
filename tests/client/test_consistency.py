"""The four levels through handles, per call and per handle, behind a partition of a simulated
cluster: a reader that reaches one member only, which hears nobody.

For each level it is shown what it promises and that it promises no more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from copycat.errors import ConfigurationError, CopycatError
from copycat.handles import Connecting, CopycatClient
from copycat.machine import StateMachine, command, query
from copycat.testing import Simulation
from copycat.testing.watch import Watch
from copycat.types import Consistency

LINEARIZABLE, LEASE = Consistency.LINEARIZABLE, Consistency.LINEARIZABLE_LEASE
SEQUENTIAL, SERIALIZABLE = Consistency.SEQUENTIAL, Consistency.SERIALIZABLE
ROLES = ("leader", "follower", "learner")


class Register(StateMachine):
    """A value, and a query for each level's default."""

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

    @query(consistency=SERIALIZABLE)
    def get_old(self) -> int:
        """What it was at some time."""
        return self.value


class Stage:
    """A cluster of three voters and a learner, and a writer that nobody hinders.

    ``cc`` is the reader's client, in the process that the story runs in; the writer lives in
    another one, and does what it is told.
    """

    def __init__(self, sim: Simulation, cc: CopycatClient) -> None:
        self.sim = sim
        self.cc = cc
        self.register: Any = cc.machine("/r", Register)
        self.map = cc.map("/m")
        self._network = sim._hosting.network
        self._wanted: list[int] = []
        self._written: list[int] = []
        process = sim._hosting.client_process("writer")
        process.spawn(self._write(sim._hosting.connect(process, timeout=30.0)))

    async def _write(self, connecting: Connecting) -> None:
        async with connecting as cc:
            while True:
                if self._wanted:
                    await cc.machine("/r", Register).set(self._wanted[0])
                    await cc.map("/m").put("k", self._wanted[0])
                    self._written.append(self._wanted.pop(0))
                await asyncio.sleep(0.01)  # of virtual time

    async def written(self, value: int) -> None:
        """The writer was told that it is done, by whoever leads now."""
        self._wanted.append(value)
        while value not in self._written:
            await asyncio.sleep(0.01)

    def named(self, role: str) -> str:
        """A member in this role."""
        leader = str(self.sim.leader)
        voters = [name for name in ("n1", "n2", "n3") if name != leader]
        return {"leader": leader, "follower": voters[0], "learner": "n4"}[role]

    async def caught_up(self, name: str) -> None:
        """The member has applied what the reader has seen."""
        running = self.sim._hosting.hosts[name].running
        while running is None or running.status()["applied_index"] < self.cc.session.index:
            await asyncio.sleep(0.01)

    def confine(self, to: str) -> None:
        """The reader reaches this member only."""
        for name in self.sim.members:
            (self._network.unblock if name == to else self._network.block)("workload-1", name)

    def free(self) -> None:
        """The reader reaches everybody."""
        for name in self.sim.members:
            self._network.unblock("workload-1", name)


def live(story: Callable[[Stage], Awaitable[None]], seed: int = 0) -> None:
    """Play ``story`` with a register and a map at 1, which the reader has seen."""
    with Simulation(seed, members=4, machines=[Register], check_determinism=False) as sim:

        async def workload(cc: CopycatClient) -> None:
            await cc.cluster.demote("n4", timeout=30)
            stage = Stage(sim, cc)
            await stage.written(1)
            assert await stage.register.get() == await stage.map.get("k") == 1
            await story(stage)
            stage.free()
            sim.heal()

        sim.run(workload, seconds=300)


async def behind(stage: Stage, role: str) -> None:
    """The reader reaches a member in this role only, and that one has missed the write of 2."""
    member = stage.named(role)
    await stage.caught_up(member)
    stage.confine(member)
    stage.sim.isolate(member)
    await stage.written(2)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("level", [LINEARIZABLE, LEASE])
def test_linearizable_reads_fail_rather_than_be_stale(level: Consistency, role: str) -> None:
    """What was acknowledged to others is seen; and where it cannot be, there is an error that
    says that nothing was answered, in time: no level promises less availability."""

    async def story(stage: Stage) -> None:
        for value in range(10, 20):
            await stage.written(value)
            assert await stage.register.at(consistency=level).get_old() == value
            assert await stage.map.get("k", consistency=level) == value
        await behind(stage, role)
        begun = asyncio.get_running_loop().time()
        for read in (
            stage.register.at(consistency=level, timeout=3).get_old(),
            stage.map.get("k", consistency=level, timeout=3),
            stage.map.at(consistency=level, timeout=3).size(),
            stage.cc.exists("/m", consistency=level, timeout=3),
        ):
            with pytest.raises(CopycatError) as caught:
                await read
            assert caught.value.retryable and caught.value.applied == "no"
        assert asyncio.get_running_loop().time() - begun < 13
        stage.sim.heal()
        assert await stage.register.at(consistency=level, timeout=30).get_old() == 2
        assert await stage.map.get("k", consistency=level) == 2

    live(story)


@pytest.mark.parametrize("role", ROLES[1:])
def test_linearizable_reads_find_their_way_around_a_broken_path(role: str) -> None:
    """Who cannot reach the leader asks a member that can; a write has no such way."""

    async def story(stage: Stage) -> None:
        stage.confine(stage.named(role))
        for value in range(2, 5):
            await stage.written(value)
            for level in (LINEARIZABLE, LEASE, SEQUENTIAL):
                found = await stage.register.at(consistency=level, timeout=20).get()
                assert found == value or (level is SEQUENTIAL and found >= 1)
        with pytest.raises(CopycatError) as caught:
            await stage.register.at(timeout=3).set(9)
        assert caught.value.retryable
        stage.sim.crash(stage.named("leader"))
        assert await stage.register.at(timeout=60).get() == 4

    live(story)


@pytest.mark.parametrize("role", ROLES)
def test_sequential_reads_lag_but_never_go_back(role: str) -> None:
    """They are answered by a member that hears nobody, from what it had; but once this client has
    seen the newer state that member has nothing to say to it."""

    async def story(stage: Stage) -> None:
        member = stage.named(role)
        quick = stage.register.at(consistency=SEQUENTIAL, timeout=10)
        await behind(stage, role)
        assert await quick.get() == await quick.get_old() == 1
        assert await stage.map.get("k", consistency=SEQUENTIAL, timeout=10) == 1
        assert await stage.cc.exists("/m", consistency=SEQUENTIAL)
        assert [e.path for e in await stage.cc.children("/", consistency=SEQUENTIAL)] == [
            "/r",
            "/m",
        ]
        stage.free()
        assert await stage.register.at(timeout=30).get() == 2
        stage.confine(member)
        with pytest.raises(CopycatError):
            await quick.at(timeout=5).get()
        stage.sim.heal()
        assert await quick.at(timeout=30).get() == 2

    live(story)


@pytest.mark.parametrize("role", ROLES)
def test_serializable_reads_are_always_answered_and_may_go_back(role: str) -> None:
    """Any member that can be reached will do, and it says what it knows, be that less than what
    this client has seen, or has written itself."""

    async def story(stage: Stage) -> None:
        member = stage.named(role)
        await behind(stage, role)
        stage.free()
        await stage.register.at(timeout=30).set(3)
        assert await stage.register.get() == 3
        stage.confine(member)
        assert await stage.register.at(consistency=SERIALIZABLE, timeout=10).get() == 1
        assert await stage.register.at(timeout=10).get_old() == 1, "the machine's own default"
        assert await stage.map.get("k", consistency=SERIALIZABLE, timeout=10) == 1
        with pytest.raises(CopycatError):
            await stage.register.at(timeout=3).get()

    live(story)


def test_a_lease_is_worth_as_much_as_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within its time a leader that hears nobody answers what LINEARIZABLE would not; and if its
    clock is slower than allowed, it may be an old value. LINEARIZABLE never trusts a clock."""
    monkeypatch.setattr(Watch, "_check_lease", lambda *_: None)  # which would find just that
    stale: list[int] = []

    async def story(stage: Stage) -> None:
        leader = stage.named("leader")
        stage.sim.skew(leader, 0.2)
        lease = stage.register.at(consistency=LEASE, timeout=0.3)
        for _ in range(3):
            assert await stage.register.at(consistency=LEASE, timeout=5).get() == 1
        stage.confine(leader)
        stage.sim.isolate(leader)
        assert await lease.get() == 1
        with pytest.raises(CopycatError):
            await stage.register.at(timeout=0.1).get()
        await stage.written(2)
        with contextlib.suppress(CopycatError):
            stale.append(await lease.get())
        with pytest.raises(CopycatError):
            await stage.register.at(timeout=1).get()

    for seed in range(4):
        live(story, seed)
    assert 1 in stale and set(stale) == {1}


def test_what_is_no_level_is_refused_at_once() -> None:
    """A level by another name is an error that lists all there are, for a call and a handle."""

    async def story(stage: Stage) -> None:
        with pytest.raises(ConfigurationError, match=r"Consistency\.LINEARIZABLE,"):
            stage.map.at(consistency=7)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="no consistency"):
            await stage.map.get("k", consistency="strict")  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match="no consistency"):
            await stage.cc.exists("/m", consistency=9)  # type: ignore[arg-type]
        assert await stage.map.get("k", consistency=2) == 1  # type: ignore[call-overload]

    live(story)
