"""Nobody can make a member grow without end: every limit is a clear refusal that harms no other."""

from __future__ import annotations

import math
import random

import pytest

from copycat._core import codec
from copycat._core.codec import Frame, Reason
from copycat._core.kernel import decode_results
from copycat._core.layout import Status
from copycat.errors import OverloadedError
from copycat.machine import StateMachine, query
from copycat.outcomes import error_of
from copycat.pipeline import Requests
from copycat.resources import LockMachine, MapMachine
from copycat.resources import line as line_module
from copycat.resources import map_machine as map_module
from copycat.serializer import Serializer
from copycat.server import applier as applier_module
from copycat.server import desk as desk_module
from copycat.server import gateway as gateway_module
from copycat.server import reads as reads_module
from copycat.server import sessions as sessions_module
from copycat.server import system as system_module
from copycat.server.applier import Applier
from copycat.server.executor import result_of
from copycat.server.reads import Reads
from copycat.server.sessions import FULL
from copycat.system import SystemOperation
from copycat.types import Consistency

from ..client.fake_server import client, fake_cluster
from ..resources.test_machines import Runner
from .images import (
    SECRET,
    commands,
    initialize,
    open_call,
    pack,
    register,
    results_of,
    unpack,
    unregister,
)
from .loops import run
from .test_applier import World as State
from .test_desk import World, rejection


def system_call(state: State, operation: int, *args: object) -> bytes:
    """The result of one of the system's commands."""
    state.sequence += 1
    state.apply(commands(state.session, state.sequence, (0, operation, list(args))))
    return results_of(state.applier.take().answers[-1])[0]


def refusal(result: bytes) -> str:
    """The message of a result that says that a limit is reached."""
    assert result[0] == Status.OVERLOADED
    error = error_of(result, Serializer(opaque=True))
    assert isinstance(error, OverloadedError) and error.applied == "no" and error.retry_after > 0
    return str(error)


# -- sessions ----------------------------------------------------------------------------------


def test_sessions_are_limited_in_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit nothing is registered, on every member alike, until a session ends."""
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 3)
    state = State()
    state.applier.take()
    state.apply(*(register(bytes([n]) * 16) for n in range(4)))
    ids = [id_ for _, _, id_ in state.applier.take().registered]
    assert ids[2:] == [FULL, FULL] and FULL not in ids[:2]
    assert len(state.applier.sessions) == 3
    state.apply(register(bytes([0]) * 16))
    assert state.applier.take().registered[0][2] == ids[0], "one that lives is known as before"
    state.apply(unregister(ids[0]))
    state.apply(register(bytes([9]) * 16))
    assert state.applier.take().registered[0][2] > 0
    replayed = state.fresh()
    for image in state.images:
        replayed.apply(image)
    assert replayed.image() == state.applier.image()


def test_sessions_are_refused_before_anything_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader's desk says no by itself, counting those it is just registering."""
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 2)
    world = World()
    for n in (1, 2):
        world.desk.frame(2, Frame.REGISTER, pack([bytes([n]) * 16, 5000, "x", SECRET]))
    assert len(world.desk.runs) == 1
    reason, retry = rejection(world.frames(), 2)
    assert reason == Reason.OVERLOADED and retry > 0
    world.desk.frame(2, Frame.REGISTER, pack([b"u" * 16, 5000, "x", SECRET]))
    assert len(world.desk.runs) == 2, "who has a session already may ask for it again"


def test_a_registration_that_the_state_refuses_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the limit is reached only when a registration is applied, its client hears of it."""
    world = World()
    world.desk.frame(2, Frame.REGISTER, pack([b"v" * 16, 5000, "x", SECRET]))
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 1)
    assert rejection(world.commit(), 2)[0] == Reason.OVERLOADED


def test_a_client_says_that_the_cluster_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting to a full cluster fails as OverloadedError, and works once there is room."""
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 1)

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster):
            with pytest.raises(OverloadedError, match="1 sessions, its limit"):
                async with client(cluster, timeout=0.2):
                    pass
            monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 2)
            async with client(cluster) as second:
                assert await second.long("/n").increment() == 1

    run(main())


# -- what clients leave in the state -----------------------------------------------------------


def test_listeners_of_a_session_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts what is listened to now, also after a restore; others are unharmed."""
    monkeypatch.setattr(system_module, "LISTENERS_MAX", 3)
    state = State()
    listen, unlisten = SystemOperation.LISTEN, SystemOperation.UNLISTEN
    for name in ("a", "b", "c", "c"):
        assert system_call(state, listen, state.resource, name)[0] == Status.OK
    assert "3 events, its limit" in refusal(system_call(state, listen, state.resource, "d"))
    state.applier.restore(state.applier.image())
    refusal(system_call(state, listen, state.resource, "d"))
    assert system_call(state, unlisten, state.resource, "zz")[0] == Status.OK
    refusal(system_call(state, listen, state.resource, "d"))
    assert system_call(state, unlisten, state.resource, "a")[0] == Status.OK
    assert system_call(state, listen, state.resource, "d")[0] == Status.OK
    assert system_call(state, SystemOperation.DELETE, "/t")[0] == Status.OK
    assert len(state.applier.system._listening) == 0


def test_names_of_operations_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names live for ever, so new ones end somewhere; what is known can still be opened."""
    state = State()
    monkeypatch.setattr(system_module, "NAMES_MAX", 6)
    opened = system_call(state, SystemOperation.OPEN, "/t", "Tally", 1, ["get", "x", "y"])
    assert opened[0] == Status.OK
    before = state.applier.image()
    known = len(state.applier.system._schema.names)
    result = system_call(state, SystemOperation.OPEN, "/u", "Tally", 1, ["get", "z"])
    assert "6 names" in refusal(result)
    assert len(state.applier.system._schema.names) == known and len(before) > 0
    assert system_call(state, SystemOperation.OPEN, "/u", "Tally", 1, ["get"])[0] == Status.OK
    long = system_call(state, SystemOperation.OPEN, "/u", "Tally", 1, ["n" * 257])
    assert long[0] == Status.FAILED


def test_paths_are_limited_in_number_length_and_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither many nor long nor deep paths get in, whoever sends them."""
    state = State()
    create = SystemOperation.CREATE
    assert system_call(state, create, "/" + "x" * 2000)[0] == Status.REJECTED
    assert system_call(state, create, "/x" * 65)[0] == Status.REJECTED
    monkeypatch.setattr(system_module, "PATHS_MAX", len(state.applier.system._tree) + 1)
    assert system_call(state, create, "/one")[0] == Status.OK
    assert "paths, its limit" in refusal(system_call(state, create, "/two"))
    refusal(system_call(state, SystemOperation.OPEN, "/two", "Tally", 1, []))
    assert unpack(system_call(state, create, "/one")[1:]) is False
    assert system_call(state, SystemOperation.OPEN, "/one", "Tally", 1, [])[0] == Status.OK


# -- what costs a walk over the state ----------------------------------------------------------


def test_digests_are_one_a_second_of_log_time() -> None:
    """All members refuse the same ones, also those restored from a snapshot in between."""
    state = State()
    assert system_call(state, SystemOperation.DIGEST)[0] == Status.OK
    assert "less than a second ago" in refusal(system_call(state, SystemOperation.DIGEST))
    restored = state.fresh()
    restored.restore(state.applier.image())
    fed = len(state.images)
    state.log.time_us += 999_999
    refusal(system_call(state, SystemOperation.DIGEST))
    state.log.time_us += 1
    assert system_call(state, SystemOperation.DIGEST)[0] == Status.OK
    for image in state.images[fed:]:
        restored.apply(image)
    assert restored.image() == state.applier.image()


def test_snapshots_on_demand_are_one_a_second() -> None:
    """An administrator's second request within a second does not reach the member."""
    world = World()
    asked: list[str] = []
    world.host.admin = lambda name, arguments: asked.append(name) or 7  # type: ignore[assignment, func-returns-value]
    for now in (100.0, 100.5, 100.99, 101.0):
        world.host.now = now
        world.desk.frame(1, Frame.ADMIN, pack([1, "snapshot", []]))
        world.desk.frame(1, Frame.ADMIN, pack([2, "status", []]))
    assert asked == ["snapshot", "status", "status", "status", "snapshot", "status"]
    replies = [unpack(p) for t, p in world.frames()[1] if t == Frame.ADMIN_REPLY]
    assert sum(isinstance(error, list) for _, error, _ in replies) == 2


def test_a_client_hears_that_a_snapshot_was_refused() -> None:
    """The refusal is an OverloadedError that says when to come again."""

    async def main() -> None:
        import asyncio

        requests = Requests(Serializer())
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        requests.ask(1, "snapshot", [], future)
        requests.reply(pack([1, ["too early", 1000], None]))
        with pytest.raises(OverloadedError, match="too early") as caught:
            await future
        assert caught.value.retry_after == 1.0

    run(main())


# -- queries that wait -------------------------------------------------------------------------


def asking(
    world: World,
    index: int,
    first: int = 1,
    count: int = 1,
    level: Consistency = Consistency.SEQUENTIAL,
) -> bytes:
    """A frame of queries, if SEQUENTIAL for the state at ``index``."""
    head = codec.QUERY_HEAD.pack(first, index, count, level)
    calls = [(world.resource, world.get, [])] * count
    return head + commands(0, 0, *calls)[40:]  # type: ignore[arg-type]


def test_one_connection_cannot_take_the_room_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for an index far away fills its own share only; others are answered as before."""
    monkeypatch.setattr(reads_module, "SHARE_MAX", 10)
    world = World()
    world.host.leading = world.host.serving = False  # a leader would refuse them
    for first in range(12):
        world.desk.frame(5, Frame.QUERIES, asking(world, 1 << 60, first + 1))
    rejected = world.frames()[5]
    assert [type_ for type_, _ in rejected] == [Frame.REJECT] * 2
    assert codec.REJECT_HEAD.unpack_from(rejected[0][1])[0] == Reason.OVERLOADED
    world.desk.frame(6, Frame.QUERIES, asking(world, 0))
    world.desk.answer_queries()
    assert [type_ for type_, _ in world.frames()[6]] == [Frame.ANSWERS]
    world.desk.gone(5)
    world.desk.frame(5, Frame.QUERIES, asking(world, 1 << 60))
    assert world.frames() == {}


def test_all_liars_together_leave_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes beyond the log take a part of the room only, however many connections ask."""
    monkeypatch.setattr(reads_module, "WAITING_MAX", 40)
    monkeypatch.setattr(reads_module, "AHEAD_MAX", 10)
    world = World()
    world.host.leading = world.host.serving = False
    world.host.last_index = world.applier.index + 1
    for connection in range(5, 30):
        world.desk.frame(connection, Frame.QUERIES, asking(world, world.host.last_index + 1))
    assert sorted(world.frames()) == list(range(15, 30))  # refused
    for connection in range(30, 50):
        world.desk.frame(connection, Frame.QUERIES, asking(world, world.host.last_index))
    assert world.frames() == {}
    world.desk.gone(5)
    for connection in (50, 51):
        world.desk.frame(connection, Frame.QUERIES, asking(world, 1 << 60))
    assert list(world.frames()) == [51]


def test_queries_do_not_wait_for_ever() -> None:
    """What cannot be answered in time goes back to its client, which may ask again (H26)."""
    world = World()
    world.host.leading = world.host.serving = False
    assert world.desk.wake_at == math.inf
    world.desk.frame(5, Frame.QUERIES, asking(world, 1 << 60, first=7))
    world.desk.frame(5, Frame.QUERIES, asking(world, 0, first=8, level=Consistency.LINEARIZABLE))
    read = world.desk.take_read()
    assert read is not None  # Raft is never heard of again
    world.desk.answer_queries()
    world.host.now += reads_module.WAIT_S
    world.desk.answer_queries()
    assert world.frames() == {} and world.desk.waits
    assert world.desk.wake_at == world.host.now + reads_module.SWEEP_S
    world.host.now += reads_module.SWEEP_S + 0.1
    world.desk.answer_queries()
    for expected, (type_, payload) in zip((7, 8), world.frames()[5], strict=True):
        reason, frame, _, _, first, _ = codec.REJECT_HEAD.unpack_from(payload)
        assert (type_, reason, frame) == (Frame.REJECT, Reason.OVERLOADED, Frame.QUERIES)
        assert first == expected
    assert not world.desk.waits and world.desk.wake_at == math.inf
    world.desk.reads_settled([(read, 0)], ())  # too late
    world.desk.answer_queries()
    assert world.frames() == {}


class Big(StateMachine):
    """Its answer is much longer than the question."""

    @query
    def all(self) -> bytes:
        return b"x" * 1000


def test_answers_to_one_frame_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small frame cannot ask for gigabytes: what exceeds the limit is refused by itself."""
    monkeypatch.setattr(applier_module, "ANSWER_BYTES_MAX", 2500)
    state = State()
    state.applier = Applier({"Big": Big}, Serializer())
    state.log.next_index = 1
    state.apply(initialize("Big"), register(b"b" * 16))
    state.apply(commands(2, 1, open_call("/big", "Big", "all")))
    resource, (operation,) = unpack(results_of(state.applier.take().answers[-1])[0][1:])
    body = commands(0, 0, *[(resource, operation, [])] * 5)[40:]  # type: ignore[arg-type]
    results = state.applier.query(body, 0, 5)
    assert [result[0] for result in results] == [Status.OK] * 3 + [Status.OVERLOADED] * 2
    assert "sent together" in refusal(results[-1])


def test_answers_of_one_turn_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers that have no room in this turn leave in the next ones, in order, none lost."""
    monkeypatch.setattr(desk_module, "ANSWER_BYTES_MAX", 20)
    world = World()
    for first in range(1, 30, 3):
        world.desk.frame(5, Frame.QUERIES, asking(world, 0, first, 3))
    seen: list[int] = []
    turns = 0
    while world.desk.unfinished:
        world.desk.answer_queries()
        for _, payload in world.frames()[5]:
            seen.append(codec.ANSWERS_HEAD.unpack_from(payload)[0])
            assert len(decode_results(payload, codec.ANSWERS_HEAD.size, 3)) == 3
        turns += 1
    assert seen == list(range(1, 30, 3))
    assert turns == 5


@pytest.mark.parametrize("seed", range(20))
def test_the_books_about_waiting_queries_balance(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever comes, is confirmed, fails, is answered, grows old or hangs up: nothing is lost."""
    monkeypatch.setattr(reads_module, "SHARE_MAX", 6)
    monkeypatch.setattr(reads_module, "WAITING_MAX", 15)
    monkeypatch.setattr(reads_module, "AHEAD_MAX", 4)
    chance = random.Random(seed)
    reads = Reads()
    waiting: dict[bytes, int] = {}  # frame -> connection
    ids: list[int] = []
    applied, now = 0, 0.0

    def out(released: list[tuple[int, bytes]]) -> None:
        for connection, frame in released:
            assert waiting.pop(frame) == connection

    for number in range(400):
        kind = chance.randrange(10)
        now += chance.random()
        if kind < 5:
            connection, frame = chance.randrange(4), b"%d" % number
            index = chance.choice((None, applied, applied + chance.randint(1, 20), 1 << 60))
            mine = sum(each == connection for each in waiting.values())
            ahead = index is not None and index > applied + 10
            full = ahead and len(reads._ahead) >= 4
            taken = reads.add(connection, frame, now, index, ahead=ahead)
            assert taken == (mine < 6 and len(waiting) < 15 and not full)
            if taken:
                waiting[frame] = connection
        elif kind == 5:
            id_ = reads.take_fresh()
            ids += [] if id_ is None else [id_]
        elif kind == 6 and ids:
            id_ = ids.pop(chance.randrange(len(ids)))
            if chance.random() < 0.5:
                reads.confirmed(id_, applied + chance.randint(0, 3))
            else:
                out(reads.failed(id_))
        elif kind == 7:
            applied += chance.randint(0, 5)
            out(list(reads.take_ready(applied)))
            assert not reads.ready(applied)
        elif kind == 8:
            out(reads.overdue(now))
        elif chance.random() < 0.5:
            connection = chance.randrange(4)
            reads.gone(connection)
            waiting = {frame: who for frame, who in waiting.items() if who != connection}
        assert len(reads) == len(waiting)
        assert reads._bytes == sum(map(len, waiting))
    for connection in range(4):
        reads.gone(connection)
    assert len(reads) == reads._bytes == reads._ahead_bytes == 0
    assert not reads._shares and not reads._ahead


def test_a_refused_command_uses_its_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal in the log is answered like any other result; the session goes on."""
    monkeypatch.setattr(system_module, "LISTENERS_MAX", 0)
    state = State()
    refusal(system_call(state, SystemOperation.LISTEN, state.resource, "moved"))
    assert unpack(state.call(state.add, 2)[1:]) == 2


# -- who waits in a machine, and who does not read ---------------------------------------------


def test_lines_and_watches_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock's line and a map's watchers end somewhere; who is in stays in."""
    monkeypatch.setattr(line_module, "LINE_MAX", 2)
    monkeypatch.setattr(map_module, "WATCHERS_MAX", 2)
    lock, map_ = Runner(LockMachine()), Runner(MapMachine())
    for claim in (b"a", b"b", b"c", b"c"):
        lock("acquire", claim, "me", True)
    for watch in (b"1", b"2", b"2"):
        map_("watch", watch, [], None)
    for run_, arguments in (
        (lock, ("acquire", b"d", "me", True)),
        (map_, ("watch", b"3", [], None)),
    ):
        with pytest.raises(OverloadedError) as caught:
            run_(*arguments)  # type: ignore[operator]
        refusal(result_of(caught.value, Serializer()))
    assert lock("acquire", b"d", "me", False) == 0
    assert len(lock("line")) == len(map_.machine.watchers) == 2  # type: ignore[attr-defined]


class Reader:
    """A client's connection with so many bytes that wait for it to read."""

    def __init__(self, backlog: int) -> None:
        self.backlog = backlog
        self.overflowing = backlog > 1000
        self.aborted = False
        self.peer = "127.0.0.1:1"

    def write(self, data: bytes) -> None:
        self.backlog += len(data)

    def abort(self) -> None:
        self.aborted = True


class Connected:
    """What the gateway knows of a client."""

    def __init__(self, backlog: int) -> None:
        self.protocol = Reader(backlog)


def test_unread_answers_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who read least are given up when too much waits for all together; the others stay."""
    monkeypatch.setattr(gateway_module, "UNREAD_BYTES_MAX", 10_000)

    async def main() -> None:
        gateway = gateway_module.Gateway("n1", None, lambda *_: None)  # type: ignore[arg-type]
        clients = {n: Connected(size) for n, size in enumerate((0, 3000, 5000, 1800), 1)}
        gateway._clients = clients  # type: ignore[assignment]
        for number in clients:
            gateway.write(number, b"x" * 40)
        assert not any(each.protocol.aborted for each in clients.values())
        gateway.write(2, b"x" * 100)
        assert [each.protocol.aborted for each in clients.values()] == [False, False, True, False]
        clients[2].protocol.overflowing = False
        gateway.write(4, b"x" * 9000)
        assert [each.protocol.aborted for each in clients.values()] == [False, False, True, True]
        assert gateway.complaints.count == 2

    run(main())
