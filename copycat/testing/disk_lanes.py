"""The lanes of a simulated disk: jobs one at a time and in order, each with a duration by chance.

A job's effects happen at one instant, when its duration is over; its completion arrives a moment
later, so that a process may die in between. Without a schedule, jobs run inside ``submit``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import MisuseError
from ..ports import Random
from ..server.lanes import INLINE_SIZE

Schedule = Callable[[float, Callable[[], None]], object]
"""Calls a function after so many seconds of virtual time."""
Done = Callable[[Any, BaseException | None], None]


class Crashed(BaseException):  # no Exception: nothing that is dead handles its own death
    """The process died at this disk operation; every later one of the same life raises it too."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long jobs take: most about ``fast_s`` seconds, some about ``slow_s``, few ``stall_s``.

    ``inline`` is the probability that a small log job runs inside ``submit`` if its lane is idle.
    """

    fast_s: float = 0.0005
    slow_s: float = 0.02
    stall_s: float = 3.0
    slow_odds: float = 0.02
    stall_odds: float = 0.0
    inline: float = 0.5

    def draw(self, random: Random) -> float:
        """The duration of a job, in seconds."""
        kind = random.random()
        if kind < self.stall_odds:
            return self.stall_s * random.uniform(0.5, 1.5)
        mean = self.slow_s if kind < self.stall_odds + self.slow_odds else self.fast_s
        return mean * (0.2 + 0.8 * random.expovariate(1.0))


FAST = Latency()
SLOW = Latency(fast_s=0.01, slow_s=0.2, slow_odds=0.1, inline=0.0)
STALLING = Latency(slow_odds=0.1, stall_odds=0.02)


@dataclass(slots=True)
class _Lane:
    """What waits, what runs, and what ended and was not reported yet."""

    queued: deque[tuple[Callable[[], Any], Done]] = field(default_factory=deque)
    ended: deque[tuple[Done, Any, BaseException | None]] = field(default_factory=deque)
    running: bool = False

    @property
    def idle(self) -> bool:
        return not (self.queued or self.ended or self.running)


class Lanes:
    """Both lanes of one life; ``alive`` says whether it still lasts."""

    def __init__(
        self,
        schedule: Schedule | None,
        latency: Callable[[], Latency],
        random: Random,
        alive: Callable[[], bool],
    ) -> None:
        self._schedule = schedule
        self._latency = latency
        self._random = random
        self._alive = alive
        self._lanes = {"log": _Lane(), "background": _Lane()}

    def submit(self, name: str, job: Callable[[], Any], done: Done, size: int) -> None:
        """Run ``job`` after those before it in its lane; `Crashed` comes out of inline jobs."""
        lane = self._lanes.get(name)
        if lane is None:
            raise MisuseError(f"there is no lane {name!r}; known: log, background")
        if self._schedule is None or (
            name == "log"
            and lane.idle
            and size <= INLINE_SIZE
            and self._random.random() < self._latency().inline
        ):
            done(*_run(job))
            return
        lane.queued.append((job, done))
        if not lane.running:
            self._start(lane, self._schedule)

    def drain(self) -> None:
        """Run what is queued; nobody hears of it."""
        for lane in self._lanes.values():
            lane.ended.clear()
            while lane.queued:
                _run(lane.queued.popleft()[0])

    def _start(self, lane: _Lane, schedule: Schedule) -> None:
        lane.running = True

        def run() -> None:
            if not self._alive() or not lane.queued:
                return
            job, done = lane.queued.popleft()
            try:
                outcome = _run(job)
            except Crashed:
                return  # whoever watches the disk knows; there is nobody left to tell
            lane.ended.append((done, *outcome))
            schedule(0.1 * self._latency().draw(self._random), deliver)
            lane.running = False
            if lane.queued:
                self._start(lane, schedule)

        def deliver() -> None:
            if self._alive() and lane.ended:
                done, result, error = lane.ended.popleft()
                done(result, error)

        schedule(self._latency().draw(self._random), run)


def _run(job: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return job(), None
    except Exception as error:  # whoever gave the job decides
        return None, error
