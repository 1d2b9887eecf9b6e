"""Checks that travel in the log: members that differ find out, and the others never do."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import pytest

from copycat._core.kernel import encode_run
from copycat._core.layout import Kind
from copycat.machine import StateMachine, command, event
from copycat.serializer import Serializer
from copycat.server.applier import Applier
from copycat.testing import Simulation
from tests.server.images import LogWriter, commands, initialize, open_call, register, tick, unpack


class Diary(StateMachine):
    """Each copy may be told a secret from outside, which then gets into what it does."""

    told = event(int)
    secret = 0

    def __init__(self) -> None:
        self.pages: list[int] = []

    @command
    def write(self, page: int) -> None:
        self.pages.append(page + self.secret)

    @command
    def answer(self) -> int:
        return self.secret

    @command
    def tell(self) -> None:
        self.told.publish(self.secret, to=self.commit.session)


class Trio:
    """Appliers of a leader and two followers, and the log that the leader writes."""

    def __init__(self) -> None:
        self.log = LogWriter()
        self.members = [Applier({"Diary": Diary}, Serializer()) for _ in range(3)]
        self.feed(initialize("Diary"))
        self.feed(register(b"a" * 16))
        self.sequence = 1
        self.feed(commands(2, 1, open_call("/d", "Diary", "write", "answer", "tell")))
        _, self.operations = unpack(self.members[0].take().answers[-1][3][5:])
        self.resource = 3

    def feed(self, *runs: bytes, seconds: float = 0.0) -> None:
        self.log.time_us += int(seconds * 1e6)
        image = self.log.batch(*runs)
        for member in self.members:
            member.apply(image)

    def call(self, nth: int, *args: object) -> bytes:
        self.sequence += 1
        call = (self.resource, self.operations[nth], list(args))
        return commands(2, self.sequence, call)

    def check(self, *before: bytes) -> None:
        arguments = Serializer().pack(self.members[0].agreement.next_check())
        self.feed(*before, encode_run(Kind.TICK, 0, 0, 0, [(0, 0, arguments)]))

    def mislead(self, nth: int, secret: int = 1) -> None:
        machine: Any = self.members[nth].executor.instance(self.resource)
        machine.machine.secret = secret  # an attribute of this copy, and no part of what is told
        machine.machine.snapshot = lambda: {"pages": machine.machine.pages}

    @property
    def differences(self) -> list[dict[str, int]]:
        return [member.agreement.differences for member in self.members]


def test_a_state_that_differs_is_noticed_by_whoever_differs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The second check brings the leader's note of the first; it is said once, and only there."""
    trio = Trio()
    trio.members[2].agreement.member = "n3"
    trio.mislead(2)
    trio.check(trio.call(0, 5))
    at = trio.log.next_index - 1
    assert trio.differences == [{}, {}, {}]
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            trio.check(trio.call(0, 5))
    assert trio.differences == [{}, {}, {"the state of Diary at /d": at}]
    (record,) = caplog.records
    assert f"n3: the state of Diary at /d differs from the leader's at index {at}" in record.message


@pytest.mark.parametrize("operation", [1, 2])
def test_an_answer_or_event_that_differs_is_noticed(operation: int) -> None:
    """Also when no machine keeps anything of it, and long before the check (H46)."""
    trio = Trio()
    trio.mislead(1)
    trio.feed(trio.call(operation))
    trio.mislead(1, secret=0)
    trio.feed(trio.call(0, 1))
    trio.check(tick())
    at = trio.log.next_index - 1
    trio.check()
    assert trio.differences == [{}, {"what commands answered or published": at}, {}]


def test_another_leader_compares_as_well() -> None:
    """Notes are every member's: whoever leads next brings its own."""
    trio = Trio()
    trio.mislead(0)
    trio.check(trio.call(0, 5))
    trio.members = trio.members[1:] + trio.members[:1]
    trio.check()
    assert [bool(found) for found in trio.differences] == [False, False, True]


def test_what_cannot_be_compared_is_no_difference() -> None:
    """Another version of the class, a state that is not to be encoded, one that is too large."""
    trio = Trio()
    trio.mislead(1)
    other: Any = trio.members[1].executor.instance(trio.resource)
    other.machine.__class__ = type("Diary", (Diary,), {"version": 2})
    odd: Any = trio.members[2].executor.instance(trio.resource)
    odd.machine.snapshot = lambda: object()
    trio.check(trio.call(0, 5))
    trio.check()
    assert trio.differences == [{}, {}, {}]
    trio.members[0].executor.instance(trio.resource).state_size = 1 << 30  # type: ignore[union-attr]
    assert trio.members[0].agreement.next_check()[0] == 0


def test_a_member_that_restarts_has_nothing_to_compare_until_the_next_check() -> None:
    """From a snapshot between two checks it knows the state, and not what was said before."""
    trio = Trio()
    trio.check(trio.call(0, 1))
    trio.feed(trio.call(1))
    again = Applier({"Diary": Diary}, Serializer())
    again.restore(trio.members[1].image())
    trio.members[1] = again
    trio.check()
    trio.feed(trio.call(1))
    trio.check()
    assert again.agreement._notes[trio.log.next_index - 1].said is not None
    trio.check()
    assert trio.differences == [{}, {}, {}]


@pytest.mark.parametrize("seed", range(10))
def test_members_that_agree_are_never_accused(seed: int) -> None:
    """Random commands, batches, restarts, changes of leader: the same notes everywhere."""
    rng = random.Random(seed)
    trio = Trio()
    compared = 0
    for _ in range(300):
        some = [trio.call(rng.randrange(1, 3)) for _ in range(rng.randrange(3))]
        some += [trio.call(0, rng.randrange(9)) for _ in range(rng.randrange(1, 3))]
        match rng.choice("cccrs....."):
            case "c":
                trio.check(*some)
                notes = [list(member.agreement._notes.values())[-1] for member in trio.members]
                compared += None not in [note.said for note in notes]
            case "r":
                trio.feed(*some)
                fresh = Applier({"Diary": Diary}, Serializer())
                nth = rng.randrange(3)
                fresh.restore(trio.members[nth].image())
                trio.members[nth] = fresh
            case "s":
                rng.shuffle(trio.members)
                trio.feed(*some)
            case _:
                trio.feed(*some, seconds=rng.random())
    assert trio.differences == [{}, {}, {}]
    assert compared > 10


class Private(StateMachine):
    """Notes which object it is."""

    def __init__(self) -> None:
        self.me = 0

    @command
    def note(self) -> None:
        self.me = id(self)


def test_a_cluster_says_so_in_its_status() -> None:
    """Members of a cluster with such a machine serve on; each follower says what is wrong."""
    with Simulation(2, machines=[Private], check_determinism=False) as sim:
        sim._hosting.watch._check_state = lambda *_: None  # type: ignore[method-assign]

        async def work(cc: Any) -> None:
            private = cc.machine("/p", Private)
            for _ in range(14):
                await private.note()
                await cc.map("/m").put("a", 1)
                await asyncio.sleep(2.0)

        sim.run(work, seconds=120)
        found: dict[str, Any] = {
            name: host.running.status()["differences"]
            for name, host in sim._hosting.hosts.items()
            if host.running is not None
        }
        assert sim.leader is not None
        assert found.pop(sim.leader) == []
        for differences in found.values():
            ((what, index),) = differences
            assert what == "the state of Private at /p"
            assert index > 5


def test_checks_are_few() -> None:
    """A check is due after some seconds, and only goes with what is logged anyway."""
    with Simulation(3, machines=[Private], check_determinism=False) as sim:

        async def work(cc: Any) -> None:
            await cc.map("/m").put("a", 1)
            await asyncio.sleep(35.0)

        sim.run(work)
        for host in sim._hosting.hosts.values():
            running: Any = host.running
            assert len(running.member._applier.agreement._notes) == 3
