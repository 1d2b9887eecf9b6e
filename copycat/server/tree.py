"""The path tree and what lives in it, as replicated state: paths, resources, operation names.

Changes only through applied entries. Paths arrive in normal form (`copycat.paths`); they are
checked again here, because a client may be anybody.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..paths import ancestors, normal_path
from ..system import FIRST_USER_OPERATION


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


class Tree:
    """Paths in creation order, each with the id of its resource or 0."""

    def __init__(self, paths: list[tuple[str, int]] | None = None) -> None:
        self._resource: dict[str, int] = {"/": 0}
        self._children: dict[str, dict[str, None]] = {"/": {}}
        for path, resource in paths or ():
            self.create(path)
            self._resource[path] = resource

    def __contains__(self, path: str) -> bool:
        return path in self._resource

    def __len__(self) -> int:
        return len(self._resource)

    def create(self, path: str) -> bool:
        """Create ``path`` and its ancestors; True if it was not there."""
        path = normal_path(path)
        if path in self._resource:
            return False
        for parent, child in ancestors(path):
            if child not in self._resource:
                self._resource[child] = 0
                self._children[child] = {}
                self._children[parent][child] = None
        return True

    def resource(self, path: str) -> int:
        """The id of the resource at ``path``, 0 if there is none."""
        return self._resource.get(path, 0)

    def place(self, path: str, resource: int) -> None:
        """Put a resource at an existing path."""
        self._resource[path] = resource

    def children(self, path: str) -> list[str]:
        """Full paths directly beneath ``path``, in creation order; empty if it is missing."""
        return list(self._children.get(path, ()))

    def delete(self, path: str) -> list[int] | None:
        """Take out ``path`` and everything beneath; the resources that went, None if missing.

        The root stays: deleting it empties it.
        """
        if path not in self._resource:
            return None
        gone = [resource for _, resource in self._walk(path) if resource]
        for below, _ in list(self._walk(path)):
            del self._resource[below], self._children[below]
        if path == "/":
            self._resource["/"], self._children["/"] = 0, {}
        else:
            parent = path.rpartition("/")[0] or "/"
            del self._children[parent][path]
        return gone

    def image(self) -> list[list[object]]:
        """All paths but the root with their resources, parents first, for a snapshot."""
        return [[path, resource] for path, resource in self._walk("/") if path != "/"] + [
            ["/", self._resource["/"]]
        ]

    def _walk(self, path: str) -> Iterator[tuple[str, int]]:
        yield path, self._resource[path]
        for child in self._children[path]:
            yield from self._walk(child)
