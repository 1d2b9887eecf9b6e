"""The small vocabulary that every layer shares: enumerations and frozen value types, no behaviour.

Nothing here knows Raft, bytes or sockets. Public names are exported from ``copycat``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from .errors import ConfigurationError

V = TypeVar("V")


class Consistency(enum.IntEnum):
    """How fresh a query's answer must be (the value is the wire byte).

    ``LINEARIZABLE``: sees every write acknowledged before the query began; the leader confirms its
    leadership with a quorum (ReadIndex, Ongaro's thesis 6.4). Other members ask the leader.
    ``LINEARIZABLE_LEASE``: as above, if no member's clock runs wrong by more than a tenth. While a
    lease holds the leader asks nobody, else it makes sure by a round and asks for a lease. Whoever
    has promised one elects nobody until it runs out, so while these reads are in use another leader
    may come as late as an election timeout after the last words of the one before.
    ``SEQUENTIAL``: any member; never goes back in time for this session.
    ``SERIALIZABLE``: any member, at once, from what it has applied.
    """

    SERIALIZABLE = 0
    SEQUENTIAL = 1
    LINEARIZABLE_LEASE = 2
    LINEARIZABLE = 3

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ConfigurationError(
            f"{value!r} is no consistency",
            hint="give one of " + ", ".join(f"Consistency.{each.name}" for each in reversed(cls)),
        )


class Mode(enum.IntEnum):
    """Whether a value outlives the session that wrote it."""

    PERSISTENT = 0
    EPHEMERAL = 1

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ConfigurationError(
            f"{value!r} is no mode", hint="give Mode.PERSISTENT or Mode.EPHEMERAL"
        )


class MemberType(enum.Enum):
    """The part a member plays: voter, asynchronous learner, standby without a log, or client."""

    ACTIVE = "active"
    PASSIVE = "passive"
    RESERVE = "reserve"
    CLIENT = "client"


class EventType(enum.Enum):
    """What happened to a watched thing."""

    PUT = "put"
    REMOVE = "remove"
    EXPIRE = "expire"
    CLEAR = "clear"
    ADD = "add"
    CHANGE = "change"
    ELECTED = "elected"
    RESIGNED = "resigned"
    JOINED = "joined"
    LEFT = "left"
    CREATED = "created"
    DELETED = "deleted"
    OPENED = "opened"


class SessionState(enum.Enum):
    """A client's view of its session.

    ``SUSPENDED`` means that the session's loss cannot be ruled out: act as if locks are gone.
    """

    CONNECTING = "connecting"
    CONNECTED = "connected"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Versioned(Generic[V]):
    """A value together with the log index that wrote it."""

    value: V
    version: int


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port, written ``host:port`` (an IPv6 host in brackets)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """What the cluster's configuration says about one member."""

    name: str
    address: Address
    uuid: bytes
    type: MemberType = MemberType.ACTIVE
