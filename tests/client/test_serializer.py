"""Values survive the round trip exactly; whatever is not known is refused, never guessed."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import random
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import msgpack
import pytest

from copycat.errors import ConfigurationError, SerializationError
from copycat.serializer import Buffer, Serializer, Writable, serializable


@serializable(id=60001)
@dataclasses.dataclass(frozen=True)
class Point:
    """A dataclass with a default, as later versions have."""

    x: int
    y: int = 0


@serializable(id=60002)
class Color(enum.Enum):
    """An enum."""

    RED = "red"
    BLUE = "blue"


@serializable(id=60003)
class Pair(NamedTuple):
    """A named tuple."""

    left: object
    right: object


@serializable(id=60004)
class Money(Writable):
    """A class that writes itself."""

    def __init__(self, units: int, currency: str) -> None:
        self.units = units
        self.currency = currency

    def write_object(self, buffer: Buffer, serializer: Serializer) -> None:
        buffer.write(self.units)
        buffer.write(self.currency)

    def read_object(self, buffer: Buffer, serializer: Serializer) -> None:
        self.units = buffer.read()
        self.currency = buffer.read()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((self.units, self.currency))


def scalar(rng: random.Random) -> Any:
    """Any value that can be an element of a set."""
    makers: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.randint(-(2 ** rng.randrange(1, 200)), 2 ** rng.randrange(1, 200)),
        lambda: rng.uniform(-1e300, 1e300),
        lambda: "".join(chr(rng.choice((65, 228, 8364, 128512))) for _ in range(rng.randrange(9))),
        lambda: rng.randbytes(rng.randrange(40)),
        lambda: Decimal(rng.randint(-(10**20), 10**20)).scaleb(-rng.randrange(12)),
        lambda: uuid.UUID(int=rng.getrandbits(128)),
        lambda: dt.datetime(2000, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=rng.randrange(10**9)),
        lambda: dt.datetime(1999, 12, 31, 23, 59, 59, rng.randrange(10**6)),
        lambda: dt.date(1900 + rng.randrange(300), 1 + rng.randrange(12), 1 + rng.randrange(28)),
        lambda: dt.time(rng.randrange(24), rng.randrange(60), rng.randrange(60)),
        lambda: dt.timedelta(rng.randrange(-999, 999), rng.randrange(86400), rng.randrange(10**6)),
        lambda: Point(rng.randrange(100), rng.randrange(100)),
        lambda: rng.choice(list(Color)),
        lambda: Money(rng.randrange(1000), "EUR"),
    ]
    return rng.choice(makers)()


def value(rng: random.Random, depth: int) -> Any:
    """Any value at all."""
    if depth == 0 or rng.random() < 0.4:
        return scalar(rng)
    size = rng.randrange(5)
    kind = rng.randrange(7)
    if kind == 0:
        return [value(rng, depth - 1) for _ in range(size)]
    if kind == 1:
        return tuple(value(rng, depth - 1) for _ in range(size))
    if kind == 2:
        return {scalar(rng): value(rng, depth - 1) for _ in range(size)}
    if kind == 3:
        return {scalar(rng) for _ in range(size)}
    if kind == 4:
        return frozenset((scalar(rng), scalar(rng)) for _ in range(size))
    if kind == 5:
        return Pair(value(rng, depth - 1), value(rng, depth - 1))
    return bytes(size)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return [*map(type, left)] == [*map(type, right)] and all(
            same(left[key], right[key]) for key in left
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize("seed", range(40))
def test_round_trip(seed: int) -> None:
    """What comes back equals what went in, with the same types, and packs to the same bytes."""
    rng = random.Random(seed)
    serializer = Serializer()
    for _ in range(50):
        before = value(rng, 4)
        data = serializer.pack(before)
        after = serializer.unpack(data)
        assert same(before, after), (before, after)
        assert serializer.pack(after) == data


@pytest.mark.parametrize("seed", range(20))
def test_opaque_keeps_unknown_types_byte_for_byte(seed: int) -> None:
    """A member that knows no user type stores and returns exactly what it was given."""
    rng = random.Random(1000 + seed)
    serializer, opaque = Serializer(), Serializer(opaque=True)
    for _ in range(50):
        data = serializer.pack(value(rng, 4))
        assert opaque.pack(opaque.unpack(data)) == data


def test_equal_sets_have_equal_bytes() -> None:
    """The bytes of a set do not depend on how it came to be."""
    rng = random.Random(5)
    serializer = Serializer()
    items = [scalar(rng) for _ in range(200)]
    reference = serializer.pack(set(items))
    for _ in range(5):
        rng.shuffle(items)
        grown: set[Any] = set()
        for item in items:
            grown.add(item)
        assert serializer.pack(grown) == reference


@pytest.mark.parametrize(
    "make", [lambda v: [v], lambda v: (v,), lambda v: {1: v}, lambda v: Pair(v, 1)]
)
def test_depth_is_limited_alike_on_both_sides(make: Callable[[Any], Any]) -> None:
    """What is nested too deeply is refused when written, and so are such bytes when read."""
    serializer = Serializer()
    nested: Any = 1
    for _ in range(31):
        nested = make(nested)
    assert serializer.unpack(serializer.pack(nested)) == nested
    for _ in range(3):
        nested = make(nested)
    with pytest.raises(SerializationError, match="deep"):
        serializer.pack(nested)
    with pytest.raises(SerializationError, match="deep"):
        serializer.unpack(b"\x91" * 40 + b"\x01")


def test_cycles_end() -> None:
    """A value that contains itself is too deep, not endless."""
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    with pytest.raises(SerializationError):
        Serializer().pack(cycle)


@pytest.mark.parametrize("bad", [object(), len, 1j, {1: {2: object()}}, [range(3)]])
def test_unregistered_types_are_named_with_the_fix(bad: object) -> None:
    """The error says which type it is and what to do, at the call."""
    with pytest.raises(SerializationError, match=r"cannot encode 'builtins\.\w+'") as caught:
        Serializer().pack(bad)
    assert "serializable" in caught.value.hint


def test_a_failed_pack_leaves_nothing_behind() -> None:
    """After an error the next value is packed as if nothing had happened."""
    serializer = Serializer()
    for _ in range(3):
        with pytest.raises(SerializationError):
            serializer.pack(["x" * 100, (1, {2: object()})])
        assert serializer.unpack(serializer.pack([1, (2, 3)])) == [1, (2, 3)]


def test_unknown_ids_are_refused() -> None:
    """Bytes cannot name a type that is not registered."""
    sender = Serializer()
    sender.register(complex, 9, write=lambda c: [c.real, c.imag], read=lambda v: complex(*v))
    data = sender.pack([1 + 2j])
    assert sender.unpack(data) == [1 + 2j]
    with pytest.raises(SerializationError, match="type id 9 is not registered here"):
        Serializer().unpack(data)


@pytest.mark.parametrize("seed", range(10))
def test_junk_is_an_error_and_nothing_else(seed: int) -> None:
    """Random and damaged bytes either decode or raise SerializationError."""
    rng = random.Random(seed)
    for serializer in (Serializer(), Serializer(opaque=True)):
        for _ in range(400):
            data = bytearray(Serializer().pack(value(rng, 3)))
            for _ in range(rng.randrange(4)):
                if data:
                    data[rng.randrange(len(data))] = rng.randrange(256)
            with contextlib.suppress(SerializationError):
                serializer.unpack(bytes(data[: rng.randrange(len(data) + 1)]))


def test_extension_bodies_are_checked() -> None:
    """A built-in extension with nonsense inside is an error, not a crash."""
    for code in range(12):
        for body in (b"", b"\xc1", b"\xa3abc", b"\x93\x01\x02", b"\x05\x01"):
            data = msgpack.packb(msgpack.ExtType(code, body))
            with contextlib.suppress(SerializationError):
                Serializer().unpack(data)


def test_registration_mistakes_are_refused() -> None:
    """Ids are unique and in range; what cannot be read back cannot be registered."""

    class Plain:
        pass

    @dataclasses.dataclass
    class Hidden:
        a: int = dataclasses.field(init=False, default=1)

    serializer = Serializer()
    serializer.register(Plain, 1, write=lambda _: 1, read=lambda _: Plain())
    clashes: list[tuple[type, int]] = [(complex, 1), (Plain, 2)]
    for type_, id_ in clashes:
        with pytest.raises(ConfigurationError):
            serializer.register(type_, id_, write=lambda _: 1, read=lambda _: 1)
    wrong: list[tuple[type, int]] = [
        (complex, 3), (Hidden, 4), (int, 5), (list, 6), (Point, -1), (Point, 65536),
    ]  # fmt: skip
    for type_, id_ in wrong:
        with pytest.raises(ConfigurationError):
            serializer.register(type_, id_)
    with pytest.raises(ConfigurationError, match="both"):
        serializer.register(complex, 7, write=lambda _: 1)


def test_older_and_newer_dataclasses() -> None:
    """Missing fields take their defaults; surplus ones are a clear error."""
    serializer = Serializer()
    longer = msgpack.packb(msgpack.ExtType(0, msgpack.packb(60001) + b"\x93\x01\x02\x03"))
    with pytest.raises(SerializationError, match="2 fields here, 3 came"):
        serializer.unpack(longer)
    missing = msgpack.packb(msgpack.ExtType(0, msgpack.packb(60001) + b"\x91\x01"))
    assert serializer.unpack(missing) == Point(1)
