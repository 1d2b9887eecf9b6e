"""A disk that forgets what was not synced: the Disk door over memory, with crashes.

Each file has what a reader sees and what would survive; they differ by dirty 512-byte sectors and
by names not synced in their directory. `SimulatedDisk.crash` keeps a random subset of the dirty
sectors and a random prefix of the directory changes, as a real disk may (torn and reordered
writes). Chance comes from outside; nothing sleeps or touches the real disk.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import DiskFullError, StorageError
from ..ports import Random

SECTOR_BYTES = 512


class _Content:
    """A file's bytes, apart from its names."""

    __slots__ = ("data", "dirty", "durable")

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.dirty: set[int] = set()  # sectors of ``data`` that ``durable`` lacks

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.data):
            # A bytearray with views cannot grow in place; whoever holds a view keeps the old one.
            grown = bytearray(end)
            grown[: len(self.data)] = self.data
            self.data = grown
        self.data[offset:end] = data
        self.dirty.update(range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)))

    def sync(self) -> None:
        self._keep(self.dirty)
        self.dirty.clear()

    def crash(self, random: Random) -> None:
        """Lose a random subset of what was not synced."""
        odds = random.choice((0.0, 0.5, 1.0))
        self._keep({sector for sector in sorted(self.dirty) if random.random() < odds})
        self.data = bytearray(self.durable)
        self.dirty.clear()

    def _keep(self, sectors: set[int]) -> None:
        for sector in sorted(sectors):
            at = sector * SECTOR_BYTES
            piece = self.data[at : at + SECTOR_BYTES]
            if at + len(piece) > len(self.durable):
                self.durable.extend(bytes(at + len(piece) - len(self.durable)))
            self.durable[at : at + len(piece)] = piece


class SimulatedFile:
    """An open file of a `SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, path: str, content: _Content) -> None:
        self.path = path
        self._disk = disk
        self._content = content

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of ``data``; it is visible at once and durable after `sync`."""
        self._disk.check("pwrite", self.path)
        self._disk.reserve(max(0, offset + len(data) - len(self._content.data)))
        self._content.write(data, offset)

    def pread(self, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes."""
        self._disk.check("pread", self.path)
        return bytes(self._content.data[offset : offset + size])

    def sync(self) -> None:
        """Make everything written durable."""
        self._disk.check("sync", self.path)
        self._content.sync()

    def allocate(self, size: int) -> None:
        """Zeros up to ``size``, durable together with the name."""
        self.pwrite(bytes(size), 0)
        self.sync()
        self._disk.sync_directory(self.path.rpartition("/")[0])

    def size(self) -> int:
        """The length a reader sees."""
        return len(self._content.data)

    def view(self) -> memoryview:
        """The whole file, as it is at any later time (files that are viewed do not grow)."""
        return memoryview(self._content.data).toreadonly()

    def close(self) -> None:
        """Nothing to release."""


class SimulatedDisk:
    """A data directory in memory. ``capacity_bytes`` bounds it; ``fail`` may inject errors."""

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        self._names: dict[str, _Content] = {}
        self._durable_names: dict[str, _Content] = {}
        self._changes: list[tuple[str, str, _Content | None]] = []  # (directory, name, content)
        self._used = 0
        self.capacity_bytes = capacity_bytes
        self.fail: Callable[[str, str], OSError | None] = lambda operation, path: None

    # -- the Disk door -------------------------------------------------------------------------

    def open(self, name: str, *, create: bool = False) -> SimulatedFile:
        """Open a file; ``create`` makes it if it is missing."""
        self.check("open", name)
        content = self._names.get(name)
        if content is None:
            if not create:
                raise FileNotFoundError(name)
            content = _Content()
            self._change(name, content)
        return SimulatedFile(self, name, content)

    def exists(self, name: str) -> bool:
        """Whether a file of that name is seen."""
        return name in self._names

    def listdir(self, name: str) -> list[str]:
        """The names directly within a directory, sorted."""
        prefix = f"{name}/" if name else ""
        return sorted(
            path[len(prefix) :]
            for path in self._names
            if path.startswith(prefix) and "/" not in path[len(prefix) :]
        )

    def makedirs(self, name: str) -> None:
        """Directories need no making here."""

    def rename(self, old: str, new: str) -> None:
        """Rename a file, replacing what was there; durable after `sync_directory`."""
        self.check("rename", old)
        content = self._names[old]
        self._change(old, None)
        self._change(new, content)

    def unlink(self, name: str) -> None:
        """Remove a name; durable after `sync_directory`."""
        self.check("unlink", name)
        if name not in self._names:
            raise FileNotFoundError(name)
        self._used -= len(self._names[name].data)
        self._change(name, None)

    def sync_directory(self, name: str) -> None:
        """Make the names within a directory durable."""
        self.check("sync_directory", name)
        rest = []
        for change in self._changes:
            if change[0] == name:
                self._apply(change)
            else:
                rest.append(change)
        self._changes = rest

    def free_bytes(self) -> int:
        """What is left of the capacity."""
        return max(0, self.capacity_bytes - self._used)

    def lock(self) -> None:
        """Nobody else can reach it."""

    def submit(
        self,
        lane: str,
        job: Callable[[], object],
        done: Callable[[object, BaseException | None], None],
        *,
        size: int = 0,
    ) -> None:
        """Run a job at once; whoever simulates latency runs jobs by itself instead."""
        try:
            result = job()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)

    def close(self) -> None:
        """What was written stays, as after any orderly end of a process."""

    # -- faults --------------------------------------------------------------------------------

    def crash(self, random: Random) -> None:
        """The power fails: of what was not synced, a random part survives."""
        for change in self._changes[: random.randint(0, len(self._changes))]:
            self._apply(change)
        self._changes.clear()
        self._names = dict(self._durable_names)
        for name in sorted(self._names):
            self._names[name].crash(random)
        self._used = sum(len(content.data) for content in self._names.values())

    def check(self, operation: str, path: str) -> None:
        """Raise the error that the test injects here, if any."""
        error = self.fail(operation, path)
        if error is not None:
            raise StorageError(f"{operation} of {path} failed: {error}") from error

    def reserve(self, size: int) -> None:
        """Take ``size`` bytes from the capacity or raise `DiskFullError`."""
        if self._used + size > self.capacity_bytes:
            raise DiskFullError(f"no space for {size} bytes, {self.free_bytes()} are free")
        self._used += size

    def _change(self, name: str, content: _Content | None) -> None:
        self._changes.append((name.rpartition("/")[0], name, content))
        if content is None:
            self._names.pop(name, None)
        else:
            self._names[name] = content

    def _apply(self, change: tuple[str, str, _Content | None]) -> None:
        _, name, content = change
        if content is None:
            self._durable_names.pop(name, None)
        else:
            self._durable_names[name] = content
