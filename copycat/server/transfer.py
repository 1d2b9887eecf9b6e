"""Snapshots on their way: a leader's chunks to peers that lag, a follower's pieces from a leader.

Chunks are bound to (term, snapshot, offset); one transfer a peer, one chunk under way, so that
heartbeats are never starved (H77). A transfer that stalls is begun again by Raft. Disk work is
jobs; nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..raft.messages import Message, SnapshotChunk, SnapshotResponse
from .effects import Job
from .snapshots import SnapshotInfo, Snapshots

CHUNK_BYTES = 512 << 10


class Owner(Protocol):
    """What a transfer asks of its member."""

    name: str

    @property
    def term(self) -> int: ...
    @property
    def leading(self) -> bool: ...
    @property
    def snapshot(self) -> SnapshotInfo | None: ...
    def start(self, job: Job) -> None: ...
    def send(self, message: Message) -> None: ...
    def install(self, info: SnapshotInfo, body: bytes) -> None: ...


class Sender:
    """A leader's transfers, at most one a peer."""

    def __init__(self, snapshots: Snapshots, owner: Owner) -> None:
        self._snapshots = snapshots
        self._owner = owner
        self._transfers: dict[str, tuple[int, SnapshotInfo]] = {}  # peer -> (term, snapshot)

    def begin(self, peer: str) -> None:
        """Send the newest snapshot to ``peer`` from its start."""
        info = self._owner.snapshot
        if info is not None:
            self._transfers[peer] = (self._owner.term, info)
            self._read(peer, self._owner.term, info, 0)

    def answered(self, answer: SnapshotResponse) -> None:
        """The peer has everything before ``answer.offset``: send what follows."""
        transfer = self._transfers.get(answer.sender)
        if transfer is not None and transfer[1].index == answer.index:
            self._read(answer.sender, *transfer, answer.offset)

    def _read(self, peer: str, term: int, info: SnapshotInfo, offset: int) -> None:
        owner = self._owner
        if not owner.leading or owner.term != term or offset >= info.size:
            return

        def then(data: bytes | None) -> None:
            if data is None:
                self.begin(peer)  # a newer snapshot has replaced this one meanwhile
            elif owner.leading and owner.term == term:
                owner.send(
                    SnapshotChunk(
                        term, owner.name, peer, info.index, info.term, offset, info.size, data
                    )
                )

        read = self._snapshots.read
        owner.start(Job("background", lambda: read(info, offset, CHUNK_BYTES), then))


class Receiver:
    """A follower's only transfer."""

    def __init__(self, snapshots: Snapshots, owner: Owner) -> None:
        self._snapshots = snapshots
        self._owner = owner
        self._index = 0
        self._term = 0
        self._next = 0
        self._busy = False

    def chunk(self, chunk: SnapshotChunk) -> None:
        """Write a chunk that Raft has accepted, then ask for the next or install."""
        if chunk.offset == 0 and not self._busy:
            self._index, self._term, self._next = chunk.index, chunk.term, 0
        if self._busy or (chunk.index, chunk.offset) != (self._index, self._next):
            return  # a duplicate, or of a transfer that was given up
        self._busy = True
        self._next += len(chunk.data)
        last = self._next >= chunk.total
        self._owner.start(Job("background", self._write(chunk, last), self._written(chunk, last)))

    def _write(self, chunk: SnapshotChunk, last: bool) -> Callable[[], object]:
        def run() -> object:
            self._snapshots.receive(chunk.offset, chunk.data)
            return self._snapshots.accept() if last else None

        return run

    def _written(
        self, chunk: SnapshotChunk, last: bool
    ) -> Callable[[tuple[SnapshotInfo, bytes] | None], None]:
        def then(accepted: tuple[SnapshotInfo, bytes] | None) -> None:
            self._busy = False
            if accepted is not None:
                self._owner.install(*accepted)
            else:
                owner = self._owner
                owner.send(
                    SnapshotResponse(
                        owner.term, owner.name, chunk.sender, chunk.index, self._next, False
                    )
                )

        return then
