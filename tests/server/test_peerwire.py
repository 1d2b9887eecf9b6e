"""Raft's messages survive the wire unchanged, and nothing malformed becomes a message."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from copycat._core.codec import FrameBuffer
from copycat._core.kernel import encode_run, seal_batch
from copycat._core.layout import CONFIGURATION_FLAG, FormatError, Kind
from copycat.raft import Membership
from copycat.raft.messages import (
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
from copycat.server import gateway
from copycat.server.peerwire import decode_message, encode_message
from copycat.server.roster import Roster, Seat
from copycat.types import Address


def image(base: int, count: int, term: int) -> bytes:
    """A batch of ``count`` ticks."""
    run = encode_run(Kind.TICK, 0, 0, 0, [(0, 0, b"\x90")] * count)
    return seal_batch([run], base, term, 1)


ROSTER = Roster(Membership(("a",), ("b",)), {n: Seat(Address(n, 1), b"u" * 16) for n in "ab"})
CONFIGURATION = seal_batch([ROSTER.run()], 8, 3, 1, CONFIGURATION_FLAG)
IMAGES = (image(8, 2, 3), image(10, 1, 4))
SPANS = (Span(8, 9, 3), Span(10, 10, 4))
MESSAGES: list[Message] = [
    AppendRequest(4, "a", "b", 7, 2, 10, 6, 99, SPANS, IMAGES),
    AppendRequest(4, "a", "b", 7, 2, 7, 6, 99),
    AppendRequest(4, "a", "b", 7, 2, 7, 6, 99, lease_us=2**63),
    AppendRequest(
        4, "a", "b", 7, 2, 8, 6, 99, (Span(8, 8, 3, ROSTER.membership),), (CONFIGURATION,)
    ),
    AppendResponse(4, "a", "b", True, 2**63, 5),
    AppendResponse(4, "a", "b", False, 3, 5, 2, 1),
    AppendResponse(4, "a", "b", True, 3, 5, promised=True),
    AppendResponse(4, "a", "b", False, 3, 5, 2, 1, True),
    VoteRequest(2**64 - 1, "a", "b", 7, 3, True),
    VoteResponse(5, "a", "b", False, True),
    SnapshotChunk(5, "a", "b", 7, 3, 100, 1000, b"x" * 50),
    SnapshotResponse(5, "a", "b", 7, 150, True),
    Stand(5, "a", "b"),
    ReadIndexRequest(5, "a", "b", 2**64 - 1, 3),
    ReadIndexResponse(5, "a", "b", 2**64 - 1, 3, 0),
    ReadIndexResponse(5, "a", "b", 7, 3, None),
]


def test_every_message_passes_the_gateway() -> None:
    """What members say to each other has a frame type that other members are let in with."""
    assert {type(message) for message in MESSAGES} == set(get_args(Message))
    assert {over_the_wire(message)[0] for message in MESSAGES} == set(gateway._PEER_FRAMES)


def over_the_wire(message: Message) -> tuple[int, bytes]:
    """The frame a peer receives."""
    images = list(message.images) if isinstance(message, AppendRequest) else None
    (frame,) = FrameBuffer(1 << 30, expect_preamble=False).feed(encode_message(message, images))
    return frame


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_survive(message: Message) -> None:
    """What was sent is what arrives."""
    assert decode_message(*over_the_wire(message), "a", "b") == message


@pytest.mark.parametrize("seed", range(20))
def test_mutations_never_escape(seed: int) -> None:
    """Any mutation gives a message or a FormatError; changed images never pass (H79)."""
    chance = random.Random(seed)
    for _ in range(200):
        type_, payload = over_the_wire(chance.choice(MESSAGES))
        broken = bytearray(payload)
        broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            del broken[chance.randrange(len(broken)) :]
        try:
            message = decode_message(type_, bytes(broken), "a", "b")
        except FormatError:
            continue
        if isinstance(message, AppendRequest):
            assert message.images in (IMAGES, (CONFIGURATION,), ())


def test_batches_must_follow_one_another() -> None:
    """An append whose batches leave a hole, or end elsewhere than it says, is refused."""
    hole = AppendRequest(4, "a", "b", 7, 2, 11, 6, 1)
    images = [image(8, 2, 3), image(11, 1, 4)]
    (frame,) = FrameBuffer(1 << 30, expect_preamble=False).feed(encode_message(hole, images))
    with pytest.raises(FormatError):
        decode_message(*frame, "a", "b")
    empty = AppendRequest(4, "a", "b", 7, 2, 9, 6, 1)
    with pytest.raises(FormatError):
        decode_message(*over_the_wire(empty), "a", "b")
