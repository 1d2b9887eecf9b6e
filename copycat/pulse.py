"""The rhythm of a session: signs of life, silence, and one timer for all deadlines.

Plain book-keeping about time; nothing here sends or decides. It serves the `Session`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

NEVER = float("inf")
SWEEP_INTERVAL = 0.01
"""Many deadlines lie close together: they are looked at at most a hundred times a second."""

_BEATS_MAX = 64


class Pulse:
    """When this side last showed life, and since when the leader owes an answer.

    Send times are in seconds of a clock that counts sleep, silence is in loop time.
    """

    def __init__(self, interval: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._nonce = 0
        self._beats: deque[tuple[int, float]] = deque()
        self._owed_since = NEVER
        self.interval = interval
        self.last_sent = 0.0

    def beat(self, now: float) -> int:
        """A keep-alive is sent; its nonce."""
        self._nonce += 1
        self._beats.append((self._nonce, now))
        if len(self._beats) > _BEATS_MAX:
            self._beats.popleft()
        self.last_sent = now
        return self._nonce

    def kept(self, nonce: int) -> float | None:
        """The keep-alive with ``nonce`` was logged: when was it sent?"""
        while self._beats and self._beats[0][0] <= nonce:
            kept, sent = self._beats.popleft()
            if kept == nonce:
                return sent
        return None

    def forget(self) -> None:
        """The session ended: no answer to its keep-alives means anything."""
        self._beats.clear()

    def owed(self) -> None:
        """Something was sent that has to be answered."""
        if self._owed_since is NEVER:
            self._owed_since = self._loop.time()

    def heard(self) -> bool:
        """Something came; True if it had been awaited."""
        awaited = self._owed_since is not NEVER
        self._owed_since = NEVER
        return awaited

    @property
    def silence(self) -> float:
        """Seconds for which the leader has owed an answer."""
        return max(0.0, self._loop.time() - self._owed_since)


class Deadlines:
    """One timer for all operations: ``sweep(now)`` fails the overdue, gives the next deadline."""

    def __init__(self, sweep: Callable[[float], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sweep = sweep
        self._timer: asyncio.TimerHandle | None = None
        self.next = NEVER

    def by(self, deadline: float) -> None:
        """Sweep at ``deadline`` (loop time, s) at the latest."""
        if deadline < self.next:
            self.cancel()
            self.next = deadline
            self._timer = self._loop.call_at(deadline, self._fire)

    def cancel(self) -> None:
        """Forget about it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.next = NEVER

    def _fire(self) -> None:
        self._timer, self.next = None, NEVER
        now = self._loop.time()
        following = self._sweep(now)
        if following < NEVER:
            self.by(max(following, now + SWEEP_INTERVAL))
