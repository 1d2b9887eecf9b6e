"""A real cluster inside one process, on loopback sockets: for development and tests.

Members are the production ones; they keep their data in memory or, with ``data``, on disk. They can
be killed, restarted and partitioned. Nothing is faked but the disk in memory and the cuts in the
network.
"""

from __future__ import annotations

import asyncio
import random as chance
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, cast

from .. import handles
from ..config import server_options
from ..errors import ConfigurationError, DeadlineError, MisuseError
from ..handles import CopycatClient, not_entered
from ..machine import StateMachine, checked_machines
from ..network import RealNetwork, RealServer
from ..node import Doors, RunningMember
from ..ports import Disk, Random
from ..serializer import Serializer
from ..server.clock import RealClock
from ..server.disk import RealDisk
from ..server.memory_disk import MemoryDisk
from ..types import Address
from .ports import free_ports


class _Cuts:
    """Which pairs of members cannot reach one another."""

    def __init__(self) -> None:
        self.pairs: set[frozenset[str]] = set()
        self.names: dict[Address, str] = {}
        self.connections: dict[frozenset[str], list[asyncio.Transport]] = {}

    def between(self, one: str, address: Address) -> frozenset[str]:
        """The pair of a member and whoever listens at ``address``."""
        return frozenset((one, self.names.get(address, "")))

    def cut(self, pairs: set[frozenset[str]]) -> None:
        """From now on exactly ``pairs`` are cut: their connections go silent."""
        self.pairs = pairs
        for pair in pairs:
            for transport in self.connections.pop(pair, ()):
                transport.abort()


class _CuttableNetwork(RealNetwork):
    """A member's network, through which a partition can go."""

    def __init__(self, name: str, cuts: _Cuts) -> None:
        super().__init__()
        self._name = name
        self._cuts = cuts

    async def listen(
        self, address: Address, factory: Callable[[], asyncio.BufferedProtocol]
    ) -> RealServer:
        """Listen, and be known under this address."""
        server = await super().listen(address, factory)
        self._cuts.names[server.address] = self._name
        return server

    async def connect(
        self, address: Address, factory: Callable[[], asyncio.BufferedProtocol]
    ) -> tuple[asyncio.Transport, asyncio.BufferedProtocol]:
        """Connect, unless a partition is in between: then nobody answers."""
        pair = self._cuts.between(self._name, address)
        if pair in self._cuts.pairs:
            raise TimeoutError(110, "a partition of the local cluster is in between")
        transport, protocol = await super().connect(address, factory)
        known = self._cuts.connections.setdefault(pair, [])
        known[:] = [each for each in known if not each.is_closing()]
        known.append(transport)
        return transport, protocol


class LocalCluster:
    """Members by name, a client of all of them, and the means to break things."""

    def __init__(
        self,
        names: tuple[str, ...],
        machines: tuple[type[StateMachine], ...],
        data: Path | None,
        types: Serializer | None,
        settings: dict[str, Any],
    ) -> None:
        self._machines = machines
        self._data = data
        self._types = types
        self._settings = settings
        self._founders = names
        self._cuts = _Cuts()
        ports = zip(names, free_ports(len(names)), strict=True)
        self._addresses = {name: Address("127.0.0.1", port) for name, port in ports}
        self._disks: dict[str, MemoryDisk] = {}
        self._running: dict[str, RunningMember] = {}
        self._clients: dict[str, handles.Connecting] = {}
        self._client: CopycatClient | None = None

    # -- what it shows -------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """All members that there ever were, running or not."""
        return tuple(self._addresses)

    @property
    def addresses(self) -> dict[str, Address]:
        """Where the members listen."""
        return dict(self._addresses)

    @property
    def members(self) -> dict[str, RunningMember]:
        """The members that run, by name."""
        return dict(self._running)

    @property
    def leader(self) -> str | None:
        """The member that leads in the highest term, if one does."""
        leading = [
            (member.member.term, name)
            for name, member in self._running.items()
            if member.member is not None and member.member.leading
        ]
        return max(leading)[1] if leading else None

    @property
    def client(self) -> CopycatClient:
        """A client that knows all members."""
        if self._client is None:
            raise MisuseError("enter the cluster first: async with local_cluster(...) as cluster")
        return self._client

    def connect(self, **options: Any) -> handles.Connecting:
        """Another client: ``async with cluster.connect() as cc``; options as in `copycat.connect`.

        ``only`` names the members it may know.
        """
        only: Iterable[str] = options.pop("only", self.names)
        return handles.connect(
            [self._addresses[name] for name in only],
            network=RealNetwork(),
            clock=RealClock(),
            random=chance.SystemRandom(),
            machines=self._machines,
            serializer=self._types,
            **options,
        )

    # -- breaking and mending ------------------------------------------------------------------

    async def add(self, *, timeout: float = 10.0) -> str:
        """Start one more member, which joins the cluster; its name.

        Returns as soon as it votes. It is taken out again by ``client.cluster.remove(name)``.

        Raises:
            DeadlineError: it does not vote within ``timeout`` seconds.
        """
        name = f"n{len(self._addresses) + 1}"
        (port,) = free_ports(1)
        self._addresses[name] = Address("127.0.0.1", port)
        try:
            async with asyncio.timeout(timeout):
                await self._start(name)
                while not self._votes(name):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise DeadlineError(f"{name} does not vote after {timeout:g} s") from None
        return name

    def _votes(self, name: str) -> bool:
        return name in cast("list[str]", self._running[name].status().get("voters", []))

    async def kill(self, name: str | None) -> None:
        """End a member without a word to anybody; its disk keeps what was written."""
        member = self._running.pop(self._known(name), None)
        if member is None:
            raise MisuseError(f"{name} does not run")
        await member.stop()

    async def stop(self, name: str) -> None:
        """Stop a member that runs; it stays one, and `restart` brings it back."""
        await self.kill(name)

    async def restart(self, name: str) -> None:
        """Start a killed or stopped member again on its data."""
        if self._known(name) in self._running:
            raise MisuseError(f"{name} is running")
        await self._start(name)

    def partition(self, *groups: Iterable[str]) -> None:
        """Let only members of the same group reach one another; clients reach everybody."""
        where = {name: position for position, group in enumerate(groups) for name in group}
        names = self.names
        self._cuts.cut(
            {
                frozenset((one, other))
                for one in names
                for other in names
                if one != other and where.get(one, -1) != where.get(other, -1)
            }
        )

    def heal(self) -> None:
        """Everybody reaches everybody again."""
        self._cuts.cut(set())

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all members and connect the client."""
        async with asyncio.TaskGroup() as group:
            for name in self.names:
                group.create_task(self._start(name))
        connecting = self._clients["client"] = self.connect(name="client")
        self._client = await connecting.__aenter__()

    async def close(self) -> None:
        """Stop everything."""
        for connecting in self._clients.values():
            await connecting.__aexit__(None, None, None)
        for name in list(self._running):
            await self.kill(name)

    async def _start(self, name: str) -> None:
        disk: Disk
        if self._data is None:
            disk = self._disks.setdefault(name, MemoryDisk())
        else:
            disk = RealDisk(str(self._data / name))
        settings: dict[str, Any] = {
            "storage": "memory" if self._data is None else "disk",
            "data": None if self._data is None else str(self._data / name),
            **self._settings,
        }
        options = server_options(name=name, **self._way_in(name), **settings)
        seed = Random(chance.SystemRandom().getrandbits(64))
        doors = Doors(_CuttableNetwork(name, self._cuts), disk, RealClock(), seed)
        member = RunningMember(options, doors, self._machines, self._types)
        self._cuts.names[self._addresses[name]] = name
        await member.start()
        self._running[name] = member

    def _way_in(self, name: str) -> dict[str, Any]:
        """How a member finds the others: founders know each other, whoever is added joins."""
        if name in self._founders:
            return {"members": {each: self._addresses[each] for each in self._founders}}
        here = self._addresses[name]
        others = [str(each) for each in self._addresses.values() if each != here]
        return {"listen": str(here), "join": others}

    def _known(self, name: str | None) -> str:
        if name not in self._addresses:
            raise ConfigurationError(
                f"there is no member {name!r} in this cluster; it has: {', '.join(self.names)}"
            )
        return name


class Starting:
    """What `local_cluster` returns: ``async with local_cluster(3) as cluster``."""

    def __init__(self, make: Callable[[], LocalCluster]) -> None:
        self._make = make
        self._cluster: LocalCluster | None = None

    async def __aenter__(self) -> LocalCluster:
        self._cluster = cluster = self._make()
        try:
            await cluster.start()
        except BaseException:
            await cluster.close()
            raise
        return cluster

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._cluster is not None:
            await self._cluster.close()

    def __await__(self) -> Generator[Any, None, NoReturn]:
        raise TypeError("use  async with copycat.local_cluster(3) as cluster:")

    def __getattr__(self, name: str) -> NoReturn:
        raise not_entered(name, "local_cluster(...)", "cluster")


def local_cluster(
    size: int = 3,
    *,
    machines: Iterable[type[StateMachine]] = (),
    data: str | Path | None = None,
    types: Serializer | None = None,
    **settings: Any,
) -> Starting:
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
    if size < 1:
        raise ConfigurationError(f"a cluster has at least one member, not {size}")
    names = tuple(f"n{i}" for i in range(1, size + 1))
    chosen = checked_machines(machines)
    root = None if data is None else Path(data)
    return Starting(lambda: LocalCluster(names, chosen, root, types, dict(settings)))


__all__ = ["LocalCluster", "Starting", "local_cluster"]
