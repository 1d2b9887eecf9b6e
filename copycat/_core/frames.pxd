"""Walks over batches and frames in memory, without Python; inlined into whoever cimports this.

Each function reads only below ``end``, which its caller has compared with the memory's size.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from .memory cimport load32, load64

cdef extern from "crc32.h" nogil:
    uint32_t crc32_update(uint32_t, const uint8_t*, size_t)

cdef enum:  # see layout.py; kernel.pyx compares them when it is loaded
    BATCH_SIZE = 48
    BATCH_WORD = 0x31424343  # "CCB1"
    LONGEST_IMAGE = 64 << 20
    KNOWN_FLAGS = 2  # a configuration
    FRAME_SIZE = 40
    FRAME_WORD = 0x31464343  # "CCF1"
    ALIGNMENT = 8


cdef struct Batch:
    int64_t length
    uint64_t base
    uint64_t term
    uint64_t time_us
    uint32_t crc
    uint32_t count
    uint32_t flags


cdef inline bint claimed_batch(
    const uint8_t* data, int64_t at, int64_t end, Batch* batch
) noexcept nogil:
    """The header at ``at``, if it can be one whose image ends within ``end``."""
    cdef const uint8_t* head = data + at
    if at > end - BATCH_SIZE or load32(head) != BATCH_WORD:
        return False
    batch.flags = load32(head + 12)
    if batch.flags & ~<uint32_t>KNOWN_FLAGS:
        return False
    batch.crc = load32(head + 4)
    batch.length = load32(head + 8)
    batch.base = load64(head + 16)
    batch.term = load64(head + 24)
    batch.time_us = load64(head + 32)
    batch.count = load32(head + 40)
    return (
        batch.count != 0
        and BATCH_SIZE <= batch.length <= LONGEST_IMAGE
        and batch.length <= end - at
    )


cdef struct Frame:
    uint64_t generation
    uint64_t durable
    uint32_t previous_crc
    int64_t padded
    Batch batch


cdef inline bint whole_frame(
    const uint8_t* data, int64_t at, int64_t end, Frame* frame
) noexcept nogil:
    """Whether there is a frame at ``at`` that is valid by itself and ends within ``end``."""
    cdef const uint8_t* head = data + at
    cdef uint32_t crc
    if at > end - FRAME_SIZE - BATCH_SIZE or load32(head) != FRAME_WORD:
        return False
    if load64(head + 16) != <uint64_t>at:
        return False
    crc = crc32_update(0, head + 8, FRAME_SIZE - 8)
    if crc32_update(crc, head + FRAME_SIZE + 4, 4) != load32(head + 4):
        return False
    if not claimed_batch(data, at + FRAME_SIZE, end, &frame.batch):
        return False
    if frame.batch.length != load32(head + 36):
        return False
    frame.padded = (FRAME_SIZE + frame.batch.length + ALIGNMENT - 1) & -ALIGNMENT
    if frame.padded > end - at:
        return False
    frame.generation = load64(head + 8)
    frame.durable = load64(head + 24)
    frame.previous_crc = load32(head + 32)
    crc = crc32_update(0, head + FRAME_SIZE + 8, frame.batch.length - 8)
    return crc == frame.batch.crc


cdef struct Pairs:
    uint64_t* data
    size_t count
    size_t room


cdef inline bint push(Pairs* pairs, uint64_t first, uint64_t second) noexcept nogil:
    cdef uint64_t* data
    if pairs.count == pairs.room:
        pairs.room = 2 * pairs.room + 64
        data = <uint64_t*>realloc(pairs.data, 2 * sizeof(uint64_t) * pairs.room)
        if data is NULL:
            return False
        pairs.data = data
    pairs.data[2 * pairs.count] = first
    pairs.data[2 * pairs.count + 1] = second
    pairs.count += 1
    return True


cdef struct Chain:  # where a walk over frames stands
    int64_t offset
    uint64_t generation
    uint32_t previous_crc
    uint64_t next_index
    uint64_t time_us
    Pairs index
    Pairs terms
    Pairs flagged


cdef inline bint walk(
    const uint8_t* data, int64_t end, int64_t stride, Chain* chain
) noexcept nogil:
    """Go on to the first frame that does not chain; False: there is no memory."""
    cdef Frame frame
    cdef uint64_t last_term = 0
    cdef int64_t noted = 0
    while (
        whole_frame(data, chain.offset, end, &frame)
        and frame.generation >= chain.generation
        and frame.previous_crc == chain.previous_crc
        and frame.batch.base == chain.next_index
    ):
        chain.generation = frame.generation
        chain.previous_crc = frame.batch.crc
        chain.time_us = frame.batch.time_us
        if not chain.index.count or chain.offset - noted >= stride:
            noted = chain.offset
            if not push(&chain.index, chain.next_index, <uint64_t>noted):
                return False
        if not chain.terms.count or frame.batch.term != last_term:
            last_term = frame.batch.term
            if not push(&chain.terms, chain.next_index, last_term):
                return False
        if frame.batch.flags:
            if not push(&chain.flagged, chain.next_index, frame.batch.flags):
                return False
        chain.next_index += frame.batch.count
        chain.offset += frame.padded
    return True


cdef inline bint seek(
    const uint8_t* data, int64_t* at, int64_t end, uint64_t generation, Frame* frame
) noexcept nogil:
    """Move ``at`` on to a whole frame of at least ``generation``; False: there is none."""
    at[0] += -at[0] & (ALIGNMENT - 1)
    while at[0] <= end - FRAME_SIZE:
        if (
            load32(data + at[0]) == FRAME_WORD
            and whole_frame(data, at[0], end, frame)
            and frame.generation >= generation
        ):
            return True
        at[0] += ALIGNMENT
    return False
