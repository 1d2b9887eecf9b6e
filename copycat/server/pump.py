"""The pump: turns the event loop's callbacks into the member's turns, and its effects into deeds.

Everything that comes in during one turn of the loop becomes one `Member.turn`; then frames are
written, then disk jobs start. It decides nothing. Whatever goes wrong in a turn stops the member:
half a turn must never be carried out (H88).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from ..errors import CopycatError
from ..ports import Clock, Disk
from .effects import Effects, Job, JobDone, MemberInput, Slept
from .roster import Seat

STALL_S = 0.1
"""Seconds that the loop may be busy elsewhere before that counts as a stall."""
STALL_LOG_INTERVAL = 10.0
QUIET_S = 2.0
"""Seconds after the start in which stalls are counted only."""
SLEEP_S = 0.001
"""Seconds by which the clock that counts sleep may be ahead of the other before that was one."""

log = logging.getLogger("copycat.pump")


class Turning(Protocol):
    """What the pump needs of a `Member`."""

    def turn(self, now: float, inputs: list[MemberInput]) -> Effects:
        """Take inputs in; say what has to be done."""


class PeerSide(Protocol):
    """What the pump needs of `Links`."""

    def send(self, peer: str, data: bytes) -> None: ...
    def follow(self, seats: Mapping[str, Seat], committed: tuple[int, bytes]) -> None: ...
    def close(self) -> None: ...


class ClientSide(Protocol):
    """What the pump needs of a `Gateway`."""

    def write(self, connection: int, data: bytes) -> None: ...
    def close_client(self, connection: int) -> None: ...
    def complain(self, connection: int, message: str) -> None: ...
    def announce(self, term: int, leader: str | None) -> None: ...
    def follow(self, seats: Mapping[str, Seat], committed: tuple[int, bytes]) -> None: ...
    def turn_done(self) -> None: ...
    def close(self) -> None: ...


class Pump:
    """Drives one member on one event loop. ``failed`` gets the error if the member has to stop.

    Belongs to the thread of ``loop``; `push` may be called from any of its callbacks.
    """

    def __init__(
        self,
        member: Turning,
        disk: Disk,
        clock: Clock,
        links: PeerSide,
        gateway: ClientSide,
        loop: asyncio.AbstractEventLoop,
        *,
        name: str = "",
    ) -> None:
        self.failed: asyncio.Future[BaseException] = loop.create_future()
        self.turns = 0
        self.stalls = 0
        self.longest_stall = 0.0  # seconds
        self._member = member
        self._disk = disk
        self._clock = clock
        self._links = links
        self._gateway = gateway
        self._loop = loop
        self._name = name
        self._inputs: list[MemberInput] = []
        self._scheduled = False
        self._scheduled_at = 0.0
        self._turning = False
        self._wake_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        # The first moments, in which modules are loaded and files prepared, are not worth a word.
        self._next_stall_line = clock.now() + QUIET_S
        self._asleep: float | None = None  # seconds slept so far, while that matters to the member
        self._closed = False

    def push(self, input_: MemberInput) -> None:
        """Hand an input to the member's next turn."""
        if self._closed:
            return
        self._inputs.append(input_)
        if not self._scheduled and not self._turning:
            self._schedule()

    def start(self) -> None:
        """Run the first turn."""
        if not self._scheduled:
            self._schedule()

    def close(self) -> None:
        """No turn and no effect happens any more. Links, gateway and disk are the caller's."""
        self._closed = True
        self._inputs.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fail(self, error: BaseException) -> None:
        """Stop the member because of ``error``: no more turns, every connection closed."""
        if self._closed:
            return
        # Our own errors say what to do; where in our code they arose helps nobody.
        unknown = None if isinstance(error, CopycatError) else error
        log.critical("%s stops: %s", self._name or "the member", error, exc_info=unknown)
        self.close()
        self._links.close()
        self._gateway.close()
        if not self.failed.done():
            self.failed.set_result(error)

    # -- turns ---------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._closed:
            self._scheduled = True
            self._scheduled_at = self._clock.now()
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        now = self._clock.now()
        if now - self._scheduled_at > STALL_S:
            self._stalled(now, now - self._scheduled_at, "others held the event loop")
        self._turning = True
        begun = now
        while True:
            inputs, self._inputs = self._inputs, []
            self.turns += 1
            if self._asleep is not None:
                self._look_for_sleep(now, inputs)
            try:
                effects = self._member.turn(now, inputs)
                if effects.sleep_matters and self._asleep is None:
                    self._asleep = self._time_asleep()  # before anything that rests on it leaves
                if effects.fatal is None:
                    self._carry_out(effects)
            except Exception as error:  # our own fault: the member must not go on
                self.fail(error)
                return
            if effects.fatal is not None:
                self.fail(effects.fatal)
                return
            now = self._clock.now()
            if not (effects.prompt and self._inputs):
                break
        self._turning = False
        if now - begun > STALL_S:
            self._stalled(now, now - begun, f"a turn with {len(inputs)} inputs")
        if self._inputs and not self._closed:
            # Nobody waits for the job that ended inline: let the loop look at the sockets first,
            # so that what has arrived meanwhile shares a turn with it.
            self._loop.call_soon(self._after_poll)
        self._wake(effects.wake_at, now)

    def _after_poll(self) -> None:
        if self._inputs and not self._scheduled:
            self._scheduled_at = self._clock.now()
            self._turn()

    def _carry_out(self, effects: Effects) -> None:
        for peer, frames in effects.peer_frames:
            self._links.send(peer, frames)
        for connection, frames in effects.client_frames:
            self._gateway.write(connection, frames)
        for connection, message in effects.complaints:
            self._gateway.complain(connection, message)
        for connection in effects.close:
            self._gateway.close_client(connection)
        if effects.seats is not None:
            self._links.follow(effects.seats, effects.committed)
            self._gateway.follow(effects.seats, effects.committed)
        if effects.leadership is not None:
            self._gateway.announce(*effects.leadership)
        self._gateway.turn_done()
        if effects.jobs:
            self._start_jobs(effects.jobs)  # what was written has left (see `FrameProtocol`)

    def _start_jobs(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if self._closed:
                return
            try:
                self._disk.submit(job.lane, job.run, partial(self._job_done, job), size=job.size)
            except Exception as error:  # a job that never ran would be waited for
                self.fail(error)

    def _job_done(self, job: Job, result: object, error: BaseException | None) -> None:
        self.push(JobDone(job, result, error))

    # -- time ----------------------------------------------------------------------------------

    def _wake(self, at: float, now: float) -> None:
        """Have a turn at clock time ``at``. A timer that is early only looks again."""
        self._wake_at = at
        if self._closed:
            return
        if at <= now:
            if not self._scheduled:
                self._schedule()
        elif at < self._timer_at:
            self._arm(at, now)

    def _arm(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        # Rounded up: some loops count in whole milliseconds and would fire too early.
        delay = math.ceil((at - now) * 1000) / 1000
        self._timer = self._loop.call_later(delay, self._woken)

    def _woken(self) -> None:
        self._timer = None
        due, self._timer_at = self._timer_at, math.inf
        if self._closed:
            return
        now = self._clock.now()
        if now - due > STALL_S:
            self._stalled(now, now - due, "a timer was late")
        if self._scheduled:
            return
        if now >= self._wake_at:
            self._schedule()
        elif self._wake_at < math.inf:  # (nothing may be due any more since it was set)
            self._arm(self._wake_at, now)

    def _time_asleep(self) -> float:
        """Seconds that only the clock knows which counts sleep; rather too few than too many."""
        suspended_too = self._clock.suspended_too()
        return suspended_too - self._clock.now()

    def _look_for_sleep(self, now: float, inputs: list[MemberInput]) -> None:
        """Tell the member first of all if the machine slept before ``now``."""
        if self._asleep is not None and self._clock.suspended_too() - now > self._asleep + SLEEP_S:
            inputs.insert(0, Slept())
            self._asleep = self._time_asleep()

    def _stalled(self, now: float, seconds: float, cause: str) -> None:
        self.stalls += 1
        self.longest_stall = max(self.longest_stall, seconds)
        if now >= self._next_stall_line:
            self._next_stall_line = now + STALL_LOG_INTERVAL
            log.warning(
                "%s: event loop blocked %.2f s (%s); heartbeats were late and leadership may be "
                "lost. Move blocking work to asyncio.to_thread. %d stalls so far",
                self._name or "member", seconds, cause, self.stalls,
            )  # fmt: skip
