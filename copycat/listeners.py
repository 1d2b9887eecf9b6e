"""Events on the caller's side: who listens to what, and iterators that wait for the next one.

Order and exactly-once are the `Session`'s doing; here events are only handed out. Queues are
bounded: a consumer that falls too far behind gets an error, never a hole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from .errors import (
    CopycatError,
    OverloadedError,
    SerializationError,
    SessionExpiredError,
    UnknownResourceError,
)
from .pipeline import retrieved
from .serializer import Serializer
from .system import DELETED

log = logging.getLogger("copycat.session")

WAITING_MAX = 16_384
"""Events that may wait for one consumer."""

Callback = Callable[[Any, int], None]


class Registration:
    """One listener of one event; ``callback(value, index)`` runs in log order.

    ``on_gap(error)`` is called when there may have been events that are missed, or when none will
    ever come again: the session ended, the resource was deleted, or a value cannot be read.
    """

    __slots__ = ("callback", "event", "on_gap", "resource", "shared")

    def __init__(
        self,
        resource: int,
        event: str,
        callback: Callback,
        on_gap: Callable[[CopycatError], None] | None,
        *,
        shared: bool,
    ) -> None:
        self.resource = resource
        self.event = event
        self.callback = callback
        self.on_gap = on_gap
        self.shared = shared  # published to all who listen, not to this session by name


class Listeners:
    """All registrations of a client, by resource and event."""

    def __init__(self) -> None:
        self._by_event: dict[tuple[int, str], list[Registration]] = {}
        self._asked: dict[tuple[int, str], asyncio.Future[Any]] = {}  # and not answered
        self.on_deleted: Callable[[int], None] = lambda resource: None
        self.name_of: Callable[[int], str] = "resource {}".format  # for errors

    def add(self, registration: Registration) -> bool:
        """Add it; True if the cluster has to be told because it is the first shared one."""
        known = self._by_event.setdefault((registration.resource, registration.event), [])
        first = registration.shared and not any(other.shared for other in known)
        known.append(registration)
        return first

    def remove(self, registration: Registration) -> bool:
        """Remove it; True if the cluster has to be told because it was the last shared one."""
        key = (registration.resource, registration.event)
        known = self._by_event.get(key, [])
        if registration in known:  # (after a gap the cluster may yet be told of it)
            known.remove(registration)
            if not known:
                del self._by_event[key]
        return registration.shared and not any(other.shared for other in known)

    def asked(self, registration: Registration, told: asyncio.Future[Any]) -> None:
        """The cluster is being told of this first listener; ``told`` is its answer."""
        key = (registration.resource, registration.event)
        self._asked[key] = told

        def answered(_: object) -> None:
            if self._asked.get(key) is told:
                del self._asked[key]

        told.add_done_callback(answered)
        told.add_done_callback(retrieved)

    def answer_due(self, registration: Registration) -> asyncio.Future[Any] | None:
        """What to wait for before the events of ``registration`` are sure to come."""
        told = self._asked.get((registration.resource, registration.event))
        return asyncio.shield(told) if registration.shared and told is not None else None

    def dispatch(
        self, resource: int, event: str, value: bytes, index: int, serializer: Serializer
    ) -> None:
        """Decode one event and hand it to everybody who listens to it."""
        if event == DELETED:
            self._deleted(resource)
            return
        known = tuple(self._by_event.get((resource, event), ()))
        if not known:
            return
        try:
            decoded = serializer.unpack(value)
        except SerializationError as problem:
            for registration in known:
                if registration.on_gap is not None:
                    registration.on_gap(problem)
            return
        for registration in known:
            try:
                registration.callback(decoded, index)
            except Exception:
                log.exception("a listener of %r failed", event)

    def gap(self, reason: str) -> None:
        """The session ended: tell those who care that events may be missing.

        What the cluster knew of is over; whoever goes on listens anew, under the next session.
        """
        everybody = [each for known in self._by_event.values() for each in known]
        self._by_event = {
            key: private
            for key, known in self._by_event.items()
            if (private := [each for each in known if not each.shared])
        }
        self._asked.clear()
        for registration in everybody:
            if registration.on_gap is not None:
                registration.on_gap(
                    SessionExpiredError(
                        f"events may have been missed: {reason}",
                        hint="read the state, then iterate again",
                    )
                )

    def _deleted(self, resource: int) -> None:
        """No event of ``resource`` comes any more; its listeners are forgotten on both sides."""
        gone = [known for key, known in self._by_event.items() if key[0] == resource]
        for known in gone:
            for registration in tuple(known):
                if registration.on_gap is not None:
                    registration.on_gap(
                        UnknownResourceError(
                            f"{self.name_of(resource)} was deleted",
                            hint="make a new handle; its first use creates the resource again",
                        )
                    )
        for key in [key for key in self._by_event if key[0] == resource]:
            del self._by_event[key]
        self.on_deleted(resource)


class Inbox:
    """A bounded queue with one consumer, ended by an error."""

    __slots__ = ("_error", "_items", "_waiter")

    def __init__(self) -> None:
        self._items: deque[tuple[Any, int]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: CopycatError | None = None

    def put(self, value: Any, index: int) -> None:
        """Queue an event for the consumer."""
        if self._error is not None:
            return
        if len(self._items) >= WAITING_MAX:
            self.end(
                OverloadedError(
                    f"{WAITING_MAX} events wait for a consumer that is too slow",
                    hint="do less in the loop body, then read the state and iterate again",
                )
            )
            return
        self._items.append((value, index))
        self._wake()

    def begin(self, index: int) -> None:
        """Only now it is known from which index on events are complete: drop those before it."""
        self._items = deque(item for item in self._items if item[1] >= index)

    def end(self, error: CopycatError) -> None:
        """Raise ``error`` once everything queued is consumed."""
        if self._error is None:
            self._error = error
            self._wake()

    async def get(self) -> tuple[Any, int]:
        """The next (value, index), in order."""
        while not self._items:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
