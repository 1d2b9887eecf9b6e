"""A replicated set, in the order in which its elements came: its machine (pure) and `AsyncSet`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar, cast

from ..machine import StateMachine, command, event, query
from ..types import Consistency, EventType, Mode
from .base import Duration, Resource, hashable
from .endings import Endings, terms_of, wire_terms
from .pages import KEYS, page_of, pages
from .table import Table

T = TypeVar("T")

_CHANGED = "changed"


class SetMachine(StateMachine):
    """A table whose keys are the elements. Members store them as they are on the wire."""

    type_name = "copycat.set"
    changed = event(list[Any])

    def __init__(self) -> None:
        self.table = Table()
        self.endings = Endings(self.table)

    @command
    def add(self, element: Any, ttl_us: int = 0, ephemeral: bool = False) -> bool:
        """Add; False, and nothing changes, if it is there."""
        terms = terms_of(self.commit, ttl_us, ephemeral)
        if element in self.table:
            return False
        serial = self.table.put(element, None, self.commit.index, terms)
        if terms is not None:
            self.endings.begin(serial, terms)
            self.endings.schedule(self.commit, "expire")
        self.changed.publish(["add", element])
        return True

    @command
    def remove(self, element: Any) -> bool:
        """Remove; whether it was there."""
        if element not in self.table:
            return False
        self._remove(element, "remove")
        return True

    @command
    def clear(self) -> None:
        """Remove everything."""
        if len(self.table):
            self.table.clear()
            self.endings.clear()
            self.changed.publish(["clear", None])

    @command
    def expire(self) -> None:
        """Remove what has outlived its time: the timer of `Endings`."""
        for serial in self.endings.due(self.commit.time_us):
            self._remove(self.table.key_of(serial), "expire")
        self.endings.schedule(self.commit, "expire")

    @query
    def contains(self, element: Any) -> bool:
        """Whether it is there."""
        return element in self.table

    @query
    def size(self) -> int:
        """The number of elements."""
        return len(self.table)

    @query
    def page(self, after: int) -> list[Any]:
        """Elements after a serial: [serial to go on from or -1, elements]."""
        return page_of(self.table, after, KEYS)[:2]

    def on_close(self, session: int) -> None:
        """What was added for the time of an ended session is gone."""
        for serial in self.endings.of(session):
            self._remove(self.table.key_of(serial), "expire")

    def snapshot(self) -> Iterator[object]:
        """In pieces, for there may be a million elements."""
        return chain(([self.table.serial, list(self.endings.timers)],), self.table.freeze())

    def restore(self, image: Iterator[Any]) -> None:
        """Become what was frozen."""
        serial, timers = next(image)
        self.endings.restored(timers, self.table.restore(serial, image))

    def _remove(self, element: Any, kind: str) -> None:
        self.endings.forget(self.table.serials[element])
        self.table.pop(element)
        self.changed.publish([kind, element])


@dataclass(frozen=True, slots=True)
class SetEvent(Generic[T]):
    """`ADD`, `REMOVE`, `EXPIRE` or `CLEAR` (of no ``value``); ``index`` is its place in the log."""

    type: EventType
    value: T | None
    index: int


class AsyncSet(Resource[SetMachine], Generic[T]):
    """A shared set; every operation is atomic.

    Elements need a hash, as in a set. Queries take ``consistency``, everything ``timeout`` (s).
    """

    machine = SetMachine

    async def add(
        self,
        value: T,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> bool:
        """Add ``value``; False if it was there, and then it stays as it is.

        With a ``ttl`` (s, by log time) it expires by itself; with `Mode.EPHEMERAL` when the session
        that added it ends.
        """
        hashable(value)
        arguments = [value, *wire_terms(ttl, mode)]
        return cast(bool, await self._command("add", arguments, timeout))

    async def remove(self, value: T, *, timeout: Duration = None) -> bool:
        """Remove ``value``; whether it was there."""
        hashable(value)
        return cast(bool, await self._command("remove", [value], timeout))

    async def clear(self, *, timeout: Duration = None) -> None:
        """Remove every element."""
        await self._command("clear", [], timeout)

    async def contains(
        self, value: T, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``value`` is there."""
        hashable(value)
        return cast(bool, await self._query("contains", [value], consistency, timeout))

    async def size(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> int:
        """The number of elements."""
        return cast(int, await self._query("size", [], consistency, timeout))

    async def is_empty(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether there is no element."""
        return await self.size(consistency=consistency, timeout=timeout) == 0

    async def items(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> AsyncIterator[T]:
        """The elements in the order in which they came, fetched in pages.

        What is there from beginning to end appears exactly once; what comes or goes meanwhile may
        appear or not.
        """
        async for (elements,) in pages(
            lambda after: self._query("page", [after], consistency, timeout)
        ):
            for element in elements:
                yield element

    async def watch(self) -> AsyncIterator[SetEvent[T]]:
        """Changes from now on; none is lost or doubled.

        Raises `SessionExpiredError` if the session ended and changes may have been missed.
        """
        registration, inbox = await self._listen(_CHANGED)
        try:
            while True:
                (kind, element), index = await inbox.get()
                yield SetEvent(EventType(kind), element, index)
        finally:
            self._session.unlisten(registration)
