"""Generated from `copycat.node` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ...machine import StateMachine
from ...node import CopycatServer as AsyncCopycatServer
from ...node import Duration
from ...node import connect as async_connect
from ...node import open as async_open
from ...serializer import Serializer
from ...types import Address
from ..clients import Embedded
from ..opening import Opening
from .handles import Copycat, CopycatClient


class CopycatServer(Embedded, Copycat):
    """A member of a cluster inside this process, with the same face as a client's."""

    @property
    def _async(self) -> AsyncCopycatServer:
        return self._as(AsyncCopycatServer)

    @property
    def name(self) -> str:
        """The member's name."""
        return self._async.name

    @property
    def address(self) -> Address:
        """Where the member listens."""
        return self._async.address

    def status(self) -> dict[str, object]:
        """Where this member stands: role, term, leader, indexes. No I/O."""
        return self._do(lambda: self._async.status())


def connect(
    addresses: str | Iterable[str | Address],
    *,
    machines: Iterable[type[StateMachine]] = (),
    types: Serializer | None = None,
    name: str = "",
    timeout: Duration = 5.0,
    session_timeout: Duration = 5.0,
    keep_alive: Duration | None = None,
    in_flight: int = 8192,
) -> Opening[CopycatClient]:
    """A client of a cluster: ``with copycat.sync.connect("host:port,host:port") as cc``.

    Args:
        addresses: of some members; the others are learned from them.
        machines: your `StateMachine` classes that are used through this client.
        types: a `Serializer` with your registered types.
        name: how this client appears to others.
        timeout: default for operations, in seconds.
        session_timeout: after this silence, in seconds, the session ends and its locks are freed.
        keep_alive: seconds between keep-alives of an idle session.
        in_flight: commands that may be unanswered at a time, at most 8192.

    Raises:
        ConfigurationError: at once, for malformed settings.
        UnavailableError: on entering, if no leader was found within ``timeout``; says why.
    """
    return Opening(
        async_connect(
            addresses,
            machines=machines,
            types=types,
            name=name,
            timeout=timeout,
            session_timeout=session_timeout,
            keep_alive=keep_alive,
            in_flight=in_flight,
        ),
        "sync.connect(...)",
        CopycatClient,
    )


def open(
    name: str | None = None,
    *,
    listen: str | Address | None = None,
    advertise: str | Address | None = None,
    data: str | None = None,
    members: Mapping[str, str | Address] | None = None,
    join: Iterable[str | Address] | str | None = None,
    machines: Iterable[type[StateMachine]] | None = None,
    types: Serializer | None = None,
    storage: str | None = None,
    fsync: str | None = None,
    election_timeout: Duration | None = None,
    heartbeat: Duration | None = None,
    session_timeout: Duration | None = None,
    segment_bytes: int | None = None,
    snapshot_bytes: int | None = None,
    priority: int | None = None,
    timeout: Duration | None = None,
    config: str | os.PathLike[str] | None = None,
) -> Opening[CopycatServer]:
    """A member of a cluster in this process: ``with copycat.sync.open(...) as cc``.

    With nothing but ``data`` it is a durable cluster of one. With ``members`` (every founding
    member, this one included, the same list everywhere) and ``name`` it is one of several; entering
    waits until all of them are up for the founding, and later until a majority has a leader.

    Args:
        name: which of ``members`` this is; "n1" by default.
        listen: ``"host:port"`` to bind; by default this member's address in ``members``.
        advertise: ``"host:port"`` under which others reach it, if that differs.
        data: the data directory; needs ``storage="memory"`` if there is none.
        members: names and addresses.
        join: addresses of a running cluster: a member with an empty data directory asks to be
            added there, under its ``name``, and becomes a voter as soon as it has caught up. One
            that is a member already just starts. A name whose data was lost comes back so.
        machines: your `StateMachine` classes; the same on every member.
        types: a `Serializer` with your registered types.
        storage: "disk", or "memory" (nothing survives the process).
        fsync: "always"; "unsafe-never" only exists for comparisons.
        election_timeout, heartbeat, session_timeout: seconds.
        segment_bytes, snapshot_bytes: size of a log file; log applied between two snapshots.
        priority: from 0 to 1000, 1 by default: of several members that could lead, the highest
            should. A wish: whoever leads hands over to a higher one that is connected and level,
            and no priority keeps a cluster without a leader.
        timeout: default for operations, in seconds; 5 if nobody says anything.
        config: a TOML file with any of these settings but ``types``, ``machines`` by name as in
            ``["shop:Stock"]``. What is an argument here overrules it, and so does the environment
            (``COPYCAT_DATA``, ``COPYCAT_HEARTBEAT``, ...), which is looked at only if there is a
            file.

    Raises:
        ConfigurationError: at once, if a setting is missing or contradicts another.
        StorageError: on entering, if the data directory cannot be used.
    """
    return Opening(
        async_open(
            name,
            listen=listen,
            advertise=advertise,
            data=data,
            members=members,
            join=join,
            machines=machines,
            types=types,
            storage=storage,
            fsync=fsync,
            election_timeout=election_timeout,
            heartbeat=heartbeat,
            session_timeout=session_timeout,
            segment_bytes=segment_bytes,
            snapshot_bytes=snapshot_bytes,
            priority=priority,
            timeout=timeout,
            config=config,
        ),
        "sync.open(...)",
        CopycatServer,
    )


__all__ = ["CopycatServer", "connect", "open"]
