"""A segment: one preallocated file with a header page and frames one after the other.

It knows where its frames lie (sparsely) and reads them through the file's mapping. It never opens
a file, never decides when to write, and keeps no object per batch, let alone per command.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import CorruptLogError
from ..ports import File
from .kernel import crc32
from .layout import (
    BATCH_CRC_FROM,
    BATCH_HEADER,
    CHECKSUM_CRC32,
    CUT_MAGIC,
    FORMAT_VERSION,
    FRAME_ALIGNMENT,
    FRAME_CRC_FROM,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    SEGMENT_DATA_OFFSET,
    SEGMENT_HEADER,
    SEGMENT_HEADER_CRC,
    SEGMENT_MAGIC,
    FormatError,
)

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""
DAMAGE_HINT = (
    "the entries behind it may exist on the other members only: remove this member's data "
    "directory and let it rejoin empty; a member that is alone needs its backup"
)


class Header(NamedTuple):
    """The header page's fields; see ``layout``."""

    segment_id: int
    generation: int
    base_index: int
    base_term: int
    previous_crc: int
    size: int
    cluster_id: bytes
    member_uuid: bytes

    def encode(self) -> bytes:
        """The header page's used part."""
        data = SEGMENT_HEADER.pack(
            SEGMENT_MAGIC, FORMAT_VERSION, CHECKSUM_CRC32, self.segment_id, self.generation,
            self.base_index, self.base_term, self.previous_crc, 0, self.size,
            self.cluster_id, self.member_uuid,
        )  # fmt: skip
        return data + SEGMENT_HEADER_CRC.pack(crc32(data))


class NewerFormatError(FormatError):
    """A file was written by a later version of Copycat."""


def read_header(file: File) -> Header | None:
    """The header of a segment file; None if the file was prepared and never used.

    Raises `NewerFormatError` for another format, and `FormatError` for a damaged header.
    """
    data = file.pread(SEGMENT_HEADER.size + SEGMENT_HEADER_CRC.size, 0)
    if not any(data):
        return None
    if len(data) < SEGMENT_HEADER.size + SEGMENT_HEADER_CRC.size:
        raise FormatError("the file is shorter than a segment's header")
    fields = SEGMENT_HEADER.unpack_from(data)
    sound = crc32(SEGMENT_MAGIC + data[8 : SEGMENT_HEADER.size]) == int.from_bytes(
        data[SEGMENT_HEADER.size :], "little"
    )
    # With a sound rest, another version's digit is a bit that rotted.
    if data[:7] == SEGMENT_MAGIC[:7] and data[:8] != SEGMENT_MAGIC and not sound:
        raise NewerFormatError(f"the file has format {data[7:8]!r}")
    if data[:8] != SEGMENT_MAGIC or not sound:
        raise FormatError("the segment's header is damaged")
    if fields[1] != FORMAT_VERSION or fields[2] != CHECKSUM_CRC32:
        raise NewerFormatError(f"the file has format {fields[1]} with checksum {fields[2]}")
    _, _, _, id_, generation, base, term, previous, _, size, cluster, uuid = fields
    return Header(id_, generation, base, term, previous, size, cluster, uuid)


def framed_size(image_length: int) -> int:
    """What an image of that length takes in a segment."""
    size = FRAME_HEADER_SIZE + image_length
    return size + -size % FRAME_ALIGNMENT


def cut_marker(generation: int, offset: int) -> bytes:
    """The marker that a truncation to ``generation`` leaves at ``offset``."""
    tail = FRAME_HEADER.pack(CUT_MAGIC, 0, generation, offset, 0, 0, 0)[FRAME_CRC_FROM:]
    return CUT_MAGIC + crc32(tail).to_bytes(4, "little") + tail


def cut_writes(file: File, starts: list[int], generation: int) -> list[tuple[File, int, bytes]]:
    """What cuts a segment at ``starts[0]``, each write to be durable before the next.

    ``starts`` are the offsets of the frames to drop, then where the last one ends. The marker says,
    until the zeros behind it are durable, that what stands there is void: half-done zeroing would
    look like damage. A disk may tear a write between two sectors, and half a marker is none. So one
    that would lie across two is written last: what is behind a later, safe place goes first, then
    the frames before that place one by one from the back, so that none is left that could prove
    that a dropped one had been durable.
    """
    at, end = starts[0], starts[-1]
    safe = next((n for n, start in enumerate(starts[:-1]) if _in_one_sector(start)), None)
    last = len(starts) - 1 if safe is None else safe
    writes: list[tuple[File, int, bytes]] = []
    if safe is not None:
        writes += _marker_and_zeros(file, starts[safe], end, generation)
    for n in range(last - 1, 0, -1):
        writes.append((file, starts[n], bytes(starts[n + 1] - starts[n])))
    if last > 0:
        writes += _marker_and_zeros(file, at, end, generation)
    return writes


def _marker_and_zeros(
    file: File, at: int, end: int, generation: int
) -> list[tuple[File, int, bytes]]:
    behind = at + FRAME_HEADER_SIZE
    return [
        (file, at, cut_marker(generation, at)),
        (file, behind, bytes(max(0, end - behind))),
    ]


def _in_one_sector(at: int) -> bool:
    return at // SECTOR_BYTES == (at + FRAME_HEADER_SIZE - 1) // SECTOR_BYTES


def read_cut_marker(view: memoryview, offset: int) -> int | None:
    """The generation of the marker at ``offset``; None if there is none."""
    data = bytes(view[offset : offset + FRAME_HEADER_SIZE])
    if len(data) < FRAME_HEADER_SIZE or data[:4] != CUT_MAGIC:
        return None
    _, crc, generation, place, _, _, _ = FRAME_HEADER.unpack(data)
    whole = crc == crc32(data[FRAME_CRC_FROM:]) and place == offset
    return int(generation) if whole else None


class Segment:
    """The frames of one file. ``next_index`` and ``end`` say where the next frame belongs."""

    __slots__ = ("_bases", "_offsets", "_stride", "_view", "base_index", "end", "file", "id",
                 "next_index", "previous_crc", "size")  # fmt: skip

    def __init__(
        self, id_: int, file: File, base_index: int, previous_crc: int, stride: int
    ) -> None:
        self.id = id_
        self.file = file
        self.size = file.size()
        self.base_index = base_index
        self.next_index = base_index
        self.previous_crc = previous_crc  # of the image before this segment
        self.end = SEGMENT_DATA_OFFSET
        self._stride = stride
        self._bases = array("Q")
        self._offsets = array("Q")
        self._view: memoryview | None = None

    @property
    def view(self) -> memoryview:
        """The whole file as it is at any time."""
        if self._view is None:
            self._view = self.file.view()
        return self._view

    def has_room(self, image_length: int) -> bool:
        """Whether another image of that length fits."""
        return self.end + framed_size(image_length) <= self.size

    def note(self, base_index: int, count: int, image_length: int) -> None:
        """An image of ``count`` entries was put at the end."""
        if not self._offsets or self.end - self._offsets[-1] >= self._stride:
            self._bases.append(base_index)
            self._offsets.append(self.end)
        self.next_index = base_index + count
        self.end += framed_size(image_length)

    def note_scanned(self, end: int, next_index: int, entries: list[tuple[int, int]]) -> None:
        """A scan of the file found frames up to ``end``, ``entries`` of its sparse index."""
        self.end = end
        self.next_index = next_index
        self._bases = array("Q", (base for base, _ in entries))
        self._offsets = array("Q", (offset for _, offset in entries))

    def frames(
        self, first_index: int, before: int | None = None
    ) -> Iterator[tuple[int, int, int, int]]:
        """(image offset, length, base index, count) from the frame that holds ``first_index``.

        Only those that begin before offset ``before``: what follows may not be in the mapping yet.
        Raises `CorruptLogError` at a header that rotted since it was written or recovered.
        """
        if not self._bases:
            return
        position = max(0, bisect_right(self._bases, first_index) - 1)
        at, expected = self._offsets[position], self._bases[position]
        view = self.view
        end = self.end if before is None else before
        while at < end:
            image = at + FRAME_HEADER_SIZE
            _, _, length, _, base, _, _, count, _ = BATCH_HEADER.unpack_from(view, image)
            _, frame_crc, _, _, _, _, framed = FRAME_HEADER.unpack_from(view, at)
            if (
                base != expected
                or length != framed
                or crc32(view[image + 4 : image + 8], crc32(view[at + FRAME_CRC_FROM : image]))
                != frame_crc
            ):
                raise self.damaged(at, expected)
            if base + count > first_index:
                yield image, length, base, count
            at += framed_size(length)
            expected = base + count

    def image(self, at: int, length: int) -> bytes:
        """The image at an offset that `frames` gave. Raises `CorruptLogError` if it rotted."""
        image = bytes(self.view[at : at + length])
        if crc32(memoryview(image)[BATCH_CRC_FROM:]) != int.from_bytes(image[4:8], "little"):
            raise self.damaged(at - FRAME_HEADER_SIZE, int.from_bytes(image[16:24], "little"))
        return image

    def damaged(self, offset: int, index: int) -> CorruptLogError:
        """The error for a frame at ``offset`` that was whole once: with entry ``index`` in it."""
        return CorruptLogError(
            f"{self.file.path} is damaged at offset {offset}: entry {index} was durable and cannot "
            "be read any more",
            segment=self.file.path,
            offset=offset,
            hint=DAMAGE_HINT,
        )

    def cut(self, from_index: int) -> int:
        """Forget the frames from ``from_index`` on, which must begin one and lie in the mapping.

        Returns the checksum of the image before the cut. Raises `FormatError` if no frame begins
        at ``from_index``.
        """
        for image, _, base, _ in self.frames(from_index):
            if base == from_index:
                self.cut_at(image - FRAME_HEADER_SIZE, from_index)
                return self.last_crc()
            break
        raise FormatError(f"no batch begins at index {from_index}")

    def cut_at(self, end: int, from_index: int) -> None:
        """Forget the frames from offset ``end`` on, where ``from_index`` begins."""
        self.end = end
        self.next_index = from_index
        keep = bisect_right(self._bases, from_index - 1)
        del self._bases[keep:], self._offsets[keep:]

    def last_crc(self) -> int:
        """The checksum of the last image, or of the one before this segment."""
        crc = self.previous_crc
        for image, _, _, _ in self.frames(self.next_index - 1):
            crc = int.from_bytes(self.view[image + 4 : image + 8], "little")
        return crc

    def last_durable_index(self) -> int:
        """What the last frame says was durable when it was staged; 0 if there is no frame."""
        at = 0
        for image, _, _, _ in self.frames(self.next_index - 1):
            at = image - FRAME_HEADER_SIZE
        return int(FRAME_HEADER.unpack_from(self.view, at)[4]) if at else 0
