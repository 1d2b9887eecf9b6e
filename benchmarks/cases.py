"""What the kernel benchmarks measure: one shape of work, the same bytes for both bodies.

64 commands in a run, as a busy client sends them, with 64-byte arguments. Nothing is opened: the
log writes into a file made of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from copycat.testing.twins import bodies

COMMANDS = 64
ARGUMENTS = b"\x92\xa8user:042\xc4" + bytes((52,)) + bytes(range(52))
BATCHES = 32
CLUSTER, MEMBER = b"c" * 16, b"m" * 16
SEGMENT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """``run`` does the named work ``per_run`` times."""

    name: str
    per_run: int
    run: Callable[[], Any]


class Memory:
    """A segment's file that forgets: what the log hands over is not copied anywhere."""

    path = "memory"

    def __init__(self, size: int) -> None:
        self._size = size

    def size(self) -> int:
        """How large the segment was asked to be."""
        return self._size


def cases(mode: str) -> list[Case]:
    """All cases over the ``mode`` ("compiled" or "pure") body."""
    kernel = bodies("kernel")[mode]
    found = [*_of_commands(kernel), *_of_batches(kernel), *_of_bytes(kernel)]
    found.append(_of_the_log(kernel, bodies("log")[mode]))
    return found


def modes() -> list[str]:
    """The modes that can be measured here."""
    return list(bodies("kernel"))


def _image(kernel: ModuleType, base: int) -> bytes:
    commands = [(77, 64, ARGUMENTS)] * COMMANDS
    image: bytes = kernel.seal_batch([kernel.encode_run(2, 9, base, 0, commands)], base, 1, 1)
    return image


def _of_commands(kernel: ModuleType) -> list[Case]:
    commands = [(77, 64, bytes(bytearray(ARGUMENTS))) for _ in range(COMMANDS)]
    run = kernel.encode_run(2, 9, 1, 0, commands)
    image = kernel.seal_batch([run], 1, 1, 1)
    first = kernel.batch_runs(image)[0][5]
    results = [b"\0\xc0"] * COMMANDS
    encoded = kernel.encode_results(results)
    return [
        Case("encode_run, per command", COMMANDS,
             lambda: kernel.encode_run(2, 9, 1, 0, commands)),
        Case("check_run, per command", COMMANDS, lambda: kernel.check_run(run, 0, len(run), 1024)),
        Case("slice_run, per command", COMMANDS, lambda: kernel.slice_run(run, 0, COMMANDS // 2)),
        Case("decode_commands, per command", COMMANDS,
             lambda: kernel.decode_commands(image, first, COMMANDS)),
        Case("encode_results, per result", COMMANDS, lambda: kernel.encode_results(results)),
        Case("decode_results, per result", COMMANDS,
             lambda: kernel.decode_results(encoded, 0, COMMANDS)),
    ]  # fmt: skip


def _of_batches(kernel: ModuleType) -> list[Case]:
    run = kernel.encode_run(2, 9, 1, 0, [(77, 64, ARGUMENTS)] * COMMANDS)
    image = _image(kernel, 1)
    window = b"".join(_image(kernel, 1 + i * COMMANDS) for i in range(BATCHES))
    file, crc = b"", 0
    for i in range(BATCHES):
        framed = kernel.frame_image(_image(kernel, 1 + i * COMMANDS), 1, len(file), 0, crc)
        crc = int.from_bytes(framed[44:48], "little")
        file += framed
    zeros = bytes(len(file))
    return [
        Case(f"seal_batch, per batch of {COMMANDS}", 1, lambda: kernel.seal_batch([run], 1, 1, 1)),
        Case(f"batch_runs, per batch of {COMMANDS}", 1, lambda: kernel.batch_runs(image)),
        Case(f"scan_batches, per batch of {COMMANDS}", BATCHES,
             lambda: kernel.scan_batches(window, 0, len(window))),
        Case(f"frame_image, per batch of {COMMANDS}", 1,
             lambda: kernel.frame_image(image, 1, 4096, 0, 0)),
        Case(f"scan_frames, per batch of {COMMANDS}", BATCHES,
             lambda: kernel.scan_frames(file, 0, len(file), 1, 0, 1, 4096)),
        Case("find_frame in zeros, per KiB", len(zeros) >> 10,
             lambda: kernel.find_frame(zeros, 0, len(zeros), 1)),
    ]  # fmt: skip


def _of_bytes(kernel: ModuleType) -> list[Case]:
    def of(size: int) -> Case:
        data = bytes(range(256)) * (size // 256 + 1)
        piece = data[:size]
        return Case(f"crc32 of {size} bytes", 1, lambda: kernel.crc32(piece))

    return [of(64), of(1024), of(65_536)]


def _of_the_log(kernel: ModuleType, log: ModuleType) -> Case:
    group = 4
    images = [_image(kernel, 1 + i * COMMANDS) for i in range(group * 100)]

    def run() -> None:
        staged = log.Log(CLUSTER, MEMBER, SEGMENT_BYTES, lambda id_, size: Memory(size))
        for i, image in enumerate(images):
            staged.append(image)
            if i % group == group - 1:
                staged.completed(staged.take_writes())

    return Case(f"log append and take_writes, per batch of {COMMANDS}", len(images), run)
