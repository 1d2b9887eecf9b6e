"""The real Clock door: the kernel's clocks, in seconds. Tells time; sets no timers."""

from __future__ import annotations

import time

# macOS has no CLOCK_BOOTTIME, but its CLOCK_MONOTONIC counts sleep (``time.monotonic`` does not).
_COUNTS_SLEEP: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


class RealClock:
    """This machine's clocks."""

    now = staticmethod(time.monotonic)
    """Seconds on the monotonic clock; it stands still while the machine sleeps."""

    def suspended_too(self) -> float:
        """Seconds on the clock that also counts sleep, where the system has one."""
        return time.monotonic() if _COUNTS_SLEEP is None else time.clock_gettime(_COUNTS_SLEEP)

    def wall(self) -> float:
        """Seconds since the epoch; may jump."""
        return time.time()
