"""What members say to each other, without the payloads: indexes, terms and answers.

Field order: term, from, to, then the message's own. Every message is one-way; an answer is a
message too. Names follow Ongaro's thesis, figure 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from .membership import Membership

# Nobody changes a message, but those of every batch are not declared frozen: that would make them
# four times as dear to create.


@dataclass(slots=True, unsafe_hash=True)
class Span:
    """A batch as Raft sees it: the indexes it covers, its term, and the membership it brings.

    A configuration stands in a batch of its own.
    """

    base_index: int
    last_index: int
    term: int
    membership: Membership | None = None


@dataclass(slots=True, unsafe_hash=True)
class AppendRequest:
    """Whole batches after ``prev_index``, or none (a heartbeat or a read round).

    Outgoing, ``last_index`` names the last entry and the shell fetches the images; incoming, the
    shell has filled ``spans`` and, aligned with them, ``images``, which Raft never looks into.
    ``round`` numbers the leader's rounds within its term: an answer that echoes it proves that the
    follower still accepted this leader after the round began. ``lease_us`` asks for the promise to
    let nobody else be elected for so many microseconds from the acceptance on; 0 asks for none.
    """

    term: int
    sender: str
    to: str
    prev_index: int
    prev_term: int
    last_index: int
    commit_index: int
    round: int
    spans: tuple[Span, ...] = ()
    images: tuple[bytes, ...] = ()
    lease_us: int = 0

    def says_the_same(self, other: AppendRequest) -> bool:
        """Whether another one, which may go to another peer, has the same content."""
        return (
            self.last_index == other.last_index
            and self.prev_index == other.prev_index
            and self.commit_index == other.commit_index
            and self.round == other.round
            and self.term == other.term
            and self.prev_term == other.prev_term
            and self.lease_us == other.lease_us
        )


@dataclass(slots=True, unsafe_hash=True)
class AppendResponse:
    """``match_index``: durable here and equal to the leader's log.

    On a mismatch ``success`` is False and the hint is the follower's last entry that may match:
    the largest index <= prev_index with a term <= prev_term, with that term (thesis 3.5 refined by
    skipping whole terms). ``promised``: what ``round`` asked for was promised when it was accepted,
    or later.
    """

    term: int
    sender: str
    to: str
    success: bool
    match_index: int
    round: int
    hint_index: int = 0
    hint_term: int = 0
    promised: bool = False


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """``pre``: would you vote for me in ``term``? Nobody's term changes by asking (thesis 9.6).

    ``bidden``: the leader itself wants this election, so being loyal to it is no reason to refuse.
    """

    term: int
    sender: str
    to: str
    last_index: int
    last_term: int
    pre: bool
    bidden: bool = False


@dataclass(frozen=True, slots=True)
class VoteResponse:
    """A granted pre-vote carries the asked term, a refusal the refuser's own."""

    term: int
    sender: str
    to: str
    granted: bool
    pre: bool


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """Bytes [offset, offset+len) of the snapshot at (index, snapshot_term), ``total`` long."""

    term: int
    sender: str
    to: str
    index: int
    snapshot_term: int
    offset: int
    total: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class SnapshotResponse:
    """``offset``: the next byte wanted. ``done``: the snapshot at ``index`` is installed."""

    term: int
    sender: str
    to: str
    index: int
    offset: int
    done: bool


@dataclass(frozen=True, slots=True)
class Stand:
    """The leader of ``term`` bids a follower that is level with it stand for election at once."""

    term: int
    sender: str
    to: str


@dataclass(frozen=True, slots=True)
class ReadIndexRequest:
    """At which index may the sender serve the reads that it has now? (thesis 6.4)

    ``life`` is drawn anew whenever the sender's process starts, ``number`` counts within it: no
    two requests are ever the same, so an answer belongs to one of them only (H28).
    """

    term: int
    sender: str
    to: str
    life: int
    number: int


@dataclass(frozen=True, slots=True)
class ReadIndexResponse:
    """The index that the request may be served at, or None: whoever was asked cannot tell."""

    term: int
    sender: str
    to: str
    life: int
    number: int
    index: int | None


Message = (
    AppendRequest
    | AppendResponse
    | VoteRequest
    | VoteResponse
    | SnapshotChunk
    | SnapshotResponse
    | Stand
    | ReadIndexRequest
    | ReadIndexResponse
)

BALLOTS = (VoteRequest, VoteResponse)
ANSWERS = (AppendResponse, VoteResponse, SnapshotResponse)
"""The messages that answer another one."""
