"""Generated from `copycat.resources.rwlock` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from ...resources.base import Duration
from ...resources.line import Claim
from ...resources.rwlock import AsyncReadWriteLock
from ...resources.rwlock import ReadWriteSide as AsyncReadWriteSide
from ...types import Consistency
from ..base import Handle
from .lockable import Lockable


class ReadWriteSide(Lockable):
    """The reading or the writing side of a `ReadWriteLock`; use it like a `Lock`."""

    _kind = AsyncReadWriteSide

    @property
    def _async(self) -> AsyncReadWriteSide:
        return self._as(AsyncReadWriteSide)

    def locked(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> bool:
        """Whether anybody holds it on this side."""
        return self._run(self._async.locked(consistency=consistency, timeout=timeout))

    def holders(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who holds it on this side."""
        return self._run(self._async.holders(consistency=consistency, timeout=timeout))

    def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits on this side, the next one first; the other side may have its turn between."""
        return self._run(self._async.waiters(consistency=consistency, timeout=timeout))


class ReadWriteLock(Handle):
    """``with lock.reader`` beside other readers, ``with lock.writer`` alone.

    Fair: readers that come after a waiting writer wait behind it. Not re-entrant, and what is read
    is not upgraded: a thread that holds it on either side gets a `MisuseError` for asking again.
    Tokens rise with every grant on both sides, so a token fences off every earlier writer.
    """

    _kind = AsyncReadWriteLock

    @property
    def _async(self) -> AsyncReadWriteLock:
        return self._as(AsyncReadWriteLock)

    @property
    def reader(self) -> ReadWriteSide:
        """The shared side."""
        return ReadWriteSide(self._portal, self._async.reader)

    @property
    def writer(self) -> ReadWriteSide:
        """The exclusive side."""
        return ReadWriteSide(self._portal, self._async.writer)


__all__ = ["ReadWriteLock", "ReadWriteSide"]
