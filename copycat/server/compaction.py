"""When a member saves its state, and how much of its log may go then.

A snapshot is of the state between two batches. What the machines can freeze is encoded slice by
slice while commands go on, and written in the background; once it is durable, whole
segments below it are dropped, but not what a follower is still catching up on (H22). It belongs to
the member's turn: it starts jobs and gives Raft its facts, and decides nothing about entries.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Protocol

from ..errors import SerializationError
from ..raft import Raft
from ..raft.inputs import Compacted, Input
from .administration import Administration
from .applier import Applier
from .effects import Job
from .snapshots import Saving, SnapshotInfo
from .store import Store
from .transfer import Sender

SLICE_BYTES = 256 << 10
"""Of the state that are encoded in one turn: about a millisecond."""

log = logging.getLogger("copycat.member")


class Host(Protocol):
    """What compaction asks of its member."""

    @property
    def name(self) -> str:
        """The member's name, for log lines."""

    @property
    def peers_up(self) -> Set[str]:
        """The peers that can be reached."""

    @property
    def hard_state_is_durable(self) -> bool:
        """Whether everything Raft has promised so far is on disk."""

    def start(self, job: Job) -> None:
        """Have a job run."""

    def tell(self, fact: Input) -> None:
        """Give Raft a fact in its next step."""


@dataclass(slots=True)
class _UnderWay:
    """A snapshot that is being taken: what is still to be encoded, and where it is written."""

    index: int
    pieces: Iterator[bytes]
    saving: Saving

    def next_slice(self) -> bytes:
        """As much as should be encoded in one turn; nothing at the end."""
        slices: list[bytes] = []
        size = 0
        for piece in self.pieces:
            slices.append(piece)
            size += len(piece)
            if size >= SLICE_BYTES:
                break
        return b"".join(slices)


class Compaction:
    """One member's snapshots of its own state.

    Args:
        store, applier, raft, sender, administration: the member's.
        snapshot_bytes: of log applied since the last snapshot: time for a new one.
        retain_bytes: of log kept beyond the snapshot for followers that lag.
        host: the member.
    """

    def __init__(
        self,
        store: Store,
        applier: Applier,
        raft: Raft,
        sender: Sender,
        administration: Administration,
        *,
        snapshot_bytes: int,
        retain_bytes: int,
        host: Host,
    ) -> None:
        self._store = store
        self._applier = applier
        self._raft = raft
        self._sender = sender
        self._administration = administration
        self._snapshot_bytes = snapshot_bytes
        self._retain_bytes = retain_bytes
        self._host = host
        self._under_way: _UnderWay | None = None
        self._bytes = 0  # applied since the last snapshot

    def applied(self, size: int) -> None:
        """``size`` bytes of log were applied."""
        self._bytes += size

    def installed(self) -> None:
        """The state came from a snapshot just now; one that is being taken is of an older one."""
        self._bytes = 0
        self._under_way = None

    def when_due(self) -> None:
        """Take a snapshot if enough has happened since the last one."""
        if self._bytes < self._snapshot_bytes or self._under_way:
            return
        snapshot = self._store.snapshot
        if snapshot is None or self._bytes >= snapshot.state_bytes:
            self.take()

    def take(self, *, asked: bool = False) -> int:
        """Begin to save the state at the applied index, which is returned.

        Who ``asked`` for it gets a ``ValueError`` if the state cannot be encoded.
        """
        index = self._applier.index
        term = self._store.log.term_at(index)
        if self._under_way or term is None or index == 0 or not self._host.hard_state_is_durable:
            # (A snapshot of a term must not be durable before the hard state that entered it.)
            return index
        self._bytes = 0
        try:
            pieces = self._applier.freeze()
        except SerializationError as problem:
            self._impossible(problem)
            if asked:
                raise ValueError(f"no snapshot: {problem}") from problem
            return index
        brought_at, roster = self._administration.rosters.at(index)
        saving = self._store.snapshots.begin(index, term, (brought_at, roster.encode()))
        self._under_way = _UnderWay(index, pieces, saving)
        self._go_on(self._under_way)
        return index

    def _go_on(self, snapshot: _UnderWay) -> None:
        """Encode the next slice of the state, and have it written; one is under way at a time."""
        if snapshot is not self._under_way:  # the state was replaced by another one
            self._host.start(Job("background", snapshot.saving.abandon))
            return

        def failed(error: BaseException) -> None:
            if snapshot is self._under_way:
                self._under_way = None
            log.error("%s: no snapshot at index %d: %s", self._host.name, snapshot.index, error)

        try:
            data = snapshot.next_slice()
        except SerializationError as problem:
            self._under_way = None
            self._impossible(problem)
            self._host.start(Job("background", snapshot.saving.abandon))
            return
        saving = snapshot.saving
        if data:
            then = lambda _: self._go_on(snapshot)  # noqa: E731
            self._host.start(Job("background", lambda: saving.add(data), then, failed))
        else:
            saved = lambda info: self._saved(snapshot, info)  # noqa: E731
            self._host.start(Job("background", saving.finish, saved, failed))

    def _impossible(self, problem: SerializationError) -> None:
        log.error("%s: no snapshot, so the log cannot be cut: %s", self._host.name, problem)

    def _saved(self, snapshot: _UnderWay, info: SnapshotInfo) -> None:
        if snapshot is self._under_way:
            self._under_way = None
        current = self._store.snapshot
        if current is None or current.index < info.index:
            self._store.snapshot = info
            self._cut_log(info)
        self._sender.prune()

    def _cut_log(self, info: SnapshotInfo) -> None:
        """Drop whole segments below the snapshot, but not what a follower still catches up on."""
        log_ = self._store.log
        # Commitment may run ahead of this disk: what it has yet to write is not dropped.
        horizon = min(info.index, log_.durable_index)
        for peer in self._raft.progress_of():
            has = max(peer.match_index, self._sender.sending(peer.name))
            if peer.name in self._host.peers_up and log_.base_index < has < horizon:
                last, _ = log_.window_end(has + 1, self._retain_bytes)
                if last >= horizon:
                    horizon = has
        self._store.cut_before(horizon)
        if log_.base_index > 0:
            self._administration.rosters.compact(log_.base_index)
            self._host.tell(Compacted(log_.base_index, log_.base_term))
