"""Generated from `copycat.resources.semaphore` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from ...resources.base import Duration
from ...resources.line import Claim
from ...resources.semaphore import AsyncSemaphore
from ...types import Consistency
from .lockable import Lockable


class Semaphore(Lockable):
    """As ``asyncio.Semaphore``; the first use settles the number of permits.

    A permit belongs to its acquisition: release what you acquired, nothing else, and a thread may
    acquire several. ``held.token`` names the permit and rises with every grant; several are good at
    a time, so it fences off nobody by itself: ask `holders` who still has one.

    Raises `ConflictError` at an acquisition if others have settled another number; with
    ``permits=None`` a handle takes whatever number there is.
    """

    _kind = AsyncSemaphore

    @property
    def _async(self) -> AsyncSemaphore:
        return self._as(AsyncSemaphore)

    def locked(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> bool:
        """Whether no permit is free."""
        return self._run(self._async.locked(consistency=consistency, timeout=timeout))

    def available(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> int:
        """How many permits are free; before the first use all that this handle knows of."""
        return self._run(self._async.available(consistency=consistency, timeout=timeout))

    def holders(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who has a permit, one entry for each, in the order of their tokens."""
        return self._run(self._async.holders(consistency=consistency, timeout=timeout))


__all__ = ["Semaphore"]
