"""Snapshots on their way: they arrive over slow links, past newer ones, and despite bad disks."""

from __future__ import annotations

import logging

import pytest

from copycat._core.codec import Frame
from copycat.errors import StorageError
from copycat.server import snapshot_file, transfer
from copycat.server.snapshots import INCOMING

from .images import pack
from .world import Client, Node, World


class SlowWorld(World):
    """A cluster in which one member receives only so many bytes per second."""

    slow = ""
    bytes_per_s = 1e9

    def _to_peer(self, node: Node, peer: str, frames: bytes) -> None:
        if peer != self.slow:
            super()._to_peer(node, peer, frames)
            return
        way = (node.name, peer, "slow")
        begin = max(self.now, self._last.get(way, 0.0))
        self._last[way] = begin + len(frames) / self.bytes_per_s
        life = self.nodes[peer].life
        self.at(self._last[way] - self.now, lambda: self._arrive(node, peer, frames, life))

    def _arrive(self, node: Node, peer: str, frames: bytes, life: int) -> None:
        if self.nodes[peer].life == life:
            super()._to_peer(node, peer, frames)


class Reader(Client):
    """Registers a session with a long name and does nothing more."""

    def _tick(self) -> None:
        self.member = self.world.leader()
        secret = [self.secret] if hasattr(self, "secret") else []
        self.send(Frame.REGISTER, pack([self.uuid, 3_600_000, "x" * 200, *secret]))

    def receive(self, member: str, frames: bytes) -> None:
        """It listens to nobody."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """States here are small, so that chunks have to be smaller."""
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(transfer, "CHUNK_BYTES_MIN", 128)


def one_far_behind(world: World) -> tuple[Client, str]:
    """A member that was away until the log was cut below what it needs; it is still down."""
    client = Client(world)
    client.want(50)
    assert world.run(10, lambda: client.done)
    away = next(name for name in world.nodes if name != world.leader())
    world.crash(away)
    client.want(2000)
    assert world.run(60, lambda: client.done)
    first = [n.member.status()["first_index"] for n in world.nodes.values() if n.member]
    assert min(first) > 60  # type: ignore[type-var]
    return client, away


def snapshot_index(world: World, name: str) -> int:
    """Of the newest snapshot of a member."""
    member = world.nodes[name].member
    return member.snapshot.index if member is not None and member.snapshot is not None else 0


@pytest.mark.parametrize(("chunk_bytes", "bytes_per_s"), [(256, 1500.0), (2048, 1500.0)])
@pytest.mark.parametrize("seed", range(2))
def test_a_slow_link_is_not_outrun_by_snapshots(
    seed: int, chunk_bytes: int, bytes_per_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the leader snapshots all the time, a transfer goes on with the one it began with, and
    the log goes on behind that one, also if a chunk takes longer than Raft waits (H22, H77)."""
    monkeypatch.setattr(transfer, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(snapshot_file, "PAYS", 1000)  # so that sizes are what they seem
    world = SlowWorld(seed, snapshot_bytes=3000, segment_bytes=8192)
    client, away = one_far_behind(world)
    leader = world.leader()
    assert leader is not None
    for _ in range(40):  # sessions make the state larger
        Reader(world)
    world.run(2)
    world.slow, world.bytes_per_s = away, bytes_per_s
    world.start(away)
    begun = snapshot_index(world, leader)
    taken = set()
    for _ in range(400):
        client.want(12)
        world.run(0.1)
        taken.add(snapshot_index(world, leader))
        if snapshot_index(world, away) > 60:
            break
    assert snapshot_index(world, away) > 60
    assert len(taken) > 3 and max(taken) > begun, "the leader did not outrun it at all"
    world.slow = ""
    assert world.run(30, world.settled)
    assert len(world.states()) == 1
    for name in world.nodes:  # nothing is kept for ever
        world.nodes[name].member.admin("snapshot", [])  # type: ignore[union-attr]
    client.want(300)
    assert world.run(20, world.settled)
    world.run(5)
    for node in world.nodes.values():
        assert len([n for n in node.disk.listdir("snapshots") if n.endswith(".snap")]) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_lost_chunk_or_answer_costs_no_more_than_itself(seed: int) -> None:
    """Over a link that loses messages a transfer goes on where it stood, and ends."""
    world = World(seed, snapshot_bytes=6000, segment_bytes=4096)
    _, away = one_far_behind(world)
    world.loss = 0.2
    world.start(away)
    assert world.run(60, lambda: snapshot_index(world, away) > 60)
    world.loss = 0.0
    assert world.run(30, world.settled)
    assert len(world.states()) == 1


@pytest.mark.parametrize("seed", range(4))
def test_no_space_for_a_snapshot_is_survived(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """The follower says so once, leaves nothing behind, and takes it when there is space."""
    world = World(seed, snapshot_bytes=6000, segment_bytes=4096)
    _, away = one_far_behind(world)
    disk = world.nodes[away].disk
    world.start(away)
    free = 100 if seed % 2 else 0
    disk.capacity_bytes -= disk.free_bytes() - free
    with caplog.at_level(logging.ERROR, "copycat.transfer"):
        world.run(40)
    assert world.nodes[away].member is not None and snapshot_index(world, away) == 0
    lines = [record for record in caplog.records if record.name == "copycat.transfer"]
    assert len(lines) == 1 and "cannot take the snapshot" in lines[0].message
    assert not disk.exists(INCOMING)
    assert free == disk.free_bytes()
    disk.capacity_bytes = 1 << 40
    assert world.run(60, world.settled)
    assert len(world.states()) == 1


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_damaged_snapshot_is_asked_for_again(
    times: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What arrives with a wrong checksum is dropped and sent anew, not installed and not fatal."""
    world = World(7, snapshot_bytes=6000, segment_bytes=4096)
    _, away = one_far_behind(world)
    world.start(away)
    snapshots = world.nodes[away].member._store.snapshots  # type: ignore[union-attr]
    receive, left = snapshots.receive, times

    def damaged(offset: int, data: bytes, total: int) -> None:
        nonlocal left
        if left and offset + len(data) == total:
            left -= 1
            data = bytes(len(data))
        receive(offset, data, total)

    monkeypatch.setattr(snapshots, "receive", damaged)
    with caplog.at_level(logging.ERROR, "copycat.transfer"):
        if times == transfer.DAMAGED_MAX:
            assert world.run(20, lambda: left == 0)
            world.run(1)  # it rests now, and keeps nothing meanwhile
            assert not world.nodes[away].disk.exists(INCOMING)
        assert world.run(120, world.settled)
    assert left == 0 and len(world.states()) == 1
    assert sum("damaged snapshot" in record.message for record in caplog.records) == times


def test_a_broken_disk_stops_the_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other failure while a snapshot is taken in is fatal, with the error of the disk (H60)."""
    world = World(8, snapshot_bytes=6000, segment_bytes=4096)
    _, away = one_far_behind(world)
    world.start(away)

    def fail(operation: str, path: str) -> OSError | None:
        return OSError(5, "Input/output error") if path == INCOMING else None

    world.nodes[away].disk.fail = fail
    with pytest.raises(StorageError, match=r"incoming\.tmp failed: .*Input/output error"):
        world.run(20)
