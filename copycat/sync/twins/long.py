"""Generated from `copycat.resources.long` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from ...resources.base import Duration
from ...resources.long import AsyncLong
from ...types import Consistency
from ..base import Handle


class Long(Handle):
    """A shared integer; every change is atomic and happens exactly once."""

    _kind = AsyncLong

    @property
    def _async(self) -> AsyncLong:
        return self._as(AsyncLong)

    def get(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> int:
        """The present value."""
        return self._run(self._async.get(consistency=consistency, timeout=timeout))

    def set(self, value: int, *, timeout: Duration = None) -> None:
        """Set the value."""
        self._run(self._async.set(value, timeout=timeout))

    def get_and_set(self, value: int, *, timeout: Duration = None) -> int:
        """Set the value; returns the one before."""
        return self._run(self._async.get_and_set(value, timeout=timeout))

    def compare_and_set(self, expected: int, value: int, *, timeout: Duration = None) -> bool:
        """Set the value if it is ``expected`` now; whether it was."""
        return self._run(self._async.compare_and_set(expected, value, timeout=timeout))

    def increment(self, by: int = 1, *, timeout: Duration = None) -> int:
        """Add ``by``; returns the new value."""
        return self._run(self._async.increment(by, timeout=timeout))

    def decrement(self, by: int = 1, *, timeout: Duration = None) -> int:
        """Subtract ``by``; returns the new value."""
        return self._run(self._async.decrement(by, timeout=timeout))

    def get_and_add(self, by: int, *, timeout: Duration = None) -> int:
        """Add ``by``; returns the value before."""
        return self._run(self._async.get_and_add(by, timeout=timeout))


__all__ = ["Long"]
