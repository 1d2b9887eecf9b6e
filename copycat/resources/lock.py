"""A lock for the whole cluster: fair, fenced, and released when its holder's session ends.

``async with lock as held`` cancels the body when the lock is lost and raises `LockLost`. The state
is a `TurnsMachine`; nothing here decides who comes next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from ..errors import CopycatError, LockLost, MisuseError
from ..scopes import Held
from ..types import Consistency
from .base import Duration
from .turns import Claim, Turns, TurnsMachine


class LockMachine(TurnsMachine):
    """Turns under a name of their own."""

    type_name = "copycat.lock"


class AsyncLock(Turns[LockMachine]):
    """A fair mutual exclusion; not re-entrant; owned by the acquisition, not by the client.

    A paused process cannot know that its lock has gone: pass ``held.token``, which rises with
    every acquisition, to whatever is written under the lock, and refuse lower ones there.
    """

    machine = LockMachine
    _noun = "lock"

    async def acquire(self, *, timeout: Duration = None) -> Held:
        """Wait for the lock, for ``timeout`` seconds or as long as the session lives.

        Raises `DeadlineError`, `SessionExpiredError`. A cancelled or failed acquire never holds it.
        """
        return cast(Held, await self._take(wait=True, timeout=timeout))

    async def try_acquire(self, *, timeout: Duration = None) -> Held | None:
        """The lock if it is free now, else None."""
        seconds = self._session.timeout if timeout is None else timeout
        return await self._take(wait=False, timeout=seconds)

    async def release(self, held: Held | None = None) -> None:
        """Give back ``held``, or what this task, else this handle, acquired last.

        Raises `LockLost` if it was lost. A cancellation meanwhile does not keep the lock.
        """
        held = self._mine(entered=False) if held is None else held
        if held is None or held.released:
            raise MisuseError(f"{self.path!r} is not held by this handle")
        if held.lost.is_set():
            self._abandon(held)
            raise self._lost(held.token)("before it was released")
        await self._give_back(held)

    async def locked(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether anybody holds it."""
        return await self._holder(consistency, timeout) is not None

    async def holder(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Claim | None:
        """Who holds it."""
        return await self._holder(consistency, timeout)

    async def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits for it, the next one first."""
        return await self._line(consistency, timeout)

    def _lost(self, token: int) -> Callable[[str], CopycatError]:
        path = self.path
        return lambda reason: LockLost(f"{path!r} (token {token}) was lost: {reason}", token=token)
