"""Generated from `copycat.testing.local_cluster` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...machine import StateMachine
from ...node import RunningMember
from ...serializer import Serializer
from ...testing.local_cluster import LocalCluster as AsyncLocalCluster
from ...testing.local_cluster import local_cluster as async_local_cluster
from ...types import Address
from ..clients import Playground
from ..opening import Opening
from .handles import CopycatClient


class LocalCluster(Playground):
    """Members by name, a client of all of them, and the means to break things."""

    @property
    def _async(self) -> AsyncLocalCluster:
        return self._as(AsyncLocalCluster)

    @property
    def names(self) -> tuple[str, ...]:
        """All members that there ever were, running or not."""
        return self._do(lambda: self._async.names)

    @property
    def addresses(self) -> dict[str, Address]:
        """Where the members listen."""
        return self._do(lambda: self._async.addresses)

    @property
    def members(self) -> dict[str, RunningMember]:
        """The members that run, by name."""
        return self._do(lambda: self._async.members)

    @property
    def leader(self) -> str | None:
        """The member that leads in the highest term, if one does."""
        return self._do(lambda: self._async.leader)

    @property
    def client(self) -> CopycatClient:
        """A client that knows all members."""
        return CopycatClient(self._portal, self._do(lambda: self._async.client))

    def add(self, *, timeout: float = 10.0) -> str:
        """Start one more member, which joins the cluster; its name.

        Returns as soon as it votes. It is taken out again by ``client.cluster.remove(name)``.

        Raises:
            DeadlineError: it does not vote within ``timeout`` seconds.
        """
        return self._run(self._async.add(timeout=timeout))

    def kill(self, name: str | None) -> None:
        """End a member without a word to anybody; its disk keeps what was written."""
        self._run(self._async.kill(name))

    def stop(self, name: str) -> None:
        """Stop a member that runs; it stays one, and `restart` brings it back."""
        self._run(self._async.stop(name))

    def restart(self, name: str) -> None:
        """Start a killed or stopped member again on its data."""
        self._run(self._async.restart(name))

    def partition(self, *groups: Iterable[str]) -> None:
        """Let only members of the same group reach one another; clients reach everybody."""
        self._do(lambda: self._async.partition(*groups))

    def heal(self) -> None:
        """Everybody reaches everybody again."""
        self._do(lambda: self._async.heal())


def local_cluster(
    size: int = 3,
    *,
    machines: Iterable[type[StateMachine]] = (),
    data: str | Path | None = None,
    types: Serializer | None = None,
    **settings: Any,
) -> Opening[LocalCluster]:
    """A real cluster of ``size`` members in this process, on loopback.

    Args:
        size: members, named "n1", "n2", ...
        machines: your `StateMachine` classes.
        data: a directory for the members' data; in memory if None.
        types: a `Serializer` with your registered types.
        settings: further settings of `copycat.open`, the same for all members.

    Raises:
        ConfigurationError: for a size below 1 or a setting that cannot be.
    """
    return Opening(
        async_local_cluster(size, machines=machines, data=data, types=types, **settings),
        "sync.local_cluster(...)",
        LocalCluster,
    )


__all__ = ["LocalCluster", "local_cluster"]
