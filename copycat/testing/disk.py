"""The simulated disk: the Disk door over memory, in virtual time, with crashes and faults.

`SimulatedDisk` outlives processes; `SimulatedDisk.mount` gives each life of one a door of its own,
which is dead for ever when that life ends, whatever its leftovers still try. Used as a door itself
it serves whichever life is on. It never sleeps and never touches the real disk. What survives is
decided in `medium`, what fails and who dies in `device`, when jobs run in `disk_lanes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DataDirectoryInUse, DiskFullError, StorageError
from ..ports import Random
from .device import Device
from .disk_lanes import FAST, SLOW, STALLING, Crashed, Done, Lanes, Latency, Schedule
from .medium import SECTOR_BYTES, BitFlip, Content

__all__ = [
    "FAST",
    "SECTOR_BYTES",
    "SLOW",
    "STALLING",
    "BitFlip",
    "Crashed",
    "Latency",
    "Mount",
    "SimulatedDisk",
    "SimulatedFile",
]


class SimulatedFile:
    """An open file; several may be open on the same content. It belongs to one life."""

    def __init__(self, mount: Mount, path: str, content: Content) -> None:
        self.path = path
        self._mount = mount
        self._device = mount.device
        self._life = mount.device.life
        self._content = content
        self._open = True
        self._sync_failed = False
        content.handles += 1

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of ``data``; it is visible at once and durable after `sync`.

        A crash leaves a first part, a full disk what fits.
        """
        self._check()
        content, size = self._content, len(data)
        with self._device.primitive(self._life, "pwrite", self.path) as fraction:
            if fraction < 1.0:
                sectors = int(fraction * (size // SECTOR_BYTES + 2))
                size = min(size, max(0, sectors * SECTOR_BYTES - offset % SECTOR_BYTES))
            try:
                self._device.medium.reserve(content, offset + size)
            except DiskFullError:
                self._device.full()
                room = len(content.data) + self._device.medium.free_bytes - offset
                if room > 0:
                    content.write(data[: min(size, room)], offset)
                raise
            if size:
                content.write(data[:size], offset)

    def pread(self, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes."""
        self._check()
        self._device.look(self._life, "pread", self.path)
        return bytes(self._content.data[offset : offset + size])

    def sync(self) -> None:
        """Make everything written durable. Once it failed, it fails for good."""
        self._check()
        if self._sync_failed:
            self._device.check_alive(self._life)
            raise StorageError(f"{self.path}: an earlier sync failed")
        random = self._device.random
        try:
            with self._device.primitive(self._life, "sync", self.path) as fraction:
                self._content.sync(random, fraction)
        except StorageError:
            self._sync_failed = True
            self._content.fail_sync(random)
            raise

    def allocate(self, size: int) -> None:
        """Zeros up to ``size``, durable together with the name; all of them or none, but for a
        crash."""
        self._check()
        device, content = self._device, self._content
        with device.primitive(self._life, "allocate", self.path) as fraction:
            try:
                device.medium.reserve(content, size)
            except DiskFullError:
                device.full()
                raise
            size = int(fraction * size)
            old = min(len(content.data), size)
            if old:
                content.write(bytes(old), 0)
            content.grow(size)
            if fraction == 1.0:
                content.sync(device.random)
        self._mount.sync_directory(self.path.rpartition("/")[0])

    def size(self) -> int:
        """The length a reader sees."""
        self._check()
        return len(self._content.data)

    def view(self) -> memoryview:
        """The whole file, as it is at any later time (files that are viewed do not grow)."""
        self._check()
        return memoryview(self._content.data).toreadonly()

    def close(self) -> None:
        """Nothing can be done with it any more; slices of its view stay."""
        if self._open:
            self._open = False
            if self._device.life == self._life:
                self._device.medium.closed(self._content)
                self._mount.forget(self)

    def _check(self) -> None:
        if not self._open:
            raise StorageError(f"{self.path} is closed")
        self._device.check_alive(self._life)


class Mount:
    """The Disk door of one life; of whichever life is on, if ``life`` is None."""

    def __init__(self, device: Device, life: int | None, schedule: Schedule | None) -> None:
        self.device = device
        self._bound = life
        self._schedule = schedule
        self._lanes: tuple[int, Lanes] | None = None
        self._files: dict[SimulatedFile, None] = {}
        self._closed = False

    def _alive(self) -> int:
        """The life that this serves, if it lasts."""
        life = self.device.life if self._bound is None else self._bound
        self.device.check_alive(life)
        if self._closed:
            raise StorageError("the simulated directory is closed")
        return life

    def open(self, name: str, *, create: bool = False) -> SimulatedFile:
        """Open a file; ``create`` makes it if it is missing."""
        self.device.look(self._alive(), "open", name)
        medium = self.device.medium
        if create and name not in medium.names:
            with self.device.primitive(self._alive(), "create", name) as fraction:
                if fraction > 0.5:
                    medium.create(name)
        file = SimulatedFile(self, name, medium.find(name))
        if self._bound is not None:
            self._files[file] = None
        return file

    def exists(self, name: str) -> bool:
        """Whether a file of that name, or a directory with something in it or made, is seen."""
        self._alive()
        medium = self.device.medium
        return name in medium.names or name in medium.directories or bool(self.listdir(name))

    def listdir(self, name: str) -> list[str]:
        """The names of the files directly within a directory, sorted."""
        self._alive()
        prefix = f"{name}/" if name else ""
        return sorted(
            path[len(prefix) :]
            for path in self.device.medium.names
            if path.startswith(prefix) and "/" not in path[len(prefix) :]
        )

    def makedirs(self, name: str) -> None:
        """Make a directory, durably. (Files may also be created without.)"""
        with self.device.primitive(self._alive(), "makedirs", name) as fraction:
            if fraction > 0.5:
                self.device.medium.directories[name] = None

    def rename(self, old: str, new: str) -> None:
        """Rename a file, replacing what was there; one step, durable after `sync_directory`."""
        self._alive()
        self.device.medium.find(old)
        with self.device.primitive(self._alive(), "rename", old) as fraction:
            if fraction > 0.5:
                self.device.medium.rename(old, new)

    def unlink(self, name: str) -> None:
        """Remove a name; durable after `sync_directory`."""
        self._alive()
        self.device.medium.find(name)
        with self.device.primitive(self._alive(), "unlink", name) as fraction:
            if fraction > 0.5:
                self.device.medium.unlink(name)

    def sync_directory(self, name: str) -> None:
        """Make the names within a directory durable."""
        with self.device.primitive(self._alive(), "sync_directory", name) as fraction:
            self.device.medium.sync_directory(name, self.device.random, fraction)

    def free_bytes(self) -> int:
        """What is left of the capacity."""
        return self.device.medium.free_bytes

    def on_tmpfs(self) -> bool:
        """False: what is synced survives."""
        return False

    def lock(self) -> None:
        """Take the directory until `close` or the end of this life."""
        self._alive()
        if self.device.holder not in (None, self):
            raise DataDirectoryInUse("the simulated directory is used by another process")
        self.device.holder = self

    def submit(
        self,
        lane: str,
        job: Callable[[], Any],
        done: Done,
        *,
        size: int = 0,
    ) -> None:
        """Run ``job`` on its lane, at once if there is no schedule; then ``done``.

        A job in which the process dies never ends: `Crashed` leaves `submit` if the job ran inside,
        and otherwise nobody is told but ``on_crash``.
        """
        life = self._alive()
        if self._lanes is None or self._lanes[0] != life:
            device = self.device
            lanes = Lanes(
                self._schedule, lambda: device.latency, device.random, lambda: device.lasts(life)
            )
            self._lanes = life, lanes
        self._lanes[1].submit(lane, job, done, size)

    def close(self) -> None:
        """Let queued jobs end, at once; release the lock, close every file. What was written stays.

        A door that is bound to no life goes on, with its files, for whoever uses it next.
        """
        if self._closed or not self.device.lasts(self._bound or self.device.life):
            return
        life = self._alive()
        if self._lanes is not None and self._lanes[0] == life:
            self._lanes[1].drain()
            self._lanes = None
        for file in list(self._files):
            file.close()
        if self.device.holder is self:
            self.device.holder = None
        self._closed = self._bound is not None

    def forget(self, file: SimulatedFile) -> None:
        """The file closed itself."""
        self._files.pop(file, None)


class SimulatedDisk(Device, Mount):
    """A data directory in memory that crashes and fails as told.

    Args:
        capacity_bytes: what all files together may hold; may be changed later.
        random: for durations, torn writes and injected faults.
        schedule: when given, jobs take virtual time: ``schedule(delay_s, callback)``.
        latency: how long they take.
    """

    def __init__(
        self,
        *,
        capacity_bytes: int = 1 << 40,
        random: Random | None = None,
        schedule: Schedule | None = None,
        latency: Latency = FAST,
    ) -> None:
        Device.__init__(self, capacity_bytes=capacity_bytes, random=random, latency=latency)
        Mount.__init__(self, self, None, schedule)

    def mount(self, schedule: Schedule | None = None) -> Mount:
        """The door for a process that starts now; dead when this life ends."""
        return Mount(self, self.life, schedule)
