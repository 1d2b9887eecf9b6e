"""The log: batches in segments, staged in memory, written when asked, found by index.

Appending frames an image for its place and stages it; `take_writes` hands out everything staged as
contiguous pieces, and `completed` moves the durable index. Images that are not durable yet, and the
most recent ones, are kept in memory; older ones are read through the mapping. It opens no file,
never syncs, and knows nothing of leaders or clients: ``server/store.py`` drives it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter

from ..errors import invariant
from ..ports import File
from .kernel import frame_image
from .layout import BATCH_HEADER, FRAME_HEADER_SIZE, SEGMENT_DATA_OFFSET, FormatError
from .segment import Header, Segment, cut_writes, framed_size
from .terms import Terms

RECENT_BYTES = 8 << 20


@dataclass(slots=True)
class Write:
    """What has to reach the disk, in order: write all pieces, then sync all files.

    ``last_index`` is what its completion will prove; a truncation meanwhile lowers it (H17).
    """

    pieces: list[tuple[File, int, bytes]]  # (file, offset, data)
    files: list[File]
    last_index: int
    size: int


@dataclass(frozen=True, slots=True)
class Truncation:
    """What makes a truncation durable.

    Drop ``segments`` (given in ascending order) from back to front, each step durable; then write
    each of ``writes`` and sync it before the next.
    """

    writes: list[tuple[File, int, bytes]]
    segments: list[tuple[int, File]]


class Log:
    """The ordered segments of one member.

    Args:
        cluster_id, member_uuid: 16 bytes each, written into every header.
        segment_bytes: size of a new segment file.
        prepare: makes a zero-filled segment file when a roll finds no spare: (id, size) -> file.
        index_stride: bytes between two entries of the sparse index.
        recent_bytes: how much is kept in memory although it is durable.
    """

    def __init__(
        self,
        cluster_id: bytes,
        member_uuid: bytes,
        segment_bytes: int,
        prepare: Callable[[int, int], File],
        *,
        index_stride: int = 4096,
        recent_bytes: int = RECENT_BYTES,
    ) -> None:
        self._cluster_id = cluster_id
        self._member_uuid = member_uuid
        self._segment_bytes = segment_bytes
        self._prepare = prepare
        self._stride = index_stride
        self._recent_max = recent_bytes
        self._segments: list[Segment] = []
        self._spares: list[tuple[int, File]] = []
        self.discarded: list[tuple[int, File]] = []  # spares that no roll can use
        self._next_id = 1
        self._terms = Terms()
        self._previous_crc = 0
        self._staged: list[tuple[int, File, int, bytes]] = []  # (index, file, offset, data)
        self._writing: Write | None = None
        self._recent_bases: list[int] = []
        self._recent: list[bytes] = []
        self._recent_bytes = 0
        self.generation = 1
        self.base_index = 0
        self.last_index = 0
        self.durable_index = 0
        self.last_time_us = 0
        self.configurations: list[int] = []  # indexes where recovery found one

    def adopt(
        self,
        segments: Sequence[Segment],
        spares: Sequence[tuple[int, File]],
        terms: Terms,
        configurations: Sequence[int],
        *,
        next_id: int,
        generation: int,
        previous_crc: int,
        last_time_us: int,
    ) -> None:
        """Take over what `recovery.recover` found."""
        self.configurations = list(configurations)
        self._segments = list(segments)
        self._spares = list(spares)
        self._terms = terms
        self._next_id = next_id
        self.generation = generation
        self._previous_crc = previous_crc
        self.last_time_us = last_time_us
        if segments:
            self.base_index = segments[0].base_index - 1
            self.last_index = self.durable_index = segments[-1].next_index - 1

    # -- what is where -------------------------------------------------------------------------

    @property
    def base_term(self) -> int:
        """The term of the entry before the first one."""
        return self._terms.base_term

    @property
    def term_runs(self) -> list[tuple[int, int]]:
        """(first index, term) of each stretch of one term."""
        return self._terms.runs

    @property
    def segment_count(self) -> int:
        """How many files hold entries."""
        return len(self._segments)

    def term_at(self, index: int) -> int | None:
        """The term of the entry at ``index`` (or of the base); None outside of the log."""
        if not self.base_index <= index <= self.last_index:
            return None
        return self._terms.at(index)

    def window_end(self, first_index: int, max_bytes: int) -> tuple[int, int]:
        """How far whole batches from ``first_index`` reach within ``max_bytes``: (last, bytes).

        At least one batch if there is any; (first_index - 1, 0) if there is none.
        """
        last, total = first_index - 1, 0
        for _, _, size, base, count in self._mapped(first_index):
            if total and total + size > max_bytes:
                return last, total
            total += size
            last = base + count - 1
        if last < self.last_index:
            for position in range(self._recent_at(last + 1), len(self._recent)):
                size = len(self._recent[position])
                if total and total + size > max_bytes:
                    break
                total += size
                last = self._recent_end(position)
        return last, total

    def batch_start(self, index: int) -> int:
        """The first index of the batch that holds ``index``."""
        invariant(
            self.base_index < index <= self.last_index,
            f"the batch of {index} was asked of a log from {self.base_index + 1} to "
            f"{self.last_index}",
        )
        for _, _, _, base, count in self._mapped(index):
            if base + count > index:
                return base
        return self._recent_bases[self._recent_at(index)]

    def images(self, first_index: int, last_index: int) -> list[bytes]:
        """The whole batches that hold ``first_index`` to ``last_index``.

        Raises `CorruptLogError` if one that has to be read from the disk rotted there.
        """
        invariant(
            self.base_index < first_index <= last_index <= self.last_index,
            "images {} to {} were asked of a log that holds what follows {} up to {}",
            first_index, last_index, self.base_index, self.last_index,
        )  # fmt: skip
        found: list[bytes] = []
        for segment, at, size, base, count in self._mapped(first_index):
            found.append(segment.image(at, size))
            first_index = base + count
            if first_index > last_index:
                return found
        begin = self._recent_at(first_index)
        return found + self._recent[begin : self._recent_at(last_index) + 1]

    # -- appending -----------------------------------------------------------------------------

    def append(self, image: bytes) -> None:
        """Stage the image of the next batch."""
        _, _, length, _, base, term, time_us, count, _ = BATCH_HEADER.unpack_from(image)
        invariant(base == self.last_index + 1, "batch {} does not follow {}", base, self.last_index)
        segment = self._segments[-1] if self._segments else None
        if segment is None or not segment.has_room(length):
            segment = self._roll(length)
        framed = frame_image(
            image, self.generation, segment.end, self.durable_index, self._previous_crc
        )
        self._staged.append((base, segment.file, segment.end, framed))
        segment.note(base, count, length)
        self._previous_crc = int.from_bytes(image[4:8], "little")
        self._terms.append(base, term)
        self.last_index = base + count - 1
        self.last_time_us = time_us
        self._recent_bases.append(base)
        self._recent.append(image)
        self._recent_bytes += length

    @property
    def excess_bytes(self) -> int:
        """Bytes in memory beyond `recent_bytes`: they are there because they are not durable."""
        return max(0, self._recent_bytes - self._recent_max)

    def take_writes(self) -> Write | None:
        """Everything staged so far, neighbours joined; None if there is nothing."""
        if not self._staged:
            return None
        pieces: list[tuple[File, int, bytes]] = []
        parts: list[bytes] = []
        size = 0
        run_file, run_offset, run_end = self._staged[0][1], self._staged[0][2], -1
        for _, file, offset, data in self._staged:
            if parts and (file is not run_file or offset != run_end):
                pieces.append((run_file, run_offset, b"".join(parts)))
                parts = []
            if not parts:
                run_file, run_offset = file, offset
            parts.append(data)
            run_end = offset + len(data)
            size += len(data)
        pieces.append((run_file, run_offset, b"".join(parts)))
        self._staged = []
        files = list({id(file): file for file, _, _ in pieces}.values())
        self._writing = Write(pieces, files, self.last_index, size)
        return self._writing

    def completed(self, write: Write) -> int:
        """``write``, the last one taken, is durable; returns the durable index.

        What was truncated while it was under way is not counted: something else stands, or will
        stand, in its place (H17).
        """
        if write is self._writing:
            self._writing = None
            self.durable_index = max(self.durable_index, write.last_index)
            self._forget_recent()
        return self.durable_index

    # -- segments ------------------------------------------------------------------------------

    @property
    def tail_bytes(self) -> int:
        """What the last segment still holds, frames included."""
        segment = self._segments[-1] if self._segments else None
        return segment.size - segment.end if segment is not None else 0

    @property
    def room_bytes(self) -> int:
        """What the last segment and the spares still hold, frames included."""
        segment = self._segments[-1] if self._segments else None
        room = segment.size - segment.end if segment is not None else 0
        return room + sum(file.size() - SEGMENT_DATA_OFFSET for _, file in self._spares)

    def has_room(self, lengths: Sequence[int], *, after_cut: bool = False) -> bool:
        """Whether images of these lengths could be appended without a new file.

        ``after_cut``: there will be a truncation first, so only the spares are counted upon.
        """
        segment = self._segments[-1] if self._segments and not after_cut else None
        end, size = (segment.end, segment.size) if segment is not None else (0, 0)
        position = 0
        for length in lengths:
            while end + framed_size(length) > size:
                if position == len(self._spares):
                    return False
                end, size = SEGMENT_DATA_OFFSET, self._spares[position][1].size()
                position += 1
            end += framed_size(length)
        return True

    def needs_segment(self) -> bool:
        """Whether a spare should be prepared: a roll must never have to wait for one."""
        return not self._spares

    def take_segment_id(self) -> int:
        """An id for a new segment; ids rise and are never given twice."""
        self._next_id += 1
        return self._next_id - 1

    def add_spare(self, segment_id: int, file: File) -> None:
        """A zero-filled file for the next roll, unless a roll has overtaken its preparation."""
        if self._segments and segment_id < self._segments[-1].id:
            self.discarded.append((segment_id, file))
        else:
            insort(self._spares, (segment_id, file), key=itemgetter(0))

    def _roll(self, image_length: int) -> Segment:
        needed = SEGMENT_DATA_OFFSET + framed_size(image_length)
        while self._spares:
            id_, file = self._spares.pop(0)
            if needed <= file.size():
                break
            self.discarded.append((id_, file))  # too small for this image
        else:
            id_ = self.take_segment_id()
            file = self._prepare(id_, max(needed, self._segment_bytes))
        base = self.last_index + 1
        segment = Segment(id_, file, base, self._previous_crc, self._stride)
        header = Header(
            id_, self.generation, base, self._terms.last_term, self._previous_crc, segment.size,
            self._cluster_id, self._member_uuid,
        )  # fmt: skip
        self._staged.append((base - 1, file, 0, header.encode()))
        self._segments.append(segment)
        return segment

    # -- dropping ------------------------------------------------------------------------------

    def truncate(self, from_index: int) -> Truncation:
        """Drop everything from ``from_index`` on, which must begin a batch.

        The caller carries the result out after any write under way, and before the next one.
        """
        invariant(
            self.base_index < from_index <= self.last_index,
            f"truncation from {from_index} of a log from {self.base_index + 1} to "
            f"{self.last_index}",
        )
        at = self._recent_at(from_index)
        invariant(
            at < 0 or self._recent_bases[at] == from_index,
            f"truncation from {from_index} would cut a batch",
        )
        dropped: list[tuple[int, File]] = []
        # The first segment stays, if only for its header: it says where the log begins.
        while len(self._segments) > 1 and self._segments[-1].base_index >= from_index:
            segment = self._segments.pop()
            dropped.append((segment.id, segment.file))
            self._previous_crc = segment.previous_crc
        writes: list[tuple[File, int, bytes]] = []
        if self._segments[-1].next_index > from_index:
            segment = self._segments[-1]
            ends = [*self._frame_starts(segment, from_index), segment.end]
            self._cut_segment(segment, from_index)
            invariant(ends[0] == segment.end, f"the cut at {segment.end} is not at {ends[0]}")
            writes = cut_writes(segment.file, ends, self.generation + 1)
        gone = {id(file) for _, file in dropped}
        self._staged = [
            staged
            for staged in self._staged
            if staged[0] < from_index and id(staged[1]) not in gone
        ]
        self._forget_from(from_index)
        self._terms.truncate(from_index)
        self.last_index = from_index - 1
        self.durable_index = min(self.durable_index, self.last_index)
        if self._writing is not None:
            self._writing.last_index = min(self._writing.last_index, self.last_index)
        self.generation += 1
        return Truncation(writes, dropped[::-1])

    def _frame_starts(self, segment: Segment, from_index: int) -> list[int]:
        """Where the frames of ``segment`` from ``from_index`` on begin."""
        at = bisect_left(self._recent_bases, max(from_index, segment.base_index))
        in_memory = [
            framed_size(len(image))
            for base, image in zip(self._recent_bases[at:], self._recent[at:], strict=True)
            if base < segment.next_index
        ]
        begin = segment.end - sum(in_memory)
        starts = list(accumulate(in_memory, initial=begin))[:-1]
        known = self._recent_bases[at] if in_memory else segment.next_index
        if from_index < known:
            mapped = segment.frames(from_index, before=begin)
            starts = [image - FRAME_HEADER_SIZE for image, _, _, _ in mapped] + starts
        return starts

    def _cut_segment(self, segment: Segment, from_index: int) -> None:
        at = self._recent_at(from_index)
        if at >= 0:
            # What is staged or on its way is not in the mapping yet, but it is in memory.
            gone = sum(framed_size(len(image)) for image in self._recent[at:])
            in_later_segments = sum(
                framed_size(len(image))
                for base, image in zip(self._recent_bases[at:], self._recent[at:], strict=True)
                if base >= segment.next_index
            )
            segment.cut_at(segment.end - gone + in_later_segments, from_index)
            if at > 0:
                self._previous_crc = int.from_bytes(self._recent[at - 1][4:8], "little")
            else:
                self._previous_crc = segment.last_crc()
        else:
            try:
                self._previous_crc = segment.cut(from_index)
            except FormatError as problem:
                invariant(False, str(problem))

    def cut_before(self, index: int) -> list[tuple[int, File]]:
        """Drop whole segments without an entry above ``index``, never the last; ascending."""
        dropped: list[tuple[int, File]] = []
        while len(self._segments) > 1 and self._segments[1].base_index - 1 <= index:
            segment = self._segments.pop(0)
            dropped.append((segment.id, segment.file))
        if dropped:
            base = self._segments[0].base_index - 1
            self._terms.compact(base)
            self.base_index = base
            self._forget_up_to(base)
        return dropped

    def reset(self, index: int, term: int) -> list[tuple[int, File]]:
        """Drop everything: the log begins anew behind ``index``. Returns the segments in order."""
        dropped = [(segment.id, segment.file) for segment in self._segments]
        self._segments.clear()
        self._staged.clear()
        self._writing = None
        self._forget_from(0)
        self.configurations.clear()
        self._terms = Terms(index, term)
        self._previous_crc = 0
        self.base_index = self.last_index = self.durable_index = index
        self.generation += 1
        return dropped

    def close(self) -> None:
        """Close every file."""
        for segment in self._segments:
            segment.file.close()
        for _, file in self._spares:
            file.close()

    # -- the recent images ---------------------------------------------------------------------

    def _recent_at(self, index: int) -> int:
        return bisect_right(self._recent_bases, index) - 1

    def _recent_end(self, position: int) -> int:
        following = position + 1
        if following < len(self._recent_bases):
            return self._recent_bases[following] - 1
        return self.last_index

    def _mapped(self, first_index: int) -> Iterator[tuple[Segment, int, int, int, int]]:
        """(segment, offset, length, base index, count) of the images from ``first_index`` that are
        not in memory; those are durable, so the mapping has them."""
        end = self._recent_bases[0] if self._recent_bases else self.last_index + 1
        if first_index >= end:
            return
        begin = bisect_right(self._segments, first_index, key=lambda s: s.base_index) - 1
        for segment in self._segments[max(0, begin) :]:
            for at, length, base, count in segment.frames(first_index):
                yield segment, at, length, base, count
                if base + count >= end:
                    return

    def _forget_recent(self) -> None:
        """Keep what is not durable, and of the rest as much as is allowed."""
        if self._recent_bytes <= self._recent_max:
            return
        drop = 0
        while (
            drop < len(self._recent) - 1
            and self._recent_bytes > self._recent_max // 2
            and self._recent_end(drop) <= self.durable_index
        ):
            self._recent_bytes -= len(self._recent[drop])
            drop += 1
        del self._recent[:drop], self._recent_bases[:drop]

    def _forget_up_to(self, index: int) -> None:
        drop = bisect_right(self._recent_bases, index)
        self._recent_bytes -= sum(map(len, self._recent[:drop]))
        del self._recent[:drop], self._recent_bases[:drop]

    def _forget_from(self, index: int) -> None:
        keep = bisect_right(self._recent_bases, index - 1)
        self._recent_bytes -= sum(map(len, self._recent[keep:]))
        del self._recent[keep:], self._recent_bases[keep:]
