"""One simulated process: its event loop, clocks, chance and network, and how it is made to suffer.

It runs whatever coroutines it is given, which are production code. When it is killed, nothing of it
happens ever again; the next life of the same host is another `SimulatedProcess`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from ..ports import Random
from .clock import SimulatedClock
from .disk import Crashed
from .door import NetworkDoor
from .loop import SimulatedLoop
from .network import SimulatedNetwork
from .timeline import Timeline

T = TypeVar("T")

TURN_S = 20e-6
"""What a turn of the loop costs on average, in seconds of virtual time."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that went wrong in a process, and nobody handled it."""

    time: float
    process: str
    message: str
    exception: BaseException | None

    def __str__(self) -> str:
        return f"{self.time:.6f} {self.process}: {self.message}: {self.exception!r}"


class SimulatedProcess:
    """A process on a host of the simulated network.

    Args:
        timeline: the world's.
        network: the world's.
        name: for the trace and for the names of tasks.
        host: where it is; several processes may share a host.
        random: its own chance; production code draws from it.
        clock: its clocks.
        turn_s: what a turn of its loop costs.
    """

    def __init__(
        self,
        timeline: Timeline,
        network: SimulatedNetwork,
        *,
        name: str,
        host: str,
        random: Random,
        clock: SimulatedClock,
        turn_s: float = TURN_S,
    ) -> None:
        self.name = name
        self.host = host
        self.random = random
        self.clock = clock
        self.alive = True
        self.failures: list[Failure] = []
        self._timeline = timeline
        # What it does not have (sockets, threads, signals) raises NotImplementedError.
        self.loop = SimulatedLoop(  # type: ignore[abstract]
            timeline,
            clock,
            Random(random.getrandbits(64)),
            name=name,
            turn_s=turn_s,
            on_problem=self._problem,
        )
        self.network = NetworkDoor(network, self.loop, name, host)

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Run a coroutine; an exception that leaves it is a failure of the process."""
        task: asyncio.Task[T] = self.loop.create_task(coroutine, name=name)
        task.add_done_callback(self._spawned_ended)
        return task

    def schedule(self, delay_s: float, callback: Callable[[], object]) -> None:
        """Call in the loop after ``delay_s`` of true time: for disks, whose duration no clock of
        this process changes."""
        self._timeline.after(delay_s, self.loop.post, callback)

    # -- suffering -----------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """Do nothing for so long; what comes meanwhile is found afterwards, late."""
        self._timeline.trace(f"{self.name} is paused for {seconds:.6f} s")
        self.loop.hold(self._timeline.now + seconds)

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: as `pause`, and the monotonic clock stands still."""
        self._timeline.trace(f"{self.name} is suspended for {seconds:.6f} s")
        self.loop.hold(self._timeline.now + seconds)
        self.clock.sleep(seconds)
        self.loop.clock_changed()

    def set_clock_rate(self, rate: float) -> None:
        """From now on its clocks count ``rate`` seconds in a second."""
        self._timeline.trace(f"the clock of {self.name} runs at {rate:.6f}")
        self.clock.set_rate(rate)
        self.loop.clock_changed()

    def kill(self) -> None:
        """End at once, without a word. Its host resets its connections and refuses new ones."""
        if self.alive:
            self._timeline.trace(f"{self.name} is killed")
            self.alive = False
            self.loop.end()
            self.network.end()

    def bury(self) -> None:
        """Kill it if need be, and let go of all it holds. The world is over when this is called:
        dead coroutines are closed here, and what is in their ``finally`` may touch your lists."""
        self.kill()
        self.loop.bury()

    # -- problems ------------------------------------------------------------------------------

    def _spawned_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._problem(f"task {task.get_name()} failed", error)

    def _problem(self, message: str, exception: BaseException | None) -> None:
        if isinstance(exception, Crashed):  # its disk decided that this is the end
            self.kill()
            return
        self._timeline.trace(f"{self.name} failed: {message}: {type(exception).__name__}")
        self.failures.append(Failure(self._timeline.now, self.name, message, exception))
