"""The simulated Clock door: each process has clocks of its own, which may start and run wrongly.

Time comes from the world's `Timeline`; nothing here schedules anything.
"""

from __future__ import annotations

from .timeline import Timeline

EPOCH = 1_700_000_000.0
"""What wall clocks show when the world begins, in seconds."""


class SimulatedClock:
    """Clocks of one process: ``start`` is its monotonic time now, ``rate`` its speed.

    ``wall_error`` (s) is what its wall clock is ahead of the true time.
    """

    def __init__(
        self, timeline: Timeline, *, start: float = 0.0, rate: float = 1.0, wall_error: float = 0.0
    ) -> None:
        self._timeline = timeline
        self._rate = rate
        self._base = timeline.now  # when, in world time, `_shown` was shown
        self._shown = start
        self._slept = 0.0
        self._asleep_until = timeline.now
        self._fell_asleep_at = start
        self._wall_ahead = EPOCH + timeline.now + wall_error - start

    def now(self) -> float:
        """Monotonic time; stands still while the machine sleeps."""
        at = self._timeline.now
        if at < self._asleep_until:
            return self._fell_asleep_at
        return self._shown + (at - self._base) * self._rate - self._slept

    def suspended_too(self) -> float:
        """Monotonic time that goes on while the machine sleeps."""
        return self._shown + (self._timeline.now - self._base) * self._rate

    def wall(self) -> float:
        """What the wall clock shows, in seconds since 1970."""
        return self.suspended_too() + self._wall_ahead

    def world_time(self, local: float) -> float:
        """The world time at which `now` shows ``local``, if nothing changes."""
        return self._base + (local + self._slept - self._shown) / self._rate

    @property
    def rate(self) -> float:
        """Seconds that this clock counts in a true second."""
        return self._rate

    def set_rate(self, rate: float) -> None:
        """Run at another speed from now on."""
        self._shown = self.suspended_too()
        self._base = self._timeline.now
        self._rate = rate

    def sleep(self, seconds: float) -> None:
        """The machine is suspended for the next ``seconds`` of world time."""
        began = max(self._timeline.now, self._asleep_until)
        until = max(self._timeline.now + seconds, began)
        self._fell_asleep_at = self.now()
        self._asleep_until = until
        self._slept += (until - began) * self._rate

    def jump(self, seconds: float) -> None:
        """The wall clock is set, forward or back; nothing else notices."""
        self._wall_ahead += seconds
