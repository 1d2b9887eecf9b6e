"""Claims: asking for something that may have to be waited for, so that nothing is ever leaked.

The client half of a `LineMachine`. However an acquisition ends, by a grant, a timeout or a
cancellation at any moment, either the caller has what was granted or the claim is withdrawn. What
it means to have it, is said by a subclass.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, ClassVar, TypeVar

from ..errors import (
    CopycatError,
    DeadlineError,
    OutcomeUnknownError,
    SessionExpiredError,
    UnknownResourceError,
)
from ..types import Consistency, SessionState
from .base import Duration, Resource, seconds_of
from .line import GRANTED, Claim, LineMachine

M = TypeVar("M", bound=LineMachine)


class Claims(Resource[M]):
    """Makes claims, waits for what they are granted, and withdraws them."""

    _noun: ClassVar[str]
    _outlives: ClassVar[bool] = False  # whether a grant is good although the session has ended

    def _terms(self) -> list[Any]:
        """What the machine's ``acquire`` gets after claim, name and whether to wait."""
        return []

    def _check_entry(self, resource: int) -> None:
        """Raise if the running task must not ask now."""

    def _have(self, claim: bytes, grant: Any) -> Any:
        """What the caller gets for a grant; from here on the caller answers for it."""
        raise NotImplementedError

    async def _obtain(self, *, wait: bool, timeout: Duration) -> Any:
        """What a claim was granted; None if it would have had to wait and ``wait`` is not set.

        A claim ends with its session: if that ends before the grant has come, a new claim is made
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

    async def _claim(self, *, wait: bool, seconds: float) -> Any:
        """Make one claim, and wait for its grant."""
        fresh = self._opened is None
        opened = await self._ready((), seconds)
        self._check_entry(opened.resource)
        claim = _Waiting(self._access.new_claim())
        registration, _ = self._session.listen(
            opened.resource, GRANTED, claim.granted, shared=False, on_gap=claim.gap
        )
        had: Any = None
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                grant = await self._grant(claim, wait, seconds)
            if grant:
                had = self._have(claim.id, grant)
            return had
        except UnknownResourceError:
            if not (fresh and claim.gone is None and self._renew(opened)):
                raise
        except TimeoutError as problem:
            if isinstance(problem, CopycatError):
                raise
            raise self._late(seconds) from None
        finally:
            self._session.unlisten(registration)
            if had is None and (wait or claim.maybe_granted):
                self._quietly("release", [claim.id])
        return await self._claim(wait=wait, seconds=seconds)

    async def _grant(self, claim: _Waiting, wait: bool, seconds: float) -> Any:
        claim.maybe_granted = True
        arguments = [claim.id, self._access.name, wait, *self._terms()]
        grant = await self._command("acquire", arguments, seconds)
        if not grant:
            if not wait:
                claim.maybe_granted = False
                return None
            grant = await claim.grant
        if self._outlives:
            return grant
        # The grant may be old news: after a pause, only an answer to something sent later shows
        # that the session, and so what it was granted, still exists.
        alive = self._session.lifetime.reliable or await self._session.lifetime.settled()
        if claim.gone is not None:
            raise claim.gone
        if not alive:
            raise SessionExpiredError(f"the session ended while waiting for {self.path!r}")
        return grant

    def _late(self, seconds: float) -> DeadlineError:
        """The error for a claim that was withdrawn because its time was over."""
        return DeadlineError(
            f"{self._noun} {self.path!r} was not obtained within {seconds:.1f} s; "
            "the claim was withdrawn",
            applied="no",
            hint="ask waiters() who is in front, and who holds it",
        )

    async def _line(self, consistency: Consistency | None, timeout: Duration) -> list[Claim]:
        return [Claim(*c) for c in await self._query("line", [], consistency, timeout)]


class _Waiting:
    """A claim on its way to its grant."""

    def __init__(self, id_: bytes) -> None:
        self.id = id_
        self.grant: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.gone: CopycatError | None = None
        self.maybe_granted = False

    def granted(self, value: Any, index: int) -> None:
        """An event said what somebody was granted."""
        claim, grant = value
        if claim == self.id and not self.grant.done():
            self.grant.set_result(grant)

    def gap(self, error: CopycatError) -> None:
        """The session or the resource is gone, and the claim with it."""
        self.gone = error
        if not self.grant.done():
            self.grant.set_exception(error)
            self.grant.exception()  # it may be that nobody waits for it yet
