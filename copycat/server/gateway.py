"""The gateway: everybody who connects to this member, from the first byte to the last.

It shakes hands, numbers clients, hands their frames to the pump and writes what the pump brings
back. It holds back whoever sends more than is worked off or does not read the answers, and refuses
strangers. It never looks into a frame beyond the handshake; roles are fixed there (H92).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping

from .._core.codec import CLIENT_FRAME_LIMIT, PEER_FRAME_LIMIT, PROTOCOL_VERSION, Frame
from .._core.layout import FormatError
from ..connection import HANDSHAKE_FRAME_LIMIT, Complaints, FrameProtocol
from ..errors import (
    ConfigurationError,
    MembershipError,
    OverloadedError,
    SecurityError,
    UnavailableError,
    WrongClusterError,
)
from ..handshake import CLIENT, MEMBER, Hello, Refusal, Welcome, pack_control
from ..ports import Network, Server
from ..types import Address
from .effects import ClientFrame, ClientGone, MemberInput, PeerFrame, RosterHeard
from .identity import Identity
from .roster import NOBODY, Roster, Seat

STRANGERS_MAX = 64
"""Connections without a handshake; beyond it the oldest goes if it has had its chance (H80)."""
STRANGERS_HARD_MAX = 1024
STRANGER_CHANCE = 0.25
"""Seconds that a connection without a handshake is safe from being displaced."""
UNREAD_BYTES_MAX = 256 << 20
"""Bytes that may wait for clients that do not read their answers, all of them together."""
TURN_BYTES = 1 << 20
"""Input bytes of one client in one turn, beyond which it is not read until the turn is over."""

_CLIENT_FRAMES = range(Frame.REGISTER, Frame.ADMIN + 1)
_PEER_FRAMES = range(Frame.APPEND, Frame.READ_INDEX_REPLY + 1)

log = logging.getLogger("copycat.gateway")

Push = Callable[[MemberInput], None]
OnAsk = Callable[[FrameProtocol, bytes], None]


class Incoming:
    """One connection that somebody made to us."""

    def __init__(self, gateway: Gateway, complaints: Complaints) -> None:
        self.protocol = FrameProtocol(
            self._handshake,
            self._lost,
            on_connected=self._connected,
            on_drained=self.adjust_reading,
            complaints=complaints,
        )
        self.number = 0  # of a client; 0: not one (yet)
        self.peer = ""  # the member's name; "": not one (yet)
        self.uuid = b""  # which incarnation of it
        self.since = 0.0
        self.turn = 0
        self.turn_bytes = 0
        self._gateway = gateway

    def become_client(self, number: int) -> None:
        """The handshake is done: a client."""
        self.number = number
        self.protocol.established(CLIENT_FRAME_LIMIT)
        self.protocol.on_frame = self._client_frame

    def become_member(self, name: str, uuid: bytes) -> None:
        """The handshake is done: another member."""
        self.peer = name
        self.uuid = uuid
        self.protocol.established(PEER_FRAME_LIMIT)
        self.protocol.on_frame = self._peer_frame

    def adjust_reading(self) -> None:
        """Read from a client only while it reads, and while its input is worked off (H76)."""
        if not self.number:
            return
        if self.protocol.overflowing or self.turn_bytes > TURN_BYTES:
            self.protocol.pause_reading()
        else:
            self.protocol.resume_reading()

    def _connected(self) -> None:
        self._gateway.connected(self)

    def _handshake(self, type_: int, payload: bytes) -> None:
        self._gateway.handshake(self, type_, payload)

    def _client_frame(self, type_: int, payload: bytes) -> None:
        if type_ not in _CLIENT_FRAMES:
            raise FormatError(f"a client sent a frame of type {type_}")
        self._gateway.client_frame(self, type_, payload)

    def _peer_frame(self, type_: int, payload: bytes) -> None:
        if type_ not in _PEER_FRAMES:
            raise FormatError(f"a member sent a frame of type {type_}")
        self._gateway.push(PeerFrame(self.peer, type_, payload))

    def _lost(self, error: BaseException | None) -> None:
        self._gateway.lost(self)


class Gateway:
    """The listening side of a member.

    `listen` opens the port, so that others can ask who we are while the cluster is being founded;
    `start` lets clients and members in.

    Args:
        name: this member's name.
        network: the Network door.
        on_ask: called with (connection, payload) for a FOUND_ASK frame.
        max_clients: client connections at the same time.
        priority: of this member, told to the others.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        on_ask: OnAsk,
        *,
        max_clients: int = 10_000,
        priority: int = 1,
    ) -> None:
        self.name = name
        self.push: Push = lambda input_: None
        self.complaints = Complaints()
        self._network = network
        self._on_ask = on_ask
        self._max_clients = max_clients
        self._priority = priority
        self._server: Server | None = None
        self._identity: Identity | None = None
        self._seats: Mapping[str, Seat] = {}
        self._addresses: dict[str, str] = {}
        self._committed: tuple[int, bytes] = (0, b"")
        self._leadership: tuple[int, str | None] = (0, None)
        self._on_member: Callable[[str], None] | None = None
        self._strangers: OrderedDict[Incoming, None] = OrderedDict()
        self._askers: OrderedDict[Incoming, None] = OrderedDict()
        self._clients: dict[int, Incoming] = {}
        self._slow: dict[
            int, Incoming
        ] = {}  # clients that read too little, or did
        self._members: dict[str, Incoming] = {}
        self._next_number = 1
        self._turn = 0
        self._held_back: list[Incoming] = []
        self._closed = False

    # -- what the node does --------------------------------------------------------------------

    async def listen(self, address: Address) -> Address:
        """Open the port; returns the real address. Raises `ConfigurationError`."""
        server = await self._network.listen(
            address, lambda: Incoming(self, self.complaints).protocol
        )
        self._server = server
        return server.address

    def start(
        self,
        identity: Identity,
        seats: Mapping[str, Seat],
        push: Push,
        on_member: Callable[[str], None] | None = None,
    ) -> None:
        """The cluster is founded: let clients and members in.

        ``on_member`` is called with a member's name whenever it has connected.
        """
        self._on_member = on_member
        self._identity = identity
        self._take_seats(seats)
        self.push = push

    def _take_seats(self, seats: Mapping[str, Seat]) -> None:
        self._seats = seats
        self._addresses = {
            name: str(seat.address) for name, seat in seats.items() if seat.uuid != NOBODY
        }

    def close(self) -> None:
        """Stop listening and close every connection; nothing is pushed any more."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        self.push = lambda input_: None
        known = [*self._clients.values(), *self._members.values()]
        for incoming in [*self._strangers, *self._askers, *known]:
            incoming.protocol.close()

    @property
    def clients(self) -> int:
        """Client connections."""
        return len(self._clients)

    # -- what the pump does --------------------------------------------------------------------

    def write(self, connection: int, data: bytes) -> None:
        """Write whole frames to a client; dropped if it is gone."""
        incoming = self._clients.get(connection)
        if incoming is not None:
            incoming.protocol.write(data)
            if incoming.protocol.overflowing:
                self._slow[connection] = incoming
                self._relieve()

    def close_client(self, connection: int) -> None:
        """Close a client's connection after what was written."""
        incoming = self._clients.get(connection)
        if incoming is not None:
            incoming.protocol.close()

    def complain(self, connection: int, message: str) -> None:
        """Count what a client did wrong, and log a line now and then."""
        incoming = self._clients.get(connection)
        who = "a client that has left" if incoming is None else incoming.protocol.peer
        self.complaints.add(asyncio.get_running_loop().time(), f"{self.name}: {who}: {message}")

    def follow(
        self, seats: Mapping[str, Seat], committed: tuple[int, bytes] = (0, b"")
    ) -> None:
        """These are the members now: clients are told, and who is not among them has to go.

        ``committed`` is the configuration that is known to be committed here, and its index.
        """
        before = self._addresses
        self._committed = committed
        self._take_seats(seats)
        for name, incoming in list(self._members.items()):
            seat = seats.get(name)
            if seat is None or seat.uuid != incoming.uuid:
                del self._members[name]
                incoming.protocol.abort()
        if self._addresses != before:
            self.announce(*self._leadership)

    def announce(self, term: int, leader: str | None) -> None:
        """Tell every client, and those to come, who leads."""
        self._leadership = (term, leader)
        frame = pack_control(Frame.LEADER, [term, leader, self._addresses])
        for incoming in self._clients.values():
            incoming.protocol.write(frame)

    def turn_done(self) -> None:
        """A turn took in everything that was pushed: read again from those that were held back."""
        self._turn += 1
        if self._held_back:
            held_back, self._held_back = self._held_back, []
            for incoming in held_back:
                incoming.turn_bytes = 0
                incoming.adjust_reading()

    # -- what connections do -------------------------------------------------------------------

    def connected(self, incoming: Incoming) -> None:
        """Somebody connected."""
        if self._closed:
            incoming.protocol.abort()
            return
        now = asyncio.get_running_loop().time()
        strangers = self._strangers
        if len(strangers) >= STRANGERS_MAX:
            oldest = next(iter(strangers))
            if now - oldest.since > STRANGER_CHANCE:
                del strangers[oldest]
                self.complaints.add(now, f"{oldest.protocol.peer} idles without a handshake")
                oldest.protocol.abort()
            elif len(strangers) >= STRANGERS_HARD_MAX:
                self.complaints.add(now, "too many connections without a handshake")
                incoming.protocol.abort()
                return
        incoming.since = now
        strangers[incoming] = None

    def handshake(self, incoming: Incoming, type_: int, payload: bytes) -> None:
        """A frame of a connection that has no role yet."""
        if type_ == Frame.FOUND_ASK:
            self._ask(incoming, payload)
            return
        if type_ != Frame.HELLO:
            raise FormatError(f"a frame of type {type_} instead of a hello")
        hello = Hello.parse(payload)
        refusal = self._judge(hello)
        if refusal is not None:
            who = hello.name or hello.role
            text = f"refused {who!r} from {incoming.protocol.peer}: {refusal.message}"
            if refusal.code == UnavailableError.code:
                log.debug("%s", text)  # they come too early, and will ask again
            else:
                self.complaints.add(asyncio.get_running_loop().time(), text)
            incoming.protocol.write(refusal.frame())
            incoming.protocol.close()
            return
        self._strangers.pop(incoming, None)
        self._askers.pop(incoming, None)
        if hello.role == CLIENT:
            incoming.become_client(self._next_number)
            self._clients[self._next_number] = incoming
            self._next_number += 1
        else:
            before = self._members.pop(hello.name, None)
            if before is not None:  # its messages must not mix with those of the new one (H73)
                before.protocol.abort()
            incoming.become_member(hello.name, hello.uuid)
            self._members[hello.name] = incoming
            if self._on_member is not None:
                self._on_member(hello.name)
        self._welcome(incoming)

    def client_frame(self, incoming: Incoming, type_: int, payload: bytes) -> None:
        """A frame of a client."""
        if incoming.turn != self._turn:
            incoming.turn = self._turn
            incoming.turn_bytes = 0
        before = incoming.turn_bytes
        incoming.turn_bytes += len(payload)
        if before <= TURN_BYTES < incoming.turn_bytes:
            self._held_back.append(incoming)
            incoming.adjust_reading()
        self.push(ClientFrame(incoming.number, type_, payload))

    def lost(self, incoming: Incoming) -> None:
        """A connection is gone."""
        self._strangers.pop(incoming, None)
        self._askers.pop(incoming, None)
        if incoming.number:
            del self._clients[incoming.number]
            self.push(ClientGone(incoming.number))
        elif self._members.get(incoming.peer) is incoming:
            del self._members[incoming.peer]

    def _relieve(self) -> None:
        """Answers wait for slow readers: give up those for whom most is waiting (H76, H85)."""
        slow = {n: each.protocol for n, each in self._slow.items() if each.protocol.overflowing}
        self._slow = {n: self._slow[n] for n in slow if n in self._clients}
        backlog = {n: slow[n].backlog for n in self._slow}
        while sum(backlog.values()) > UNREAD_BYTES_MAX:
            worst = max(backlog, key=backlog.__getitem__)
            del backlog[worst], self._slow[worst]
            self.complain(worst, f"it does not read, and {UNREAD_BYTES_MAX} bytes wait in all")
            slow[worst].abort()

    # -- helpers -------------------------------------------------------------------------------

    def _ask(self, incoming: Incoming, payload: bytes) -> None:
        """A member that belongs to no cluster asks; it may stay to hear of the founding."""
        if incoming in self._strangers:
            del self._strangers[incoming]
            self._askers[incoming] = None
            if len(self._askers) > STRANGERS_MAX:
                oldest, _ = self._askers.popitem(last=False)
                oldest.protocol.abort()
            incoming.protocol.established(HANDSHAKE_FRAME_LIMIT)
        self._on_ask(incoming.protocol, payload)

    def _welcome(self, incoming: Incoming) -> None:
        identity = self._identity
        if identity is not None:
            term, leader = self._leadership
            welcome = Welcome(
                identity.cluster, self.name, identity.uuid, term, leader, self._addresses,
                self._priority,
            )  # fmt: skip
            incoming.protocol.write(welcome.frame())

    def _judge(self, hello: Hello) -> Refusal | None:
        """Why this connection is not wanted, or None."""
        identity = self._identity
        if hello.role not in (CLIENT, MEMBER):
            raise FormatError(f"there is no role {hello.role!r}")
        if hello.protocol != PROTOCOL_VERSION:
            return Refusal(
                ConfigurationError.code,
                f"{self.name} speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}: "
                "use the same version of Copycat on both sides",
            )
        if identity is None:
            return Refusal(
                UnavailableError.code, f"{self.name} is not part of a founded cluster yet"
            )
        if hello.cluster not in (None, identity.cluster):
            return Refusal(
                WrongClusterError.code,
                f"{self.name} belongs to cluster {identity.cluster.hex()[:8]}, not to "
                f"{hello.cluster.hex()[:8] if hello.cluster else 'none'}",
            )
        if hello.role == CLIENT:
            if len(self._clients) >= self._max_clients:
                message = f"{self.name} has {len(self._clients)} clients, its limit"
                return Refusal(OverloadedError.code, message)
            return None
        return self._judge_member(hello, identity)

    def _is_news(self, hello: Hello) -> bool:
        """Whether it was added while we were away: it shows a newer configuration that has it."""
        index, encoded = hello.configuration
        if index <= self._committed[0]:
            return False
        roster = Roster.decode(encoded)
        seat = roster.seats.get(hello.name)
        if seat is None or seat.uuid != hello.uuid:
            return False
        self.push(RosterHeard(index, roster))
        return True

    def _judge_member(self, hello: Hello, identity: Identity) -> Refusal | None:
        seat = self._seats.get(hello.name)
        if hello.cluster is None or hello.name == self.name:
            return Refusal(
                SecurityError.code,
                f"{hello.name!r} is not another member of cluster {identity.cluster.hex()[:8]}",
            )
        if (seat is None or seat.uuid != hello.uuid) and self._is_news(hello):
            return None
        if seat is None:
            return Refusal(
                MembershipError.code,
                f"{hello.name!r} is no member of cluster {identity.cluster.hex()[:8]}: it was "
                f"removed, or {self.name} has not heard yet that it was added",
                self._committed,
            )
        if seat.uuid != hello.uuid:
            return Refusal(
                SecurityError.code,
                f"{hello.name} is another incarnation than the {hello.name} of cluster "
                f"{identity.cluster.hex()[:8]}: its data was lost or replaced, so it takes no part",
                self._committed,
            )
        return None
