"""Generated from `copycat.handles` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from typing import Any

from ...handles import Copycat as AsyncCopycat
from ...handles import CopycatClient as AsyncCopycatClient
from ...handles import Node as AsyncNode
from ..clients import Client, Position
from .barrier import Barrier
from .cluster import Cluster
from .election import LeaderElection
from .latch import Latch
from .lock import Lock
from .long import Long
from .map import Map
from .queue import Queue
from .rwlock import ReadWriteLock
from .semaphore import Semaphore
from .session import Session


class Node(Position):
    """A position in the path tree; making one does no I/O."""

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

    def children(self) -> list[Node]:
        """The nodes directly beneath; none if this one does not exist."""
        return [Node(self._portal, each) for each in self._run(self._async.children())]

    def exists(self) -> bool:
        """Whether the path exists."""
        return self._run(self._async.exists())

    def delete(self) -> bool:
        """Delete the path, all beneath it, and their resources; whether it was there."""
        return self._run(self._async.delete())


class Copycat(Client):
    """One process's share of a cluster. All threads may use it."""

    @property
    def _async(self) -> AsyncCopycat:
        return self._as(AsyncCopycat)

    @property
    def cluster(self) -> Cluster:
        """The cluster: its members, its leader, and how both are changed."""
        return Cluster(self._portal, self._async.cluster)

    @property
    def session(self) -> Session:
        """The session: ``id``, ``state``, ``watch()``."""
        return Session(self._portal, self._async.session)

    @property
    def name(self) -> str:
        """The name under which this process appears to others."""
        return self._async.name

    def map(self, path: str) -> Map[Any, Any]:
        """A replicated dictionary."""
        return Map(self._portal, self._async.map(path))

    def long(self, path: str) -> Long:
        """A replicated integer."""
        return Long(self._portal, self._async.long(path))

    def lock(self, path: str) -> Lock:
        """A lock for the whole cluster."""
        return Lock(self._portal, self._async.lock(path))

    def election(self, path: str) -> LeaderElection:
        """A leader election."""
        return LeaderElection(self._portal, self._async.election(path))

    def rwlock(self, path: str) -> ReadWriteLock:
        """A lock for many readers or one writer."""
        return ReadWriteLock(self._portal, self._async.rwlock(path))

    def semaphore(self, path: str, permits: int | None = None) -> Semaphore:
        """A semaphore with so many ``permits``; None: as many as others have settled."""
        return Semaphore(self._portal, self._async.semaphore(path, permits))

    def barrier(self, path: str, parties: int | None = None) -> Barrier:
        """A barrier for so many ``parties``; None: as many as others have settled."""
        return Barrier(self._portal, self._async.barrier(path, parties))

    def latch(self, path: str, count: int | None = None) -> Latch:
        """A latch to be counted down ``count`` times; None: as often as others have settled."""
        return Latch(self._portal, self._async.latch(path, count))

    def queue(self, path: str) -> Queue[Any]:
        """A queue whose items are not lost with their consumers."""
        return Queue(self._portal, self._async.queue(path))

    def node(self, path: str) -> Node:
        """The node at ``path``."""
        return Node(self._portal, self._async.node(path))

    def exists(self, path: str) -> bool:
        """Whether ``path`` exists."""
        return self._run(self._async.exists(path))

    def delete(self, path: str) -> bool:
        """Delete ``path``, all beneath it, and their resources; whether it was there."""
        return self._run(self._async.delete(path))

    def children(self, path: str) -> list[Node]:
        """The nodes directly beneath ``path``."""
        return [Node(self._portal, each) for each in self._run(self._async.children(path))]

    def close(self) -> None:
        """End the session, which frees what it owns, and hang up."""
        self._run(self._async.close())


class CopycatClient(Copycat):
    """A client: it stores nothing and reaches the members over the network."""

    @property
    def _async(self) -> AsyncCopycatClient:
        return self._as(AsyncCopycatClient)


__all__ = ["Copycat", "CopycatClient", "Node"]
