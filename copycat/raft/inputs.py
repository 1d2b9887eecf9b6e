"""What the outside tells Raft: plain values, each with the reason it exists.

Raft never fetches anything itself: messages, completed syncs, and lost connections arrive here,
and time comes along as the ``now`` of `Raft.step`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .configurations import Placed
from .membership import Membership
from .messages import Message


@dataclass(slots=True, unsafe_hash=True)  # not frozen: see ``messages``
class Receive:
    """A message arrived from another member."""

    message: Message


@dataclass(slots=True, unsafe_hash=True)  # not frozen: see ``messages``
class Durable:
    """Everything in this member's log up to ``index`` is on disk.

    The store drops completions that belong to a log generation before a truncation (H17), so
    this never speaks of entries that have been replaced.
    """

    index: int


@dataclass(frozen=True, slots=True)
class Saved:
    """The hard state with this term and vote is on disk."""

    term: int
    vote: str | None


@dataclass(frozen=True, slots=True)
class Read:
    """A linearizable read wants an index at which it may be served (ReadIndex, thesis 6.4).

    Any member finds one, as long as it knows a leader.
    """

    id: int


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The connection to ``name`` broke: what was on its way is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """The connection to ``name`` broke *and* its address refuses a new one: the process is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class Campaign:
    """The cluster was just founded and a majority is connected: nobody need wait for a timeout.

    Only heard before the first term; it asks by a pre-vote like any other candidate.
    """


@dataclass(frozen=True, slots=True)
class Yield:
    """This member can log nothing: somebody else shall lead.

    A leader steps down; whoever hears it does not stand for election for ``seconds``, unless a
    leader is heard meanwhile.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """Leadership shall go to ``to``, or to whoever is best prepared. Only a leader hears it."""

    to: str | None = None


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """The members shall become ``wanted``, which is not joint; see `Raft.objection`."""

    wanted: Membership


@dataclass(frozen=True, slots=True)
class Compacted:
    """The log begins after ``index`` now; a durable snapshot stands for what was before."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class Installed:
    """A snapshot received from the leader is durable and restored; it replaces the log.

    ``configuration`` is what was in force there, with the index that brought it.
    """

    index: int
    term: int
    configuration: Placed


Input = (
    Receive
    | Durable
    | Saved
    | Read
    | PeerLost
    | PeerRefused
    | Campaign
    | Yield
    | Transfer
    | Reconfigure
    | Compacted
    | Installed
)
