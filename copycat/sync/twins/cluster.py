"""Generated from `copycat.cluster` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from ...cluster import Cluster as AsyncCluster
from ...types import Address, MemberInfo, MemberType
from ..base import Twin


class Cluster(Twin):
    """``cc.cluster``: members and leadership. All ``timeout`` are in seconds.

    What changes something raises `MembershipError` if the cluster refuses it, with the reason, and
    `DeadlineError` if it is not done in time; it may still be done then, and asking again is safe.
    """

    @property
    def _async(self) -> AsyncCluster:
        return self._as(AsyncCluster)

    @property
    def id(self) -> str | None:
        """The cluster's id in hexadecimal digits; None before the first contact."""
        return self._async.id

    @property
    def leader(self) -> str | None:
        """The member that leads, as far as this process has heard."""
        return self._async.leader

    @property
    def term(self) -> int:
        """The term of that leader."""
        return self._async.term

    def members(self, *, timeout: float | None = None) -> list[MemberInfo]:
        """All members by the committed configuration, voters first."""
        return self._run(self._async.members(timeout=timeout))

    def member(self, name: str, *, timeout: float | None = None) -> MemberInfo:
        """One member; raises ``LookupError`` if there is none of that name."""
        return self._run(self._async.member(name, timeout=timeout))

    def add(
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
        self._run(self._async.add(name, address, type=type, timeout=timeout))

    def remove(self, name: str, *, timeout: float | None = None) -> None:
        """Take a member out, the leader included; its process stops when it hears of it."""
        self._run(self._async.remove(name, timeout=timeout))

    def promote(self, name: str, *, timeout: float | None = None) -> None:
        """Make a learner a voter; waits until it has caught up."""
        self._run(self._async.promote(name, timeout=timeout))

    def demote(self, name: str, *, timeout: float | None = None) -> None:
        """Make a voter a learner: it follows and does not vote."""
        self._run(self._async.demote(name, timeout=timeout))

    def transfer_leadership(self, to: str | None = None, *, timeout: float | None = None) -> None:
        """Let another voter lead: ``to``, or whoever is best prepared."""
        self._run(self._async.transfer_leadership(to, timeout=timeout))

    def snapshot(self, *, timeout: float | None = None) -> int:
        """Have the leader save its state now; returns, once that is durable, its index.

        Raises `CopycatError` if the state cannot be encoded, and `DeadlineError` if it is not saved
        in time (on a full disk, for example; the leader's log says why).
        """
        return self._run(self._async.snapshot(timeout=timeout))


__all__ = ["Cluster"]
