"""A simulated world: virtual time, a network, and processes, wholly determined by a seed.

It knows nothing of clusters: it runs whatever asyncio code its processes are given. Each part draws
from a stream of chance of its own, so that one more draw here does not reshuffle everything there.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable
from types import TracebackType

from ..ports import Random
from .clock import SimulatedClock
from .garbage import orderly
from .network import SimulatedNetwork, Weather
from .process import TURN_S, Failure, SimulatedProcess
from .timeline import Timeline


class World:
    """``with World(seed) as world``: everything in it happens inside `run`.

    Args:
        seed: determines everything, together with the code that runs.
        weather: how the network is.
        sink: called with each readable line of the trace.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        weather: Weather | None = None,
        sink: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.timeline = Timeline(self.random("ties"), sink)
        self.network = SimulatedNetwork(self.timeline, self.random("network"), weather)
        self.processes: list[SimulatedProcess] = []
        self._orderly = contextlib.ExitStack()

    def random(self, purpose: str) -> Random:
        """A stream of chance that depends on the seed and on ``purpose`` alone."""
        return Random(f"{self.seed}/{purpose}")

    def process(
        self,
        name: str,
        *,
        host: str = "",
        clock_rate: float = 1.0,
        wall_error: float = 0.0,
        turn_s: float = TURN_S,
    ) -> SimulatedProcess:
        """A new process, on the host of its name if no other is given.

        Its monotonic clock starts anywhere; ``clock_rate`` is how fast it goes.
        """
        random = self.random(f"process {len(self.processes)} {name}")
        clock = SimulatedClock(
            self.timeline, start=random.uniform(10, 1e5), rate=clock_rate, wall_error=wall_error
        )
        process = SimulatedProcess(
            self.timeline,
            self.network,
            name=name,
            host=host or name,
            random=random,
            clock=clock,
            turn_s=turn_s,
        )
        self.processes.append(process)
        return process

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self.timeline.now

    @property
    def failures(self) -> list[Failure]:
        """What went wrong anywhere and was not handled, dead processes included."""
        return [failure for process in self.processes for failure in process.failures]

    def run(self, limit_s: float = math.inf, *, until: Callable[[], bool] | None = None) -> bool:
        """Let things happen; see `Timeline.run`."""
        return self.timeline.run(limit_s, until=until)

    def __enter__(self) -> World:
        self._orderly.enter_context(orderly())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._orderly:
            gc.collect()  # exceptions that nobody retrieved come to light
            for process in self.processes:
                process.bury()
