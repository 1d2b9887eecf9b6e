"""One end of a simulated connection: the socket, and asyncio's transport on top of it.

It behaves towards its protocol as the transports of asyncio's own loops do: one read a turn, bytes
leave at once as far as there is room, `connection_lost` comes once and in a later turn. It serves
protocols that bring their own buffer.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..ports import Random
from ..types import Address
from .loop import SimulatedLoop
from .stream import Mark, Stream

if TYPE_CHECKING:
    from .network import Connection, SimulatedNetwork


@dataclass(slots=True)
class FrameFaults:
    """What happens to whole writes of the dialling side: for links that must survive it.

    The first ``after`` writes of a connection are spared: its handshake. Odds are probabilities.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    after: int = 1

    def mangle(self, data: bytes, late: list[bytes], random: Random) -> list[bytes]:
        """What is written instead of ``data``; ``late`` holds what waits for the next write."""
        kind = random.random()
        if kind < self.drop:
            now = []
        elif kind < self.drop + self.duplicate:
            now = [data, data]
        elif kind < self.drop + self.duplicate + self.reorder and not late:
            late.append(data)
            return []
        else:
            now = [data]
        now += late
        late.clear()
        return now


@dataclass(slots=True)
class _Outbox:
    """What the program wrote and the socket has no room for."""

    data: bytearray = field(default_factory=bytearray)
    low: int = 16 << 10
    high: int = 64 << 10
    paused: bool = False  # the protocol was told to stop


class Endpoint(asyncio.Transport):
    """One end; ``loop`` is its process's. Its connection gives it `stream` and `peer`."""

    stream: Stream
    peer: Endpoint
    connection: Connection

    def __init__(
        self, network: SimulatedNetwork, loop: SimulatedLoop, host: str, address: Address
    ) -> None:
        super().__init__()
        self.host = host
        self.address = address
        self.dialled = False
        self.over = False  # the socket is closed: what arrives is answered with a reset
        self._network = network
        self.loop = loop
        self._protocol: asyncio.BufferedProtocol | None = None
        self._inbox = bytearray()
        self._outbox = _Outbox()
        self._ended = False  # the peer sends nothing more
        self._error: OSError | None = None
        self._reading = True
        self._closing = False
        self._losing = False  # connection_lost is under way
        self._poked = False
        self._writes = 0
        self._late: list[bytes] = []

    # -- what the network does -----------------------------------------------------------------

    def begin(self, protocol: asyncio.BufferedProtocol) -> None:
        """The program takes the connection: in its loop."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._poke()

    @property
    def waiting(self) -> bool:
        """Whether bytes wait for room."""
        return bool(self._outbox.data)

    def receive(self, item: bytes | Mark) -> None:
        """Something arrives."""
        network = self._network
        if isinstance(item, bytes):
            network.timeline.fold(item)
            if network.timeline.details:
                network.timeline.show(f"{self.peer.address} -> {self.address}: {len(item)} bytes")
        if self.over or self._error is not None:
            if item is not Mark.RESET:
                self.stream.reset()
        elif item is Mark.RESET:
            self.fail(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))
        elif item is Mark.END:
            self._ended = True
            self._poke()
        else:
            self._inbox += item
            self._poke()

    def fail(self, error: OSError) -> None:
        """The connection broke; the program will see it when it looks."""
        if self._error is None and not self.over:
            self._error = error
            self.stream.silence()
            self._network.timeline.show(f"{self.address} -> {self.peer.address}: {error}")
            self._poke()

    def room_made(self) -> None:
        """The peer has read something."""
        if not self.over:
            self.loop.post(self._write_on)

    def die(self) -> None:
        """The process is gone, or never took the connection: the peer is reset."""
        if not self.over:
            self.over = self._closing = self._losing = True
            self._outbox.data.clear()
            self.stream.reset()
            self.connection.ended()

    def abandon(self) -> None:
        """The program gives up while it dials."""
        if self._protocol is None:
            self.die()
        else:
            self.abort()

    # -- reading -------------------------------------------------------------------------------

    def _poke(self) -> None:
        """Have a look at the socket in the loop's next turn, if it has anything to tell."""
        if self._poked or self._protocol is None or self._losing:
            return
        wanted = self._reading and not self._closing
        if (wanted and (self._inbox or self._ended or self._error)) or (
            self._error and self.waiting
        ):
            self._poked = True
            self.loop.post(self._look)

    def _look(self) -> None:
        self._poked = False
        protocol = self._protocol
        if protocol is None or self._losing:
            return
        if self._error is not None and (not self._inbox or self._closing or not self._reading):
            if self._reading or self.waiting:
                self._lose(self._error)
        elif self._closing or not self._reading:
            return
        elif self._inbox:
            buffer = memoryview(protocol.get_buffer(-1))
            size = self._network.part(min(len(buffer), len(self._inbox)))
            buffer[:size] = self._inbox[:size]
            del self._inbox[:size]
            self.peer.stream.read(size)
            protocol.buffer_updated(size)
            self._poke()
        elif self._ended:
            if protocol.eof_received():
                self._reading = False
            else:
                self.close()

    def pause_reading(self) -> None:
        """Leave what arrives where it is."""
        self._reading = False

    def resume_reading(self) -> None:
        """Read again."""
        if not self._closing:
            self._reading = True
            self._poke()

    def is_reading(self) -> bool:
        """Whether what arrives is read."""
        return self._reading and not self._closing

    # -- writing -------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send now what there is room for, and the rest when there is."""
        if self._closing or not data:
            return
        if self._error is not None:
            self._lose(self._error)
            return
        self._writes += 1
        faults = self._network.faults_of(self) if self.dialled else None
        if faults is None or self._writes <= faults.after:
            self._send(bytes(data))
        else:
            for each in faults.mangle(bytes(data), self._late, self._network.random):
                self._send(each)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """One write of all."""
        self.write(b"".join(list_of_data))

    def _send(self, data: bytes) -> None:
        outbox = self._outbox
        if not outbox.data:
            room = self.stream.room
            if room >= len(data):
                self.stream.send(data)
                return
            if room > 0:
                self.stream.send(data[:room])
                data = data[room:]
        outbox.data += data
        if len(outbox.data) > outbox.high and not outbox.paused and self._protocol is not None:
            outbox.paused = True
            self._protocol.pause_writing()

    def _write_on(self) -> None:
        outbox = self._outbox
        size = min(len(outbox.data), self.stream.room)
        if self._losing or size <= 0:
            return
        data = bytes(outbox.data[:size])
        del outbox.data[:size]
        self.stream.send(data)
        if outbox.paused and len(outbox.data) <= outbox.low and self._protocol is not None:
            outbox.paused = False
            self._protocol.resume_writing()
        if self._closing and not outbox.data:
            self._lose(None)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the protocol is told to stop writing, and when to go on, in bytes."""
        if high is None:
            high = 64 << 10 if low is None else 4 * low
        self._outbox.high = high
        self._outbox.low = high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for room."""
        return len(self._outbox.data)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high)."""
        return self._outbox.low, self._outbox.high

    def can_write_eof(self) -> bool:
        """No: neither side of this house closes by half."""
        return False

    # -- ending --------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what waits, then close."""
        if not self._closing:
            self._closing = True
            if not self.waiting:
                self._lose(None)
            elif self._error is not None:
                self._lose(self._error)

    def abort(self) -> None:
        """Close; what waits is lost."""
        self._lose(None)

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing

    def _lose(self, error: OSError | None) -> None:
        if not self._losing:
            self._closing = self._losing = True
            self._outbox.data.clear()
            self.loop.call_soon(self._lost, error)

    def _lost(self, error: OSError | None) -> None:
        if self.over:
            return
        try:
            if self._protocol is not None:
                self._protocol.connection_lost(error)
        finally:
            self.over = True
            if self._error is None:
                if self._inbox:
                    self.stream.reset()
                else:
                    self.stream.end()
            self.connection.ended()

    # -- the rest ------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peername`` and ``sockname``."""
        if name in ("peername", "sockname"):
            address = self.peer.address if name == "peername" else self.address
            return address.host, address.port
        return default

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whoever is told."""
        return self._protocol or asyncio.BaseProtocol()

    def __repr__(self) -> str:
        return f"<Endpoint {self.address} of {self.connection}>"
