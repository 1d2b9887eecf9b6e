"""What is held while a session lives: a lock, a leadership; and how its loss ends a body.

The holder's own clock decides (see `Lifetime`), before the cluster can give the thing to somebody
else. The loss cancels the task inside ``async with`` and turns that one cancellation into the
scope's error, the way ``asyncio.timeout`` makes a ``TimeoutError``; a cancellation from elsewhere
stays one. It serves locks, elections, semaphores, and the items of queues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .errors import CopycatError
from .lifetime import Lifetime


class Held:
    """Something held by fencing token ``token`` until it is released or lost.

    Pass the token along with whatever is written under its protection, so that late writes are
    refused there. ``lost`` is an event that is set at the moment of the loss.
    """

    def __init__(
        self, token: int, claim: bytes, lifetime: Lifetime, error: Callable[[str], CopycatError]
    ) -> None:
        self.token = token
        self.claim = claim
        self.lost = asyncio.Event()
        self.task: asyncio.Task[object] | None = asyncio.current_task()
        self._lifetime = lifetime
        self._error = error
        self._reason = ""
        self.entered = False
        self._cancelled = False
        self._cancelling = 0
        self._forget = lifetime.on_loss(self.lose)
        self.released = False

    def remaining(self) -> float:
        """Seconds for which it is certainly held even if the cluster does not answer any more."""
        return 0.0 if self.lost.is_set() or self.released else self._lifetime.remaining()

    def check(self) -> None:
        """Raise the scope's error unless it is certainly still held."""
        if self.released:
            raise self._error("it was released")
        if self.remaining() <= 0:
            raise self._error(self._reason or "no contact with a majority for too long")

    def enter(self) -> None:
        """Bind it to the running task: the loss cancels that from now on."""
        self.entered = True
        self.task = asyncio.current_task()
        self._cancelling = 0 if self.task is None else self.task.cancelling()

    def leave(self, exc_type: type[BaseException] | None, exc: BaseException | None) -> None:
        """The body ended; raises the scope's error if our cancellation ended it."""
        self.entered = False
        if self._cancelled and self.task is not None:
            self._cancelled = False
            remaining = self.task.uncancel()
            if remaining <= self._cancelling and exc_type is asyncio.CancelledError:
                raise self._error(self._reason) from exc

    def lose(self, reason: str) -> None:
        """It cannot be relied on any more."""
        if self.released or self.lost.is_set():
            return
        self._reason = reason
        self._forget()
        self.lost.set()
        if self.entered and self.task is not None:
            self._cancelled = True
            self.task.cancel()

    def release(self) -> None:
        """It is given back: its loss does not matter any more."""
        self.released = True
        self._forget()

    def __repr__(self) -> str:
        if self.released:
            state = "released"
        elif self.lost.is_set():
            state = f"lost: {self._reason}"
        else:
            state = f"left={self.remaining():.1f}s"
        return f"<{type(self).__name__} token={self.token} {state}>"
