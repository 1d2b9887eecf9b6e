"""Generated from `copycat.resources.boolean` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...resources.base import Duration
from ...resources.boolean import AsyncBoolean
from ...resources.reference import ValueEvent
from ...types import Consistency
from ..base import Handle


class Boolean(Handle):
    """A shared flag; every change is atomic and happens exactly once."""

    _kind = AsyncBoolean

    @property
    def _async(self) -> AsyncBoolean:
        return self._as(AsyncBoolean)

    def get(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> bool:
        """The present value."""
        return self._run(self._async.get(consistency=consistency, timeout=timeout))

    def set(self, value: bool, *, timeout: Duration = None) -> None:
        """Set the value."""
        self._run(self._async.set(value, timeout=timeout))

    def get_and_set(self, value: bool, *, timeout: Duration = None) -> bool:
        """Set the value; returns the one before."""
        return self._run(self._async.get_and_set(value, timeout=timeout))

    def compare_and_set(self, expected: bool, value: bool, *, timeout: Duration = None) -> bool:
        """Set the value if it is ``expected`` now; whether it was."""
        return self._run(self._async.compare_and_set(expected, value, timeout=timeout))

    def watch(self) -> Iterator[ValueEvent[bool]]:
        """Changes from now on; none is lost or doubled.

        Raises `SessionExpiredError` if the session ended and changes may have been missed.
        """
        return self._iterate(self._async.watch())


__all__ = ["Boolean"]
