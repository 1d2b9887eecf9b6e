"""A membership group: who is there, with what properties; whoever dies is out with its session.

Members are listed in the order of their joining. The machine is pure, and is a line in which nobody
waits: each claim is granted a membership at once. `MembershipGroup` is the client half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

from ..errors import (
    CopycatError,
    DeadlineError,
    MisuseError,
    OverloadedError,
    Rejected,
    SessionExpiredError,
)
from ..machine import command, event, query
from ..scopes import Held
from ..types import Consistency, EventType
from .base import Access, Duration, Resource, seconds_of
from .claims import Claims
from .line import LineMachine, check_claim
from .subscription import Subscription

MEMBERS_MAX = 10_000
PROPERTIES_BYTES_MAX = 64 << 10
GROUP_BYTES_MAX = 8 << 20
"""Names and properties of all members: one answer must have room for them."""

CHANGED = "changed"
_JOINED, _LEFT, _CHANGE = EventType.JOINED.value, EventType.LEFT.value, EventType.CHANGE.value


class GroupMachine(LineMachine):
    """claim -> [token, name, session, properties]; tokens rise strictly, so it stays in order."""

    type_name = "copycat.group"
    changed = event(list[Any])  # [kind, member, properties before]

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[bytes, list[Any]] = {}
        self.bytes = 0
        self.last_token = 0

    @command
    def acquire(self, claim: bytes, name: str, wait: bool, properties: dict[str, Any]) -> int:
        """Join; the token of the membership."""
        check_claim(claim, name)
        if claim in self.members:
            return cast(int, self.members[claim][0])
        if len(self.members) >= MEMBERS_MAX:
            raise OverloadedError(f"the group has {MEMBERS_MAX} members, its limit")
        self._make_room(_checked_size(properties) + _size(name))
        # Never twice the same, though several sessions may act at one index.
        self.last_token = max(self.commit.index, self.last_token + 1)
        member = self.members[claim] = [self.last_token, name, self.commit.session, properties]
        self.changed.publish([_JOINED, member, None])
        return self.last_token

    @command
    def update(self, claim: bytes, properties: dict[str, Any]) -> bool:
        """Give a member other properties; whether it is one."""
        member = self.members.get(claim)
        if member is None:
            return False
        before = member[3]
        self._make_room(_checked_size(properties) - _size(before))
        member[3] = properties
        self.changed.publish([_CHANGE, member, before])
        return True

    @command
    def release(self, claim: bytes) -> bool:
        """Leave; whether it was a member."""
        if claim not in self.members:
            return False
        self._leave(claim)
        return True

    @query
    def view(self) -> list[Any]:
        """[the index of this state, [[token, name, session, properties], ...]]."""
        return [self.commit.index, list(self.members.values())]

    def on_close(self, session: int) -> None:
        """An ended session is a member of nothing."""
        for claim in [c for c, member in self.members.items() if member[2] == session]:
            self._leave(claim)

    def on_delete(self, session: int) -> None:
        """Nobody is a member any more."""
        self.commit.dismiss(member[2] for member in self.members.values())

    def _leave(self, claim: bytes) -> None:
        member = self.members.pop(claim)
        self.bytes -= _size(member[3]) + _size(member[1])
        self.changed.publish([_LEFT, member, None])

    def _make_room(self, more: int) -> None:
        if more > 0 and self.bytes + more > GROUP_BYTES_MAX:
            raise OverloadedError(
                f"the properties of the group's members have {self.bytes} bytes, {more} more are "
                f"too many: {GROUP_BYTES_MAX} is the limit"
            )
        self.bytes += more


def _checked_size(properties: object) -> int:
    """The size of a member's properties; raises `Rejected` unless they are some."""
    if type(properties) is not dict or any(type(key) is not str for key in properties):
        raise Rejected("properties are a dict whose keys are strings")
    size = _size(properties)
    if size > PROPERTIES_BYTES_MAX:
        raise Rejected(f"properties of {size} bytes are too large: {PROPERTIES_BYTES_MAX} at most")
    return size


def _size(value: object) -> int:
    """How many bytes a value takes in an answer at most."""
    if isinstance(value, str):
        return 5 + len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (bytes, bytearray)):
        return 5 + len(value)
    if isinstance(value, dict):
        return 5 + sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return 11 + sum(map(_size, value))
    if isinstance(value, int):
        return 16 + value.bit_length() // 4
    return 64 if value is None or isinstance(value, float) else 64 + len(str(value))


# -- the caller's side -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member as others see it; ``token`` names the membership and rises with every joining."""

    token: int
    name: str
    session: int
    properties: dict[str, Any]


@dataclass(frozen=True, slots=True)
class GroupEvent:
    """`JOINED`, `LEFT` or `CHANGE` (other properties; ``previous`` are those before).

    ``index`` is its place in the log; 0 for members that were there when the watch began.
    """

    type: EventType
    member: GroupMember
    previous: dict[str, Any] | None
    index: int


class Membership:
    """One's own membership, until `leave` or the end of the session.

    ``async with membership`` leaves at the end of the body; if the session is lost it cancels the
    body and raises `SessionExpiredError`. ``token`` is that of its `GroupMember`.
    """

    def __init__(self, place: _Place, properties: dict[str, Any]) -> None:
        self._place = place
        self._properties = properties

    @property
    def token(self) -> int:
        """Names the membership; rises with every joining of anybody."""
        return self._place.token

    @property
    def lost(self) -> asyncio.Event:
        """Set at the moment in which others may see this member go; it has to join again."""
        return self._place.lost

    @property
    def properties(self) -> dict[str, Any]:
        """As this process gave them last."""
        return dict(self._properties)

    def check(self) -> None:
        """Raise `SessionExpiredError` unless this is certainly a member still."""
        self._place.check()

    async def update(self, properties: Mapping[str, Any], *, timeout: Duration = None) -> None:
        """Replace the properties.

        Raises `SessionExpiredError` if the membership was lost, `Rejected` and `OverloadedError`
        if the properties are too large.
        """
        place = self._place
        place.must_stand()
        given = dict(properties)
        if not await place.joining.submit("update", place.claim, given, timeout=timeout):
            raise place.gone("the cluster does not know it any more")
        self._properties = given

    async def leave(self) -> None:
        """Leave; goes on even if the waiting for it is cancelled. Who was lost has left."""
        await self._place.give_up()

    async def __aenter__(self) -> Self:
        self._place.must_stand()
        self._place.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        place = self._place
        lost = place.lost.is_set() and not place.released
        try:
            place.leave(exc_type, exc)
        finally:
            await place.give_up()
        if exc_type is None and lost:  # the body held out against its cancellation
            raise place.gone()

    def __repr__(self) -> str:
        return f"<Membership of {self._place.joining.path!r} token={self.token}>"


class _Place(Held):
    """What a membership holds in the group."""

    def __init__(self, joining: _Joining, claim: bytes, token: int) -> None:
        super().__init__(token, claim, joining._session.lifetime, self._gone)
        self.joining = joining

    def _gone(self, reason: str) -> CopycatError:
        return SessionExpiredError(
            f"the membership in {self.joining.path!r} (token {self.token}) was lost: {reason}",
            hint="join again",
        )

    def gone(self, reason: str = "") -> CopycatError:
        """The error for who acts as a member and is none."""
        return self._gone(self._reason or reason)

    def must_stand(self) -> None:
        """Raise unless it is held."""
        if self.lost.is_set():
            raise self.gone()
        if self.released:
            raise MisuseError(f"this member of {self.joining.path!r} has left", hint="join again")

    async def give_up(self) -> None:
        """Leave the group, unless that has been done."""
        if self.released:
            return
        lost = self.lost.is_set()
        self._settle()
        left = self.joining._quietly("release", [self.claim])
        if left is not None and not lost:
            # Without an answer it is on its way, or ends with the session.
            await asyncio.wait([left], timeout=self.joining._session.timeout)

    def lose(self, reason: str) -> None:
        """It cannot be relied on; a scope gives it up when its body has ended."""
        if self.released or self.lost.is_set():
            return
        super().lose(reason)
        if not self.entered:
            # If the session should live after all, nobody may see a member that believes it is out.
            self.joining._quietly("release", [self.claim])

    def _settle(self) -> None:
        self.release()
        self.joining._access.let_go(self.joining._resource, self)


class _Joining(Claims[GroupMachine]):
    """One attempt to join: afterwards there is a membership, or no trace of it."""

    machine = GroupMachine
    _noun = "group"

    def __init__(self, access: Access, path: str, properties: dict[str, Any]) -> None:
        super().__init__(access, path)
        self._properties = properties

    async def membership(self, seconds: float) -> Membership:
        """The membership."""
        return cast(Membership, await self._obtain(wait=False, timeout=seconds))

    def _terms(self) -> list[Any]:
        return [self._properties]

    def _have(self, claim: bytes, grant: Any) -> Membership:
        place = _Place(self, claim, grant)
        self._access.hold(self._resource, place)
        return Membership(place, self._properties)

    def _late(self, seconds: float) -> DeadlineError:
        return DeadlineError(
            f"{self.path!r} was not joined within {seconds:.1f} s; the claim was withdrawn",
            applied="no",
        )


class MembershipGroup(Resource[GroupMachine]):
    """Who takes part: members with properties, in the order of their joining.

    A member is out when it leaves or when its session has ended by the cluster's time, not before;
    so one that died is listed for its session timeout. One client may join several times.
    """

    machine = GroupMachine

    async def join(
        self, properties: Mapping[str, Any] | None = None, *, timeout: Duration = None
    ) -> Membership:
        """Become a member: ``me = await group.join({"address": ...})``.

        Leave with `Membership.leave`, or use it as a scope, ``async with await group.join() as
        me``. A cancelled or failed `join` leaves no member behind. Properties are a dict with
        strings as keys and at most 64 KiB; 8 MiB for all members together. Raises `Rejected`,
        `OverloadedError`, `DeadlineError`.
        """
        known = self._session.timeout if self._timeout is None else self._timeout
        joining = _Joining(self._access, self._path, dict(properties or {}))
        return await joining.membership(known if timeout is None else seconds_of(timeout))

    async def members(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[GroupMember]:
        """The members, the one who joined first in front."""
        _, members = await self._query("view", [], consistency, timeout)
        return [GroupMember(*member) for member in members]

    def watch(self) -> Subscription[GroupEvent]:
        """The present members as `JOINED`, then every change, in order, none lost or doubled.

        It begins with its first step, or with ``async with``. When the session ends it raises
        `SessionExpiredError`: watch again, and it begins with those who are there then.
        """
        return Subscription(self, CHANGED, _event, self._present)

    async def _present(self) -> tuple[int, list[GroupEvent]]:
        index, members = await self._query("view", [], Consistency.LINEARIZABLE)
        joined = [GroupMember(*member) for member in members]
        return index, [GroupEvent(EventType.JOINED, member, None, 0) for member in joined]


def _event(value: Any, index: int) -> GroupEvent:
    kind, member, before = value
    return GroupEvent(EventType(kind), GroupMember(*member), before, index)
