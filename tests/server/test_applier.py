"""The applier: committed batches become the same state everywhere, each command exactly once."""

from __future__ import annotations

import random

import pytest

import copycat.machine as machine_module
from copycat._core.kernel import decode_results, encode_results
from copycat._core.layout import Status
from copycat.errors import InvariantViolated, Rejected
from copycat.machine import StateMachine, command, query
from copycat.serializer import Serializer
from copycat.server.applier import Applier
from copycat.server.executor import MachineMissing
from copycat.server.sessions import Session
from copycat.system import SystemOperation

from .images import (
    LogWriter,
    commands,
    initialize,
    keep_alive,
    open_call,
    pack,
    register,
    results_of,
    tick,
    unpack,
    unregister,
)


class Tally(StateMachine):
    """A counter that remembers sessions and tells listeners."""

    moved = machine_module.event(int)

    def __init__(self) -> None:
        self.value = 0
        self.closed: list[int] = []

    @command
    def add(self, by: int) -> int:
        if by < 0:
            raise Rejected("only upwards")
        self.value += by
        self.moved.publish(self.value)
        return self.value

    @command
    def later(self, by: int) -> None:
        self.commit.schedule(1.0, "add", by)

    @command
    def for_ever(self) -> None:
        self.value += 1
        self.commit.schedule(0, "for_ever")

    @command
    def crash(self) -> None:
        raise KeyError("broken at 0x7f00deadbeef")

    @query
    def get(self) -> int:
        return self.value

    def on_close(self, session: int) -> None:
        self.closed.append(session)


class World:
    """An applier, a log, one session and one open Tally."""

    def __init__(self) -> None:
        self.applier = Applier({"Tally": Tally}, Serializer())
        self.log = LogWriter()
        self.images: list[bytes] = []
        self.apply(initialize("Tally"))
        self.apply(register(b"a" * 16))
        self.session = self.log.next_index - 1
        call = open_call("/t", "Tally", "add", "later", "crash", "get")
        self.apply(commands(self.session, 1, call))
        answer = results_of(self.applier.take().answers[-1])[0]
        assert answer[0] == Status.OK
        self.resource, (self.add, self.later, self.crash, self.get) = unpack(answer[1:])
        self.sequence = 1

    def apply(self, *runs: bytes, seconds: float = 0.0) -> None:
        self.log.time_us += int(seconds * 1e6)
        self.images.append(self.log.batch(*runs))
        self.applier.apply(self.images[-1])

    def call(self, operation: int, *args: object) -> bytes:
        self.sequence += 1
        self.apply(commands(self.session, self.sequence, (self.resource, operation, list(args))))
        return results_of(self.applier.take().answers[-1])[0]

    def fresh(self) -> Applier:
        """Another member's applier before its first entry."""
        return Applier({"Tally": Tally}, Serializer())

    @property
    def value(self) -> int:
        result = self.applier.executor.query(self.resource, self.get, b"\x90")
        assert result[0] == Status.OK
        return unpack(result[1:])


@pytest.fixture
def world() -> World:
    return World()


def test_commands_answer_and_queries_see_them(world: World) -> None:
    """A command's result comes back, and a query afterwards sees what it did."""
    assert unpack(world.call(world.add, 5)[1:]) == 5
    assert world.value == 5


def test_duplicates_are_answered_once_and_applied_once(world: World) -> None:
    """A run that is half duplicate is split: the known half changes nothing (H36)."""
    calls = [(world.resource, world.add, [1])] * 3
    world.apply(commands(world.session, 2, *calls))
    world.apply(commands(world.session, 2, *calls, *calls))
    answers = world.applier.take().answers
    assert [(first, count) for _, first, count, _ in answers] == [(2, 3), (5, 3)]
    assert world.value == 6
    world.apply(commands(world.session, 2, *calls))
    assert world.applier.take().answers == []
    assert world.value == 6


def test_a_hole_in_sequences_is_an_invariant(world: World) -> None:
    """Replicated state never waits for a missing sequence: a leader may not log one."""
    with pytest.raises(InvariantViolated):
        world.apply(commands(world.session, 5, (world.resource, world.add, [1])))


def test_results_stay_until_acknowledged(world: World) -> None:
    """Cached results are dropped only when the session says that it has them (H37)."""
    for _ in range(4):
        world.call(world.add, 1)
    session = world.applier.sessions.get(world.session)
    assert session is not None and len(session.results) == 5
    world.apply(keep_alive(world.session, acknowledged=3))
    assert session.cached(4, 2) is not None
    assert session.cached(3, 1) is None
    assert len(session.results) == 2


@pytest.mark.parametrize("seed", range(5))
def test_any_results_that_are_not_acknowledged_can_be_had_again(seed: int) -> None:
    """However runs are cut and acknowledged, what is not acknowledged is as it was answered."""
    chance = random.Random(seed)
    session = Session(1, b"u" * 16, b"", "", 5_000_000, 0)
    given: list[bytes] = []
    for _ in range(200):
        fresh = [chance.randbytes(chance.randint(1, 9)) for _ in range(chance.randint(1, 6))]
        given += fresh
        session.answered(len(fresh), encode_results(fresh))
        session.acknowledge(chance.randint(0, len(given)))
        if chance.random() < 0.1:
            session = Session.from_image(unpack(pack(session.image())))
        first, last = sorted(chance.randint(1, len(given)) for _ in range(2))
        known = session.cached(first, last - first + 1)
        if first <= session.acknowledged:
            assert known is None
        else:
            assert known == encode_results(given[first - 1 : last])
        assert session.result_bytes == sum(len(run[2]) for run in session.results)
        assert all(run[1] > session.acknowledged for run in session.results)
    assert session.cached(len(given), 2) is None


def test_exceptions_are_results_without_member_specifics(world: World) -> None:
    """A raising command is an error result, free of memory addresses; the state stays (H47)."""
    assert world.call(world.add, -1)[0] == Status.REJECTED
    failed = world.call(world.crash)
    assert failed[0] == Status.FAILED
    assert unpack(failed[1:]) == ["KeyError", "broken at 0x…", "Tally.crash at /t"]
    assert world.value == 0


def test_wrong_arguments_and_unknown_things_are_results(world: World) -> None:
    """Nothing that a client sends as a command can stop a member."""
    assert world.call(world.add)[0] == Status.FAILED
    assert world.call(world.get)[0] == Status.UNKNOWN_OPERATION
    assert world.call(9999)[0] == Status.UNKNOWN_OPERATION
    world.apply(commands(world.session, world.sequence + 1, (77, world.add, [1])))
    assert results_of(world.applier.take().answers[-1])[0][0] == Status.UNKNOWN_RESOURCE
    world.sequence += 1
    for args in ([], ["/x"], [5, "Tally", 1, []], ["/x", "Tally", 1, 7], ["/x", "Tally", 1, [7]]):
        world.sequence += 1
        world.apply(commands(world.session, world.sequence, (0, SystemOperation.OPEN, args)))
        assert results_of(world.applier.take().answers[-1])[0][0] != Status.OK
    assert world.applier.system.query(SystemOperation.EXISTS, b"\x91\xa2/x") == b"\x00\xc2"


def test_sessions_expire_by_log_time_only(world: World) -> None:
    """A session silent for its timeout ends when a later entry says so, and machines hear it."""
    world.apply(tick(), seconds=5.0)
    assert world.applier.sessions.get(world.session) is not None
    world.apply(tick(), seconds=0.001)
    assert world.applier.sessions.get(world.session) is None
    assert world.applier.take().ended == [world.session]
    instance = world.applier.executor.instance(world.resource)
    assert instance is not None and instance.machine.closed == [world.session]
    world.apply(commands(world.session, 2, (world.resource, world.add, [1])))
    assert world.applier.take().unknown == [(world.session, 2)]
    assert world.value == 0


def test_a_new_term_gives_every_session_a_full_timeout(world: World) -> None:
    """Nobody could be heard without a leader, so its first entry starts all timeouts anew (H39)."""
    world.apply(initialize("Tally", leader="n2"), seconds=60)
    assert world.applier.sessions.get(world.session) is not None
    world.apply(tick(), seconds=5.001)
    assert world.applier.sessions.get(world.session) is None


def test_registering_twice_with_one_uuid_is_one_session(world: World) -> None:
    """A client that repeats its registration after a lost answer gets the same session."""
    world.apply(register(b"b" * 16), register(b"b" * 16))
    registered = world.applier.take().registered
    assert registered[0] == registered[1]
    assert len(world.applier.sessions) == 2


def test_a_machine_that_schedules_itself_at_once_does_not_hold_everybody_up(world: World) -> None:
    """Without a delay a command runs at a later log time, so a batch comes to an end."""
    world.apply(commands(world.session, 2, open_call("/t", "Tally", "for_ever")))
    results = world.applier.sessions.get(world.session).results
    opened = unpack(decode_results(results[-1][2], 0, 1)[0][1:])
    world.apply(commands(world.session, 3, (opened[0], opened[1][0], [])))
    before = world.value
    for _ in range(3):
        world.apply(tick(), seconds=0.01)
    assert before < world.value <= before + 3


def test_timers_run_by_log_time(world: World) -> None:
    """A scheduled command runs when an entry carries log time past it, exactly once."""
    world.call(world.later, 10)
    assert world.applier.next_deadline_us() == world.log.time_us + 1_000_000
    world.apply(tick(), seconds=0.999)
    assert world.value == 0
    world.apply(tick(), seconds=0.001)
    assert world.value == 10
    world.apply(tick(), seconds=1)
    assert world.value == 10


def test_events_reach_listeners_in_order_with_links(world: World) -> None:
    """Each event names the one before it, and stays until it is acknowledged (H43)."""
    world.sequence += 1
    listen = (0, SystemOperation.LISTEN, [world.resource, "moved"])
    world.apply(commands(world.session, world.sequence, listen))
    for _ in range(3):
        world.call(world.add, 1)
    session = world.applier.sessions.get(world.session)
    assert session is not None
    links = [(index, previous) for index, previous, _ in session.events]
    assert [previous for _, previous in links] == [0, *(index for index, _ in links[:-1])]
    values = [unpack(unpack(payload)[0][2]) for _, _, payload in session.events]
    assert values == [1, 2, 3]
    world.apply(keep_alive(world.session, event=links[1][0]))
    assert [index for index, _, _ in session.events] == [links[2][0]]


def test_only_machines_of_the_leader_can_be_opened(world: World) -> None:
    """An unknown machine type is the same error everywhere, and nothing is created (H95)."""
    world.sequence += 1
    world.apply(commands(world.session, world.sequence, open_call("/x", "os.system")))
    assert results_of(world.applier.take().answers[-1])[0][0] == Status.UNKNOWN_RESOURCE
    world.sequence += 1
    world.apply(commands(world.session, world.sequence, open_call("/t", "Other")))
    assert results_of(world.applier.take().answers[-1])[0][0] == Status.RESOURCE_TYPE


def test_a_member_without_the_machine_stops(world: World) -> None:
    """A member that lacks a machine the cluster uses must not invent a state."""
    poor = Applier({}, Serializer())
    with pytest.raises(MachineMissing, match="Tally"):
        for image in world.images:
            poor.apply(image)


def test_deleted_resources_fail_and_ids_are_not_reused(world: World) -> None:
    """A stale handle fails clearly after its path is deleted and created anew (H54)."""
    world.sequence += 1
    world.apply(commands(world.session, world.sequence, (0, SystemOperation.DELETE, ["/t"])))
    assert world.call(world.add, 1)[0] == Status.UNKNOWN_RESOURCE
    world.sequence += 1
    world.apply(commands(world.session, world.sequence, open_call("/t", "Tally", "add")))
    resource, _ = unpack(results_of(world.applier.take().answers[-1])[0][1:])
    assert resource > world.resource


def test_closing_a_session_ends_it_at_once(world: World) -> None:
    """A session that its client closes is gone without waiting for its timeout."""
    world.apply(unregister(world.session))
    assert world.applier.sessions.get(world.session) is None
    assert world.applier.take().ended == [world.session]


@pytest.mark.parametrize("seed", range(20))
def test_a_restored_member_goes_on_like_the_others(seed: int) -> None:
    """At any batch, snapshot and restore give a member that ends byte-identical (H52)."""
    chance = random.Random(seed)
    world = World()
    other, fed = world.fresh(), 0
    for _ in range(60):
        calls = [
            (world.resource, chance.choice((world.add, world.later, world.crash)), [1])
            for _ in range(chance.randint(1, 5))
        ]
        if world.applier.sessions.get(world.session) is None:
            world.apply(register(bytes(chance.randbytes(16))))
            world.session, world.sequence = world.log.next_index - 1, 0
        first = world.sequence + 1 - chance.randint(0, min(2, world.sequence))
        world.sequence = max(world.sequence, first + len(calls) - 1)
        world.apply(commands(world.session, first, *calls), seconds=chance.choice((0, 0.5, 6)))
        for image in world.images[fed:]:
            other.apply(image)
        fed = len(world.images)
        if chance.random() < 0.1:
            other = world.fresh()
            other.restore(world.applier.image())
    assert other.image() == world.applier.image()
    replayed = world.fresh()
    for image in world.images:
        replayed.apply(image)
    assert replayed.image() == world.applier.image()
