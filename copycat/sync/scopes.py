"""What is held by a thread: ``with lock as held``, ``with election as term``.

Nobody can cancel the body of a thread. So a loss is told instead: ``held.lost`` is set,
`Held.check` raises, and so does the end of the ``with``. What is held belongs to the thread that
asked for it: asking again for what it holds is an error and not a deadlock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar, cast

from .. import scopes
from ..errors import LeadershipLost, SessionExpiredError
from ..resources.turns import Turns as AsyncTurns
from ..types import SessionState
from .base import Handle, Twin
from .portal import Portal

R = TypeVar("R")
T = TypeVar("T")


class Lost:
    """Whether something is lost; as ``threading.Event``, but set by the loss alone."""

    def __init__(self, portal: Portal, event: asyncio.Event) -> None:
        self._portal = portal
        self._event = event

    def is_set(self) -> bool:
        """Whether it is lost already; costs nothing, ask often."""
        self._portal.check()
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the loss, or ``timeout`` seconds; whether it is lost."""
        self._portal.check()
        with contextlib.suppress(TimeoutError):
            self._portal.run(self._wait(timeout))
        return self._event.is_set()

    async def _wait(self, timeout: float | None) -> None:
        async with asyncio.timeout(timeout):
            await self._event.wait()


class Held(Twin):
    """Something held by fencing token ``token`` until it is released or lost.

    A thread cannot be cancelled: ask `check` before each step that needs it, or wait for ``lost``
    in another thread. Pass the token along with whatever is written under its protection, so that
    late writes are refused there.
    """

    @property
    def _async(self) -> scopes.Held:
        return self._as(scopes.Held)

    @property
    def token(self) -> int:
        """Rises with every grant."""
        return self._async.token

    @property
    def claim(self) -> bytes:
        """The id under which it was asked for."""
        return self._async.claim

    @property
    def lost(self) -> Lost:
        """Set at the moment of the loss."""
        return Lost(self._portal, self._async.lost)

    @property
    def released(self) -> bool:
        """Whether it was given back."""
        return self._async.released

    def remaining(self) -> float:
        """Seconds for which it is certainly held even if the cluster does not answer any more."""
        return self._async.remaining()

    def check(self) -> None:
        """Raise the scope's error unless it is certainly still held."""
        self._async.check()


class Turns(Handle):
    """``with`` it: wait, hold, give back; the end raises the scope's error if it was lost.

    An exception of the body wins over that error, and carries a note about the loss.
    """

    @property
    def _async(self) -> AsyncTurns[Any]:
        return self._as(AsyncTurns)

    def __enter__(self) -> Held:
        turns = self._async
        held = cast(scopes.Held, self._run(turns._take(wait=True, timeout=None)))
        self._portal.entered.append((turns._holding, held))
        return Held(self._portal, held)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._portal.inherited:  # it is the parent's, and remains so
            return
        turns = self._async
        held = self._left(turns)
        if held is None:
            return
        was_lost = held.lost.is_set()
        if not held.released:
            self._run(_returned(turns, held))
        if was_lost and exc is None:
            raise held._error(held._reason)
        if was_lost and exc is not None:
            exc.add_note(f"meanwhile {turns.path!r} (token {held.token}) was lost")

    def _left(self, turns: AsyncTurns[Any]) -> scopes.Held | None:
        """What the innermost ``with`` of this thread over this handle holds."""
        entered = self._portal.entered
        for position in reversed(range(len(entered))):
            family, held = entered[position]
            if family is turns._holding:
                del entered[position]
                return held
        return None

    def _run(
        self,
        work: Coroutine[Any, Any, T],
        undo: Callable[[T], Coroutine[Any, Any, object]] | None = None,
    ) -> T:
        """What this thread holds counts as held by the task that works for it."""
        turns, mine = self._async, self._portal.mine

        async def given_back(result: T) -> None:
            if isinstance(result, scopes.Held):
                await turns._give_back(result)

        result = self._portal.run(work, undo or given_back, mine)
        if isinstance(result, scopes.Held):
            mine.append(result)
        return result


class Campaign(Turns):
    """What a thread does to lead."""

    def run(self, lead: Callable[[Held], R]) -> R:
        """Campaign, then ``lead(term)``; after a loss of leadership campaign again.

        ``lead`` has to ask ``term.check()`` now and then, since nobody can stop it. Returns what it
        returns, having resigned; an exception of it ends the campaign too, unless it is the
        `LeadershipLost` of this term.
        """
        while True:
            token = 0
            try:
                with self as term:
                    token = term.token
                    return lead(term)
            except LeadershipLost as loss:
                if loss.token != token:
                    raise
            except SessionExpiredError:  # under the new session, if there is one
                if token or self._async._session.state is SessionState.CLOSED:
                    raise


async def _returned(turns: AsyncTurns[Any], held: scopes.Held) -> None:
    if held.lost.is_set():
        turns._abandon(held)
    else:
        await turns._give_back(held)


__all__ = ["Campaign", "Held", "Lost", "Turns"]
