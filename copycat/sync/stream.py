"""One asynchronous iterator, read ahead in its loop and handed over in batches.

One task owns the iterator from its beginning to its end. It reads ahead a bounded number of items,
so that a thread pays for one change of threads per batch and not per item. It serves `Portal`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")

AHEAD = 512


class Stream(Generic[T]):
    """To be used in the loop's thread alone; it begins with the first `more`."""

    def __init__(self, source: AsyncIterator[T]) -> None:
        self._source = source
        self._items: list[T] = []
        self._task: asyncio.Task[None] | None = None
        self._some: asyncio.Event | None = None
        self._room: asyncio.Event | None = None
        self._closed = False

    async def more(self) -> list[T]:
        """The items that came since, at least one; none at the end. Raises what the source does."""
        if self._closed:
            return []
        if self._task is None:
            self._some, self._room = asyncio.Event(), asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._read(self._some, self._room))
        if self._some is not None and not self._items and not self._task.done():
            self._some.clear()
            await self._some.wait()
        items, self._items = self._items, []
        if self._room is not None:
            self._room.set()
        if not items and not self._task.cancelled():
            problem = self._task.exception()
            if problem is not None:
                raise problem
        return items

    def close(self) -> None:
        """Nobody asks any more: close the source."""
        self._closed = True
        if self._task is not None and not self._task.cancel() and not self._task.cancelled():
            self._task.exception()  # nobody will ask for it

    async def _read(self, some: asyncio.Event, room: asyncio.Event) -> None:
        try:
            async for item in self._source:
                self._items.append(item)
                some.set()
                if len(self._items) >= AHEAD:
                    room.clear()
                    await room.wait()
        finally:
            aclose = getattr(self._source, "aclose", None)
            if aclose is not None:
                await aclose()
            # The task is done only after this turn of the loop: wake whoever waits then.
            asyncio.get_running_loop().call_soon(some.set)
