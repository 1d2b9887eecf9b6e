"""What is acquired and released: the verbs that a lock, a semaphore and a read-write lock share.

The client half above `Turns`: names and errors, no decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from ..errors import CopycatError, LockLost, MisuseError
from ..scopes import Held
from ..types import Consistency
from .base import Duration
from .line import Claim
from .shares import SharesMachine
from .turns import Turns

M = TypeVar("M", bound=SharesMachine)


class Lockable(Turns[M]):
    """``async with`` it, or `acquire` and `release`; what is held belongs to the acquisition."""

    async def acquire(self, *, timeout: Duration = None) -> Held:
        """Wait for it, for ``timeout`` seconds or as long as the session lives.

        Raises `DeadlineError`, `SessionExpiredError`. A cancelled or failed acquire never holds it.
        """
        return cast(Held, await self._take(wait=True, timeout=timeout))

    async def try_acquire(self, *, timeout: Duration = None) -> Held | None:
        """It, if it is free now and nobody waits, else None."""
        seconds = self._session.timeout if timeout is None else timeout
        return await self._take(wait=False, timeout=seconds)

    async def release(self, held: Held | None = None) -> None:
        """Give back ``held``, or what this task, else this handle, acquired last.

        Raises `LockLost` if it was lost. A cancellation meanwhile does not keep it.
        """
        held = self._mine(entered=False) if held is None else held
        if held is None or held.released:
            raise MisuseError(f"{self.path!r} is not held by this handle")
        if held.lost.is_set():
            self._abandon(held)
            raise self._lost(held.token)("before it was released")
        await self._give_back(held)

    async def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits for it, the next one first."""
        return await self._line(consistency, timeout)

    def _lost(self, token: int) -> Callable[[str], CopycatError]:
        path = self.path
        return lambda reason: LockLost(f"{path!r} (token {token}) was lost: {reason}", token=token)
