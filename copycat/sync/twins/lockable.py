"""Generated from `copycat.resources.lockable` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from typing import Any

from ...resources.base import Duration
from ...resources.line import Claim
from ...resources.lockable import Lockable as AsyncLockable
from ...types import Consistency
from ..base import plain
from ..scopes import Held, Turns


class Lockable(Turns):
    """``with`` it, or `acquire` and `release`; what is held belongs to the acquisition."""

    @property
    def _async(self) -> AsyncLockable[Any]:
        return self._as(AsyncLockable)

    def acquire(self, *, timeout: Duration = None) -> Held:
        """Wait for it, for ``timeout`` seconds or as long as the session lives.

        Raises `DeadlineError`, `SessionExpiredError`. A cancelled or failed acquire never holds it.
        """
        return Held(self._portal, self._run(self._async.acquire(timeout=timeout)))

    def try_acquire(self, *, timeout: Duration = None) -> Held | None:
        """It, if it is free now and nobody waits, else None."""
        found = self._run(self._async.try_acquire(timeout=timeout))
        return None if found is None else Held(self._portal, found)

    def release(self, held: Held | None = None) -> None:
        """Give back ``held``, or what this thread, else this handle, acquired last.

        Raises `LockLost` if it was lost. A cancellation meanwhile does not keep it.
        """
        self._run(self._async.release(plain(held)))

    def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits for it, the next one first."""
        return self._run(self._async.waiters(consistency=consistency, timeout=timeout))


__all__ = ["Lockable"]
