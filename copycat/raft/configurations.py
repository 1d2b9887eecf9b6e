"""The memberships in a log: each is in force from the moment its entry is appended (thesis 4.1).

Not from its commitment: whoever has the entry counts by it, and goes back to the one before if the
entry is cut off again. Holds values only; which may follow which is for `Membership` to say.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import invariant
from .membership import Membership

Placed = tuple[int, Membership]
"""A membership and the index of the entry that brought it; 0 for what was founded."""


class Configurations:
    """The base of the log's configurations and those in its entries, by index.

    Args:
        base: what was in force before the first entry that matters. Somebody who joined was told a
            membership whose entry is still to reach him: what lies before it is history.
        entries: the log's configuration entries, ascending.
    """

    __slots__ = ("_base", "_entries")

    def __init__(self, base: Placed, entries: Iterable[Placed] = ()) -> None:
        self._base = base
        self._entries = [entry for entry in entries if entry[0] > base[0]]

    @property
    def current(self) -> Membership:
        """What is in force now."""
        return self._entries[-1][1] if self._entries else self._base[1]

    @property
    def last_index(self) -> int:
        """Of the entry that brought what is in force."""
        return self._entries[-1][0] if self._entries else self._base[0]

    def at(self, index: int) -> Placed:
        """What is in force at ``index``, an index of the log or its base."""
        found = self._base
        for entry in self._entries:
            if entry[0] > index:
                break
            found = entry
        return found

    def since(self, index: int) -> list[Membership]:
        """What is in force at ``index``, and all that came after it."""
        return [self.at(index)[1], *(found for at, found in self._entries if at > index)]

    def append(self, index: int, membership: Membership) -> None:
        """An entry at ``index`` brings ``membership``."""
        if index > self._base[0]:
            invariant(index > self.last_index, "two configurations at {}", index)
            self._entries.append((index, membership))

    def truncate(self, from_index: int) -> None:
        """The entries from ``from_index`` on are gone."""
        while self._entries and self._entries[-1][0] >= from_index:
            self._entries.pop()

    def compact(self, index: int) -> None:
        """A snapshot stands for the log up to ``index``."""
        while self._entries and self._entries[0][0] <= index:
            self._base = self._entries.pop(0)

    def reset(self, base: Placed) -> None:
        """A snapshot, with what was in force there, replaces everything."""
        self._base = base
        self._entries.clear()
