"""A latch for the whole cluster: closed until it was counted down often enough, then open for good.

Counts are never taken back: not by the end of the session that made them, nor by anybody else. The
line is a `LineMachine`; nothing is held.
"""

from __future__ import annotations

from typing import Any, cast

from ..errors import DeadlineError, Rejected
from ..machine import command, query
from ..types import Consistency
from .agreed import agreed, own_number, settling
from .base import Access, Duration
from .claims import Claims
from .line import Claim, LineMachine, check_claim

COUNT_MAX = 1_000_000_000


class LatchMachine(LineMachine):
    """How often it has to be counted down, and how often it was."""

    type_name = "copycat.latch"

    def __init__(self) -> None:
        super().__init__()
        self.count = 0  # until somebody has said it
        self.done = 0

    @command
    def count_down(self, by: int, count: int | None) -> int:
        """Count; what remains."""
        if type(by) is not int or by < 1:
            raise Rejected("a latch is counted down by a whole number from 1")
        self.count = agreed(self.count, count, "counts", COUNT_MAX)
        self.done = min(self.count, self.done + by)
        if self.done == self.count:
            for claim, waiter in self.waiting.items():
                self.granted.publish([claim, True], to=waiter[1])
            self.waiting.clear()
        return self.count - self.done

    @command
    def acquire(self, claim: bytes, name: str, wait: bool, count: int | None = None) -> bool:
        """Whether it is open; if not, the claim waits."""
        check_claim(claim, name)
        self.count = agreed(self.count, count, "counts", COUNT_MAX)
        if self.done == self.count:
            return True
        if wait:
            self._line_up(claim, name, None)
        return False

    @query
    def state(self) -> list[int]:
        """[count or 0, how much of it is done]."""
        return [self.count, self.done]


class AsyncLatch(Claims[LatchMachine]):
    """Wait until something was done ``count`` times; the first use settles how often.

    Raises `ConflictError` if others have settled another count; with ``count=None`` a handle takes
    whatever there is. An open latch stays open: for another round use another path.
    """

    machine = LatchMachine
    _noun = "latch"
    _outlives = True

    def __init__(self, access: Access, path: str, count: int | None = None) -> None:
        super().__init__(access, path)
        self._count = own_number(count, "count", COUNT_MAX)

    async def count_down(self, by: int = 1, *, timeout: Duration = None) -> int:
        """Count down ``by`` at once; returns what remains, 0 if it is open."""
        with settling(self.path, "counts", self._count):
            return cast(int, await self._command("count_down", [by, self._count], timeout))

    async def wait(self, *, timeout: Duration = None) -> None:
        """Wait until it is open, for ``timeout`` seconds or without end.

        Under a new session if the old one ends meanwhile. Raises `DeadlineError`.
        """
        with settling(self.path, "counts", self._count):
            await self._obtain(wait=True, timeout=timeout)

    async def count(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> int:
        """What remains; 0 if it is open, before the first use all that this handle knows of."""
        count, done = await self._query("state", [], consistency, timeout)
        if not count and self._count is None:
            raise Rejected(f"nobody has said yet how many counts {self.path!r} has")
        return int((count or self._count) - done)

    async def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits for it."""
        return await self._line(consistency, timeout)

    def _terms(self) -> list[Any]:
        return [self._count]

    def _have(self, claim: bytes, grant: Any) -> bool:
        return True

    def _late(self, seconds: float) -> DeadlineError:
        return DeadlineError(
            f"latch {self.path!r} was not open within {seconds:.1f} s",
            applied="no",
            hint="ask count() how much remains",
        )
