"""The bytes of each format, written out: a change here is a new version of the format."""

from __future__ import annotations

from typing import Any

import pytest

from copycat._core import codec
from copycat._core.layout import Kind
from copycat._core.segment import Header, cut_marker

from .bodies import KERNELS

kernels = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())


def hexed(text: str) -> bytes:
    """Bytes from lines of hex, each with a remark behind a ``#``."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


RUN = hexed("""
    02 00 0000            # COMMAND, flags, reserved
    02000000              # two commands
    0807060504030201      # session
    1100000000000000      # first sequence 17
    1000000000000000      # acknowledged 16
    25000000 00000000     # 37 bytes of commands, reserved
    03000000 40000000     # three bytes of arguments, operation 64
    6300000000000000      # resource 99
    9201a1                # arguments
    02000000 41000000
    6400000000000000
    9105
""")

IMAGE = hexed("""
    43434231 da8ae111     # CCB1, crc
    7d000000 00000000     # 125 bytes, flags
    e803000000000000      # base index 1000
    0500000000000000      # term 5
    40420f0000000000      # a second of log time
    02000000 01000000     # two commands in one run
""") + RUN

FRAME = hexed("""
    43434631 1681915e     # CCF1, crc
    0300000000000000      # generation
    0010000000000000      # offset 4096
    e703000000000000      # durable up to 999
    efbeadde 7d000000     # crc of the image before, 125 bytes
""") + IMAGE + bytes(3)

RESULTS = hexed("""
    01000000 00           # OK without a value
    03000000 00 cd01      # (values are not looked into)
""")


@kernels
def test_the_bytes_of_a_run(kernel: Any) -> None:
    """A run lies as drawn."""
    commands = [(99, 64, b"\x92\x01\xa1"), (100, 65, b"\x91\x05")]
    encoded = kernel.encode_run(Kind.COMMAND, 0x0102030405060708, 17, 16, commands)
    assert encoded == RUN
    assert kernel.slice_run(RUN, 0, 1) == hexed("""
        02 00 0000
        01000000
        0807060504030201
        1200000000000000
        1000000000000000
        12000000 00000000
        02000000 41000000
        6400000000000000
        9105
    """)


@kernels
def test_the_bytes_of_a_batch(kernel: Any) -> None:
    """An image lies as drawn, and nothing in it depends on where it lies."""
    assert kernel.seal_batch([RUN], 1000, 5, 1_000_000) == IMAGE


@kernels
def test_the_bytes_of_a_frame(kernel: Any) -> None:
    """A local frame lies as drawn around its image, padded with zeros to eight bytes."""
    assert len(FRAME) % 8 == 0
    assert kernel.frame_image(IMAGE, 3, 4096, 999, 0xDEADBEEF) == FRAME


@kernels
def test_the_bytes_of_results(kernel: Any) -> None:
    """Results are length-prefixed."""
    assert kernel.encode_results([b"\0", b"\0\xcd\x01"]) == RESULTS
    assert kernel.decode_results(RESULTS, 0, 2) == [b"\0", b"\0\xcd\x01"]


def test_the_bytes_of_a_segment_header_and_a_cut() -> None:
    """The page that opens a segment, and the marker that a truncation leaves."""
    header = Header(7, 3, 1000, 5, 0xDEADBEEF, 8192, b"c" * 16, b"m" * 16)
    assert header.encode() == hexed("""
        4343415453454731 02000000 01000000   # CCATSEG1, version, CRC-32
        0700000000000000 0300000000000000    # segment, generation
        e803000000000000 0500000000000000    # base index, base term
        efbeadde 00000000                    # crc of the image before, reserved
        0020000000000000                     # 8192 bytes
        63636363636363636363636363636363
        6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d
        2ea049dd                             # crc
    """)
    assert cut_marker(4, 4096) == hexed("""
        43435831 cbc9f269                    # CCX1, crc
        0400000000000000 0010000000000000    # the new generation, offset 4096
        0000000000000000 00000000 00000000
    """)


def test_the_bytes_of_a_connection() -> None:
    """How a connection opens, and how a frame on it begins."""
    assert codec.PREAMBLE == b"COPYCAT\x01"
    assert codec.pack_frame(codec.Frame.RUN, b"ab", b"c") == hexed("03000000 11 00 0000 616263")
    assert codec.PROTOCOL_VERSION == 4
    assert codec.ATTACH_HEAD.pack(7, 9, b"s" * 16) == hexed("""
        0700000000000000 0900000000000000    # session, last event
        73737373737373737373737373737373     # secret
    """)
    assert codec.REGISTERED_HEAD.pack(7, b"u" * 16) == hexed("""
        0700000000000000 75757575757575757575757575757575
    """)
