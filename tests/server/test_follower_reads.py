"""Queries at members that do not lead: never staler than promised, and never without an end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from copycat._core import codec
from copycat._core.codec import Frame, FrameBuffer, Reason
from copycat._core.kernel import decode_results
from copycat.server.effects import ClientFrame, ClientGone, PeerDown
from copycat.server.reads import SWEEP_S, WAIT_S
from copycat.types import Consistency

from .images import commands, unpack
from .world import Client, World

SETTLED_WITHIN = WAIT_S + 2 * SWEEP_S


@dataclass
class Question:
    """A query under way."""

    level: Consistency
    asked_at: float
    floor: int  # no smaller value may come
    index: int  # nor one of an older state


class Reader:
    """Asks one member at a time, by a connection without a session, and judges the answers."""

    def __init__(self, world: World, writers: list[Client], finished: list[int]) -> None:
        Client._next += 1
        self.id = Client._next
        world.clients[self.id] = self  # type: ignore[assignment]
        self.world = world
        self.writers = writers
        self.finished = finished  # values of linearizable reads of all readers
        self.member = ""
        self.index = 0  # the highest that it has seen
        self.questions: dict[int, Question] = {}
        self.answers: dict[Consistency, int] = dict.fromkeys(Consistency, 0)
        self.elsewhere = 0  # linearizable answers of members that do not lead
        self.refusals: list[int] = []
        self.value = 0
        self._asked = 0

    def connect(self, member: str) -> None:
        """To this member from now on."""
        if self.member and self.world.nodes[self.member].member is not None:
            node = self.world.nodes[self.member]
            self.world.push(node, ClientGone(self.id), self.world.in_order(self.id, self.member))
        self.questions.clear()
        self.member = member

    def ask(self, level: Consistency, index: int | None = None) -> None:
        """For the value of the tally."""
        self.check()
        (writer, *_) = [each for each in self.writers if each.opened] or [None]
        node = self.world.nodes.get(self.member)
        if writer is None or node is None or node.member is None:
            return
        floor = self.value if level == Consistency.SEQUENTIAL else 0
        if level == Consistency.LINEARIZABLE:
            acknowledged = [value for each in self.writers for value in each.values]
            floor = max([*acknowledged, *self.finished], default=0)
        if index is None:  # that the resource is there is known from the writer
            index = max(self.index, writer.resource)
        self._asked += 1
        seen = index if level == Consistency.SEQUENTIAL else 0
        self.questions[self._asked] = Question(level, self.world.now, floor, seen)
        head = codec.QUERY_HEAD.pack(self._asked, index, 1, level)
        payload = head + commands(0, 0, (writer.resource, writer.get, []))[40:]
        delay = self.world.in_order(self.id, self.member)
        self.world.push(node, ClientFrame(self.id, Frame.QUERIES, payload), delay)

    def check(self) -> None:
        """Nothing waits for ever (H26)."""
        for question in self.questions.values():
            assert self.world.now < question.asked_at + SETTLED_WITHIN, question

    def lost(self, member: str) -> None:
        """The member died."""
        if member == self.member:
            self.questions.clear()
            self.member = ""

    def receive(self, member: str, frames: bytes) -> None:
        """Judge what comes."""
        if member != self.member:
            return
        for type_, payload in FrameBuffer(1 << 30, expect_preamble=False).feed(frames):
            if type_ == Frame.REJECT:
                reason, _, _, _, first, _ = codec.REJECT_HEAD.unpack_from(payload)
                assert reason in (Reason.NOT_LEADER, Reason.OVERLOADED)
                if self.questions.pop(first, None):
                    self.refusals.append(reason)
                continue
            assert type_ == Frame.ANSWERS
            first, applied, _ = codec.ANSWERS_HEAD.unpack_from(payload)
            question = self.questions.pop(first, None)
            if question is None:
                continue  # of an earlier connection
            self.answers[question.level] += 1
            (result,) = decode_results(payload, codec.ANSWERS_HEAD.size, 1)
            if question.level == Consistency.SERIALIZABLE:
                continue  # which may not even know the resource
            value = unpack(result[1:])
            assert value >= question.floor and applied >= question.index, (question, value)
            self.index = max(self.index, applied)
            self.value = max(self.value, value)
            if question.level == Consistency.LINEARIZABLE:
                self.finished.append(value)
                node = self.world.nodes[member].member
                self.elsewhere += node is not None and not node.leading


def quiet_world(seed: int) -> tuple[World, Client, list[str]]:
    """A cluster with a writer that has counted to ten; the followers' names."""
    world = World(seed)
    writer = Client(world)
    writer.want(10)
    assert world.run(10, lambda: writer.done)
    return world, writer, [name for name in world.nodes if name != world.leader()]


@pytest.mark.parametrize("level", Consistency)
def test_a_follower_answers_queries_of_every_level(level: Consistency) -> None:
    """A round trip to the leader at most, and the answer holds what was acknowledged."""
    world, writer, followers = quiet_world(1)
    reader = Reader(world, [writer], [])
    reader.connect(followers[0])
    for number in range(1, 21):
        writer.want(1)
        assert world.run(5, lambda: writer.done)
        reader.ask(level)
        assert world.run(0.05, lambda: not reader.questions), "it takes a round trip"
        assert reader.answers[level] == number
    if level >= Consistency.LINEARIZABLE_LEASE:
        assert reader.value == 30
    assert not reader.refusals


def test_a_follower_that_is_cut_off_gives_queries_back() -> None:
    """It cannot ask the leader; soon it knows no leader and refuses at once (H26)."""
    world, writer, (follower, _) = quiet_world(2)
    reader = Reader(world, [writer], [])
    reader.connect(follower)
    others = [name for name in world.nodes if name != follower]
    world.cut = {(follower, other) for other in others} | {(other, follower) for other in others}
    writer.want(5)
    assert world.run(5, lambda: writer.done)
    reader.ask(Consistency.LINEARIZABLE)
    assert world.run(2.5, lambda: not reader.questions)
    assert reader.refusals == [Reason.NOT_LEADER]
    reader.ask(Consistency.LINEARIZABLE)
    assert world.run(0.02, lambda: not reader.questions)
    reader.ask(Consistency.SERIALIZABLE)  # but this one it can answer
    assert world.run(0.02, lambda: not reader.questions)
    assert reader.answers[Consistency.SERIALIZABLE] == 1
    member = world.nodes[follower].member
    assert member is not None
    far = int(str(member.status()["last_index"])) + 1
    reader.ask(Consistency.SEQUENTIAL, far)
    world.run(WAIT_S - 0.1)
    assert reader.questions
    assert world.run(SWEEP_S + 0.2, lambda: not reader.questions)
    assert reader.refusals[-1] == Reason.OVERLOADED


def test_a_leader_that_was_replaced_helps_nobody_to_a_stale_answer() -> None:
    """It still believes to lead, and so does the follower that asks it: no quorum does (H27)."""
    names = ("n1", "n2", "n3", "n4", "n5")
    world = World(5, names)
    writer = Client(world)
    writer.want(10)
    assert world.run(10, lambda: writer.done)
    old = str(world.leader())
    follower, *others = [name for name in names if name != old]
    reader = Reader(world, [writer], [])
    reader.connect(follower)
    world.run(0.3)
    world.cut = {(a, b) for a in (old, follower) for b in others}
    world.cut |= {(b, a) for a, b in world.cut}
    for name in others:  # as if its address refused them: they need not wait for a timeout
        world.push(world.nodes[name], PeerDown(old, True), 0.0)
    member = world.nodes[old].member
    assert member is not None
    assert world.run(0.5, lambda: any(world.nodes[name].member.serving for name in others))  # type: ignore[union-attr]
    writer.connect(next(name for name in others if world.nodes[name].member.serving))  # type: ignore[union-attr]
    writer.want(5)
    assert world.run(0.3, lambda: writer.done)
    assert member.leading and member.serving
    reader.ask(Consistency.LINEARIZABLE)
    world.run(0.05)
    assert reader.questions and member.leading
    assert world.run(2.5, lambda: not reader.questions)
    assert not reader.answers[Consistency.LINEARIZABLE]
    world.cut = set()
    assert world.run(20, world.settled)
    reader.ask(Consistency.LINEARIZABLE)
    assert world.run(0.05, lambda: not reader.questions)
    assert reader.value == 15


def test_a_learner_without_a_leader_gives_queries_back() -> None:
    """It has no election to wake up for, and wakes up all the same (H26)."""
    world, writer, _ = quiet_world(3)
    world.join("n4")
    assert world.run(20, world.settled)
    for name in ("n1", "n2", "n3"):
        world.crash(name)
    world.run(5)
    reader = Reader(world, [writer], [])
    reader.connect("n4")
    reader.ask(Consistency.SEQUENTIAL, 1 << 40)
    reader.ask(Consistency.LINEARIZABLE)
    world.run(0.1)
    assert reader.refusals == [Reason.NOT_LEADER]
    assert world.run(SETTLED_WITHIN, lambda: not reader.questions)
    assert reader.refusals[-1] == Reason.OVERLOADED
    member = world.nodes["n4"].member
    assert member is not None and member.turn(world.now, []).wake_at > world.now


def test_who_names_an_index_that_nobody_has_waits_nowhere_for_long() -> None:
    """The leader refuses at once, a follower when the time is over; others are served (H101)."""
    world, writer, (follower, _) = quiet_world(4)
    leader = str(world.leader())
    liar, honest = Reader(world, [writer], []), Reader(world, [writer], [])
    liar.connect(leader)
    liar.ask(Consistency.SEQUENTIAL, 1 << 60)
    assert world.run(0.02, lambda: not liar.questions)
    liar.connect(follower)
    honest.connect(follower)
    for _ in range(100):
        liar.ask(Consistency.SEQUENTIAL, 1 << 60)
    honest.ask(Consistency.SEQUENTIAL)
    assert world.run(0.02, lambda: not honest.questions)
    assert honest.answers[Consistency.SEQUENTIAL] == 1
    assert world.run(SETTLED_WITHIN, lambda: not liar.questions)
    member = world.nodes[follower].member
    assert member is not None and member._desk.wake_at == math.inf


@pytest.mark.parametrize("seed", range(12))
def test_hostile_lives_of_readers(seed: int) -> None:
    """Members crash, messages are lost, links are cut: linearizable answers hold all that was
    acknowledged or read before, sequential ones never go back, and each query ends (H27, H30)."""
    world = World(1000 + seed, loss=0.02 if seed % 3 == 0 else 0.0)
    chance = world.chance
    writers = [Client(world) for _ in range(2)]
    finished: list[int] = []
    readers = [Reader(world, writers, finished) for _ in range(4)]

    def read(reader: Reader) -> None:
        alive = [name for name, node in world.nodes.items() if node.member is not None]
        if alive and (reader.member not in alive or chance.random() < 0.1):
            reader.connect(chance.choice(alive))
        for _ in range(chance.randint(1, 3)):
            level = chance.choice((Consistency.LINEARIZABLE, Consistency.SEQUENTIAL))
            reader.ask(Consistency.SERIALIZABLE if chance.random() < 0.1 else level)
        world.at(chance.expovariate(20), lambda: read(reader))

    for reader in readers:
        read(reader)
    for _ in range(12):
        for writer in writers:
            writer.want(chance.randint(0, 60))
        world.run(chance.uniform(0.05, 2.0))
        action = chance.random()
        alive = [name for name, node in world.nodes.items() if node.member is not None]
        dead = [name for name in world.nodes if name not in alive]
        if dead and action < 0.4:
            world.start(chance.choice(dead))
        elif action < 0.6 and len(alive) > 1:
            world.crash(world.leader() or chance.choice(alive))
        elif action < 0.8:
            one = chance.choice(sorted(world.nodes))
            world.cut = {(one, other) for other in world.nodes if chance.random() < 0.7}
            if chance.random() < 0.5:
                world.cut |= {(other, one) for one, other in world.cut}
        else:
            world.cut = set()
    world.cut, world.loss = set(), 0.0
    for name, node in world.nodes.items():
        if node.member is None:
            world.start(name)
    assert world.run(60, lambda: all(each.done or each.ended for each in writers))
    world.run(2.0)
    for reader in readers:
        reader.check()
        assert reader.answers[Consistency.LINEARIZABLE] > 10
    assert sum(reader.elsewhere for reader in readers) > 10
