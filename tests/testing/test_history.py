"""Histories note what callers know, and survive being written down."""

from __future__ import annotations

import asyncio
import random

import pytest

from copycat.errors import DeadlineError, MisuseError, OverloadedError
from copycat.testing.history import History, Operation, Outcome
from copycat.testing.models import MapKey

from .test_linearizable import CALLS, atomic


def facts(operations: list[Operation]) -> list[tuple[object, ...]]:
    """Everything about operations that can be compared."""
    return [
        (o.client, o.name, o.key, o.arguments, o.invoked, o.begin, o.outcome, o.result, o.error,
         o.returned, o.end)
        for o in operations
    ]  # fmt: skip


class Ticks:
    """A clock that advances at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.25
        return self.now


def test_a_history_survives_its_written_form() -> None:
    """Reading the lines gives the same operations: values of all kinds, ends of all kinds."""
    written: list[str] = []
    history = History(Ticks(), sink=written.append)
    values = [None, True, 0, -(1 << 70), 0.1, "tönt", b"\x00\xff", [1, (b"x", [])], ["hex"]]
    for value in values:
        history.ok(history.invoke("a", "put", value, value, 1), value)
    overtaken = history.invoke("b", "put", "k", 1)
    history.failed(history.invoke("c", "put", "k", 2), "OverloadedError")
    history.unknown(history.invoke("d", "put", "k", 3))
    history.unknown(overtaken, "DeadlineError")
    history.invoke("e", "get", "k")
    assert list(history.lines()) == written
    assert facts(History.read(written).operations) == facts(history.operations)
    assert history.operations[7].result == (1, (b"x", ()))


def test_random_histories_survive_their_written_form() -> None:
    """The order of events is kept, which is all that checkers look at."""
    for seed in range(20):
        recorded = atomic(random.Random(seed), MapKey(), CALLS["map"], clients=4, count=30)
        history = History()
        history.operations = recorded
        for operation in recorded:
            operation.invoked = 0.0
        assert facts(History.read(history.lines()).operations) == facts(recorded)


def test_a_client_that_died_leaves_an_unknown_outcome() -> None:
    """The invocation is written before the call: without an end it may have had an effect."""
    written: list[str] = []
    History(sink=written.append).invoke("a", "put", "k", 1)
    (operation,) = History.read(written).operations
    assert operation.outcome is Outcome.UNKNOWN and operation.end is None


@pytest.mark.parametrize(
    "line",
    ["", "[]", "{", '{"id":1,"at":0,"outcome":"ok"}', '{"id":1,"at":0,"client":"a"}',
     '{"id":1,"at":"x","client":"a","name":"n","key":1,"arguments":[]}'],
)  # fmt: skip
def test_nonsense_is_refused_with_its_line(line: str) -> None:
    """A line that is no event of a history is named."""
    good = list(_one_line())
    with pytest.raises(MisuseError, match="line 2 "):
        History.read([*good, line.replace('"id":1,', '"id":7,')])


def _one_line() -> list[str]:
    written: list[str] = []
    History(sink=written.append).invoke("a", "get", "k")
    return written


def test_an_operation_reads_as_one_line() -> None:
    """Who, when, what and what became of it."""
    history = History(Ticks())
    for end in (history.ok, history.failed, history.unknown):
        end(history.invoke("a", "put", "x", 1), *(["E"] if end != history.ok else [7]))
    history.invoke("b", "get", "x")
    assert str(history).splitlines() == [
        "a [0.250..0.500] put('x', 1) -> 7",
        "a [0.750..1.000] put('x', 1) failed: E",
        "a [1.250..1.500] put('x', 1) unknown: E",
        "b [1.750.....] get('x') unanswered",
    ]


def test_values_that_may_change_later_are_refused() -> None:
    """What has no written form cannot be noted, and an operation ends once."""
    history = History()
    for value in ({}, object(), {1}, [object()]):
        with pytest.raises(MisuseError, match="cannot hold"):
            history.invoke("a", "put", "k", value)
    assert not history.operations
    operation = history.invoke("a", "get", "k")
    history.ok(operation)
    with pytest.raises(MisuseError, match="ended before"):
        history.unknown(operation)
    shared = [1]
    operation = history.invoke("a", "put", "k", shared)
    shared.append(2)
    assert operation.arguments == ((1,),)


def test_recording_a_call_notes_what_its_error_says() -> None:
    """Only an error that says "not applied" is a failure; the caller gets what the call gave."""

    async def call(problem: BaseException | None) -> int:
        await asyncio.sleep(0)
        if problem is not None:
            raise problem
        return 7

    async def main() -> None:
        assert await history.record("a", "get", "k", (), call(None), result=str) == 7
        for problem in (
            OverloadedError("busy"),
            DeadlineError("late"),
            DeadlineError("not sent", applied="no"),
            asyncio.CancelledError(),
            KeyError("x"),
        ):
            with pytest.raises(type(problem)):
                await history.record("a", "put", "k", (1,), call(problem))

    history = History()
    asyncio.run(main())
    assert [(each.outcome.value, each.result, each.error) for each in history.operations] == [
        ("ok", "7", ""),
        ("failed", None, "OverloadedError"),
        ("unknown", None, "DeadlineError"),
        ("failed", None, "DeadlineError"),
        ("unknown", None, "CancelledError"),
        ("unknown", None, "KeyError"),
    ]
