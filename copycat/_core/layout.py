"""Every byte Copycat stores or sends, drawn once: the formats of batches, frames and segments.

All integers are little-endian. A reader of version n refuses version n+1 by the magic's last byte.

**Batch** (the *image*: the same bytes in every log and on the wire; nothing in it depends on where
it lies)::

    offset size field
         0    4 magic  b"CCB1"
         4    4 crc32 of bytes [8, length)        zlib's polynomial
         8    4 length of the whole image, header included
        12    4 flags   bit 0: the runs are one lz4 block (reserved, not written yet)
                        bit 1: it brings a configuration, see below
        16    8 base_index   log index of the first command
        24    8 term
        32    8 time_us      log time in microseconds, never decreasing
        40    4 count        commands in all runs: they have indexes base_index .. +count-1
        44    4 run_count
        48    - runs

**Run** (commands of one session with contiguous sequence numbers; the client encodes it, the
leader moves it)::

         0    1 kind    see `Kind`
         1    1 flags   (0)
         2    2 reserved (0)
         4    4 count
         8    8 session         0 for kinds without one
        16    8 first_sequence  0 for kinds without one
        24    8 acknowledged    the session has every result up to this sequence
        32    4 body_length     bytes of all commands
        36    4 reserved (0)
        40    - commands

**Configuration**: a batch of its own with flag bit 1, so that nobody else need look inside, and in
it one run of kind CONFIGURATION with one command of resource 0 and operation 0. Its arguments are
a msgpack array::

    [voters, learners, outgoing, joining, members]

The first four are arrays of names; ``outgoing`` is not empty in a joint configuration, ``joining``
are the learners that become voters when they have caught up. ``members`` maps every name to
``["host:port", uuid]``; the uuid has 16 bytes, or none for a place that is kept for somebody who is
still to come. A snapshot holds the same array.

**Command**::

         0    4 length of the arguments
         4    4 operation   interned id, see server/schema
         8    8 resource    log index that created it; 0 is the system
        16    - arguments   msgpack array

**Result**::

         0    4 length of what follows
         4    1 status   see `Status`
         5    - msgpack value

**Local frame** around each image in a segment; what depends on the place stands only here::

         0    4 magic  b"CCF1"
         4    4 crc32 of bytes [8, 40) followed by the image's own crc field
         8    8 generation     never decreases along a segment
        16    8 offset         of this frame in its file
        24    8 durable_index  what was durable in this log when the frame was staged
        32    4 previous_crc   crc field of the image before this one
        36    4 image_length
        40    - image, zero-padded to a multiple of 8

**Segment**: a 4096-byte header page, then frames, then zeros::

         0    8 magic  b"CCATSEG1"
         8    4 version of the format (2)
        12    4 checksum algorithm (1: CRC-32, zlib's polynomial)
        16    8 segment_id, rising by one from segment to segment
        24    8 generation of the log when the segment was opened
        32    8 base_index     index of the first command in it
        40    8 base_term      term of the batch before it
        48    4 previous_crc   crc field of the image before it
        52    4 reserved (0)
        56    8 size of the file
        64   16 cluster id
        80   16 member uuid
        96    4 crc32 of bytes [0, 96)

**Cut marker**: what a truncation leaves where it cut: a frame header with the magic b"CCX1", the
new generation, and no image. It is durable before anything behind it is zeroed or overwritten.

A bad frame followed by nothing that chains is a torn tail. It is damage, never a tail, if a later
frame of the same or a later generation says by its durable_index that it had been durable.
"""

from __future__ import annotations

import enum
import struct

CHECKSUM_CRC32 = 1
FORMAT_VERSION = 2

BATCH_MAGIC = b"CCB1"
BATCH_HEADER = struct.Struct("<4sIIIQQQII")
BATCH_HEADER_SIZE = BATCH_HEADER.size
BATCH_CRC_FROM = 8
BATCH_FLAGS_OFFSET = 12
CONFIGURATION_FLAG = 2
"""Of a batch that brings a configuration; batches with any other flag are not read."""

RUN_HEADER = struct.Struct("<BBHIQQQII")
RUN_HEADER_SIZE = RUN_HEADER.size

COMMAND_HEADER = struct.Struct("<IIQ")
COMMAND_HEADER_SIZE = COMMAND_HEADER.size

RESULT_HEADER = struct.Struct("<I")
RESULT_HEADER_SIZE = RESULT_HEADER.size

FRAME_MAGIC = b"CCF1"
CUT_MAGIC = b"CCX1"
FRAME_HEADER = struct.Struct("<4sIQQQII")
FRAME_HEADER_SIZE = FRAME_HEADER.size
FRAME_CRC_FROM = 8
FRAME_ALIGNMENT = 8

SEGMENT_MAGIC = b"CCATSEG1"
SEGMENT_HEADER = struct.Struct("<8sIIQQQQIIQ16s16s")
SEGMENT_HEADER_CRC = struct.Struct("<I")
SEGMENT_DATA_OFFSET = 4096

MAX_BATCH_BYTES = 64 << 20
"""No image is longer; a length field above it is damage."""


class Kind(enum.IntEnum):
    """What the commands of a run are."""

    INITIALIZE = 1  # the no-op of a new term; session 0, one command with empty arguments
    COMMAND = 2
    REGISTER = 3  # session 0; arguments [client_uuid, timeout_ms, name, proof]; session = its index
    KEEP_ALIVE = 4  # arguments [event_index]: events up to it were received
    UNREGISTER = 5  # arguments []
    CONFIGURATION = 6  # session 0; alone in its batch, see above
    TICK = 7  # session 0; only carries log time


class Status(enum.IntEnum):
    """How a command or query ended."""

    OK = 0
    REJECTED = 1  # value: [message]
    FAILED = 2  # value: [exception type, message]
    UNKNOWN_RESOURCE = 3  # value: [message]
    UNKNOWN_OPERATION = 4  # value: [message]
    RESOURCE_TYPE = 5  # value: [message]
    UNKNOWN_SESSION = 6  # value: [message]
    CONFLICT = 7  # value: [message, current]
    OVERLOADED = 8  # value: [message, milliseconds to wait]: a limit is reached, nothing was done


class FormatError(ValueError):
    """Bytes that are not what they claim to be."""
