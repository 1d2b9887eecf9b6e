"""Generated from `copycat.resources.latch` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from ...resources.base import Duration
from ...resources.latch import AsyncLatch
from ...resources.line import Claim
from ...types import Consistency
from ..base import Handle


class Latch(Handle):
    """Wait until something was done ``count`` times; the first use settles how often.

    Raises `ConflictError` if others have settled another count; with ``count=None`` a handle takes
    whatever there is. An open latch stays open: for another round use another path.
    """

    _kind = AsyncLatch

    @property
    def _async(self) -> AsyncLatch:
        return self._as(AsyncLatch)

    def count_down(self, by: int = 1, *, timeout: Duration = None) -> int:
        """Count down ``by`` at once; returns what remains, 0 if it is open."""
        return self._run(self._async.count_down(by, timeout=timeout))

    def wait(self, *, timeout: Duration = None) -> None:
        """Wait until it is open, for ``timeout`` seconds or without end.

        Under a new session if the old one ends meanwhile. Raises `DeadlineError`.
        """
        self._run(self._async.wait(timeout=timeout))

    def count(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> int:
        """What remains; 0 if it is open, before the first use all that this handle knows of."""
        return self._run(self._async.count(consistency=consistency, timeout=timeout))

    def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits for it."""
        return self._run(self._async.waiters(consistency=consistency, timeout=timeout))


__all__ = ["Latch"]
