"""A fake cluster for the client's tests: real sockets, real desk and machines, no Raft, no disk.

Its members share one applier, as if replication were perfect and instant. What tests need to be
imperfect is: who leads, which connections stand, and whether answers arrive.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from copycat._core.codec import Frame
from copycat._core.kernel import batch_runs, encode_run, seal_batch
from copycat._core.layout import Kind
from copycat.connection import FrameProtocol
from copycat.handles import Connecting, CopycatClient, connect
from copycat.handshake import Hello, Welcome, pack_control
from copycat.machine import StateMachine, type_name_of
from copycat.network import RealNetwork
from copycat.ports import Server
from copycat.resources import BUILT_IN_MACHINES
from copycat.serializer import Serializer
from copycat.server.applier import Applier
from copycat.server.clock import RealClock
from copycat.server.desk import Desk
from copycat.types import Address

CLUSTER = b"C" * 16
TICK = 0.02


class FakeCluster:
    """Members n1, n2, ... and one state; ``leader`` is a member's name or None."""

    def __init__(self, count: int, machines: Iterable[type[StateMachine]] = ()) -> None:
        types: list[type[StateMachine]] = [*BUILT_IN_MACHINES, *machines]
        self.types = {type_name_of(machine): machine for machine in types}
        self.applier = Applier(self.types, Serializer())
        self.members = {f"n{i + 1}": FakeMember(f"n{i + 1}", self) for i in range(count)}
        self.leader: str | None = None
        self.term = 0
        self.kinds: list[int] = []  # of every run that was logged
        self.mute: set[int] = set()  # frame types that never reach a client
        self.deaf = False  # frames of clients stay unread
        self.index = 0
        self.now_us = 1_000_000
        self._since = asyncio.get_running_loop().time()
        self._ticker: asyncio.TimerHandle | None = None

    async def start(self, leader: str = "n1") -> None:
        for member in self.members.values():
            await member.start()
        self.elect(leader)
        self._tick()

    def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        for member in self.members.values():
            member.kill()

    @property
    def addresses(self) -> list[Address]:
        return [member.address for member in self.members.values()]

    def elect(self, name: str | None) -> None:
        """Make ``name`` the leader of a new term; None: there is no leader."""
        if self.leader is not None:
            self.members[self.leader].desk.deposed()
            self.members[self.leader].flush()
        self.leader = name
        if name is not None:
            self.term += 1
            arguments = Serializer(opaque=True).pack([name, sorted(self.types)])
            self.log([encode_run(Kind.INITIALIZE, 0, 0, 0, [(0, 0, arguments)])])
            self.applier.take()
            self.members[name].desk.began_serving()
        for member in self.members.values():
            member.announce()

    def log(self, runs: list[bytes]) -> None:
        """Log and apply ``runs`` as one batch."""
        elapsed = asyncio.get_running_loop().time() - self._since
        time_us = max(self.now_us + int(elapsed * 1e6), self.applier.time_us)
        image = seal_batch(runs, self.index + 1, self.term, time_us)
        described = batch_runs(image)
        self.kinds += [run[0] for run in described]
        self.index += sum(run[4] for run in described)
        self.applier.apply(image)

    def expire_all(self) -> None:
        """Let every session's timeout pass at once, in log time."""
        self.now_us += 3_600_000_000
        self.log([encode_run(Kind.TICK, 0, 0, 0, [(0, 0, b"\x90")])])
        leader = self.members.get(self.leader or "")
        if leader is not None:
            leader.answer()

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(TICK, self._tick)
        leader = self.members.get(self.leader or "")
        if leader is not None and leader.alive:
            self.log([encode_run(Kind.TICK, 0, 0, 0, [(0, 0, b"\x90")])])
            leader.answer()


class FakeMember:
    """One listening member; also the `Host` of its desk."""

    def __init__(self, name: str, cluster: FakeCluster) -> None:
        self.name = name
        self.cluster = cluster
        self.desk = Desk(cluster.applier, self)
        self.alive = False
        self.overload = 0  # that many runs are refused
        self.connected = 0  # connections that were ever made
        self.complaints: list[str] = []
        self.address = Address("127.0.0.1", 0)
        self._server: Server | None = None
        self._connections: dict[int, FrameProtocol] = {}
        self._due = False

    async def start(self) -> None:
        self._server = await RealNetwork().listen(self.address, self._accept)
        self.address = self._server.address
        self.alive = True

    def kill(self) -> None:
        """Stop listening and break every connection."""
        self.alive = False
        if self._server is not None:
            self._server.close()
        self.drop()

    def drop(self) -> None:
        """Break every connection."""
        for protocol in list(self._connections.values()):
            protocol.abort()

    @property
    def leading(self) -> bool:
        return self.cluster.leader == self.name

    serving = leading

    def lease_index(self) -> None:
        return None

    @property
    def last_index(self) -> int:
        return self.cluster.applier.index

    def overloaded(self, size: int = 0) -> bool:
        self.overload -= 1
        return self.overload >= 0

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def admin(self, name: str, arguments: list[object]) -> object:
        if name != "status":
            raise LookupError(f"there is no admin request {name!r}")
        return {"name": self.name, "arguments": arguments}

    def announce(self) -> None:
        addresses = {name: str(each.address) for name, each in self.cluster.members.items()}
        frame = pack_control(Frame.LEADER, [self.cluster.term, self.cluster.leader, addresses])
        for protocol in self._connections.values():
            protocol.write(frame)

    def answer(self) -> None:
        self.desk.answer(self.cluster.applier.take())
        self.flush()

    def flush(self) -> None:
        frames, close = self.desk.take_frames()
        for number, data in frames:
            protocol = self._connections.get(number)
            if protocol is not None:
                protocol.write(_without(data, self.cluster.mute))
        for number in close:
            self._connections[number].close()
        self.complaints += [message for _, message in self.desk.take_complaints()]

    def _accept(self) -> FrameProtocol:
        self.connected += 1
        number = self.connected
        protocol = FrameProtocol(
            lambda type_, payload: self._frame(number, type_, payload),
            lambda _: self._lost(number),
        )
        self._connections[number] = protocol
        return protocol

    def _lost(self, number: int) -> None:
        self._connections.pop(number, None)
        self.desk.gone(number)

    def _frame(self, number: int, type_: int, payload: bytes) -> None:
        if type_ == Frame.HELLO:
            Hello.parse(payload)
            cluster = self.cluster
            members = {name: str(m.address) for name, m in cluster.members.items()}
            welcome = Welcome(CLUSTER, self.name, b"M" * 16, cluster.term, cluster.leader, members)
            self._connections[number].write(welcome.frame())
            self._connections[number].established()
            return
        if self.cluster.deaf:
            return
        self.desk.frame(number, type_, payload)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._due = False
        read = self.desk.take_read()
        if read is not None and self.cluster.leader is not None:
            self.desk.reads_settled([(read, self.cluster.applier.index)], ())
        elif read is not None:
            self.desk.reads_settled((), [read])
        runs, self.desk.runs = self.desk.runs, []
        if runs:
            self.cluster.log(runs)
        if self.leading:
            self.desk.answer(self.cluster.applier.take())
        self.desk.answer_queries()
        self.flush()


def _without(data: bytes, mute: set[int]) -> bytes:
    kept = []
    while data:
        size = 8 + int.from_bytes(data[:4], "little")
        if data[4] not in mute:
            kept.append(data[:size])
        data = data[size:]
    return b"".join(kept)


@asynccontextmanager
async def fake_cluster(
    count: int = 3, machines: Iterable[type[StateMachine]] = ()
) -> AsyncIterator[FakeCluster]:
    """A running fake cluster, led by n1."""
    cluster = FakeCluster(count, machines)
    await cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


_seeds = itertools.count(7)


def client(cluster: FakeCluster | list[Address], **settings: Any) -> Connecting:
    """What `copycat.connect` would return for this cluster."""
    addresses = cluster if isinstance(cluster, list) else cluster.addresses
    chance = random.Random(next(_seeds))
    return connect(addresses, network=RealNetwork(), clock=RealClock(), random=chance, **settings)


@asynccontextmanager
async def cluster_and_client(
    count: int = 3, machines: Iterable[type[StateMachine]] = (), **settings: Any
) -> AsyncIterator[tuple[FakeCluster, CopycatClient]]:
    """Both at once."""
    async with (
        fake_cluster(count, machines) as cluster,
        client(cluster, machines=machines, **settings) as cc,
    ):
        yield cluster, cc


async def until(holds: Callable[[], object], timeout: float = 5.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout):
        while not holds():
            await asyncio.sleep(0.001)
