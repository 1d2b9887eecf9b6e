"""A subscription: shared events of a resource as an iterator that a cancelled wait leaves whole.

It begins with its first step, or with ``async with``, after which nothing is missed. It goes on
over reconnects and changes of leader with no gap and no repeat, and ends with an error rather than
with a hole. It serves topics and groups, and makes no event itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ..errors import CopycatError, MisuseError, SessionExpiredError
from ..listeners import Inbox, Registration
from .base import Resource

E = TypeVar("E")


class Subscription(AsyncIterator[E], Generic[E]):
    """``async for event in subscription``; leave it, or `aclose`, to end it.

    A step that is cancelled, by ``asyncio.timeout`` say, takes nothing: iterate again. Raises
    `SessionExpiredError` if the session ended and events may have been missed, `OverloadedError`
    if 16,384 events wait for this iterator, `UnknownResourceError` if the path was deleted; after
    that read the state anew and subscribe again.
    """

    def __init__(
        self,
        resource: Resource[Any],
        event: str,
        make: Callable[[Any, int], E],
        present: Callable[[], Awaitable[tuple[int, list[E]]]] | None = None,
    ) -> None:
        """``make`` an event of a published value and its index.

        ``present`` asks for an index and for what is to come first: the state there, as events.
        """
        self._resource = resource
        self._event = event
        self._make = make
        self._present = present
        self._first: deque[E] = deque()
        self._after = 0  # events up to this index are part of what came first
        self._listening: tuple[Registration, Inbox] | None = None
        self._loop = resource._access.loop
        self._error: CopycatError | None = None
        self._busy = False
        self._closed = False

    async def __aenter__(self) -> Self:
        """Begin: whatever is published from here on will come."""
        await self._begun()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def __anext__(self) -> E:
        if self._closed:
            raise StopAsyncIteration
        if self._error is not None:
            raise self._error
        if self._busy:
            raise MisuseError(
                f"two tasks iterate over one subscription of {self._resource.path!r}",
                hint="let each task subscribe for itself",
            )
        self._busy = True
        try:
            inbox = await self._begun()
            if self._first:
                return self._first.popleft()
            return await self._next(inbox)
        finally:
            self._busy = False

    async def aclose(self) -> None:
        """End it, also for a task that waits; the cluster is told in the background."""
        self._closed = True
        if self._listening is not None:
            self._listening[1].end(SessionExpiredError("the subscription was closed"))
        self._unlisten()

    async def _begun(self) -> Inbox:
        if self._closed:
            raise MisuseError(f"this subscription of {self._resource.path!r} was closed")
        if self._listening is None:
            listening = await self._resource._listen(self._event)
            if self._present is not None:
                try:
                    self._after, first = await self._present()
                except BaseException:
                    self._resource._session.unlisten(listening[0])
                    raise
                self._first = deque(first)
            self._listening = listening
        return self._listening[1]

    async def _next(self, inbox: Inbox) -> E:
        try:
            while True:
                value, index = await inbox.get()
                if index > self._after:
                    return self._make(value, index)
        except CopycatError as problem:
            if self._closed:
                raise StopAsyncIteration from None
            self._error = problem  # for good: what follows it would follow a hole
            self._unlisten()
            raise

    def _unlisten(self) -> None:
        if self._listening is not None:
            registration, self._listening = self._listening[0], None
            self._resource._session.unlisten(registration)

    def __del__(self) -> None:
        # Dropped without an end, as after a `break`; any thread may run this.
        if self._listening is not None and not self._loop.is_closed():
            unlisten, registration = self._resource._session.unlisten, self._listening[0]
            self._loop.call_soon_threadsafe(unlisten, registration)
