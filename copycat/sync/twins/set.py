"""Generated from `copycat.resources.set` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic

from ...resources.base import Duration
from ...resources.set import AsyncSet, SetEvent, T
from ...types import Consistency, Mode
from ..base import Handle


class Set(Handle, Generic[T]):
    """A shared set; every operation is atomic.

    Elements need a hash, as in a set. Queries take ``consistency``, everything ``timeout`` (s).
    """

    _kind = AsyncSet

    @property
    def _async(self) -> AsyncSet[T]:
        return self._as(AsyncSet)

    def add(
        self,
        value: T,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> bool:
        """Add ``value``; False if it was there, and then it stays as it is.

        With a ``ttl`` (s, by log time) it expires by itself; with `Mode.EPHEMERAL` when the session
        that added it ends.
        """
        return self._run(self._async.add(value, ttl=ttl, mode=mode, timeout=timeout))

    def remove(self, value: T, *, timeout: Duration = None) -> bool:
        """Remove ``value``; whether it was there."""
        return self._run(self._async.remove(value, timeout=timeout))

    def clear(self, *, timeout: Duration = None) -> None:
        """Remove every element."""
        self._run(self._async.clear(timeout=timeout))

    def contains(
        self, value: T, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``value`` is there."""
        return self._run(self._async.contains(value, consistency=consistency, timeout=timeout))

    def size(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> int:
        """The number of elements."""
        return self._run(self._async.size(consistency=consistency, timeout=timeout))

    def is_empty(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> bool:
        """Whether there is no element."""
        return self._run(self._async.is_empty(consistency=consistency, timeout=timeout))

    def items(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Iterator[T]:
        """The elements in the order in which they came, fetched in pages.

        What is there from beginning to end appears exactly once; what comes or goes meanwhile may
        appear or not.
        """
        return self._iterate(self._async.items(consistency=consistency, timeout=timeout))

    def watch(self) -> Iterator[SetEvent[T]]:
        """Changes from now on; none is lost or doubled.

        Raises `SessionExpiredError` if the session ended and changes may have been missed.
        """
        return self._iterate(self._async.watch())


__all__ = ["Set"]
