"""What Raft asks for after a step, and the order in which it must be done.

1. If ``hard_state`` is set, it must be durable BEFORE any message of this or a later `Ready`
   leaves; answer with `Saved`.
2. ``truncate_from``: drop the log from that index on, durably, BEFORE ``append`` is written.
3. ``append``: stage these images; when they are durable, answer with `Durable`.
4. ``messages`` may leave while 3 is still under way (a follower's acknowledgement is only made
   after `Durable`, so nothing is promised early; the leader may send before its own sync, thesis
   10.2.1).
5. Entries up to ``commit_index`` may be applied.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from .membership import Membership
from .messages import Message, SnapshotChunk, SnapshotResponse


class Role(enum.Enum):
    """The part this member plays in its current term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive a crash before anybody hears of it.

    ``promise_us``: the longest promise to let nobody be elected that was given since the term began
    or that was in force then, in microseconds; 0 if there was none. ``owes``: a part of the log was
    lost that may have been acknowledged; until there is an entry of this term or a later one again,
    this member lets others elect (`Standing.abstains`); 0 if nothing was lost.
    """

    term: int = 0
    vote: str | None = None
    promise_us: int = 0
    owes: int = 0


@dataclass(slots=True)
class Ready:
    """Everything one step asks for; see the module's text for the order."""

    hard_state: HardState | None = None
    truncate_from: int | None = None
    append: list[bytes] = field(default_factory=list)  # images, in index order
    messages: list[Message] = field(default_factory=list)
    commit_index: int = 0
    elected: bool = False  # just became leader: propose the no-op now, before anything else
    configure: Membership | None = None  # leader: append this by `propose_configuration`, now
    deposed: bool = False  # just stopped being leader: proposals without an answer are unknown
    reads: Sequence[tuple[int, int]] = ()  # (id, index): serve once applied
    reads_failed: tuple[int, ...] = ()  # no leader could be asked: ask again or elsewhere
    install: tuple[str, ...] = ()  # peers that need a snapshot: begin sending
    chunks: tuple[SnapshotChunk, ...] = ()  # accepted: write, then answer
    snapshot_answers: tuple[SnapshotResponse, ...] = ()  # send the next chunk
    wake_at: float = 0.0  # step again at this time at the latest
