"""The path tree and what lives in it, as replicated state: paths, resources, operation names.

Changes only through applied entries. All paths here are in normal form (`copycat.paths`); `System`
sees to that, because a client may be anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import ConflictError
from ..paths import ancestors
from ..system import FIRST_USER_OPERATION

PAGE_BYTES = 256 << 10
"""Names of children in one answer, in bytes."""
_NAME_OVERHEAD = 8


class Schema:
    """Operation names interned to small ids for ever: adding a method renumbers nothing."""

    def __init__(self, names: list[str] | None = None) -> None:
        self.names: list[str] = list(names or ())
        self._ids = {name: FIRST_USER_OPERATION + i for i, name in enumerate(self.names)}

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def intern(self, name: str) -> int:
        """The id of ``name``, a new one if it has none."""
        id_ = self._ids.get(name)
        if id_ is None:
            id_ = self._ids[name] = FIRST_USER_OPERATION + len(self.names)
            self.names.append(name)
        return id_

    def name(self, id_: int) -> str | None:
        """The name behind ``id_``; None if it was never given out."""
        position = id_ - FIRST_USER_OPERATION
        return self.names[position] if 0 <= position < len(self.names) else None


class Place:
    """One position of the tree.

    ``version`` is the log index that created it and ``time_us`` its log time, ``resource`` the id
    of what lives there or 0, ``owner`` the session that it goes with or 0. Children stand in the
    order of their creation, so their versions rise: no command creates two in one place.
    """

    __slots__ = ("children", "owner", "resource", "time_us", "version")

    def __init__(self, version: int, time_us: int, owner: int = 0, resource: int = 0) -> None:
        self.version = version
        self.time_us = time_us
        self.owner = owner
        self.resource = resource
        self.children: dict[str, Place] = {}


class Tree:
    """All paths; the root is always there."""

    def __init__(self, image: Iterable[list] | None = None) -> None:  # type: ignore[type-arg]
        self._root = Place(0, 0)
        self._count = 1
        self._owned: dict[int, dict[str, None]] = {}  # session -> its paths, the oldest first
        if image is not None:
            self._restore(image)

    def __contains__(self, path: str) -> bool:
        return self.find(path) is not None

    def __len__(self) -> int:
        return self._count

    def find(self, path: str) -> Place | None:
        """What is at the normal ``path``; None if nothing is."""
        place = self._root
        for segment in path.split("/")[1:]:
            if segment:
                below = place.children.get(segment)
                if below is None:
                    return None
                place = below
        return place

    def resource(self, path: str) -> int:
        """The id of the resource at ``path``, 0 if there is none."""
        place = self.find(path)
        return 0 if place is None else place.resource

    def put(self, path: str, resource: int) -> None:
        """Put a resource at an existing path."""
        place = self.find(path)
        if place is not None:
            place.resource = resource

    def check(self, path: str, owner: int | None = None) -> None:
        """Raise `ConflictError` if `create` would."""
        place = self._root
        for _, each in ancestors(path):
            below = place.children.get(each.rpartition("/")[2])
            if below is None:
                if place.owner:
                    parent = each.rpartition("/")[0]
                    raise ConflictError(
                        f"{parent} is {_whose(place)}: nothing can be created beneath it",
                        current=place.owner,
                    )
                return
            place = below
        if owner is not None and owner != place.owner:
            raise ConflictError(f"{path} is there and {_whose(place)}", current=place.owner)

    def create(self, path: str, version: int, time_us: int, owner: int | None = None) -> list[str]:
        """Create ``path`` and its ancestors; the paths that were not there before, parents first.

        ``owner`` is the session that the path shall go with, 0 for one that stays; None takes one
        that is there as it is. Raises `ConflictError` if it is there and another's, or if one of
        its ancestors goes with a session: like ZooKeeper's, those have no children.
        """
        self.check(path, owner)
        place, created = self._root, []
        for _, each in ancestors(path):
            name = each.rpartition("/")[2]
            below = place.children.get(name)
            if below is None:
                below = place.children[name] = Place(version, time_us)
                created.append(each)
            place = below
        self._count += len(created)
        if owner and created:
            place.owner = owner
            self._owned.setdefault(owner, {})[path] = None
        return created

    def children(self, path: str, after: int = 0) -> tuple[list[str], int]:
        """Names directly beneath ``path``, in order of creation, and the version of the last.

        Only those with a higher version than ``after``; not all of them if they are many. The
        second part is 0 if there are no more.
        """
        place = self.find(path)
        names: list[str] = []
        size = 0
        last = 0
        for name, child in place.children.items() if place is not None else ():
            if child.version > after:
                if size >= PAGE_BYTES:
                    return names, last
                names.append(name)
                size += len(name) * 4 + _NAME_OVERHEAD
                last = child.version
        return names, 0

    def owned(self, session: int) -> list[str]:
        """The paths that go with ``session``, in order of creation."""
        return list(self._owned.get(session, ()))

    def owns(self, session: int) -> int:
        """How many paths go with ``session``."""
        return len(self._owned.get(session, ()))

    def delete(self, path: str) -> list[tuple[str, Place]]:
        """Take out ``path`` and everything beneath it; what went, children before their parents.

        The root stays: deleting it empties it, and it stands last in what went.
        """
        place = self.find(path)
        if place is None:
            return []
        gone = list(self._walk(path, place))
        gone.reverse()
        if path == "/":
            self._root = Place(0, 0)
            self._count = 1
        else:
            parent = self.find(path.rpartition("/")[0])
            if parent is not None:
                del parent.children[path.rpartition("/")[2]]
            self._count -= len(gone)
        for below, each in gone:
            if each.owner:
                owned = self._owned[each.owner]
                del owned[below]
                if not owned:
                    del self._owned[each.owner]
        return gone

    def image(self) -> list[list[object]]:
        """Every place, parents first, for a snapshot."""
        return [
            [path, place.version, place.time_us, place.owner, place.resource]
            for path, place in self._walk("/", self._root)
        ]

    def _restore(self, image: Iterable[list]) -> None:  # type: ignore[type-arg]
        owned: list[tuple[int, int, str]] = []
        for path, version, time_us, owner, resource in image:
            place = Place(version, time_us, owner, resource)
            if path == "/":
                self._root = place
                continue
            above, _, name = path.rpartition("/")
            parent = self.find(above)
            if parent is not None:  # parents come first
                parent.children[name] = place
                self._count += 1
            if owner:
                owned.append((version, owner, path))
        for _, owner, path in sorted(owned):
            self._owned.setdefault(owner, {})[path] = None

    def _walk(self, path: str, place: Place) -> Iterator[tuple[str, Place]]:
        """Parents before their children, children in order; no recursion."""
        due = [(path, place)]
        while due:
            path, place = due.pop()
            yield path, place
            prefix = "" if path == "/" else path
            children = reversed(place.children.items())
            due.extend((f"{prefix}/{name}", child) for name, child in children)


def _whose(place: Place) -> str:
    return f"ephemeral, of session {place.owner}" if place.owner else "persistent"
