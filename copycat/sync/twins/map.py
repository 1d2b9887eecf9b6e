"""Generated from `copycat.resources.map` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, overload

from ...resources.base import Duration
from ...resources.map import _ABSENT, AsyncMap, D, K, MapEvent, V
from ...types import Consistency, Mode, Versioned
from ..base import Handle


class Map(Handle, Generic[K, V]):
    """A shared dictionary; every operation is atomic.

    Keys need a hash, as in a dict. Queries take ``consistency``, everything takes ``timeout`` (s).
    """

    _kind = AsyncMap

    @property
    def _async(self) -> AsyncMap[K, V]:
        return self._as(AsyncMap)

    @overload
    def get(
        self, key: K, *, consistency: Consistency | None = ..., timeout: Duration = ...
    ) -> V | None: ...

    @overload
    def get(
        self, key: K, default: D, *, consistency: Consistency | None = ..., timeout: Duration = ...
    ) -> V | D: ...

    def get(
        self,
        key: K,
        default: object = None,
        *,
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> object:
        """The value of ``key``, or ``default``."""
        return self._run(self._async.get(key, default, consistency=consistency, timeout=timeout))

    def get_versioned(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Versioned[V] | None:
        """The value with the log index that wrote it, or None."""
        return self._run(self._async.get_versioned(key, consistency=consistency, timeout=timeout))

    def put(
        self,
        key: K,
        value: V,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> V | None:
        """Set ``key``; returns the value before, or None.

        With a ``ttl`` (s, by log time) the entry expires by itself, unless it is written again;
        with `Mode.EPHEMERAL` when the session that wrote it ends. The same holds for the other
        operations that write.
        """
        return self._run(self._async.put(key, value, ttl=ttl, mode=mode, timeout=timeout))

    def put_if_absent(
        self,
        key: K,
        value: V,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> V | None:
        """Set ``key`` unless it is there; returns what is there, or None if it was set."""
        return self._run(self._async.put_if_absent(key, value, ttl=ttl, mode=mode, timeout=timeout))

    def put_if_version(
        self,
        key: K,
        value: V,
        version: int,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> int:
        """Set ``key`` if it was last written at ``version`` (0: if absent).

        Returns the new version. Raises `ConflictError`, whose ``current`` is the `Versioned` that
        stands there, or None.
        """
        return self._run(
            self._async.put_if_version(key, value, version, ttl=ttl, mode=mode, timeout=timeout)
        )

    def replace(
        self,
        key: K,
        value: V,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> V | None:
        """Set ``key`` only if it is there; returns the value before, or None."""
        return self._run(self._async.replace(key, value, ttl=ttl, mode=mode, timeout=timeout))

    def replace_if(
        self,
        key: K,
        old: V,
        new: V,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> bool:
        """Set ``key`` only if its value is ``old``; whether it was."""
        return self._run(self._async.replace_if(key, old, new, ttl=ttl, mode=mode, timeout=timeout))

    def remove(self, key: K, *, timeout: Duration = None) -> V | None:
        """Remove ``key``; returns the value before, or None."""
        return self._run(self._async.remove(key, timeout=timeout))

    def remove_if(self, key: K, value: V, *, timeout: Duration = None) -> bool:
        """Remove ``key`` only if its value is ``value``; whether it was."""
        return self._run(self._async.remove_if(key, value, timeout=timeout))

    @overload
    def pop(self, key: K, *, timeout: Duration = ...) -> V: ...

    @overload
    def pop(self, key: K, default: D, *, timeout: Duration = ...) -> V | D: ...

    def pop(self, key: K, default: Any = _ABSENT, *, timeout: Duration = None) -> object:
        """Remove ``key`` and return its value; without one ``default``, or ``KeyError``."""
        return self._run(self._async.pop(key, default, timeout=timeout))

    def update(
        self,
        mapping: Mapping[K, V],
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> None:
        """Set all of ``mapping``, at once."""
        self._run(self._async.update(mapping, ttl=ttl, mode=mode, timeout=timeout))

    def contains(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``key`` is there."""
        return self._run(self._async.contains(key, consistency=consistency, timeout=timeout))

    def contains_value(
        self, value: V, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether some key has this value; looks at every entry."""
        return self._run(
            self._async.contains_value(value, consistency=consistency, timeout=timeout)
        )

    def size(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> int:
        """The number of entries."""
        return self._run(self._async.size(consistency=consistency, timeout=timeout))

    def is_empty(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> bool:
        """Whether there is no entry."""
        return self._run(self._async.is_empty(consistency=consistency, timeout=timeout))

    def clear(self, *, timeout: Duration = None) -> None:
        """Remove every entry."""
        self._run(self._async.clear(timeout=timeout))

    def keys(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Iterator[K]:
        """The keys in order of insertion, fetched in pages.

        What is there from beginning to end appears exactly once; what comes or goes meanwhile may
        appear or not. The same holds for `values` and `items`.
        """
        return self._iterate(self._async.keys(consistency=consistency, timeout=timeout))

    def values(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Iterator[V]:
        """The values; see `keys`."""
        return self._iterate(self._async.values(consistency=consistency, timeout=timeout))

    def items(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Iterator[tuple[K, V]]:
        """Pairs of key and value; see `keys`."""
        return self._iterate(self._async.items(consistency=consistency, timeout=timeout))

    def watch(self, key: K | None = None, prefix: str | None = None) -> Iterator[MapEvent[K, V]]:
        """Changes from now on, of one key, of keys with a prefix, or of all; none lost or doubled.

        Raises `SessionExpiredError` if the session ended and changes may have been missed.
        """
        return self._iterate(self._async.watch(key, prefix))


__all__ = ["Map"]
