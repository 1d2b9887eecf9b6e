"""The simulated network behaves like TCP, breaks like TCP, and carries production members."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from copycat import handles
from copycat.config import server_options
from copycat.errors import ConfigurationError
from copycat.node import Doors, RunningMember
from copycat.resources import BUILT_IN_MACHINES
from copycat.testing.disk import SimulatedDisk
from copycat.testing.endpoint import FrameFaults
from copycat.testing.network import Weather
from copycat.testing.process import SimulatedProcess
from copycat.testing.world import World
from copycat.types import Address

PORT = 7000


@dataclass
class Peer(asyncio.BufferedProtocol):
    """A program at one end: it notes what happens."""

    world: World
    greeting: bytes = b""
    room: int = 1 << 16
    data: bytearray = field(default_factory=bytearray)
    reads: list[int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    made_at: float = -1.0
    lost: list[BaseException | None] = field(default_factory=list)
    lost_at: float = -1.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.made_at = self.world.now
        self.buffer = bytearray(self.room)
        self.transport.write(self.greeting)

    def get_buffer(self, sizehint: int) -> bytearray:
        assert not self.lost
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self.reads.append(nbytes)

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.append(exc)
        self.lost_at = self.world.now


class Pair:
    """A client on host a, connected to a server on host b; or what came of the attempt."""

    def __init__(self, world: World, *, greeting: bytes = b"", connected: bool = True) -> None:
        self.world = world
        self.client, self.server = world.process("a"), world.process("b")
        self.dialling = Peer(world, greeting)
        self.accepted: list[Peer] = []
        self.error: BaseException | None = None
        self.server.spawn(self._listen())
        world.run(0.01)
        if connected:
            self.dial()
            assert world.run(5, until=lambda: bool(self.accepted) and self.dialling.made_at >= 0)

    async def _listen(self) -> None:
        def factory() -> Peer:
            self.accepted.append(Peer(self.world))
            return self.accepted[-1]

        await self.server.network.listen(Address("b", PORT), factory)

    def dial(self, protocol: Peer | None = None) -> asyncio.Task[None]:
        async def connect() -> None:
            try:
                await self.client.network.connect(
                    Address("b", PORT), lambda: protocol or self.dialling
                )
            except OSError as problem:
                self.error = problem

        return self.client.spawn(connect())

    @property
    def peer(self) -> Peer:
        return self.accepted[-1]

    def act(self, process: SimulatedProcess, action: Callable[..., object], *args: object) -> None:
        """Do something in a process's loop."""
        process.loop.call_soon(action, *args)


# -- like TCP --------------------------------------------------------------------------------------


def test_bytes_arrive_in_order_in_any_pieces() -> None:
    """What is written comes out once and in order, whatever pieces become of it on the way."""
    for seed in range(20):
        with World(seed, weather=Weather(split=0.5, short=0.5, spike=0.05)) as world:
            pair = Pair(world)
            random = world.random("test")
            sent = bytearray()
            for _ in range(50):
                data = random.randbytes(random.choice((1, 10, 1000, 70_000)))
                sent += data
                if random.random() < 0.2:
                    pair.act(pair.client, pair.dialling.transport.writelines, [data[:5], data[5:]])
                else:
                    pair.act(pair.client, pair.dialling.transport.write, data)
                world.run(random.expovariate(1000))
            world.run(30)
            assert pair.peer.data == sent
            assert 1 in pair.peer.reads
            assert not world.failures


def test_both_sides_know_one_another() -> None:
    """Each end names its peer; an answer finds its way back; latency is never nothing."""
    with World(1) as world:
        pair = Pair(world, greeting=b"hello")
        assert world.run(1, until=lambda: pair.peer.data == b"hello")
        pair.act(pair.server, pair.peer.transport.write, b"welcome")
        assert world.run(1, until=lambda: pair.dialling.data == b"welcome")
        ours, theirs = pair.dialling.transport, pair.peer.transport
        assert ours.get_extra_info("peername") == theirs.get_extra_info("sockname") == ("b", PORT)
        assert ours.get_extra_info("sockname") == theirs.get_extra_info("peername")
        assert ours.get_extra_info("socket") is None
        assert world.now > 0.0105


def test_a_close_sends_what_is_left() -> None:
    """`close` delivers everything, then both sides are told once, without an error."""
    with World(2) as world:
        pair = Pair(world)
        pair.act(pair.client, pair.dialling.transport.write, bytes(1 << 20))
        pair.act(pair.client, pair.dialling.transport.close)
        pair.act(pair.client, pair.dialling.transport.write, b"too late")
        world.run(5)
        assert len(pair.peer.data) == 1 << 20
        assert pair.dialling.lost == pair.peer.lost == [None]
        assert pair.peer.lost_at > pair.dialling.lost_at
        assert not world.network.connections


def test_an_abort_loses_what_waits() -> None:
    """`abort` drops what the socket did not take; the peer sees the end of the connection."""
    with World(3) as world:
        pair = Pair(world)
        pair.act(pair.client, pair.dialling.transport.write, bytes(1 << 20))
        pair.act(pair.client, pair.dialling.transport.abort)
        world.run(5)
        assert len(pair.peer.data) <= world.network.weather.window
        assert pair.dialling.lost == [None]
        assert len(pair.peer.lost) == 1


def test_who_does_not_read_makes_the_writer_wait() -> None:
    """At most a window is under way; the writer is told to pause, and to go on once all is gone."""
    with World(4) as world:
        pair = Pair(world)
        window = world.network.weather.window
        transport = pair.dialling.transport
        transport.set_write_buffer_limits(high=0)
        pair.act(pair.server, pair.peer.transport.pause_reading)
        world.run(0.1)
        for _ in range(10):
            pair.act(pair.client, transport.write, bytes(100_000))
        world.run(5)
        assert pair.peer.data == b""
        assert transport.get_write_buffer_size() == 1_000_000 - window
        assert pair.dialling.told == ["pause"]
        pair.act(pair.server, pair.peer.transport.resume_reading)
        world.run(5)
        assert len(pair.peer.data) == 1_000_000
        assert pair.dialling.told == ["pause", "resume"]
        assert transport.get_write_buffer_size() == 0


def test_nobody_listens() -> None:
    """Where nobody listens (any more) a connection is refused; a port can be taken but once."""
    with World(5) as world:
        pair = Pair(world, connected=False)

        async def again() -> None:
            with pytest.raises(ConfigurationError, match="in use"):
                await pair.server.network.listen(Address("b", PORT), lambda: Peer(world))
            with pytest.raises(ConfigurationError, match="no address c"):
                await pair.server.network.listen(Address("c", PORT), lambda: Peer(world))
            server = await pair.server.network.listen(Address("0.0.0.0", 0), lambda: Peer(world))
            assert server.address.port > 1024
            server.close()
            with pytest.raises(ConnectionRefusedError):
                await pair.client.network.connect(
                    Address("b", server.address.port), lambda: Peer(world)
                )

        assert world.run(5, until=pair.client.spawn(again()).done)
        assert not world.failures


# -- the dead --------------------------------------------------------------------------------------


def test_peers_of_a_killed_process_see_resets() -> None:
    """A killed process's connections are reset, its port refuses, and it is never told anything."""
    for seed in range(10):
        with World(seed) as world:
            pair = Pair(world, greeting=b"x")
            world.run(1)
            pair.server.kill()
            world.run(1)
            assert [type(each) for each in pair.dialling.lost] == [ConnectionResetError]
            assert pair.peer.lost == []
            pair.dial(Peer(world))
            world.run(1)
            assert isinstance(pair.error, ConnectionRefusedError)
            assert not world.network.connections
            assert not world.failures


def test_a_dead_host_can_be_used_again() -> None:
    """The next life of a host listens on the same port."""
    with World(6) as world:
        pair = Pair(world)
        pair.server.kill()
        reborn = world.process("b2", host="b")
        fresh: list[Peer] = []

        def factory() -> Peer:
            fresh.append(Peer(world))
            return fresh[-1]

        async def listen() -> None:
            await reborn.network.listen(Address("b", PORT), factory)

        reborn.spawn(listen())
        world.run(1)
        pair.dial(Peer(world, b"again"))
        world.run(1)
        assert [each.data for each in fresh] == [b"again"]


def test_the_kernel_of_a_paused_process_takes_connections() -> None:
    """Who dials a paused process is connected and may write; it is all found after the pause."""
    with World(7) as world:
        pair = Pair(world, greeting=b"early", connected=False)
        pair.server.pause(20.0)
        pair.dial()
        world.run(15)
        assert pair.dialling.made_at > 0
        assert not pair.dialling.lost
        assert not pair.accepted
        world.run(10)
        assert pair.peer.data == b"early"


# -- partitions ------------------------------------------------------------------------------------


def test_a_partition_holds_bytes_back_and_keeps_their_order() -> None:
    """Nothing passes a partition; after it everything comes, in order, or the connection breaks."""
    ends = {"whole": 0, "broken": 0, "half open": 0}
    for seed in range(60):
        with World(seed) as world:
            pair = Pair(world)
            pair.act(pair.client, pair.dialling.transport.write, b"before ")
            world.network.block("a", "b", both=seed % 2 == 0)
            world.run(1)
            for word in (b"with", b"in "):
                pair.act(pair.client, pair.dialling.transport.write, word)
                world.run(1)
            assert b"within" not in pair.peer.data
            held = bytes(pair.peer.data)
            world.network.unblock("a", "b")
            pair.act(pair.client, pair.dialling.transport.write, b"after")
            world.run(3)
            lost = len(pair.dialling.lost), len(pair.peer.lost)
            if lost == (0, 0):
                assert pair.peer.data in (b"before within after", held)
                ends["whole" if pair.peer.data != held else "half open"] += 1
            else:
                assert b"before within after".startswith(pair.peer.data)
                ends["broken"] += 1
            assert not world.failures
    assert ends["whole"] > 30
    assert ends["broken"] > 5


def test_directions_heal_by_themselves() -> None:
    """When one direction of a partition ends, what it held back comes; the other stays cut."""
    for seed in range(5):
        with World(seed) as world:
            pair = Pair(world)
            world.network.block("a", "b")
            pair.act(pair.client, pair.dialling.transport.write, b"to b")
            pair.act(pair.server, pair.peer.transport.write, b"to a")
            world.run(1)
            assert not pair.peer.data + pair.dialling.data
            world.network.unblock("a", "b", both=False)
            world.run(1)
            assert pair.peer.data == b"to b"
            assert not pair.dialling.data


def test_one_end_may_not_know_that_a_connection_is_gone() -> None:
    """A half-open connection stands for one end until it sends something."""
    knew = {"dialling": 0, "accepted": 0}
    for seed in range(10):
        with World(seed) as world:
            pair = Pair(world)
            world.network.reset("a", "b", one_end=True)
            world.run(1)
            first = pair.dialling if pair.dialling.lost else pair.peer
            other = pair.peer if first is pair.dialling else pair.dialling
            knew["dialling" if first is pair.dialling else "accepted"] += 1
            assert len(first.lost) == 1
            assert not other.lost
            process = pair.server if other is pair.peer else pair.client
            pair.act(process, other.transport.write, b"anybody there?")
            world.run(1)
            assert [type(each) for each in other.lost] == [ConnectionResetError]
            assert not world.network.connections
    assert min(knew.values()) > 0


def test_a_long_partition_ends_connections() -> None:
    """After five to seven seconds each end gives up by itself; a shorter partition is survived."""
    for both in (True, False):
        with World(8) as world:
            pair = Pair(world)
            world.network.block("a", "b", both=both)
            world.run(4)
            world.network.heal()
            world.run(10)
            assert not pair.dialling.lost
            world.network.block("a", "b", both=both)
            begun = world.now
            world.run(10)
            for peer in (pair.dialling, pair.peer):
                assert isinstance(peer.lost[0], TimeoutError)
                assert 5 <= peer.lost_at - begun <= 7.1


def test_dialling_through_a_partition_hangs() -> None:
    """Nobody refuses: the attempt ends by its own timeout, or succeeds after the partition."""
    with World(9) as world:
        pair = Pair(world, connected=False)
        world.network.block("b", "a", both=False)
        begun = world.now
        task = pair.dial()
        assert world.run(10, until=task.done)
        assert isinstance(pair.error, TimeoutError)
        assert 2.9 < world.now - begun < 3.1
        task = pair.dial()
        world.run(1.5)
        world.network.heal()
        assert world.run(2, until=task.done)
        assert pair.dialling.made_at > 0


def test_a_clogged_link_is_slow() -> None:
    """A clog multiplies the latency of one direction."""
    with World(10, weather=Weather(spike=0.0)) as world:
        pair = Pair(world)
        world.network.clog("a", "b", 10_000)
        pair.act(pair.client, pair.dialling.transport.write, b"slow")
        pair.act(pair.server, pair.peer.transport.write, b"fast")
        world.run(0.5)
        assert pair.dialling.data == b"fast"
        assert pair.peer.data == b""
        world.run(100)
        assert pair.peer.data == b"slow"


def test_connections_break_by_chance() -> None:
    """With odds of a reset, connections do break, at both ends."""
    with World(11, weather=Weather(reset=0.05)) as world:
        pair = Pair(world)
        for _ in range(300):
            pair.act(pair.client, pair.dialling.transport.write, b"x")
            world.run(0.01)
        assert [type(each) for each in pair.dialling.lost] == [ConnectionResetError]
        assert [type(each) for each in pair.peer.lost] == [ConnectionResetError]


def test_faults_of_frames_spare_the_handshake() -> None:
    """Whole writes of the dialling side are dropped, doubled and reordered; the others never."""
    seen = set()
    for seed in range(40):
        with World(seed) as world:
            world.network.frame_faults["a", "b"] = FrameFaults(0.2, 0.2, 0.2, after=2)
            pair = Pair(world)
            for word in (b"h", b"e", b"1", b"2", b"3"):
                pair.act(pair.client, pair.dialling.transport.write, word)
                pair.act(pair.server, pair.peer.transport.write, word)
            world.run(2)
            assert pair.peer.data[:2] == b"he"
            assert pair.dialling.data == b"he123"
            seen.add(bytes(pair.peer.data[2:]))
    assert {b"123", b"1233", b"213", b"23"} & seen
    assert len(seen) > 10


# -- production code -------------------------------------------------------------------------------


NAMES = ("n1", "n2", "n3")


def cluster_life(seed: int) -> tuple[str, list[object], float]:
    """Three members found a cluster, a client uses it, the leader dies, the client goes on.

    Returns the trace's hash, what the client read, and when it was done.
    """
    addresses = {name: f"{name}:{PORT}" for name in NAMES}
    members: dict[str, tuple[RunningMember, SimulatedProcess]] = {}
    read: list[object] = []
    with World(seed) as world:
        for name in NAMES:
            process = world.process(name)
            disk = SimulatedDisk(random=world.random(f"disk {name}"), schedule=process.schedule)
            doors = Doors(process.network, disk, process.clock, process.random)
            options = server_options(name=name, members=addresses, data="unused")
            members[name] = RunningMember(options, doors, BUILT_IN_MACHINES), process
            process.spawn(members[name][0].start())
        client = world.process("client")

        async def main() -> None:
            connecting = handles.connect(
                list(addresses.values()),
                network=client.network,
                clock=client.clock,
                random=client.random,
            )
            async with connecting as cc:
                fruit = cc.map("/fruit")
                for number in range(30):
                    await fruit.put("apples", number)
                    read.append(await fruit.get("apples"))
                    if number == 9:
                        leading = [
                            process
                            for running, process in members.values()
                            if running.member is not None and running.member.leading
                        ]
                        assert len(leading) == 1
                        leading[0].kill()

        task = client.spawn(main())
        assert world.run(60, until=task.done)
        task.result()
        assert not world.failures
        assert sum(process.alive for _, process in members.values()) == 2
        return world.timeline.hash, read, world.now


def test_a_production_cluster_lives_on_virtual_time() -> None:
    """Members found, serve and fail over, and a client notices nothing but a delay."""
    digest, read, ended = cluster_life(1)
    assert read == list(range(30))
    assert 0.5 < ended < 10
    assert cluster_life(1)[0] == digest
    assert cluster_life(2)[0] != digest
