"""A lock for the whole cluster: fair, fenced, and released when its holder's session ends.

``async with lock as held`` cancels the body when the lock is lost and raises `LockLost`. The state
is a `TurnsMachine`; nothing here decides who comes next.
"""

from __future__ import annotations

from ..types import Consistency
from .base import Duration
from .line import Claim
from .lockable import Lockable
from .turns import TurnsMachine


class LockMachine(TurnsMachine):
    """Turns under a name of their own."""

    type_name = "copycat.lock"


class AsyncLock(Lockable[LockMachine]):
    """A fair mutual exclusion; not re-entrant; owned by the acquisition, not by the client.

    A paused process cannot know that its lock has gone: pass ``held.token``, which rises with
    every acquisition, to whatever is written under the lock, and refuse lower ones there.
    """

    machine = LockMachine
    _noun = "lock"

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
