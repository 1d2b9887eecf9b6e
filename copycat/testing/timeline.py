"""The world's scheduler: virtual time, and everything that happens in it, one thing after another.

Nothing here sleeps or reads a clock. Things of the same instant happen in an order drawn from the
seed, and all that happens is folded into a hash: two runs with the same hash were the same run. It
serves the simulated processes, network and disks.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import heapq
import math
import struct
from collections.abc import Callable

from ..errors import MisuseError
from ..ports import Random

COLLECT_EVERY = 1 << 16
"""Events between two garbage collections, if the collector is switched off: what finalizers do then
happens at the same events in every run."""

_STAMP = struct.Struct("<dQ")
_FOLD_AT = 512


class Event:
    """Something that will happen, unless it is cancelled."""

    __slots__ = ("args", "callback", "time")

    def __init__(
        self, time: float, callback: Callable[..., object], args: tuple[object, ...]
    ) -> None:
        self.time = time
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        """It will not happen."""
        self.callback = None
        self.args = ()


class Timeline:
    """Virtual time in seconds, from 0.

    Args:
        random: breaks ties.
        sink: called with each readable line of the story; None: lines are only hashed.

    Attributes:
        details: whether the story tells of single packets too.
    """

    def __init__(self, random: Random, sink: Callable[[str], None] | None = None) -> None:
        self.now = 0.0
        self.happened = 0  # events so far
        self.sink = sink
        self.details = False
        self._draw = random.getrandbits
        self._number = 0
        self._heap: list[tuple[float, int, int, Event]] = []
        self._digest = hashlib.sha256()
        self._unfolded: list[bytes] = []
        self._end = -math.inf  # `run` goes no further...
        self._until: Callable[[], bool] | None = None  # ...and stops when this is true
        self._collect_at = COLLECT_EVERY

    def at(self, time: float, callback: Callable[..., object], *args: object) -> Event:
        """Call ``callback`` at ``time``, or now if that is past."""
        if time < self.now:
            time = self.now
        number = self._number = self._number + 1
        event = Event(time, callback, args)
        heapq.heappush(self._heap, (time, self._draw(32), number, event))
        return event

    def after(self, delay: float, callback: Callable[..., object], *args: object) -> Event:
        """Call ``callback`` in ``delay`` seconds."""
        return self.at(self.now + delay, callback, *args)

    def reach(self, time: float) -> bool:
        """For whoever would plan an event at ``time`` and return: go there, if nothing is before.

        Returns whether it is ``time`` now. It counts as an event.
        """
        heap = self._heap
        if time > self._end or (heap and heap[0][0] <= time):
            return False
        if self._until is not None and self._until():
            return False
        self._happens(time, 0)
        return True

    def _happens(self, time: float, number: int) -> None:
        self.now = time
        self.happened += 1
        self.fold(_STAMP.pack(time, number))

    def run(self, limit_s: float = math.inf, *, until: Callable[[], bool] | None = None) -> bool:
        """Let things happen for ``limit_s`` seconds, or until ``until()`` after one of them.

        Returns whether ``until()`` came true; without it, whether something is left to happen.
        Raises `MisuseError` inside a running event loop: the simulation brings its own.
        """
        if asyncio._get_running_loop() is not None:
            raise MisuseError("a simulation runs in a plain function, not inside an event loop")
        if until is not None and until():
            return True
        end = self._end = self.now + limit_s
        self._until = until
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= end:
            time, _, number, event = pop(heap)
            callback = event.callback
            if callback is None:
                continue
            self._happens(time, number)
            callback(*event.args)
            if self.happened >= self._collect_at:
                self._collect_at = self.happened + COLLECT_EVERY
                if not gc.isenabled():
                    gc.collect()
            if until is not None and until():
                return True
        if end < math.inf:
            self.now = end
        return until is None and bool(heap)

    # -- the trace -----------------------------------------------------------------------------

    def fold(self, data: bytes) -> None:
        """Make ``data`` part of the hash."""
        unfolded = self._unfolded
        unfolded.append(data)
        if len(unfolded) >= _FOLD_AT:
            self._digest.update(b"".join(unfolded))
            unfolded.clear()

    def trace(self, text: str, *, detail: bool = False) -> None:
        """Make a readable line part of the trace and of its hash; a ``detail`` is seldom told."""
        self.fold(text.encode())
        if self.details or not detail:
            self.note(text)

    def note(self, text: str) -> None:
        """A line of the story that is no part of the hash: it follows from what is."""
        if self.sink is not None:
            self.sink(f"{self.now:12.6f} {text}")

    def show(self, text: str) -> None:
        """A line about a single packet."""
        if self.details:
            self.note(text)

    @property
    def hash(self) -> str:
        """A digest of everything that has happened so far."""
        self._digest.update(b"".join(self._unfolded))
        self._unfolded.clear()
        return self._digest.hexdigest()
