"""What queues, semaphores and latches promise, one operation at a time; see ``models.py``.

They hold for whom nothing was taken away: where an item was returned, or a session ended with
something in its hands, others may have seen that it was missing meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ..errors import MisuseError
from .history import Operation, Outcome
from .models import Sequential

Items = tuple[Hashable, ...]


class Queue(Sequential[Items]):
    """An `AsyncQueue`: first in, first out. A `get` takes effect when there is an item."""

    queries = frozenset({"peek", "size"})

    def initial(self) -> Items:
        """Empty."""
        return ()

    def apply(self, state: Items, name: str, arguments: tuple[Any, ...]) -> tuple[object, Items]:
        """See `Sequential`."""
        match name, arguments:
            case "put", (value,):
                return None, (*state, value)
            case "get", ():
                return (state[0], state[1:]) if state else (_Never(), state)
            case "peek", ():
                return (state[0] if state else None), state
            case "size", ():
                return len(state), state
        raise MisuseError(f"the model has no operation {name} with arguments {arguments}")


class Latch(Sequential[int]):
    """An `AsyncLatch` of ``count`` counts; its state is what is done of them."""

    queries = frozenset({"count", "wait"})

    def __init__(self, count: int) -> None:
        self._count = count

    def initial(self) -> int:
        """Nothing is done."""
        return 0

    def apply(self, state: int, name: str, arguments: tuple[Any, ...]) -> tuple[object, int]:
        """See `Sequential`."""
        match name, arguments:
            case "count_down", ():
                after = min(self._count, state + 1)
                return self._count - after, after
            case "count_down", (by,):
                after = min(self._count, state + by)
                return self._count - after, after
            case "count", ():
                return self._count - state, state
            case "wait", ():
                return (None if state == self._count else _Never()), state
        raise MisuseError(f"the model has no operation {name} with arguments {arguments}")


Permits = tuple[tuple[Hashable, ...], int]
"""(the claims that hold, in order of their names, the highest token known so far)."""


class Semaphore:
    """An `AsyncSemaphore` of ``permits``: so many holders, tokens that rise strictly.

    Claims and what the cluster does by itself are as in `models.Lock`.
    """

    def __init__(self, permits: int) -> None:
        self._permits = permits

    def initial(self) -> Permits:
        """All permits are free, no token was given out."""
        return (), 0

    def step(self, state: Permits, operation: Operation) -> tuple[bool, Permits]:
        """See `models.Model`."""
        holders, highest = state
        claim = self._claim(operation)
        unknown = operation.outcome is Outcome.UNKNOWN
        match operation.name:
            case "available":
                return unknown or operation.result == self._permits - len(holders), state
            case "release":
                return claim in holders, (tuple(c for c in holders if c != claim), highest)
            case "try_acquire" if operation.result is None and not unknown:
                return len(holders) == self._permits, state
            case "acquire" | "try_acquire":
                free = len(holders) < self._permits and claim not in holders
                token = highest if unknown else operation.result
                if not isinstance(token, int):
                    raise MisuseError(f"an acquisition's result is its token: {operation}")
                after = tuple(sorted((*holders, claim), key=repr)), token
                return free and (unknown or token > highest), after
        raise MisuseError(f"the model has no operation {operation.name}")

    def reads(self, operation: Operation) -> bool:
        """See `models.Model`."""
        if operation.name == "try_acquire" and operation.outcome is Outcome.OK:
            return operation.result is None
        return operation.name == "available"

    def effect(self, operation: Operation) -> Hashable:
        """See `models.Model`."""
        return operation.name.removeprefix("try_"), self._claim(operation)

    def _claim(self, operation: Operation) -> Hashable:
        return operation.arguments[0] if operation.arguments else operation.client


class _Never:
    """An answer that nobody gets: the operation cannot take effect yet."""
