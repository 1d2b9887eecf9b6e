"""The built-in resources: one small file each, machine and client half side by side.

Read `base` first, then `long`, the shortest. Machines use only the public machine API.
"""

from .barrier import AsyncBarrier as AsyncBarrier
from .barrier import BarrierMachine as BarrierMachine
from .base import Access as Access
from .base import Resource as Resource
from .base import stateful as stateful
from .boolean import AsyncBoolean as AsyncBoolean
from .boolean import BooleanMachine as BooleanMachine
from .election import ElectionEvent as ElectionEvent
from .election import ElectionMachine as ElectionMachine
from .election import LeaderElection as LeaderElection
from .group import GroupEvent as GroupEvent
from .group import GroupMachine as GroupMachine
from .group import GroupMember as GroupMember
from .group import Membership as Membership
from .group import MembershipGroup as MembershipGroup
from .latch import AsyncLatch as AsyncLatch
from .latch import LatchMachine as LatchMachine
from .line import Claim as Claim
from .list import AsyncList as AsyncList
from .list import ListMachine as ListMachine
from .lock import AsyncLock as AsyncLock
from .lock import LockMachine as LockMachine
from .long import AsyncLong as AsyncLong
from .long import LongMachine as LongMachine
from .map import AsyncMap as AsyncMap
from .map import MapEvent as MapEvent
from .map_machine import MapMachine as MapMachine
from .multimap import AsyncMultiMap as AsyncMultiMap
from .multimap import MultiMapMachine as MultiMapMachine
from .queue import AsyncQueue as AsyncQueue
from .queue import QueueMachine as QueueMachine
from .queue import Taken as Taken
from .reference import AsyncReference as AsyncReference
from .reference import ReferenceMachine as ReferenceMachine
from .reference import ValueEvent as ValueEvent
from .rwlock import AsyncReadWriteLock as AsyncReadWriteLock
from .rwlock import ReadWriteLockMachine as ReadWriteLockMachine
from .rwlock import ReadWriteSide as ReadWriteSide
from .semaphore import AsyncSemaphore as AsyncSemaphore
from .semaphore import SemaphoreMachine as SemaphoreMachine
from .set import AsyncSet as AsyncSet
from .set import SetEvent as SetEvent
from .set import SetMachine as SetMachine
from .subscription import Subscription as Subscription
from .topic import AsyncTopic as AsyncTopic
from .topic import TopicEvent as TopicEvent
from .topic import TopicMachine as TopicMachine
from .transaction import Outcome as Outcome
from .transaction import Transaction as Transaction

BUILT_IN_MACHINES = (
    BarrierMachine,
    BooleanMachine,
    ElectionMachine,
    GroupMachine,
    LatchMachine,
    ListMachine,
    LockMachine,
    LongMachine,
    MapMachine,
    MultiMapMachine,
    QueueMachine,
    ReadWriteLockMachine,
    ReferenceMachine,
    SemaphoreMachine,
    SetMachine,
    TopicMachine,
)
"""Every member has these."""

__all__ = [
    "BUILT_IN_MACHINES",
    "Access",
    "AsyncBarrier",
    "AsyncBoolean",
    "AsyncLatch",
    "AsyncList",
    "AsyncLock",
    "AsyncLong",
    "AsyncMap",
    "AsyncMultiMap",
    "AsyncQueue",
    "AsyncReadWriteLock",
    "AsyncReference",
    "AsyncSemaphore",
    "AsyncSet",
    "AsyncTopic",
    "BarrierMachine",
    "BooleanMachine",
    "Claim",
    "ElectionEvent",
    "ElectionMachine",
    "GroupEvent",
    "GroupMachine",
    "GroupMember",
    "LatchMachine",
    "LeaderElection",
    "ListMachine",
    "LockMachine",
    "LongMachine",
    "MapEvent",
    "MapMachine",
    "Membership",
    "MembershipGroup",
    "MultiMapMachine",
    "Outcome",
    "QueueMachine",
    "ReadWriteLockMachine",
    "ReadWriteSide",
    "ReferenceMachine",
    "Resource",
    "SemaphoreMachine",
    "SetEvent",
    "SetMachine",
    "Subscription",
    "Taken",
    "TopicEvent",
    "TopicMachine",
    "Transaction",
    "ValueEvent",
    "stateful",
]
