"""What can go wrong with a simulated disk: injected errors, crashes inside an operation, lives.

A life is the time from one death of the process to the next. It ends at a chosen primitive
(``crash_after``) or between two, and `power_cut` or `kill` begins the next one. Every handle, lock
and queued job belongs to a life. Chance comes from outside; every decision can be repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ..errors import StorageError
from ..ports import Random
from .disk_lanes import FAST, Crashed, Latency
from .medium import BitFlip, Medium


class Device:
    """A disk that outlives processes.

    Attributes:
        rates: primitive (``sync``, ``pread``, ``pwrite``...) -> probability that it fails.
        fail: returns the error to inject into (primitive, path), or None.
        latency: how long jobs take where there is a schedule.
        crash_after: how many more primitives succeed before the process dies in the next one.
        on_crash: called at that instant; it may call `power_cut` or `kill` right away.
        counts: what happened, by name: primitives, ``failed <primitive>``, ends of lives.
        dead: the process died at a primitive, and no next life has begun.
    """

    def __init__(
        self,
        *,
        capacity_bytes: int = 1 << 40,
        random: Random | None = None,
        latency: Latency = FAST,
    ) -> None:
        self.medium = Medium(capacity_bytes)
        self.random = random or Random(0)
        self.latency = latency
        self.rates: dict[str, float] = {}
        self.fail: Callable[[str, str], OSError | None] = lambda operation, path: None
        self.crash_after: int | None = None
        self.on_crash: Callable[[], None] | None = None
        self.counts: dict[str, int] = {}
        self.life = 1
        self.dead = False
        self.holder: object | None = None  # whoever has the lock

    @property
    def capacity_bytes(self) -> int:
        """What all files together may hold; may be changed at any time."""
        return self.medium.capacity_bytes

    @capacity_bytes.setter
    def capacity_bytes(self, value: int) -> None:
        self.medium.capacity_bytes = value

    # -- operations ----------------------------------------------------------------------------

    def lasts(self, life: int) -> bool:
        """Whether the process of that life is alive."""
        return life == self.life and not self.dead

    def check_alive(self, life: int) -> None:
        """Raise `Crashed` out of whatever a dead process still tries."""
        if not self.lasts(life):
            raise Crashed("this process is dead")

    def look(self, life: int, kind: str, path: str) -> None:
        """An operation without effect on the disk: it may fail, and is no crash point."""
        self.check_alive(life)
        self._count(kind)
        self._check(kind, path)

    @contextlib.contextmanager
    def primitive(self, life: int, kind: str, path: str) -> Iterator[float]:
        """An operation with effect: gives the part of it that takes place, 1.0 unless the crash
        comes within; then `Crashed` leaves the block."""
        self.check_alive(life)
        self._count(kind)
        dying = self.crash_after == 0
        fraction = 1.0
        if dying:
            self.crash_after = None
            fraction = self.random.choice((0.0, self.random.random(), 1.0))
        elif self.crash_after is not None:
            self.crash_after -= 1
        try:
            if not dying:
                self._check(kind, path)
            yield fraction
        finally:
            if dying:
                self._die(kind, path)

    def _check(self, kind: str, path: str) -> None:
        error = self.fail(kind, path)
        rate = self.rates.get(kind, 0.0)
        if error is None and rate and self.random.random() < rate:
            error = OSError(5, "input/output error")
        if error is not None:
            self._count(f"failed {kind}")
            raise StorageError(f"{kind} of {path} failed: {error}") from error

    def full(self) -> None:
        """Count that something did not fit."""
        self._count("disk full")

    def _die(self, kind: str, path: str) -> None:
        self._count(f"crash in {kind}")
        self.dead = True
        if self.on_crash is not None:
            self.on_crash()
        raise Crashed(f"the process died in {kind} of {path}")

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # -- ends of lives -------------------------------------------------------------------------

    def power_cut(self, random: Random | None = None) -> None:
        """The power fails: of what was not synced, a random part survives."""
        self._count("power cut")
        self.medium.power_cut(random or self.random)
        self._next_life()

    def kill(self) -> None:
        """The process is killed: all it wrote is still seen, durable or not."""
        self._count("kill")
        self.medium.kill(self.random)
        self._next_life()

    def crash(self, random: Random) -> None:
        """`power_cut`, by its older name."""
        self.power_cut(random)

    def _next_life(self) -> None:
        self.life += 1
        self.dead = False
        self.crash_after = None
        self.holder = None

    def flip_bit(self, random: Random, path: str | None = None) -> BitFlip | None:
        """Flip one bit of synced data that is not all zero, of ``path`` or of any file.

        Returns which, or None if there is no such data.
        """
        flip = self.medium.flip_bit(random, path)
        if flip is not None:
            self._count("flipped bit")
        return flip
