"""A Disk door without a disk: files are byte arrays that live as long as this object.

Keep the object to let a member "restart" from it. Log jobs run at once, background jobs in a later
turn of the loop; nothing ever waits for hardware and nothing survives the process. It models no
power cut: what is written is there, synced or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from ..errors import DataDirectoryInUse, DiskFullError, MisuseError, StorageError

T = TypeVar("T")


class MemoryFile:
    """One open file; several may be open on the same bytes."""

    def __init__(self, disk: MemoryDisk, path: str, data: bytearray) -> None:
        self.path = path
        self._disk = disk
        self._data = data
        self._open = True

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        self._check()
        content = self._data
        end = offset + len(data)
        if end > len(content):
            self._disk.take(end - len(content), self.path)
            if offset > len(content):
                content.extend(bytes(offset - len(content)))
        content[offset:end] = data

    def pread(self, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes at ``offset``."""
        self._check()
        return bytes(self._data[offset : offset + size])

    def sync(self) -> None:
        """Nothing to do."""
        self._check()

    def allocate(self, size: int) -> None:
        """Fill ``size`` bytes with zeros."""
        self.pwrite(bytes(size), 0)

    def size(self) -> int:
        """The file's length in bytes."""
        return len(self._data)

    def view(self) -> memoryview:
        """A read-only view of the whole file; while it lives, the file cannot grow."""
        self._check()
        return memoryview(self._data).toreadonly()

    def close(self) -> None:
        """Close it."""
        self._open = False

    def _check(self) -> None:
        if not self._open:
            raise StorageError(f"{self.path} is closed")


class MemoryDisk:
    """A data directory in memory; ``capacity`` in bytes limits all its files together."""

    def __init__(self, *, capacity: int | None = None) -> None:
        self.root = "memory"
        self._files: dict[str, bytearray] = {}
        self._directories: set[str] = {""}
        self._capacity = capacity
        self._locked = False
        self._life = 0  # rises with every close: jobs of an earlier life are dropped

    def open(self, name: str, *, create: bool = False) -> MemoryFile:
        """Open a file; ``create`` makes it if it is not there."""
        path = self._path(name, "open")
        if name not in self._files:
            if not create:
                problem = FileNotFoundError(f"cannot open {path}: no such file")
                raise StorageError(str(problem)) from problem
            self._files[name] = bytearray()
        return MemoryFile(self, path, self._files[name])

    def exists(self, name: str) -> bool:
        """Whether a file or directory of that name is there."""
        _check_name(name)
        return name in self._files or name in self._directories

    def listdir(self, name: str) -> list[str]:
        """The names in a directory, sorted; ``""`` is the data directory itself."""
        if name not in self._directories:
            raise StorageError(f"cannot list {self.root}/{name}: no such directory")
        prefix = f"{name}/" if name else ""
        known = [*self._files, *self._directories]
        inside = [path.removeprefix(prefix) for path in known if path.startswith(prefix)]
        return sorted({path for path in inside if path and "/" not in path})

    def makedirs(self, name: str) -> None:
        """Make a directory and those above it."""
        _check_name(name)
        parts = name.split("/")
        self._directories.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what has it."""
        path = self._path(old, "rename")
        self._path(new, "rename to")
        if old not in self._files:
            raise StorageError(f"cannot rename {path}: no such file")
        self._files[new] = self._files.pop(old)

    def unlink(self, name: str) -> None:
        """Remove a file; those who have it open keep it."""
        path = self._path(name, "remove")
        if self._files.pop(name, None) is None:
            raise StorageError(f"cannot remove {path}: no such file")

    def sync_directory(self, name: str) -> None:
        """Nothing to do."""

    def free_bytes(self) -> int:
        """What is left of the capacity."""
        if self._capacity is None:
            return 1 << 40
        return self._capacity - sum(map(len, self._files.values()))

    def take(self, size: int, path: str) -> None:
        """Check that ``size`` more bytes fit."""
        free = self.free_bytes()
        if size > free:
            raise DiskFullError(f"cannot write {path}: no space left ({free} bytes free)")

    def lock(self) -> None:
        """Take the directory; only one member may have it."""
        if self._locked:
            raise DataDirectoryInUse(f"{self.root} is used by another member of this process")
        self._locked = True

    def on_tmpfs(self) -> bool:
        """True: nothing here survives."""
        return True

    def submit(
        self,
        lane: str,
        job: Callable[[], T],
        done: Callable[[T | None, BaseException | None], None],
        *,
        size: int = 0,
    ) -> None:
        """Run a log job now, a background job in a later turn of the running loop."""
        if lane == "log":
            self._run(self._life, job, done)
        elif lane == "background":
            asyncio.get_running_loop().call_soon(self._run, self._life, job, done)
        else:
            raise MisuseError(f"there is no lane {lane!r}; known: log, background")

    def close(self) -> None:
        """Release the lock; the files stay for the next member that uses this object."""
        self._locked = False
        self._life += 1

    def _run(
        self,
        life: int,
        job: Callable[[], T],
        done: Callable[[T | None, BaseException | None], None],
    ) -> None:
        if life != self._life:
            return
        try:
            result = job()
        except Exception as error:  # whoever gave the job decides
            done(None, error)
        else:
            done(result, None)

    def _path(self, name: str, operation: str) -> str:
        _check_name(name)
        path = f"{self.root}/{name}"
        if name.rpartition("/")[0] not in self._directories:
            raise StorageError(f"cannot {operation} {path}: no such directory")
        return path


def _check_name(name: str) -> None:
    if any(part in ("", ".", "..") or "\0" in part for part in name.split("/")):
        raise MisuseError(f"{name!r} is not a name inside a data directory")
