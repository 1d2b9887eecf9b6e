"""The way from any thread to the event loop of one opening, and back with the result.

Each opening (`connect`, `open`, `local_cluster`) has one daemon thread with one loop; nothing is
shared between openings, and no module holds state. Calls of all threads gather in a queue: the loop
is woken once for all that came since it last looked. A caller that is interrupted (Ctrl-C) cancels
its call before it goes on. It serves the twins; it knows nothing of what they do.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from ..errors import MisuseError, SessionExpiredError
from ..outcomes import forked
from ..scopes import Held
from .stream import Stream

T = TypeVar("T")

SETTLING_S = 1.0
"""Seconds that an interrupted caller waits for its cancelled call to tidy up."""


class Portal:
    """One thread, one event loop, and the calls that wait for it. Safe to use from all threads."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = os.getpid()
        self._calls: deque[Callable[[], None]] = deque()
        self._awake = False
        self._closed = False
        self._local = threading.local()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._live, name=f"copycat {what}", daemon=True)

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, and wait until its loop runs."""
        self._thread.start()
        self._ready.wait()

    def stop(self, timeout: float | None = None) -> None:
        """End what still runs there, then the thread; wait for that ``timeout`` seconds."""
        self._post(self._stop, wake=True)
        self._thread.join(timeout)

    def check(self) -> None:
        """Raise `ForkedError` in a child process: the thread is not there any more."""
        if os.getpid() != self._pid:
            raise forked(self._pid, os.getpid())

    @property
    def inherited(self) -> bool:
        """Whether this is a child of the process that it belongs to."""
        return os.getpid() != self._pid

    @property
    def mine(self) -> list[Held]:
        """What the running thread holds."""
        found: list[Held] = self._local.__dict__.setdefault("mine", [])
        found[:] = [held for held in found if not held.released]
        return found

    @property
    def entered(self) -> list[tuple[object, Held]]:
        """The ``with`` blocks that the running thread is in: whose, and what is held there."""
        found: list[tuple[object, Held]] = self._local.__dict__.setdefault("entered", [])
        return found

    # -- calls ---------------------------------------------------------------------------------

    def run(
        self,
        work: Coroutine[Any, Any, T],
        undo: Callable[[T], Coroutine[Any, Any, object]] | None = None,
        mine: list[Held] | None = None,
    ) -> T:
        """Run ``work`` in the loop and wait for its result.

        If the waiting is interrupted, ``work`` is cancelled; if that comes too late, ``undo`` gives
        back what it returned. ``mine`` counts as held by the task that does the work.
        """
        try:
            self.check()
            refuse_in_a_loop()
        except MisuseError:
            work.close()
            raise
        call = _Call(self, work, undo, mine)
        try:
            self._post(call.begin)
            call.finished.acquire()
        except BaseException:
            self._post(call.cancel, wake=True)  # its own waking may be what was interrupted
            call.finished.acquire(timeout=SETTLING_S)
            raise
        return call.result()

    def finish(self, work: Coroutine[Any, Any, object], seconds: float) -> None:
        """Run the last ``work`` and stop, each within ``seconds``; errors are nobody's any more."""
        call = _Call(self, work, None, None)
        self._post(call.begin, wake=True)
        if not call.finished.acquire(timeout=seconds):
            self._post(call.cancel, wake=True)
        self.stop(seconds)

    def do(self, work: Callable[[], T]) -> T:
        """Call ``work`` in the loop's thread: for what must not run beside the loop."""

        async def done() -> T:
            return work()

        return self.run(done())

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """What ``source`` yields; it is closed when the iterator is."""
        stream = Stream(source)
        try:
            while items := self.run(stream.more()):
                yield from items
        finally:
            if not self.inherited:
                self._post(stream.close, wake=True)

    # -- the loop's thread ---------------------------------------------------------------------

    def _live(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._serve())
        finally:
            self._closed = True
            self._ready.set()
            self._refuse()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        self._drain()  # what was posted before there was a loop to wake
        await self._stopping.wait()

    def _stop(self) -> None:
        if self._stopping is not None:
            self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether nothing may begin any more."""
        return self._closed or self._stopping is None or self._stopping.is_set()

    def _post(self, call: Callable[[], None], *, wake: bool = False) -> None:
        """Have the loop call it. Threads that come before it looks wake it once."""
        self._calls.append(call)
        loop = self._loop
        if (wake or not self._awake) and not self._closed and loop is not None:
            self._awake = True
            try:
                loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # it closed at this moment
                self._closed = True
        if self._closed:
            self._refuse()

    def _drain(self) -> None:
        self._awake = False  # first: who comes from now on may have been overlooked
        calls = self._calls
        for _ in range(len(calls)):
            calls.popleft()()

    def _refuse(self) -> None:
        """The loop is over: nobody may wait for it."""
        while self._calls:
            try:
                call = self._calls.popleft()
            except IndexError:  # another thread was faster
                return
            owner = getattr(call, "__self__", None)
            if isinstance(owner, _Call):
                owner.refuse(f"{self._what} is closed")


class _Call(Generic[T]):
    """One call on its way through the loop; ``finished`` is free when there is an outcome."""

    __slots__ = ("_error", "_mine", "_portal", "_task", "_undo", "_value", "_work", "finished")

    def __init__(
        self,
        portal: Portal,
        work: Coroutine[Any, Any, T],
        undo: Callable[[T], Coroutine[Any, Any, object]] | None,
        mine: list[Held] | None,
    ) -> None:
        self._portal = portal
        self._mine = mine
        self._work = work
        self._undo = undo
        self._task: asyncio.Task[T] | None = None
        self._value: T | None = None
        self._error: BaseException | None = None
        self.finished = threading.Lock()
        self.finished.acquire()

    def begin(self) -> None:
        """Start it; in the loop."""
        if self._error is not None:  # cancelled before it began
            return
        if self._portal.stopping:
            self.refuse("it is being closed")
            return
        self._task = asyncio.get_running_loop().create_task(self._work)
        for held in self._mine or ():
            held.task = self._task
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Nobody waits any more; in the loop."""
        if self._task is None:
            self.refuse("the call was interrupted before it began")
        elif not self._task.done():
            self._task.cancel()
        elif self._undo is not None and not (self._task.cancelled() or self._task.exception()):
            undone = asyncio.get_running_loop().create_task(self._undo(self._task.result()))
            undone.add_done_callback(_retrieved)

    def refuse(self, why: str) -> None:
        """It was not begun and never will be."""
        if self._task is None and self.finished.locked():
            self._work.close()
            self._error = SessionExpiredError(f"{why}. Not applied.", hint="open another one")
            self.finished.release()

    def result(self) -> T:
        """The outcome."""
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # else the traceback and this frame would keep each other
        return self._value  # type: ignore[return-value]

    def _ended(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._error = SessionExpiredError("it was closed while this call waited")
            self._error.applied = "unknown"
        else:
            self._error = task.exception()
            if self._error is None:
                self._value = task.result()
        self.finished.release()


def refuse_in_a_loop() -> None:
    """Raise `MisuseError` if an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise MisuseError(
        "a blocking call would stop the event loop that runs in this thread",
        hint="inside a coroutine use copycat.connect(...) with async and await; for blocking code "
        "beside it asyncio.to_thread",
    )


def _retrieved(task: asyncio.Task[object]) -> None:
    """Nobody waits for this outcome: do not let asyncio complain about it."""
    if not task.cancelled():
        task.exception()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """That of uvloop, if it is installed."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop]
        factory = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return factory
