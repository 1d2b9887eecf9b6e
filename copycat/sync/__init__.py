"""The blocking twin of Copycat, for code without ``await``: the same names, for any thread.

::

    with copycat.sync.connect("127.0.0.1:7401") as cc:
        cc.map("/settings").put("theme", "dark")

`connect`, `open` and `local_cluster` start one daemon thread with one event loop each, and end it
at the end of the ``with``, or when the interpreter exits. What is given out may be used by all
threads at the same time; a call from a running event loop is a `MisuseError`, one in a child after
``os.fork()`` a `ForkedError`, at once. A waiting call that is interrupted (Ctrl-C) is cancelled.

Asynchronous iterators are plain ones here, which read ahead a little. ``with lock as held`` cannot
cancel its body: ask ``held.check()`` where it matters, pass ``held.token`` along, and expect
`LockLost` at the end of the ``with``; so it is with elections. Errors are those of ``copycat``.

This file and `twins` are written by ``python -m copycat.sync.generate``; do not edit them.
"""

from ..machine import Blocking as Blocking
from .base import Resource as Resource
from .machines import Machine as Machine
from .opening import Opening as Opening
from .scopes import Held as Held
from .scopes import Lost as Lost
from .twins.barrier import Barrier as Barrier
from .twins.boolean import Boolean as Boolean
from .twins.cluster import Cluster as Cluster
from .twins.election import LeaderElection as LeaderElection
from .twins.group import Membership as Membership
from .twins.group import MembershipGroup as MembershipGroup
from .twins.handles import Copycat as Copycat
from .twins.handles import CopycatClient as CopycatClient
from .twins.latch import Latch as Latch
from .twins.list import List as List
from .twins.local_cluster import LocalCluster as LocalCluster
from .twins.local_cluster import local_cluster as local_cluster
from .twins.lock import Lock as Lock
from .twins.lockable import Lockable as Lockable
from .twins.long import Long as Long
from .twins.map import Map as Map
from .twins.multimap import MultiMap as MultiMap
from .twins.node import CopycatServer as CopycatServer
from .twins.node import connect as connect
from .twins.node import open as open
from .twins.nodes import Node as Node
from .twins.nodes import PathChanges as PathChanges
from .twins.queue import Queue as Queue
from .twins.queue import Taken as Taken
from .twins.reference import Reference as Reference
from .twins.rwlock import ReadWriteLock as ReadWriteLock
from .twins.rwlock import ReadWriteSide as ReadWriteSide
from .twins.semaphore import Semaphore as Semaphore
from .twins.session import Session as Session
from .twins.set import Set as Set
from .twins.subscription import Subscription as Subscription
from .twins.topic import Topic as Topic
from .twins.transaction import LongPart as LongPart
from .twins.transaction import MapPart as MapPart
from .twins.transaction import Transaction as Transaction

__all__ = [
    "Barrier",
    "Blocking",
    "Boolean",
    "Cluster",
    "Copycat",
    "CopycatClient",
    "CopycatServer",
    "Held",
    "Latch",
    "LeaderElection",
    "List",
    "LocalCluster",
    "Lock",
    "Lockable",
    "Long",
    "LongPart",
    "Lost",
    "Machine",
    "Map",
    "MapPart",
    "Membership",
    "MembershipGroup",
    "MultiMap",
    "Node",
    "Opening",
    "PathChanges",
    "Queue",
    "ReadWriteLock",
    "ReadWriteSide",
    "Reference",
    "Resource",
    "Semaphore",
    "Session",
    "Set",
    "Subscription",
    "Taken",
    "Topic",
    "Transaction",
    "connect",
    "local_cluster",
    "open",
]
