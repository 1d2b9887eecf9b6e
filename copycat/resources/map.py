"""A replicated dictionary: its machine (pure) and `AsyncMap`, its client half.

Members store keys and values as they are on the wire; registered types need not be known there.
Entries keep the order of their first insertion, and each knows the log index that wrote it last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, overload

from ..errors import ConflictError, OverloadedError, Rejected, SerializationError
from ..listeners import Inbox
from ..machine import StateMachine, command, event, query
from ..types import Consistency, EventType, Versioned
from .base import Duration, Resource

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

PAGE_ENTRIES = 512
WATCHERS_MAX = 10_000
PAGE_BYTES = 256 << 10

_ABSENT: Any = object()
_CHANGED = "changed"
_PUT, _REMOVE, _CLEAR = "put", "remove", "clear"


class MapMachine(StateMachine):
    """key -> [value, version, serial]; a page of entries goes on after a serial."""

    type_name = "copycat.map"
    changed = event(list[Any])

    def __init__(self) -> None:
        self.entries: dict[Any, list[Any]] = {}
        self.serial = 0
        self.watchers: dict[bytes, list[Any]] = {}  # watch id -> [session, key or [], prefix]

    # -- commands ------------------------------------------------------------------------------

    @command(check=lambda _, key, value: hash(key))
    def put(self, key: Any, value: Any) -> Any:
        """Set; the value before."""
        entry = self.entries.get(key)
        if entry is None or self.watchers:
            return self._put(key, value)
        before = entry[0]  # the commonest of all commands: not one call more than it needs
        entry[0], entry[1] = value, self.commit.index
        return before

    @command(check=lambda _, key, value: hash(key))
    def put_if_absent(self, key: Any, value: Any) -> list[Any]:
        """Set unless there is one: [] if it was set, else [what is there]."""
        entry = self.entries.get(key)
        if entry is not None:
            return [entry[0]]
        self._put(key, value)
        return []

    @command(check=lambda _, key, value: hash(key))
    def replace(self, key: Any, value: Any) -> list[Any]:
        """Set if there is one: [the value before], else []."""
        return [self._put(key, value)] if key in self.entries else []

    @command
    def replace_if(self, key: Any, old: Any, new: Any) -> bool:
        """Set if the value is ``old``."""
        entry = self.entries.get(key)
        if entry is None or entry[0] != old:
            return False
        self._put(key, new)
        return True

    @command
    def put_if_version(self, key: Any, value: Any, version: int) -> int:
        """Set if it was last written at ``version`` (0: if absent); the new version."""
        self._check_version(key, version)
        self._put(key, value)
        return self.commit.index

    @command(check=lambda _, pairs: _check_pairs(pairs))
    def update(self, pairs: list[list[Any]]) -> None:
        """Set several at once."""
        _check_pairs(pairs)  # before anything is changed
        for key, value in pairs:
            self._put(key, value)

    @command(check=lambda _, key: hash(key))
    def remove(self, key: Any) -> list[Any]:
        """Remove: [the value before], or []."""
        return [self._remove(key)] if key in self.entries else []

    @command
    def remove_if(self, key: Any, value: Any) -> bool:
        """Remove if the value is ``value``."""
        entry = self.entries.get(key)
        if entry is None or entry[0] != value:
            return False
        self._remove(key)
        return True

    @command(check=lambda _: None)
    def clear(self) -> None:
        """Remove everything."""
        if self.entries:
            self.entries.clear()
            if self.watchers:
                self._tell(_CLEAR, None, None, None)

    @command
    def watch(self, id_: bytes, key: list[Any], prefix: str | None) -> int:
        """Tell this session of changes of one key ([key]) or of all ([]) with ``prefix``.

        Returns the index from which on it does.
        """
        if not (
            isinstance(id_, bytes)
            and isinstance(key, list)
            and len(key) <= 1
            and (prefix is None or isinstance(prefix, str))
        ):
            raise Rejected("a watch has an id, a list of at most one key, and a prefix or None")
        hash(tuple(key))  # what has none may not even be comparable, when a change is done
        if len(self.watchers) >= WATCHERS_MAX and id_ not in self.watchers:
            raise OverloadedError(f"{WATCHERS_MAX} watch this map already")
        self.watchers[id_] = [self.commit.session, key, prefix]
        return self.commit.index

    @command
    def unwatch(self, id_: bytes) -> None:
        """End a watch."""
        self.watchers.pop(id_, None)

    # -- queries -------------------------------------------------------------------------------

    @query
    def get(self, key: Any) -> Any:
        """The value, or None."""
        entry = self.entries.get(key)
        return None if entry is None else entry[0]

    @query
    def find(self, key: Any) -> list[Any]:
        """[value, version], or []."""
        entry = self.entries.get(key)
        return [] if entry is None else entry[:2]

    @query
    def expect_version(self, key: Any, version: int) -> None:
        """Raise `ConflictError` unless the entry has this version (0: it is absent)."""
        self._check_version(key, version)

    @query
    def contains_value(self, value: Any) -> bool:
        """Whether some key has this value."""
        return any(entry[0] == value for entry in self.entries.values())

    @query
    def size(self) -> int:
        """The number of entries."""
        return len(self.entries)

    @query
    def page(self, after: int, parts: int) -> list[Any]:
        """Entries after a serial: [serial to go on from or -1, keys, values].

        ``parts``: 1 keys, 2 values, 3 both.
        """
        keys: list[Any] = []
        values: list[Any] = []
        count = size = last = 0
        for key, entry in self.entries.items():
            serial = entry[2]
            if serial <= after:
                continue
            if count == PAGE_ENTRIES or size > PAGE_BYTES:
                return [last, keys, values]
            count, last = count + 1, serial
            if parts & 1:
                keys.append(key)
                size += _weight(key)
            if parts & 2:
                values.append(entry[0])
                size += _weight(entry[0])
        return [-1, keys, values]

    # -- sessions and helpers ------------------------------------------------------------------

    def on_delete(self, session: int) -> None:
        """Those who watch will see no more changes."""
        self.commit.dismiss(watcher[0] for watcher in self.watchers.values())

    def on_close(self, session: int) -> None:
        """An ended session watches nothing."""
        for id_ in [id_ for id_, watcher in self.watchers.items() if watcher[0] == session]:
            del self.watchers[id_]

    def _check_version(self, key: Any, version: int) -> None:
        entry = self.entries.get(key)
        current = 0 if entry is None else entry[1]
        if current != version:
            raise ConflictError(
                f"the entry has version {current}, not {version}",
                current=None if entry is None else entry[:2],
            )

    def _put(self, key: Any, value: Any) -> Any:
        entry = self.entries.get(key)
        if entry is None:
            self.serial += 1
            self.entries[key] = [value, self.commit.index, self.serial]
            before = None
        else:
            before = entry[0]
            entry[0], entry[1] = value, self.commit.index
        if self.watchers:
            self._tell(_PUT, key, value, before)
        return before

    def _remove(self, key: Any) -> Any:
        before = self.entries.pop(key)[0]
        if self.watchers:
            self._tell(_REMOVE, key, None, before)
        return before

    def _tell(self, kind: str, key: Any, value: Any, before: Any) -> None:
        sessions: dict[int, None] = {}
        for session, wanted, prefix in self.watchers.values():
            if kind == _CLEAR or _matches(key, wanted, prefix):
                sessions[session] = None
        for session in sessions:
            self.changed.publish([kind, key, value, before], to=session)


def _check_pairs(pairs: object) -> None:
    # A set, say, would come in another order on each member.
    if type(pairs) is not list or any(type(pair) not in (list, tuple) for pair in pairs):
        raise Rejected("an update has a list of [key, value]")
    for key, _ in pairs:
        hash(key)


def _matches(key: Any, wanted: list[Any], prefix: str | None) -> bool:
    if wanted and wanted[0] != key:
        return False
    return prefix is None or (isinstance(key, str) and key.startswith(prefix))


def _weight(value: Any) -> int:
    """Roughly the bytes of a value."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(_weight(key) + _weight(item) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return sum(map(_weight, value))
    return 9


# -- the caller's side -------------------------------------------------------------------------


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
            _hashable(key)
        if default is None:
            return await self._query("get", [key], consistency, timeout)
        found = await self._query("find", [key], consistency, timeout)
        return found[0] if found else default

    async def get_versioned(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Versioned[V] | None:
        """The value with the log index that wrote it, or None."""
        _hashable(key)
        found = await self._query("find", [key], consistency, timeout)
        return Versioned(*found) if found else None

    async def put(self, key: K, value: V, *, timeout: Duration = None) -> V | None:
        """Set ``key``; returns the value before, or None."""
        if type(key) is not str:
            _hashable(key)
        before: V | None = await self._command("put", [key, value], timeout)
        return before

    async def put_if_absent(self, key: K, value: V, *, timeout: Duration = None) -> V | None:
        """Set ``key`` unless it is there; returns what is there, or None if it was set."""
        _hashable(key)
        there = await self._command("put_if_absent", [key, value], timeout)
        return there[0] if there else None

    async def put_if_version(
        self, key: K, value: V, version: int, *, timeout: Duration = None
    ) -> int:
        """Set ``key`` if it was last written at ``version`` (0: if absent).

        Returns the new version. Raises `ConflictError`, whose ``current`` is the `Versioned` that
        stands there, or None.
        """
        _hashable(key)
        try:
            return cast(int, await self._command("put_if_version", [key, value, version], timeout))
        except ConflictError as conflict:
            if isinstance(conflict.current, list):
                conflict.current = Versioned(*conflict.current)
            raise

    async def replace(self, key: K, value: V, *, timeout: Duration = None) -> V | None:
        """Set ``key`` only if it is there; returns the value before, or None."""
        _hashable(key)
        before = await self._command("replace", [key, value], timeout)
        return before[0] if before else None

    async def replace_if(self, key: K, old: V, new: V, *, timeout: Duration = None) -> bool:
        """Set ``key`` only if its value is ``old``; whether it was."""
        _hashable(key)
        return cast(bool, await self._command("replace_if", [key, old, new], timeout))

    async def remove(self, key: K, *, timeout: Duration = None) -> V | None:
        """Remove ``key``; returns the value before, or None."""
        _hashable(key)
        before = await self._command("remove", [key], timeout)
        return before[0] if before else None

    async def remove_if(self, key: K, value: V, *, timeout: Duration = None) -> bool:
        """Remove ``key`` only if its value is ``value``; whether it was."""
        _hashable(key)
        return cast(bool, await self._command("remove_if", [key, value], timeout))

    @overload
    async def pop(self, key: K, *, timeout: Duration = ...) -> V: ...
    @overload
    async def pop(self, key: K, default: D, *, timeout: Duration = ...) -> V | D: ...
    async def pop(self, key: K, default: Any = _ABSENT, *, timeout: Duration = None) -> object:
        """Remove ``key`` and return its value; without one ``default``, or ``KeyError``."""
        _hashable(key)
        before = await self._command("remove", [key], timeout)
        if before:
            return before[0]
        if default is _ABSENT:
            raise KeyError(key)
        return default

    async def update(self, mapping: Mapping[K, V], *, timeout: Duration = None) -> None:
        """Set all of ``mapping``, at once."""
        pairs = [[key, value] for key, value in mapping.items()]
        await self._command("update", [pairs], timeout)

    async def contains(
        self, key: K, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``key`` is there."""
        _hashable(key)
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
        opened = await self._ready()
        inbox = Inbox()
        registration, _ = self._session.listen(
            opened.resource, _CHANGED, inbox.put, shared=False, on_gap=inbox.end
        )
        id_ = self._access.new_claim()
        try:
            inbox.begin(await self._command("watch", [id_, wanted, prefix]))
            while True:
                (kind, changed, value, before), index = await inbox.get()
                if kind == _CLEAR or _matches(changed, wanted, prefix):
                    yield MapEvent(EventType(kind), changed, value, before, index)
        finally:
            self._session.unlisten(registration)
            self._quietly("unwatch", [id_])

    async def _pages(
        self, parts: int, consistency: Consistency | None, timeout: Duration
    ) -> AsyncIterator[tuple[list[K], list[V]]]:
        after = 0
        while after >= 0:
            page = await self._query("page", [after, parts], consistency, timeout)
            after, keys, values = page
            yield keys, values


def _hashable(key: object) -> None:
    try:
        hash(key)
    except TypeError:
        raise SerializationError(
            f"a key needs a hash, as in a dict; {type(key).__name__} has none",
            hint="use a str, a number, bytes, a tuple, or a frozen dataclass",
        ) from None
