"""The real Clock door: the kernel's clocks, in seconds. Tells time; sets no timers."""

from __future__ import annotations

import time


class RealClock:
    """This machine's clocks."""

    now = staticmethod(time.monotonic)
    """Seconds on the monotonic clock; it stands still while the machine sleeps."""

    def suspended_too(self) -> float:
        """Seconds on the clock that also counts sleep, where the system has one."""
        return _suspended_too()

    def wall(self) -> float:
        """Seconds since the epoch; may jump."""
        return time.time()


def _suspended_too() -> float:
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)
