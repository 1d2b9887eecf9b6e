"""A replicated map of keys to sets of values: its machine (pure) and `AsyncMultiMap`."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Any, Generic, TypeVar, cast, overload

from ..machine import StateMachine, command, query
from ..types import Consistency, Mode
from .base import Duration, Resource, hashable
from .endings import Endings, terms_of, wire_terms
from .pages import KEYS, page_of, pages
from .table import Table

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Any = object()


class MultiMapMachine(StateMachine):
    """Tables of keys (with the number of their values) and of pairs, each in order of insertion."""

    type_name = "copycat.multimap"

    def __init__(self) -> None:
        self.keys = Table()
        self.pairs = Table()  # (key, value) -> the key's serial
        self.endings = Endings(self.pairs)
        self.found: dict[Any, dict[Any, None]] = {}  # key -> values

    @command
    def put(self, key: Any, value: Any, ttl_us: int = 0, ephemeral: bool = False) -> bool:
        """Add a pair; False, and nothing changes, if it is there."""
        terms = terms_of(self.commit, ttl_us, ephemeral)
        if (key, value) in self.pairs:
            return False
        if key in self.found:
            of_key = self.keys.serials[key]
            key = self.keys.key_of(of_key)  # of equal keys the first stays, as in a dict
        else:
            of_key = self.keys.put(key, None, self.commit.index)
            self.found[key] = {}
        self.found[key][value] = None
        serial = self.pairs.put((key, value), of_key, self.commit.index, terms)
        if terms is not None:
            self.endings.begin(serial, terms)
            self.endings.schedule(self.commit, "expire")
        return True

    @command
    def remove(self, key: Any) -> list[Any]:
        """Remove all pairs of a key; their values."""
        values = list(self.found.get(key, ()))
        for value in values:
            self._remove(key, value)
        return values

    @command
    def remove_entry(self, key: Any, value: Any) -> bool:
        """Remove a pair; whether it was there."""
        if (key, value) not in self.pairs:
            return False
        self._remove(key, value)
        return True

    @command
    def clear(self) -> None:
        """Remove everything."""
        self.keys.clear()
        self.pairs.clear()
        self.endings.clear()
        self.found = {}

    @command
    def expire(self) -> None:
        """Remove what has outlived its time: the timer of `Endings`."""
        for serial in self.endings.due(self.commit.time_us):
            self._remove(*self.pairs.key_of(serial))
        self.endings.schedule(self.commit, "expire")

    @query
    def get(self, key: Any) -> list[Any]:
        """The values of a key."""
        return list(self.found.get(key, ()))

    @query
    def contains(self, key: Any) -> bool:
        """Whether the key has a value."""
        return key in self.found

    @query
    def contains_entry(self, key: Any, value: Any) -> bool:
        """Whether the pair is there."""
        return (key, value) in self.pairs

    @query
    def size(self, key: list[Any]) -> int:
        """The number of pairs, or of those of one key: [key]."""
        return len(self.found.get(key[0], ())) if key else len(self.pairs)

    @query
    def page(self, after: int, pairs: bool) -> list[Any]:
        """Keys or pairs after a serial: [serial to go on from or -1, keys or pairs]."""
        place, found, _ = page_of(self.pairs if pairs else self.keys, after, KEYS)
        return [place, [list(pair) for pair in found] if pairs else found]

    def on_close(self, session: int) -> None:
        """What was put for the time of an ended session is gone."""
        for serial in self.endings.of(session):
            self._remove(*self.pairs.key_of(serial))

    def snapshot(self) -> Iterator[object]:
        """In pieces: the keys, None, the pairs (their values, and the serials of their keys)."""
        head = [self.keys.serial, self.pairs.serial, list(self.endings.timers)]
        return chain((head,), self.keys.freeze(), (None,), _listed(self.pairs.freeze()))

    def restore(self, image: Iterator[Any]) -> None:
        """Become what was frozen."""
        last_key, last_pair, timers = next(image)
        for _ in self.keys.restore(last_key, iter(lambda: next(image), None)):
            pass  # keys have no terms
        self.endings.restored(timers, self.pairs.restore(last_pair, self._paired(image)))
        self.found = {key: {} for key in self.keys.serials}
        for key, value in self.pairs.serials:
            self.found[key][value] = None

    def _remove(self, key: Any, value: Any) -> None:
        self.endings.forget(self.pairs.serials[key, value])
        self.pairs.pop((key, value))
        values = self.found[key]
        del values[value]
        if not values:
            del self.found[key]
            self.keys.pop(key)

    def _paired(self, leaves: Iterator[Any]) -> Iterator[Any]:
        # By serial, not by what is equal: a key may be unequal even to its own copy (a NaN).
        key_of = self.keys.key_of
        for leaf in leaves:
            leaf[2] = [(key_of(of), value) for value, of in zip(leaf[2], leaf[3], strict=True)]
            yield leaf


def _listed(leaves: Iterator[Any]) -> Iterator[Any]:
    for leaf in leaves:
        leaf[2] = [value for _, value in leaf[2]]
        yield leaf


class AsyncMultiMap(Resource[MultiMapMachine], Generic[K, V]):
    """A shared map whose keys have sets of values; every operation is atomic.

    Keys and values need a hash. Queries take ``consistency``, everything takes ``timeout`` (s).
    """

    machine = MultiMapMachine

    async def put(
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
        hashable(key)
        hashable(value)
        arguments = [key, value, *wire_terms(ttl, mode)]
        return cast(bool, await self._command("put", arguments, timeout))

    async def get(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> builtins.set[V]:
        """The values of ``key``; empty if there are none."""
        hashable(key)
        return set(await self._query("get", [key], consistency, timeout))

    @overload
    async def remove(self, key: K, *, timeout: Duration = ...) -> builtins.set[V]: ...
    @overload
    async def remove(self, key: K, value: V, *, timeout: Duration = ...) -> bool: ...
    async def remove(
        self, key: K, value: Any = _ABSENT, *, timeout: Duration = None
    ) -> builtins.set[V] | bool:
        """Remove all values of ``key`` and return them; or one ``value``: whether it was there."""
        hashable(key)
        if value is _ABSENT:
            return set(await self._command("remove", [key], timeout))
        hashable(value)
        return cast(bool, await self._command("remove_entry", [key, value], timeout))

    async def contains(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``key`` has a value."""
        hashable(key)
        return cast(bool, await self._query("contains", [key], consistency, timeout))

    async def contains_entry(
        self, key: K, value: V, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``value`` is among those of ``key``."""
        hashable(key)
        hashable(value)
        return cast(bool, await self._query("contains_entry", [key, value], consistency, timeout))

    async def size(
        self,
        key: Any = _ABSENT,
        *,
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> int:
        """The number of values of ``key``, or of all keys together."""
        wanted = [] if key is _ABSENT else [key]
        return cast(int, await self._query("size", [wanted], consistency, timeout))

    async def keys(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> AsyncIterator[K]:
        """The keys that have values, in order of insertion, fetched in pages.

        What is there from beginning to end appears exactly once; what comes or goes meanwhile may
        appear or not. The same holds for `items`.
        """
        async for (keys,) in pages(
            lambda after: self._query("page", [after, False], consistency, timeout)
        ):
            for key in keys:
                yield key

    async def items(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> AsyncIterator[tuple[K, V]]:
        """Pairs of key and value, in order of insertion; see `keys`."""
        async for (pairs,) in pages(
            lambda after: self._query("page", [after, True], consistency, timeout)
        ):
            for key, value in pairs:
                yield key, value

    async def clear(self, *, timeout: Duration = None) -> None:
        """Remove everything."""
        await self._command("clear", [], timeout)
