"""The four doors to the outside world: Clock, Network, Disk, Random.

Everything that ticks, travels, persists or is left to chance passes through one of them, so that
the simulator can run the production code on doors of its own. The real ones live in
``server/clock.py``, ``network.py`` and ``server/disk.py``; `node` chooses them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol, TypeVar

from .types import Address

T = TypeVar("T")

Random = random.Random
"""Chance is an explicitly seeded ``random.Random``, handed in; never the module's global one."""


class Clock(Protocol):
    """Time, in seconds. Timers are the event loop's own (``loop.call_at`` on ``loop.time()``)."""

    def now(self) -> float:
        """Monotonic time of this member; never goes back."""

    def suspended_too(self) -> float:
        """Monotonic time that also counts while the machine sleeps (CLOCK_BOOTTIME)."""

    def wall(self) -> float:
        """Seconds since the epoch; may jump; only ever used to label the first log time."""


class Server(Protocol):
    """A listening socket."""

    @property
    def address(self) -> Address:
        """Where it listens; the port is the real one even if 0 was asked for."""

    def close(self) -> None:
        """Stop listening; open connections stay."""


class Network(Protocol):
    """Connections that carry bytes in order, or break."""

    async def listen(
        self, address: Address, factory: Callable[[], asyncio.BufferedProtocol]
    ) -> Server:
        """Listen; raises `ConfigurationError` when the address cannot be used."""

    async def connect(
        self, address: Address, factory: Callable[[], asyncio.BufferedProtocol]
    ) -> tuple[asyncio.Transport, asyncio.BufferedProtocol]:
        """Connect; raises ``ConnectionRefusedError`` when the address refuses, ``OSError`` else."""


class File(Protocol):
    """An open file of the Disk door. Offsets and sizes are in bytes."""

    path: str

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of ``data`` at ``offset``, or raise ``OSError``."""

    def pread(self, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes at ``offset``; shorter only at the end of the file."""

    def sync(self) -> None:
        """Make the file's data durable (fdatasync)."""

    def allocate(self, size: int) -> None:
        """Reserve ``size`` bytes for good, filled with zeros, durable together with the name."""

    def size(self) -> int:
        """The file's length."""

    def view(self) -> memoryview:
        """A read-only view of the whole file as it is at any later time (a shared mapping)."""

    def close(self) -> None:
        """Close it, and its view if no slice of it is alive."""


class Disk(Protocol):
    """A data directory: names relative to its root, synchronous primitives, and two workers.

    The primitives block; call them from a job. ``submit`` runs a job, a callable that uses only
    the primitives, and calls ``done(result, error)`` on the event loop afterwards. Jobs of one
    lane run one at a time and in order: ``"log"`` is the latency lane, ``"background"`` is for
    what takes long (snapshots, preparing segments). A small ``"log"`` job may run inline, inside
    ``submit``; ``done`` may then be called before ``submit`` returns.
    """

    def open(self, name: str, *, create: bool = False) -> File: ...
    def exists(self, name: str) -> bool: ...
    def listdir(self, name: str) -> list[str]: ...
    def makedirs(self, name: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def unlink(self, name: str) -> None: ...
    def sync_directory(self, name: str) -> None: ...
    def free_bytes(self) -> int: ...
    def lock(self) -> None:
        """Take the directory for this process; raises `DataDirectoryInUse`."""

    def submit(
        self,
        lane: str,
        job: Callable[[], T],
        done: Callable[[T | None, BaseException | None], None],
        *,
        size: int = 0,
    ) -> None: ...
    def close(self) -> None:
        """Wait for running jobs, release the lock, close everything."""
