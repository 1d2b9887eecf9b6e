"""The cluster as a client sees it: who takes part, who leads, and how both are changed.

Every change is a wish that may be repeated: it is sent to whoever leads until it is done, so a
change of leader on the way shows as nothing but a longer wait. Nothing here decides what is safe;
the leader refuses what would lose the majority. It serves users and the command line.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .client import Route
from .config import parse_address
from .errors import DeadlineError, MembershipError, UnavailableError
from .session import Session
from .types import Address, MemberInfo, MemberType

PAUSE_S = 0.02
PAUSE_MAX_S = 0.2
ANSWER_S = 1.0
"""Seconds after which a member is asked again: it may be gone without a word."""
_DONE = "done"
_REFUSED = "refused"


class Cluster:
    """``cc.cluster``: members and leadership. All ``timeout`` are in seconds.

    What changes something raises `MembershipError` if the cluster refuses it, with the reason, and
    `DeadlineError` if it is not done in time; it may still be done then, and asking again is safe.
    """

    def __init__(self, session: Session, route: Route) -> None:
        self._session = session
        self._route = route

    # -- what is known without asking ----------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The cluster's id in hexadecimal digits; None before the first contact."""
        return None if self._route.cluster is None else self._route.cluster.hex()

    @property
    def leader(self) -> str | None:
        """The member that leads, as far as this process has heard."""
        return self._route.leader

    @property
    def term(self) -> int:
        """The term of that leader."""
        return self._route.term

    # -- questions -----------------------------------------------------------------------------

    async def members(self, *, timeout: float | None = None) -> list[MemberInfo]:
        """All members by the committed configuration, voters first."""
        fields = await self._ask("members", [], timeout)
        return [
            MemberInfo(name, parse_address(address), uuid, MemberType(type_))
            for name, address, uuid, type_ in fields["members"]
        ]

    async def member(self, name: str, *, timeout: float | None = None) -> MemberInfo:
        """One member; raises ``LookupError`` if there is none of that name."""
        for each in await self.members(timeout=timeout):
            if each.name == name:
                return each
        raise LookupError(f"there is no member {name!r}")

    # -- changes -------------------------------------------------------------------------------

    async def add(
        self,
        name: str,
        address: str | Address,
        *,
        type: MemberType = MemberType.ACTIVE,
        timeout: float | None = None,
    ) -> None:
        """Keep a place for a member that will be opened with ``join=``.

        Whoever comes first under this name gets it. An ACTIVE member becomes a voter as soon as it
        has caught up, a PASSIVE one stays a learner. Nobody has to be added beforehand who may be
        ACTIVE: joining adds them.
        """
        where = str(parse_address(address))
        await self._wish("add", [name, where, b"", type.value], timeout)

    async def remove(self, name: str, *, timeout: float | None = None) -> None:
        """Take a member out, the leader included; its process stops when it hears of it."""
        await self._wish("remove", [name], timeout)

    async def promote(self, name: str, *, timeout: float | None = None) -> None:
        """Make a learner a voter; waits until it has caught up."""
        await self._wish("promote", [name], timeout)

    async def demote(self, name: str, *, timeout: float | None = None) -> None:
        """Make a voter a learner: it follows and does not vote."""
        await self._wish("demote", [name], timeout)

    async def transfer_leadership(
        self, to: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Let another voter lead: ``to``, or whoever is best prepared."""
        before = (await self._ask("members", [], timeout))["leader"]
        await self._wish("lead", [to, before], timeout)

    async def snapshot(self, *, timeout: float | None = None) -> int:
        """Have the leader save its state now; returns, once that is durable, its index.

        Raises `CopycatError` if the state cannot be encoded, and `DeadlineError` if it is not saved
        in time (on a full disk, for example; the leader's log says why).
        """
        seconds = self._session.timeout if timeout is None else timeout
        index: int = await self._ask("snapshot", [], seconds)
        leader, saved = self.leader, 0
        try:
            async with asyncio.timeout(seconds):
                while saved < index:
                    status = await self._ask("status", [], seconds)
                    saved = status["snapshot_index"] if status["name"] == leader else saved
                    if saved < index:
                        await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise DeadlineError(
                f"the snapshot at index {index} was not saved within {seconds:g} s",
                hint=f"the log of {leader} says why, if it failed",
            ) from None
        return index

    # -- helpers -------------------------------------------------------------------------------

    async def _ask(self, name: str, arguments: list[object], timeout: float | None) -> Any:
        """Ask whoever answers, again if the connection breaks."""
        seconds = self._session.timeout if timeout is None else timeout
        why = "nobody answered"
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        async with asyncio.timeout(ANSWER_S):
                            return await self._session.admin(name, arguments)
                    except TimeoutError:
                        why = f"no answer for {ANSWER_S:g} s"
                    except UnavailableError as problem:
                        why = str(problem)
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise DeadlineError(f"{name}: no answer within {seconds:g} s ({why})") from None

    async def _wish(self, name: str, arguments: list[object], timeout: float | None) -> None:
        """Repeat a wish until it is done."""
        seconds = self._session.timeout if timeout is None else timeout
        why, pause = "nobody answered", PAUSE_S
        try:
            async with asyncio.timeout(seconds):
                while True:
                    word, why, *_ = await self._ask(name, arguments, seconds)
                    if word == _DONE:
                        return
                    if word == _REFUSED:
                        raise MembershipError(f"{name}: {why}")
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, PAUSE_MAX_S)
        except TimeoutError:
            raise DeadlineError(
                f"{name} was not done within {seconds:g} s: {why}. It may still be",
                hint="ask again: a change that was made already is not made twice",
            ) from None


__all__ = ["Cluster"]
