"""Pages: how a large collection is shown, bounded in entries and bytes.

The machine's half answers with what follows a place; the handle's half asks until there is no more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from .table import Table

PAGE_ENTRIES = 512
PAGE_BYTES = 256 << 10

KEYS, VALUES = 1, 2


def page_of(table: Table, after: int, parts: int) -> list[Any]:
    """Entries after a serial: [serial to go on from or -1, keys, values].

    ``parts``: `KEYS`, `VALUES`, or the sum of them.
    """
    keys: list[Any] = []
    values: list[Any] = []
    count = size = last = 0
    for serial, key, value, _ in table.after(after):
        if count == PAGE_ENTRIES or size > PAGE_BYTES:
            return [last, keys, values]
        count, last = count + 1, serial
        if parts & KEYS:
            keys.append(key)
            size += weight(key)
        if parts & VALUES:
            values.append(value)
            size += weight(value)
    return [-1, keys, values]


async def pages(ask: Callable[[int], Awaitable[list[Any]]]) -> AsyncIterator[list[Any]]:
    """Every page, without the place to go on from, which ``ask`` is called with."""
    place = 0
    while place >= 0:
        place, *page = await ask(place)
        yield page


def weight(value: Any) -> int:
    """Roughly the bytes of a value."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(weight(key) + weight(item) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return sum(map(weight, value))
    return 9
