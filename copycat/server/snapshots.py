"""Snapshot files: the applied state at one index, checksummed, published by rename.

A snapshot exists once it has its final name and the directory is synced; whatever is found under a
temporary name at start is rubbish of a crash and removed (H65). An older snapshot goes only after
the newer one is durable. Methods block: they are called from jobs or at start.

File, little-endian::

     0   8 magic b"CCSNAP04"
     8   4 crc32 of bytes [12, end)
    12   8 index
    20   8 term
    28   8 length of the body
    36  16 cluster id
    52   8 index of the entry that brought the configuration in force; 0: it was founded
    60   4 length of the configuration
    64   - the configuration (layout.py); nothing, if it was founded and never changed
     .   - body: `Applier.image`
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .._core.kernel import crc32
from ..errors import CopycatError, CorruptLogError, DiskFullError, WrongClusterError
from ..ports import Disk, File

DIRECTORY = "snapshots"
INCOMING = f"{DIRECTORY}/incoming.tmp"

_MAGIC = b"CCSNAP04"
_HEAD = struct.Struct("<8sIQQQ16sQI")
_CRC_FROM = 12
_PIECE_BYTES = 1 << 20


FOUNDED = (0, b"")
"""The configuration of a cluster whose members never changed."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """Which snapshot: the last index and term it stands for, its file, the file's size.

    ``configuration`` is the one in force there: the index that brought it, and its encoding.
    """

    index: int
    term: int
    name: str
    size: int
    configuration: tuple[int, bytes] = FOUNDED


class Snapshots:
    """The ``snapshots`` directory of one member."""

    def __init__(self, disk: Disk, cluster_id: bytes) -> None:
        self._disk = disk
        self._cluster_id = cluster_id
        self._kept: frozenset[str] = frozenset()
        disk.makedirs(DIRECTORY)

    def newest(self) -> tuple[SnapshotInfo, bytes] | None:
        """The newest snapshot and its body; removes what a crash left behind.

        Raises `CorruptLogError` if the newest one is damaged, and `WrongClusterError`.
        """
        names = self._disk.listdir(DIRECTORY)
        for name in names:
            if name.endswith(".tmp"):
                self._disk.unlink(f"{DIRECTORY}/{name}")
        whole = sorted(name for name in names if name.endswith(".snap"))
        if not whole:
            return None
        path = f"{DIRECTORY}/{whole[-1]}"
        info, body = self._parse(path, self._read(path))
        # A killed process may have renamed it and not synced the directory: the log it replaces is
        # dropped only when its name is durable.
        file = self._disk.open(path)
        try:
            file.sync()
        finally:
            file.close()
        self._disk.sync_directory(DIRECTORY)
        self.remove_before(info.index)
        return info, body

    def save(
        self, index: int, term: int, body: bytes, configuration: tuple[int, bytes] = FOUNDED
    ) -> SnapshotInfo:
        """Make a snapshot durable and drop the older ones."""
        brought_at, roster = configuration
        rest = _HEAD.pack(
            _MAGIC, 0, index, term, len(body), self._cluster_id, brought_at, len(roster)
        )[_CRC_FROM:]
        crc = crc32(body, crc32(roster, crc32(rest)))
        data = b"".join((_MAGIC, crc.to_bytes(4, "little"), rest, roster, body))
        temporary = f"{DIRECTORY}/{index:020d}.tmp"
        if self._disk.exists(temporary):
            self._disk.unlink(temporary)  # of an attempt that failed
        file = self._disk.open(temporary, create=True)
        try:
            file.pwrite(data, 0)
            file.sync()
        except BaseException:
            with contextlib.suppress(CopycatError, OSError):  # a full disk needs the space
                self._disk.unlink(temporary)
            raise
        finally:
            file.close()
        return self._publish(temporary, SnapshotInfo(index, term, "", len(data), configuration))

    def read(
        self, info: SnapshotInfo, offset: int, size: int, *, check: bool = False
    ) -> bytes | None:
        """A piece of a snapshot's file; None if a newer snapshot has replaced it.

        With ``check`` the whole file is verified first; raises `CorruptLogError` if it rotted.
        """
        if not self._disk.exists(info.name):
            return None
        file = self._disk.open(info.name)
        try:
            if check:
                _verify(file)
            return file.pread(size, offset)
        finally:
            file.close()

    def keep(self, names: Iterable[str]) -> None:
        """Drop none of these files, though newer snapshots are there: somebody reads them."""
        self._kept = frozenset(names)

    def receive(self, offset: int, data: bytes, total: int) -> None:
        """Write a piece of a snapshot that comes from the leader; offset 0 starts anew.

        Raises `DiskFullError` at once if there is no space for its ``total`` bytes.
        """
        if offset == 0:
            self.discard()
            free = self._disk.free_bytes()
            if free < total:
                raise DiskFullError(f"no space for {total} bytes ({free} bytes free)")
        file = self._disk.open(INCOMING, create=True)
        try:
            file.pwrite(data, offset)
        finally:
            file.close()

    def accept(self) -> tuple[SnapshotInfo, bytes]:
        """Verify what was received, make it durable, and return it (H71)."""
        file = self._disk.open(INCOMING)
        try:
            data = file.pread(file.size(), 0)
            info, body = self._parse(INCOMING, data)
            file.sync()
        finally:
            file.close()
        return self._publish(INCOMING, info), body

    def discard(self) -> None:
        """Drop what was received so far."""
        if self._disk.exists(INCOMING):
            self._disk.unlink(INCOMING)

    def remove_before(self, index: int) -> None:
        """Drop the snapshots older than the one at ``index``, except those to `keep`."""
        for name in self._disk.listdir(DIRECTORY):
            path = f"{DIRECTORY}/{name}"
            old = name.endswith(".snap") and int(name.split("-")[0]) < index
            if old and path not in self._kept:
                self._disk.unlink(path)

    def _publish(self, temporary: str, info: SnapshotInfo) -> SnapshotInfo:
        name = f"{DIRECTORY}/{info.index:020d}-{info.term:020d}.snap"
        self._disk.rename(temporary, name)
        self._disk.sync_directory(DIRECTORY)
        self.remove_before(info.index)
        return replace(info, name=name)

    def _read(self, path: str) -> bytes:
        file = self._disk.open(path)
        try:
            return file.pread(file.size(), 0)
        finally:
            file.close()

    def _parse(self, path: str, data: bytes) -> tuple[SnapshotInfo, bytes]:
        if len(data) >= _HEAD.size:
            (
                magic, crc, index, term, length, cluster_id, brought_at, roster_length,
            ) = _HEAD.unpack_from(data)  # fmt: skip
            if magic[:-2] == _MAGIC[:-2] and magic != _MAGIC:
                raise CorruptLogError(
                    f"{path} has format {magic[-2:].decode(errors='replace')}, this version of "
                    f"Copycat reads only {_MAGIC[-2:].decode()}",
                    segment=path,
                    hint="run the version that wrote it",
                )
            if (
                magic == _MAGIC
                and len(data) == _HEAD.size + roster_length + length
                and crc32(memoryview(data)[_CRC_FROM:]) == crc
            ):
                if cluster_id != self._cluster_id:
                    raise WrongClusterError(
                        f"{path} is a snapshot of cluster {cluster_id.hex()}, not of "
                        f"{self._cluster_id.hex()}"
                    )
                begin = _HEAD.size + roster_length
                configuration = (brought_at, data[_HEAD.size : begin])
                return SnapshotInfo(index, term, path, len(data), configuration), data[begin:]
        raise _damaged(path)


def _verify(file: File) -> None:
    """Read it piece by piece: a snapshot may be larger than what should be in memory twice."""
    crc, at = 0, _CRC_FROM
    while piece := file.pread(_PIECE_BYTES, at):
        crc, at = crc32(piece, crc), at + len(piece)
    if crc.to_bytes(4, "little") != file.pread(4, _CRC_FROM - 4):
        raise _damaged(file.path)


def _damaged(path: str) -> CorruptLogError:
    return CorruptLogError(
        f"the snapshot {path} is damaged",
        segment=path,
        hint="remove this member's data directory and let it rejoin empty: the others have "
        "the state; a member that is alone needs its backup",
    )
