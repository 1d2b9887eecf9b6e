"""Encoded results in pieces: what one frame and one turn carry of them.

Cuts between results and copies nothing else; it serves the `Desk`, which knows whom they are for.
"""

from __future__ import annotations

from collections.abc import Iterator

from .._core.layout import RESULT_HEADER, RESULT_HEADER_SIZE

PIECE_BYTES = 1 << 20
"""A frame of results has so many bytes, or a single result."""


def pieces(results: bytes, count: int, room: int) -> Iterator[tuple[int, bytes]]:
    """The first ``count`` of ``results`` as (how many, their bytes), until ``room`` is exceeded."""
    at, number, end = 0, 0, len(results)
    while number < count and at < min(room, end):
        begin, before = at, number
        while number < count and at < end and (number == before or at - begin < PIECE_BYTES):
            at += RESULT_HEADER_SIZE + int(RESULT_HEADER.unpack_from(results, at)[0])
            number += 1
        yield number - before, results[begin:at]
