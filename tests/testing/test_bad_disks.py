"""Disks that lie, in simulated clusters: who notices rot stops and names it, none passes it on."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import CorruptLogError
from copycat.testing import Simulation
from copycat.testing.hosting import Host
from copycat.testing.life import Life
from copycat.testing.plan import Plan
from copycat.testing.simulate import run

KINDS = ("kill", "power cut", "isolation", "snapshot", "transfer")


@pytest.mark.parametrize("where", ["log", "snapshots"])
def test_what_rots_under_a_leader_is_not_sent_to_those_who_lag(where: str) -> None:
    """A leader whose disk rotted while it ran stops with the file's name when a peer needs it."""
    with Simulation(1, snapshot_bytes=1 << 30 if where == "log" else 1 << 16) as sim:

        async def write(cc: Any) -> None:
            for number in range(60):
                await cc.map("/m").put(f"k{number}", "x" * 3000)

        sim.run(write)
        late = next(name for name in sim.members if name != sim.leader)
        sim.crash(late)
        sim.run(write)
        for name in sim.members:
            if name != late:  # what they have written before is read from their disks from here on
                sim.crash(name)
                sim.restart(name)
        hosting = sim._hosting
        assert hosting.run(10, lambda: sim.leader is not None)
        leader = hosting.hosts[sim.leader or ""]
        path = max(name for name in leader.disk.medium.names if name.startswith(where))
        if where == "log":  # one that the late member does not have
            path = sorted(name for name in leader.disk.medium.names if name.startswith(where))[4]
        content = leader.disk.medium.names[path]
        offset = content.data.find(b"x" * 100, 30_000) + 50
        content.flip(offset, 3)
        stopped: list[BaseException | None] = []

        def excuse(host: Host, error: BaseException | None) -> bool:
            assert host is leader
            content.restore()
            stopped.append(error)
            return True

        hosting.excuse = excuse
        sim.restart(late)
        assert hosting.run(60, lambda: bool(stopped) and not leader.is_up)
        (error,) = stopped
        assert isinstance(error, CorruptLogError)
        assert error.segment == path and path in str(error) and error.offset <= offset
        sim.check()


@pytest.mark.parametrize("kind", ["bit flip", "read error", "lost file", "lost directory"])
def test_lives_with_bad_disks_break_no_law(kind: str) -> None:
    """Rot, failing reads and losses happen, are noticed with clear errors, and harm nobody else."""
    happened = noticed = 0
    for seed in range(40100, 40103):
        plan = Plan(
            seed, members=3, faults=(*KINDS, kind, kind), fault_every=0.7, seconds=20.0,
            think_s=1.0, snapshot_bytes=64 << 10, value_bytes=500,
        )  # fmt: skip
        report = Life(plan).live()
        happened += report.faults.get(kind, 0)
        noticed += sum(n for name, n in report.faults.items() if name.startswith("stopped by"))
    assert happened
    assert noticed or kind == "lost directory"


def test_a_member_that_does_not_say_what_is_wrong_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A life fails if a member stops for damage with an error that does not name the file."""
    from copycat.server import snapshot_file

    vague = lambda path, offset=0: CorruptLogError("something is damaged")  # noqa: E731
    monkeypatch.setattr(snapshot_file, "damaged", vague)
    plans = (
        Plan(seed, faults=("bit flip", "kill"), fault_every=0.3, snapshot_bytes=64 << 10,
             seconds=30.0, value_bytes=4000)
        for seed in range(40118, 40130)  # chance decides which of them hits a snapshot
    )  # fmt: skip
    assert any(run(plan)[1].startswith("clear errors") for plan in plans)


def test_a_rotten_header_is_named_and_not_the_segment_before() -> None:
    """The error of recovery points at the file that is damaged, at its begin."""
    with Simulation(3, snapshot_bytes=1 << 30) as sim:

        async def write(cc: Any) -> None:
            for number in range(60):
                await cc.map("/m").put(f"k{number}", "x" * 3000)

        sim.run(write)
        name = next(name for name in sim.members if name != sim.leader)
        sim.crash(name)
        host = sim._hosting.hosts[name]
        path = sorted(each for each in host.disk.medium.names if each.startswith("log/"))[1]
        content = host.disk.medium.names[path]
        content.flip(72, 5)
        host.is_damaged = True
        sim.restart(name)
        assert sim._hosting.run(10, lambda: host.running is not None)
        assert host.running is not None and host.running.member is not None
        error = host.running.member._store.damage
        assert error is not None and (error.segment, error.offset) == (path, 0)
        sim.check()
