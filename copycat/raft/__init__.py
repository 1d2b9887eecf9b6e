"""Raft: the decisions of one member about indexes, terms and votes; pure and synchronous.

Nothing here awaits, reads a clock, opens a file, sends a byte or looks into a payload: inputs and
the time come in, a `Ready` goes out, and the same inputs always give the same `Ready`.

Read in this order: ``ready`` (what is asked of the outside, and in which order it must be done),
``inputs`` and ``messages``, then ``raft`` (how a step runs and how roles change), ``election``,
``replication`` with ``progress`` (the leader's half), ``following`` (the follower's half),
``reads`` and ``leases``. Underneath lie ``standing`` (what a member knows and has promised),
``trail`` (the log without its payloads), ``membership`` and ``quorum``; ``invariants`` watches over
all of it. The section numbers are those of Ongaro's thesis, the H numbers those of the catalogue of
hazards.
"""

from .membership import Membership as Membership
from .options import RaftOptions as RaftOptions
from .progress import PeerStatus as PeerStatus
from .raft import Raft as Raft
from .ready import HardState as HardState
from .ready import Ready as Ready
from .ready import Role as Role
from .replication import LogView as LogView
from .trail import Trail as Trail

__all__ = [
    "HardState",
    "LogView",
    "Membership",
    "PeerStatus",
    "Raft",
    "RaftOptions",
    "Ready",
    "Role",
    "Trail",
]
