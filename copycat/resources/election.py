"""Leader election among clients: one leader at a time, the candidates in line behind it.

``async with election as term`` waits for leadership, cancels the body when it is lost and raises
`LeadershipLost`. The state is a `TurnsMachine`; nothing here decides who comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from ..errors import CopycatError, LeadershipLost, MisuseError, SessionExpiredError
from ..scopes import Held
from ..types import Consistency, EventType, SessionState
from .base import Duration
from .line import Claim
from .turns import CHANGED, Turns, TurnsMachine

T = TypeVar("T")


class ElectionMachine(TurnsMachine):
    """Turns under a name of their own."""

    type_name = "copycat.election"


@dataclass(frozen=True, slots=True)
class ElectionEvent:
    """`ELECTED`: ``leader`` leads from here on; `RESIGNED`: nobody leads (``leader`` is None).

    ``index`` is its place in the log; 0 for the state at the beginning.
    """

    type: EventType
    leader: Claim | None
    index: int


class LeaderElection(Turns[ElectionMachine]):
    """An election; owned by the campaign, so that one client may be a candidate several times.

    A paused process cannot know that it was replaced: pass ``term.token`` to what it writes, or
    ask `is_leader` before critical work.
    """

    machine = ElectionMachine
    _noun = "election"

    async def run(self, lead: Callable[[Held], Awaitable[T]]) -> T:
        """Campaign, then ``lead(term)``; after a loss of leadership campaign again.

        Returns what ``lead`` returns, having resigned; an exception of it ends the campaign too.
        """
        while True:
            try:
                term = await self.__aenter__()
            except SessionExpiredError:
                if self._session.state is SessionState.CLOSED:
                    raise
                continue  # under the new session
            try:
                async with _Term(self, term):
                    return await lead(term)
            except LeadershipLost as loss:
                if loss.token != term.token:
                    raise

    async def resign(self) -> None:
        """Give up the leadership held through this handle; another task's body is cancelled."""
        term = self._mine(entered=False)
        if term is None:
            raise MisuseError(f"this handle does not lead {self.path!r}")
        if term.task is not asyncio.current_task():
            term.lose("it resigned")
        await self._give_back(term)

    async def leader(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> Claim | None:
        """Who leads."""
        return await self._holder(consistency, timeout)

    async def candidates(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits to lead, the next one first."""
        return await self._line(consistency, timeout)

    async def is_leader(
        self, token: int, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether the cluster confirms that the leadership with ``token`` still stands."""
        holder = await self._holder(consistency, timeout)
        return holder is not None and holder.token == token

    async def changes(self) -> AsyncIterator[ElectionEvent]:
        """The present leader, if any, then every change of leadership, in order.

        Raises `SessionExpiredError` if the session ended and changes may have been missed.
        """
        registration, inbox = await self._listen(CHANGED)
        try:
            leader = await self.leader()
            # What is queued already and older than this answer is part of it.
            known = 0 if leader is None else leader.token
            if leader is not None:
                yield ElectionEvent(EventType.ELECTED, leader, 0)
            while True:
                value, index = await inbox.get()
                if (value[2] if value else index) <= known or (not value and leader is None):
                    continue
                leader = Claim(*value) if value else None
                kind = EventType.RESIGNED if leader is None else EventType.ELECTED
                yield ElectionEvent(kind, leader, index)
        finally:
            self._session.unlisten(registration)

    def _lost(self, token: int) -> Callable[[str], CopycatError]:
        path = self.path
        return lambda reason: LeadershipLost(
            f"{path!r} (token {token}) was lost: {reason}", token=token
        )


class _Term:
    """The scope of a leadership that is already held."""

    def __init__(self, election: LeaderElection, term: Held) -> None:
        self._election = election
        self._term = term

    async def __aenter__(self) -> Held:
        return self._term

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._election._exit(self._term, exc_type, exc)
