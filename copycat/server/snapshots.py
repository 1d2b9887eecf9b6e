"""The snapshots of one member: the applied state at one index each, published by rename.

A snapshot exists once it has its final name and the directory is synced; whatever is found under a
temporary name at start is rubbish of a crash and removed (H65). An older snapshot goes only after
the newer one is durable. Methods block: they are called from jobs or at start. What is in a file:
`snapshot_file`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..errors import CopycatError, CorruptLogError, DiskFullError
from ..ports import Disk, File
from .snapshot_file import FOUNDED, SnapshotInfo, Writer, read_blocks, read_head, verify

DIRECTORY = "snapshots"
INCOMING = f"{DIRECTORY}/incoming.tmp"

__all__ = ["DIRECTORY", "FOUNDED", "SnapshotInfo", "Snapshots"]


class Snapshots:
    """The ``snapshots`` directory of one member."""

    def __init__(self, disk: Disk, cluster_id: bytes) -> None:
        self._disk = disk
        self._cluster_id = cluster_id
        self._kept: frozenset[str] = frozenset()
        disk.makedirs(DIRECTORY)

    def newest(self, damaged: list[str] | None = None) -> SnapshotInfo | None:
        """The newest snapshot, verified; removes what a crash left behind.

        One that is damaged is passed over if there is a list to take its name; else that raises
        `CorruptLogError`. Raises `WrongClusterError`.
        """
        names = self._disk.listdir(DIRECTORY)
        for name in names:
            if name.endswith(".tmp"):
                self._disk.unlink(f"{DIRECTORY}/{name}")
        for name in sorted((name for name in names if name.endswith(".snap")), reverse=True):
            path = f"{DIRECTORY}/{name}"
            # A killed process may have renamed it and not synced the directory: the log it replaces
            # is dropped only when its name is durable.
            file = self._disk.open(path)
            try:
                info = replace(verify(file, self._cluster_id), name=path)
                file.sync()
            except CorruptLogError:
                if damaged is None:
                    raise
                damaged.append(path)
                continue
            finally:
                file.close()
            self._disk.sync_directory(DIRECTORY)
            self.remove_before(info.index)
            return info
        return None

    def state(self, info: SnapshotInfo) -> Iterator[bytes]:
        """The state in a snapshot's file, piece by piece, each verified."""
        file = self._disk.open(info.name)
        try:
            yield from read_blocks(file)
        finally:
            file.close()

    def begin(self, index: int, term: int, configuration: tuple[int, bytes] = FOUNDED) -> Saving:
        """Begin a snapshot; nothing exists before `Saving.finish`."""
        return Saving(self, self._disk, self._cluster_id, index, term, configuration)

    def save(
        self, index: int, term: int, body: bytes, configuration: tuple[int, bytes] = FOUNDED
    ) -> SnapshotInfo:
        """Make a snapshot of one piece durable and drop the older ones."""
        saving = self.begin(index, term, configuration)
        saving.add(body)
        return saving.finish()

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
                verify(file, self._cluster_id)
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

    def accept(self) -> tuple[SnapshotInfo, list[bytes]]:
        """Verify what was received, make it durable, and return it with its state (H71)."""
        file = self._disk.open(INCOMING)
        try:
            info = read_head(file, self._cluster_id)
            pieces = list(read_blocks(file))
            file.sync()
        finally:
            file.close()
        return self.publish(INCOMING, info), pieces

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

    def publish(self, temporary: str, info: SnapshotInfo) -> SnapshotInfo:
        """Give a file that is durable its final name; older snapshots go."""
        name = f"{DIRECTORY}/{info.index:020d}-{info.term:020d}.snap"
        self._disk.rename(temporary, name)
        self._disk.sync_directory(DIRECTORY)
        self.remove_before(info.index)
        return replace(info, name=name)


class Saving:
    """A snapshot that is being written, under a temporary name: `add` pieces, then `finish`.

    If either raises, the file is gone again: a full disk needs the space.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        disk: Disk,
        cluster_id: bytes,
        index: int,
        term: int,
        configuration: tuple[int, bytes],
    ) -> None:
        self._snapshots = snapshots
        self._disk = disk
        self._name = f"{DIRECTORY}/{index:020d}.tmp"
        self._info = SnapshotInfo(index, term, self._name, 0, configuration)
        self._cluster_id = cluster_id
        self._writer: Writer | None = None

    def add(self, piece: bytes) -> None:
        """Write the next bytes of the state."""
        with self._or_nothing():
            self._open().add(piece)

    def finish(self) -> SnapshotInfo:
        """Make the snapshot durable and drop the older ones."""
        with self._or_nothing():
            writer = self._open()
            info = writer.finish()
        self._close()
        return self._snapshots.publish(self._name, info)

    def abandon(self) -> None:
        """It will not be finished: remove what was written."""
        if self._writer is not None:
            self._close()
            with contextlib.suppress(CopycatError, OSError):
                self._disk.unlink(self._name)

    def _open(self) -> Writer:
        if self._writer is None:
            if self._disk.exists(self._name):
                self._disk.unlink(self._name)  # of an attempt that failed
            file: File = self._disk.open(self._name, create=True)
            self._writer = Writer(file, self._info, self._cluster_id)
        return self._writer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.file.close()
            self._writer = None

    @contextlib.contextmanager
    def _or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abandon()
            raise
