"""`AsyncMap`: a replicated dictionary, the client half; see `map_machine`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, overload

from ..errors import ConflictError
from ..listeners import Inbox
from ..types import Consistency, EventType, Mode, Versioned
from .base import Duration, Resource, hashable
from .endings import wire_terms
from .map_machine import CHANGED, CLEAR, MapMachine, matches
from .pages import pages

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class MapEvent(Generic[K, V]):
    """A change of a map; ``key`` is None for a `CLEAR`, ``index`` is its place in the log."""

    type: EventType
    key: K | None
    value: V | None
    previous: V | None
    index: int


class AsyncMap(Resource[MapMachine], Generic[K, V]):
    """A shared dictionary; every operation is atomic.

    Keys need a hash, as in a dict. Queries take ``consistency``, everything takes ``timeout`` (s).
    """

    machine = MapMachine

    @overload
    async def get(
        self, key: K, *, consistency: Consistency | None = ..., timeout: Duration = ...
    ) -> V | None: ...
    @overload
    async def get(
        self, key: K, default: D, *, consistency: Consistency | None = ..., timeout: Duration = ...
    ) -> V | D: ...
    async def get(
        self,
        key: K,
        default: object = None,
        *,
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> object:
        """The value of ``key``, or ``default``."""
        if type(key) is not str:
            hashable(key)
        if default is None:
            return await self._query("get", [key], consistency, timeout)
        found = await self._query("find", [key], consistency, timeout)
        return found[0] if found else default

    async def get_versioned(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Versioned[V] | None:
        """The value with the log index that wrote it, or None."""
        hashable(key)
        found = await self._query("find", [key], consistency, timeout)
        return Versioned(*found) if found else None

    async def put(
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
        if type(key) is not str:
            hashable(key)
        before: V | None = await self._command(
            "put", [key, value, *wire_terms(ttl, mode)], timeout
        )
        return before

    async def put_if_absent(
        self,
        key: K,
        value: V,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> V | None:
        """Set ``key`` unless it is there; returns what is there, or None if it was set."""
        hashable(key)
        there = await self._command(
            "put_if_absent", [key, value, *wire_terms(ttl, mode)], timeout
        )
        return there[0] if there else None

    async def put_if_version(
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
        hashable(key)
        try:
            arguments = [key, value, version, *wire_terms(ttl, mode)]
            return cast(int, await self._command("put_if_version", arguments, timeout))
        except ConflictError as conflict:
            if isinstance(conflict.current, list):
                conflict.current = Versioned(*conflict.current)
            raise

    async def replace(
        self,
        key: K,
        value: V,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> V | None:
        """Set ``key`` only if it is there; returns the value before, or None."""
        hashable(key)
        before = await self._command(
            "replace", [key, value, *wire_terms(ttl, mode)], timeout
        )
        return before[0] if before else None

    async def replace_if(
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
        hashable(key)
        arguments = [key, old, new, *wire_terms(ttl, mode)]
        return cast(bool, await self._command("replace_if", arguments, timeout))

    async def remove(self, key: K, *, timeout: Duration = None) -> V | None:
        """Remove ``key``; returns the value before, or None."""
        hashable(key)
        before = await self._command("remove", [key], timeout)
        return before[0] if before else None

    async def remove_if(self, key: K, value: V, *, timeout: Duration = None) -> bool:
        """Remove ``key`` only if its value is ``value``; whether it was."""
        hashable(key)
        return cast(bool, await self._command("remove_if", [key, value], timeout))

    @overload
    async def pop(self, key: K, *, timeout: Duration = ...) -> V: ...
    @overload
    async def pop(self, key: K, default: D, *, timeout: Duration = ...) -> V | D: ...
    async def pop(self, key: K, default: Any = _ABSENT, *, timeout: Duration = None) -> object:
        """Remove ``key`` and return its value; without one ``default``, or ``KeyError``."""
        hashable(key)
        before = await self._command("remove", [key], timeout)
        if before:
            return before[0]
        if default is _ABSENT:
            raise KeyError(key)
        return default

    async def update(
        self,
        mapping: Mapping[K,
        V],
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> None:
        """Set all of ``mapping``, at once."""
        pairs = [[key, value] for key, value in mapping.items()]
        await self._command("update", [pairs, *wire_terms(ttl, mode)], timeout)

    async def contains(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``key`` is there."""
        hashable(key)
        return bool(await self._query("find", [key], consistency, timeout))

    async def contains_value(
        self, value: V, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether some key has this value; looks at every entry."""
        return cast(bool, await self._query("contains_value", [value], consistency, timeout))

    async def size(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> int:
        """The number of entries."""
        return cast(int, await self._query("size", [], consistency, timeout))

    async def is_empty(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether there is no entry."""
        return await self.size(consistency=consistency, timeout=timeout) == 0

    async def clear(self, *, timeout: Duration = None) -> None:
        """Remove every entry."""
        await self._command("clear", [], timeout)

    async def keys(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> AsyncIterator[K]:
        """The keys in order of insertion, fetched in pages.

        What is there from beginning to end appears exactly once; what comes or goes meanwhile may
        appear or not. The same holds for `values` and `items`.
        """
        async for keys, _ in self._pages(1, consistency, timeout):
            for key in keys:
                yield key

    async def values(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> AsyncIterator[V]:
        """The values; see `keys`."""
        async for _, values in self._pages(2, consistency, timeout):
            for value in values:
                yield value

    async def items(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> AsyncIterator[tuple[K, V]]:
        """Pairs of key and value; see `keys`."""
        async for keys, values in self._pages(3, consistency, timeout):
            for pair in zip(keys, values, strict=True):
                yield pair

    async def watch(
        self, key: K | None = None, prefix: str | None = None
    ) -> AsyncIterator[MapEvent[K, V]]:
        """Changes from now on, of one key, of keys with a prefix, or of all; none lost or doubled.

        Raises `SessionExpiredError` if the session ended and changes may have been missed.
        """
        wanted = [] if key is None else [key]
        opened = await self._ready(sure=True)
        inbox = Inbox()
        registration, _ = self._session.listen(
            opened.resource, CHANGED, inbox.put, shared=False, on_gap=inbox.end
        )
        id_ = self._access.new_claim()
        try:
            inbox.begin(await self._command("watch", [id_, wanted, prefix]))
            while True:
                (kind, changed, value, before), index = await inbox.get()
                if kind == CLEAR or matches(changed, wanted, prefix):
                    yield MapEvent(EventType(kind), changed, value, before, index)
        finally:
            self._session.unlisten(registration)
            self._quietly("unwatch", [id_])

    async def _pages(
        self, parts: int, consistency: Consistency | None, timeout: Duration
    ) -> AsyncIterator[tuple[list[K], list[V]]]:
        async for keys, values in pages(
            lambda after: self._query("page", [after, parts], consistency, timeout)
        ):
            yield keys, values
