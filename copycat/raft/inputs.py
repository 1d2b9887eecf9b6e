"""What the outside tells Raft: plain values, each with the reason it exists.

Raft never fetches anything itself: messages, completed syncs, and lost connections arrive here,
and time comes along as the ``now`` of `Raft.step`.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """A linearizable read wants an index at which it may be served (ReadIndex, thesis 6.4)."""

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
class Compacted:
    """The log begins after ``index`` now; a durable snapshot stands for what was before."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class Installed:
    """A snapshot received from the leader is durable and restored; it replaces the log."""

    index: int
    term: int


Input = (
    Receive | Durable | Saved | Read | PeerLost | PeerRefused | Campaign | Compacted | Installed
)
