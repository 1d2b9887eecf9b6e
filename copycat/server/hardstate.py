"""Term and vote on disk: two checksummed slots in one file, both rewritten at every change.

A vote may be promised to others only when it survives a crash (H1). The first slot is written and
synced, then the second: a torn write leaves the other slot whole, and a single slot that rots
later takes nothing with it. The newest valid slot wins. Knows nothing of elections.

The founding writes the first state, "no term, no vote", before the directory belongs to a cluster.
From then on there is always a valid slot: whoever finds none has lost a promise, not never made
one.

A slot, little-endian::

     0   4 magic b"CCH1"
     4   4 crc32 of bytes [8, 512)
     8   8 sequence, rising with every save
    16   8 term
    24   2 length of the vote's name + 1, or 0 for "no vote"
    26   - the name, UTF-8, then zeros up to 496
    496  8 the term from which on an entry shows that a log that was lost is whole again, or 0
    504  8 the longest promise that a lease may rest on, in microseconds, or 0 for "none"
"""

from __future__ import annotations

import struct

from .._core.kernel import crc32
from ..errors import CorruptLogError
from ..ports import Disk, File
from ..raft.ready import HardState

NAME = "hardstate"
SLOT_SIZE = 512
SLOT_OFFSETS = (0, 4096)
FILE_SIZE = 8192

_MAGIC = b"CCH1"
_HEAD = struct.Struct("<4sIQQH")
_CRC_FROM = 8
_END = struct.Struct("<QQ")
_END_FROM = SLOT_SIZE - _END.size


class HardStateFile:
    """The ``hardstate`` file of a directory that belongs to a cluster.

    Raises `CorruptLogError` if it is missing, cut, zero or damaged: the member may have voted.
    """

    def __init__(self, disk: Disk) -> None:
        newest = _newest(disk)
        path = f"{getattr(disk, 'root', '')}/{NAME}".lstrip("/") if newest is None else ""
        if newest is None:
            what = "cannot be read in either of its slots" if disk.exists(NAME) else "is gone"
            raise CorruptLogError(
                f"{path} {what}: the term and the vote of this member are not known, so it must "
                "not vote",
                segment=path,
                hint="restore the file from a backup of this very directory, made after the "
                "member stopped, or remove the whole data directory",
            )
        self._file: File = disk.open(NAME)
        self._sequence, self.state = newest
        # A killed process may have written it and not synced it: it was read from memory, and
        # what is promised from here on must not rest on that.
        self.save(self.state)

    @classmethod
    def found(cls, disk: Disk) -> HardStateFile:
        """The file of a member that has not been of a cluster yet, made durable. Blocks.

        Whatever an interrupted founding left of it is made anew; a state that is there is kept.
        """
        if _newest(disk) is None:
            file = disk.open(NAME, create=True)
            try:
                file.allocate(FILE_SIZE)
                for offset in SLOT_OFFSETS:
                    file.pwrite(_encode(1, HardState()), offset)
                    file.sync()
            finally:
                file.close()
            disk.sync_directory("")
        return cls(disk)

    def save(self, state: HardState) -> None:
        """Write and sync ``state``; blocks. When it returns, the state survives a crash."""
        self._sequence += 1
        slot = _encode(self._sequence, state)
        for offset in SLOT_OFFSETS:
            self._file.pwrite(slot, offset)
            self._file.sync()
        self.state = state

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def peek(disk: Disk) -> HardState | None:
    """The state that a directory holds; None if there is none that can be read."""
    newest = _newest(disk)
    return None if newest is None else newest[1]


def _newest(disk: Disk) -> tuple[int, HardState] | None:
    if not disk.exists(NAME):
        return None
    file = disk.open(NAME)
    try:
        slots = [file.pread(SLOT_SIZE, offset) for offset in SLOT_OFFSETS]
    finally:
        file.close()
    valid = [slot for slot in map(_decode, slots) if slot is not None]
    return max(valid, key=lambda slot: slot[0], default=None)


def _encode(sequence: int, state: HardState) -> bytes:
    name = b"" if state.vote is None else state.vote.encode()
    length = 0 if state.vote is None else len(name) + 1
    body = _HEAD.pack(_MAGIC, 0, sequence, state.term, length)[_CRC_FROM:] + name
    body = body.ljust(_END_FROM - _CRC_FROM, b"\0") + _END.pack(state.owes, state.promise_us)
    return _MAGIC + crc32(body).to_bytes(4, "little") + body


def _decode(slot: bytes) -> tuple[int, HardState] | None:
    if len(slot) < SLOT_SIZE:
        return None
    magic, crc, sequence, term, length = _HEAD.unpack_from(slot, 0)
    if magic != _MAGIC or crc32(slot[_CRC_FROM:]) != crc:
        return None
    try:
        vote = slot[_HEAD.size : _HEAD.size + length - 1].decode() if length else None
    except UnicodeDecodeError:
        return None
    owes, promise_us = _END.unpack_from(slot, _END_FROM)
    return sequence, HardState(term, vote, promise_us, owes)
