"""The desk: admission keeps each session's commands contiguous; nothing hostile gets through."""

from __future__ import annotations

import random

import pytest

from copycat._core import codec
from copycat._core.codec import Frame, FrameBuffer, Reason
from copycat._core.kernel import check_run, decode_results
from copycat._core.layout import Status
from copycat.serializer import Serializer
from copycat.server.applier import Applier
from copycat.server.desk import IN_FLIGHT_MAX, Desk
from copycat.types import Consistency

from .images import SECRET, LogWriter, commands, initialize, keep_alive, open_call, pack, unpack
from .test_applier import Tally


class Host:
    """A leader whose log commits when the test says so."""

    def __init__(self) -> None:
        self.leading = self.serving = True
        self.room = 1 << 30
        self.now = 100.0
        self.last_index = 1 << 32
        self.lease: int | None = None  # the index at which a lease lets reads be served

    def overloaded(self, size: int = 0) -> bool:
        return size >= self.room

    def lease_index(self) -> int | None:
        return self.lease

    def admin(self, name: str, arguments: list[object]) -> object:
        raise LookupError(name)


class World:
    """A desk with one registered session on connection 1, and the log beneath it."""

    def __init__(self) -> None:
        self.host = Host()
        self.applier = Applier({"Tally": Tally}, Serializer())
        self.desk = Desk(self.applier, self.host)
        self.log = LogWriter()
        self.staged: list[bytes] = []
        self.applier.apply(self.log.batch(initialize("Tally")))
        self.desk.frame(1, Frame.REGISTER, pack([b"u" * 16, 5000, "test", SECRET]))
        ((type_, payload),) = self.commit()[1]
        assert type_ == Frame.REGISTERED
        self.session, _ = codec.REGISTERED_HEAD.unpack(payload)
        self.run(commands(self.session, 1, open_call("/t", "Tally", "add", "get")))
        ((_, payload),) = self.commit()[1]
        result = decode_results(payload, codec.RESULTS_HEAD.size, 1)[0]
        self.resource, (self.add, self.get) = unpack(result[1:])

    def attach(self, connection: int) -> None:
        """Prove the session's secret on another connection."""
        head = codec.ATTACH_HEAD.pack(self.session, 0, SECRET)
        self.desk.frame(connection, Frame.ATTACH, head)
        assert [type_ for type_, _ in self.frames()[connection]] == [Frame.ATTACHED]

    def run(self, payload: bytes, connection: int = 1) -> None:
        self.desk.frame(connection, Frame.RUN, payload)

    def adds(self, first: int, count: int, acknowledged: int = 0) -> bytes:
        calls = [(self.resource, self.add, [1])] * count
        return commands(self.session, first, *calls, acknowledged=acknowledged)

    def append(self) -> None:
        """What was admitted goes into the log."""
        runs, self.desk.runs = self.desk.runs, []
        if runs:
            self.staged.append(self.log.batch(*runs))

    def commit(self) -> dict[int, list[tuple[int, bytes]]]:
        """Everything logged commits; the frames that leave, by connection."""
        self.append()
        for image in self.staged:
            self.applier.apply(image)
        self.staged.clear()
        self.desk.answer(self.applier.take())
        self.desk.answer_queries()
        return self.frames()

    def frames(self) -> dict[int, list[tuple[int, bytes]]]:
        frames, self.closed = self.desk.take_frames()
        return {
            connection: FrameBuffer(1 << 30, expect_preamble=False).feed(data)
            for connection, data in frames
        }

    def admitted(self) -> list[tuple[int, int]]:
        """(first sequence, count) of the runs admitted since the last append."""
        found = []
        for run in self.desk.runs:
            _, _, first, _, count, _ = check_run(run, 0, len(run), 1 << 20)
            found.append((first, count))
        return found


@pytest.fixture
def world() -> World:
    return World()


def rejection(frames: dict[int, list[tuple[int, bytes]]], connection: int = 1) -> tuple[int, int]:
    """(reason, detail) of the only frame on a connection."""
    ((type_, payload),) = frames[connection]
    assert type_ == Frame.REJECT
    reason, _, _, _, _, detail = codec.REJECT_HEAD.unpack_from(payload)
    return reason, detail


def test_a_run_continues_the_last_one_logged(world: World) -> None:
    """Pipelined runs are admitted in order without waiting for one another."""
    world.run(world.adds(2, 3))
    world.run(world.adds(5, 2))
    assert world.admitted() == [(2, 3), (5, 2)]
    frames = world.commit()[1]
    heads = [codec.RESULTS_HEAD.unpack_from(payload) for _, payload in frames]
    assert [(first, count) for _, first, _, count in heads] == [(2, 3), (5, 2)]


def test_a_hole_is_rejected_with_the_sequence_expected(world: World) -> None:
    """A run behind a hole is sent back whole; the client sends again from the given sequence."""
    world.run(world.adds(2, 2))
    world.run(world.adds(5, 2))
    assert world.admitted() == [(2, 2)]
    assert rejection(world.frames()) == (Reason.OUT_OF_ORDER, 4)


def test_resending_logs_nothing_twice(world: World) -> None:
    """Applied, logged and new parts of a resent run are answered, awaited and admitted (H36)."""
    world.run(world.adds(2, 2))
    world.commit()
    world.run(world.adds(4, 2))
    world.append()
    world.attach(2)
    world.run(world.adds(2, 6), connection=2)
    assert world.admitted() == [(6, 2)]
    ((type_, payload),) = world.frames()[2]
    assert type_ == Frame.RESULTS
    assert codec.RESULTS_HEAD.unpack_from(payload)[1::2] == (2, 2)
    heads = [codec.RESULTS_HEAD.unpack_from(p) for _, p in world.commit()[2]]
    assert [(first, count) for _, first, _, count in heads] == [(4, 2), (6, 2)]
    answer = world.applier.executor.query(world.resource, world.get, b"\x90")
    assert unpack(answer[1:]) == 6


@pytest.mark.parametrize("seed", range(30))
def test_any_resending_applies_each_command_once(seed: int) -> None:
    """However runs are cut, resent and overtaken by commits, each sequence is applied once."""
    chance = random.Random(seed)
    world = World()
    world.attach(2)
    sent = 1
    for _ in range(100):
        first = chance.randint(max(2, sent - 4), sent + 2)
        count = chance.randint(1, 6)
        world.run(world.adds(first, count), connection=chance.choice((1, 2)))
        if first <= sent + 1:
            sent = max(sent, first + count - 1)
        if chance.random() < 0.3:
            world.append()
        if chance.random() < 0.2:
            world.commit()
    world.commit()
    answer = world.applier.executor.query(world.resource, world.get, b"\x90")
    assert unpack(answer[1:]) == sent - 1
    session = world.applier.sessions.get(world.session)
    assert session is not None and session.last_sequence == sent


def test_overload_refuses_before_logging(world: World) -> None:
    """A refused run leaves no trace, and the same sequence is admitted later (H101)."""
    world.host.room = len(world.adds(2, 1))
    world.run(world.adds(2, 1))
    assert world.admitted() == []
    assert rejection(world.frames())[0] == Reason.OVERLOADED
    world.host.room += 1
    world.run(world.adds(2, 1))
    assert world.admitted() == [(2, 1)]


def test_unacknowledged_commands_are_bounded(world: World) -> None:
    """A session that never acknowledges cannot make the result cache grow without end (H37)."""
    world.run(world.adds(2, IN_FLIGHT_MAX - 1))
    world.commit()
    world.run(world.adds(IN_FLIGHT_MAX + 1, 1))
    assert rejection(world.frames())[0] == Reason.OVERLOADED
    world.run(world.adds(IN_FLIGHT_MAX + 1, 1, acknowledged=IN_FLIGHT_MAX))
    assert world.admitted() == [(IN_FLIGHT_MAX + 1, 1)]


def test_unknown_sessions_are_told_so(world: World) -> None:
    """A command of a session that ended is refused, never applied under another."""
    world.run(commands(999, 1, (world.resource, world.add, [1])))
    assert rejection(world.frames()) == (Reason.UNKNOWN_SESSION, 999)


def test_a_follower_sends_clients_to_the_leader(world: World) -> None:
    """Commands need the leader, linearizable queries an index from it; local reads do not."""
    world.host.leading = world.host.serving = False
    world.run(world.adds(2, 1))
    assert rejection(world.frames())[0] == Reason.NOT_LEADER
    head = codec.QUERY_HEAD.pack(1, 0, 1, Consistency.LINEARIZABLE)
    query = commands(0, 0, (world.resource, world.get, []))[40:]
    world.desk.frame(1, Frame.QUERIES, head + query)
    read = world.desk.take_read()
    assert read is not None and world.frames() == {}
    world.desk.reads_settled((), [read])
    assert rejection(world.frames())[0] == Reason.NOT_LEADER
    head = codec.QUERY_HEAD.pack(1, 0, 1, Consistency.SERIALIZABLE)
    world.desk.frame(1, Frame.QUERIES, head + query)
    world.desk.answer_queries()
    ((type_, payload),) = world.frames()[1]
    assert type_ == Frame.ANSWERS
    assert decode_results(payload, codec.ANSWERS_HEAD.size, 1) == [bytes((Status.OK, 0))]


def test_sequential_reads_wait_for_the_index_the_session_saw(world: World) -> None:
    """A member that lags behind what the session has seen does not answer yet (H30)."""
    head = codec.QUERY_HEAD.pack(1, world.applier.index + 1, 1, Consistency.SEQUENTIAL)
    query = commands(0, 0, (world.resource, world.get, []))[40:]
    world.desk.frame(1, Frame.QUERIES, head + query)
    world.desk.answer_queries()
    assert world.frames() == {}
    world.run(world.adds(2, 1))
    frames = world.commit()[1]
    assert [type_ for type_, _ in frames] == [Frame.RESULTS, Frame.ANSWERS]


def test_nobody_waits_at_a_leader_for_what_it_has_not_logged(world: World) -> None:
    """A leader has all that anybody can have seen: who asks for more is told to look elsewhere."""
    query = commands(0, 0, (world.resource, world.get, []))[40:]
    world.host.last_index = world.applier.index + 5
    for above, refused in ((5, False), (6, True), (1 << 62, True)):
        head = codec.QUERY_HEAD.pack(1, world.applier.index + above, 1, Consistency.SEQUENTIAL)
        world.desk.frame(1, Frame.QUERIES, head + query)
        frames = world.frames()
        assert frames == {} or rejection(frames) == (Reason.NOT_LEADER, 0)
        assert bool(frames) == refused and not world.closed
    world.host.leading = False  # the leader may well have told somebody more than we have
    world.desk.frame(1, Frame.QUERIES, head + query)
    assert world.frames() == {}


def test_a_lease_needs_no_round(world: World) -> None:
    """A read that is content with a lease asks nobody while there is one, and is answered once its
    index is applied; without one it waits for Raft like any other, as do those that want a round.
    """

    def ask(level: Consistency) -> None:
        query = commands(0, 0, (world.resource, world.get, []))[40:]
        world.desk.frame(1, Frame.QUERIES, codec.QUERY_HEAD.pack(1, 0, 1, level) + query)

    world.host.lease = world.applier.index + 1
    ask(Consistency.LINEARIZABLE_LEASE)
    assert world.desk.take_read() is None
    world.desk.answer_queries()
    assert world.frames() == {}
    world.run(world.adds(2, 1))
    assert [type_ for type_, _ in world.commit()[1]] == [Frame.RESULTS, Frame.ANSWERS]
    ask(Consistency.LINEARIZABLE)
    assert world.desk.take_read() is not None
    world.host.lease = None
    ask(Consistency.LINEARIZABLE_LEASE)
    assert world.desk.take_read() is not None


def test_reads_wait_for_their_index(world: World) -> None:
    """A linearizable query is answered only when the index Raft gave is applied (H27)."""
    head = codec.QUERY_HEAD.pack(7, 0, 1, Consistency.LINEARIZABLE)
    query = commands(0, 0, (world.resource, world.get, []))[40:]
    world.desk.frame(1, Frame.QUERIES, head + query)
    read = world.desk.take_read()
    assert read is not None and world.desk.take_read() is None
    world.desk.answer_queries()
    assert world.frames() == {}
    world.desk.reads_settled([(read, world.applier.index + 1)], ())
    world.desk.answer_queries()
    assert world.frames() == {}
    world.run(world.adds(2, 1))
    frames = world.commit()[1]
    result = decode_results(frames[1][1], codec.ANSWERS_HEAD.size, 1)[0]
    assert unpack(result[1:]) == 1


def test_commands_held_by_a_new_leader_are_admitted_when_it_serves(world: World) -> None:
    """Between election and readiness nothing is refused and nothing logged out of turn."""
    world.host.serving = False
    world.run(world.adds(2, 2))
    assert world.admitted() == [] and world.frames() == {}
    world.host.serving = True
    world.desk.began_serving()
    assert world.admitted() == [(2, 2)]


def test_what_is_held_is_rejected_on_deposition(world: World) -> None:
    """A leader that steps down before it serves sends the waiting clients away."""
    world.host.serving = False
    world.run(world.adds(2, 2))
    world.host.leading = False
    world.desk.deposed()
    assert rejection(world.frames())[0] == Reason.NOT_LEADER


def test_attach_resends_events_after_the_last_received(world: World) -> None:
    """After a reconnect events continue exactly where the client says it stopped (H43)."""
    listen = (0, 6, [world.resource, "moved"])
    world.run(commands(world.session, 2, listen))
    for sequence in (3, 4, 5):
        world.run(world.adds(sequence, 1))
        world.commit()
    session = world.applier.sessions.get(world.session)
    assert session is not None
    second = session.events[1][0]
    world.desk.frame(9, Frame.ATTACH, codec.ATTACH_HEAD.pack(world.session, second, SECRET))
    (_, attached), (type_, event) = world.frames()[9]
    assert codec.ATTACHED_HEAD.unpack(attached) == (world.session, 5, 1)
    assert type_ == Frame.EVENTS
    assert codec.EVENTS_HEAD.unpack_from(event)[1:] == (session.events[2][0], second)


@pytest.mark.parametrize("seed", range(40))
def test_malformed_frames_close_their_connection_only(world: World, seed: int) -> None:
    """Mutated frames are rejected as malformed or are valid; nothing else ever happens (H79)."""
    chance = random.Random(seed)
    good = [
        (Frame.RUN, world.adds(2, 2)),
        (Frame.RUN, keep_alive(world.session)),
        (Frame.REGISTER, pack([b"v" * 16, 5000, "x", SECRET])),
        (Frame.ATTACH, codec.ATTACH_HEAD.pack(world.session, 0, SECRET)),
        (Frame.QUERIES, codec.QUERY_HEAD.pack(1, 0, 1, 0) + world.adds(1, 1)[40:]),
        (Frame.ADMIN, pack([1, "status", []])),
    ]
    for _ in range(50):
        type_, payload = chance.choice(good)
        broken = bytearray(payload)
        for _ in range(chance.randint(1, 3)):
            if chance.random() < 0.3:
                del broken[chance.randrange(len(broken) + 1) :]
            elif broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
        world.desk.frame(3, chance.choice((type_, chance.randrange(256))), bytes(broken))
        world.commit()
    world.run(world.adds(world.applier.sessions.get(world.session).last_sequence + 1, 1))  # type: ignore[union-attr]
    assert world.commit()[1]
