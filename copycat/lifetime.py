"""Whether a session can be relied on, by the client's own clock.

A session is surely alive until its timeout has passed since the *sending* of the last frame that
the cluster logged for it; the client stops a tenth earlier, so its belief always ends before the
cluster can give what it owned to somebody else (H41). Nothing here sends anything. It serves the
`Session`, and the scopes of locks and leaderships.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from .ports import Clock
from .types import SessionState

log = logging.getLogger("copycat.session")

SAFE_FRACTION = 0.9
"""Of the session's timeout; the rest covers clocks that run at different speeds."""

_WATCH_MAX = 64


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Durations in seconds; ``in_flight`` is the number of commands that may be unanswered."""

    timeout: float = 5.0
    session_timeout: float = 5.0
    keep_alive: float | None = None
    in_flight: int = 8192

    @property
    def beat(self) -> float:
        """The longest time without a sign of life."""
        return self.session_timeout / 2.5 if self.keep_alive is None else self.keep_alive


class Lifetime:
    """State, id and local deadline of the present session of a client."""

    def __init__(self, clock: Clock, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._safe = timeout * SAFE_FRACTION
        self._confirmed = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._on_loss: dict[object, Callable[[str], None]] = {}
        self._watchers: list[tuple[deque[SessionState], asyncio.Event]] = []
        self.id = 0
        self.state = SessionState.CONNECTING

    @property
    def reliable(self) -> bool:
        """Whether the session is certainly alive now."""
        return self.id != 0 and self._clock.suspended_too() < self._confirmed + self._safe

    def remaining(self) -> float:
        """Seconds for which the session is certainly alive even if nobody answers any more."""
        if self.id == 0:
            return 0.0
        return max(0.0, self._confirmed + self._safe - self._clock.suspended_too())

    def began(self, id_: int, sent_at: float) -> None:
        """A session was registered by a frame sent at ``sent_at`` (clock time, s)."""
        self.id = id_
        self._confirmed = sent_at
        self.confirm(sent_at)

    def confirm(self, sent_at: float) -> None:
        """The cluster logged something of the session that was sent at ``sent_at``."""
        self._confirmed = max(self._confirmed, sent_at)
        if self.state is not SessionState.CONNECTED and self.reliable:
            self._become(SessionState.CONNECTED)
        if self._timer is None:
            self._check()

    def ended(self, state: SessionState, reason: str) -> None:
        """The session is gone (`EXPIRED` or `CLOSED`)."""
        id_, self.id = self.id, 0
        self._stop_timer()
        self._become(state, id_)
        self._lose(reason)

    def connecting(self) -> None:
        """A new session is being registered."""
        self._become(SessionState.CONNECTING)

    def on_loss(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback(reason)`` once the session cannot be relied on; returns the undoing."""
        key = object()
        self._on_loss[key] = callback
        return lambda: self._on_loss.pop(key, None) and None

    async def settled(self) -> bool:
        """Wait until the session is certainly alive (True) or certainly over (False)."""
        id_ = self.id
        async for _ in self.watch():
            if self.id != id_ or id_ == 0:
                return False
            if self.reliable:
                return True
        return False

    async def watch(self) -> AsyncIterator[SessionState]:
        """The present state, then every new one, until the client is closed."""
        states: deque[SessionState] = deque([self.state], _WATCH_MAX)
        changed = asyncio.Event()
        watcher = (states, changed)
        self._watchers.append(watcher)
        try:
            while True:
                while states:
                    state = states.popleft()
                    yield state
                    if state is SessionState.CLOSED:
                        return
                changed.clear()
                await changed.wait()
        finally:
            self._watchers.remove(watcher)

    def _become(self, state: SessionState, id_: int | None = None) -> None:
        if state is not self.state:
            number = self.id if id_ is None else id_
            log.info("session %s is %s", number or "(none yet)", state.value)
            self.state = state
            for states, changed in self._watchers:
                states.append(state)
                changed.set()

    def _check(self) -> None:
        """At the deadline, if nothing was confirmed meanwhile: act as if the session is gone."""
        self._timer = None
        remaining = self.remaining()
        if remaining > 0:
            self._timer = self._loop.call_later(remaining, self._check)
        elif self.id:
            self._become(SessionState.SUSPENDED)
            self._lose(f"no contact with a majority for {self._safe:.1f} s")

    def _lose(self, reason: str) -> None:
        callbacks, self._on_loss = self._on_loss, {}
        for callback in callbacks.values():
            callback(reason)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
