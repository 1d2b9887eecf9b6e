"""Recovery: from segment files back to a log, telling a torn tail from damage.

The frames of all segments are walked in order and verified. Where the walk stops, whatever follows
is searched for a whole frame that proves that the stopping place had been durable (each frame says
what was durable when it was staged). Proof means damage: `CorruptLogError`, nothing is touched
(H57). No proof means a torn tail of a crash: it was never acknowledged, and it is cut. Opens no
file; the caller carries out the cut.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..errors import CorruptLogError, StorageError, WrongClusterError
from ..ports import File
from .kernel import find_frame, scan_frames
from .layout import CONFIGURATION_FLAG, FRAME_HEADER_SIZE, SEGMENT_DATA_OFFSET, FormatError
from .log import Log
from .segment import (
    DAMAGE_HINT,
    Header,
    NewerFormatError,
    Segment,
    read_cut_marker,
    read_header,
)
from .terms import Terms

log_ = logging.getLogger("copycat.log")


@dataclass(frozen=True, slots=True)
class Repair:
    """What must be made durable before the log is used: zeros over a torn tail, files to delete.

    ``rewrites`` are the bytes of the log that may have been read from memory only: a killed process
    wrote them and may not have synced them, or its sync failed and the pages count as clean (H60).
    They are written once more, and everything is synced.

    ``damage``: what is not to be found although it was durable, if that was to be put up with;
    then ``touched`` are the files in which traces of it may be left.
    """

    writes: list[tuple[File, int, bytes]]
    segments: list[tuple[int, File]]
    rewrites: list[tuple[File, int, bytes]]
    damage: CorruptLogError | None = None
    touched: tuple[tuple[int, File], ...] = ()


@dataclass(slots=True)
class _Found:
    """What the scan of all segments gathers."""

    segments: list[Segment]
    spares: list[tuple[int, File]]
    terms: Terms
    configurations: list[int]
    generation: int
    previous_crc: int
    next_index: int
    time_us: int


def recover(
    log: Log,
    files: list[tuple[int, File]],
    cluster_id: bytes,
    member_uuid: bytes,
    stride: int = 4096,
    base_index: int = 0,
    *,
    bear_damage: bool = False,
) -> Repair:
    """Fill the empty ``log`` from ``files``, (id, file) in ascending order of ids.

    ``base_index`` is what a snapshot stands for; the log must not begin later. With
    ``bear_damage`` a log ends before what is damaged; else that raises `CorruptLogError` with file
    and offset. Raises `WrongClusterError` for a foreign file, and
    `StorageError` for one of a newer format.
    """
    used, spares, torn = _sort(files, cluster_id, member_uuid)
    headless = {id_ for id_, _ in torn}
    if used and used[0][1].base_index > base_index + 1:
        # The first segment never became durable; nor did anything else, or it is damage.
        torn = sorted(torn + [(header.segment_id, file) for file, header in used])
        used = []
    terms = Terms(used[0][1].base_index - 1, used[0][1].base_term) if used else Terms(base_index)
    found = _Found([], spares, terms, [], 1, 0, terms.base_index + 1, 0)
    if used:
        found.generation = used[0][1].generation
        found.previous_crc = used[0][1].previous_crc
    for position, (file, header) in enumerate(used):
        if header.base_index != found.next_index or header.previous_crc != found.previous_crc:
            # The end of the segment before is missing: so is, or never was, what follows it.
            torn = sorted(torn + [(rest.segment_id, file) for file, rest in used[position:]])
            break
        _scan(found, file, header, stride)
    damage = _damage(found, torn, headless)
    if damage is not None and not bear_damage:
        raise damage
    last_id = found.segments[-1].id if found.segments else 0
    torn += [spare for spare in spares if spare[0] < last_id]  # ids must rise along the log
    found.spares = [spare for spare in spares if spare[0] > last_id]
    cleaning = _clean_tail(found.segments[-1]) if found.segments else []
    touched = [(found.segments[-1].id, found.segments[-1].file)] if cleaning else []
    repair = Repair(
        cleaning, sorted(torn), _unproven(found.segments), damage, (*touched, *sorted(torn))
    )
    log.adopt(
        found.segments,
        found.spares,
        found.terms,
        found.configurations,
        next_id=max((id_ for id_, _ in files), default=0) + 1,
        # Whatever is left behind the end belongs to an older generation from now on.
        generation=found.generation + 1,
        previous_crc=found.previous_crc,
        last_time_us=found.time_us,
    )
    return repair


def _unproven(segments: list[Segment]) -> list[tuple[File, int, bytes]]:
    """The end of the log, from the first entry that its last frame does not say was durable."""
    filled = [segment for segment in segments if segment.next_index > segment.base_index]
    durable = filled[-1].last_durable_index() if filled else 0
    rewrites: list[tuple[File, int, bytes]] = []
    for segment in segments:
        if segment.base_index > durable:
            rewrites.append((segment.file, 0, bytes(segment.view[:SEGMENT_DATA_OFFSET])))
        for image, _, base, count in segment.frames(max(durable + 1, segment.base_index)):
            if base + count - 1 > durable:
                start = image - FRAME_HEADER_SIZE
                rewrites.append((segment.file, start, bytes(segment.view[start : segment.end])))
                break
    return rewrites


def _clean_tail(segment: Segment) -> list[tuple[File, int, bytes]]:
    """Zeros over what a crash left behind the end; a cut marker stays until it is overwritten."""
    view, begin = segment.view, segment.end
    if read_cut_marker(view, begin) is not None:
        begin += FRAME_HEADER_SIZE
    used = len(bytes(view[begin:]).rstrip(b"\0"))
    return [(segment.file, begin, bytes(used))] if used else []


_Files = list[tuple[int, File]]


def _sort(
    files: _Files, cluster_id: bytes, member_uuid: bytes
) -> tuple[list[tuple[File, Header]], _Files, _Files]:
    """Files with a header, prepared ones without, and one whose header never was durable."""
    used: list[tuple[File, Header]] = []
    spares: list[tuple[int, File]] = []
    torn: list[tuple[int, File, FormatError]] = []
    for id_, file in files:
        try:
            header = read_header(file)
        except NewerFormatError as problem:
            raise StorageError(
                f"{file.path}: {problem}, which this version of Copycat does not read",
                hint="run the version that wrote it",
            ) from problem
        except FormatError as problem:
            torn.append((id_, file, problem))
            continue
        if header is None:
            if bytes(file.view()).strip(b"\0"):
                torn.append((id_, file, FormatError("the segment's header is missing")))
            else:
                spares.append((id_, file))
            continue
        if header.cluster_id != cluster_id or header.member_uuid != member_uuid:
            raise WrongClusterError(
                f"{file.path} belongs to member {header.member_uuid.hex()} of cluster "
                f"{header.cluster_id.hex()}, not to {member_uuid.hex()} of {cluster_id.hex()}",
                hint="give each member a data directory of its own",
            )
        if header.segment_id != id_:
            raise CorruptLogError(
                f"{file.path} says that it is segment {header.segment_id}",
                segment=file.path,
                hint="give the file its own name back",
            )
        used.append((file, header))
    for id_, file, why in torn:
        # A header is written together with the first frames of its segment. A frame behind it
        # that says it had been durable is looked for where the log ends.
        log_.info("%s (id %d): %s; it was never durable", file.path, id_, why)
    return used, spares, [(id_, file) for id_, file, _ in torn]


def _scan(found: _Found, file: File, header: Header, stride: int) -> None:
    segment = Segment(header.segment_id, file, header.base_index, header.previous_crc, stride)
    end, generation, crc, next_index, time_us, entries, terms, flagged = scan_frames(
        segment.view,
        SEGMENT_DATA_OFFSET,
        segment.size,
        max(found.generation, header.generation),
        header.previous_crc,
        header.base_index,
        stride,
    )
    segment.note_scanned(end, next_index, entries)
    for first, term in terms:
        found.terms.append(first, term)
    found.configurations += [base for base, flags in flagged if flags & CONFIGURATION_FLAG]
    found.segments.append(segment)
    # A truncation cut here: what stands behind belongs to an older generation. (Or one did long
    # ago, and the frames since then, which end at the same place, are of a newer one.)
    found.generation = max(generation, read_cut_marker(segment.view, end) or 0)
    found.previous_crc = crc
    found.next_index = next_index
    found.time_us = time_us or found.time_us


def _damage(found: _Found, suspects: _Files, headless: set[int]) -> CorruptLogError | None:
    """Not None if a later frame proves that the first missing entry had been durable.

    Looked for behind the end of the last segment that chains, and in all the files that do not.
    """
    missing = found.next_index
    places = [(file, SEGMENT_DATA_OFFSET) for _, file in suspects]
    if found.segments:
        places.insert(0, (found.segments[-1].file, found.segments[-1].end))
    for file, offset in places:
        while True:
            frame = find_frame(file.view(), offset, file.size(), found.generation)
            if frame is None:
                break
            offset, base, durable = frame
            if durable >= missing and base > missing:
                damaged, at = _first_bad(found, suspects, headless)
                return CorruptLogError(
                    f"{damaged.path} is damaged at offset {at}: entry {missing} was durable and "
                    f"cannot be read (entry {base}, which follows it, can)",
                    segment=damaged.path,
                    offset=at,
                    hint=DAMAGE_HINT,
                )
            offset += FRAME_HEADER_SIZE
    return None


def _first_bad(found: _Found, suspects: _Files, headless: set[int]) -> tuple[File, int]:
    """Where the first missing entry should be: a file and an offset in it."""
    last = found.segments[-1] if found.segments else None
    for id_, file in suspects:
        if last is None or id_ > last.id:
            if id_ in headless and (last is None or not bytes(last.view[last.end :]).strip(b"\0")):
                return file, 0  # the segment before ends as it should
            break
    return (suspects[0][1], SEGMENT_DATA_OFFSET) if last is None else (last.file, last.end)
