"""A full disk costs no member its life and no client an acknowledged write; all goes on by itself.

The worlds here have disks of a few segments. Whatever fills them, members go on to vote, to send
heartbeats and to answer reads; commands are refused until there is space again.
"""

from __future__ import annotations

import logging

import pytest

from copycat._core import codec
from copycat._core.codec import Frame, FrameBuffer
from copycat._core.kernel import decode_results
from copycat.types import Consistency

from .images import commands, unpack
from .world import Client, Node, World

SEGMENT_BYTES = 8192


def filled(node: Node) -> None:
    """From now on there is no space on this disk, whatever was free."""
    node.disk.capacity_bytes = node.disk.capacity_bytes - node.disk.free_bytes()


def freed(node: Node) -> None:
    """Space again."""
    node.disk.capacity_bytes = 1 << 40


def working(seed: int, *names: str) -> tuple[World, Client]:
    """A cluster that has answered a client."""
    world = World(seed, names or ("n1", "n2", "n3"), segment_bytes=SEGMENT_BYTES)
    client = Client(world)
    client.want(20)
    assert world.run(10, lambda: client.done)
    return world, client


def check_all_went_on(world: World, client: Client) -> None:
    """Every increment was made exactly once, and all members hold the same."""
    assert world.run(60, lambda: client.done)
    assert client.values == list(range(1, client.wanted + 1))
    assert world.run(20, world.settled)
    assert len(world.states()) == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_follower_whose_disk_is_full_is_out_voted(seed: int) -> None:
    """The others commit without it; it acknowledges nothing it cannot write, and catches up when
    space returns."""
    world, client = working(seed)
    leader = world.leader()
    full = world.nodes[next(name for name in world.nodes if name != leader)]
    filled(full)
    client.want(2000)
    assert world.run(60, lambda: client.done)
    world.run(3)
    assert full.member is not None
    status = full.member.status()
    assert status["leader"] is not None
    held = status["last_index"]
    assert isinstance(held, int)
    assert max(n.member.status()["last_index"] for n in world.nodes.values() if n.member) > held  # type: ignore[type-var]
    freed(full)
    check_all_went_on(world, client)


@pytest.mark.parametrize("seed", range(8))
def test_a_leader_whose_disk_is_full_lets_another_lead(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients go on with a member that has space; the full one follows, and says so once."""
    world, client = working(seed)
    old = world.leader()
    assert old is not None
    filled(world.nodes[old])
    with caplog.at_level(logging.ERROR):
        client.want(3000)
        assert world.run(60, lambda: client.done)
        world.run(10)
    assert world.leader() not in (None, old)
    said = [record.message for record in caplog.records if "read-only" in record.message]
    assert len(said) == 1 and said[0].startswith(f"{old} is read-only: no space")
    freed(world.nodes[old])
    check_all_went_on(world, client)


class Reader(Client):
    """Asks the leader once, without a session."""

    value: int | None = None

    def _tick(self) -> None:
        """No session to keep."""

    def read(self, client: Client) -> int | None:
        """What a linearizable read finds; None if nobody answers."""
        self.member = self.world.leader()
        head = codec.QUERY_HEAD.pack(1, 0, 1, Consistency.LINEARIZABLE)
        self.send(Frame.QUERIES, head + commands(0, 0, (client.resource, client.get, []))[40:])
        self.world.run(2, lambda: self.value is not None)
        return self.value

    def receive(self, member: str, frames: bytes) -> None:
        """Keep the answer."""
        for type_, payload in FrameBuffer(1 << 30, expect_preamble=False).feed(frames):
            if type_ == Frame.ANSWERS:
                (result,) = decode_results(payload, codec.ANSWERS_HEAD.size, 1)
                self.value = unpack(result[1:])


@pytest.mark.parametrize("names", [("n1",), ("n1", "n2", "n3")])
@pytest.mark.parametrize("seed", range(4))
def test_when_all_disks_are_full_nothing_is_lost(seed: int, names: tuple[str, ...]) -> None:
    """Commands wait, members and sessions live, and everything goes on when space returns."""
    world, client = working(seed, *names)
    for node in world.nodes.values():
        filled(node)
    client.want(2000)
    world.run(20)
    assert not client.done
    answered = client.answered
    assert all(node.member is not None for node in world.nodes.values())
    assert world.leader() is not None
    world.run(30)
    assert client.answered == answered  # a full disk takes no more and stays as it is
    assert not client.ended  # log time stands still, so that no session expires
    found = Reader(world).read(client)
    assert found is not None and found >= answered - 1
    for node in world.nodes.values():
        freed(node)
    check_all_went_on(world, client)


@pytest.mark.parametrize("seed", range(6))
def test_members_start_again_on_full_disks(seed: int) -> None:
    """A restart needs no space, and a power cut among full disks loses nothing acknowledged."""
    world, client = working(seed)
    for node in world.nodes.values():
        filled(node)
    client.want(1000)
    world.run(10)
    for name in world.nodes:
        world.crash(name)
        filled(world.nodes[name])
    for name in world.nodes:
        world.start(name)
    assert world.run(20, lambda: world.leader() is not None)
    for node in world.nodes.values():
        freed(node)
    check_all_went_on(world, client)


def test_a_member_without_any_room_never_leads() -> None:
    """Elections use up what was kept for them; then nobody leads, nobody dies, nothing is lost."""
    world, client = working(3)
    for _ in range(30):
        for name, node in world.nodes.items():
            world.crash(name)
            filled(node)
        for name in world.nodes:
            world.start(name)
        world.run(4)
    assert world.leader() is None
    for node in world.nodes.values():
        freed(node)
    client.want(100)
    assert world.run(60, lambda: client.done or client.ended)
    assert client.values == list(range(1, len(client.values) + 1))
    assert world.run(20, world.settled)
    assert len(world.states()) == 1


class Watcher(Client):
    """Counts the signs of life that were answered."""

    kept = 0

    def receive(self, member: str, frames: bytes) -> None:
        """Count, and go on as any client."""
        frames_ = FrameBuffer(1 << 30, expect_preamble=False).feed(frames)
        self.kept += sum(type_ == Frame.KEPT for type_, _ in frames_)
        super().receive(member, frames)


@pytest.mark.parametrize("known", [False, True])
def test_signs_of_life_do_not_wait_behind_a_command_without_room(known: bool) -> None:
    """A command larger than the room waits, or is refused; sessions live on meanwhile (H101)."""
    size = 64 << 10
    world = World(3, ("n1",), segment_bytes=size)
    watcher, other = Watcher(world), Client(world)
    other.want(1)
    assert world.run(10, lambda: watcher.opened and other.done)
    node = world.nodes["n1"]
    assert node.member is not None
    filled(node)
    while known and node.member._store.full is None:
        watcher.want(10)
        assert world.run(5, lambda: watcher.done)
    large = (other.resource, other.add, [b"x" * size])
    run = commands(other.session, other.sequence + 1, large, acknowledged=other.answered)
    other.ended = True  # it says nothing else
    other.send(Frame.RUN, run)
    world.run(1)
    assert len(node.member._desk.runs) == (0 if known else 1)
    before = watcher.kept
    world.run(2)
    assert watcher.kept > before + 10
    watcher.want(10)
    freed(node)
    assert world.run(30, lambda: watcher.done)


def test_attempts_to_find_space_leave_no_files_behind() -> None:
    """A full disk is not filled up with the names of files that could not be made."""
    world, client = working(1, "n1")
    node = world.nodes["n1"]
    filled(node)
    client.want(2000)
    world.run(5)
    before = node.disk.listdir("log")
    world.run(30)
    assert node.disk.listdir("log") == before


def test_a_leader_with_a_full_disk_does_not_hand_over_to_the_same_full_one_for_ever() -> None:
    """Two of five disks are full: leadership finds its way to one of the others."""
    world = World(1, ("n1", "n2", "n3", "n4", "n5"), segment_bytes=SEGMENT_BYTES)
    client = Client(world)
    client.want(20)
    assert world.run(10, lambda: client.done)
    for name in ("n4", "n5"):
        filled(world.nodes[name])
    for _ in range(40):
        client.want(20)
        world.run(5, lambda: client.done)
    leader = world.leader()
    assert leader is not None
    member = world.nodes[leader].member
    assert member is not None
    if leader not in ("n4", "n5"):
        member.admin("transfer", ["n5"])
        world.run(3)
    client.want(200)
    assert world.run(900, lambda: client.done)


def test_leadership_goes_to_nobody_who_cannot_be_reached() -> None:
    """A transfer to a dead member is refused at once, instead of holding up all commands."""
    world, client = working(2)
    leader = world.leader()
    assert leader is not None
    dead = next(name for name in world.nodes if name != leader)
    world.crash(dead)
    world.run(1)
    member = world.nodes[leader].member
    assert member is not None
    with pytest.raises(ValueError, match=f"cannot reach {dead}"):
        member.admin("transfer", [dead])
    client.want(10)
    assert world.run(1, lambda: client.done)
