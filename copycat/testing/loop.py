"""The simulated event loop: asyncio for one simulated process, on virtual time.

It does what asyncio's own loops do, in the same order, except that its turns are events of the
world's `Timeline` and cost virtual time. It has no sockets, threads or subprocesses: the doors do.
It serves the `SimulatedProcess`, which decides when it is held up and when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import math
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from sys import set_asyncgen_hooks
from typing import Any, TypeVar, TypeVarTuple, Unpack

from ..errors import MisuseError
from ..ports import Random
from .clock import SimulatedClock
from .timeline import Event, Timeline

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

RESOLUTION = 1e-9
"""Seconds by which a timer may be early."""
CLOSE_ATTEMPTS = 100
"""How often a coroutine that will not end is told to."""

_SWEEP_MIN = 128


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The loop of one process.

    Args:
        timeline: the world's.
        clock: the process's; `time` shows its monotonic time.
        random: for how long turns take.
        name: begins the names of tasks.
        turn_s: what a turn costs on average, in seconds of virtual time.
        on_problem: called with (message, exception or None) for what nobody handles.
    """

    def __init__(
        self,
        timeline: Timeline,
        clock: SimulatedClock,
        random: Random,
        *,
        name: str,
        turn_s: float,
        on_problem: Callable[[str, BaseException | None], None],
    ) -> None:
        self.turn_s = turn_s
        self.turns = 0
        self.tasks: dict[asyncio.Task[Any], None] = {}  # those that are not done
        self._timeline = timeline
        self._clock = clock
        self._random = random
        self._name = name
        self._on_problem = on_problem
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        self._sweep_at = _SWEEP_MIN
        self._tasks_made = 0
        self._free_at = 0.0
        self._wake: Event | None = None
        self._running = False
        self._ended = False
        self._context = contextvars.copy_context()

    # -- what the process does -----------------------------------------------------------------

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Something came from outside: handle it in the next turn."""
        if not self._ended:
            self._ready.append(asyncio.Handle(callback, args, self, self._context))
            self._plan()

    def hold(self, until: float) -> None:
        """Have no turn before ``until`` (world time)."""
        self._free_at = max(self._free_at, until)

    def clock_changed(self) -> None:
        """The clock runs differently: timers are due at other world times."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._plan()

    def end(self) -> None:
        """Nothing runs any more, from now on, also in the turn that is going on."""
        self._ended = True
        self._ready.clear()
        self._timers.clear()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def bury(self) -> None:
        """After `end`: let go of the tasks that were left. Their code can reach nothing."""
        tasks, self.tasks = list(self.tasks), {}
        self._enter()
        for task in tasks:
            coroutine = task.get_coro()
            for _ in range(CLOSE_ATTEMPTS if isinstance(coroutine, Coroutine) else 0):
                # A RuntimeError says that it awaits something instead of ending; what else comes
                # is what dead code complains about.
                with contextlib.suppress(BaseException):
                    coroutine.close()
                    break
        self._leave()

    # -- turns ---------------------------------------------------------------------------------

    def _plan(self) -> None:
        """See to it that there is a turn when one is needed."""
        if self._running or self._ended:
            return
        earliest = max(self._timeline.now, self._free_at)
        wake = self._wake
        if wake is not None and wake.time <= earliest:
            return
        if self._ready:
            due = earliest
        else:
            while self._timers and self._timers[0][2].cancelled():
                heapq.heappop(self._timers)
            if not self._timers:
                return
            due = max(earliest, self._clock.world_time(self._timers[0][0]))
        if wake is None or due < wake.time:
            if wake is not None:
                wake.cancel()
            self._wake = self._timeline.at(due, self._turn)

    def _turn(self) -> None:
        """A turn, and those after it before which nothing else happens in the world."""
        self._wake = None
        timeline, ready = self._timeline, self._ready
        if timeline.now < self._free_at:
            self._plan()
            return
        self._enter()
        try:
            while True:
                if self._timers:
                    self._take_due()
                if not ready:
                    break
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle._cancelled:
                        handle._run()
                        if self._ended:
                            return
                del handle  # a traceback may keep this frame, and it what was done last
                self.turns += 1
                cost = self.turn_s * self._random.uniform(0.5, 1.5)
                self._free_at = max(self._free_at, timeline.now + cost)
                if not ready or not timeline.reach(self._free_at):
                    break
        finally:
            self._leave()
        self._plan()

    def _take_due(self) -> None:
        """Timers that are due are ready."""
        timers, latest = self._timers, self.time() + RESOLUTION
        while timers and (timers[0][0] <= latest or timers[0][2]._cancelled):
            handle: asyncio.Handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                self._ready.append(handle)

    def _enter(self) -> None:
        """From now on asyncio sees this loop as the running one."""
        set_asyncgen_hooks(None, self._abandoned)
        _set_running_loop(self)
        self._running = True

    def _leave(self) -> None:
        self._running = False
        _set_running_loop(None)
        set_asyncgen_hooks(None, None)

    def _abandoned(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Nobody iterates over ``generator`` any more: let it clean up."""
        if not self._ended:
            self.call_soon(self.create_task, generator.aclose())
            self._plan()

    # -- asyncio: callbacks --------------------------------------------------------------------

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Call in the next turn, in order."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self._ended:
            self._ready.append(handle)
            if not self._running:
                self._plan()
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As `call_soon`: there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call in ``delay`` seconds of this process's clock."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call when `time` shows ``when``."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._ended and when < math.inf:
            self._timers_made += 1
            heapq.heappush(self._timers, (when, self._timers_made, handle))
            if len(self._timers) >= self._sweep_at:
                self._timers = [each for each in self._timers if not each[2].cancelled()]
                heapq.heapify(self._timers)
                self._sweep_at = max(_SWEEP_MIN, 2 * len(self._timers))
            if not self._running:
                self._plan()
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are thrown out when they are due or too many."""

    def time(self) -> float:
        """The process's monotonic time."""
        return self._clock.now()

    # -- asyncio: futures and tasks ------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Run a coroutine as a task. It is kept alive until it is done."""
        self._tasks_made += 1
        options["name"] = options.get("name") or f"{self._name}-{self._tasks_made}"
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        self.tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    # -- asyncio: the rest ---------------------------------------------------------------------

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Something went wrong that nobody handles."""
        if not self._ended:
            message = str(context.get("message") or "unhandled")
            self._on_problem(message, context.get("exception"))

    default_exception_handler = call_exception_handler

    def get_debug(self) -> bool:
        """Never: what asyncio measures then is real time."""
        return False

    def is_running(self) -> bool:
        """Whether a turn is going on."""
        return self._running

    def is_closed(self) -> bool:
        """Never; when the process has ended, what is called here simply never happens."""
        return False

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Raises: threads cannot be repeated."""
        raise MisuseError("a simulated process has no threads", hint="use the Disk door")

    async def shutdown_asyncgens(self) -> None:
        """Nothing: what is abandoned is closed at once."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing: there is none."""
