"""Raft's messages as frames: the hot ones as fixed structs followed by the images, verbatim.

The sender's and receiver's names do not travel: the handshake of the link says who speaks.
Decoding verifies every image's checksum and raises `FormatError` on anything malformed.
"""

from __future__ import annotations

import struct

from .._core.codec import HEADER, Frame
from .._core.kernel import scan_batches
from .._core.layout import BATCH_FLAGS_OFFSET, FormatError
from ..raft.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    SnapshotChunk,
    SnapshotResponse,
    Span,
    Stand,
    VoteRequest,
    VoteResponse,
)
from .roster import roster_in

_APPEND = struct.Struct("<QQQQQQQ")
_APPEND_SIZE = _APPEND.size
_APPEND_REPLY = struct.Struct("<QBQQQQ")
_VOTE = struct.Struct("<QQQB")
_STAND = struct.Struct("<Q")
_VOTE_REPLY = struct.Struct("<QBB")
_CHUNK = struct.Struct("<QQQQQ")
_CHUNK_REPLY = struct.Struct("<QQQB")
_READ_INDEX = struct.Struct("<QQQ")
_READ_INDEX_REPLY = struct.Struct("<QQQQB")


_ANSWERS = (Frame.APPEND_REPLY, Frame.VOTE_REPLY, Frame.CHUNK_REPLY)


def is_answer(frame: bytes) -> bool:
    """Whether a whole frame answers a message."""
    return HEADER.unpack_from(frame)[1] in _ANSWERS


def acknowledges(frame: bytes) -> bool:
    """Whether it tells a leader what is durable here."""
    return bool(HEADER.unpack_from(frame)[1] == Frame.APPEND_REPLY)


def encode_message(message: Message, images: list[bytes] | None = None) -> bytes:
    """One whole frame; ``images`` are the batches of an `AppendRequest`."""
    m = message
    if isinstance(m, AppendRequest):
        head = _APPEND.pack(
            m.term, m.prev_index, m.prev_term, m.last_index, m.commit_index, m.round, m.lease_us
        )
        return _frame(Frame.APPEND, head, images or [])
    if isinstance(m, AppendResponse):
        head = _APPEND_REPLY.pack(
            m.term, m.success | m.promised << 1, m.match_index, m.round, m.hint_index, m.hint_term
        )
        return _frame(Frame.APPEND_REPLY, head, [])
    if isinstance(m, VoteRequest):
        return _frame(Frame.VOTE, _vote_head(m), [])
    if isinstance(m, VoteResponse):
        return _frame(Frame.VOTE_REPLY, _VOTE_REPLY.pack(m.term, m.granted, m.pre), [])
    if isinstance(m, SnapshotChunk):
        head = _CHUNK.pack(m.term, m.index, m.snapshot_term, m.offset, m.total)
        return _frame(Frame.CHUNK, head, [m.data])
    if isinstance(m, SnapshotResponse):
        return _frame(Frame.CHUNK_REPLY, _CHUNK_REPLY.pack(m.term, m.index, m.offset, m.done), [])
    if isinstance(m, ReadIndexRequest):
        return _frame(Frame.READ_INDEX, _READ_INDEX.pack(m.term, m.life, m.number), [])
    if isinstance(m, ReadIndexResponse):
        head = _READ_INDEX_REPLY.pack(m.term, m.life, m.number, m.index or 0, m.index is not None)
        return _frame(Frame.READ_INDEX_REPLY, head, [])
    return _frame(Frame.STAND, _STAND.pack(m.term), [])


def decode_message(type_: int, payload: bytes, sender: str, to: str) -> Message:
    """The message in a frame's payload; raises `FormatError` if it is none."""
    try:
        if type_ == Frame.APPEND:
            head = _APPEND.unpack_from(payload)
            term, prev_index, prev_term, last, commit, round_, lease_us = head
            spans = []
            images = []
            reached = prev_index
            end = len(payload)
            if end > _APPEND_SIZE:
                for at, length, base, count, batch_term, _ in scan_batches(
                    payload, _APPEND_SIZE, end
                ):
                    if base != reached + 1:
                        raise FormatError("the batches of an append do not follow one another")
                    reached += count
                    images.append(payload[at : at + length])
                    if payload[at + BATCH_FLAGS_OFFSET]:
                        membership = roster_in(images[-1]).membership
                        spans.append(Span(base, reached, batch_term, membership))
                    else:
                        spans.append(Span(base, reached, batch_term))
            if reached != last:
                raise FormatError("an append does not end where it says")
            return AppendRequest(
                term, sender, to, prev_index, prev_term, last, commit, round_,
                tuple(spans), tuple(images), lease_us,
            )  # fmt: skip
        if type_ == Frame.APPEND_REPLY:
            term, flags, match, round_, hint, hint_term = _APPEND_REPLY.unpack(payload)
            return AppendResponse(
                term, sender, to, bool(flags & 1), match, round_, hint, hint_term, bool(flags & 2)
            )
        if type_ == Frame.VOTE:
            term, last, last_term, flags = _VOTE.unpack(payload)
            return VoteRequest(term, sender, to, last, last_term, bool(flags & 1), bool(flags & 2))
        if type_ == Frame.VOTE_REPLY:
            term, granted, pre = _VOTE_REPLY.unpack(payload)
            return VoteResponse(term, sender, to, bool(granted), bool(pre))
        if type_ == Frame.CHUNK:
            term, index, snapshot_term, offset, total = _CHUNK.unpack_from(payload)
            data = payload[_CHUNK.size :]
            if offset + len(data) > total:
                raise FormatError("a snapshot chunk reaches beyond its snapshot")
            return SnapshotChunk(term, sender, to, index, snapshot_term, offset, total, data)
        if type_ == Frame.CHUNK_REPLY:
            term, index, offset, done = _CHUNK_REPLY.unpack(payload)
            return SnapshotResponse(term, sender, to, index, offset, bool(done))
        if type_ == Frame.READ_INDEX:
            term, life, number = _READ_INDEX.unpack(payload)
            return ReadIndexRequest(term, sender, to, life, number)
        if type_ == Frame.READ_INDEX_REPLY:
            term, life, number, index, known = _READ_INDEX_REPLY.unpack(payload)
            return ReadIndexResponse(term, sender, to, life, number, index if known else None)
        if type_ == Frame.STAND:
            (term,) = _STAND.unpack(payload)
            return Stand(term, sender, to)
    except struct.error as problem:
        raise FormatError(f"a message of type {type_} has the wrong length") from problem
    raise FormatError(f"a member sent a frame of type {type_}")


def _vote_head(m: VoteRequest) -> bytes:
    return _VOTE.pack(m.term, m.last_index, m.last_term, m.pre | m.bidden << 1)


def _frame(type_: Frame, head: bytes, parts: list[bytes]) -> bytes:
    size = len(head) + sum(map(len, parts))
    return b"".join((HEADER.pack(size, type_, 0, 0), head, *parts))
