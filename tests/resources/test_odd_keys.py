"""Keys that equal others, or not even themselves: machines with tables live, restart, and end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from copycat.machine import StateMachine
from copycat.resources import MapMachine, MultiMapMachine, SetMachine
from copycat.serializer import Serializer

from .test_machines import Runner

MACHINES: list[tuple[type[StateMachine], str, list[list[Any]], list[Any]]] = [
    (MapMachine, "put", [[0]], [3]),
    (SetMachine, "add", [[]], []),
    (MultiMapMachine, "put", [["a"], ["b"], [float("nan")]], [True]),
]
_SERIALIZER = Serializer(opaque=True)


def odd(chance: random.Random) -> Any:
    """A key that is hard to find again."""
    return chance.choice([1, True, 1.0, 0, False, "a", float("nan"), (1, float("nan")), (1,)])


def told(run: Runner, name: str, *arguments: Any, session: int = 1) -> str:
    """The answer to a command from the wire: each member has a NaN of its own, each time."""
    decoded = _SERIALIZER.unpack_state(_SERIALIZER.pack_state(list(arguments)))
    return repr(run(name, *decoded, session=session))


def encoded(image: object) -> list[bytes]:
    return [_SERIALIZER.pack_state(each) for each in image]  # type: ignore[attr-defined]


def reborn(machine: type[StateMachine], images: list[bytes], like: Runner) -> Runner:
    """A new machine from these pieces of a snapshot, as far as ``like`` has come."""
    other = Runner(machine())
    pieces: Iterator[Any] = map(_SERIALIZER.unpack_state, images)
    other.machine.restore(pieces)
    other.commit.index, other.commit.time_us = like.commit.index, like.commit.time_us
    other.timers = list(like.timers)
    return other


@pytest.mark.parametrize(
    ("machine", "write", "values", "parts"), MACHINES, ids=["map", "set", "multimap"]
)
@pytest.mark.parametrize("seed", range(4))
def test_odd_keys_survive_restarts_and_end(
    seed: int,
    machine: type[StateMachine],
    write: str,
    values: list[list[Any]],
    parts: list[Any],
) -> None:
    """A copy by way of a snapshot, even one taken while commands go on, has the same image and the
    same answers from then on; and everything that ought to end does, NaNs included (H53)."""
    chance = random.Random(seed)
    first = Runner(machine())
    second: Runner | None = None
    sized: list[list[Any]] = [[]] if machine is MultiMapMachine else []
    for step in range(300):
        kind = chance.random()
        runners = [first] if second is None else [first, second]
        if kind < 0.6:
            terms = chance.choice([[1_000_000, False], [5_000_000, True], [0, True]])
            arguments = [odd(chance), *chance.choice(values), *terms]
            session = chance.randrange(1, 4)
            assert len({told(each, write, *arguments, session=session) for each in runners}) == 1
        elif kind < 0.75:
            key = odd(chance)
            assert len({told(each, "remove", key) for each in runners}) == 1
        elif kind < 0.85:
            for each in runners:
                each.advance(0.7)
        elif kind < 0.9:
            session = chance.randrange(1, 4)
            for each in runners:
                each.close(session)
        else:
            expected, slow = first.image(), first.machine.snapshot()
            assert isinstance(slow, Iterator)
            for _ in range(chance.randrange(3)):  # what follows does not show in it
                told(first, write, odd(chance), *chance.choice(values), 0, True)
            assert encoded(slow) == expected
            assert reborn(machine, expected, first).image() == expected
            second = reborn(machine, first.image(), first)
        if second is not None:
            assert second.image() == first.image(), step
    assert first("size", *sized) > 0
    for session in (1, 2, 3):
        first.close(session)
    first.advance(10)
    assert first("size", *sized) == 0
    assert first("page", 0, *parts)[1] == []
    assert first.timers == [] and first.machine.endings.count == 0  # type: ignore[attr-defined]
