"""Generated from `copycat.resources.lock` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from ...resources.base import Duration
from ...resources.line import Claim
from ...resources.lock import AsyncLock
from ...types import Consistency
from .lockable import Lockable


class Lock(Lockable):
    """A fair mutual exclusion; not re-entrant; owned by the acquisition, not by the client.

    A paused process cannot know that its lock has gone: pass ``held.token``, which rises with
    every acquisition, to whatever is written under the lock, and refuse lower ones there.
    """

    _kind = AsyncLock

    @property
    def _async(self) -> AsyncLock:
        return self._as(AsyncLock)

    def locked(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> bool:
        """Whether anybody holds it."""
        return self._run(self._async.locked(consistency=consistency, timeout=timeout))

    def holder(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Claim | None:
        """Who holds it."""
        return self._run(self._async.holder(consistency=consistency, timeout=timeout))


__all__ = ["Lock"]
