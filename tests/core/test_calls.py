"""The fast codecs say exactly what their fallback says, for every value and every byte string."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from copycat._core.calls import packer, run_commands, unpacker
from copycat._core.kernel import decode_results, encode_results, encode_run
from copycat._core.layout import RUN_HEADER_SIZE, FormatError, Kind
from copycat.serializer import Serializer

EDGES = [0, 1, 31, 32, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32]
INTEGERS = [
    sign * (edge + d) for edge in (*EDGES, 2**63, 2**64) for d in (-1, 0, 1) for sign in (1, -1)
]
PLAIN: list[Any] = [
    None, True, False, 0.0, -0.0, 1.5, math.inf, "", "é", "x" * 31, "x" * 32, "x" * 255, "y" * 256,
    "z" * 65536, b"", b"b" * 255, b"b" * 256, b"b" * 65536, [], {}, [1] * 15, [1] * 16,
    [None] * 65536, {i: str(i) for i in range(16)}, {"k": [1, {"deep": [b"x"]}]},
    (1, 2), {3, 4}, [(1,)], "\ud800", {(1, 2): 3}, object(), [object()], 1j, *INTEGERS,
]  # fmt: skip


def outcome(function: Callable[[Any], Any], argument: Any) -> tuple[str, Any]:
    """What a call gives, in a form that compares: NaN, -0.0 and types included."""
    try:
        return "value", repr(function(argument))
    except Exception as problem:
        return type(problem).__name__, str(problem)


def nested(chance: random.Random, depth: int) -> Any:
    """A random value."""
    kind = chance.randrange(9 if depth else 6)
    if kind < 6:
        return chance.choice(PLAIN[:20] + INTEGERS)
    if kind == 6:
        return [nested(chance, depth - 1) for _ in range(chance.randrange(5))]
    if kind == 7:
        return {chance.choice("abc"): nested(chance, depth - 1) for _ in range(3)}
    return tuple(nested(chance, depth - 1) for _ in range(2))


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20])
def test_packing_an_edge_equals_the_fallback(value: Any) -> None:
    """Each kind of value, at each size where its encoding changes, has the serializer's bytes."""
    serializer = Serializer()
    assert outcome(packer(serializer.pack), value) == outcome(serializer.pack, value)


@pytest.mark.parametrize("seed", range(10))
def test_random_values_pack_and_unpack_as_the_fallback_does(seed: int) -> None:
    """Nested values round-trip through either codec with the same bytes and the same types."""
    chance = random.Random(seed)
    serializer = Serializer()
    pack, unpack = packer(serializer.pack), unpacker(serializer.unpack)
    for _ in range(300):
        value = nested(chance, 4)
        data = serializer.pack(value)
        assert pack(value) == data
        assert repr(unpack(data)) == repr(serializer.unpack(data))


def test_depth_limits_are_the_fallbacks() -> None:
    """However deep a value nests, both accept or refuse it alike."""
    serializer = Serializer()
    pack, unpack = packer(serializer.pack), unpacker(serializer.unpack)
    value: Any = 1
    for _ in range(40):
        value = [value]
        assert outcome(pack, value) == outcome(serializer.pack, value)
    for depth in (1, 15, 16, 17, 31, 32, 33, 1000, 100_000):
        data = b"\x91" * depth + b"\x01"
        assert outcome(unpack, data) == outcome(serializer.unpack, data)


@pytest.mark.parametrize("seed", range(20))
def test_hostile_bytes_unpack_as_the_fallback_does(seed: int) -> None:
    """Mutated, truncated and random bytes give the same value or the same error (H79)."""
    chance = random.Random(seed)
    serializer = Serializer()
    unpack = unpacker(serializer.unpack)
    for _ in range(400):
        if chance.random() < 0.5:
            data = bytearray(chance.randbytes(chance.randrange(24)))
        else:
            data = bytearray(serializer.pack(nested(chance, 3))[:2000])
            for _ in range(chance.randrange(4)):
                if data:
                    data[chance.randrange(len(data))] = chance.randrange(256)
        del data[chance.randrange(len(data) + 1) :]
        assert outcome(unpack, bytes(data)) == outcome(serializer.unpack, bytes(data))


def test_claimed_sizes_allocate_nothing() -> None:
    """A header that promises four billion items is refused without making room for them (H99)."""
    serializer = Serializer()
    for head in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"):
        assert outcome(unpacker(serializer.unpack), head)[0] == "SerializationError"


class Commit:
    """Stands for a machine's commit."""

    index = time_us = session = 0


def test_a_run_of_commands_keeps_order_and_context() -> None:
    """Each command sees its own index; unknown ones take the slow way; exceptions are results."""
    serializer = Serializer()
    commit, seen = Commit(), []
    events: dict[int, Any] = {}

    def body(value: Any) -> Any:
        seen.append((commit.index, commit.time_us, commit.session, value))
        if value == "raise":
            raise KeyError(value)
        if value == "event":
            events[1] = value
        return value

    def slow(resource: int, operation: int, arguments: bytes, index: int, session: int) -> bytes:
        return b"slow %d %d %d %d " % (resource, operation, index, session) + arguments

    flushed: list[int] = []

    def flush(index: int) -> None:
        flushed.append(index)
        events.clear()

    pack, unpack = packer(serializer.pack), unpacker(serializer.unpack)
    table = {(9, 64): (body, commit, unpack, pack, lambda problem: b"\x02" + str(problem).encode())}
    values: list[Any] = ["skipped", None, 7, (1, 2), "raise", "event", [3]]
    commands = [(9, 64, serializer.pack([value])) for value in values]
    commands.insert(3, (8, 64, b"\x90"))
    run = encode_run(Kind.COMMAND, 5, 1, 0, commands)
    encoded = run_commands(
        run, RUN_HEADER_SIZE, len(commands), 1, 101, 55, 5, table, slow, events, flush,  # type: ignore[arg-type]
        1 << 30, 1 << 20, b"", b"",
    )  # fmt: skip
    results = decode_results(encoded, 0, len(commands) - 1)
    assert seen == [
        (101, 55, 5, None), (102, 55, 5, 7), (104, 55, 5, (1, 2)), (105, 55, 5, "raise"),
        (106, 55, 5, "event"), (107, 55, 5, [3]),
    ]  # fmt: skip
    assert flushed == [106]
    assert results[0] == b"\x00\xc0"
    assert results[2] == b"slow 8 64 103 5 \x90"
    assert results[4] == b"\x02'raise'"
    assert [serializer.unpack(results[i][1:]) for i in (1, 3, 5, 6)] == [7, (1, 2), "event", [3]]


@pytest.mark.parametrize("way", ["quick", "slow"])
def test_results_are_bounded_while_they_come_about(way: str) -> None:
    """When the room is used up no other command runs, and a result may not be too long (H85)."""
    serializer = Serializer()
    ran: list[int] = []

    def body(size: int) -> str:
        ran.append(size)
        return "x" * size

    def slow(resource: int, operation: int, arguments: bytes, index: int, session: int) -> bytes:
        return b"\x00" + serializer.pack(body(*serializer.unpack(arguments)))

    pack, unpack = packer(serializer.pack), unpacker(serializer.unpack)
    table = {(9, 64): (body, Commit(), unpack, pack, lambda problem: b"\x02")}
    sizes = [100, 301, 100, 50, 40, 1, 1]
    run = encode_run(Kind.COMMAND, 5, 1, 0, [(9, 64, serializer.pack([size])) for size in sizes])
    for room, begun in ((0, 0), (1, 1), (107, 1), (108, 2), (300, 5), (1 << 20, len(sizes))):
        ran.clear()
        encoded = run_commands(
            run, RUN_HEADER_SIZE, len(sizes), 0, 101, 55, 5, table if way == "quick" else {},  # type: ignore[arg-type]
            slow, {}, lambda index: None, room, 303, b"refused", b"too long",
        )  # fmt: skip
        results = decode_results(encoded, 0, len(sizes))
        assert ran == sizes[:begun]
        assert results[begun:] == [b"refused"] * (len(sizes) - begun)
        for size, result in zip(ran, results, strict=False):
            assert result == (b"too long" if size == 301 else b"\x00" + serializer.pack("x" * size))


@pytest.mark.parametrize("seed", range(10))
def test_a_broken_run_is_a_format_error(seed: int) -> None:
    """However a run is cut or its lengths are changed, nothing beyond it is read (H89)."""
    chance = random.Random(seed)
    good = encode_run(Kind.COMMAND, 5, 1, 0, [(9, 64, b"\x90")] * 5)
    slow = lambda *_: b"\x00"  # noqa: E731
    for _ in range(200):
        broken = bytearray(good)
        at = RUN_HEADER_SIZE + 17 * chance.randrange(5) + chance.randrange(4)
        broken[at] = chance.randrange(256)
        del broken[chance.randrange(RUN_HEADER_SIZE, len(broken) + 1) :]
        try:
            results = run_commands(
                bytes(broken), RUN_HEADER_SIZE, 5, 0, 1, 1, 5, {}, slow, {}, lambda index: None,
                1 << 30, 1 << 20, b"", b"",
            )  # fmt: skip
        except FormatError:
            continue
        assert results == encode_results([b"\x00"] * 5)
