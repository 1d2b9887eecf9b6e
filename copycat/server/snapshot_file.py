"""The file of a snapshot: a head, then the state in checksummed blocks, packed where that pays.

It is written and read piece by piece, so that no state has to be in memory twice. It names no file
and decides nothing: `Snapshots` does. Methods block: they are called from jobs or at start.

File, little-endian::

     0   8 magic b"CCSNAP05"
     8   4 crc32 of the magic and of bytes [12, end of the configuration)
    12   8 index
    20   8 term
    28  16 cluster id
    44   8 bytes of the state
    52   8 size of the file
    60   4 crc of the last block
    64   8 index of the entry that brought the configuration in force; 0: it was founded
    72   4 length of the configuration
    76   - the configuration (layout.py); nothing, if it was founded and never changed
     .   - blocks

Block::

     0   4 bytes of the state in it, at most `BLOCK_BYTES`
     4   4 bytes that follow; if they are fewer, they are one lz4 block
     8   4 crc32 of what follows, begun with the crc of the block before (of the first: 0)
    12   - the bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import lz4.block  # type: ignore[import-untyped, unused-ignore]

from .._core.kernel import crc32
from ..errors import CorruptLogError, WrongClusterError
from ..ports import File

BLOCK_BYTES = 1 << 20
PAYS = 1.5
"""A block is packed if it shrinks by this factor."""

_MAGIC = b"CCSNAP05"
_HEAD = struct.Struct("<8sIQQ16sQQIQI")
_CRC_FROM = 12
_BLOCK = struct.Struct("<III")
_PIECE_BYTES = 1 << 20
_CONFIGURATION_MAX = 1 << 20

FOUNDED = (0, b"")
"""The configuration of a cluster whose members never changed."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """Which snapshot: the last index and term it stands for, its file, the file's size.

    ``configuration`` is the one in force there: the index that brought it, and its encoding.
    ``state_bytes`` is what its blocks hold when they are unpacked.
    """

    index: int
    term: int
    name: str
    size: int
    configuration: tuple[int, bytes] = FOUNDED
    state_bytes: int = 0


@dataclass(slots=True)
class Writer:
    """Writes one file: `add` the state in pieces of any size, then `finish`."""

    file: File
    info: SnapshotInfo
    cluster_id: bytes
    _end: int = field(init=False)
    _crc: int = 0
    _state_bytes: int = 0

    def __post_init__(self) -> None:
        self._end = _HEAD.size + len(self.info.configuration[1])

    def add(self, piece: bytes) -> None:
        """Write the next bytes of the state."""
        blocks: list[bytes] = []
        for at in range(0, len(piece), BLOCK_BYTES):
            raw = piece[at : at + BLOCK_BYTES]
            packed = lz4.block.compress(raw, store_size=False)
            stored = packed if len(packed) * PAYS <= len(raw) else raw
            self._crc = crc32(stored, self._crc)
            blocks += _BLOCK.pack(len(raw), len(stored), self._crc), stored
        data = b"".join(blocks)
        self.file.pwrite(data, self._end)
        self._end += len(data)
        self._state_bytes += len(piece)

    def finish(self) -> SnapshotInfo:
        """Write the head and make everything durable."""
        index, term, (brought_at, roster) = self.info.index, self.info.term, self.info.configuration
        rest = _HEAD.pack(
            _MAGIC, 0, index, term, self.cluster_id, self._state_bytes, self._end, self._crc,
            brought_at, len(roster),
        )[_CRC_FROM:]  # fmt: skip
        rest += roster
        self.file.pwrite(_MAGIC + _checksum(rest).to_bytes(4, "little") + rest, 0)
        self.file.sync()
        return SnapshotInfo(
            index, term, self.info.name, self._end, self.info.configuration, self._state_bytes
        )


def read_head(file: File, cluster_id: bytes | None) -> SnapshotInfo:
    """What a file says it is, under the name it has.

    Raises `CorruptLogError` if the head is damaged, has another format, or the file has another
    length, and `WrongClusterError` unless it is of ``cluster_id`` (None: of any cluster).
    """
    head = file.pread(_HEAD.size, 0)
    _, crc, index, term, cluster, state, size, _, brought_at, length = _HEAD.unpack(
        head.ljust(_HEAD.size, b"\0")
    )
    roster = file.pread(min(length, _CONFIGURATION_MAX), _HEAD.size)
    # With a sound rest, another version's digits are a bit that rotted.
    sound = crc == _checksum(head[_CRC_FROM:] + roster)
    if head[:6] == _MAGIC[:6] and head[:8] != _MAGIC and not sound:
        raise CorruptLogError(
            f"{file.path} has format {head[6:8].decode(errors='replace')}, this version of "
            f"Copycat reads only {_MAGIC[6:].decode()}",
            segment=file.path,
            hint="run the version that wrote it",
        )
    if head[:8] != _MAGIC or not sound or size != file.size():
        raise damaged(file.path)
    if cluster_id is not None and cluster != cluster_id:
        raise WrongClusterError(
            f"{file.path} is a snapshot of cluster {cluster.hex()}, not of {cluster_id.hex()}",
            hint="give each member a data directory of its own",
        )
    return SnapshotInfo(index, term, file.path, size, (brought_at, roster), state)


def _checksum(rest: bytes) -> int:
    return crc32(rest, crc32(_MAGIC))


def cluster_of(file: File) -> bytes:
    """The cluster id in a head that `read_head` has read."""
    return bytes(_HEAD.unpack(file.pread(_HEAD.size, 0))[4])


def read_blocks(file: File, *, unpack: bool = True) -> Iterator[bytes]:
    """The state of a file whose head is whole, block by block; each is verified.

    Without ``unpack`` they are only verified, and yielded as they are stored. Raises
    `CorruptLogError` at the first that is damaged.
    """
    head = _HEAD.unpack(file.pread(_HEAD.size, 0))
    left, end, last, length = head[5], head[6], head[7], head[9]
    at, crc = _HEAD.size + length, 0
    while at < end:
        fields = file.pread(_BLOCK.size, at)
        if len(fields) < _BLOCK.size:
            raise damaged(file.path, at)
        raw, stored, expected = _BLOCK.unpack(fields)
        if not 0 < stored <= raw <= min(left, BLOCK_BYTES):
            raise damaged(file.path, at)
        data = file.pread(stored, at + _BLOCK.size)
        crc = crc32(data, crc)
        if len(data) < stored or crc != expected:
            raise damaged(file.path, at)
        if unpack and stored < raw:
            try:
                data = lz4.block.decompress(data, uncompressed_size=raw)
            except lz4.block.LZ4BlockError as problem:
                raise damaged(file.path, at) from problem
            if len(data) != raw:
                raise damaged(file.path, at)
        yield data
        at += _BLOCK.size + stored
        left -= raw
    if left or crc != last or at != end:
        raise damaged(file.path, at)


def verify(file: File, cluster_id: bytes | None) -> SnapshotInfo:
    """Read all of it; raises as `read_head` and `read_blocks` do."""
    info = read_head(file, cluster_id)
    for _ in read_blocks(file, unpack=False):
        pass
    return info


def damaged(path: str, offset: int = 0) -> CorruptLogError:
    """The error for a file that is not what was written."""
    return CorruptLogError(
        f"the snapshot {path} is damaged",
        segment=path,
        offset=offset,
        hint="remove this member's data directory and let it rejoin empty: the others have "
        "the state; a member that is alone needs its backup",
    )
