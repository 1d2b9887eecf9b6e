"""Generated from `copycat.resources.transaction` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, Self

from ...machine import StateMachine
from ...resources.base import Duration
from ...resources.transaction import HeldPart, K, Outcome, Part, QueuePart, TopicPart, V
from ...resources.transaction import LongPart as AsyncLongPart
from ...resources.transaction import MapPart as AsyncMapPart
from ...resources.transaction import Transaction as AsyncTransaction
from ..base import Twin


class Transaction(Twin):
    """Operations on several resources that take effect together, if at all.

    Use it once, as a scope or with `commit`. A body that raises has changed nothing. The parts
    (`map`, `long`, `queue`, `topic`, `lock`, `election`, `machine`) note what is to be done and
    return at once; only their reads are awaited.
    """

    @property
    def _async(self) -> AsyncTransaction:
        return self._as(AsyncTransaction)

    def map(self, path: str) -> MapPart[Any, Any]:
        """The part of the map at ``path``."""
        return MapPart(self._portal, self._async.map(path))

    def long(self, path: str) -> LongPart:
        """The part of the integer at ``path``."""
        return LongPart(self._portal, self._async.long(path))

    def queue(self, path: str) -> QueuePart[Any]:
        """The part of the queue at ``path``."""
        return self._do(lambda: self._async.queue(path))

    def topic(self, path: str) -> TopicPart[Any]:
        """The part of the topic at ``path``."""
        return self._do(lambda: self._async.topic(path))

    def lock(self, path: str) -> HeldPart:
        """The part of the lock at ``path``."""
        return self._do(lambda: self._async.lock(path))

    def election(self, path: str) -> HeldPart:
        """The part of the election at ``path``."""
        return self._do(lambda: self._async.election(path))

    def machine(self, path: str, machine: type[StateMachine]) -> Part:
        """The part of a machine of your own."""
        return self._do(lambda: self._async.machine(path, machine))

    def commit(self, *, timeout: Duration = None) -> None:
        """Do everything now, in one step. The end of the scope does it otherwise.

        Raises `ConflictError` (``current``: what stands there) if a precondition does not hold or
        something that was read has changed; `Rejected`, or whatever else the first operation
        raises; `OverloadedError`, `UnknownResourceError`: in all these cases nothing was changed.
        After `DeadlineError` and `OutcomeUnknownError` see their ``applied``.
        """
        self._run(self._async.commit(timeout=timeout))

    def __enter__(self) -> Self:
        self._run(self._async.__aenter__())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._portal.inherited:
            return
        self._run(self._async.__aexit__(exc_type, exc, traceback))


class MapPart(Twin, Generic[K, V]):
    """Of a map. Reads see what is committed, not what this transaction is going to do."""

    @property
    def _async(self) -> AsyncMapPart[K, V]:
        return self._as(AsyncMapPart)

    def get(self, key: K, default: Any = None) -> Any:
        """The value of ``key`` now, or ``default``; expected not to change until the commit."""
        return self._run(self._async.get(key, default))

    def expect_version(self, key: K, version: int) -> None:
        """Go on only if ``key`` was last written at ``version`` (0: is absent)."""
        self._do(lambda: self._async.expect_version(key, version))

    def expect_absent(self, key: K) -> None:
        """Go on only if there is no ``key``."""
        self._do(lambda: self._async.expect_absent(key))

    def put(self, key: K, value: V) -> Outcome[V | None]:
        """Set ``key``; the outcome is the value before, or None."""
        return self._do(lambda: self._async.put(key, value))

    def update(self, mapping: Mapping[K, V]) -> None:
        """Set all of ``mapping``."""
        self._do(lambda: self._async.update(mapping))

    def remove(self, key: K) -> Outcome[list[V]]:
        """Remove ``key``; the outcome is a list of the value before, empty if there was none."""
        return self._do(lambda: self._async.remove(key))

    def clear(self) -> None:
        """Remove every entry."""
        self._do(lambda: self._async.clear())


class LongPart(Twin):
    """Of an integer."""

    @property
    def _async(self) -> AsyncLongPart:
        return self._as(AsyncLongPart)

    def get(self) -> int:
        """The value now; expected to be the same at the commit."""
        return self._run(self._async.get())

    def expect(self, value: int) -> None:
        """Go on only if it has this value."""
        self._do(lambda: self._async.expect(value))

    def set(self, value: int) -> Outcome[int]:
        """Set it; the outcome is the value before."""
        return self._do(lambda: self._async.set(value))

    def increment(self, by: int = 1) -> Outcome[int]:
        """Add ``by``; the outcome is the new value."""
        return self._do(lambda: self._async.increment(by))

    def decrement(self, by: int = 1) -> Outcome[int]:
        """Subtract ``by``; the outcome is the new value."""
        return self._do(lambda: self._async.decrement(by))


__all__ = ["LongPart", "MapPart", "Transaction"]
