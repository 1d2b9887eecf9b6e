"""Generated from `copycat.nodes` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from ...nodes import Node as AsyncNode
from ...nodes import NodeInfo, PathEvent
from ...nodes import PathChanges as AsyncPathChanges
from ...resources.base import Duration
from ...types import Consistency
from ..base import Twin
from ..clients import Position


class PathChanges(Twin):
    """What becomes of a path and of what lies directly beneath it, from the first iteration on.

    ``with`` begins at once: what is read inside it and what is told then leave no gap.
    """

    @property
    def _async(self) -> AsyncPathChanges:
        return self._as(AsyncPathChanges)

    def __enter__(self) -> Self:
        self._run(self._async.__aenter__())
        return self

    def __exit__(self, *exc: object) -> None:
        if self._portal.inherited:
            return
        self._run(self._async.__aexit__(*exc))

    def __iter__(self) -> Iterator[PathEvent]:
        return self._iterate(self._async)

    def aclose(self) -> None:
        """Listen no more."""
        self._run(self._async.aclose())


class Node(Position):
    """A position in the path tree; making one does no I/O.

    Queries take ``consistency``, and what crosses the network ``timeout`` in seconds.
    """

    @property
    def _async(self) -> AsyncNode:
        return self._as(AsyncNode)

    @property
    def path(self) -> str:
        """The full path in normal form."""
        return self._async.path

    @property
    def name(self) -> str:
        """The last segment; empty for the root."""
        return self._async.name

    @property
    def parent(self) -> Node | None:
        """The node above; None for the root."""
        found = self._async.parent
        return None if found is None else Node(self._portal, found)

    def node(self, path: str) -> Node:
        """The node at ``path`` beneath this one."""
        return Node(self._portal, self._async.node(path))

    def exists(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> bool:
        """Whether the path exists."""
        return self._run(self._async.exists(consistency=consistency, timeout=timeout))

    def children(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Node]:
        """The nodes directly beneath, in order of creation; none if this one does not exist.

        They are fetched in pages of 256 KiB of names: beyond that, what is there from beginning to
        end appears exactly once, and what comes or goes meanwhile may appear or not.
        """
        return [
            Node(self._portal, each)
            for each in self._run(self._async.children(consistency=consistency, timeout=timeout))
        ]

    def info(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> NodeInfo | None:
        """Version, owner, resource and so on; None if the path does not exist."""
        return self._run(self._async.info(consistency=consistency, timeout=timeout))

    def delete(self, *, version: int | None = None, timeout: Duration = None) -> bool:
        """Delete the path, all beneath it, and their resources; whether it was there.

        With a ``version``, as in `info`, only if it is still the one with that. The root stays
        when it is deleted, and is empty.

        Raises:
            ConflictError: there is none with ``version``; ``current`` is the one that is there.
        """
        return self._run(self._async.delete(version=version, timeout=timeout))

    def listen(self) -> PathChanges:
        """What becomes of this path and of what lies directly beneath it, in log order.

        The path need not exist, and the iteration goes on when it is deleted. None is lost or
        doubled, across connections and leaders; should the session end, `SessionExpiredError` is
        raised rather than leave a hole. To read the state and miss nothing after it::

            with node.listen() as changes:
                there = node.children()
                for change in changes: ...
        """
        return PathChanges(self._portal, self._async.listen())


__all__ = ["Node", "PathChanges"]
