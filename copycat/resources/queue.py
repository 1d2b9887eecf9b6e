"""A queue for the whole cluster: first in, first out, and no item is lost with its consumer.

An item that was taken stays in the machine until it is acknowledged. If its consumer says no, or
the consumer's session ends, it goes back to where it came from, in front of what came after it.
The line of those who wait for items is a `LineMachine`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from heapq import heappop, heappush
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from ..errors import (
    DeadlineError,
    MisuseError,
    OverloadedError,
    Rejected,
    SerializationError,
    SessionExpiredError,
)
from ..machine import command, query
from ..scopes import Held
from ..types import Consistency
from .base import Duration, seconds_of
from .claims import Claims
from .line import Claim, LineMachine, check_claim

T = TypeVar("T")

ITEMS_MAX = 1_000_000
"""Items in one queue, taken ones included."""
TAKEN_MAX = 10_000
"""Claims that have an item or wait for one."""
STEPS_MAX = 128
"""Items that may come together, in a transaction."""


class QueueMachine(LineMachine):
    """Items: fresh ones, returned ones, and taken ones by claim.

    An item is [serial, value, deliveries]. Items are taken in the order of serials, so what was
    returned is always older than what is fresh. A grant is [token, serial, value, deliveries]; its
    token is the log index of the delivery, and tokens rise strictly.
    """

    type_name = "copycat.queue"

    def __init__(self) -> None:
        super().__init__()
        self.fresh: deque[list[Any]] = deque()
        self.returned: list[list[Any]] = []  # a heap of [serial, return's number, value, deliv.]
        self.taken: dict[bytes, list[Any]] = {}  # claim -> [name, session, *grant]
        self.last_serial = 0
        self.last_token = 0
        self.returns = 0

    @command(check=lambda self, _: self._check_room(ITEMS_MAX - STEPS_MAX))
    def put(self, value: Any) -> None:
        """Add an item at the end."""
        self._check_room(ITEMS_MAX)
        self.last_serial += 1
        self.fresh.append([self.last_serial, value, 0])
        self._serve()

    @command
    def acquire(self, claim: bytes, name: str, wait: bool) -> list[Any]:
        """The grant of the next item, or []: there is none, and the claim waits if it wants to."""
        check_claim(claim, name)
        if claim in self.taken:
            return self.taken[claim][2:]
        if claim not in self.waiting and len(self.taken) + len(self.waiting) >= TAKEN_MAX:
            raise OverloadedError(f"{TAKEN_MAX} items are taken or waited for, the limit")
        if self.fresh or self.returned:
            return self._grant(claim, name, self.commit.session)
        if wait:
            self._line_up(claim, name, None)
        return []

    @command
    def ack(self, claim: bytes) -> bool:
        """Forget the item for good; whether the claim had one."""
        return self.taken.pop(claim, None) is not None

    @command
    def release(self, claim: bytes) -> bool:
        """Return the item, or leave the line; whether the claim had an item."""
        taken = self.taken.pop(claim, None)
        if taken is None:
            self.waiting.pop(claim, None)
            return False
        self._return(taken[3:])
        self._serve()
        return True

    @command
    def put_back(self, claim: bytes, item: list[Any], session: int) -> bool:
        """Return an item although it may be acknowledged: its consumer never saw it.

        ``session`` took it. If that has ended, the item went back then, or was acknowledged for
        somebody who cannot be asked any more: nothing is returned twice.
        """
        if type(item) is not list:
            raise Rejected("an item is [serial, value, deliveries]")
        serial, _, deliveries = item
        if type(serial) is not int or type(deliveries) is not int or type(claim) is not bytes:
            raise Rejected("an item is [serial, value, deliveries]")
        if not 0 < serial <= self.last_serial:
            raise Rejected("there was no such item")
        if session != self.commit.session:
            return False
        if self.taken.pop(claim, None) is None:
            # What was acknowledged has made room, and that may be taken already.
            self._check_room(ITEMS_MAX + TAKEN_MAX)
        self._return(item)
        self._serve()
        return True

    @query
    def size(self) -> int:
        """How many items can be taken."""
        return len(self.fresh) + len(self.returned)

    @query
    def first(self) -> list[Any]:
        """[the value of the next item], or []."""
        if self.returned:
            return [self.returned[0][2]]
        return [self.fresh[0][1]] if self.fresh else []

    @query
    def held(self) -> list[Any]:
        """[name, session, token] for each item that is taken, in the order of their tokens."""
        return [taken[:3] for taken in self.taken.values()]

    def snapshot(self) -> object:
        """All attributes, in the serializer's types."""
        return {**cast("dict[str, Any]", super().snapshot()), "fresh": list(self.fresh)}

    def restore(self, image: Any) -> None:
        """Become what made ``image``."""
        super().restore(image)
        self.fresh = deque(image["fresh"])

    def on_close(self, session: int) -> None:
        """An ended session waits for nothing, and what it had taken is there for the others."""
        super().on_close(session)
        for claim in [c for c, taken in self.taken.items() if taken[1] == session]:
            self._return(self.taken.pop(claim)[3:])
        self._serve()

    def on_delete(self, session: int) -> None:
        """Those who have or want an item are told that it is gone."""
        involved = [*self.taken.values(), *self.waiting.values()]
        self.commit.dismiss(each[1] for each in involved)

    def _check_room(self, limit: int) -> None:
        if len(self.fresh) + len(self.returned) + len(self.taken) >= limit:
            raise OverloadedError(f"the queue has {ITEMS_MAX} items, its limit")

    def _return(self, item: list[Any]) -> None:
        serial, value, deliveries = item
        self.returns += 1  # so that values are never compared
        heappush(self.returned, [serial, self.returns, value, deliveries])

    def _serve(self) -> None:
        """Give items to those who wait for them."""
        while self.waiting and (self.fresh or self.returned):
            claim = next(iter(self.waiting))
            name, session, _ = self.waiting.pop(claim)
            self.granted.publish([claim, self._grant(claim, name, session)], to=session)

    def _grant(self, claim: bytes, name: str, session: int) -> list[Any]:
        if self.returned:
            serial, _, value, deliveries = heappop(self.returned)
        else:
            serial, value, deliveries = self.fresh.popleft()
        self.last_token = max(self.commit.index, self.last_token + 1)
        grant = [self.last_token, serial, value, deliveries + 1]
        self.taken[claim] = [name, session, *grant]
        return grant


# -- the caller's side -------------------------------------------------------------------------


class Taken(Held, Generic[T]):
    """An item that was taken: ``value``, and how often it was delivered, this time included.

    It is yours until `ack` (done: it is gone for good), `nack` (it goes back, in front) or the end
    of the session, which is a `nack` too. ``async with item`` is a scope: it acknowledges at the
    end, returns the item if the body raises, and cancels the body if the item is lost. ``token``
    rises with every delivery: pass it on, and refuse lower ones for the same item.
    """

    def __init__(self, queue: AsyncQueue[T], claim: bytes, grant: list[Any], session: int) -> None:
        token, serial, value, deliveries = grant
        path = queue.path
        super().__init__(
            token,
            claim,
            queue._session.lifetime,
            lambda reason: SessionExpiredError(
                f"an item of {path!r} (token {token}) was lost: {reason}",
                hint="it goes to the next consumer; what was done with it may be done again",
            ),
        )
        self.value: T = value
        self.deliveries: int = deliveries
        self._queue = queue
        self._session = session
        self._item = [serial, value, deliveries]

    async def ack(self, *, timeout: Duration = None) -> None:
        """It is done: remove it for good. After a `DeadlineError` it can be tried again.

        Raises `SessionExpiredError` if it was lost: then somebody else gets it.
        """
        self._check_open()
        mine = await self._queue._command("ack", [self.claim], timeout)
        self._settled()
        # With the same session it is an earlier try that removed it.
        if not mine and self._queue._session.id != self._session:
            raise self._error("the session ended before it was acknowledged")

    async def nack(self) -> None:
        """Return it for somebody else to take; goes on even if the waiting for it is cancelled."""
        if not self.lost.is_set():  # else it went back already
            self._check_open()
            await self._give_back()

    def _check_open(self) -> None:
        if self.lost.is_set():
            raise self._error(self._reason)
        if self.released:
            raise MisuseError(f"this item of {self._queue.path!r} was acked or nacked already")

    def _settled(self) -> None:
        self.release()
        self._queue._access.let_go(self._queue._resource, self)

    def lose(self, reason: str) -> None:
        """It is somebody else's, or will be; a scope gives it back when its body has ended."""
        if self.released or self.lost.is_set():
            return
        super().lose(reason)
        if not self.entered:
            self._settled()
            # If the session should live after all, the item must not lie idle.
            self._queue._quietly("release", [self.claim])

    async def _give_back(self) -> None:
        self._settled()
        returned = self._queue._quietly("release", [self.claim])
        if returned is not None and not self.lost.is_set():
            await asyncio.wait([returned], timeout=self._queue._session.timeout)

    async def __aenter__(self) -> Self:
        self._check_open()
        self.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = self.lost.is_set() and not self.released
        try:
            self.leave(exc_type, exc)
        finally:
            if not self.released and (exc_type is not None or lost):
                await self._give_back()
        if exc_type is None and lost:  # the body held out against its cancellation
            raise self._error(self._reason)
        if not self.released:
            await self.ack()


class AsyncQueue(Claims[QueueMachine], Generic[T]):
    """First in, first out, for any number of producers and consumers.

    `get` removes an item, `take` lends it until it is acknowledged: take what must not be lost
    when a consumer dies half-way. Those who wait are served in the order of their coming.
    """

    machine = QueueMachine
    _noun = "queue"

    async def put(self, value: T, *, timeout: Duration = None) -> None:
        """Add an item at the end. Raises `OverloadedError` if the queue is full."""
        await self._command("put", [value], timeout)

    async def get(self, *, timeout: Duration = None) -> T:
        """Remove the next item and return it; wait for one, ``timeout`` seconds or without end.

        A cancelled or failed `get` takes nothing. Raises `DeadlineError`, and `OutcomeUnknownError`
        if the session ended at the moment of the removal.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            left = timeout
            if timeout is not None:
                left = max(0.0, seconds_of(timeout) - (loop.time() - began))
            item = cast("Taken[T]", await self._obtain(wait=True, timeout=left))
            if await self._removed(item):
                return item.value

    async def get_nowait(self, *, timeout: Duration = None) -> T:
        """Remove the next item and return it; ``asyncio.QueueEmpty`` if there is none."""
        while True:
            seconds = self._session.timeout if timeout is None else timeout
            item: Taken[T] | None = await self._obtain(wait=False, timeout=seconds)
            if item is None:
                raise asyncio.QueueEmpty(f"{self.path!r} is empty")
            if await self._removed(item):
                return item.value

    async def take(self, *, timeout: Duration = None) -> Taken[T]:
        """Borrow the next item; wait for one, for ``timeout`` seconds or without end.

        ``item = await queue.take()``, and `Taken.ack` it when it is done; or use it as a scope,
        ``async with await queue.take() as item``. A cancelled or failed `take` takes nothing.
        """
        return cast("Taken[T]", await self._obtain(wait=True, timeout=timeout))

    async def peek(
        self,
        default: T | None = None,
        *,
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> T | None:
        """The next item, which stays where it is, or ``default``."""
        found = await self._query("first", [], consistency, timeout)
        return found[0] if found else default

    async def size(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> int:
        """How many items can be taken; those that are taken do not count."""
        return cast(int, await self._query("size", [], consistency, timeout))

    async def holders(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who has taken items and not acknowledged them, one entry for each item."""
        return [Claim(*each) for each in await self._query("held", [], consistency, timeout)]

    async def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits for an item, the next one first."""
        return await self._line(consistency, timeout)

    def _have(self, claim: bytes, grant: Any) -> Taken[T]:
        item = Taken(self, claim, grant, self._session.id)
        self._access.hold(self._resource, item)
        return item

    def _late(self, seconds: float) -> DeadlineError:
        return DeadlineError(
            f"no item of {self.path!r} came within {seconds:.1f} s",
            applied="no",
            hint="ask size() and waiters()",
        )

    async def _removed(self, item: Taken[T]) -> bool:
        """Acknowledge what nobody has seen yet; if that fails or is cancelled, put it back.

        False if the item was lost before: it is somebody else's now.
        """
        item._settled()
        try:
            if await self._command("ack", [item.claim]):
                return True
        except BaseException:
            # (An item that can be read and not be written again stays with its acknowledgement.)
            with contextlib.suppress(SerializationError):
                self._quietly("put_back", [item.claim, item._item, item._session])
            raise
        return False
