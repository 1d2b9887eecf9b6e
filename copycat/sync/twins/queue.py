"""Generated from `copycat.resources.queue` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Generic, Self

from ...resources.base import Duration
from ...resources.line import Claim
from ...resources.queue import AsyncQueue, T
from ...resources.queue import Taken as AsyncTaken
from ...types import Consistency
from ..base import Handle
from ..scopes import Held


class Taken(Held, Generic[T]):
    """An item that was taken: ``value``, and how often it was delivered, this time included.

    It is yours until `ack` (done: it is gone for good), `nack` (it goes back, in front) or the end
    of the session, which is a `nack` too. ``with item`` is a scope: it acknowledges at the
    end, returns the item if the body raises, and raises at the end if the item is lost. ``token``
    rises with every delivery: pass it on, and refuse lower ones for the same item.
    """

    @property
    def _async(self) -> AsyncTaken[T]:
        return self._as(AsyncTaken)

    @property
    def value(self) -> T:
        """As in `copycat.Taken`."""
        return self._async.value

    @property
    def deliveries(self) -> int:
        """As in `copycat.Taken`."""
        return self._async.deliveries

    def ack(self, *, timeout: Duration = None) -> None:
        """It is done: remove it for good. After a `DeadlineError` it can be tried again.

        Raises `SessionExpiredError` if it was lost: then somebody else gets it.
        """
        self._run(self._async.ack(timeout=timeout))

    def nack(self) -> None:
        """Return it for somebody else to take; goes on even if the waiting for it is cancelled."""
        self._run(self._async.nack())

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


class Queue(Handle, Generic[T]):
    """First in, first out, for any number of producers and consumers.

    `get` removes an item, `take` lends it until it is acknowledged: take what must not be lost
    when a consumer dies half-way. Those who wait are served in the order of their coming.
    """

    _kind = AsyncQueue

    @property
    def _async(self) -> AsyncQueue[T]:
        return self._as(AsyncQueue)

    def put(self, value: T, *, timeout: Duration = None) -> None:
        """Add an item at the end. Raises `OverloadedError` if the queue is full."""
        self._run(self._async.put(value, timeout=timeout))

    def get(self, *, timeout: Duration = None) -> T:
        """Remove the next item and return it; wait for one, ``timeout`` seconds or without end.

        A cancelled or failed `get` takes nothing. Raises `DeadlineError`, and `OutcomeUnknownError`
        if the session ended at the moment of the removal.
        """
        return self._run(self._async.get(timeout=timeout))

    def get_nowait(self, *, timeout: Duration = None) -> T:
        """Remove the next item and return it; ``asyncio.QueueEmpty`` if there is none."""
        return self._run(self._async.get_nowait(timeout=timeout))

    def take(self, *, timeout: Duration = None) -> Taken[T]:
        """Borrow the next item; wait for one, for ``timeout`` seconds or without end.

        ``item = queue.take()``, and `Taken.ack` it when it is done; or use it as a scope,
        ``with queue.take() as item``. A cancelled or failed `take` takes nothing.
        """
        return Taken(self._portal, self._run(self._async.take(timeout=timeout), AsyncTaken.nack))

    def peek(
        self,
        default: T | None = None,
        *,
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> T | None:
        """The next item, which stays where it is, or ``default``."""
        return self._run(self._async.peek(default, consistency=consistency, timeout=timeout))

    def size(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> int:
        """How many items can be taken; those that are taken do not count."""
        return self._run(self._async.size(consistency=consistency, timeout=timeout))

    def holders(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who has taken items and not acknowledged them, one entry for each item."""
        return self._run(self._async.holders(consistency=consistency, timeout=timeout))

    def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits for an item, the next one first."""
        return self._run(self._async.waiters(consistency=consistency, timeout=timeout))


__all__ = ["Queue", "Taken"]
