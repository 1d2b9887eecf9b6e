"""The real Disk door: one data directory, its files, its lock, and the two threads that work on it.

It owns every descriptor. Names are relative to the directory, never leave it and are never followed
through a symbolic link (H102). It never retries a failed sync (H60), and knows nothing of what the
bytes mean. Errors say which operation failed on which file.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ..errors import (
    ConfigurationError,
    DataDirectoryInUse,
    DiskFullError,
    MisuseError,
    StorageError,
)
from .lanes import Lane, LogLane

T = TypeVar("T")

LOCK = "LOCK"
ZERO_PIECE = 1 << 20

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs", "devtmpfs")


class RealFile:
    """One open file; see `ports.File`. ``path`` is the full path, for messages."""

    def __init__(self, disk: RealDisk, descriptor: int, path: str, parent: str) -> None:
        self.path = path
        self._disk = disk
        self._descriptor = descriptor
        self._parent = parent
        self._map: mmap.mmap | None = None
        self._view: memoryview | None = None
        self._sync_failure: str | None = None

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        try:
            done = os.pwrite(self._descriptor, data, offset)
            if done != len(data):
                self._write_rest(memoryview(data), offset, done)
        except OSError as problem:
            raise self._disk.error("write", self.path, problem) from problem

    def _write_rest(self, data: memoryview, offset: int, done: int) -> None:
        """A short write is no error (H68); one that writes nothing would repeat for ever."""
        while done < len(data):
            count = os.pwrite(self._descriptor, data[done:], offset + done)
            if count == 0:
                raise OSError(errno.EIO, "nothing was written")
            done += count

    def pread(self, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes at ``offset``; shorter only at the end of the file."""
        try:
            data = os.pread(self._descriptor, size, offset)
            if len(data) == size or not data:
                return data
            pieces = [data]
            have = len(data)
            while have < size:
                piece = os.pread(self._descriptor, size - have, offset + have)
                if not piece:
                    break
                pieces.append(piece)
                have += len(piece)
            return b"".join(pieces)
        except OSError as problem:
            raise self._disk.error("read", self.path, problem) from problem

    def sync(self) -> None:
        """Make the data durable. Once it failed, it fails for good: the pages may be lost (H60)."""
        if self._sync_failure is not None:
            raise StorageError(f"{self.path}: an earlier sync failed ({self._sync_failure})")
        if not self._disk.syncs:
            return
        try:
            os.fdatasync(self._descriptor)
        except OSError as problem:
            self._sync_failure = problem.strerror
            raise self._disk.error("sync", self.path, problem) from problem

    def allocate(self, size: int) -> None:
        """Reserve ``size`` bytes, write zeros over all of them, make file and name durable.

        Reserving first lets a full disk say so here, and never later in a write (H61). Zeros are
        written because the first write to a merely reserved block costs a journal commit.
        """
        try:
            before = os.fstat(self._descriptor).st_size
            try:
                os.posix_fallocate(self._descriptor, 0, size)
                zeros = bytes(min(ZERO_PIECE, size))
                for at in range(0, size, ZERO_PIECE):
                    piece = zeros if size - at >= ZERO_PIECE else zeros[: size - at]
                    self._write_rest(memoryview(piece), at, 0)
            except OSError:
                with contextlib.suppress(OSError):  # give back what it took
                    os.ftruncate(self._descriptor, before)
                raise
            if self._disk.syncs:
                os.fsync(self._descriptor)
        except OSError as problem:
            raise self._disk.error("allocate", self.path, problem) from problem
        self._disk.sync_directory(self._parent)

    def size(self) -> int:
        """The file's length in bytes."""
        return os.fstat(self._descriptor).st_size

    def view(self) -> memoryview:
        """A read-only view of the whole file, as long as the file is now."""
        if self._view is None:
            try:
                size = self.size()
                if size == 0:
                    return memoryview(b"")  # an empty file cannot be mapped
                self._map = mmap.mmap(self._descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
            except OSError as problem:
                raise self._disk.error("map", self.path, problem) from problem
            self._view = memoryview(self._map)
        return self._view

    def close(self) -> None:
        """Close it. A mapping of which slices are alive goes when the last of them goes."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        self._disk.forget(self)
        if self._map is not None and self._view is not None:
            with contextlib.suppress(BufferError):
                self._view.release()
                self._map.close()
            self._map = self._view = None
        os.close(descriptor)


class RealDisk:
    """The data directory ``root``, made if it is not there (readable by its owner only).

    Args:
        root: the directory.
        fsync: False makes every sync a no-op: acknowledged writes are lost in a power cut.

    Raises:
        ConfigurationError: ``root`` is a file, or cannot be made.
    """

    def __init__(self, root: str | os.PathLike[str], *, fsync: bool = True) -> None:
        self.root = os.path.abspath(os.fspath(root))
        self.syncs = fsync
        self._files: set[RealFile] = set()
        self._lock_descriptor = -1
        self._root_descriptor = _open_root(self.root)
        self._log_lane = LogLane("copycat-log")
        self._background_lane = Lane("copycat-background")
        self._closed = False

    # -- files ---------------------------------------------------------------------------------

    def open(self, name: str, *, create: bool = False) -> RealFile:
        """Open a file to read and write; ``create`` makes it if it is not there."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        with self._at(name, "open") as (directory, base):
            descriptor = os.open(base, flags, _FILE_MODE, dir_fd=directory)
        parent = name.rpartition("/")[0]
        file = RealFile(self, descriptor, self._full(name), parent)
        self._files.add(file)
        return file

    def exists(self, name: str) -> bool:
        """Whether a file or directory of that name is there."""
        try:
            with self._at(name, "look for") as (directory, base):
                os.stat(base, dir_fd=directory, follow_symlinks=False)
        except StorageError as problem:
            if isinstance(problem.__cause__, FileNotFoundError):
                return False
            raise
        return True

    def listdir(self, name: str) -> list[str]:
        """The names in a directory, sorted; ``""`` is the data directory itself."""
        with self._directory(name, "list") as directory:
            return sorted(os.listdir(directory))

    def makedirs(self, name: str) -> None:
        """Make a directory and those above it, durably."""
        parts = _parts(name)
        for end in range(1, len(parts) + 1):
            path = "/".join(parts[:end])
            if self.exists(path):
                continue
            with self._at(path, "make the directory") as (directory, base):
                os.mkdir(base, _DIRECTORY_MODE, dir_fd=directory)
            self.sync_directory("/".join(parts[: end - 1]))

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what has it; durable after `sync_directory`."""
        with self._at(new, "rename to") as (target, to), self._at(old, "rename") as (source, base):
            os.rename(base, to, src_dir_fd=source, dst_dir_fd=target)

    def unlink(self, name: str) -> None:
        """Remove a file; durable after `sync_directory`."""
        with self._at(name, "remove") as (directory, base):
            os.unlink(base, dir_fd=directory)

    def sync_directory(self, name: str) -> None:
        """Make the names in a directory durable."""
        if self.syncs:
            with self._directory(name, "sync the directory") as directory:
                os.fsync(directory)

    def free_bytes(self) -> int:
        """What is left for files of this user, in bytes."""
        numbers = os.fstatvfs(self._root_descriptor)
        return numbers.f_bavail * numbers.f_frsize

    def on_tmpfs(self) -> bool:
        """Whether the directory lives in memory: nothing in it survives a power cut."""
        device = os.fstat(self._root_descriptor).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/mountinfo").read_text().splitlines():
                mount, _, rest = line.partition(" - ")
                if mount.split()[2] == wanted:
                    return rest.split()[0] in _MEMORY_FILE_SYSTEMS
        return False

    # -- the lock ------------------------------------------------------------------------------

    def lock(self) -> None:
        """Take the directory for this process, until `close` or the process's end (H66)."""
        if self._lock_descriptor >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(LOCK, flags, _FILE_MODE, dir_fd=self._root_descriptor)
        except OSError as problem:
            raise self.error("lock", self._full(LOCK), problem) from problem
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as problem:
            holder = os.pread(descriptor, 32, 0).strip()
            os.close(descriptor)
            raise _in_use(self.root, int(holder) if holder.isdigit() else None) from problem
        except OSError as problem:
            os.close(descriptor)
            raise self.error("lock", self._full(LOCK), problem) from problem
        self._lock_descriptor = descriptor

    # -- jobs ----------------------------------------------------------------------------------

    def submit(
        self,
        lane: str,
        job: Callable[[], T],
        done: Callable[[T | None, BaseException | None], None],
        *,
        size: int = 0,
    ) -> None:
        """Run ``job`` on a lane, then ``done(result, error)`` on the running event loop."""
        if self._closed:
            raise MisuseError(f"the data directory {self.root} is closed")
        loop = asyncio.get_running_loop()
        if lane == "log":
            self._log_lane.submit(loop, job, done, size)
        elif lane == "background":
            self._background_lane.submit(loop, job, done)
        else:
            raise MisuseError(f"there is no lane {lane!r}; known: log, background")

    def close(self) -> None:
        """Let queued jobs end (blocks), then release the lock and close every file.

        Completions that were not delivered yet are dropped.
        """
        if self._closed:
            return
        self._closed = True
        self._log_lane.close()
        self._background_lane.close()
        for file in list(self._files):
            file.close()
        for descriptor in (self._lock_descriptor, self._root_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock_descriptor = self._root_descriptor = -1

    # -- helpers -------------------------------------------------------------------------------

    def forget(self, file: RealFile) -> None:
        """The file closed itself."""
        self._files.discard(file)

    def error(self, operation: str, path: str, problem: OSError) -> StorageError:
        """What to raise for ``problem``: which operation, which file, what to do."""
        reason = problem.strerror or str(problem)
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            free = 0
            with contextlib.suppress(OSError):
                free = self.free_bytes()
            return DiskFullError(
                f"cannot {operation} {path}: no space left ({free} bytes free in {self.root})",
                hint="free some space on that file system; nothing that was acknowledged is lost",
            )
        hint = ""
        if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = (
                f"user id {os.geteuid()} must be able to read and write {self.root} "
                "and everything in it"
            )
        elif problem.errno == errno.ELOOP:
            reason = "it is a symbolic link, which is not followed"
        elif problem.errno in (errno.EMFILE, errno.ENFILE):
            hint = "raise the limit of open files (ulimit -n)"
        return StorageError(f"cannot {operation} {path}: {reason}", hint=hint)

    def _full(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @contextlib.contextmanager
    def _at(self, name: str, operation: str) -> Iterator[tuple[int, str]]:
        """The descriptor of the directory that holds ``name``, and the last part of ``name``."""
        parent, _, base = "/".join(_parts(name)).rpartition("/")
        with self._directory(parent, operation, name) as directory:
            yield directory, base

    @contextlib.contextmanager
    def _directory(self, name: str, operation: str, shown: str | None = None) -> Iterator[int]:
        """A descriptor of the directory ``name``, opened part by part, links refused."""
        descriptor = -1
        try:
            descriptor = os.dup(self._root_descriptor)
            for part in _parts(name) if name else ():
                flags = _OPEN_DIRECTORY | os.O_NOFOLLOW
                inner = os.open(part, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        except OSError as problem:
            if isinstance(problem, StorageError):
                raise
            path = self._full(name if shown is None else shown)
            raise self.error(operation, path, problem) from problem
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise MisuseError(f"{name!r} is not a name inside a data directory")
    return parts


def _open_root(root: str) -> int:
    try:
        if not os.path.isdir(root):
            os.makedirs(root, _DIRECTORY_MODE)
            parent = os.open(os.path.dirname(root), _OPEN_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
        return os.open(root, _OPEN_DIRECTORY)
    except (FileExistsError, NotADirectoryError) as problem:
        raise ConfigurationError(
            f"the data directory {root} cannot be used: {_blocking_file(root)} is a file",
            hint="remove the file, or choose another directory",
        ) from problem
    except OSError as problem:
        raise ConfigurationError(
            f"the data directory {root} cannot be used: {problem.strerror}",
            hint=f"it must be readable and writable for user id {os.geteuid()}",
        ) from problem


def _blocking_file(path: str) -> str:
    """The part of ``path`` that is there and is not a directory."""
    while path != "/":
        with contextlib.suppress(OSError):
            if not stat.S_ISDIR(os.stat(path).st_mode):
                return path
        path = os.path.dirname(path)
    return path


def _in_use(root: str, pid: int | None) -> DataDirectoryInUse:
    if pid == os.getpid():
        holder = f"this very process (pid {pid})"
    elif pid is None:
        holder = "another process"
    else:
        holder = f"pid {pid}{_command(pid)}"
    return DataDirectoryInUse(
        f"{root} is used by {holder}",
        pid=pid,
        hint="one process at a time may be the member; let the others connect to it as clients",
    )


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        text = " ".join(word.decode(errors="replace") for word in words)
        if text:
            return f" ({text[:80]})"
    return ""
