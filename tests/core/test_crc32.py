"""The checksum is zlib's, at any length, alignment and start, however it is computed."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest

from copycat._core import COMPILED

from .bodies import KERNELS

WAYS = {mode: kernel.crc32 for mode, kernel in KERNELS.items()}
if COMPILED:
    WAYS["compiled, tables"] = KERNELS["compiled"]._crc32_portable
ways = pytest.mark.parametrize("crc32", WAYS.values(), ids=WAYS.keys())


@ways
def test_every_short_length_and_alignment(crc32: Any) -> None:
    """From nothing to a few folded blocks, at each alignment, continued from any value."""
    chance = random.Random(1)
    data = chance.randbytes(400)
    for length in range(301):
        for offset in (0, 1, 7, 8, 15) if length % 16 in (0, 1, 15) else (0, 3):
            piece = data[offset : offset + length]
            start = chance.choice((0, 1, 0xFFFFFFFF, chance.getrandbits(32)))
            assert crc32(piece) == zlib.crc32(piece)
            view = memoryview(data)[offset : offset + length]
            assert crc32(view, start) == zlib.crc32(piece, start)


@ways
def test_long_inputs_and_continuation(crc32: Any) -> None:
    """Long inputs, and inputs taken in pieces, have the checksum of the whole."""
    chance = random.Random(2)
    for length in (1 << 16, (1 << 16) - 1, 1_000_003, 4 << 20):
        data = chance.randbytes(length)
        assert crc32(data) == zlib.crc32(data)
        cuts = sorted(chance.randrange(length) for _ in range(4))
        value = 0
        for begin, end in zip([0, *cuts], [*cuts, length], strict=True):
            value = crc32(data[begin:end], value)
        assert value == zlib.crc32(data)


@ways
def test_known_values(crc32: Any) -> None:
    """The check value of the polynomial, and the uniform inputs that reveal lost carries."""
    assert crc32(b"") == 0
    assert crc32(b"123456789") == 0xCBF43926
    for byte in (b"\0", b"\xff"):
        for length in (4, 64, 128, 4096):
            assert crc32(byte * length) == zlib.crc32(byte * length)
