"""A topic: what is published reaches everybody who subscribes, in one order for all.

Messages go through the log and are kept nowhere else: who subscribes later does not get them. The
machine is pure and has no state at all; `AsyncTopic` is its client half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from ..machine import StateMachine, command, event
from .base import Duration, Resource
from .subscription import Subscription

T = TypeVar("T")

MESSAGE = "message"


class TopicMachine(StateMachine):
    """Hands on what is published; who listens is known to the cluster, not here."""

    type_name = "copycat.topic"
    message = event(object)

    @command(check=lambda _, value: None)
    def publish(self, value: Any) -> int:
        """Send it to every session that listens; to how many."""
        return self.message.publish(value)


@dataclass(frozen=True, slots=True)
class TopicEvent(Generic[T]):
    """A message; ``index`` is its place in the log, and rises from message to message."""

    value: T
    index: int


class AsyncTopic(Resource[TopicMachine], Generic[T]):
    """Publish and subscribe, ordered: all subscribers see the same messages in the same order."""

    machine = TopicMachine

    async def publish(self, value: T, *, timeout: Duration = None) -> int:
        """Send ``value`` to everybody who subscribes now; returns how many sessions that is.

        Each of them gets it exactly once, unless it ends before; a client is one session, however
        many of its tasks subscribe. Nothing is kept for those who come later.
        """
        return cast(int, await self._command("publish", [value], timeout))

    def subscribe(self) -> Subscription[TopicEvent[T]]:
        """Messages from now on (the first step, or ``async with``), none lost or doubled.

        (If the client subscribes already, what is on its way to it comes as well.)

        Unread messages are bounded. A session that leaves 8 MiB of them lie in the cluster is
        ended, and an iterator that leaves 16,384 lie in this process raises `OverloadedError`.
        When the session ends, it raises `SessionExpiredError` after the last message that came:
        what is published until the next `subscribe` is missed.
        """
        return Subscription(self, MESSAGE, TopicEvent)
