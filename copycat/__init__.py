"""Copycat: locks, leader election, maps, counters and your own replicated classes.

Strongly consistent, inside your asyncio process. Start with `open`, `connect` or `local_cluster`;
blocking code finds them in `copycat.sync`. The README shows how, ARCHITECTURE.md why. Importing
this costs next to nothing: each name is imported from its home when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import sync as sync
    from ._core import COMPILED as COMPILED
    from .cluster import Cluster as Cluster
    from .errors import CommandFailed as CommandFailed
    from .errors import ConfigurationError as ConfigurationError
    from .errors import ConflictError as ConflictError
    from .errors import CopycatError as CopycatError
    from .errors import CorruptLogError as CorruptLogError
    from .errors import DataDirectoryInUse as DataDirectoryInUse
    from .errors import DeadlineError as DeadlineError
    from .errors import DiskFullError as DiskFullError
    from .errors import ForkedError as ForkedError
    from .errors import LeadershipLost as LeadershipLost
    from .errors import LockLost as LockLost
    from .errors import MembershipError as MembershipError
    from .errors import MisuseError as MisuseError
    from .errors import NoLeaderError as NoLeaderError
    from .errors import NondeterminismError as NondeterminismError
    from .errors import NoQuorumError as NoQuorumError
    from .errors import OutcomeUnknownError as OutcomeUnknownError
    from .errors import OverloadedError as OverloadedError
    from .errors import Rejected as Rejected
    from .errors import ResourceTypeError as ResourceTypeError
    from .errors import SecurityError as SecurityError
    from .errors import SerializationError as SerializationError
    from .errors import SessionExpiredError as SessionExpiredError
    from .errors import StorageError as StorageError
    from .errors import UnavailableError as UnavailableError
    from .errors import UnknownResourceError as UnknownResourceError
    from .errors import WrongClusterError as WrongClusterError
    from .errors import WrongLoopError as WrongLoopError
    from .handles import Copycat as Copycat
    from .handles import CopycatClient as CopycatClient
    from .machine import Commit as Commit
    from .machine import StateMachine as StateMachine
    from .machine import command as command
    from .machine import event as event
    from .machine import query as query
    from .node import CopycatServer as CopycatServer
    from .node import connect as connect
    from .node import open as open
    from .nodes import Node as Node
    from .nodes import NodeInfo as NodeInfo
    from .nodes import PathEvent as PathEvent
    from .resources import AsyncBarrier as AsyncBarrier
    from .resources import AsyncBoolean as AsyncBoolean
    from .resources import AsyncLatch as AsyncLatch
    from .resources import AsyncList as AsyncList
    from .resources import AsyncLock as AsyncLock
    from .resources import AsyncLong as AsyncLong
    from .resources import AsyncMap as AsyncMap
    from .resources import AsyncMultiMap as AsyncMultiMap
    from .resources import AsyncQueue as AsyncQueue
    from .resources import AsyncReadWriteLock as AsyncReadWriteLock
    from .resources import AsyncReference as AsyncReference
    from .resources import AsyncSemaphore as AsyncSemaphore
    from .resources import AsyncSet as AsyncSet
    from .resources import AsyncTopic as AsyncTopic
    from .resources import Claim as Claim
    from .resources import ElectionEvent as ElectionEvent
    from .resources import GroupEvent as GroupEvent
    from .resources import GroupMember as GroupMember
    from .resources import LeaderElection as LeaderElection
    from .resources import MapEvent as MapEvent
    from .resources import Membership as Membership
    from .resources import MembershipGroup as MembershipGroup
    from .resources import Outcome as Outcome
    from .resources import Resource as Resource
    from .resources import SetEvent as SetEvent
    from .resources import Subscription as Subscription
    from .resources import Taken as Taken
    from .resources import TopicEvent as TopicEvent
    from .resources import Transaction as Transaction
    from .resources import ValueEvent as ValueEvent
    from .resources import stateful as stateful
    from .scopes import Held as Held
    from .serializer import Serializer as Serializer
    from .serializer import Writable as Writable
    from .serializer import serializable as serializable
    from .testing.local_cluster import local_cluster as local_cluster
    from .types import Address as Address
    from .types import Consistency as Consistency
    from .types import EventType as EventType
    from .types import MemberInfo as MemberInfo
    from .types import MemberType as MemberType
    from .types import Mode as Mode
    from .types import SessionState as SessionState
    from .types import Versioned as Versioned

__version__ = "0.1.0"

__all__ = [
    "COMPILED",
    "Address",
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
    "Claim",
    "Cluster",
    "CommandFailed",
    "Commit",
    "ConfigurationError",
    "ConflictError",
    "Consistency",
    "Copycat",
    "CopycatClient",
    "CopycatError",
    "CopycatServer",
    "CorruptLogError",
    "DataDirectoryInUse",
    "DeadlineError",
    "DiskFullError",
    "ElectionEvent",
    "EventType",
    "ForkedError",
    "GroupEvent",
    "GroupMember",
    "Held",
    "LeaderElection",
    "LeadershipLost",
    "LockLost",
    "MapEvent",
    "MemberInfo",
    "MemberType",
    "Membership",
    "MembershipError",
    "MembershipGroup",
    "MisuseError",
    "Mode",
    "NoLeaderError",
    "NoQuorumError",
    "Node",
    "NodeInfo",
    "NondeterminismError",
    "Outcome",
    "OutcomeUnknownError",
    "OverloadedError",
    "PathEvent",
    "Rejected",
    "Resource",
    "ResourceTypeError",
    "SecurityError",
    "SerializationError",
    "Serializer",
    "SessionExpiredError",
    "SessionState",
    "SetEvent",
    "StateMachine",
    "StorageError",
    "Subscription",
    "Taken",
    "TopicEvent",
    "Transaction",
    "UnavailableError",
    "UnknownResourceError",
    "ValueEvent",
    "Versioned",
    "Writable",
    "WrongClusterError",
    "WrongLoopError",
    "command",
    "connect",
    "event",
    "local_cluster",
    "open",
    "query",
    "serializable",
    "stateful",
]

_HOMES = {
    "_core": "COMPILED",
    "cluster": "Cluster",
    "errors": (
        "CommandFailed ConfigurationError ConflictError CopycatError CorruptLogError "
        "DataDirectoryInUse DeadlineError DiskFullError ForkedError LeadershipLost LockLost "
        "MembershipError MisuseError NoLeaderError NondeterminismError NoQuorumError "
        "OutcomeUnknownError OverloadedError Rejected ResourceTypeError SecurityError "
        "SerializationError SessionExpiredError StorageError UnavailableError "
        "UnknownResourceError WrongClusterError WrongLoopError"
    ),
    "handles": "Copycat CopycatClient",
    "machine": "Commit StateMachine command event query",
    "node": "CopycatServer connect open",
    "nodes": "Node NodeInfo PathEvent",
    "resources": (
        "AsyncBarrier AsyncBoolean AsyncLatch AsyncList AsyncLock AsyncLong AsyncMap "
        "AsyncMultiMap AsyncQueue AsyncReadWriteLock AsyncReference AsyncSemaphore AsyncSet "
        "AsyncTopic Claim ElectionEvent GroupEvent GroupMember LeaderElection MapEvent "
        "Membership MembershipGroup Outcome Resource SetEvent Subscription Taken TopicEvent "
        "Transaction ValueEvent stateful"
    ),
    "scopes": "Held",
    "serializer": "Serializer Writable serializable",
    "testing.local_cluster": "local_cluster",
    "types": "Address Consistency EventType MemberInfo MemberType Mode SessionState Versioned",
}
"""Module -> the names above that live there."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # for type checkers these would make every misspelt name a valid one

    def __getattr__(name: str) -> object:
        """Import an exported name; from then on it is an ordinary attribute."""
        if name == "sync":
            return import_module(".sync", __name__)
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "sync"})
