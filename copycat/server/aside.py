"""What was damaged, kept until nobody can miss it any more: the ``damaged`` directory of a member.

A member that goes on without a part of its log cuts it off (`Store`). Should the others turn out
not to have it, somebody may want what is left. Methods block: they are called from jobs or at
start.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..ports import Disk, File

DIRECTORY = "damaged"
_PIECE_BYTES = 1 << 20


class Aside:
    """Copies of damaged files. Nothing in it is ever read again by Copycat."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def put(self, segments: Iterable[File], others: Iterable[str]) -> None:
        """Copy ``segments`` and move the ``others``, durably. Raises `DiskFullError`."""
        disk = self._disk
        disk.makedirs(DIRECTORY)
        for file in segments:
            self._copy(file)
        for name in others:
            moved = disk.open(name)
            try:
                self._copy(moved)
            finally:
                moved.close()
            disk.unlink(name)
            disk.sync_directory(name.rpartition("/")[0])

    def _copy(self, file: File) -> None:
        target = self._disk.open(self._free_name(file.path), create=True)
        try:
            at = 0
            while piece := file.pread(_PIECE_BYTES, at):
                target.pwrite(piece, at)
                at += len(piece)
            target.sync()
        finally:
            target.close()
        self._disk.sync_directory(DIRECTORY)

    def clear(self) -> None:
        """Remove everything."""
        if self._disk.exists(DIRECTORY):
            for name in self._disk.listdir(DIRECTORY):
                self._disk.unlink(f"{DIRECTORY}/{name}")

    def _free_name(self, path: str) -> str:
        name, number = path.rpartition("/")[2], 0
        while self._disk.exists(f"{DIRECTORY}/{name}.{number}"):
            number += 1
        return f"{DIRECTORY}/{name}.{number}"
