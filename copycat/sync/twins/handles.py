"""Generated from `copycat.handles` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

import builtins
from datetime import timedelta
from typing import Any

from ...handles import Copycat as AsyncCopycat
from ...handles import CopycatClient as AsyncCopycatClient
from ...resources.base import Duration
from ...types import Consistency
from ..clients import Client
from .barrier import Barrier
from .boolean import Boolean
from .cluster import Cluster
from .election import LeaderElection
from .group import MembershipGroup
from .latch import Latch
from .list import List
from .lock import Lock
from .long import Long
from .map import Map
from .multimap import MultiMap
from .nodes import Node, PathChanges
from .queue import Queue
from .reference import Reference
from .rwlock import ReadWriteLock
from .semaphore import Semaphore
from .session import Session
from .set import Set
from .topic import Topic
from .transaction import Transaction


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

    def set(self, path: str) -> Set[Any]:
        """A replicated set."""
        return Set(self._portal, self._async.set(path))

    def multimap(self, path: str) -> MultiMap[Any, Any]:
        """A replicated map of keys to sets of values."""
        return MultiMap(self._portal, self._async.multimap(path))

    def list(self, path: str) -> List[Any]:
        """A replicated list."""
        return List(self._portal, self._async.list(path))

    def boolean(self, path: str) -> Boolean:
        """A replicated flag."""
        return Boolean(self._portal, self._async.boolean(path))

    def reference(self, path: str) -> Reference[Any]:
        """One replicated value of any type."""
        return Reference(self._portal, self._async.reference(path))

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

    def topic(self, path: str) -> Topic[Any]:
        """Messages for everybody who subscribes, in one order."""
        return Topic(self._portal, self._async.topic(path))

    def group(self, path: str) -> MembershipGroup:
        """Who is there: members with properties."""
        return MembershipGroup(self._portal, self._async.group(path))

    def transaction(self, *, timeout: float | timedelta | None = None) -> Transaction:
        """Changes of several resources, all or none: ``with cc.transaction() as tx``."""
        return Transaction(self._portal, self._async.transaction(timeout=timeout))

    def node(self, path: str) -> Node:
        """The node at ``path``."""
        return Node(self._portal, self._async.node(path))

    def exists(
        self, path: str, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``path`` exists."""
        return self._run(self._async.exists(path, consistency=consistency, timeout=timeout))

    def delete(self, path: str, *, version: int | None = None, timeout: Duration = None) -> bool:
        """Delete ``path``, all beneath it, and their resources; whether it was there."""
        return self._run(self._async.delete(path, version=version, timeout=timeout))

    def children(
        self, path: str, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> builtins.list[Node]:
        """The nodes directly beneath ``path``, in order of creation."""
        return [
            Node(self._portal, each)
            for each in self._run(
                self._async.children(path, consistency=consistency, timeout=timeout)
            )
        ]

    def listen(self, path: str) -> PathChanges:
        """What becomes of ``path`` and of what lies directly beneath it; see `Node.listen`."""
        return PathChanges(self._portal, self._async.listen(path))

    def close(self) -> None:
        """End the session, which frees what it owns, and hang up."""
        self._run(self._async.close())


class CopycatClient(Copycat):
    """A client: it stores nothing and reaches the members over the network."""

    @property
    def _async(self) -> AsyncCopycatClient:
        return self._as(AsyncCopycatClient)


__all__ = ["Copycat", "CopycatClient"]
