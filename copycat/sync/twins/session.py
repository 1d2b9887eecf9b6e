"""Generated from `copycat.session` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...session import Session as AsyncSession
from ...types import SessionState
from ..base import Twin


class Session(Twin):
    """Commands, queries and events of one client; see ``state``, ``id`` and ``watch()``."""

    @property
    def _async(self) -> AsyncSession:
        return self._as(AsyncSession)

    @property
    def id(self) -> int:
        """The log index of the session's registration; 0 while there is none."""
        return self._async.id

    @property
    def state(self) -> SessionState:
        """What can be relied on; see `SessionState`."""
        return self._async.state

    @property
    def index(self) -> int:
        """The highest log index of which this client has seen the effects."""
        return self._async.index

    def watch(self) -> Iterator[SessionState]:
        """The present state and then every change."""
        return self._iterate(self._async.watch())


__all__ = ["Session"]
