"""Checkers fed with observations: a promise that is broken raises `CheckFailed` at once.

They hold what was seen and judge it; they ask nobody. Times are seconds of one clock for all, and
observations come in the order in which they happened. They serve the simulator and workloads.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from .history import Operation, Outcome
from .linearizable import CONFIGURATIONS, check
from .models import Model


class CheckFailed(AssertionError):  # never a CopycatError: a workload that forgives those must not
    """A promise was broken; ``name`` is the check."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


def require_linearizable(
    operations: Iterable[Operation], model: Model[Any], *, limit: int = CONFIGURATIONS
) -> None:
    """Raise `CheckFailed` unless the history is good; "undecided" is not good."""
    verdict = check(operations, model, limit=limit)
    if verdict.finding != "good":
        raise CheckFailed("linearizable", f"{verdict.finding}: {verdict.text}")


class Exclusion:
    """Nobody believes to hold what somebody else believes to hold.

    Fed with the holders' own records. A belief ends when the holder is told of the loss, gives the
    lock back, or begins to do so. A process that stands still believes nothing: its belief ends
    with the pause, and what it does afterwards is the fence's business (`Tokens`).
    """

    def __init__(self) -> None:
        self._holders: dict[str, tuple[str, int, float]] = {}
        self._tokens = Tokens()
        self.turns = 0

    def begin(self, lock: str, holder: str, token: int, at: float) -> None:
        """From now on ``holder`` believes to hold ``lock``."""
        other = self._holders.get(lock)
        if other is not None:
            raise CheckFailed(
                "exclusion",
                f"{holder} holds {lock!r} (token {token}) from {at:.3f} on, but {other[0]} "
                f"(token {other[1]}) has held it since {other[2]:.3f} and knows of no loss",
            )
        self._tokens.granted(lock, holder, token)
        self._holders[lock] = (holder, token, at)
        self.turns += 1

    def end(self, lock: str, holder: str, token: int, at: float) -> None:
        """From now on it does not any more."""
        other = self._holders.pop(lock, None)
        if other is None or other[:2] != (holder, token):
            raise CheckFailed(
                "exclusion",
                f"{holder} gave up {lock!r} (token {token}) at {at:.3f}, which it did not hold: "
                f"{other or 'nobody did'}",
            )


class Tokens:
    """Fencing tokens: each grant has a higher one, and a fence lets no older one pass."""

    def __init__(self) -> None:
        self._granted: dict[str, tuple[int, str]] = {}
        self._passed: dict[str, tuple[int, str]] = {}

    def granted(self, lock: str, holder: str, token: int) -> None:
        """``holder`` was granted ``lock``; grants are told in the order in which they happened."""
        last, whose = self._granted.get(lock, (0, "nobody"))
        if token <= last:
            raise CheckFailed(
                "tokens",
                f"{holder} was granted {lock!r} with token {token}, after {whose} had {last}",
            )
        self._granted[lock] = (token, holder)

    def passed(self, lock: str, holder: str, token: int) -> None:
        """What is protected by ``lock`` accepted something from ``holder``."""
        last, whose = self._passed.get(lock, (0, "nobody"))
        if token < last or (token == last and holder != whose):
            raise CheckFailed(
                "tokens",
                f"{holder} passed the fence of {lock!r} with token {token} after {whose} had "
                f"passed with {last}",
            )
        self._passed[lock] = (token, holder)


Wanted = Callable[[Hashable], bool]


class Events:
    """Every listener hears what happened in its stream: once, in order, nothing left out.

    A position is whatever rises with every event of a stream: a log index, an ordinal.
    """

    def __init__(self) -> None:
        self._happened: dict[str, dict[int, Hashable]] = {}
        self._listeners: dict[str, tuple[str, int, Wanted]] = {}
        self._heard: dict[str, dict[int, Hashable]] = {}

    def happened(self, stream: str, position: int, event: Hashable) -> None:
        """The truth; several members may tell it, and at any time before `finish`."""
        truth = self._happened.setdefault(stream, {}).setdefault(position, event)
        if truth != event:
            raise CheckFailed(
                "events", f"members disagree about {stream!r} at {position}: {truth!r}, {event!r}"
            )

    def listen(
        self, listener: str, stream: str, after: int = 0, wanted: Wanted = lambda event: True
    ) -> None:
        """``listener`` is to hear the events behind position ``after`` that are ``wanted``.

        A name is used for one subscription only; after a gap that was announced, take a new one.
        """
        self._listeners[listener] = (stream, after, wanted)
        self._heard[listener] = {}

    def heard(self, listener: str, position: int, event: Hashable) -> None:
        """``listener`` was told of ``event``."""
        _, after, _ = self._listeners[listener]
        heard = self._heard[listener]
        last = next(reversed(heard), after)
        if position <= last:
            how = "twice" if position in heard else f"after {last}"
            raise CheckFailed("events", f"{listener} heard {position} ({event!r}) {how}")
        heard[position] = event

    def finish(self, listener: str, until: int | None = None) -> None:
        """By now it must have heard everything up to ``until``; None: all that happened."""
        stream, after, wanted = self._listeners[listener]
        truth = self._happened.get(stream, {})
        heard = self._heard[listener]
        for position in sorted(truth):
            due = after < position and (until is None or position <= until)
            if due and wanted(truth[position]) and position not in heard:
                raise CheckFailed(
                    "events", f"{listener} never heard {position} ({truth[position]!r})"
                )
        for position, event in heard.items():
            if position not in truth or truth[position] != event or not wanted(event):
                raise CheckFailed(
                    "events",
                    f"{listener} heard {event!r} at {position}, where {stream!r} had "
                    f"{truth.get(position, 'nothing')!r}",
                )


def check_exactly_once(
    appends: Iterable[Operation],
    found: Sequence[Hashable],
    *,
    session: Callable[[Operation], Hashable] = lambda operation: operation.client,
) -> None:
    """Compare appends of unique values (their one argument) with what stands there in the end.

    An acknowledged one stands there once, an unknown one at most once, a failed one never, nothing
    else at all. Those of one ``session`` stand in the order of their invocation, and behind all
    that had been acknowledged, to anybody, when they were invoked.
    """
    places: dict[Hashable, int] = {}
    for place, value in enumerate(found):
        if value in places:
            raise CheckFailed(
                "exactly once", f"{value!r} was applied twice, at {places[value]} and {place}"
            )
        places[value] = place
    standing = [(each, _place(each, places)) for each in sorted(appends, key=lambda a: a.begin)]
    sent = {operation.arguments[0] for operation, _ in standing}
    for value, place in places.items():
        if value not in sent:
            raise CheckFailed("exactly once", f"{value!r} stands at {place}, and nobody sent it")
    _check_order([(each, place) for each, place in standing if place is not None], session)


def _place(operation: Operation, places: dict[Hashable, int]) -> int | None:
    (value,) = operation.arguments
    place = places.get(value)
    if place is None and operation.outcome is Outcome.OK:
        raise CheckFailed("exactly once", f"acknowledged and lost: {operation}")
    if place is not None and operation.outcome is Outcome.FAILED:
        raise CheckFailed("exactly once", f"refused, and applied all the same: {operation}")
    return place


def _check_order(
    standing: Sequence[tuple[Operation, int]], session: Callable[[Operation], Hashable]
) -> None:
    nothing = (-1, "nothing")
    due: list[tuple[int, int, str]] = []  # acknowledgements to come: when, place, operation
    acknowledged = nothing  # the last place of all that was
    latest: dict[Hashable, tuple[int, str]] = {}
    for operation, place in standing:
        while due and due[0][0] < operation.begin:
            acknowledged = max(acknowledged, heapq.heappop(due)[1:])
        before, earlier = max(acknowledged, latest.get(session(operation), nothing))
        if place < before:
            raise CheckFailed(
                "exactly once",
                f"out of order: {operation} stands at {place}, {earlier} at {before}",
            )
        latest[session(operation)] = (place, str(operation))
        if operation.outcome is Outcome.OK and operation.end is not None:
            heapq.heappush(due, (operation.end, place, str(operation)))
