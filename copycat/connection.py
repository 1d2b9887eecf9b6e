"""One framed connection: bytes in, frames out, and bounds on everything in between.

`FrameProtocol` serves member and client alike. It cuts what arrives into frames and hands them to a
callback, writes at most once a loop turn what is `send`-ed, and gives up on a peer that speaks
something else, says nothing for too long, or does not read. It never looks into a payload and never
dials: `Network` makes connections, `handshake` says what the first frames hold.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from ._core.codec import CLIENT_FRAME_LIMIT, PREAMBLE, FrameBuffer
from ._core.layout import FormatError

HANDSHAKE_TIMEOUT = 5.0
"""Seconds a connection may take until its handshake is done (H80)."""
HANDSHAKE_FRAME_LIMIT = 64 << 10
"""Bytes a frame may have before the handshake is done."""
CLOSE_TIMEOUT = 2.0
"""Seconds that a closing connection may take to send what is left."""
WRITE_HIGH_WATER = 1 << 20
"""Bytes not yet taken by the kernel at which `FrameProtocol.overflowing` begins; it ends at 0."""
WRITE_LIMIT = 128 << 20
"""Bytes not yet taken by the kernel at which the connection is given up (H76)."""

_RECEIVE_MIN = 16 << 10
_RECEIVE_MAX = 256 << 10
_HTTP_VERBS = (b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI")
_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This is a Copycat cluster port. It speaks to Copycat clients and members, not HTTP.\n"
)

log = logging.getLogger("copycat.connection")


class Complaints:
    """Counts what goes wrong with strangers; logs at most one line every ``interval`` seconds."""

    def __init__(self, interval: float = 10.0) -> None:
        self.count = 0
        self._interval = interval
        self._next = 0.0
        self._silent = 0

    def add(self, now: float, message: str) -> None:
        """Count one; ``now`` is any monotonic time in seconds."""
        self.count += 1
        if now < self._next:
            self._silent += 1
            return
        more = f" (and {self._silent} more like it since the last line)" if self._silent else ""
        self._next = now + self._interval
        self._silent = 0
        log.warning("%s%s", message[:300], more)


class FrameProtocol(asyncio.BufferedProtocol):
    """Frames over one connection.

    Args:
        on_frame: called with (type, payload) for each whole frame; it may raise `FormatError`,
            which closes the connection like any other malformed input.
        on_lost: called once with the error or None when a connection that stood is gone, whoever
            closed it. Nothing is delivered afterwards.
        on_connected: called when the connection stands.
        on_drained: called whenever `overflowing` changes.
        complaints: where malformed input is counted; shared by all connections of a listener.
        frame_limit: bytes a frame may have; small until `established` is called.
        write_limit: bytes the peer may leave unread before the connection is given up.
        handshake_timeout: seconds until `established` must have been called.
    """

    def __init__(
        self,
        on_frame: Callable[[int, bytes], None],
        on_lost: Callable[[BaseException | None], None],
        *,
        on_connected: Callable[[], None] | None = None,
        on_drained: Callable[[], None] | None = None,
        complaints: Complaints | None = None,
        frame_limit: int = HANDSHAKE_FRAME_LIMIT,
        write_limit: int = WRITE_LIMIT,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self.on_frame = on_frame
        self.on_lost = on_lost
        self.on_drained = on_drained
        self.overflowing = False
        self.peer = "?"
        self._on_connected = on_connected
        self._complaints = Complaints() if complaints is None else complaints
        self._write_limit = write_limit
        self._handshake_timeout = handshake_timeout
        self._frames = FrameBuffer(frame_limit)
        self._buffer = memoryview(bytearray(_RECEIVE_MIN))
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._gathered: list[bytes] = []
        self._preamble_due = True
        self._heard = False
        self._reading = True
        self._closing = False
        self._congested = False  # bytes wait in the transport

    # -- what its owner does -------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether frames may be written: connected, and neither closing nor lost."""
        return self._transport is not None and not self._closing

    @property
    def backlog(self) -> int:
        """Bytes that wait for the peer to read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def established(self, frame_limit: int = CLIENT_FRAME_LIMIT) -> None:
        """The handshake is done: no deadline any more, and frames of up to ``frame_limit``."""
        self._frames.limit = frame_limit
        self._cancel_deadline()

    def write(self, data: bytes) -> None:
        """Hand whole frames to the transport now; dropped if the connection is not open."""
        transport = self._transport
        if transport is None or self._closing:
            return
        if self._gathered:
            self._flush()
        if self._preamble_due:
            self._preamble_due = False
            data = PREAMBLE + data
        transport.write(data)
        if self._congested:
            self._watch_backlog(transport.get_write_buffer_size())

    def _watch_backlog(self, waiting: int) -> None:
        """``waiting`` bytes wait for the peer to read: say so, or give it up."""
        if waiting > self._write_limit:
            self._complain(f"{self.peer} does not read: {self._write_limit} bytes wait for it")
            self.abort()
        elif not self.overflowing and waiting > WRITE_HIGH_WATER:
            self.overflowing = True
            if self.on_drained is not None:
                self.on_drained()

    def send(self, data: bytes) -> None:
        """Gather whole frames of this loop turn into one write at its end."""
        if not self.open:
            return
        if not self._gathered and self._loop is not None:
            self._loop.call_soon(self._flush)
        self._gathered.append(data)

    def close(self) -> None:
        """Send what is left, then close; no frame is delivered any more."""
        if self._transport is None or self._closing:
            return
        self._flush()
        self._closing = True
        self._cancel_deadline()
        if self._loop is not None:
            self._deadline = self._loop.call_later(CLOSE_TIMEOUT, self.abort)
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what has not left is lost."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Stop reading; the kernel's buffers fill and the peer has to wait."""
        if self._reading and self.open and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reading and self.open and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    # -- what the event loop calls -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        # uvloop's transports are no subclasses of asyncio's, so this cannot be checked.
        self._transport = stream = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self.peer = _peer_name(stream)
        if self._closing:  # given up while it was being dialled
            stream.abort()
            return
        # At 0 uvloop writes to the socket at once, as asyncio does, instead of after all callbacks
        # that are due: what is sent leaves before a sync blocks the loop, and the other side works
        # while we go on (measured: 1.2 to 1.5 times the throughput at 256 in flight).
        stream.set_write_buffer_limits(high=0)
        self._deadline = self._loop.call_later(self._handshake_timeout, self._too_slow)
        if self._on_connected is not None:
            self._on_connected()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` arrived."""
        if self._closing:
            return
        data = self._buffer[:nbytes]
        if nbytes == len(self._buffer) < _RECEIVE_MAX:
            self._buffer = memoryview(bytearray(2 * nbytes))
        try:
            for type_, payload in self._frames.feed(data):
                self.on_frame(type_, payload)
                if not self.open:
                    return
        except FormatError as problem:
            self._malformed(problem, data)
            return
        self._heard = True

    def pause_writing(self) -> None:
        """The kernel's buffer is full; how much waits beyond it is watched in `write`."""
        self._congested = True

    def resume_writing(self) -> None:
        """What waited for the peer has left."""
        self._congested = False
        if self.overflowing:
            self.overflowing = False
            if self.on_drained is not None:
                self.on_drained()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._closing = True
        self._cancel_deadline()
        self._gathered.clear()
        self.on_lost(exc)

    # -- helpers -------------------------------------------------------------------------------

    def _flush(self) -> None:
        gathered = self._gathered
        if gathered:
            self._gathered = []
            self.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    def _malformed(self, problem: FormatError, data: memoryview) -> None:
        speaks_http = not self._heard and data[:4] in _HTTP_VERBS
        why = "it speaks HTTP, and this port is for Copycat's clients and members"
        self._complain(
            f"closed the connection from {self.peer}: {why if speaks_http else problem}"
        )
        if speaks_http and self._transport is not None:
            self._transport.write(_HTTP_ANSWER)
            self.close()
        else:
            self.abort()

    def _too_slow(self) -> None:
        self._deadline = None
        self._complain(f"{self.peer} did not finish its handshake in {self._handshake_timeout} s")
        self.abort()

    def _complain(self, message: str) -> None:
        if self._loop is not None:
            self._complaints.add(self._loop.time(), message)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _peer_name(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) and len(name) >= 2 else "a stranger"
