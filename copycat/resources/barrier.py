"""A barrier for the whole cluster: parties wait for each other, and go on together; then again.

A party whose session ends, or whose wait is cancelled, is not there any more. The line is a
`LineMachine`; nothing is held.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Any, cast

from ..errors import DeadlineError, SessionExpiredError
from ..machine import command, query
from ..types import Consistency
from .agreed import agreed, own_number, settling
from .base import Access, Duration, seconds_of
from .claims import Claims
from .line import LINE_MAX, Claim, LineMachine, check_claim

PARTIES_MAX = LINE_MAX
BROKEN = -1


class BarrierMachine(LineMachine):
    """Who is there already. A grant is [position], or [BROKEN]."""

    type_name = "copycat.barrier"

    def __init__(self) -> None:
        super().__init__()
        self.parties = 0  # until somebody has said it
        self.is_broken = False

    @command
    def acquire(self, claim: bytes, name: str, wait: bool, parties: int | None = None) -> list[int]:
        """Arrive: [position] if that makes all parties, else []; wait in the latter case."""
        check_claim(claim, name)
        self.parties = agreed(self.parties, parties, "parties", PARTIES_MAX)
        if self.is_broken:
            return [BROKEN]
        there = len(self.waiting)
        if claim not in self.waiting and there + 1 >= self.parties:
            for position, (other, waiter) in enumerate(self.waiting.items()):
                self.granted.publish([other, [position]], to=waiter[1])
            self.waiting.clear()
            return [there]
        if wait:
            self._line_up(claim, name, None)
        return []

    @command
    def reset(self) -> None:
        """Send everybody away, and begin anew."""
        self._send_away()
        self.is_broken = False

    @command
    def abort(self) -> None:
        """Send everybody away, and whoever comes, until it is reset."""
        self._send_away()
        self.is_broken = True

    @query
    def state(self) -> list[Any]:
        """[how many wait, whether it is broken]."""
        return [len(self.waiting), self.is_broken]

    def _send_away(self) -> None:
        for claim, waiter in self.waiting.items():
            self.granted.publish([claim, [BROKEN]], to=waiter[1])
        self.waiting.clear()


class AsyncBarrier(Claims[BarrierMachine]):
    """As ``asyncio.Barrier``; the first use settles the number of parties.

    ``async with barrier as position`` waits for the others before the body; so does `wait`. Raises
    `ConflictError` if others have settled another number; with ``parties=None`` a handle takes
    whatever there is.
    """

    machine = BarrierMachine
    _noun = "barrier"
    _outlives = True

    def __init__(self, access: Access, path: str, parties: int | None = None) -> None:
        super().__init__(access, path)
        self._parties = own_number(parties, "parties", PARTIES_MAX)

    @property
    def parties(self) -> int | None:
        """How many have to come, as this handle was told."""
        return self._parties

    async def wait(self, *, timeout: Duration = None) -> int:
        """Wait for the others, for ``timeout`` seconds or as long as the session lives.

        Returns this party's place in the order of arrival, from 0: each party gets another one.
        Whoever is cancelled or gives up is not there any more; the others wait on.

        Raises:
            asyncio.BrokenBarrierError: somebody called `reset` meanwhile, or `abort` before it.
            DeadlineError: the others did not come in time.
            SessionExpiredError: it is not known whether the others have gone on.
        """
        seconds = math.inf if timeout is None else seconds_of(timeout)
        try:
            with settling(self.path, "parties", self._parties):
                position = cast(int, await self._claim(wait=True, seconds=seconds))
        except SessionExpiredError as problem:
            raise SessionExpiredError(
                f"the session ended while waiting at {self.path!r}: {problem}",
                hint="the others may have gone on with this party, or wait for it; when in doubt "
                "reset() the barrier",
                applied="unknown",
            ) from None
        if position == BROKEN:
            raise asyncio.BrokenBarrierError(f"barrier {self.path!r} was reset or aborted")
        return position

    async def reset(self, *, timeout: Duration = None) -> None:
        """Make it as new; who waits gets a ``BrokenBarrierError``."""
        await self._command("reset", [], timeout)

    async def abort(self, *, timeout: Duration = None) -> None:
        """Break it: who waits or comes gets a ``BrokenBarrierError``, until it is reset."""
        await self._command("abort", [], timeout)

    async def n_waiting(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> int:
        """How many wait."""
        return int((await self._query("state", [], consistency, timeout))[0])

    async def broken(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether it was aborted."""
        return bool((await self._query("state", [], consistency, timeout))[1])

    async def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits, in the order of arrival."""
        return await self._line(consistency, timeout)

    async def __aenter__(self) -> int:
        return await self.wait()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held."""

    def _terms(self) -> list[Any]:
        return [self._parties]

    def _have(self, claim: bytes, grant: Any) -> int:
        return cast(int, grant[0])

    def _late(self, seconds: float) -> DeadlineError:
        return DeadlineError(
            f"barrier {self.path!r} did not open within {seconds:.1f} s",
            hint="ask n_waiting(); if it opened at the last moment, the others count this party in",
        )
