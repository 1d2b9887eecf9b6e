"""A replicated list: its machine (pure) and `AsyncList`, its client half."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from ..errors import Rejected
from ..machine import StateMachine, command, query
from ..types import Consistency
from .base import Duration, Resource
from .pages import PAGE_BYTES, PAGE_ENTRIES, pages, weight

T = TypeVar("T")

PIECE_ITEMS = 512


class ListMachine(StateMachine):
    """A list. Where a position must be there, the answer is [] if it is not, else [item]."""

    type_name = "copycat.list"

    def __init__(self) -> None:
        self.items: builtins.list[Any] = []

    @command
    def extend(self, values: builtins.list[Any]) -> int:
        """Append all; the length now."""
        if not isinstance(values, builtins.list):
            raise Rejected("a list of values is needed")
        self.items.extend(values)
        return len(self.items)

    @command
    def insert(self, position: int, value: Any) -> None:
        """As in a list: positions beyond an end mean that end."""
        self.items.insert(_position(position), value)

    @command
    def set(self, position: int, value: Any) -> builtins.list[Any]:
        """Replace; [what was there]."""
        if not self._has(position):
            return []
        before, self.items[position] = self.items[position], value
        return [before]

    @command
    def pop(self, position: int) -> builtins.list[Any]:
        """Remove by position; [what was there]."""
        return [self.items.pop(position)] if self._has(position) else []

    @command
    def remove(self, value: Any) -> bool:
        """Remove the first that equals ``value``; whether there was one."""
        if value not in self.items:
            return False
        self.items.remove(value)
        return True

    @command
    def clear(self) -> None:
        """Remove everything."""
        self.items = []

    @query
    def get(self, position: int) -> builtins.list[Any]:
        """[what is there]."""
        return [self.items[position]] if self._has(position) else []

    @query
    def index(self, value: Any) -> int:
        """The position of the first that equals ``value``, or -1."""
        return self.items.index(value) if value in self.items else -1

    @query
    def size(self) -> int:
        """The length."""
        return len(self.items)

    @query
    def page(self, begin: int) -> builtins.list[Any]:
        """Items from a position: [position to go on from or -1, items]."""
        begin, size = max(0, _position(begin)), 0
        for position in range(begin, len(self.items)):
            if position - begin == PAGE_ENTRIES or size > PAGE_BYTES:
                return [position, self.items[begin:position]]
            size += weight(self.items[position])
        return [-1, self.items[begin:]]

    def snapshot(self) -> Iterator[object]:
        """In pieces, of the items as they are now."""
        return _pieces(list(self.items))

    def restore(self, image: Iterator[Any]) -> None:
        """Become what was frozen."""
        self.items = [item for piece in image for item in piece]

    def _has(self, position: int) -> bool:
        return -len(self.items) <= _position(position) < len(self.items)


def _pieces(items: builtins.list[Any]) -> Iterator[object]:
    for begin in range(0, len(items), PIECE_ITEMS):
        yield items[begin : begin + PIECE_ITEMS]


def _position(position: object) -> int:
    if type(position) is not int or not -(1 << 62) < position < 1 << 62:
        raise Rejected(f"a position is an integer, not {type(position).__name__}")
    return position


class AsyncList(Resource[ListMachine], Generic[T]):
    """A shared list; every operation is atomic.

    Positions count from 0, negative ones from the end. Queries take ``consistency``, everything
    takes ``timeout`` (s).
    """

    machine = ListMachine

    async def append(self, value: T, *, timeout: Duration = None) -> None:
        """Add ``value`` at the end."""
        await self._command("extend", [[value]], timeout)

    async def extend(self, values: Iterable[T], *, timeout: Duration = None) -> None:
        """Add all of ``values`` at the end, at once."""
        await self._command("extend", [[*values]], timeout)

    async def insert(self, index: int, value: T, *, timeout: Duration = None) -> None:
        """Put ``value`` before position ``index``; beyond an end it is put there, as in a list."""
        await self._command("insert", [index, value], timeout)

    async def set(self, index: int, value: T, *, timeout: Duration = None) -> T:
        """Replace what is at ``index`` and return it; raises ``IndexError`` if there is nothing."""
        return self._there(await self._command("set", [index, value], timeout), index)

    async def pop(self, index: int = -1, *, timeout: Duration = None) -> T:
        """Remove what is at ``index`` and return it; raises ``IndexError`` if there is nothing."""
        return self._there(await self._command("pop", [index], timeout), index)

    async def remove(self, value: T, *, timeout: Duration = None) -> bool:
        """Remove the first that equals ``value``; whether there was one."""
        return cast(bool, await self._command("remove", [value], timeout))

    async def clear(self, *, timeout: Duration = None) -> None:
        """Remove everything."""
        await self._command("clear", [], timeout)

    async def get(
        self, index: int, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> T:
        """What is at ``index``; raises ``IndexError`` if there is nothing."""
        return self._there(await self._query("get", [index], consistency, timeout), index)

    async def index(
        self, value: T, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> int:
        """Where the first that equals ``value`` is; raises ``ValueError`` if there is none."""
        position = cast(int, await self._query("index", [value], consistency, timeout))
        if position < 0:
            raise ValueError(f"{value!r} is not in {self.path}")
        return position

    async def contains(
        self, value: T, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether one equals ``value``; looks at all of them."""
        return cast(int, await self._query("index", [value], consistency, timeout)) >= 0

    async def size(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> int:
        """The length."""
        return cast(int, await self._query("size", [], consistency, timeout))

    async def items(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> AsyncIterator[T]:
        """The items from the first to the last, fetched in pages by position.

        What is inserted or removed in front of the present page meanwhile moves the others: one
        may appear twice or not at all then. Appending and replacing move nothing.
        """
        async for (items,) in pages(
            lambda begin: self._query("page", [begin], consistency, timeout)
        ):
            for item in items:
                yield item

    def _there(self, found: builtins.list[Any], index: int) -> T:
        if not found:
            raise IndexError(f"there is nothing at {index} in {self.path}")
        return cast(T, found[0])
