"""Keys with values in the order of their insertion, made to be large: paged, frozen, counted.

A machine keeps its entries here. They lie in leaves of `LEAF` consecutive serial numbers, so that
a page is found without a walk, a snapshot is taken leaf by leaf while commands go on (who changes
a leaf that is still to be shown leaves a copy behind), and a million entries are a few thousand
objects to the garbage collector. It knows nothing of sessions, time or events.
"""

from __future__ import annotations

import weakref
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

LEAF_BITS: Final = 9
LEAF: Final = 1 << LEAF_BITS
IN_LEAF: Final = LEAF - 1
_HOLE: Any = object()

Terms: TypeAlias = list[int]
"""[log time (us) at which the entry ends or 0, session it ends with or 0]."""


class _Leaf:
    """The entries of some consecutive serials; removed ones are holes until they are the most."""

    __slots__ = ("keys", "live", "places", "terms", "values", "versions")

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.values: list[Any] = []
        self.versions = array("Q")
        self.live = 0
        self.places: array[int] | None = None  # serials within the leaf; None: 0, 1, 2, ...
        self.terms: dict[int, Terms] = {}  # by serial within the leaf: few have any

    def at(self, place: int) -> int:
        """Where the entry of a serial within the leaf lies."""
        return place if self.places is None else bisect_left(self.places, place)

    def remove(self, place: int) -> None:
        at = self.at(place)
        self.keys[at] = self.values[at] = _HOLE
        self.live -= 1
        self.terms.pop(place, None)
        if 2 * self.live < len(self.keys):
            kept = [n for n, key in enumerate(self.keys) if key is not _HOLE]
            places = range(len(self.keys)) if self.places is None else self.places
            self.places = array("H", (places[n] for n in kept))
            self.keys = [self.keys[n] for n in kept]
            self.values = [self.values[n] for n in kept]
            self.versions = array("Q", (self.versions[n] for n in kept))

    def rows(self) -> Iterator[tuple[int, Any, Any, int]]:
        """(serial within the leaf, key, value, version) of what is there."""
        places = range(len(self.keys)) if self.places is None else self.places
        for place, key, value, version in zip(
            places, self.keys, self.values, self.versions, strict=True
        ):
            if key is not _HOLE:
                yield place, key, value, version

    def image(self, number: int) -> list[Any]:
        """What a snapshot says of it; it depends on what is there alone, not on how it came."""
        rows = list(self.rows())
        return [
            number,
            [] if len(rows) == LEAF else [row[0] for row in rows],
            [row[1] for row in rows],
            [row[2] for row in rows],
            [row[3] for row in rows],
            [[place, *self.terms[place]] for place in sorted(self.terms)],
        ]


class Frozen:
    """A table as it was: an iterator of images of its leaves."""

    def __init__(self, leaves: dict[int, _Leaf]) -> None:
        self._waiting = dict(leaves)
        self._copies: dict[int, list[Any]] = {}

    def __iter__(self) -> Frozen:
        return self

    def __next__(self) -> list[Any]:
        for number in self._waiting:
            leaf = self._waiting.pop(number)
            copy = self._copies.pop(number, None)
            return leaf.image(number) if copy is None else copy
        raise StopIteration

    def keep(self, number: int) -> None:
        """The leaf is about to change."""
        leaf = self._waiting.get(number)
        if leaf is not None and number not in self._copies:
            self._copies[number] = leaf.image(number)


class Table:
    """key -> value, version, and terms; each new key gets the next serial.

    Attributes:
        serials: the serial of each key.
        serial: the last one given; the first is `LEAF`.
        leaves: by number, in ascending order.
        frozen: who shows this table as it was.
    """

    def __init__(self) -> None:
        self.serials: dict[Any, int] = {}
        self.serial = LEAF - 1
        self.leaves: dict[int, _Leaf] = {}
        self._numbers: list[int] = []  # of the leaves
        self.frozen: list[weakref.ref[Frozen]] = []

    def __len__(self) -> int:
        return len(self.serials)

    def __contains__(self, key: object) -> bool:
        return key in self.serials

    # -- reading -------------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of ``key``."""
        serial = self.serials.get(key)
        if serial is None:
            return default
        leaf = self.leaves[serial >> LEAF_BITS]
        if leaf.places is None:
            return leaf.values[serial & IN_LEAF]
        return leaf.values[bisect_left(leaf.places, serial & IN_LEAF)]

    def find(self, key: Any) -> tuple[Any, int] | None:
        """The value and the version of ``key``, or None."""
        serial = self.serials.get(key)
        if serial is None:
            return None
        leaf = self.leaves[serial >> LEAF_BITS]
        at = leaf.at(serial & IN_LEAF)
        return leaf.values[at], leaf.versions[at]

    def terms(self, serial: int) -> Terms | None:
        """When the entry ends, if that is known."""
        leaf = self.leaves.get(serial >> LEAF_BITS)
        return None if leaf is None else leaf.terms.get(serial & IN_LEAF)

    def key_of(self, serial: int) -> Any:
        """The key with a serial that is there."""
        leaf = self.leaves[serial >> LEAF_BITS]
        return leaf.keys[leaf.at(serial & IN_LEAF)]

    def after(self, serial: int) -> Iterator[tuple[int, Any, Any, int]]:
        """(serial, key, value, version) of what was inserted after ``serial``."""
        first = serial + 1
        begin = bisect_left(self._numbers, first >> LEAF_BITS)
        for number in self._numbers[begin:]:
            high = number << LEAF_BITS
            for place, key, value, version in self.leaves[number].rows():
                if high + place >= first:
                    yield high + place, key, value, version

    # -- writing -------------------------------------------------------------------------------

    def put(self, key: Any, value: Any, version: int, terms: Terms | None = None) -> int:
        """Set; whatever terms there were are gone. The entry's serial."""
        serial = self.serials.get(key)
        if serial is None:
            return self._insert(key, value, version, terms)
        number, place = serial >> LEAF_BITS, serial & IN_LEAF
        if self.frozen:
            self.keep(number)
        leaf = self.leaves[number]
        at = place if leaf.places is None else bisect_left(leaf.places, place)
        leaf.values[at] = value
        leaf.versions[at] = version
        if terms is not None:
            leaf.terms[place] = terms
        elif leaf.terms:
            leaf.terms.pop(place, None)
        return serial

    def pop(self, key: Any) -> Any:
        """Remove ``key``, which is there; its value."""
        serial = self.serials.pop(key)
        number = serial >> LEAF_BITS
        if self.frozen:
            self.keep(number)
        leaf = self.leaves[number]
        value = leaf.values[leaf.at(serial & IN_LEAF)]
        leaf.remove(serial & IN_LEAF)
        if not leaf.live:
            del self.leaves[number]
            del self._numbers[bisect_left(self._numbers, number)]
        return value

    def clear(self) -> None:
        """Remove everything. (Who was frozen has the leaves.)"""
        self.serials = {}
        self.leaves = {}
        self._numbers = []
        self.frozen = []
        # Leaves begin anew, for those that were left may be shown in a snapshot.
        self.serial |= IN_LEAF

    def _insert(self, key: Any, value: Any, version: int, terms: Terms | None) -> int:
        self.serial = serial = self.serial + 1
        number, place = serial >> LEAF_BITS, serial & IN_LEAF
        leaf = self.leaves.get(number)
        if leaf is None:
            leaf = self.leaves[number] = _Leaf()
            self._numbers.append(number)
            if place:
                leaf.places = array("H")
        elif self.frozen:
            self.keep(number)
        if leaf.places is None and place != len(leaf.keys):
            leaf.places = array("H", range(len(leaf.keys)))
        if leaf.places is not None:
            leaf.places.append(place)
        leaf.keys.append(key)
        leaf.values.append(value)
        leaf.versions.append(version)
        leaf.live += 1
        if terms is not None:
            leaf.terms[place] = terms
        self.serials[key] = serial
        return serial

    # -- snapshots -----------------------------------------------------------------------------

    def freeze(self) -> Frozen:
        """Everything as it is now, for `restore`; what is changed later does not show in it."""
        frozen = Frozen(self.leaves)
        self.frozen = [ref for ref in self.frozen if ref() is not None]
        self.frozen.append(weakref.ref(frozen))
        return frozen

    def restore(self, serial: int, images: Iterable[list[Any]]) -> Iterator[tuple[int, Terms]]:
        """Become what was frozen when ``serial`` was the last one; the terms of its entries.

        The iterator has to be exhausted.
        """
        self.clear()
        self.serial = serial
        for number, places, keys, values, versions, terms in images:
            leaf = self.leaves[number] = _Leaf()
            self._numbers.append(number)
            leaf.keys, leaf.values, leaf.versions = keys, values, array("Q", versions)
            leaf.live = len(keys)
            high = number << LEAF_BITS
            serials: Iterable[int] = range(high, high + len(keys))
            if places and places[-1] >= len(places):
                leaf.places = array("H", places)
                serials = [high + place for place in places]
            self.serials.update(zip(keys, serials, strict=True))
            for place, due_us, session in terms:
                leaf.terms[place] = [due_us, session]
                yield high + place, leaf.terms[place]

    def keep(self, number: int) -> None:
        """A leaf is about to change: whoever still has to show it gets a copy."""
        gone = False
        for ref in self.frozen:
            frozen = ref()
            if frozen is None:
                gone = True
            else:
                frozen.keep(number)
        if gone:
            self.frozen = [ref for ref in self.frozen if ref() is not None]
