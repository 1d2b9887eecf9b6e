"""Generated from `copycat.resources.list` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic

from ...resources.base import Duration
from ...resources.list import AsyncList, T
from ...types import Consistency
from ..base import Handle


class List(Handle, Generic[T]):
    """A shared list; every operation is atomic.

    Positions count from 0, negative ones from the end. Queries take ``consistency``, everything
    takes ``timeout`` (s).
    """

    _kind = AsyncList

    @property
    def _async(self) -> AsyncList[T]:
        return self._as(AsyncList)

    def append(self, value: T, *, timeout: Duration = None) -> None:
        """Add ``value`` at the end."""
        self._run(self._async.append(value, timeout=timeout))

    def extend(self, values: Iterable[T], *, timeout: Duration = None) -> None:
        """Add all of ``values`` at the end, at once."""
        self._run(self._async.extend(values, timeout=timeout))

    def insert(self, index: int, value: T, *, timeout: Duration = None) -> None:
        """Put ``value`` before position ``index``; beyond an end it is put there, as in a list."""
        self._run(self._async.insert(index, value, timeout=timeout))

    def set(self, index: int, value: T, *, timeout: Duration = None) -> T:
        """Replace what is at ``index`` and return it; raises ``IndexError`` if there is nothing."""
        return self._run(self._async.set(index, value, timeout=timeout))

    def pop(self, index: int = -1, *, timeout: Duration = None) -> T:
        """Remove what is at ``index`` and return it; raises ``IndexError`` if there is nothing."""
        return self._run(self._async.pop(index, timeout=timeout))

    def remove(self, value: T, *, timeout: Duration = None) -> bool:
        """Remove the first that equals ``value``; whether there was one."""
        return self._run(self._async.remove(value, timeout=timeout))

    def clear(self, *, timeout: Duration = None) -> None:
        """Remove everything."""
        self._run(self._async.clear(timeout=timeout))

    def get(
        self, index: int, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> T:
        """What is at ``index``; raises ``IndexError`` if there is nothing."""
        return self._run(self._async.get(index, consistency=consistency, timeout=timeout))

    def index(
        self, value: T, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> int:
        """Where the first that equals ``value`` is; raises ``ValueError`` if there is none."""
        return self._run(self._async.index(value, consistency=consistency, timeout=timeout))

    def contains(
        self, value: T, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether one equals ``value``; looks at all of them."""
        return self._run(self._async.contains(value, consistency=consistency, timeout=timeout))

    def size(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> int:
        """The length."""
        return self._run(self._async.size(consistency=consistency, timeout=timeout))

    def items(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Iterator[T]:
        """The items from the first to the last, fetched in pages by position.

        What is inserted or removed in front of the present page meanwhile moves the others: one
        may appear twice or not at all then. Appending and replacing move nothing.
        """
        return self._iterate(self._async.items(consistency=consistency, timeout=timeout))


__all__ = ["List"]
