"""The factories of `Copycat`: one typed handle each, of the built-in resource at a path.

They do no I/O: a resource is created at its first use.
"""

from __future__ import annotations

from typing import Any

from .resources import (
    Access,
    AsyncBarrier,
    AsyncBoolean,
    AsyncLatch,
    AsyncList,
    AsyncLock,
    AsyncLong,
    AsyncMap,
    AsyncMultiMap,
    AsyncQueue,
    AsyncReadWriteLock,
    AsyncReference,
    AsyncSemaphore,
    AsyncSet,
    LeaderElection,
)


class Factories:
    """What a `Copycat` makes; a path is as in ``"/jobs/today"``."""

    _access: Access

    def map(self, path: str) -> AsyncMap[Any, Any]:
        """A replicated dictionary."""
        return AsyncMap(self._access, path)

    def set(self, path: str) -> AsyncSet[Any]:
        """A replicated set."""
        return AsyncSet(self._access, path)

    def multimap(self, path: str) -> AsyncMultiMap[Any, Any]:
        """A replicated map of keys to sets of values."""
        return AsyncMultiMap(self._access, path)

    def list(self, path: str) -> AsyncList[Any]:
        """A replicated list."""
        return AsyncList(self._access, path)

    def boolean(self, path: str) -> AsyncBoolean:
        """A replicated flag."""
        return AsyncBoolean(self._access, path)

    def reference(self, path: str) -> AsyncReference[Any]:
        """One replicated value of any type."""
        return AsyncReference(self._access, path)

    def long(self, path: str) -> AsyncLong:
        """A replicated integer."""
        return AsyncLong(self._access, path)

    def lock(self, path: str) -> AsyncLock:
        """A lock for the whole cluster."""
        return AsyncLock(self._access, path)

    def election(self, path: str) -> LeaderElection:
        """A leader election."""
        return LeaderElection(self._access, path)

    def rwlock(self, path: str) -> AsyncReadWriteLock:
        """A lock for many readers or one writer."""
        return AsyncReadWriteLock(self._access, path)

    def semaphore(self, path: str, permits: int | None = None) -> AsyncSemaphore:
        """A semaphore with so many ``permits``; None: as many as others have settled."""
        return AsyncSemaphore(self._access, path, permits)

    def barrier(self, path: str, parties: int | None = None) -> AsyncBarrier:
        """A barrier for so many ``parties``; None: as many as others have settled."""
        return AsyncBarrier(self._access, path, parties)

    def latch(self, path: str, count: int | None = None) -> AsyncLatch:
        """A latch to be counted down ``count`` times; None: as often as others have settled."""
        return AsyncLatch(self._access, path, count)

    def queue(self, path: str) -> AsyncQueue[Any]:
        """A queue whose items are not lost with their consumers."""
        return AsyncQueue(self._access, path)
