"""Generated from `copycat.resources.topic` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from typing import Generic

from ...resources.base import Duration
from ...resources.topic import AsyncTopic, T, TopicEvent
from ..base import Handle
from .subscription import Subscription


class Topic(Handle, Generic[T]):
    """Publish and subscribe, ordered: all subscribers see the same messages in the same order."""

    _kind = AsyncTopic

    @property
    def _async(self) -> AsyncTopic[T]:
        return self._as(AsyncTopic)

    def publish(self, value: T, *, timeout: Duration = None) -> int:
        """Send ``value`` to everybody who subscribes now; returns how many sessions that is.

        Each of them gets it exactly once, unless it ends before; a client is one session, however
        many of its tasks subscribe. Nothing is kept for those who come later.
        """
        return self._run(self._async.publish(value, timeout=timeout))

    def subscribe(self) -> Subscription[TopicEvent[T]]:
        """Messages from now on (the first step, or ``with``), none lost or doubled.

        (If the client subscribes already, what is on its way to it comes as well.)

        Unread messages are bounded. A session that leaves 8 MiB of them lie in the cluster is
        ended, and an iterator that leaves 16,384 lie in this process raises `OverloadedError`.
        When the session ends, it raises `SessionExpiredError` after the last message that came:
        what is published until the next `subscribe` is missed.
        """
        return Subscription(self._portal, self._async.subscribe())


__all__ = ["Topic"]
