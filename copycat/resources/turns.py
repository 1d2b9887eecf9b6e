"""Turns: one holder at a time, the others in line. What a lock and an election have in common.

A turn is owned by a *claim*, an id made by the client for one acquisition, not by its session: two
tasks of one process contend like strangers. The machine is pure; `Turns` is its client half.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar, cast

from ..errors import (
    CopycatError,
    DeadlineError,
    MisuseError,
    OutcomeUnknownError,
    OverloadedError,
    SessionExpiredError,
)
from ..machine import StateMachine, command, event, query
from ..scopes import Held
from ..types import Consistency, SessionState
from .base import Access, Duration, Resource, retrieved, seconds_of

M = TypeVar("M", bound="TurnsMachine")

GRANTED = "granted"
CHANGED = "changed"
LINE_MAX = 10_000
"""Claims that may wait for one turn."""


class TurnsMachine(StateMachine):
    """The holder and those who wait, first come first served.

    A token is the log index of its grant; tokens rise strictly.
    """

    granted = event(list[Any])  # [claim, token], to the session that holds now
    changed = event(list[Any])  # [name, session, token] of the holder, or []

    def __init__(self) -> None:
        self.holder: list[Any] = []  # [claim, name, session, token]
        self.waiting: dict[bytes, list[Any]] = {}  # claim -> [name, session]
        self.last_token = 0

    @command
    def acquire(self, claim: bytes, name: str, wait: bool) -> int:
        """The token if it is the claim's turn; 0 if it has to wait, or may not wait and left."""
        if self.holder and self.holder[0] == claim:
            return cast(int, self.holder[3])
        if not self.holder:
            self._grant(claim, name, self.commit.session)
            return cast(int, self.holder[3])
        if wait and claim not in self.waiting:
            if len(self.waiting) >= LINE_MAX:
                raise OverloadedError(f"{LINE_MAX} wait in line already")
            self.waiting[claim] = [name, self.commit.session]
        return 0

    @command
    def release(self, claim: bytes) -> bool:
        """End a turn or leave the line; whether it was the claim's turn."""
        if self.holder and self.holder[0] == claim:
            self._pass_on()
            return True
        self.waiting.pop(claim, None)
        return False

    @query
    def current(self) -> list[Any]:
        """[name, session, token] of the holder, or []."""
        return self.holder[1:]

    @query
    def line(self) -> list[Any]:
        """[name, session] of those who wait, the next one first."""
        return list(self.waiting.values())

    def on_close(self, session: int) -> None:
        """An ended session holds nothing and waits for nothing."""
        for claim in [c for c, waiter in self.waiting.items() if waiter[1] == session]:
            del self.waiting[claim]
        if self.holder and self.holder[2] == session:
            self._pass_on()

    def on_delete(self, session: int) -> None:
        """Nobody's turn comes any more: holder and line are told, watchers see that nobody leads.

        An administrator's act: the holder hears of it as soon as its connection stands, and until
        then it does not know. Tokens keep it safe: an index rises also over a deletion.
        """
        if self.holder:
            self.changed.publish([])
        owners = [self.holder[2]] if self.holder else []
        self.commit.dismiss(owners + [waiter[1] for waiter in self.waiting.values()])

    def _pass_on(self) -> None:
        self.holder = []
        for claim, (name, session) in self.waiting.items():
            del self.waiting[claim]
            self._grant(claim, name, session)
            self.granted.publish([claim, self.last_token], to=session)
            return
        self.changed.publish([])

    def _grant(self, claim: bytes, name: str, session: int) -> None:
        # Two grants can fall on one index, when several sessions end there.
        self.last_token = max(self.commit.index, self.last_token + 1)
        self.holder = [claim, name, session, self.last_token]
        self.changed.publish(self.holder[1:])


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds or waits: the client's name, its session, and the token (0 while waiting)."""

    name: str
    session: int
    token: int = 0


class Turns(Resource[M]):
    """The client half: takes a turn, waits for it, gives it back, and never leaks one."""

    _noun = "turn"

    def __init__(self, access: Access, path: str) -> None:
        super().__init__(access, path)
        self._holding: list[Held] = []  # taken and not given back; lost ones included

    def _lost(self, token: int) -> Callable[[str], CopycatError]:
        """What makes the error for the loss of the turn with ``token``."""
        raise NotImplementedError

    async def _take(self, *, wait: bool, timeout: Duration) -> Held | None:
        """Take a turn; None if it is somebody else's and ``wait`` is not set.

        A claim ends with its session: if that ends before the turn has come, a new claim is made
        under the next session, at the end of the line.
        """
        session, loop = self._session, asyncio.get_running_loop()
        until = math.inf if timeout is None else loop.time() + seconds_of(timeout)
        while True:
            id_ = session.id
            try:
                return await self._claim(wait=wait, seconds=max(0.0, until - loop.time()))
            except (SessionExpiredError, OutcomeUnknownError):
                if session.state is SessionState.CLOSED or session.id == id_ != 0:
                    raise

    async def _claim(self, *, wait: bool, seconds: float) -> Held | None:
        """Make one claim, and wait for its turn."""
        opened = await self._ready((), seconds)
        self._refuse_reentry(opened.resource)
        turn = _Waiting(self._access.new_claim())
        registration, _ = self._session.listen(
            opened.resource, GRANTED, turn.granted, shared=False, on_gap=turn.gap
        )
        held: Held | None = None
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                token = await self._token(turn, wait, seconds)
            if token:
                held = Held(token, turn.claim, self._session.lifetime, self._lost(token))
                self._holding.append(held)
                self._access.held[opened.resource] = held
            return held
        except TimeoutError as problem:
            if isinstance(problem, CopycatError):
                raise
            raise DeadlineError(
                f"{self._noun} {self.path!r} was not obtained within {seconds:.1f} s; "
                "the claim was withdrawn",
                applied="no",
                hint="ask holder() and waiters() who is in front",
            ) from None
        finally:
            self._session.unlisten(registration)
            if held is None and (wait or turn.maybe_held):
                self._quietly("release", [turn.claim])

    async def _token(self, turn: _Waiting, wait: bool, seconds: float) -> int:
        turn.maybe_held = True
        arguments = [turn.claim, self._access.name, wait]
        token = cast(int, await self._command("acquire", arguments, seconds))
        if token == 0:
            if not wait:
                turn.maybe_held = False
                return 0
            token = await turn.token
        # The grant may be old news: after a pause, only an answer to something sent later shows
        # that the session, and so the turn, still exists.
        alive = self._session.lifetime.reliable or await self._session.lifetime.settled()
        if turn.gone is not None:
            raise turn.gone
        if not alive:
            raise SessionExpiredError(f"the session ended while waiting for {self.path!r}")
        return token

    def _refuse_reentry(self, resource: int) -> None:
        held = self._access.held.get(resource)
        if (
            held is not None
            and not held.released
            and not held.lost.is_set()
            and held.task is asyncio.current_task()
        ):
            raise MisuseError(
                f"this task already holds {self.path!r} (token {held.token})",
                hint=f"a {self._noun} is not re-entrant; release it first",
            )

    async def _give_back(self, held: Held) -> None:
        """Release a turn; even if the waiting for it is cancelled, it is given back."""
        self._let_go(held)
        released = asyncio.ensure_future(self._command("release", [held.claim], math.inf))
        released.add_done_callback(retrieved)
        # Without an answer it is on its way, or the session ends and the turn with it.
        await asyncio.wait([released], timeout=self._session.timeout)

    def _abandon(self, held: Held) -> None:
        """A lost turn: if the session should live after all, do not keep others waiting."""
        self._let_go(held)
        self._quietly("release", [held.claim])

    def _let_go(self, held: Held) -> None:
        held.release()
        if not held.entered and held in self._holding:
            self._holding.remove(held)

    def _mine(self, *, entered: bool) -> Held | None:
        """What the running task holds through this handle, or else what was taken last."""
        task = asyncio.current_task()
        if entered:
            mine = [held for held in self._holding if held.entered and held.task is task]
            return mine[-1] if mine else None
        kept = [held for held in self._holding if not held.released]
        mine = [held for held in kept if held.task is task]
        best = mine or kept
        return best[-1] if best else None

    async def _exit(
        self, held: Held, exc_type: type[BaseException] | None, exc: BaseException | None
    ) -> None:
        """The body under ``held`` ended."""
        self._holding.remove(held)
        if held.released:
            held.leave(exc_type, exc)
        elif held.lost.is_set():
            self._abandon(held)
            held.leave(exc_type, exc)
        else:
            held.leave(exc_type, exc)
            await self._give_back(held)

    async def __aenter__(self) -> Held:
        held = cast(Held, await self._take(wait=True, timeout=None))
        held.enter()
        return held

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held = self._mine(entered=True)
        if held is not None:
            await self._exit(held, exc_type, exc)

    async def _holder(self, consistency: Consistency | None, timeout: Duration) -> Claim | None:
        found = await self._query("current", [], consistency, timeout)
        return Claim(*found) if found else None

    async def _line(self, consistency: Consistency | None, timeout: Duration) -> list[Claim]:
        return [Claim(*c) for c in await self._query("line", [], consistency, timeout)]


class _Waiting:
    """A claim on its way to its turn."""

    def __init__(self, claim: bytes) -> None:
        self.claim = claim
        self.token: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.gone: CopycatError | None = None
        self.maybe_held = False

    def granted(self, value: Any, index: int) -> None:
        """An event said whose turn it is."""
        claim, token = value
        if claim == self.claim and not self.token.done():
            self.token.set_result(token)

    def gap(self, error: CopycatError) -> None:
        """The session or the resource is gone, and the claim with it."""
        self.gone = error
        if not self.token.done():
            self.token.set_exception(error)
            self.token.exception()  # it may be that nobody waits for it yet
