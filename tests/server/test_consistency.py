"""What each level of a query promises, and what it does not, at a leader, a follower, a learner.

Whole members on virtual time; the asker is a connection without a session that says what a client
would. For each level one test shows the promise and one that there is no more to it.
"""

from __future__ import annotations

import pytest

from copycat._core import codec
from copycat._core.codec import Frame, FrameBuffer, Reason
from copycat._core.kernel import decode_results
from copycat._core.layout import Status
from copycat.raft import RaftOptions
from copycat.server.effects import ClientFrame
from copycat.types import Consistency

from .images import commands, unpack
from .world import Client, World

LINEARIZABLE, LEASE = Consistency.LINEARIZABLE, Consistency.LINEARIZABLE_LEASE
SEQUENTIAL, SERIALIZABLE = Consistency.SEQUENTIAL, Consistency.SERIALIZABLE
ROLES = ("leader", "follower", "learner")
AT_ONCE = 0.02
"""Seconds: a few times what is on the way to a member and back."""


class Asker:
    """Asks any member, and takes what comes."""

    def __init__(self, world: World, writer: Client) -> None:
        Client._next += 1
        self.id = Client._next
        world.clients[self.id] = self  # type: ignore[assignment]
        self.world = world
        self.writer = writer
        self.member = ""
        self.answers: list[tuple[int, int]] = []  # value, index of the state
        self.refusals: list[int] = []
        self._asked = 0

    def ask(self, member: str, level: Consistency, index: int = 0) -> None:
        """For the tally, on a state at ``index`` or later if the level is SEQUENTIAL."""
        self.member = member
        self._asked += 1
        head = codec.QUERY_HEAD.pack(self._asked, index, 1, level)
        payload = head + commands(0, 0, (self.writer.resource, self.writer.get, []))[40:]
        node = self.world.nodes[member]
        delay = self.world.in_order(self.id, member)
        self.world.push(node, ClientFrame(self.id, Frame.QUERIES, payload), delay)

    def answer(
        self, member: str, level: Consistency, index: int = 0, within: float = AT_ONCE
    ) -> tuple[int, int] | None:
        """Value and index; None if it is refused, or not answered ``within`` so many seconds."""
        known, refused = len(self.answers), len(self.refusals)
        self.ask(member, level, index)
        self.world.run(within, lambda: len(self.answers) > known or len(self.refusals) > refused)
        return self.answers[-1] if len(self.answers) > known else None

    def receive(self, member: str, frames: bytes) -> None:
        for type_, payload in FrameBuffer(1 << 30, expect_preamble=False).feed(frames):
            if type_ == Frame.REJECT:
                self.refusals.append(codec.REJECT_HEAD.unpack_from(payload)[0])
                continue
            assert type_ == Frame.ANSWERS
            (result,) = decode_results(payload, codec.ANSWERS_HEAD.size, 1)
            assert result[0] == Status.OK
            applied = codec.ANSWERS_HEAD.unpack_from(payload)[1]
            self.answers.append((unpack(result[1:]), applied))

    def lost(self, member: str) -> None:
        """The member died."""


class Stage:
    """Three voters and a learner, a writer that has counted to ten, and an asker."""

    def __init__(self, role: str, seed: int = 1) -> None:
        self.world = world = World(seed)
        world.join("n4")
        assert world.run(20, world.settled)
        assert world.wish("demote", "n4")[0] == "done"
        assert world.run(20, world.settled)
        self.writer = Client(world)
        self.writer.want(10)
        assert world.run(10, lambda: self.writer.done)
        assert world.run(1, world.settled)
        leader = str(world.leader())
        voters, learners = world.members()
        assert learners == ("n4",)
        self.others = [name for name in voters if name != leader]
        self.member = {"leader": leader, "follower": self.others[0], "learner": "n4"}[role]
        self.asker = Asker(world, self.writer)

    def cut_off(self) -> None:
        """The member hears nobody and nobody hears it; clients still reach it."""
        rest = [name for name in self.world.nodes if name != self.member]
        self.world.cut = {(self.member, name) for name in rest}
        self.world.cut |= {(name, self.member) for name in rest}

    def write_elsewhere(self, count: int = 5) -> None:
        """The other members acknowledge so many writes, under a new leader if need be."""
        nodes = self.world.nodes

        def leading() -> list[str]:
            members = {name: node.member for name, node in nodes.items() if name != self.member}
            return [name for name, member in members.items() if member and member.serving]

        assert self.world.run(30, lambda: bool(leading()))
        if self.writer.member != leading()[0]:
            self.writer.connect(leading()[0])
        self.writer.want(count)
        assert self.world.run(30, lambda: self.writer.done)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("level", [LINEARIZABLE, LEASE])
def test_linearizable_reads_hold_all_that_was_acknowledged(level: Consistency, role: str) -> None:
    """Whoever is asked, right after each acknowledgement (H27)."""
    stage = Stage(role)
    for number in range(11, 31):
        stage.writer.want(1)
        assert stage.world.run(5, lambda: stage.writer.done)
        answer = stage.asker.answer(stage.member, level)
        assert answer is not None and answer[0] == number


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("level", [LINEARIZABLE, LEASE])
def test_linearizable_reads_are_not_there_without_a_majority(level: Consistency, role: str) -> None:
    """Cut off, a member answers nothing (by a lease: nothing any more), rather than anything old;
    and it says so, or at the latest after a while gives the query back."""
    stage = Stage(role)
    assert stage.asker.answer(stage.member, level) is not None
    stage.cut_off()
    stage.write_elsewhere()
    stage.world.run(1.0)  # longer than any lease
    known = len(stage.asker.answers)
    assert stage.asker.answer(stage.member, level, within=15) is None
    assert len(stage.asker.answers) == known
    assert stage.asker.refusals[-1] in (Reason.NOT_LEADER, Reason.OVERLOADED)
    stage.world.cut = set()
    assert stage.world.run(30, stage.world.settled)
    answer = stage.asker.answer(stage.member, level, within=1)
    assert answer is not None and answer[0] == 15


@pytest.mark.parametrize("seed", range(5))
def test_a_lease_needs_no_majority_and_ends_before_there_is_another_leader(seed: int) -> None:
    """It is what LINEARIZABLE does not have: answers for a moment though nobody is heard; and what
    it does not promise is any answer after that moment (H29)."""
    stage = Stage("leader", seed)
    for _ in range(3):
        assert stage.asker.answer(stage.member, LEASE) is not None
    stage.cut_off()
    alone = stage.world.now
    assert stage.asker.answer(stage.member, LEASE) is not None
    assert stage.asker.answer(stage.member, LINEARIZABLE) is None
    lasted = alone
    nodes = stage.world.nodes
    while not any(nodes[name].member.serving for name in stage.others):  # type: ignore[union-attr]
        if stage.asker.answer(stage.member, LEASE) is not None:
            lasted = stage.world.now
    assert 0 < lasted - alone < RaftOptions().election_timeout < stage.world.now - alone
    assert stage.asker.answer(stage.member, LEASE, within=0.3) is None


@pytest.mark.parametrize("role", ROLES)
def test_sequential_reads_never_go_back(role: str) -> None:
    """A client that has seen an index gets no older state, from whomever it asks: a member that is
    behind lets it wait, and answers when it has caught up (H30)."""
    stage = Stage(role)
    stage.cut_off()
    stage.write_elsewhere()
    elsewhere = next(name for name in stage.others if name != stage.member)
    seen = stage.asker.answer(elsewhere, SEQUENTIAL, within=1)
    while seen is None or seen[0] < 15:
        seen = stage.asker.answer(elsewhere, SEQUENTIAL, within=1)
    assert stage.asker.answer(stage.member, SEQUENTIAL, seen[1], within=1) is None
    waiting = len(stage.asker.answers)
    stage.world.cut = set()
    if role == "leader":  # it refuses what it cannot know of; the client asks again
        assert stage.world.run(30, stage.world.settled)
        stage.asker.ask(stage.member, SEQUENTIAL, seen[1])
    assert stage.world.run(5, lambda: len(stage.asker.answers) > waiting)
    assert stage.asker.answers[-1][0] == 15 and stage.asker.answers[-1][1] >= seen[1]


@pytest.mark.parametrize("role", ROLES)
def test_sequential_reads_may_be_behind_what_others_did(role: str) -> None:
    """Who has seen nothing of a write that was acknowledged to somebody else may not see it."""
    stage = Stage(role)
    seen = stage.asker.answer(stage.member, SEQUENTIAL)
    assert seen is not None and seen[0] == 10
    stage.cut_off()
    stage.write_elsewhere()
    for _ in range(3):
        again = stage.asker.answer(stage.member, SEQUENTIAL, seen[1])
        assert again is not None and again[0] == 10 and again[1] >= seen[1]


@pytest.mark.parametrize("role", ROLES)
def test_serializable_reads_are_answered_at_once_by_anybody(role: str) -> None:
    """Without a majority, without a leader, by the last member that is left; and what it says is a
    state that there was."""
    stage = Stage(role)
    for name in stage.world.nodes:
        if name != stage.member:
            stage.world.crash(name)
    for _ in range(5):
        answer = stage.asker.answer(stage.member, SERIALIZABLE)
        assert answer is not None and answer[0] == 10
        stage.world.run(1.0)


@pytest.mark.parametrize("role", ROLES)
def test_serializable_reads_may_be_old_and_go_back(role: str) -> None:
    """Asking one member and then another may turn back time, even for what one wrote oneself."""
    stage = Stage(role)
    stage.cut_off()
    stage.write_elsewhere()
    elsewhere = next(name for name in stage.others if name != stage.member)
    new = stage.asker.answer(elsewhere, SERIALIZABLE)
    while new is None or new[0] < 15:
        new = stage.asker.answer(elsewhere, SERIALIZABLE)
    old = stage.asker.answer(stage.member, SERIALIZABLE, new[1])
    assert old is not None and old[0] == 10 and old[1] < new[1]
