"""Transactions where they are applied: all or nothing, on every member alike."""

from __future__ import annotations

import random
from typing import Any

import pytest

from copycat._core.layout import Status
from copycat.errors import Rejected
from copycat.machine import StateMachine, command, event, query, type_name_of
from copycat.resources import BUILT_IN_MACHINES
from copycat.serializer import Serializer
from copycat.server import transactions
from copycat.server.applier import Applier
from copycat.system import FENCED, SystemOperation

from .images import LogWriter, commands, initialize, pack, register, results_of, unpack

Step = list[Any]


class Bank(StateMachine):
    """A user's machine: one command may say no, the other one has a check."""

    moved = event(int)

    def __init__(self) -> None:
        self.total = 20
        self.log: list[int] = []

    @command
    def pay(self, amount: int) -> int:
        if amount > self.total:
            raise Rejected(f"only {self.total}")
        self.total -= amount
        self.log.append(self.commit.index)
        self.moved.publish(amount)
        return self.total

    @command(check=lambda _, amount: amount + 0)
    def deposit(self, amount: int) -> None:
        self.total += amount
        self.commit.schedule(1000.0, "deposit", 0)

    @query
    def left(self) -> int:
        return self.total


class Liar(StateMachine):
    """Its checks pass, and its commands do what they like."""

    def __init__(self) -> None:
        self.done = 0

    @command(check=lambda _: None)
    def fail(self) -> None:
        self.done += 1
        raise ValueError("after all")

    @command(check=lambda _: None)
    def dive(self) -> None:
        self.done += 1
        self.deeper()

    @command(check=lambda self: self.deeper())
    def never(self) -> None:
        self.done += 1

    @command(check=lambda _: None)
    def unreadable(self) -> object:
        self.done += 1
        return object()

    @command(check=lambda self: self.commit.publish("x", 1))
    def loud(self) -> None:
        self.done += 1

    @command
    def plainly(self) -> None:
        self.done += 1
        raise ValueError("as commands may")

    @command(check=lambda _: None)
    def measure(self) -> int:
        """How deep it can go from here."""
        return self.sound(0)

    def sound(self, depth: int) -> int:
        try:
            return self.sound(depth + 1)
        except RecursionError:
            return depth

    def deeper(self) -> None:
        self.deeper()


class World:
    """A cluster's state without a cluster: one session that commands, and what came of it."""

    def __init__(self, *machines: type[StateMachine]) -> None:
        self.types = {type_name_of(cls): cls for cls in (*BUILT_IN_MACHINES, *machines)}
        self.applier = Applier(self.types, Serializer())
        self.log = LogWriter()
        self.applier.apply(self.log.batch(initialize(*self.types)))
        self.session, self.sequence = self.log.next_index, 0
        self.applier.apply(self.log.batch(register(b"u" * 16)))
        self.ids: dict[str, int] = {}

    def call(self, resource: int, operation: int, *args: object) -> bytes:
        """Apply one command; its result."""
        self.sequence += 1
        run = commands(self.session, self.sequence, (resource, operation, [*args]))
        self.applier.take()
        self.applier.apply(self.log.batch(run))
        (answer,) = self.applier.take().answers
        return results_of(answer)[0]

    def open(self, path: str, type_name: str) -> int:
        """The id of a resource."""
        names = sorted(self.types[type_name]._operations)
        resource, ids = unpack(self.call(0, SystemOperation.OPEN, path, type_name, 1, names)[1:])
        self.ids.update(zip(names, ids, strict=True))
        return int(resource)

    def step(self, resource: int, name: str, *args: object) -> Step:
        """One step of a transaction."""
        return [resource, self.ids.get(name, 9999), pack([*args])]

    def transact(self, expected: list[Step], steps: list[Step]) -> tuple[list[Any], int, bytes]:
        """Results; or nothing, and which step failed with what."""
        result = self.call(0, SystemOperation.TRANSACT, expected, steps)
        assert result[0] == Status.OK, result
        results, failed, *why = unpack(result[1:])
        return [unpack(each[1:]) for each in results], failed, why[0] if why else b""

    def machines(self) -> bytes:
        """The state of all machines, and their timers."""
        timers = [list(timer) for timer in sorted(self.applier.timers)]
        return pack([self.applier.executor.image(), timers])


class Model:
    """Two maps, an integer, a queue and a bank, changed one after the other."""

    def __init__(self) -> None:
        self.maps: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
        self.versions: tuple[dict[Any, int], dict[Any, int]] = ({}, {})
        self.number = 0
        self.queue: list[Any] = []
        self.total = 20

    def do(self, name: str, which: int, args: tuple[Any, ...], index: int) -> Any:
        entries, versions = self.maps[which], self.versions[which]
        if name in ("put", "put_if_version"):
            before = entries.get(args[0])
            entries[args[0]], versions[args[0]] = args[1], index
            return before if name == "put" else index
        if name == "update":
            for key, value in args[0]:
                self.do("put", which, (key, value), index)
        elif name == "remove":
            versions.pop(args[0], None)
            return [entries.pop(args[0])] if args[0] in entries else []
        elif name == "clear":
            entries.clear()
            versions.clear()
        elif name == "add":
            self.number += args[0]
            return self.number
        elif name == "enqueue":
            self.queue.append(args[0])
        elif name == "deposit":
            self.total += args[0]
        elif name == "pay":
            self.total -= args[0]
            return self.total
        return None


Planned = tuple[str, int, tuple[Any, ...]]  # name, resource, arguments
LATE = 1_000
"""Added to the place of a step that fails only after all checks."""


class Life:
    """Random transactions, and which step of each has to fail."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world, self.model = World(Bank), Model()
        self.maps = [self.world.open(path, "copycat.map") for path in ("/a", "/b")]
        self.long, self.queue = (
            self.world.open("/n", "copycat.long"), self.world.open("/q", "copycat.queue"),
        )  # fmt: skip
        self.bank = self.world.open("/bank", "Bank")
        self.wrong: list[int] = []
        self.plan: list[Planned] = []
        self.done = self.refused = 0

    def version(self, map_: int, key: object) -> int:
        """Of an entry, by the model."""
        return self.model.versions[self.maps.index(map_)].get(key, 0)

    def expected(self) -> list[Step]:
        """Preconditions, most of which hold."""
        steps = []
        for nth in range(self.rng.choice((0, 0, 1, 3))):
            map_, key = self.rng.choice(self.maps), self.rng.randrange(4)
            version = self.version(map_, key)
            if self.rng.random() < 0.1:
                self.wrong.append(nth)
                version += 1
            steps.append(self.world.step(map_, "expect_version", key, version))
        if self.rng.random() < 0.3:
            steps.append(self.world.step(self.long, "expect", self.model.number))
        return steps

    def planned(self, nth: int) -> tuple[Planned, bool]:
        """The command at place ``nth``, and whether it fails when it runs."""
        rng, map_ = self.rng, self.rng.choice(self.maps)
        key, value = rng.randrange(4), rng.choice(["v", [1], None, {"x": 2.5}])
        kind = rng.randrange(6 if nth else 10)
        if kind >= 8:
            version = self.version(map_, key) + (rng.random() < 0.3)
            fails = version != self.version(map_, key)
            return ("put_if_version", map_, (key, value, version)), fails
        if kind >= 6:
            amount = rng.randrange(1, 30)
            return ("pay", self.bank, (amount,)), amount > self.model.total
        choices: list[Planned] = [
            ("put", map_, (key, value)), ("remove", map_, (key,)),
            ("update", map_, ([[key, value], [key + 1, value]],)),
            ("add", self.long, (rng.randrange(9),)), ("put", self.queue, (value,)),
            ("deposit", self.bank, (rng.randrange(4),)),
        ]  # fmt: skip
        return choices[kind], False

    def bad(self, nth: int) -> Planned:
        """A command that no check lets pass."""
        map_ = self.rng.choice(self.maps)
        choices: list[Planned] = [
            ("put", map_, ([], 1)), ("add", self.long, ("1",)), ("add", self.long, ()),
            ("put", 9_999, (1, 2)), ("release", self.long, (1,)), ("deposit", self.bank, ("x",)),
            ("update", map_, ({(1, 2)},)), ("put", map_, (1, 2, 3, 4, 5)),
        ]  # fmt: skip
        if nth:
            choices += [("compare_and_set", self.long, (1, 2)), ("pay", self.bank, (1,))]
        return self.rng.choice(choices)

    def transact(self) -> None:
        """One transaction, and what must have come of it."""
        self.wrong, self.plan = [], []
        expected = self.expected()
        for nth in range(self.rng.choice((0, 1, 3, 7))):
            planned, fails = self.planned(nth)
            if self.rng.random() < 0.06:
                planned, fails = self.bad(nth), False
                self.wrong.append(len(expected) + nth)
            self.plan.append(planned)
            self.wrong += [len(expected) + nth + LATE] * fails
        steps = [self.world.step(resource, name, *args) for name, resource, args in self.plan]
        before = self.world.machines()
        results, failed, why = self.world.transact(expected, steps)
        if self.wrong:
            self.refused += 1
            assert failed == min(self.wrong) % LATE, (why, self.plan)
            assert why[0] != Status.OK
            assert self.world.machines() == before, self.plan
        else:
            self.done += bool(steps)
            assert failed == -1, why
            assert results == [self.follow(*each) for each in self.plan]

    def follow(self, name: str, resource: int, args: tuple[Any, ...]) -> Any:
        """The same in the model; its result."""
        which = self.maps.index(resource) if resource in self.maps else 0
        name = "enqueue" if resource == self.queue else name
        return self.model.do(name, which, args, self.world.log.next_index - 1)

    def compare(self) -> None:
        """The state is the model's."""
        machine_of = {i.id: i.machine for i in self.world.applier.executor.instances()}
        for map_, entries, versions in zip(
            self.maps, self.model.maps, self.model.versions, strict=True
        ):
            state: Any = machine_of[map_]
            rows = list(state.table.after(0))
            assert {key: value for _, key, value, _ in rows} == entries
            assert {key: version for _, key, _, version in rows} == versions
        long, bank, queue = (vars(machine_of[each]) for each in (self.long, self.bank, self.queue))
        assert (long["value"], bank["total"]) == (self.model.number, self.model.total)
        assert [item[1] for item in queue["fresh"]] == self.model.queue

    def restart(self) -> None:
        """Go on from a snapshot, as a member that was started anew."""
        image = self.world.applier.image()
        self.world.applier = Applier(self.world.types, Serializer())
        self.world.applier.restore(image)
        assert self.world.applier.image() == image


@pytest.mark.parametrize("seed", range(6))
def test_random_transactions_are_those_of_a_sequential_model(seed: int) -> None:
    """All or nothing, over restarts from a snapshot; what fails says where, and changes nothing."""
    life = Life(seed)
    for _ in range(400):
        life.transact()
        life.compare()
        life.world.log.time_us += life.rng.randrange(2_000)
        if life.rng.random() < 0.05:
            life.restart()
    assert life.done > 80
    assert life.refused > 80


def test_nothing_is_told_of_what_was_refused() -> None:
    """Neither events nor timers come of a transaction that failed; all come of one that did not."""
    world = World(Bank)
    bank, topic = world.open("/bank", "Bank"), world.open("/t", "copycat.topic")
    for resource, name in ((bank, "moved"), (topic, "message")):
        world.call(0, SystemOperation.LISTEN, resource, name)
    steps = [
        world.step(bank, "deposit", 1), world.step(topic, "publish", "x"),
        world.step(bank, "deposit", []),
    ]  # fmt: skip
    for first, told in (
        (world.step(bank, "pay", 5), 2), (world.step(bank, "pay", 500), 0),
    ):  # fmt: skip
        for end in (2, 3):
            world.applier.take()
            world.sequence += 1
            arguments: list[object] = [[], [first, *steps[:end]]]
            call = (0, SystemOperation.TRANSACT, arguments)
            timers = len(world.applier.timers)
            world.applier.apply(world.log.batch(commands(world.session, world.sequence, call)))
            events = world.applier.take().events
            expected = told if end == 2 else 0
            assert [len(unpack(each[3])) for each in events] == [expected] * bool(expected)
            assert len(world.applier.timers) - timers == bool(expected)


@pytest.mark.parametrize("lie", ["fail", "dive", "unreadable"])
def test_a_broken_promise_fences_all_that_was_touched(lie: str) -> None:
    """Nobody sees a half: what came before is fenced with the liar, what comes after is whole."""
    world = World(Liar)
    liar, long = world.open("/liar", "Liar"), world.open("/n", "copycat.long")
    map_, after = world.open("/m", "copycat.map"), world.open("/o", "copycat.map")
    steps = [
        world.step(long, "add", 1), world.step(map_, "put", 1, 2), world.step(liar, lie),
        world.step(after, "put", 1, 2),
    ]  # fmt: skip
    _, failed, why = world.transact([], steps)
    assert failed == 2
    assert unpack(why[1:])[0] == FENCED
    for resource, name in ((long, "get"), (map_, "size"), (liar, "plainly")):
        result = world.applier.executor.query(resource, world.ids[name], pack([]))
        assert unpack(result[1:])[0] == FENCED
        assert world.transact([], [world.step(resource, "add", 1)])[1] == 0
    assert world.applier.executor.query(after, world.ids["size"], pack([])) == b"\0\0"
    image = world.applier.image()
    world.applier.restore(image)
    assert world.applier.image() == image
    world.call(0, SystemOperation.DELETE, "/n")
    again = world.open("/n", "copycat.long")
    assert world.transact([], [world.step(again, "add", 1)]) == ([1], -1, b"")


def test_what_fails_in_front_changes_nothing_else() -> None:
    """The first command may raise as it does alone; a check may recurse or publish in vain."""
    world = World(Liar)
    liar, long = world.open("/liar", "Liar"), world.open("/n", "copycat.long")
    for name, status in (("plainly", 2), ("never", 2), ("loud", 2), ("fail", 2)):
        steps = [world.step(liar, name), world.step(long, "add", 1)]
        _, failed, why = world.transact([], steps)
        assert (failed, why[0]) == (0, status)
    _, failed, _ = world.transact([], [world.step(long, "add", 1), world.step(liar, "never")])
    assert failed == 1
    machine = world.applier.executor.instance(liar).machine
    assert machine.done == 2, "what a command changes before it raises, it changes"
    assert not machine.commit.read_only
    assert world.applier.executor.query(long, world.ids["get"], pack([])) == b"\0\0"


def test_a_command_has_the_same_room_for_recursion_every_time() -> None:
    """In a transaction too, how deep it can go does not depend on what ran before."""
    world = World(Liar)
    liar, long = world.open("/liar", "Liar"), world.open("/n", "copycat.long")
    depths = []
    for front in ([], [world.step(long, "add", 1)], []):
        steps = [*front, world.step(liar, "measure")]
        depths.append(world.transact([], steps)[0][-1])

    def later(frames: int) -> None:
        if frames:
            later(frames - 1)
        else:
            depths.append(world.transact([], [world.step(liar, "measure")])[0][0])

    later(60)
    level = world.applier.executor.level
    assert level is not None
    level.lead += 3  # as if another kernel were in use
    later(0)
    assert len(set(depths)) == 1
    assert depths[0] > 500


def test_preconditions_are_queries_of_built_in_machines() -> None:
    """A user's query may be anything, so it decides nothing; the error says what to do."""
    world = World(Bank)
    bank = world.open("/bank", "Bank")
    _, failed, why = world.transact([world.step(bank, "left")], [])
    assert (failed, why[0]) == (0, Status.REJECTED)
    assert "let the command that comes first" in unpack(why[1:])[0]
    _, failed, why = world.transact([world.step(bank, "pay", 1)], [])
    assert (failed, why[0]) == (0, Status.UNKNOWN_OPERATION)


def test_what_is_no_transaction_is_refused() -> None:
    """Too many steps, and steps of another form: an error for who sent it, and no change."""
    world = World()
    long = world.open("/n", "copycat.long")
    step = world.step(long, "add", 1)
    most = transactions.STEPS_MAX
    assert world.transact([], [step] * most)[0] == list(range(1, most + 1))
    before = world.machines()
    for bad in (
        [[], [step] * (most + 1)], [[step] * (most + 1), []], [[], {1: step}], [[], [[*step, 1]]],
        [[], {tuple(step)}], [[], [{long, world.ids["add"], pack([1])}]], [[], [[long, [], b""]]],
        [[]], [1, 2], [[], [[[], 1, b""]]], [[], [[long, True, b""]]], [[], [[long, 64, "x"]]],
    ):  # fmt: skip
        assert world.call(0, SystemOperation.TRANSACT, *bad)[0] in (1, 2), bad
    for arguments in (b"", b"\xc1", pack({1, 2}), pack({1: 2})):
        _, failed, _ = world.transact([], [step, [long, world.ids["add"], arguments]])
        assert failed == 1
    assert world.machines() == before


def test_results_that_are_too_large_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done is done and said to be; only the value is missing."""
    monkeypatch.setattr(transactions, "RESULT_BYTES_MAX", 100)
    world = World()
    map_ = world.open("/m", "copycat.map")
    world.transact([], [world.step(map_, "put", key, "x" * 80) for key in (1, 2)])
    steps = [world.step(map_, "put", key, "y") for key in (1, 2)]
    results, failed = unpack(world.call(0, SystemOperation.TRANSACT, [], steps)[1:])
    assert failed == -1
    assert [len(each) for each in results] == [83, 0]
