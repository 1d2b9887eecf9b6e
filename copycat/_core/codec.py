"""Frames on a connection: their header, their types, and the fixed parts of their payloads.

Every frame is an 8-byte header ``<u32 payload length, u8 type, u8 flags, u16 reserved>`` and a
payload. Either side opens a connection with the 8 bytes `PREAMBLE` and a HELLO frame; whatever
does not start so is closed at once. Payloads called *msgpack* are control traffic; those with a
struct below are the hot path, where commands and results travel in the form in which they are
logged and cached, so that the leader moves bytes.

Nothing here does I/O. Raft's own messages are packed by ``server/peerwire.py``.
"""

from __future__ import annotations

import enum
import struct

from .layout import FormatError

PROTOCOL_VERSION = 4
PREAMBLE = b"COPYCAT\x01"

HEADER = struct.Struct("<IBBH")
HEADER_SIZE = HEADER.size

CLIENT_FRAME_LIMIT = 4 << 20
"""Bytes a client's frame may have; a longer length field closes the connection."""
PEER_FRAME_LIMIT = 80 << 20
"""Bytes a member's frame may have (a window of batches; one batch is at most 64 MiB)."""


class Frame(enum.IntEnum):
    """Frame types; the comment gives the payload."""

    # both ways, first
    HELLO = 1  # msgpack map: protocol, role ("member"|"client"), cluster (bytes|None), name, uuid
    WELCOME = 2  # msgpack map: protocol, cluster, name, uuid, term, leader, members {name: addr}
    REFUSE = 3  # msgpack [code, message]; the sender closes

    # client -> member
    REGISTER = 16  # msgpack [client uuid, timeout_ms, name, secret]
    RUN = 17  # one run: COMMAND, KEEP_ALIVE (first_sequence is a nonce) or UNREGISTER
    QUERIES = 18  # QUERY_HEAD, then commands as in a run
    ATTACH = 19  # ATTACH_HEAD: this connection proves that it may speak for that session
    ADMIN = 20  # msgpack [request id, name, arguments]

    # member -> client
    REGISTERED = 32  # REGISTERED_HEAD
    RESULTS = 33  # RESULTS_HEAD, then results
    ANSWERS = 34  # ANSWERS_HEAD, then results: for queries
    EVENTS = 35  # EVENTS_HEAD, then msgpack list of [resource, event name, value bytes]
    REJECT = 36  # REJECT_HEAD, then msgpack [message]
    LEADER = 37  # msgpack [term, leader name | None, {member: address}]
    ATTACHED = 38  # ATTACHED_HEAD
    ADMIN_REPLY = 39  # msgpack [request id, error message | None, value]
    KEPT = 40  # KEPT_HEAD: a keep-alive was applied
    CLOSED = 41  # U64 session: an unregister was applied, or the session expired

    # member -> member
    APPEND = 64
    APPEND_REPLY = 65
    VOTE = 66
    VOTE_REPLY = 67
    CHUNK = 68
    CHUNK_REPLY = 69
    STAND = 70
    READ_INDEX = 71
    READ_INDEX_REPLY = 72

    # founding a cluster
    FOUND_ASK = 80  # msgpack map, see server/bootstrap
    FOUND_REPLY = 81


class Reason(enum.IntEnum):
    """Why a frame was rejected."""

    NOT_LEADER = 1  # ask the leader (a LEADER frame said, or will say, who that is)
    UNKNOWN_SESSION = 2  # the session expired or never was
    OUT_OF_ORDER = 3  # ``detail`` is the sequence expected next: send again from there
    OVERLOADED = 4  # ``detail`` is milliseconds to wait; nothing was logged
    MALFORMED = 5  # the connection is closed after this
    FORBIDDEN = 6  # the session's secret is another one, or this connection has not proven it


U64 = struct.Struct("<Q")
QUERY_HEAD = struct.Struct("<QQIB3x")  # first query id, minimal index, count, consistency
ATTACH_HEAD = struct.Struct("<QQ16s")  # session, last event index received (0: none), secret
REGISTERED_HEAD = struct.Struct("<Q16s")  # session, client uuid
RESULTS_HEAD = struct.Struct("<QQQI")  # session, first sequence, applied index, count
ANSWERS_HEAD = struct.Struct("<QQI")  # first query id, applied index, count
EVENTS_HEAD = struct.Struct("<QQQ")  # session, event index, the event index before it
REJECT_HEAD = struct.Struct("<BBHIQQ")  # reason, frame type, 0, count, first id, detail
ATTACHED_HEAD = struct.Struct("<QQB7x")  # session, last sequence applied, 1: known / 0: unknown
KEPT_HEAD = struct.Struct("<QQ")  # session, nonce


def pack_frame(type_: int, *parts: bytes) -> bytes:
    """One frame as contiguous bytes."""
    return b"".join((HEADER.pack(sum(map(len, parts)), type_, 0, 0), *parts))


class FrameBuffer:
    """Collects what a connection receives and cuts it into frames; never holds beyond a limit.

    ``feed`` raises `FormatError` as soon as a length field exceeds ``limit`` or the preamble is
    wrong, before anything of that size is allocated (H78, H81).
    """

    __slots__ = ("_data", "_expect_preamble", "limit")

    def __init__(self, limit: int, *, expect_preamble: bool = True) -> None:
        self._data = bytearray()
        self._expect_preamble = expect_preamble
        self.limit = limit

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[int, bytes]]:
        """Add ``data``; return the frames that are complete now as (type, payload)."""
        frames: list[tuple[int, bytes]] = []
        at = 0
        buffer: bytes | bytearray | memoryview
        if self._data or self._expect_preamble:
            buffer = self._data
            buffer += data
        else:
            buffer = data  # as nearly always: whole frames, which need no collecting
        if self._expect_preamble:
            head = bytes(buffer[: len(PREAMBLE)])
            if head != PREAMBLE[: len(head)]:
                raise FormatError(f"not a Copycat peer: the connection began with {head!r}")
            if len(head) < len(PREAMBLE):
                return frames
            at = len(PREAMBLE)
            self._expect_preamble = False
        end = len(buffer)
        while end - at >= HEADER_SIZE:
            length, type_, _, _ = HEADER.unpack_from(buffer, at)
            if length > self.limit:
                raise FormatError(f"a frame of {length} bytes exceeds the limit of {self.limit}")
            stop = at + HEADER_SIZE + length
            if stop > end:
                break
            frames.append((type_, bytes(memoryview(buffer)[at + HEADER_SIZE : stop])))
            at = stop
        if buffer is not self._data:
            if at < end:
                self._data += buffer[at:]
        elif at:
            del self._data[:at]
        return frames
