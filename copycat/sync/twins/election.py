"""Generated from `copycat.resources.election` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...resources.base import Duration
from ...resources.election import ElectionEvent
from ...resources.election import LeaderElection as AsyncLeaderElection
from ...resources.line import Claim
from ...types import Consistency
from ..scopes import Campaign


class LeaderElection(Campaign):
    """An election; owned by the campaign, so that one client may be a candidate several times.

    A paused process cannot know that it was replaced: pass ``term.token`` to what it writes, or
    ask `is_leader` before critical work.
    """

    _kind = AsyncLeaderElection

    @property
    def _async(self) -> AsyncLeaderElection:
        return self._as(AsyncLeaderElection)

    def resign(self) -> None:
        """Give up the leadership held through this handle; another task's body is cancelled."""
        self._run(self._async.resign())

    def leader(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Claim | None:
        """Who leads."""
        return self._run(self._async.leader(consistency=consistency, timeout=timeout))

    def candidates(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits to lead, the next one first."""
        return self._run(self._async.candidates(consistency=consistency, timeout=timeout))

    def is_leader(
        self, token: int, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether the cluster confirms that the leadership with ``token`` still stands."""
        return self._run(self._async.is_leader(token, consistency=consistency, timeout=timeout))

    def changes(self) -> Iterator[ElectionEvent]:
        """The present leader, if any, then every change of leadership, in order.

        Raises `SessionExpiredError` if the session ended and changes may have been missed.
        """
        return self._iterate(self._async.changes())


__all__ = ["LeaderElection"]
