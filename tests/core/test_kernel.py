"""Both bodies of each kernel give the same bytes, values, types and errors for the same inputs."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from copycat._core.layout import (
    COMMAND_HEADER_SIZE,
    FRAME_HEADER_SIZE,
    RUN_HEADER_SIZE,
    SEGMENT_DATA_OFFSET,
    FormatError,
)

from .bodies import (
    KERNELS,
    PURE,
    chain,
    cliff,
    commands,
    count_of,
    image,
    mutated,
    outcome,
    resealed,
    run,
    typed,
)

kernels = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())


class Tally:
    """Runs a function of both bodies, demands one outcome, and counts what kinds there were."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}

    def same(self, name: str, *arguments: Any) -> tuple[str, Any]:
        expected = outcome(getattr(PURE, name), *arguments)
        for mode, kernel in KERNELS.items():
            found = outcome(getattr(kernel, name), *arguments)
            assert found == expected, f"{mode} {name}{arguments}"
        self.kinds[expected[0]] = self.kinds.get(expected[0], 0) + 1
        return expected


@pytest.mark.parametrize("seed", range(5))
def test_what_is_encoded_is_the_same(seed: int) -> None:
    """Runs, batches, results and frames have the same bytes from either body."""
    chance, tally = random.Random(seed), Tally()
    for _ in range(100):
        listed = commands(chance, chance.choice((0, 1, 2, 50)))
        numbers = [chance.choice((0, 1, 1 << 40, (1 << 64) - 1)) for _ in range(4)]
        tally.same("encode_run", chance.randrange(256), *numbers[:3], listed)
        runs = [run(chance) for _ in range(chance.randrange(4))]
        tally.same("seal_batch", runs, *numbers[:3])
        tally.same("encode_results", [arguments for _, _, arguments in listed])
        data = chance.randbytes(chance.choice((0, 1, 5, 8, 48, 49, 50, 4000)))
        tally.same("frame_image", data, *numbers[:3], chance.randrange(1 << 32))
    assert tally.kinds == {"value": 400}


def test_a_long_batch_is_sealed_and_scanned_alike() -> None:
    """Batches long enough to be checksummed without the GIL are no exception."""
    tally = Tally()
    listed = [(1, 64, bytes((i % 251,)) * 5000) for i in range(100)]
    long = PURE.encode_run(2, 9, 1, 0, listed)
    tally.same("seal_batch", [long, long], 1, 1, 1)
    sealed = PURE.seal_batch([long, long], 1, 1, 1)
    tally.same("scan_batches", sealed + sealed, 0, 2 * len(sealed))
    framed = PURE.frame_image(sealed, 1, 0, 0, 0)
    tally.same("scan_frames", framed, 0, len(framed), 1, 0, 1, 64)
    assert tally.kinds == {"value": 3}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("encode_run", (256, 0, 0, 0, [])),
        ("encode_run", (-1, 0, 0, 0, [])),
        ("encode_run", (2, 1 << 64, 0, 0, [])),
        ("encode_run", (2, 0, -1, 0, [])),
        ("encode_run", (2, 0, 0, 1 << 70, [])),
        ("encode_run", (2, 0, 0, 0.5, [])),
        ("encode_run", (2, 0, 0, 0, [(1 << 64, 0, b"")])),
        ("encode_run", (2, 0, 0, 0, [(0, 0, b""), (0, 1 << 32, b"")])),
        ("encode_run", (2, 0, 0, 0, [(0, -1, b"")])),
        ("encode_run", (2, 0, 0, 0, [("0", 0, b"")])),
        ("encode_run", (2, 0, 0, 0, [(0, 0)])),
        ("encode_run", (True, False, True, True, [(True, False, b"x")])),
        ("encode_run", (2, 0, 0, 0, [[5, 6, bytearray(b"abc")], (1, 2, memoryview(b"xy"))])),
        ("encode_run", (2, 0, 0, 0, ((5, 6, b"abc"),))),
        ("seal_batch", ([], -1, 0, 0)),
        ("seal_batch", ([], 0, 1 << 64, 0)),
        ("seal_batch", ([], 0, 0, "now")),
        ("seal_batch", ([], 0, 0, 0, -1)),
        ("seal_batch", ([], 0, 0, 0, 1 << 32)),
        ("seal_batch", ([b"", b"short", b"shorter"], 0, 0, 0)),
        ("seal_batch", ([b"....\xff\xff\xff\xff", b"....\x01\0\0\0"], 0, 0, 0)),
        ("seal_batch", ([bytearray(b"12345678"), memoryview(b"123456789")], 1, 1, 1)),
        ("encode_results", (["text"],)),
        ("encode_results", ([b"a", bytearray(b"bc")],)),
        ("encode_results", ((b"a", b""),)),
        ("frame_image", (b"12345678", 1 << 64, 0, 0, 0)),
        ("frame_image", (b"12345678", 0, -1, 0, 0)),
        ("frame_image", (b"12345678", 0, 0, 0, 1 << 32)),
        ("frame_image", (b"12345678", True, False, True, False)),
        ("crc32", (b"abc", -1)),
        ("crc32", (b"abc", 1 << 40)),
    ],
)
def test_unusual_arguments_end_alike(name: str, arguments: tuple[Any, ...]) -> None:
    """Numbers that do not fit and other containers give the same value or error in both."""
    Tally().same(name, *arguments)


@pytest.mark.parametrize("seed", range(20))
def test_mutated_runs_end_alike(seed: int) -> None:
    """Whatever a client sends as a run, both bodies accept it or refuse it with the same words."""
    chance, tally = random.Random(seed), Tally()
    for _ in range(200):
        prefix = chance.randbytes(chance.choice((0, 0, 3)))
        data = prefix + mutated(chance, run(chance))
        end = len(data) + chance.choice((0, 0, 0, -1, 1, -40))
        kind, value = tally.same("check_run", data, len(prefix), end, chance.choice((300, 64)))
        if kind == "value":
            _, (_, _, _, _, (_, count), (_, stop)) = value
            for skip in (0, 1, count - 1, count):
                tally.same("slice_run", data, len(prefix), skip)
            first = len(prefix) + RUN_HEADER_SIZE
            for number, skip in ((count, 0), (count, count - 1), (count, count + 1), (0, 0)):
                tally.same("decode_commands", data[:stop], first, number, skip)
        offset, count = chance.randrange(len(data) + 9), chance.randrange(4)
        tally.same("decode_commands", data, offset, count)
    assert tally.kinds["value"] > 200 and tally.kinds["FormatError"] > 50


@pytest.mark.parametrize("seed", range(10))
def test_mutated_results_end_alike(seed: int) -> None:
    """Whatever a member sends as results, both bodies read the same or refuse it alike."""
    chance, tally = random.Random(seed), Tally()
    for _ in range(300):
        listed = [chance.randbytes(chance.choice((1, 2, 60))) for _ in range(chance.randrange(5))]
        data = PURE.encode_results(listed)
        tally.same("decode_results", b"head" + data, 4, len(listed))
        tally.same("decode_results", mutated(chance, data), chance.choice((0, 0, 4)), len(listed))
    assert tally.kinds["value"] > 300 and tally.kinds["FormatError"] > 50


@pytest.mark.parametrize("seed", range(20))
def test_mutated_batches_end_alike(seed: int) -> None:
    """Damaged batches are refused alike, also when their checksum has been made to fit."""
    chance, tally = random.Random(seed), Tally()
    for _ in range(100):
        batches = [image(chance, 1 + 50 * i) for i in range(chance.randint(1, 3))]
        data = b"".join(batches)
        tally.same("scan_batches", data, 0, len(data))
        bad = mutated(chance, data)
        tally.same("scan_batches", bad, 0, len(bad) + chance.choice((0, 0, 1)))
        bad = resealed(mutated(chance, batches[0]))
        tally.same("scan_batches", bad, 0, len(bad))
        tally.same("batch_runs", batches[0])
        tally.same("batch_runs", bad)
    assert tally.kinds["value"] > 200 and tally.kinds["FormatError"] > 100


@pytest.mark.parametrize("seed", range(20))
def test_mutated_frames_end_alike(seed: int) -> None:
    """A scan stops, and a search finds, at the same frame in both, whatever was damaged."""
    chance, tally = random.Random(seed), Tally()
    found = missing = 0
    for _ in range(30):
        data, offsets, _ = chain(chance, chance.randint(1, 8), 64)
        victim = chance.choice(offsets)
        for file in (
            data,
            data[:victim] + mutated(chance, data[victim:]),
            data[:victim] + resealed(mutated(chance, data[victim:]), framed=True),
            resealed(data[:victim] + mutated(chance, data[victim:]), victim, framed=True),
        ):
            for stride in (1, 500, max(1, offsets[-1] - offsets[0]), 1 << 20):
                tally.same("scan_frames", file, 64, len(file), 2, 77, 5, stride)
            tally.same("scan_frames", file, 64, len(file) - 1, 2, 77, 5, 500)
            tally.same("scan_frames", file, 64, len(file), 4, 77, 5, 500)
            for start in (0, 3, victim, victim + 1, len(file)):
                least = chance.choice((0, 3, 9))
                _, value = tally.same("find_frame", file, start, len(file), least)
                found += value != typed(None)
                missing += value == typed(None)
    assert found > 100 and missing > 100
    assert tally.kinds.keys() == {"value"}


@kernels
def test_a_scan_finds_what_was_written(kernel: Any) -> None:
    """Offsets, indexes and terms of a scan are those of the frames; the sparse index is sparse."""
    chance = random.Random(3)
    data, offsets, end = chain(chance, 40, SEGMENT_DATA_OFFSET)
    stop, generation, _, next_index, time_us, index, terms, flagged = kernel.scan_frames(
        data, SEGMENT_DATA_OFFSET, len(data), 1, 77, 5, 1000
    )
    assert stop == end
    assert index[0] == (5, offsets[0])
    assert {offset for _, offset in index} <= set(offsets)
    places = [offset for _, offset in index]
    assert all(after - before >= 1000 for before, after in pairwise(places))
    assert len(index) > 3
    images = [data[at + FRAME_HEADER_SIZE :] for at in offsets]
    assert next_index == 5 + sum(map(count_of, images))
    assert [term for _, term in terms] == sorted({i[24] for i in images})
    assert time_us == int.from_bytes(images[-1][32:40], "little")
    assert not flagged
    assert generation == int.from_bytes(data[offsets[-1] + 8 : offsets[-1] + 16], "little")


@kernels
def test_a_scan_tells_which_batches_bring_a_configuration(kernel: Any) -> None:
    """They are listed with their flags; a batch with a flag nobody knows is no batch."""
    run = kernel.encode_run(6, 0, 0, 0, [(0, 0, b"x")])
    images = [
        kernel.seal_batch([run], 1, 1, 1),
        kernel.seal_batch([run], 2, 1, 1, 2),
        kernel.seal_batch([run], 3, 1, 1, 0),
        kernel.seal_batch([run], 4, 1, 1, 2),
        kernel.seal_batch([run], 5, 1, 1, 4),
    ]
    data, crc = b"", 0
    for each in images:
        data += kernel.frame_image(each, 1, len(data), 0, crc)
        crc = int.from_bytes(each[4:8], "little")
    scanned = kernel.scan_frames(data, 0, len(data), 1, 0, 1, 64)
    assert scanned[7] == [(2, 2), (4, 2)]
    assert scanned[3] == 5
    assert images[1][12:16] == b"\2\0\0\0"
    with pytest.raises(FormatError):
        kernel.scan_batches(images[4], 0, len(images[4]))


@kernels
def test_stale_bytes_never_parse(kernel: Any) -> None:
    """A frame copied elsewhere, of an older generation, or after another image does not chain."""
    batch = image(random.Random(1), 5)
    good = kernel.frame_image(batch, 3, 0, 4, 77)
    scan = kernel.scan_frames
    assert scan(good, 0, len(good), 3, 77, 5, 64)[0] == len(good)
    moved = bytes(8) + good
    assert scan(moved, 8, len(moved), 3, 77, 5, 64)[0] == 8
    assert scan(good, 0, len(good), 4, 77, 5, 64)[0] == 0
    assert scan(good, 0, len(good), 3, 78, 5, 64)[0] == 0
    assert scan(good, 0, len(good), 3, 77, 6, 64)[0] == 0
    assert kernel.find_frame(moved, 0, len(moved), 0) is None
    assert kernel.find_frame(good, 0, len(good), 3) == (0, 5, 4)


@kernels
def test_commands_come_back(kernel: Any) -> None:
    """What encode_run took, decode_commands gives, through a sealed batch and after a slice."""
    listed = commands(random.Random(9), 30)
    encoded = kernel.encode_run(2, 9, 100, 99, listed)
    assert kernel.check_run(encoded, 0, len(encoded), 300) == (2, 9, 100, 99, 30, len(encoded))
    rest = kernel.slice_run(encoded, 0, 10)
    sealed = kernel.seal_batch([encoded, rest], 1000, 4, 5)
    (first, second) = kernel.batch_runs(sealed)
    assert first[:5] == (2, 9, 100, 99, 30)
    assert second[:5] == (2, 9, 110, 99, 20)
    assert kernel.decode_commands(sealed, first[5], 30) == listed
    assert kernel.decode_commands(sealed, second[5], 20, 5) == listed[15:]
    assert kernel.scan_batches(sealed, 0, len(sealed)) == [(0, len(sealed), 1000, 50, 4, 5)]


@kernels
def test_any_buffer_will_do(kernel: Any) -> None:
    """Bytes, bytearrays, views, slices of views and mappings are read alike."""
    chance = random.Random(4)
    with cliff() as lay:
        for wrap in (bytearray, memoryview, lambda data: memoryview(b"abc" + data)[3:], lay):
            one = run(chance)
            held: Any = wrap(one)
            expected = PURE.check_run(one, 0, len(one), 300)
            assert kernel.check_run(held, 0, len(one), 300) == expected
            assert kernel.slice_run(held, 0, 0) == one
            assert kernel.crc32(held, 5) == PURE.crc32(one, 5)
            held = None
            sealed = image(chance, 3)
            held = wrap(sealed)
            runs = kernel.batch_runs(held)
            assert runs == PURE.batch_runs(sealed)
            first = runs[0]
            expected = PURE.decode_commands(sealed, first[5], first[4])
            assert kernel.decode_commands(held, first[5], first[4]) == expected
            held = None
            data, _, end = chain(chance, 3, 0)
            held = wrap(data)
            assert kernel.scan_frames(held, 0, len(data), 0, 77, 5, 64)[0] == end
            held = None


@kernels
def test_nothing_is_held_after_an_error(kernel: Any) -> None:
    """A buffer that was refused can be resized: no export of it was forgotten."""
    for name, arguments in (
        ("check_run", (0, 8, 9)),
        ("slice_run", (0, 1)),
        ("scan_batches", (0, 8)),
        ("batch_runs", ()),
        ("decode_commands", (0, 1)),
        ("decode_results", (0, 1)),
    ):
        buffer = bytearray(b"nonsense")
        # The pure slice_run leaves what its caller has checked to `struct`.
        expected: Any = Exception if name == "slice_run" else FormatError
        with pytest.raises(expected):
            getattr(kernel, name)(buffer, *arguments)
        buffer += b"more"


@pytest.mark.parametrize("seed", range(10))
@kernels
def test_nothing_is_read_beyond_the_end(kernel: Any, seed: int) -> None:
    """Before an unreadable page, no kernel touches a byte behind its input, whatever it says."""
    chance = random.Random(seed)
    with cliff() as lay:
        for _ in range(60):
            one = mutated(chance, run(chance))
            # 2**62 in a sum with a length must not wrap round into the buffer either.
            for offset in (0, 8, len(one) + 1, -1, 1 << 62, (1 << 63) - 1):
                outcome(kernel.check_run, lay(one), offset, len(one), 1 << 62)
                outcome(kernel.slice_run, lay(one), offset, chance.randrange(9))
                outcome(kernel.decode_commands, lay(one), offset, chance.randrange(1 << 40))
                outcome(kernel.decode_results, lay(one), offset, chance.randrange(1 << 40))
            listed = [chance.randbytes(chance.randrange(9)) for _ in range(5)]
            outcome(kernel.decode_results, lay(mutated(chance, PURE.encode_results(listed))), 0, 5)
            outcome(kernel.crc32, lay(one))
            sealed = mutated(chance, image(chance, 1))
            for data in (sealed, resealed(sealed)):
                outcome(kernel.scan_batches, lay(data), 0, len(data))
                outcome(kernel.batch_runs, lay(data))
            frames, offsets, _ = chain(chance, 3, 0)
            cut = mutated(chance, frames[offsets[1] :])
            for data in (frames[: offsets[1]] + cut, frames[: offsets[2] + chance.randrange(90)]):
                outcome(kernel.scan_frames, lay(data), 0, len(data), 0, 77, 5, 1)
                outcome(kernel.find_frame, lay(data), 8, len(data), 0)


@kernels
def test_limits_are_kept(kernel: Any) -> None:
    """Arguments of exactly the allowed size pass, one byte more does not; an empty run neither."""
    one = kernel.encode_run(2, 1, 1, 0, [(0, 0, b"1234"), (0, 0, b"12345")])
    assert kernel.check_run(one, 0, len(one), 5)[4] == 2
    with pytest.raises(FormatError, match="5 bytes, 4 allowed"):
        kernel.check_run(one, 0, len(one), 4)
    empty = kernel.encode_run(2, 1, 1, 0, [])
    with pytest.raises(FormatError, match="not valid"):
        kernel.check_run(empty, 0, len(empty), 5)
    cut = one[:-1]
    with pytest.raises(FormatError):
        kernel.check_run(cut, 0, len(cut), 5)
    assert len(one) == RUN_HEADER_SIZE + 2 * COMMAND_HEADER_SIZE + 9
