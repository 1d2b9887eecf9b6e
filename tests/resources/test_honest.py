"""The machines of coordination on several copies: none ever differs from the others."""

from __future__ import annotations

import random

import pytest

from copycat.machine import StateMachine
from copycat.resources import (
    BarrierMachine,
    BooleanMachine,
    GroupMachine,
    LatchMachine,
    ListMachine,
    MapMachine,
    MultiMapMachine,
    QueueMachine,
    ReadWriteLockMachine,
    ReferenceMachine,
    SemaphoreMachine,
    SetMachine,
    TopicMachine,
)
from copycat.system import SystemOperation

from ..server.images import pack, register, tick
from ..testing.test_determinism import Rerun

MACHINES: tuple[type[StateMachine], ...] = (
    BarrierMachine, GroupMachine, LatchMachine, QueueMachine, ReadWriteLockMachine,
    SemaphoreMachine, TopicMachine,
)  # fmt: skip
TERMS: dict[type[StateMachine], list[list[object]]] = {
    BarrierMachine: [[3], [None], [4]],
    GroupMachine: [[{"x": [1]}], [{}], [7]],
    LatchMachine: [[20], [None]],
    QueueMachine: [[]],
    ReadWriteLockMachine: [[True], [False], [False]],
    SemaphoreMachine: [[2], [2], [None], [3]],
    TopicMachine: [[]],
}
VALUES: tuple[type[StateMachine], ...] = (
    BooleanMachine, ListMachine, MapMachine, MultiMapMachine, ReferenceMachine, SetMachine,
)  # fmt: skip


def values(name: str, parameters: int, rng: random.Random) -> list[object]:
    """What a command of a collection may be called with, wrong things included."""
    found: list[object] = [
        rng.choice([1, 2, "x", True, None, [1], (1, 2)]) for _ in range(parameters)
    ]
    if parameters > 2 and rng.random() < 0.8:  # terms, if it takes any
        found[-2:] = [rng.choice([0, 0, 500_000, 2_000_000]), rng.random() < 0.2]
    if name in ("update", "extend"):
        found[0] = [[rng.randrange(5), rng.randrange(5)] for _ in range(rng.randrange(1200))]
    return found


def arguments(
    machine: type[StateMachine], name: str, rng: random.Random, number: int
) -> list[object]:
    """What a command of the machine may be called with, wrong things included."""
    claim = bytes([rng.randrange(8)])
    value = rng.choice([1, "x", None, {"y": [2.5]}, [1]])
    known: dict[str, list[object]] = {
        "acquire": [claim, f"c{number}", rng.random() < 0.7, *rng.choice(TERMS[machine])],
        "release": [claim],
        "ack": [claim],
        "put": [value],
        "put_back": [claim, rng.choice([[number, value, 1], [1, value, 2], 7]), 3],
        "count_down": [rng.choice([1, 1, 2, 0]), 20],
        "update": [claim, rng.choice([{}, {"y": value}, {1: 2}])],
        "publish": [value],
    }
    return known.get(name, [])


def together(calls: list[tuple[int, int, list[object]]]) -> tuple[int, int, list[object]]:
    """The same calls once more, as a transaction."""
    steps = [[resource, id_, pack(args)] for resource, id_, args in calls]
    return 0, SystemOperation.TRANSACT, [[], steps]


@pytest.mark.parametrize("seed", range(3))
def test_the_machines_of_coordination_are_honest(seed: int) -> None:
    """Random commands of several sessions, and sessions that end: no copy ever differs."""
    rng = random.Random(seed)
    with Rerun(seed=seed) as rerun:
        opened = []
        for machine in MACHINES:
            names = [name for name, op in machine._operations.items() if not op.is_query]
            opened.append(
                (machine, *rerun.open(f"/{machine.type_name}", machine.type_name, *names))
            )
        for number in range(150):
            calls = []
            for _ in range(rng.choice((1, 3, 20))):
                machine, resource, ids = rng.choice(opened)
                name = rng.choice(list(ids))
                calls.append((resource, ids[name], arguments(machine, name, rng, number)))
            if number % 2:
                calls.append(together(calls))
            rerun.call(*calls, seconds=rng.random())
            if number % 40 == 20:
                rerun.session, rerun.sequence = rerun.log.next_index, 0
                rerun.feed(register(bytes([number]) * 16), seconds=rng.random() * 4)
            if number % 9 == 0:
                rerun.feed(tick(), seconds=rng.random() * 2)
        rerun.check.finish()
        assert rerun.problem is None
        assert rerun.check._straight.applier.index == rerun.log.next_index - 1


@pytest.mark.parametrize("seed", range(3))
def test_the_machines_of_values_are_honest(seed: int) -> None:
    """Random writes with all kinds of terms, of several sessions, large snapshots in between: no
    copy ever differs, not even one that was started anew from a snapshot."""
    rng = random.Random(seed)
    with Rerun(seed=seed) as rerun:
        opened = []
        for machine in VALUES:
            operations = {n: op for n, op in machine._operations.items() if not op.is_query}
            opened.append(
                (operations, *rerun.open(f"/{machine.type_name}", machine.type_name, *operations))
            )
        for number in range(120):
            calls = []
            for _ in range(rng.choice((1, 3, 20))):
                operations, resource, ids = rng.choice(opened)
                name = rng.choice([n for n in ids if n != "clear" or rng.random() < 0.1])
                count = len(operations[name].signature.parameters) - 1
                calls.append((resource, ids[name], values(name, count, rng)))
            rerun.call(*calls, seconds=rng.random())
            if number % 30 == 15:
                rerun.session, rerun.sequence = rerun.log.next_index, 0
                rerun.feed(register(bytes([number]) * 16), seconds=rng.random() * 4)
            if number % 9 == 0:
                rerun.feed(tick(), seconds=rng.random() * 2)
        rerun.check.finish()
        assert rerun.problem is None
        assert rerun.check._straight.applier.index == rerun.log.next_index - 1
