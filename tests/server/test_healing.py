"""A member whose log or snapshot is damaged: it goes on without, and has the others to give it that
again; until then it helps nobody to be elected (H57)."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest

from copycat.errors import CorruptLogError
from copycat.server.aside import DIRECTORY
from copycat.testing import Simulation
from copycat.testing.hosting import Host


async def write(cc: Any) -> None:
    for number in range(60):
        await cc.map("/m").put(f"k{number}", random.Random(number).randbytes(3000).hex())


def rotten(sim: Simulation, where: str, chance: random.Random) -> Host:
    """A member that is down, with a flipped bit in its log or snapshot, which must be noticed.

    (In a log: before what later frames prove to have been durable.)
    """
    sim.run(write)
    sim.advance(1.0)
    sim.run(write)
    sim.advance(1.0)
    name = chance.choice([name for name in sim.members if name != sim.leader])
    sim.crash(name)
    host: Host = sim._hosting.hosts[name]
    paths = sorted(each for each in host.disk.medium.names if each.startswith(where))
    path = chance.choice(paths[: len(paths) // 2] if where == "log" else paths)
    content = host.disk.medium.names[path]
    places = range(4096 if where == "log" else 0, len(bytes(content.data).rstrip(b"\0")))
    content.flip(chance.choice(places), chance.randrange(8))
    host.is_damaged = True
    return host


def files(host: Host) -> dict[str, bytes]:
    return {name: bytes(each.data) for name, each in host.disk.medium.names.items()}


def is_whole(host: Host) -> bool:
    """Whether it has everything again, and nothing of the damage is left."""
    running = host.running
    if running is None or running.member is None or running.member.status()["abstains"]:
        return False
    return not [name for name in host.disk.medium.names if name.startswith(DIRECTORY)]


@pytest.mark.parametrize("where", ["log", "snapshots"])
@pytest.mark.parametrize("seed", range(4))
def test_what_rotted_comes_from_the_others(
    where: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts, says which file is damaged, gets what it lost, and is as the others again."""
    chance = random.Random(seed)
    size = 1 << 30 if where == "log" else 1 << 16
    with Simulation(seed, snapshot_bytes=size) as sim, caplog.at_level(logging.ERROR, "copycat"):
        host = rotten(sim, where, chance)
        sim.restart(host.name)
        assert sim._hosting.run(60, lambda: is_whole(host))
        assert any(f"{where}/" in text and "The others have it" in text for text in caplog.messages)
        sim.run(write)
        sim.check()


@pytest.mark.parametrize("seed", range(12))
def test_a_power_cut_anywhere_in_the_healing_changes_nothing(seed: int) -> None:
    """Whatever became durable of it, the member abstains until it has what it lost."""
    chance = random.Random(seed)
    where = "log" if seed % 3 else "snapshots"
    with Simulation(seed, snapshot_bytes=1 << 30 if where == "log" else 1 << 16) as sim:
        host = rotten(sim, where, chance)
        before = host.disk.medium
        steps = chance.randrange(60)

        def crash(operation: str, path: str) -> OSError | None:
            nonlocal steps
            steps -= 1
            return OSError("power") if steps < 0 else None

        sim._hosting.excuse = lambda host, error: True
        host.disk.fail = crash
        sim.restart(host.name)
        sim.advance(1.0)
        host.disk.fail = lambda operation, path: None
        if host.is_up:
            sim.crash(host.name)
        host.disk.power_cut()
        assert host.disk.medium is before
        sim.restart(host.name)
        assert sim._hosting.run(60, lambda: is_whole(host))
        sim.run(write)
        sim.check()


def test_who_is_alone_keeps_every_byte() -> None:
    """Nobody could give it back, so nothing is cut: it refuses to start, and names the place."""
    with Simulation(5, members=1, snapshot_bytes=1 << 30) as sim:
        sim.run(write)
        (name,) = sim.members
        sim.crash(name)
        host: Host = sim._hosting.hosts[name]
        path = sorted(each for each in host.disk.medium.names if each.startswith("log/"))[1]
        content = host.disk.medium.names[path]
        content.flip(5000, 1)
        before = files(host)
        stopped: list[BaseException | None] = []
        sim._hosting.excuse = lambda host, error: (stopped.append(error), True)[1]
        sim.restart(name)
        assert sim._hosting.run(10, lambda: bool(stopped) and not host.is_up)
        (error,) = stopped
        assert isinstance(error, CorruptLogError) and error.segment == path
        assert {**files(host), "hardstate": b""} == {**before, "hardstate": b""}
        content.restore()
        sim.restart(name)
        sim.run(write)


def test_a_majority_without_its_logs_waits_for_help() -> None:
    """Two of three that lost what they had acknowledged elect nobody, whoever has the longer log;
    with a sound copy back, what was acknowledged is there."""
    with Simulation(6, snapshot_bytes=1 << 30) as sim:
        sim.run(write)
        sound = sim.leader
        assert sound is not None
        for name in sim.members:
            sim.crash(name)
        for name in sim.members:
            if name != sound:
                host: Host = sim._hosting.hosts[name]
                host.is_damaged = True
                path = sorted(each for each in host.disk.medium.names if each.startswith("log/"))[1]
                host.disk.medium.names[path].flip(5000, 1)
                sim.restart(name)
        sim.advance(30)
        assert sim.leader is None
        # Even the sound one cannot lead by itself; it takes a majority that has forgotten nothing.
        sim.restart(sound)
        sim.advance(30)
        assert sim.leader is None
        assert all(
            host.running is not None
            and host.running.member is not None
            and host.running.member.status()["abstains"] is (host.name != sound)
            for host in sim._hosting.hosts.values()
        )
