"""Where disk jobs run: in a thread of their own, or at once when the disk is fast.

A lane runs one job at a time and in order. Syncs of a good disk take less time than the way to
another thread and back, so the log's lane runs small jobs on the caller's thread for as long as
they prove to be fast, and steps back for a growing while when they are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

INLINE_SIZE = 64 << 10
"""Bytes up to which a job of the log lane may run inline."""
FAST_S = 2e-3
"""A job that takes longer than this, in seconds, is slow."""
STALL_S = 20e-3
"""A single inline job that takes longer than this ends the inline phase at once."""

WINDOW = 16
STRIKES = 4
REST_MIN = 32
REST_MAX = 1024

_Done = Callable[[Any, BaseException | None], None]
_Item = tuple[asyncio.AbstractEventLoop, Callable[[], Any], _Done]


class Pace:
    """Whether the next small job should run inline, judged by the last ones that did.

    Jobs in the thread cannot be timed fairly (they wait for the interpreter lock while the loop
    works), so after a rest of some jobs an inline phase is simply tried again. Some slow jobs
    within a short window, or a single very slow one, end a phase; every failed trial doubles the
    rest.
    """

    def __init__(self) -> None:
        self._rest = 0  # jobs still to run in the thread
        self._next_rest = REST_MIN
        self._in_window = 0
        self._strikes = 0

    @property
    def inline(self) -> bool:
        """Whether an inline phase is under way."""
        return self._rest == 0

    def threaded(self) -> None:
        """A job was given to the thread."""
        if self._rest:
            self._rest -= 1

    def took(self, seconds: float) -> None:
        """An inline job took this long."""
        self._in_window += 1
        self._strikes += seconds > FAST_S
        if self._strikes >= STRIKES or seconds > STALL_S:
            self._rest = self._next_rest
            self._next_rest = min(2 * self._next_rest, REST_MAX)
            self._in_window = self._strikes = 0
        elif self._in_window == WINDOW:
            self._next_rest = REST_MIN
            self._in_window = self._strikes = 0


class Lane:
    """One worker thread, started with its first job."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.pending = 0  # jobs in the thread whose completion was not delivered yet

    def submit(self, loop: asyncio.AbstractEventLoop, job: Callable[[], Any], done: _Done) -> None:
        """Run ``job`` after those before it; ``done`` is called on ``loop``."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self.pending += 1
        self._queue.put((loop, job, done))

    def close(self) -> None:
        """Wait for the jobs that were submitted (blocks); their completions are dropped."""
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            loop, job, done = item
            result, error = _run(job)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(self._deliver, done, result, error)

    def _deliver(self, done: _Done, result: object, error: BaseException | None) -> None:
        self.pending -= 1
        if not self._closed:
            done(result, error)


class LogLane(Lane):
    """A lane whose small jobs run inline while the disk is fast."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._pace = Pace()

    def submit(
        self,
        loop: asyncio.AbstractEventLoop,
        job: Callable[[], Any],
        done: _Done,
        size: int = 0,
    ) -> None:
        """As `Lane.submit`; ``size`` is the number of bytes the job writes."""
        # With a job in the thread an inline one would overtake it.
        if self.pending or size > INLINE_SIZE or not self._pace.inline:
            self._pace.threaded()
            super().submit(loop, job, done)
            return
        begin = time.perf_counter()
        result, error = _run(job)
        self._pace.took(time.perf_counter() - begin)
        done(result, error)


def _run(job: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return job(), None
    except Exception as error:  # whoever gave the job decides
        return None, error
