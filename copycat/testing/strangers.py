"""Strangers at the doors of a simulated cluster: malformed, foreign, idle and deaf connections.

Each visit is one connection that says something no member or client of ours says. The members must
refuse it, close it or not care, and go on; nothing of it may reach a log. A stranger may know what
can be seen on a network, ids of sessions and members, but no secret.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from .._core.codec import (
    ATTACH_HEAD,
    PREAMBLE,
    QUERY_HEAD,
    REGISTERED_HEAD,
    REJECT_HEAD,
    Frame,
    pack_frame,
)
from .._core.kernel import encode_run
from .._core.layout import Kind
from ..connection import FrameProtocol
from ..handshake import Hello, Welcome, pack_control
from ..ports import Random
from ..types import Address
from .checkers import CheckFailed

if TYPE_CHECKING:
    from .hosting import Hosting
    from .process import SimulatedProcess

STAY_S = 3.0
PATIENCE_S = 60.0
"""Seconds in which a member closes a connection, whatever partitions are on the way."""
CROWD = 70
"""More connections without a handshake than a member keeps."""


class Visit:
    """One connection, and what came back on it."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, bytes]] = []
        self.lost = asyncio.get_running_loop().create_future()
        self.protocol = FrameProtocol(self._frame, self._lost, handshake_timeout=60.0)
        self.protocol.established(80 << 20)

    def _frame(self, type_: int, payload: bytes) -> None:
        self.heard.append((type_, payload))

    def _lost(self, error: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    async def wait(self, seconds: float) -> bool:
        """Until it is lost, at most so long; whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self.lost)
        return bool(self.lost.done())

    async def answer(self, type_: Frame) -> bytes | None:
        """The payload of the first frame of that type; None if none came."""
        for _ in range(20):
            for each, payload in self.heard:
                if each == type_:
                    return payload
            if await self.wait(0.1):
                return None
        return None


class Strangers:
    """Comes to the members of one cluster again and again.

    Args:
        hosting: the cluster.
        process: whose network it uses.
        every: seconds between two visits, on average.
    """

    def __init__(self, hosting: Hosting, process: SimulatedProcess, every: float) -> None:
        self._hosting = hosting
        self._process = process
        self._every = every
        self._random = Random(process.random.getrandbits(64))
        self.visits = 0

    async def run(self, over: Callable[[], bool]) -> None:
        """Until it is over."""
        async with asyncio.TaskGroup() as group:
            while not over():
                await asyncio.sleep(self._random.expovariate(1 / self._every))
                group.create_task(self._visit())

    async def _visit(self) -> None:
        random, hosts = self._random, list(self._hosting.hosts.values())
        (deed,) = random.choices(
            (self._babble, self._greet, self._speak, self._ask, self._pose, self._trespass,
             self._deaf, self._crowd),
            (3, 8, 10, 4, 4, 8, 3, 1),
        )  # fmt: skip
        self.visits += 1
        leader = self._hosting.leader()
        host = leader if leader is not None and random.random() < 0.6 else random.choice(hosts)
        with contextlib.suppress(OSError, TimeoutError):
            await deed(host.address)

    async def _dial(self, address: Address) -> Visit:
        visit = Visit()
        await self._process.network.connect(address, lambda: visit.protocol)
        return visit

    async def _must_close(self, visit: Visit, what: str) -> None:
        """A connection must not stay after that."""
        if not await visit.wait(PATIENCE_S):
            raise CheckFailed("strangers", f"a connection stays open after {what}")

    # -- before and in the handshake -----------------------------------------------------------

    async def _babble(self, address: Address) -> None:
        """Bytes of another protocol, or none, or a frame that is too long."""
        visit = await self._dial(address)
        transport = visit.protocol._transport
        if transport is not None:
            said = self._random.choice((
                b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", PREAMBLE + b"\xff" * 16,
                PREAMBLE[:3], b"",
            ))  # fmt: skip
            transport.write(said)
            await self._must_close(visit, repr(said))

    async def _greet(self, address: Address) -> None:
        """A hello that is none, or of somebody who has no place here."""
        random = self._random
        cluster, uuid = self._cluster(), random.randbytes(16)
        fine = {
            "configuration": [0, b""], "protocol": 3, "role": "member", "cluster": cluster,
            "name": "n1", "uuid": uuid,
        }  # fmt: skip
        wrong: dict[str, tuple[object, ...]] = {
            "configuration": (None, [1], ["x", b""], [1 << 40, b"\xc1"], [1 << 40, b"\x90"]),
            "protocol": (99, "three", -1, None),
            "role": ("spy", 7, "x" * 1000),
            "cluster": (b"short", None, 5, random.randbytes(16)),
            "name": (4, "n" * 10_000, "nobody", "n1", "n2", None),
            "uuid": (b"", None, "text"),
        }
        field = random.choice(list(wrong))
        payload = msgpack.packb({**fine, field: random.choice(wrong[field])})
        if random.random() < 0.2:
            payload = random.choice((b"\xc1", b"\x91\x01", b"", payload[:-3], payload + b"\x01"))
        visit = await self._dial(address)
        visit.protocol.write(pack_frame(random.choice((Frame.HELLO,) * 9 + (Frame.VOTE,)), payload))
        await self._must_close(visit, f"the hello {payload[:200]!r}")

    async def _ask(self, address: Address) -> None:
        """Whoever asks for the founding of another cluster than ours."""
        random = self._random
        members: Any = {name: str(host.address) for name, host in self._hosting.hosts.items()}
        kind = random.randrange(3)  # never our own list: it would be taken for a member of ours
        if kind == 0:
            members["n1"] = "elsewhere:1"
        elif kind == 1:
            members = random.choice((None, {"n1": 5}, {1: "n1:7400"}, {"n" * 5000: "n1:1"}))
        else:
            del members["n1"]
        founders: Any = random.choice(({}, {}, None, {"n1": []}, {"n1": ["?", bytes(16)]}))
        fields = {
            "protocol": random.choice((3, 3, 3, 4)),
            "name": random.choice(("n1", "n9", 5)), "uuid": random.randbytes(16),
            "cluster": bytes(16), "founders": founders, "members": members,
        }  # fmt: skip
        visit = await self._dial(address)
        visit.protocol.write(pack_control(Frame.FOUND_ASK, fields))
        await visit.wait(STAY_S)
        visit.protocol.abort()

    async def _crowd(self, address: Address) -> None:
        """Many who say nothing: the oldest has to go, and those who speak get in."""
        visits = []
        for _ in range(CROWD):
            visits.append(await self._dial(address))
        await asyncio.sleep(0.5)
        visits += [await self._dial(address) for _ in range(5)]
        for visit in visits:
            visit.protocol.abort()

    # -- as a client ---------------------------------------------------------------------------

    async def _enter(self, address: Address) -> Visit | None:
        visit = await self._dial(address)
        visit.protocol.write(Hello("client", None, "stranger", self._random.randbytes(16)).frame())
        if await visit.answer(Frame.WELCOME) is None:
            visit.protocol.abort()
            return None
        return visit

    async def _speak(self, address: Address) -> None:
        """Frames that clients do not send."""
        random = self._random
        visit = await self._enter(address)
        if visit is None:
            return
        secret = random.randbytes(16)
        registration = [random.randbytes(16), 5000, "stranger", secret]
        said = random.choice((
            pack_frame(Frame.APPEND, b"x" * 60),
            pack_frame(21, b""),
            pack_frame(Frame.RUN, random.randbytes(random.randint(0, 80))),
            pack_frame(Frame.RUN, self._command(1) + b"\0"),
            pack_control(Frame.REGISTER, random.choice((registration[:3], 5, None))),
            pack_control(Frame.REGISTER, [b"", *registration[1:]]),
            pack_control(Frame.REGISTER, [registration[0], 1, *registration[2:]]),
            pack_control(Frame.REGISTER, [*registration[:2], "x" * 300, secret]),
            pack_frame(Frame.REGISTER, b"\xc1"),
            pack_frame(Frame.ATTACH, b"short"),
            pack_frame(Frame.QUERIES, b"short"),
            pack_frame(Frame.QUERIES, QUERY_HEAD.pack(1, 0, 7, 3) + b"\xff" * 20),
            pack_frame(Frame.QUERIES, QUERY_HEAD.pack(1, 0, 1, 1) + random.randbytes(16)),
            pack_control(Frame.ADMIN, random.choice(([1], [1, "status", 5], "status"))),
            pack_frame(Frame.ADMIN, b"\xc1\xc1"),
        ))  # fmt: skip
        visit.protocol.write(said)
        await visit.wait(STAY_S)
        visit.protocol.write(said)  # more of it, should it still stand
        visit.protocol.close()

    def _command(self, session: int, kind: Kind = Kind.COMMAND, body: bytes = b"\x90") -> bytes:
        return encode_run(kind, session, 1, 0, [(0, 0, body)])

    async def _trespass(self, address: Address) -> None:
        """Act for a session of others; and for an own one as nobody should."""
        random = self._random
        visit = await self._enter(address)
        if visit is None:
            return
        session, write = self._session(), visit.protocol.write
        write(pack_frame(Frame.RUN, self._command(session)))
        write(pack_frame(Frame.ATTACH, ATTACH_HEAD.pack(session, 0, random.randbytes(16))))
        write(pack_frame(Frame.RUN, self._command(session, Kind.UNREGISTER)))
        uuid, secret = random.randbytes(16), random.randbytes(16)
        write(pack_control(Frame.REGISTER, [uuid, 3000, "stranger", secret]))
        registered = await visit.answer(Frame.REGISTERED)
        self._check_refused(visit)
        if registered is None:
            visit.protocol.close()
            return
        own, _ = REGISTERED_HEAD.unpack(registered)
        other = await self._enter(address)
        if other is not None:  # the same uuid with another secret
            other.protocol.write(pack_control(Frame.REGISTER, [uuid, 3000, "x", bytes(16)]))
            if random.random() < 0.5:  # on two connections in turn
                attach = pack_frame(Frame.ATTACH, ATTACH_HEAD.pack(own, 0, secret))
                other.protocol.write(attach)
                await asyncio.sleep(0.1)
                write(pack_frame(Frame.RUN, self._command(own, Kind.KEEP_ALIVE, b"\x91\x00")))
        write(
            pack_frame(Frame.RUN, random.choice((
                self._command(own, Kind.TICK), self._command(own, Kind.KEEP_ALIVE),
                self._command(own, Kind.KEEP_ALIVE, b"\x91\xa1x"),
                self._command(own, Kind.KEEP_ALIVE, b"\xc1"),
                encode_run(Kind.COMMAND, own, 9, 0, [(0, 0, b"\x90")]),
                encode_run(Kind.COMMAND, own, 1, 0, [(0, 77, b"\xc1")]),
                encode_run(Kind.COMMAND, own, 1, 0, [(0, 77, b"\x90"), (99, 3, b"\x90")]),
                encode_run(Kind.COMMAND, own, 1, 0, [(0, op, b"\x91\x05") for op in range(1, 9)]),
                encode_run(Kind.COMMAND, own, 1, 0, [(0, op, b"\x90") for op in range(1, 12)]),
            )))
        )  # fmt: skip
        await visit.wait(STAY_S)
        for each in (visit, other):
            if each is not None:
                each.protocol.close()

    def _session(self) -> int:
        """The id of a session of somebody else, if there is one."""
        leader = self._hosting.leader()
        if leader is None or leader.running is None or leader.running.member is None:
            return 1
        sessions = [session.id for session in leader.running.member._applier.sessions]
        return self._random.choice(sessions) if sessions else 1

    def _check_refused(self, visit: Visit) -> None:
        for type_, payload in visit.heard:
            if type_ in (Frame.RESULTS, Frame.CLOSED):
                raise CheckFailed("strangers", "somebody acted for a session without its secret")
            if type_ == Frame.REJECT and not REJECT_HEAD.unpack_from(payload)[0]:
                raise CheckFailed("strangers", "a rejection without a reason")

    async def _deaf(self, address: Address) -> None:
        """Ask for much, and read none of it."""
        visit = await self._enter(address)
        if visit is None:
            return
        visit.protocol.pause_reading()
        ask = pack_control(Frame.ADMIN, [1, "members", []])
        for _ in range(self._random.choice((1, 4))):
            visit.protocol.write(ask * 2500)
            await asyncio.sleep(0.5)
        if self._random.random() < 0.5:
            visit.protocol.write(pack_frame(Frame.ADMIN, b"\x00" * ((1 << 20) + 1)))
            visit.protocol.resume_reading()
            await visit.wait(STAY_S)
        visit.protocol.abort()

    # -- as a member ---------------------------------------------------------------------------

    def _cluster(self) -> bytes | None:
        for host in self._hosting.hosts.values():
            if host.running is not None and host.running.identity is not None:
                return host.running.identity.cluster
        return None

    async def _pose(self, address: Address) -> None:
        """Pose as a member, as whoever can write to its wire might, and talk nonsense."""
        random, cluster = self._random, self._cluster()
        others = [h for h in self._hosting.hosts.values() if h.uuid and h.address != address]
        if cluster is None or not others:
            return
        host = random.choice(others)
        visit = await self._dial(address)
        visit.protocol.write(Hello("member", cluster, host.name, host.uuid).frame())
        answer = await visit.answer(Frame.WELCOME)
        if answer is not None:
            Welcome.parse(answer)
            visit.protocol.write(b"".join((
                pack_frame(Frame.APPEND, b"x"), pack_frame(Frame.APPEND, bytes(48) + b"y" * 90),
                pack_frame(Frame.APPEND, bytes(24) + b"\1" + bytes(23)),
                pack_frame(Frame.VOTE, b""), pack_frame(Frame.CHUNK, bytes(40) + b"z"),
                pack_frame(Frame.CHUNK_REPLY, b"abc"),
            )))  # fmt: skip
            if random.random() < 0.5:
                visit.protocol.write(pack_frame(Frame.RUN, b""))
            await visit.wait(STAY_S)
        visit.protocol.abort()
