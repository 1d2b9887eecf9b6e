"""The byte kernels, in their pure body: fallback, type stub, and readable specification.

``kernel.pyx`` is the compiled body of the same functions; ``tests/core/test_kernel.py`` runs both
on the same inputs. Kernels work on whole batches, never open anything, and know nothing of Raft.
Offsets and lengths are in bytes; ``buffer`` is any object with the buffer interface.
"""

from __future__ import annotations

import zlib
from struct import error as StructError

from .layout import (
    BATCH_CRC_FROM,
    BATCH_HEADER,
    BATCH_HEADER_SIZE,
    BATCH_MAGIC,
    COMMAND_HEADER,
    COMMAND_HEADER_SIZE,
    CONFIGURATION_FLAG,
    FRAME_ALIGNMENT,
    FRAME_CRC_FROM,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    FRAME_MAGIC,
    MAX_BATCH_BYTES,
    RESULT_HEADER,
    RESULT_HEADER_SIZE,
    RUN_HEADER,
    RUN_HEADER_SIZE,
    FormatError,
)

Buffer = bytes | bytearray | memoryview

COMPILED = False

_PIECE = 1 << 20


def crc32(buffer: Buffer, value: int = 0) -> int:
    """CRC-32 with zlib's polynomial, continued from ``value``."""
    return zlib.crc32(buffer, value)


def encode_run(
    kind: int,
    session: int,
    first_sequence: int,
    acknowledged: int,
    commands: list[tuple[int, int, bytes]],
) -> bytes:
    """One run of (resource, operation, arguments) commands, header included."""
    parts: list[bytes] = [b""]
    pack = COMMAND_HEADER.pack
    for resource, operation, arguments in commands:
        parts.append(pack(len(arguments), operation, resource))
        parts.append(arguments)
    size = sum(map(len, parts))
    parts[0] = RUN_HEADER.pack(
        kind, 0, 0, len(commands), session, first_sequence, acknowledged, size, 0
    )
    return b"".join(parts)


def check_run(
    buffer: Buffer, offset: int, end: int, max_arguments: int
) -> tuple[int, int, int, int, int, int]:
    """Verify the run at ``offset``, of which nothing may reach beyond ``end``.

    Returns (kind, session, first_sequence, acknowledged, count, end of the run). Raises
    `FormatError` for a run that is empty, does not end where it says, or holds a command whose
    arguments are longer than ``max_arguments`` bytes.
    """
    if end > len(buffer) or offset < 0 or offset + RUN_HEADER_SIZE > end:
        raise FormatError("a run ends inside its header")
    kind, flags, reserved, count, session, first, acknowledged, length, reserved2 = (
        RUN_HEADER.unpack_from(buffer, offset)
    )
    at = offset + RUN_HEADER_SIZE
    stop = at + length
    if stop > end or count == 0 or flags or reserved or reserved2:
        raise FormatError("a run's header is not valid")
    unpack = COMMAND_HEADER.unpack_from
    for _ in range(count):
        if at + COMMAND_HEADER_SIZE > stop:
            raise FormatError("a run is shorter than its commands")
        size = unpack(buffer, at)[0]
        if size > max_arguments:
            raise FormatError(f"a command's arguments have {size} bytes, {max_arguments} allowed")
        at += COMMAND_HEADER_SIZE + size
    if at != stop:
        raise FormatError("a run's commands do not fill it")
    return kind, session, first, acknowledged, count, stop


def slice_run(buffer: Buffer, offset: int, skip: int) -> bytes:
    """A copy of the (checked) run at ``offset`` without its first ``skip`` commands, skip < count.

    The first sequence rises by ``skip``.
    """
    kind, _, _, count, session, first, acknowledged, length, _ = RUN_HEADER.unpack_from(
        buffer, offset
    )
    at = offset + RUN_HEADER_SIZE
    stop = at + length
    for _ in range(skip):
        at += COMMAND_HEADER_SIZE + int(COMMAND_HEADER.unpack_from(buffer, at)[0])
    header = RUN_HEADER.pack(
        kind, 0, 0, count - skip, session, first + skip, acknowledged, stop - at, 0
    )
    return header + bytes(buffer[at:stop])


def seal_batch(
    runs: list[bytes], base_index: int, term: int, time_us: int, flags: int = 0
) -> bytes:
    """The image of a batch that holds ``runs`` (each one checked); counts are read from them."""
    count = 0
    length = BATCH_HEADER_SIZE
    for run in runs:
        count += int.from_bytes(run[4:8], "little")
        length += len(run)
    header = BATCH_HEADER.pack(
        BATCH_MAGIC, 0, length, flags, base_index, term, time_us, count, len(runs)
    )
    crc = zlib.crc32(header[BATCH_CRC_FROM:])
    for run in runs:
        crc = zlib.crc32(run, crc)
    return b"".join((BATCH_MAGIC, crc.to_bytes(4, "little"), header[BATCH_CRC_FROM:], *runs))


def scan_batches(
    buffer: Buffer, offset: int, end: int
) -> list[tuple[int, int, int, int, int, int]]:
    """Verify the images that fill [offset, end) exactly.

    Returns (offset, length, base_index, count, term, time_us) of each; raises `FormatError`.
    """
    found: list[tuple[int, int, int, int, int, int]] = []
    view = memoryview(buffer)
    if end > len(view):
        raise FormatError("batches end beyond their buffer")
    at = offset
    while at < end:
        header = _checked_header(view, at, end)
        if header is None:
            raise FormatError(f"no valid batch at offset {at}")
        length, base, term, time_us, count, _ = header
        found.append((at, length, base, count, term, time_us))
        at += length
    return found


def batch_runs(image: Buffer) -> list[tuple[int, int, int, int, int, int]]:
    """The runs of a verified image: (kind, session, first_sequence, acknowledged, count, offset).

    ``offset`` is that of the run's first command. Raises `FormatError`.
    """
    runs: list[tuple[int, int, int, int, int, int]] = []
    try:
        header = BATCH_HEADER.unpack_from(image, 0)
        length, count, run_count = header[2], header[7], header[8]
        if length != len(image):
            raise FormatError("an image's length is not what its header says")
        at = BATCH_HEADER_SIZE
        for _ in range(run_count):
            kind, _, _, run_length, session, first, acknowledged, size, _ = RUN_HEADER.unpack_from(
                image, at
            )
            at += RUN_HEADER_SIZE
            runs.append((kind, session, first, acknowledged, run_length, at))
            count -= run_length
            at += size
    except StructError as problem:
        raise FormatError("an image ends inside a header") from problem
    if at != length or count:
        raise FormatError("an image's runs do not fill it")
    return runs


def decode_commands(
    image: Buffer, offset: int, count: int, skip: int = 0
) -> list[tuple[int, int, bytes]]:
    """(resource, operation, arguments) of ``count`` commands from ``offset``, less the first ones.

    The first ``skip`` of the ``count`` commands are walked over. Raises `FormatError`.
    """
    commands: list[tuple[int, int, bytes]] = []
    unpack = COMMAND_HEADER.unpack_from
    end = len(image)
    for position in range(count):
        if offset + COMMAND_HEADER_SIZE > end:
            raise FormatError("a command ends inside its header")
        size, operation, resource = unpack(image, offset)
        offset += COMMAND_HEADER_SIZE
        stop = offset + size
        if stop > end:
            raise FormatError("a command's arguments are cut off")
        if position >= skip:
            commands.append((resource, operation, bytes(image[offset:stop])))
        offset = stop
    return commands


def encode_results(results: list[bytes]) -> bytes:
    """Results (status byte and value each) one after the other, length-prefixed."""
    pack = RESULT_HEADER.pack
    return b"".join([part for result in results for part in (pack(len(result)), result)])


def decode_results(buffer: Buffer, offset: int, count: int) -> list[bytes]:
    """The ``count`` results (status byte and value each) that fill the rest of ``buffer``."""
    results: list[bytes] = []
    unpack = RESULT_HEADER.unpack_from
    end = len(buffer)
    for _ in range(count):
        if offset + RESULT_HEADER_SIZE > end:
            raise FormatError("a result ends inside its header")
        size = unpack(buffer, offset)[0]
        offset += RESULT_HEADER_SIZE
        stop = offset + size
        if stop > end or size == 0:
            raise FormatError("a result is empty or cut off")
        results.append(bytes(buffer[offset:stop]))
        offset = stop
    if offset != end:
        raise FormatError("results do not fill their frame")
    return results


def frame_image(
    image: bytes, generation: int, offset: int, durable_index: int, previous_crc: int
) -> bytes:
    """The image inside its local frame, padded, as it will lie at ``offset`` of its file."""
    tail = FRAME_HEADER.pack(
        FRAME_MAGIC, 0, generation, offset, durable_index, previous_crc, len(image)
    )[FRAME_CRC_FROM:]
    crc = zlib.crc32(image[4:8], zlib.crc32(tail))
    padding = bytes(-(FRAME_HEADER_SIZE + len(image)) % FRAME_ALIGNMENT)
    return b"".join((FRAME_MAGIC, crc.to_bytes(4, "little"), tail, image, padding))


def scan_frames(
    buffer: Buffer,
    offset: int,
    end: int,
    generation: int,
    previous_crc: int,
    next_index: int,
    stride: int,
) -> tuple[
    int, int, int, int, int,
    list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]],
]:  # fmt: skip
    """Walk and verify the frames that chain from ``offset``; stop at the first that does not.

    A frame chains when magic and checksums hold, its offset is where it lies, its generation is
    not below the one before (``generation`` at first), its previous_crc is the last image's crc,
    and its base index is the next index.

    Returns (stop offset, generation, previous_crc, next_index, time_us of the last batch or 0,
    sparse index, terms, flagged). The sparse index holds (base_index, frame offset) of the first
    frame and then of each frame at least ``stride`` bytes after the last one noted; terms holds
    (base_index, term) of the first frame and of each where the term changes; flagged holds
    (base_index, flags) of each batch with a flag.
    """
    view = memoryview(buffer)
    index: list[tuple[int, int]] = []
    terms: list[tuple[int, int]] = []
    flagged: list[tuple[int, int]] = []
    time_us = 0
    noted = -stride
    last_term = -1
    while True:
        frame = _checked_frame(view, offset, end)
        if frame is None:
            break
        frame_generation, _, crc_before, length, header = frame
        if frame_generation < generation or crc_before != previous_crc or header[1] != next_index:
            break
        generation = frame_generation
        previous_crc = int.from_bytes(
            view[offset + FRAME_HEADER_SIZE + 4 : offset + FRAME_HEADER_SIZE + 8], "little"
        )
        if offset - noted >= stride:
            index.append((next_index, offset))
            noted = offset
        if header[2] != last_term:
            last_term = header[2]
            terms.append((next_index, last_term))
        if header[5]:
            flagged.append((next_index, header[5]))
        time_us = header[3]
        next_index += header[4]
        offset += length
    return offset, generation, previous_crc, next_index, time_us, index, terms, flagged


def find_frame(
    buffer: Buffer, offset: int, end: int, generation: int
) -> tuple[int, int, int] | None:
    """The first whole frame at or after ``offset`` of at least ``generation``, if there is one.

    Returns (offset, base_index, durable_index). It tells damage from a torn tail.
    """
    view = memoryview(buffer)
    end = min(end, len(view))
    offset += -offset % FRAME_ALIGNMENT
    while offset + FRAME_HEADER_SIZE <= end:
        # Searching copies of pieces is far quicker than looking at each place in turn.
        piece = bytes(view[offset : min(end, offset + _PIECE + len(FRAME_MAGIC))])
        at = piece.find(FRAME_MAGIC)
        while at >= 0:
            place = offset + at
            if at % FRAME_ALIGNMENT == 0 and place + FRAME_HEADER_SIZE <= end:
                frame = _checked_frame(view, place, end)
                if frame is not None and frame[0] >= generation:
                    return place, frame[4][1], frame[1]
            at = piece.find(FRAME_MAGIC, at + 1)
        offset += _PIECE
    return None


def _checked_header(
    view: memoryview, at: int, end: int
) -> tuple[int, int, int, int, int, int] | None:
    """(length, base_index, term, time_us, count, flags) of a whole and valid image at ``at``."""
    if at + BATCH_HEADER_SIZE > end:
        return None
    magic, crc, length, flags, base, term, time_us, count, _ = BATCH_HEADER.unpack_from(view, at)
    if (
        magic != BATCH_MAGIC
        or flags & ~CONFIGURATION_FLAG
        or count == 0
        or not BATCH_HEADER_SIZE <= length <= MAX_BATCH_BYTES
        or at + length > end
        or zlib.crc32(view[at + BATCH_CRC_FROM : at + length]) != crc
    ):
        return None
    return length, base, term, time_us, count, flags


def _checked_frame(
    view: memoryview, at: int, end: int
) -> tuple[int, int, int, int, tuple[int, int, int, int, int, int]] | None:
    """(generation, durable_index, previous_crc, padded length, image header) of a whole frame."""
    if at + FRAME_HEADER_SIZE + BATCH_HEADER_SIZE > end:
        return None
    magic, crc, generation, offset, durable, previous_crc, length = FRAME_HEADER.unpack_from(
        view, at
    )
    image = at + FRAME_HEADER_SIZE
    if (
        magic != FRAME_MAGIC
        or offset != at
        or zlib.crc32(
            view[image + 4 : image + 8], zlib.crc32(view[at + FRAME_CRC_FROM : image])
        )
        != crc
    ):
        return None
    header = _checked_header(view, image, end)
    if header is None or header[0] != length:
        return None
    padded = FRAME_HEADER_SIZE + length
    padded += -padded % FRAME_ALIGNMENT
    if at + padded > end:
        return None
    return generation, durable, previous_crc, padded, header
