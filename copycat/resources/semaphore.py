"""A semaphore for the whole cluster: so many may hold it at a time, the others in line.

Fair, and every permit goes back when its holder's session ends. ``async with semaphore`` cancels
the body when the permit is lost and raises `LockLost`. The state is a `SharesMachine`.
"""

from __future__ import annotations

from typing import Any

from ..machine import query
from ..types import Consistency
from .agreed import agreed, own_number, settling
from .base import Access, Duration
from .line import Claim
from .lockable import Lockable
from .shares import SharesMachine

PERMITS_MAX = 10_000


class SemaphoreMachine(SharesMachine):
    """Shares for as many as there are permits; a claim's terms are the number it believes in."""

    type_name = "copycat.semaphore"

    def __init__(self) -> None:
        super().__init__()
        self.permits = 0  # until the first claim has said how many

    @query
    def count(self) -> list[int]:
        """[permits or 0, how many of them are held]."""
        return [self.permits, len(self.holders)]

    def _agree(self, terms: Any) -> None:
        self.permits = agreed(self.permits, terms, "permits", PERMITS_MAX)

    def _admits(self, terms: Any) -> bool:
        return len(self.holders) < self.permits


class AsyncSemaphore(Lockable[SemaphoreMachine]):
    """As ``asyncio.Semaphore``; the first use settles the number of permits.

    A permit belongs to its acquisition: release what you acquired, nothing else, and a task may
    acquire several. ``held.token`` names the permit and rises with every grant; several are good at
    a time, so it fences off nobody by itself: ask `holders` who still has one.

    Raises `ConflictError` at an acquisition if others have settled another number; with
    ``permits=None`` a handle takes whatever number there is.
    """

    machine = SemaphoreMachine
    _noun = "semaphore"

    def __init__(self, access: Access, path: str, permits: int | None = None) -> None:
        super().__init__(access, path)
        self._permits = own_number(permits, "permits", PERMITS_MAX)

    async def locked(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether no permit is free."""
        permits, held = await self._query("count", [], consistency, timeout)
        return bool(0 < permits <= held)

    async def available(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> int:
        """How many permits are free; before the first use all that this handle knows of."""
        permits, held = await self._query("count", [], consistency, timeout)
        return int((permits or self._permits or 0) - held)

    async def holders(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who has a permit, one entry for each, in the order of their tokens."""
        return await self._holders(consistency, timeout)

    def _terms(self) -> list[Any]:
        return [self._permits]

    def _check_entry(self, resource: int) -> None:
        """A task may have several permits, as with asyncio's."""

    async def _claim(self, *, wait: bool, seconds: float) -> Any:
        with settling(self.path, "permits", self._permits):
            return await super()._claim(wait=wait, seconds=seconds)
