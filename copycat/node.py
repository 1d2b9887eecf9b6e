"""Opening: the only file that chooses real doors and wires a member or a client together.

`open` starts a member inside this process and hands out a `CopycatServer`; `connect` a client.
`RunningMember` is the wiring itself, with the doors as an argument, so that local clusters and
simulations start members through the same lines.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random as chance
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, NoReturn, cast

from . import handles
from ._core import COMPILED
from .config import ServerOptions, server_options
from .config_file import machine_classes, read_settings
from .errors import (
    ConfigurationError,
    CopycatError,
    MembershipError,
    MisuseError,
    SecurityError,
    UnavailableError,
    WrongClusterError,
)
from .handles import Copycat, CopycatClient
from .handshake import Refusal
from .machine import StateMachine, checked_machines, type_name_of
from .network import RealNetwork
from .ports import Clock, Disk, Network, Random
from .raft import RaftOptions
from .raft.ready import HardState
from .resources import BUILT_IN_MACHINES
from .serializer import Serializer
from .server.applier import Applier
from .server.asking import Asking
from .server.bootstrap import Bootstrap
from .server.clock import RealClock
from .server.disk import RealDisk
from .server.effects import RosterHeard
from .server.gateway import Gateway
from .server.identity import Identity, load_identity
from .server.joining import Joining
from .server.links import Links
from .server.member import Member, MemberOptions
from .server.memory_disk import MemoryDisk
from .server.pump import Pump
from .server.roster import Roster, have_others
from .server.store import Store
from .server.vigil import Vigil
from .types import Address

log = logging.getLogger("copycat.node")

Duration = float | timedelta


@dataclass(frozen=True, slots=True)
class Doors:
    """The four ways out of a process."""

    network: Network
    disk: Disk
    clock: Clock
    random: Random


class RunningMember:
    """One member from its recovery to its end, on the running event loop."""

    def __init__(
        self,
        options: ServerOptions,
        doors: Doors,
        machines: Iterable[type[StateMachine]],
        serializer: Serializer | None = None,
    ) -> None:
        self.options = options
        self.name = options.name
        self._doors = doors
        self._machines = _by_name(machines)
        self._serializer = serializer
        self._bootstrap: Bootstrap | None = None
        self._gateway: Gateway | None = None
        self._links: Links | None = None
        self._pump: Pump | None = None
        self._vigil: Vigil | None = None
        self._store: Store | None = None
        self._asking: asyncio.Task[None] | None = None
        self._refusals: set[str] = set()
        self.member: Member | None = None
        self.identity: Identity | None = None
        self.address: Address | None = None

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover, find or found the cluster, and take part in it.

        Waits as long as other members are needed for the founding, and says for whom. Raises
        `ConfigurationError`, and `StorageError` for what is wrong with the data directory.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        options, doors = self.options, self._doors
        for line in options.warnings():
            log.warning("%s", line)
        if not COMPILED:
            log.warning(
                "the compiled core is missing: this member runs the slower pure Python mode. "
                "Reinstall with a C compiler, or use a wheel: pip install --no-cache-dir "
                "--force-reinstall copycat-raft"
            )
        doors.disk.lock()
        members = dict(options.members)
        founders = None if options.join else members or [self.name]
        identity = load_identity(doors.disk, self.name, founders, doors.random)
        self._gateway = Gateway(
            self.name, doors.network, self._asked,
            max_clients=options.max_connections, priority=options.priority,
        )  # fmt: skip
        listen = options.listen or Address("127.0.0.1", 0)
        self.address = await self._gateway.listen(listen)
        if self.name not in members or members[self.name].port == 0:
            members[self.name] = self.address
        self.identity = identity = await self._belong(identity, members)
        self._run(identity, members)

    async def _belong(self, identity: Identity, members: Mapping[str, Address]) -> Identity:
        """Found or find the cluster that this member is of."""
        options, doors = self.options, self._doors
        if options.join or identity.joined is not None:
            if identity.founded:
                return identity
            here = members[self.name]
            return await Joining(
                identity, here, options.join, doors.disk, doors.network, doors.random
            ).run()
        self._bootstrap = Bootstrap(identity, members, doors.disk, doors.network, doors.random)
        return await self._bootstrap.run()

    def _run(self, identity: Identity, members: Mapping[str, Address]) -> None:
        options, doors = self.options, self._doors
        index, roster = identity.told
        told = (index, roster.relocated(members))
        loop = asyncio.get_running_loop()
        applier = Applier(self._machines, self._serializer or Serializer())
        self._store = store = Store(
            doors.disk,
            identity.cluster,
            identity.uuid,
            segment_bytes=options.segment_bytes,
            on_saved=self._saved,
            on_durable=self._durable,
        )
        state = store.recover(lambda *left: have_others(self.name, told, *left))
        if state is not None:
            applier.restore(state)
        raft = RaftOptions(election_timeout=options.election_timeout, heartbeat=options.heartbeat)
        self.member = Member(
            self.name,
            told,
            store,
            applier,
            options=MemberOptions(
                raft, snapshot_bytes=options.snapshot_bytes, priority=options.priority
            ),
            random=Random(doors.random.random()),
            now=doors.clock.now(),
            wall_us=int(doors.clock.wall() * 1e6),
        )
        self._links = links = Links(identity, doors.network, doors.random, on_refusal=self._refused)
        gateway = self._required(self._gateway)
        self._pump = pump = Pump(
            self.member, doors.disk, doors.clock, links, gateway, loop, name=self.name
        )
        gateway.start(identity, told[1].seats, pump.push, links.nudge)
        links.start(told[1].seats, pump.push, pump.fail)
        pump.start()
        member = self.member
        self._vigil = Vigil(
            self.name, lambda: member.leadership[1], links.problems, doors.clock, loop
        )
        self._ask_around(identity)
        self._look_where_we_are(members[self.name])

    def _look_where_we_are(self, here: Address) -> None:
        """Warn if the others will look for this member somewhere else."""
        seats = self._required(self.member).seats
        seat = seats.get(self.name)
        if seat is not None and len(seats) > 1 and seat.address != here:
            log.warning(
                "the cluster knows %s at %s, but this process is at %s, where nobody will look for "
                "it: open it with listen= (or advertise=) as before, copycat serve --listen %s",
                self.name, seat.address, here, seat.address,
            )  # fmt: skip

    def _ask_around(self, identity: Identity) -> None:
        """Have a member that hears of no leader ask wherever it was told that somebody is."""
        member, links = self._required(self.member), self._required(self._links)
        options, doors = self.options, self._doors
        others = [where for name, where in options.members.items() if name != self.name]
        asking = Asking(
            identity,
            [*options.join, *others],
            linked=lambda: links.addresses,
            is_lost=lambda: member.leadership[1] is None,
            shown=lambda: links.shown,
            on_refusal=self._refused,
            network=doors.network,
            random=doors.random,
        )
        task = asyncio.get_running_loop().create_task(asking.run(), name="copycat-asking")
        self._asking = task
        task.add_done_callback(self._asked_around)

    def _asked_around(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._pump is not None:
            self._pump.fail(error)

    async def stop(self) -> None:
        """Stop taking part; everything that was promised is on disk already."""
        self._hang_up()
        await asyncio.sleep(0)  # let the closing connections leave
        self._doors.disk.close()  # lets jobs under way end, and closes every file
        self._store = None

    def _hang_up(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        for part in (self._vigil, self._pump, self._links, self._gateway):
            if part is not None:
                part.close()
        self._vigil = self._pump = self._links = self._gateway = None

    @property
    def failed(self) -> asyncio.Future[BaseException] | None:
        """Done, with the error, when the member had to stop by itself."""
        return None if self._pump is None else self._pump.failed

    def check(self) -> None:
        """Raise what made the member stop by itself, if it did."""
        if self.failed is not None and self.failed.done():
            raise self.failed.result()

    async def settled(self) -> None:
        """Wait until this member knows a leader; raises what made it stop instead.

        Its client may have found the leader through another member, while this one is refused.
        """
        while self.status()["leader"] is None:
            self.check()
            await asyncio.sleep(0.01)
        self.check()

    @property
    def known_addresses(self) -> set[Address]:
        """Where it looks for the other members."""
        linked = set() if self._links is None else self._links.addresses
        return linked.union(self.options.join, self.options.members.values())

    def status(self) -> dict[str, object]:
        """Where this member stands."""
        if self.member is None:
            return {"name": self.name, "role": "founding"}
        return self.member.status()

    # -- wires ---------------------------------------------------------------------------------

    def _asked(self, connection: Any, payload: bytes) -> None:
        if self._bootstrap is not None:
            self._bootstrap.on_ask(connection, payload)

    def _refused(self, peer: str, refusal: Refusal) -> None:
        """A peer does not want us: if we are not of its cluster, going on would be pointless."""
        if self.member is None or self._pump is None:
            return
        index, encoded = refusal.configuration
        if index:
            self._pump.push(RosterHeard(index, Roster.decode(encoded)))
        status = self.member.status()
        if status["peers_up"]:
            self._refusals.clear()  # some know us, and the others will
            return
        if refusal.code in (WrongClusterError.code, SecurityError.code, MembershipError.code):
            self._refusals.add(peer)
        others = [voter for voter in cast("list[str]", status["voters"]) if voter != self.name]
        # One peer that refuses us may itself be the stranger; we are, if most of them do.
        if 2 * len(self._refusals.intersection(others)) <= len(others):
            return
        if refusal.code == MembershipError.code:
            problem: CopycatError = MembershipError(
                f"{peer} refuses {self.name}: {refusal.message}",
                hint="to bring it back, remove its data directory and open it with join=[...]",
            )
        else:
            problem = WrongClusterError(
                f"{peer} refuses {self.name}: {refusal.message}. Nothing was changed",
                hint="give this member the data directory it was founded with, or the members "
                "of its own cluster",
            )
        self._pump.fail(problem)

    def _saved(self, state: HardState) -> None:
        self._required(self.member).hard_state_saved(state)

    def _durable(self, index: int) -> None:
        self._required(self.member).log_durable(index)

    @staticmethod
    def _required(part: Any) -> Any:
        if part is None:
            raise MisuseError("the member is not running")
        return part


class CopycatServer(Copycat):
    """A member of a cluster inside this process, with the same face as a client's."""

    def __init__(self, client: CopycatClient, running: RunningMember) -> None:
        super().__init__(client._access, client.cluster)
        self._running = running

    @property
    def name(self) -> str:
        """The member's name."""
        return self._running.name

    @property
    def address(self) -> Address:
        """Where the member listens."""
        if self._running.address is None:
            raise MisuseError("the member is not running")
        return self._running.address

    @property
    def failed(self) -> asyncio.Future[BaseException] | None:
        """Done, with the error, when the member had to stop by itself (a bad disk, say)."""
        return self._running.failed

    def status(self) -> dict[str, object]:
        """Where this member stands: role, term, leader, indexes. No I/O."""
        return self._running.status()

    def __repr__(self) -> str:
        status = self.status()
        return (
            f"<CopycatServer {self.name} {status['role']} term={status.get('term', 0)} "
            f"commit={status.get('commit_index', 0)} applied={status.get('applied_index', 0)} "
            f"leader={status.get('leader')}>"
        )


class Opening:
    """What `open` returns: ``async with copycat.open(...) as cc``."""

    def __init__(self, running: Callable[[], RunningMember], client: dict[str, Any]) -> None:
        self._make = running
        self._client_options = client
        self._running: RunningMember | None = None
        self._connection: handles.Connecting | None = None

    async def __aenter__(self) -> CopycatServer:
        if self._running is not None:
            raise MisuseError("this member is open already", hint="call copycat.open() again")
        self._running = running = self._make()
        await running.start()
        try:
            client = await self._connect(running)
        except BaseException:
            await running.stop()
            raise
        return CopycatServer(client, running)

    async def _connect(self, running: RunningMember) -> CopycatClient:
        """The member's own client; waits, audibly, until there is a leader."""
        options = running.options
        addresses = [running.address, *options.members.values(), *options.join]
        waited = 0
        while True:
            self._connection = connect(
                [address for address in addresses if address is not None and address.port],
                name=running.name,
                **self._client_options,
            )
            try:
                client = await self._connection.__aenter__()
            except UnavailableError as problem:
                running.check()
                if waited % 6 == 0:
                    log.warning("%s waits for a leader: %s", running.name, problem)
                waited += 1
                continue
            try:
                await running.settled()
            except BaseException:
                await self._connection.__aexit__(*sys.exc_info())
                raise
            return client

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._connection is not None:
                await self._connection.__aexit__(exc_type, exc, traceback)
        finally:
            if self._running is not None:
                await self._running.stop()

    def __await__(self) -> Generator[Any, None, NoReturn]:
        raise TypeError("open() is not awaited: use  async with copycat.open(...) as cc:")

    def __enter__(self) -> NoReturn:
        raise TypeError("use  async with copycat.open(...) as cc:")

    def __exit__(self, *exc: object) -> None:
        """Never reached."""

    def __getattr__(self, name: str) -> NoReturn:
        raise handles.not_entered(name, "open(...)")


def open(  # the name of the API
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
) -> Opening:
    """A member of a cluster in this process: ``async with copycat.open(...) as cc``.

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
    settings: dict[str, Any] = {
        "name": name, "listen": listen, "advertise": advertise, "data": data, "members": members,
        "join": None if join is None else join if isinstance(join, str) else list(join),
        "machines": machines, "storage": storage, "fsync": fsync, "timeout": timeout,
        "election_timeout": election_timeout, "heartbeat": heartbeat,
        "session_timeout": session_timeout, "segment_bytes": segment_bytes,
        "snapshot_bytes": snapshot_bytes, "priority": priority,
    }  # fmt: skip
    if config is not None:
        settings = read_settings(config, settings, os.environ)
    wanted = machine_classes(settings.pop("machines", None) or ())
    patience = settings.pop("timeout", None)
    options = server_options(**settings)
    _by_name(wanted)

    def running() -> RunningMember:
        disk: Disk
        if options.storage == "memory":
            disk = MemoryDisk()
        else:
            disk = RealDisk(str(options.data), fsync=options.fsync == "always")
        return RunningMember(options, real_doors(disk), wanted, types)

    client = {
        "machines": wanted,
        "types": types,
        "timeout": 5.0 if patience is None else patience,
        "session_timeout": options.session_timeout,
    }
    return Opening(running, client)


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
) -> handles.Connecting:
    """A client of a cluster: ``async with copycat.connect("host:port,host:port") as cc``.

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
    return handles.connect(
        addresses,
        network=RealNetwork(),
        clock=RealClock(),
        random=chance.SystemRandom(),  # the session's secret must not be foreseeable
        machines=machines,
        name=name,
        serializer=types,
        timeout=timeout,
        session_timeout=session_timeout,
        keep_alive=keep_alive,
        in_flight=in_flight,
    )


def real_doors(disk: Disk) -> Doors:
    """This machine's network and clocks, and chance from the operating system."""
    seed = chance.SystemRandom().getrandbits(256)
    return Doors(RealNetwork(), disk, RealClock(), Random(seed))


def _by_name(machines: Iterable[type[StateMachine]]) -> dict[str, type[StateMachine]]:
    found: dict[str, type[StateMachine]] = {type_name_of(cls): cls for cls in BUILT_IN_MACHINES}
    for cls in checked_machines(machines):
        name = type_name_of(cls)
        known = found.setdefault(name, cls)
        if known is not cls:
            raise ConfigurationError(
                f"two machines are called {name!r}: {known.__module__} and {cls.__module__}",
                hint="give one of them another type_name",
            )
    return found


__all__ = ["CopycatServer", "Doors", "Opening", "RunningMember", "connect", "open", "real_doors"]
