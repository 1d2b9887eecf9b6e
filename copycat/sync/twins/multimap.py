"""Generated from `copycat.resources.multimap` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any, Generic, overload

from ...resources.base import Duration
from ...resources.multimap import _ABSENT, AsyncMultiMap, K, V
from ...types import Consistency, Mode
from ..base import Handle


class MultiMap(Handle, Generic[K, V]):
    """A shared map whose keys have sets of values; every operation is atomic.

    Keys and values need a hash. Queries take ``consistency``, everything takes ``timeout`` (s).
    """

    _kind = AsyncMultiMap

    @property
    def _async(self) -> AsyncMultiMap[K, V]:
        return self._as(AsyncMultiMap)

    def put(
        self,
        key: K,
        value: V,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> bool:
        """Add ``value`` to those of ``key``; False if it was there, and then it stays as it is.

        With a ``ttl`` (s, by log time) the pair expires by itself; with `Mode.EPHEMERAL` when the
        session that put it ends.
        """
        return self._run(self._async.put(key, value, ttl=ttl, mode=mode, timeout=timeout))

    def get(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> builtins.set[V]:
        """The values of ``key``; empty if there are none."""
        return self._run(self._async.get(key, consistency=consistency, timeout=timeout))

    @overload
    def remove(self, key: K, *, timeout: Duration = ...) -> builtins.set[V]: ...

    @overload
    def remove(self, key: K, value: V, *, timeout: Duration = ...) -> bool: ...

    def remove(
        self, key: K, value: Any = _ABSENT, *, timeout: Duration = None
    ) -> builtins.set[V] | bool:
        """Remove all values of ``key`` and return them; or one ``value``: whether it was there."""
        return self._run(self._async.remove(key, value, timeout=timeout))

    def contains(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``key`` has a value."""
        return self._run(self._async.contains(key, consistency=consistency, timeout=timeout))

    def contains_entry(
        self, key: K, value: V, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``value`` is among those of ``key``."""
        return self._run(
            self._async.contains_entry(key, value, consistency=consistency, timeout=timeout)
        )

    def size(
        self,
        key: Any = _ABSENT,
        *,
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> int:
        """The number of values of ``key``, or of all keys together."""
        return self._run(self._async.size(key, consistency=consistency, timeout=timeout))

    def keys(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Iterator[K]:
        """The keys that have values, in order of insertion, fetched in pages.

        What is there from beginning to end appears exactly once; what comes or goes meanwhile may
        appear or not. The same holds for `items`.
        """
        return self._iterate(self._async.keys(consistency=consistency, timeout=timeout))

    def items(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Iterator[tuple[K, V]]:
        """Pairs of key and value, in order of insertion; see `keys`."""
        return self._iterate(self._async.items(consistency=consistency, timeout=timeout))

    def clear(self, *, timeout: Duration = None) -> None:
        """Remove everything."""
        self._run(self._async.clear(timeout=timeout))


__all__ = ["MultiMap"]
