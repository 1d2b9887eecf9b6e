"""Snapshots on their way: a leader's chunks to peers that lag, a follower's pieces from a leader.

Chunks are bound to (term, snapshot, offset); one transfer a peer, one chunk under way, so that
heartbeats are never starved (H77). The receiver says which offset it wants next, so a transfer that
stalled goes on where it stood; Raft only says when. What a transfer reads stays on disk, and the
log behind it too, until the peer has it: newer snapshots do not outrun a slow link (H22). Disk work
is jobs; nothing here blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from ..errors import CorruptLogError, DiskFullError
from ..raft.messages import Message, SnapshotChunk, SnapshotResponse
from .effects import Job
from .snapshots import SnapshotInfo, Snapshots

CHUNK_BYTES = 512 << 10
CHUNK_BYTES_MIN = 16 << 10
"""A chunk that takes longer than Raft's patience is halved, down to this; answers let it grow."""
REST_S = 10.0
"""Seconds for which a follower takes no snapshot after one that its disk had no space for, or that
arrived damaged again and again."""
DAMAGED_MAX = 2
"""Damaged arrivals in a row after which it rests."""

log = logging.getLogger("copycat.transfer")


class Owner(Protocol):
    """What a transfer asks of its member."""

    name: str

    @property
    def now(self) -> float: ...
    @property
    def term(self) -> int: ...
    @property
    def leading(self) -> bool: ...
    @property
    def snapshot(self) -> SnapshotInfo | None: ...
    def awaiting_snapshots(self) -> set[str]:
        """The peers that Raft counts as being sent a snapshot."""

    def log_follows(self, index: int) -> bool:
        """Whether the log still has what comes right behind ``index``."""

    def start(self, job: Job) -> None: ...
    def send(self, message: Message) -> None: ...
    def install(self, info: SnapshotInfo, state: Iterable[bytes]) -> None: ...


@dataclass(slots=True)
class _Transfer:
    """What is being sent to one peer."""

    term: int
    info: SnapshotInfo
    offset: int = 0  # of the chunk under way
    chunk_bytes: int = CHUNK_BYTES
    stalls: int = 0  # since the last answer
    begun: bool = False  # its first chunk was read


class Sender:
    """A leader's transfers, at most one a peer."""

    def __init__(self, snapshots: Snapshots, owner: Owner) -> None:
        self._snapshots = snapshots
        self._owner = owner
        self._transfers: dict[str, _Transfer] = {}

    def begin(self, peer: str) -> None:
        """Raft wants ``peer`` to get a snapshot: the newest, or what is under way once more."""
        owner = self._owner
        transfer = self._transfers.get(peer)
        if (
            transfer is not None
            and transfer.term == owner.term
            and owner.log_follows(transfer.info.index)
        ):
            transfer.stalls += 1
            transfer.chunk_bytes = max(CHUNK_BYTES_MIN, transfer.chunk_bytes // 2)
            # It may be only slow: what is sent again too often would make it slower.
            if transfer.stalls in (1, 2, 4) or transfer.stalls % 8 == 0:
                self._read(peer, transfer)
        else:
            self._restart(peer)

    def answered(self, answer: SnapshotResponse) -> None:
        """The peer has everything before ``answer.offset``: send what follows."""
        transfer = self._transfers.get(answer.sender)
        if transfer is None or transfer.info.index != answer.index:
            return
        if answer.offset == transfer.offset:
            return  # it is under way already
        transfer.offset = answer.offset
        transfer.stalls = 0
        transfer.chunk_bytes = min(CHUNK_BYTES, transfer.chunk_bytes + CHUNK_BYTES_MIN)
        self._read(answer.sender, transfer)

    def sending(self, peer: str) -> int:
        """The index of the snapshot that ``peer`` is being sent; 0 if none."""
        transfer = self._transfers.get(peer)
        return transfer.info.index if transfer is not None else 0

    def prune(self) -> None:
        """Forget the transfers that have ended, and drop the files that they alone needed."""
        waiting = self._owner.awaiting_snapshots()
        ended = [peer for peer in self._transfers if peer not in waiting]
        for peer in ended:
            del self._transfers[peer]
        newest = self._owner.snapshot
        if ended and newest is not None:
            self._keep()
            remove = self._snapshots.remove_before
            self._owner.start(Job("background", lambda: remove(newest.index)))

    def _restart(self, peer: str) -> None:
        info = self._owner.snapshot
        if info is not None:
            self._transfers[peer] = transfer = _Transfer(
                self._owner.term, info, chunk_bytes=CHUNK_BYTES
            )
            self._keep()
            self._read(peer, transfer)

    def _keep(self) -> None:
        self._snapshots.keep(transfer.info.name for transfer in self._transfers.values())

    def _read(self, peer: str, transfer: _Transfer) -> None:
        owner, info, offset = self._owner, transfer.info, transfer.offset
        if not owner.leading or owner.term != transfer.term or offset >= info.size:
            return

        def then(data: bytes | None) -> None:
            if self._transfers.get(peer) is not transfer:
                return
            if data is None:
                self._restart(peer)  # a newer snapshot replaced it before this one was begun
            elif owner.leading and owner.term == transfer.term:
                owner.send(
                    SnapshotChunk(
                        transfer.term, owner.name, peer, info.index, info.term, offset,
                        info.size, data,
                    )
                )  # fmt: skip

        # Asked for from the start once more: perhaps it arrived damaged, and is so here.
        check, transfer.begun = transfer.begun and offset == 0, True
        read, size = self._snapshots.read, transfer.chunk_bytes
        owner.start(Job("background", lambda: read(info, offset, size, check=check), then))


class Receiver:
    """A follower's only transfer."""

    def __init__(self, snapshots: Snapshots, owner: Owner) -> None:
        self._snapshots = snapshots
        self._owner = owner
        self._of: tuple[int, int, int] | None = None  # (leader's term, index, total) under way
        self._next = 0
        self._busy = False
        self._damaged = 0  # arrivals in a row
        self._rest_until = 0.0
        self._full = False  # it was said already

    def chunk(self, chunk: SnapshotChunk) -> None:
        """Write a chunk that Raft has accepted, then ask for the next or install."""
        if self._busy or self._owner.now < self._rest_until:
            return
        which = (chunk.term, chunk.index, chunk.total)
        if which != self._of:
            self._of, self._next = which, 0
        if chunk.offset != self._next:
            # Sent again, or to the process that was here before: say what is wanted.
            self._ask(chunk)
            return
        last = chunk.offset + len(chunk.data) >= chunk.total
        self._busy = True
        job = Job("background", self._write(chunk, last), self._written(chunk), self._failed(chunk))
        self._owner.start(job)

    def _ask(self, chunk: SnapshotChunk) -> None:
        owner = self._owner
        owner.send(
            SnapshotResponse(owner.term, owner.name, chunk.sender, chunk.index, self._next, False)
        )

    def _write(self, chunk: SnapshotChunk, last: bool) -> Callable[[], object]:
        def run() -> object:
            self._snapshots.receive(chunk.offset, chunk.data, chunk.total)
            return self._snapshots.accept() if last else None

        return run

    def _written(
        self, chunk: SnapshotChunk
    ) -> Callable[[tuple[SnapshotInfo, list[bytes]] | None], None]:
        def then(accepted: tuple[SnapshotInfo, list[bytes]] | None) -> None:
            self._busy = False
            self._next = chunk.offset + len(chunk.data)
            if accepted is None:
                self._ask(chunk)
            else:
                self._of, self._damaged, self._full = None, 0, False
                self._owner.install(*accepted)

        return then

    def _failed(self, chunk: SnapshotChunk) -> Callable[[BaseException], None]:
        """Give this one up and live, unless the disk is broken (H60)."""

        def failed(error: BaseException) -> None:
            if not isinstance(error, DiskFullError | CorruptLogError):
                raise error
            self._busy = False
            self._of, self._next = None, 0
            self._owner.start(Job("background", self._snapshots.discard))
            if isinstance(error, DiskFullError):
                self._rest_until = self._owner.now + REST_S
                if not self._full:
                    self._full = True
                    log.error(
                        "%s cannot take the snapshot at index %d from %s, %d MiB: %s. It tries "
                        "again every %d s",
                        self._owner.name, chunk.index, chunk.sender, chunk.total >> 20, error,
                        REST_S,
                    )  # fmt: skip
                return
            self._damaged += 1
            log.error(
                "%s got a damaged snapshot at index %d from %s; it asks for it again",
                self._owner.name, chunk.index, chunk.sender,
            )  # fmt: skip
            if self._damaged % DAMAGED_MAX == 0:
                self._rest_until = self._owner.now + REST_S
            else:
                self._ask(chunk)

        return failed
