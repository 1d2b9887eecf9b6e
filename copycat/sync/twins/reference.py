"""Generated from `copycat.resources.reference` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic

from ...resources.base import Duration
from ...resources.reference import AsyncReference, T, ValueEvent
from ...types import Consistency, Mode
from ..base import Handle


class Reference(Handle, Generic[T]):
    """A shared value of any type that can be sent; every change is atomic.

    Values are compared by what they are, not by identity.
    """

    _kind = AsyncReference

    @property
    def _async(self) -> AsyncReference[T]:
        return self._as(AsyncReference)

    def get(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> T | None:
        """The present value; None if none was set."""
        return self._run(self._async.get(consistency=consistency, timeout=timeout))

    def set(
        self,
        value: T | None,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> None:
        """Set the value.

        With a ``ttl`` (s, by log time) it is None again after that; with `Mode.EPHEMERAL` when the
        session that set it ends. The same holds for the other operations that set it.
        """
        self._run(self._async.set(value, ttl=ttl, mode=mode, timeout=timeout))

    def get_and_set(
        self,
        value: T | None,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> T | None:
        """Set the value; returns the one before."""
        return self._run(self._async.get_and_set(value, ttl=ttl, mode=mode, timeout=timeout))

    def compare_and_set(
        self,
        expected: T | None,
        value: T | None,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> bool:
        """Set the value if it equals ``expected`` now; whether it did."""
        return self._run(
            self._async.compare_and_set(expected, value, ttl=ttl, mode=mode, timeout=timeout)
        )

    def watch(self) -> Iterator[ValueEvent[T | None]]:
        """Changes from now on; none is lost or doubled.

        Raises `SessionExpiredError` if the session ended and changes may have been missed.
        """
        return self._iterate(self._async.watch())


__all__ = ["Reference"]
