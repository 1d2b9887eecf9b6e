"""Inputs and outcomes for the tests that run a kernel in both of its bodies."""

from __future__ import annotations

import ctypes
import mmap
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from copycat._core.layout import FRAME_HEADER_SIZE, FormatError
from copycat.testing.twins import bodies, load_twin

KERNELS = bodies("kernel")
PURE = load_twin("kernel")

Command = tuple[int, int, bytes]


def outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """What a call gives, with every type, or which error it ends in; our own words count too."""
    try:
        return "value", typed(function(*arguments))
    except (FormatError, struct.error) as problem:
        return type(problem).__qualname__, str(problem)
    except Exception as problem:
        return type(problem).__qualname__, None


def typed(value: Any) -> Any:
    """``value`` so that it equals only what has the same types."""
    if isinstance(value, (list, tuple)):
        return type(value), [typed(item) for item in value]
    return type(value), value


def commands(chance: random.Random, count: int) -> list[Command]:
    """Random commands, from empty to a few hundred bytes."""
    return [
        (
            chance.choice((0, 1, 7, 255, 256, 1 << 40, (1 << 64) - 1)),
            chance.choice((0, 1, 64, 65_535, (1 << 32) - 1)),
            chance.randbytes(chance.choice((0, 1, 2, 8, 64, 300))),
        )
        for _ in range(count)
    ]


def run(chance: random.Random) -> bytes:
    """A valid run."""
    listed = commands(chance, chance.randint(1, 9))
    numbers = [chance.choice((0, 1, 1 << 33, (1 << 63) + 5)) for _ in range(3)]
    encoded: bytes = PURE.encode_run(chance.randint(1, 7), *numbers, listed)
    return encoded


def image(chance: random.Random, base: int, term: int = 3) -> bytes:
    """A valid batch of one to four runs."""
    runs = [run(chance) for _ in range(chance.randint(1, 4))]
    sealed: bytes = PURE.seal_batch(runs, base, term, base * 1000)
    return sealed


def count_of(image_: bytes) -> int:
    """How many commands an image holds."""
    return int.from_bytes(image_[40:44], "little")


def chain(chance: random.Random, batches: int, start: int) -> tuple[bytes, list[int], int]:
    """(a file of frames from ``start`` on, their offsets, the end), ordered as a log has them."""
    file = bytearray(start)
    offsets = []
    base, generation, previous, term = 5, 2, 77, 1
    for _ in range(batches):
        term += chance.random() < 0.2
        generation += chance.random() < 0.2
        batch = image(chance, base, term)
        offsets.append(len(file))
        file += PURE.frame_image(batch, generation, len(file), base - 1, previous)
        previous = int.from_bytes(batch[4:8], "little")
        base += count_of(batch)
    end = len(file)
    return bytes(file) + bytes(chance.choice((0, 8, 200))), offsets, end


def mutated(chance: random.Random, data: bytes) -> bytes:
    """``data`` with a few changed bytes or numbers, cut off, or longer."""
    changed = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        if chance.random() < 0.5:
            changed[at] = chance.randrange(256)
        else:
            number = chance.choice((0, 1, 39, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF))
            changed[at & ~3 : (at & ~3) + 4] = number.to_bytes(4, "little")
    if chance.random() < 0.3:
        changed = changed[: chance.randrange(len(changed) + 1)]
    elif chance.random() < 0.2:
        changed += chance.randbytes(chance.randrange(60))
    return bytes(changed)


def resealed(data: bytes, at: int = 0, *, framed: bool = False) -> bytes:
    """``data`` with the checksums of the image (and its frame) at ``at`` made to fit again.

    Otherwise a mutation is caught by the checksum and never gets to what is behind it.
    """
    file = bytearray(data)
    start = at + FRAME_HEADER_SIZE if framed else at
    length = int.from_bytes(file[start + 8 : start + 12], "little")
    if start + 12 <= len(file):
        crc = zlib.crc32(file[start + 8 : start + length])
        file[start + 4 : start + 8] = crc.to_bytes(4, "little")
    if framed and start + 8 <= len(file):
        crc = zlib.crc32(file[at + 8 : start] + file[start + 4 : start + 8])
        file[at + 4 : at + 8] = crc.to_bytes(4, "little")
    return bytes(file)


@contextmanager
def cliff() -> Iterator[Callable[[bytes], memoryview]]:
    """Gives a function that lays bytes before a page where any reading crashes."""
    page, room = mmap.PAGESIZE, 16
    memory = mmap.mmap(-1, (room + 1) * page)
    anchor = ctypes.c_char.from_buffer(memory)
    edge = ctypes.addressof(anchor) + room * page
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def lay(data: bytes) -> memoryview:
        begin = room * page - len(data)
        memory[begin : room * page] = data
        return memoryview(memory)[begin : room * page]

    if libc.mprotect(edge, page, 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    try:
        yield lay
    finally:
        libc.mprotect(edge, page, 3)
        del anchor
