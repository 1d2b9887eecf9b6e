"""The machine of a replicated dictionary (pure).

Members store keys and values as they are on the wire; registered types need not be known there.
Entries keep the order of their first insertion, and each knows the log index that wrote it last.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from ..errors import ConflictError, OverloadedError, Rejected
from ..machine import StateMachine, command, event, query
from .endings import Endings, terms_of
from .pages import page_of
from .table import IN_LEAF, LEAF_BITS, Table

WATCHERS_MAX = 10_000

CHANGED = "changed"
PUT, REMOVE, EXPIRE, CLEAR = "put", "remove", "expire", "clear"


class MapMachine(StateMachine):
    """A table of entries; a page of them goes on after a serial."""

    type_name = "copycat.map"
    changed = event(list[Any])

    def __init__(self) -> None:
        self.table = Table()
        self.endings = Endings(self.table)
        self.watchers: dict[bytes, list[Any]] = {}  # watch id -> [session, key or [], prefix]

    # -- commands ------------------------------------------------------------------------------

    @command(check=lambda self, key, _, *terms: self._check(key, *terms))
    def put(self, key: Any, value: Any, ttl_us: int = 0, ephemeral: bool = False) -> Any:
        """Set; the value before."""
        table = self.table
        serial = table.serials.get(key)
        if serial is None or self.endings.count or self.watchers or ttl_us or ephemeral:
            return self._put(key, value, terms_of(self.commit, ttl_us, ephemeral))
        # The commonest of all commands: as `Table.put`, without a call more than it needs.
        leaf = table.leaves[serial >> LEAF_BITS]
        at = serial & IN_LEAF
        if table.frozen:
            table.keep(serial >> LEAF_BITS)
        if leaf.places is not None:
            at = leaf.at(at)
        values = leaf.values
        before = values[at]
        values[at] = value
        leaf.versions[at] = self.commit.index
        return before

    @command(check=lambda self, key, _, *terms: self._check(key, *terms))
    def put_if_absent(
        self, key: Any, value: Any, ttl_us: int = 0, ephemeral: bool = False
    ) -> list[Any]:
        """Set unless there is one: [] if it was set, else [what is there]."""
        terms = terms_of(self.commit, ttl_us, ephemeral)
        if key in self.table:
            return [self.table.get(key)]
        self._put(key, value, terms)
        return []

    @command(check=lambda self, key, _, *terms: self._check(key, *terms))
    def replace(self, key: Any, value: Any, ttl_us: int = 0, ephemeral: bool = False) -> list[Any]:
        """Set if there is one: [the value before], else []."""
        terms = terms_of(self.commit, ttl_us, ephemeral)
        return [self._put(key, value, terms)] if key in self.table else []

    @command
    def replace_if(
        self, key: Any, old: Any, new: Any, ttl_us: int = 0, ephemeral: bool = False
    ) -> bool:
        """Set if the value is ``old``."""
        terms = terms_of(self.commit, ttl_us, ephemeral)
        if key not in self.table or self.table.get(key) != old:
            return False
        self._put(key, new, terms)
        return True

    @command
    def put_if_version(
        self, key: Any, value: Any, version: int, ttl_us: int = 0, ephemeral: bool = False
    ) -> int:
        """Set if it was last written at ``version`` (0: if absent); the new version."""
        terms = terms_of(self.commit, ttl_us, ephemeral)
        self._check_version(key, version)
        self._put(key, value, terms)
        return self.commit.index

    @command(check=lambda self, pairs, *terms: self._check_pairs(pairs, *terms))
    def update(self, pairs: list[list[Any]], ttl_us: int = 0, ephemeral: bool = False) -> None:
        """Set several at once."""
        self._check_pairs(pairs)  # before anything is changed
        terms = terms_of(self.commit, ttl_us, ephemeral)
        for key, value in pairs:
            self._put(key, value, None if terms is None else list(terms))

    @command(check=lambda _, key: hash(key))
    def remove(self, key: Any) -> list[Any]:
        """Remove: [the value before], or []."""
        return [self._remove(key, REMOVE)] if key in self.table else []

    @command
    def remove_if(self, key: Any, value: Any) -> bool:
        """Remove if the value is ``value``."""
        if key not in self.table or self.table.get(key) != value:
            return False
        self._remove(key, REMOVE)
        return True

    @command(check=lambda _: None)
    def clear(self) -> None:
        """Remove everything."""
        if len(self.table):
            self.table.clear()
            self.endings.clear()
            if self.watchers:
                self._tell(CLEAR, None, None, None)

    @command
    def expire(self) -> None:
        """Remove what has outlived its time: the timer of `Endings`."""
        for serial in self.endings.due(self.commit.time_us):
            self._remove(self.table.key_of(serial), EXPIRE)
        self.endings.schedule(self.commit, "expire")

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
        return self.table.get(key)

    @query
    def find(self, key: Any) -> list[Any]:
        """[value, version], or []."""
        found = self.table.find(key)
        return [] if found is None else list(found)

    @query
    def expect_version(self, key: Any, version: int) -> None:
        """Raise `ConflictError` unless the entry has this version (0: it is absent)."""
        self._check_version(key, version)

    @query
    def contains_value(self, value: Any) -> bool:
        """Whether some key has this value."""
        return any(each == value for _, _, each, _ in self.table.after(0))

    @query
    def size(self) -> int:
        """The number of entries."""
        return len(self.table)

    @query
    def page(self, after: int, parts: int) -> list[Any]:
        """Entries after a serial: [serial to go on from or -1, keys, values].

        ``parts``: 1 keys, 2 values, 3 both.
        """
        return page_of(self.table, after, parts)

    # -- sessions and snapshots ----------------------------------------------------------------

    def on_delete(self, session: int) -> None:
        """Those who watch will see no more changes."""
        self.commit.dismiss(watcher[0] for watcher in self.watchers.values())

    def on_close(self, session: int) -> None:
        """An ended session watches nothing, and what was written for its time is gone."""
        for id_ in [id_ for id_, watcher in self.watchers.items() if watcher[0] == session]:
            del self.watchers[id_]
        for serial in self.endings.of(session):
            self._remove(self.table.key_of(serial), EXPIRE)

    def snapshot(self) -> Iterator[object]:
        """In pieces, for there may be a million entries."""
        watchers = [[id_, list(each)] for id_, each in self.watchers.items()]
        head = [self.table.serial, list(self.endings.timers), watchers]
        return chain((head,), self.table.freeze())

    def restore(self, image: Iterator[Any]) -> None:
        """Become what was frozen."""
        serial, timers, watchers = next(image)
        self.watchers = dict(watchers)
        self.endings.restored(timers, self.table.restore(serial, image))

    # -- helpers -------------------------------------------------------------------------------

    def _check(self, key: Any, ttl_us: int = 0, ephemeral: bool = False) -> None:
        hash(key)
        terms_of(self.commit, ttl_us, ephemeral)

    def _check_pairs(self, pairs: object, ttl_us: int = 0, ephemeral: bool = False) -> None:
        # A set, say, would come in another order on each member.
        if type(pairs) is not list or any(type(pair) not in (list, tuple) for pair in pairs):
            raise Rejected("an update has a list of [key, value]")
        for key, _ in pairs:
            self._check(key, ttl_us, ephemeral)

    def _check_version(self, key: Any, version: int) -> None:
        found = self.table.find(key)
        current = 0 if found is None else found[1]
        if current != version:
            raise ConflictError(
                f"the entry has version {current}, not {version}",
                current=None if found is None else list(found),
            )

    def _put(self, key: Any, value: Any, terms: list[int] | None) -> Any:
        table, endings = self.table, self.endings
        before = table.get(key)
        if endings.count:
            endings.forget(table.serials.get(key))
        serial = table.put(key, value, self.commit.index, terms)
        if terms is not None:
            endings.begin(serial, terms)
            endings.schedule(self.commit, "expire")
        if self.watchers:
            self._tell(PUT, key, value, before)
        return before

    def _remove(self, key: Any, kind: str) -> Any:
        if self.endings.count:
            self.endings.forget(self.table.serials[key])
        before = self.table.pop(key)
        if self.watchers:
            self._tell(kind, key, None, before)
        return before

    def _tell(self, kind: str, key: Any, value: Any, before: Any) -> None:
        sessions: dict[int, None] = {}
        for session, wanted, prefix in self.watchers.values():
            if kind == CLEAR or matches(key, wanted, prefix):
                sessions[session] = None
        for session in sessions:
            self.changed.publish([kind, key, value, before], to=session)


def matches(key: Any, wanted: list[Any], prefix: str | None) -> bool:
    """Whether a watch of ``wanted`` ([key] or []) and ``prefix`` is for ``key``."""
    if wanted and wanted[0] != key:
        return False
    return prefix is None or (isinstance(key, str) and key.startswith(prefix))
