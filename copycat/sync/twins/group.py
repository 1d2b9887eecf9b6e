"""Generated from `copycat.resources.group` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from ...resources.base import Duration
from ...resources.group import GroupEvent, GroupMember
from ...resources.group import Membership as AsyncMembership
from ...resources.group import MembershipGroup as AsyncMembershipGroup
from ...types import Consistency
from ..base import Handle, Twin
from .subscription import Subscription


class Membership(Twin):
    """One's own membership, until `leave` or the end of the session.

    ``with membership`` leaves at the end of the body; if the session is lost it cancels the
    body and raises `SessionExpiredError`. ``token`` is that of its `GroupMember`.
    """

    @property
    def _async(self) -> AsyncMembership:
        return self._as(AsyncMembership)

    @property
    def token(self) -> int:
        """Names the membership; rises with every joining of anybody."""
        return self._async.token

    @property
    def lost(self) -> asyncio.Event:
        """Set at the moment in which others may see this member go; it has to join again."""
        return self._async.lost

    @property
    def properties(self) -> dict[str, Any]:
        """As this process gave them last."""
        return self._async.properties

    def check(self) -> None:
        """Raise `SessionExpiredError` unless this is certainly a member still."""
        self._do(lambda: self._async.check())

    def update(self, properties: Mapping[str, Any], *, timeout: Duration = None) -> None:
        """Replace the properties.

        Raises `SessionExpiredError` if the membership was lost, `Rejected` and `OverloadedError`
        if the properties are too large.
        """
        self._run(self._async.update(properties, timeout=timeout))

    def leave(self) -> None:
        """Leave; goes on even if the waiting for it is cancelled. Who was lost has left."""
        self._run(self._async.leave())

    def __enter__(self) -> Self:
        self._run(self._async.__aenter__())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._portal.inherited:
            return
        self._run(self._async.__aexit__(exc_type, exc, traceback))


class MembershipGroup(Handle):
    """Who takes part: members with properties, in the order of their joining.

    A member is out when it leaves or when its session has ended by the cluster's time, not before;
    so one that died is listed for its session timeout. One client may join several times.
    """

    _kind = AsyncMembershipGroup

    @property
    def _async(self) -> AsyncMembershipGroup:
        return self._as(AsyncMembershipGroup)

    def join(
        self, properties: Mapping[str, Any] | None = None, *, timeout: Duration = None
    ) -> Membership:
        """Become a member: ``me = group.join({"address": ...})``.

        Leave with `Membership.leave`, or use it as a scope, ``with group.join() as
        me``. A cancelled or failed `join` leaves no member behind. Properties are a dict with
        strings as keys and at most 64 KiB; 8 MiB for all members together. Raises `Rejected`,
        `OverloadedError`, `DeadlineError`.
        """
        return Membership(self._portal, self._run(self._async.join(properties, timeout=timeout)))

    def members(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[GroupMember]:
        """The members, the one who joined first in front."""
        return self._run(self._async.members(consistency=consistency, timeout=timeout))

    def watch(self) -> Subscription[GroupEvent]:
        """The present members as `JOINED`, then every change, in order, none lost or doubled.

        It begins with its first step, or with ``with``. When the session ends it raises
        `SessionExpiredError`: watch again, and it begins with those who are there then.
        """
        return Subscription(self._portal, self._async.watch())


__all__ = ["Membership", "MembershipGroup"]
