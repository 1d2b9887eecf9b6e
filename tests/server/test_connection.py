"""Framed connections over real sockets: whole frames in, bounds kept, strangers turned away."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from copycat._core.codec import HEADER, PREAMBLE, pack_frame
from copycat._core.layout import FormatError
from copycat.connection import Complaints
from copycat.network import RealNetwork

from .loops import LOOPS, Recorder, local, run, until


async def accept_one(
    **settings: object,
) -> tuple[Recorder, asyncio.StreamReader, asyncio.StreamWriter]:
    """A listening recorder and a raw connection to it."""
    recorder = Recorder(**settings)
    server = await RealNetwork().listen(local(), lambda: recorder.protocol)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.address.port)
    server.close()
    return recorder, reader, writer


@pytest.mark.parametrize("loop", LOOPS)
def test_frames_arrive_whole_wherever_the_stream_is_cut(loop: str) -> None:
    """The same frames come out for every split of the bytes into two writes."""
    stream = PREAMBLE + pack_frame(1, b"abc") + pack_frame(2) + pack_frame(3, bytes(range(20)))

    async def main() -> None:
        for at in range(len(stream) + 1):
            recorder, _, writer = await accept_one()
            writer.write(stream[:at])
            await asyncio.sleep(0)
            writer.write(stream[at:])
            await until(lambda: len(recorder.frames) == 3)  # noqa: B023
            assert recorder.frames == [(1, b"abc"), (2, b""), (3, bytes(range(20)))]
            writer.close()
            await until(lambda: recorder.lost)  # noqa: B023
            assert recorder.lost == [None]

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_byte_by_byte_and_large_frames(loop: str) -> None:
    """A connection survives the slowest and the largest of writers, in both directions."""
    rng = random.Random(7)
    payloads = [rng.randbytes(rng.choice((0, 1, 100, 70_000, 1_000_000))) for _ in range(20)]

    async def main() -> None:
        here = Recorder()
        there = Recorder()
        server = await RealNetwork().listen(local(), lambda: here.protocol)
        await RealNetwork().connect(server.address, lambda: there.protocol)
        server.close()
        await until(lambda: here.protocol.open)
        for recorder in (here, there):
            recorder.protocol.established(2 << 20)
            for payload in payloads:
                recorder.protocol.send(pack_frame(9, payload))
        await until(lambda: len(here.frames) == len(there.frames) == len(payloads))
        assert here.frames == there.frames == [(9, payload) for payload in payloads]
        here.protocol.close()
        await until(lambda: there.lost and here.lost)
        recorder, _, writer = await accept_one()
        for byte in PREAMBLE + pack_frame(5, b"slow"):
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        await until(lambda: recorder.frames)
        assert recorder.frames == [(5, b"slow")]
        writer.close()

    run(main(), loop)


def test_gathered_frames_leave_in_order_with_direct_ones() -> None:
    """send gathers, write does not wait, and neither overtakes the other."""

    async def main() -> None:
        here, there = Recorder(), Recorder()
        server = await RealNetwork().listen(local(), lambda: here.protocol)
        await RealNetwork().connect(server.address, lambda: there.protocol)
        server.close()
        there.protocol.send(pack_frame(1))
        there.protocol.send(pack_frame(2))
        there.protocol.write(pack_frame(3))
        there.protocol.send(pack_frame(4))
        there.protocol.close()  # what was gathered still leaves
        there.protocol.send(pack_frame(5))  # and this does not
        await until(lambda: here.lost)
        assert [type_ for type_, _ in here.frames] == [1, 2, 3, 4]
        here.protocol.write(pack_frame(6))  # into the void, without an error

    run(main())


@pytest.mark.parametrize(
    ("garbage", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
        (b"\0", b""),
        (PREAMBLE[:-1] + b"\x02", b""),
    ],
)
def test_strangers_are_turned_away(
    garbage: bytes, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """HTTP, TLS, noise, other versions: closed with one line; HTTP hears where it is (H81)."""

    async def main() -> None:
        for _ in range(3):
            recorder, reader, writer = await accept_one(complaints=complaints)
            writer.write(garbage)
            try:
                heard = await reader.read()
            except ConnectionResetError:
                heard = b""
            assert heard.startswith(answer)
            assert bool(heard) == bool(answer)
            assert len(recorder.lost) == 1 and recorder.frames == []
            writer.close()

    complaints = Complaints()
    with caplog.at_level(logging.WARNING):
        run(main())
    assert complaints.count == 3
    assert len(caplog.records) == 1
    assert "127.0.0.1" in caplog.records[0].message
    assert ("it speaks HTTP" in caplog.records[0].message) == bool(answer)


def test_an_oversized_frame_is_refused_by_its_header_alone() -> None:
    """A length beyond the limit closes the connection before the payload comes (H78)."""

    async def main() -> None:
        recorder, _, writer = await accept_one(frame_limit=1000)
        writer.write(PREAMBLE + pack_frame(1, bytes(1000)) + HEADER.pack(1001, 1, 0, 0))
        await until(lambda: recorder.lost)
        assert [len(payload) for _, payload in recorder.frames] in ([1000], [])
        writer.close()

    run(main())


def test_a_callback_may_find_a_frame_malformed() -> None:
    """A FormatError of the owner closes the connection, and later frames are not delivered."""
    seen: list[int] = []

    async def main() -> None:
        recorder, _, writer = await accept_one()

        def refuse(type_: int, payload: bytes) -> None:
            seen.append(type_)
            raise FormatError("never")

        recorder.protocol.on_frame = refuse
        writer.write(PREAMBLE + pack_frame(1) + pack_frame(2))
        await until(lambda: recorder.lost)
        assert seen == [1]
        writer.close()

    run(main())


def test_a_silent_connection_is_closed_unless_it_is_established() -> None:
    """Who does not finish the handshake in time is closed; who did may be silent (H80)."""

    async def main() -> None:
        silent, _, writer = await accept_one(handshake_timeout=0.05)
        settled, _, other = await accept_one(handshake_timeout=0.05)
        other.write(PREAMBLE + pack_frame(1))
        await until(lambda: settled.frames)
        settled.protocol.established()
        await until(lambda: silent.lost)
        await asyncio.sleep(0.06)  # the other one's deadline has passed as well
        assert not settled.lost
        writer.close()
        other.close()

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_slow_reader_overflows_and_then_loses_only_its_own_connection(loop: str) -> None:
    """Backlog is reported, bounded in bytes, and ends that connection alone (H76)."""

    async def main() -> None:
        drained: list[bool] = []
        slow, reader, writer = await accept_one(write_limit=8 << 20)
        slow.protocol.on_drained = lambda: drained.append(slow.protocol.overflowing)
        fine, fine_reader, other = await accept_one()
        piece = pack_frame(1, bytes(1 << 20))
        while not slow.protocol.overflowing:
            slow.protocol.write(piece)
            await asyncio.sleep(0)
        assert drained == [True]
        while slow.protocol.overflowing:  # now it reads, and the overflow ends
            await reader.read(1 << 20)
        assert drained == [True, False]
        for _ in range(64):
            slow.protocol.write(piece)
            await asyncio.sleep(0)
        await until(lambda: slow.lost)
        fine.protocol.write(pack_frame(2))
        assert await fine_reader.readexactly(16) == PREAMBLE + pack_frame(2)
        writer.close()
        other.close()

    run(main(), loop)


def test_reading_can_be_paused() -> None:
    """While paused nothing is delivered; afterwards everything is."""

    async def main() -> None:
        recorder, _, writer = await accept_one()
        writer.write(PREAMBLE + pack_frame(1))
        await until(lambda: recorder.frames)
        recorder.protocol.pause_reading()
        recorder.protocol.pause_reading()
        writer.write(pack_frame(2))
        await asyncio.sleep(0.05)  # long enough to be delivered if it were not held back
        assert len(recorder.frames) == 1
        recorder.protocol.resume_reading()
        recorder.protocol.resume_reading()
        await until(lambda: len(recorder.frames) == 2)
        writer.close()

    run(main())


def test_complaints_are_counted_and_logged_sparsely(caplog: pytest.LogCaptureFixture) -> None:
    """One line an interval, which says how many there were in between."""
    complaints = Complaints(interval=10)
    with caplog.at_level(logging.WARNING):
        for now in (0.0, 1.0, 9.9, 10.0, 12.0):
            complaints.add(now, "bad")
    assert complaints.count == 5
    assert [record.message for record in caplog.records] == [
        "bad",
        "bad (and 2 more like it since the last line)",
    ]
