"""Turns: one holder at a time, the others in line; and the scope of whatever is held.

`TurnsMachine` is what a lock and an election have in common, and pure. `Turns` is the client half
of every `SharesMachine`: it takes hold, cancels the body when the hold is lost, and gives it back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast

from ..errors import CopycatError, MisuseError
from ..machine import event
from ..scopes import Held
from ..types import Consistency
from .base import Access, Duration, retrieved
from .claims import Claims
from .line import Claim
from .shares import SharesMachine

M = TypeVar("M", bound=SharesMachine)

CHANGED = "changed"


class TurnsMachine(SharesMachine):
    """One holder; listeners hear who it is."""

    changed = event(list[Any])  # [name, session, token] of the holder, or []

    def on_delete(self, session: int) -> None:
        """As with all shares; listeners see that nobody holds it."""
        if self.holders:
            self.changed.publish([])
        super().on_delete(session)

    def _admits(self, terms: Any) -> bool:
        return not self.holders

    def _pass_on(self) -> None:
        super()._pass_on()
        if not self.holders:
            self.changed.publish([])

    def _grant(self, claim: bytes, name: str, session: int, terms: Any) -> int:
        token = super()._grant(claim, name, session, terms)
        self.changed.publish([name, session, token])
        return token


class Turns(Claims[M]):
    """The client half: takes hold, waits for it, gives it back, and never leaks it."""

    _noun = "turn"

    def __init__(self, access: Access, path: str) -> None:
        super().__init__(access, path)
        self._holding: list[Held] = []  # taken and not given back; lost ones included

    def _lost(self, token: int) -> Callable[[str], CopycatError]:
        """What makes the error for the loss of what is held with ``token``."""
        raise NotImplementedError

    async def _take(self, *, wait: bool, timeout: Duration) -> Held | None:
        """Take hold; None if it is somebody else's and ``wait`` is not set."""
        return cast("Held | None", await self._obtain(wait=wait, timeout=timeout))

    def _have(self, claim: bytes, grant: Any) -> Held:
        held = Held(grant, claim, self._session.lifetime, self._lost(grant))
        self._holding.append(held)
        self._access.hold(self._resource, held)
        return held

    def _check_entry(self, resource: int) -> None:
        for held in self._access.held.get(resource, ()):
            if not held.released and not held.lost.is_set() and held.task is asyncio.current_task():
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
        self._access.let_go(self._resource, held)
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

    async def _holders(self, consistency: Consistency | None, timeout: Duration) -> list[Claim]:
        return [Claim(*c) for c in await self._query("held", [], consistency, timeout)]

    async def _holder(self, consistency: Consistency | None, timeout: Duration) -> Claim | None:
        return next(iter(await self._holders(consistency, timeout)), None)
