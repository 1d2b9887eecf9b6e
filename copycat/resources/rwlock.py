"""A read-write lock for the whole cluster: many readers or one writer, in the order of asking.

Whoever asked first is never overtaken, so a steady stream of readers cannot keep a writer out, nor
writers a reader. Both sides are scopes like a lock's. The state is a `SharesMachine`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Self

from ..errors import Rejected
from ..machine import query
from ..types import Consistency
from .base import Access, Duration, Resource
from .line import Claim
from .lockable import Lockable
from .shares import SharesMachine

READERS_MAX = 10_000


class ReadWriteLockMachine(SharesMachine):
    """Shares for many readers or one writer; a claim's terms are True for a writer."""

    type_name = "copycat.rwlock"

    @query
    def held_by(self, writes: bool) -> list[Any]:
        """[name, session, token] of the writers, or readers, that hold it."""
        return [holder[:3] for holder in self.holders.values() if holder[3] is writes]

    @query
    def line_of(self, writes: bool) -> list[Any]:
        """[name, session] of the writers, or readers, that wait."""
        return [waiter[:2] for waiter in self.waiting.values() if waiter[2] is writes]

    def _agree(self, terms: Any) -> None:
        if type(terms) is not bool:
            raise Rejected("a claim says True to write and False to read")

    def _admits(self, terms: Any) -> bool:
        if terms or not self.holders:
            return not self.holders
        writes = next(iter(self.holders.values()))[3]  # a writer holds alone
        return not writes and len(self.holders) < READERS_MAX


class ReadWriteSide(Lockable[ReadWriteLockMachine]):
    """The reading or the writing side of an `AsyncReadWriteLock`; use it like an `AsyncLock`."""

    machine = ReadWriteLockMachine
    _noun = "read-write lock"

    def __init__(self, access: Access, path: str, writes: bool) -> None:
        super().__init__(access, path)
        self._writes = writes

    async def locked(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether anybody holds it on this side."""
        return bool(await self.holders(consistency=consistency, timeout=timeout))

    async def holders(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who holds it on this side."""
        found = await self._query("held_by", [self._writes], consistency, timeout)
        return [Claim(*each) for each in found]

    async def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits on this side, the next one first; the other side may have its turn between."""
        found = await self._query("line_of", [self._writes], consistency, timeout)
        return [Claim(*each) for each in found]

    def _terms(self) -> list[Any]:
        return [self._writes]


class AsyncReadWriteLock(Resource[ReadWriteLockMachine]):
    """``async with lock.reader`` beside other readers, ``async with lock.writer`` alone.

    Fair: readers that come after a waiting writer wait behind it. Not re-entrant, and what is read
    is not upgraded: a task that holds it on either side gets a `MisuseError` for asking again.
    Tokens rise with every grant on both sides, so a token fences off every earlier writer.
    """

    machine = ReadWriteLockMachine

    def __init__(self, access: Access, path: str) -> None:
        super().__init__(access, path)
        self._reader = ReadWriteSide(access, path, False)
        self._writer = ReadWriteSide(access, path, True)

    @property
    def reader(self) -> ReadWriteSide:
        """The shared side."""
        return self._reader

    @property
    def writer(self) -> ReadWriteSide:
        """The exclusive side."""
        return self._writer

    def at(
        self,
        *,
        consistency: Consistency | None = None,
        timeout: float | timedelta | None = None,
    ) -> Self:
        """A view of both sides with other defaults; ``timeout`` in seconds."""
        view = super().at(consistency=consistency, timeout=timeout)
        view._reader = self._reader.at(consistency=consistency, timeout=timeout)
        view._writer = self._writer.at(consistency=consistency, timeout=timeout)
        return view
