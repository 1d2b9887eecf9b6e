"""Values to bytes and back: msgpack, a few built-in extensions, and registered types by id.

Only what is registered decodes; nothing is ever imported, constructed or called because bytes name
it, and there is no fallback (H93). Equal sets have equal bytes, so that state digests agree. It
serves the caller's side, machines, snapshots and cluster messages.

Extension codes: 0 registered type (msgpack id, then its body), 1 tuple, 2 set, 3 frozenset, 4 int
beyond 64 bits, 5 Decimal, 6 UUID, 7 datetime, 8 date, 9 time, 10 timedelta.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgpack

from .errors import ConfigurationError, SerializationError

T = TypeVar("T")

DEPTH_MAX: Final = 32
ID_MAX: Final = 0xFFFF

_REGISTERED: Final = 0
_CONTAINERS: Final = frozenset((list, dict, tuple, set, frozenset))
_unpack: Final = msgpack.unpackb
_NESTED_BUFFER: Final = 1024
_BUFFER: Final = 1 << 16


class Buffer:
    """A sequence of values that a `Writable` writes itself to and reads itself from."""

    __slots__ = ("_values",)

    def __init__(self, values: list[Any] | None = None) -> None:
        self._values: Iterator[Any] | list[Any] = [] if values is None else iter(values)

    def write(self, value: object) -> None:
        """Append a value of any type that the serializer knows."""
        if not isinstance(self._values, list):
            raise SerializationError("this buffer is being read")
        self._values.append(value)

    def read(self) -> Any:
        """The next value, in the order of writing."""
        if isinstance(self._values, list):
            raise SerializationError("this buffer is being written")
        for value in self._values:
            return value
        raise SerializationError("the buffer has no further value")

    def values(self) -> list[Any]:
        """What was written, or what has not been read yet."""
        return list(self._values)


class Writable(ABC):
    """A class that says itself how it is written and read; register it with `serializable`.

    An instance to be read into is made without calling ``__init__``.
    """

    @abstractmethod
    def write_object(self, buffer: Buffer, serializer: Serializer) -> None:
        """Write every field to ``buffer``."""

    @abstractmethod
    def read_object(self, buffer: Buffer, serializer: Serializer) -> None:
        """Read every field from ``buffer``, in the order of writing."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    """A registered type: how it becomes a value that msgpack knows, and back."""

    type: type
    id: int
    write: Callable[[Any, Serializer], object]
    read: Callable[[Any, Serializer], object]


class _Registry:
    """Types by id and ids by type."""

    def __init__(self) -> None:
        self.by_type: dict[type, _Entry] = {}
        self.by_id: dict[int, _Entry] = {}

    def add(self, entry: _Entry) -> None:
        if not isinstance(entry.id, int) or not 0 <= entry.id <= ID_MAX:
            raise ConfigurationError(f"a type id is an integer from 0 to {ID_MAX}, not {entry.id}")
        known = self.by_id.get(entry.id)
        if known is not None and _name(known.type) != _name(entry.type):
            raise ConfigurationError(
                f"type id {entry.id} is taken by {_name(known.type)}, "
                f"{_name(entry.type)} needs another one"
            )
        before = self.by_type.get(entry.type)
        if before is not None and before.id != entry.id:
            raise ConfigurationError(f"{_name(entry.type)} is already registered as {before.id}")
        self.by_type[entry.type] = entry
        self.by_id[entry.id] = entry


_shared: Final = _Registry()


def serializable(*, id: int) -> Callable[[type[T]], type[T]]:
    """Register a dataclass, enum, NamedTuple or `Writable` for every serializer, under ``id``.

    All members and clients must agree on the ids.
    """

    def register(type_: type[T]) -> type[T]:
        _shared.add(_entry(type_, id, None, None))
        return type_

    return register


class Serializer:
    """Packs and unpacks values; not to be shared between threads.

    With ``opaque=True`` registered types stay what they are on the wire (``msgpack.ExtType``) and
    are written again byte for byte: members store them without knowing them.
    """

    def __init__(self, *, opaque: bool = False) -> None:
        self.opaque = opaque
        self._own = _Registry()
        self._depth = 0
        self._room = DEPTH_MAX
        self._packers: list[msgpack.Packer] = []
        # Looked up once: these run for every command.
        self._pack = self._new_packer(_BUFFER).pack
        self._hook = self._read_extension

    def register(
        self,
        type_: type,
        id: int,
        *,
        write: Callable[[Any], object] | None = None,
        read: Callable[[Any], Any] | None = None,
    ) -> None:
        """Register ``type_`` under ``id`` for this serializer.

        ``write`` turns an object into a value made of known types and ``read`` turns that value
        back; dataclasses, enums, NamedTuples and `Writable` classes need neither.
        """
        self._own.add(_entry(type_, id, write, read))

    def pack(self, value: object) -> bytes:
        """The bytes of ``value``; raises `SerializationError`, which names the type at fault."""
        try:
            if type(value) is list:
                for item in value:
                    if type(item) in _CONTAINERS:
                        _check_depth(value, self._room)
                        break
            elif type(value) in _CONTAINERS:
                _check_depth(value, self._room)
            return self._pack(value)  # type: ignore[no-any-return]
        except SerializationError:
            raise
        except (ValueError, OverflowError, TypeError) as problem:
            raise SerializationError(f"the value cannot be encoded: {problem}") from problem

    def unpack(self, data: bytes | bytearray | memoryview) -> Any:
        """The value whose bytes these are; raises `SerializationError`."""
        try:
            value = _unpack(data, strict_map_key=False, ext_hook=self._hook)
            if type(value) is list:
                for item in value:
                    if type(item) in _CONTAINERS:
                        _check_depth(value, self._room)
                        break
            elif type(value) in _CONTAINERS:
                _check_depth(value, self._room)
            return value
        except SerializationError:
            raise
        except (ValueError, TypeError, msgpack.UnpackException, OverflowError) as problem:
            reason = str(problem) or type(problem).__name__
            raise SerializationError(f"the bytes do not decode: {reason}") from problem
        except RecursionError:
            raise SerializationError("the bytes nest too deeply") from None

    def pack_state(self, value: object) -> bytes:
        """As `pack`, for a machine's whole state: around values there may be as much again."""
        with self._deeper():
            return self.pack(value)

    def unpack_state(self, data: bytes) -> Any:
        """As `unpack`, for what `pack_state` made."""
        with self._deeper():
            return self.unpack(data)

    def unpack_each(self, pieces: Iterable[bytes]) -> Iterator[Any]:
        """The values that were packed one after the other, from bytes cut anywhere.

        Raises `SerializationError` if they end within a value.
        """
        unpacker = msgpack.Unpacker(strict_map_key=False, ext_hook=self._hook, max_buffer_size=0)
        fed = 0
        for piece in pieces:
            unpacker.feed(piece)
            fed += len(piece)
            yield from unpacker
        if unpacker.tell() != fed:
            raise SerializationError(f"{fed - unpacker.tell()} bytes are the beginning of a value")

    @contextlib.contextmanager
    def _deeper(self) -> Iterator[None]:
        self._room = 2 * DEPTH_MAX
        try:
            yield
        finally:
            self._room = DEPTH_MAX

    # -- writing -------------------------------------------------------------------------------

    def _new_packer(self, size: int) -> msgpack.Packer:
        return msgpack.Packer(
            default=self._write_extension, strict_types=True, use_bin_type=True, buf_size=size
        )

    def _write_extension(self, value: Any) -> msgpack.ExtType:
        writer = _WRITERS.get(type(value))
        if writer is not None:
            return writer(self, value)
        entry = self._own.by_type.get(type(value)) or _shared.by_type.get(type(value))
        if entry is None or self.opaque:
            raise _unregistered(value)
        body = self._nested(entry.write(value, self))
        return msgpack.ExtType(_REGISTERED, self._nested(entry.id) + body)

    def _nested(self, value: object) -> bytes:
        """The bytes of a value inside an extension; a packer in use cannot be used again."""
        depth = self._depth
        if depth >= DEPTH_MAX:
            raise SerializationError(f"values nest more than {DEPTH_MAX} deep")
        if depth == len(self._packers):
            self._packers.append(self._new_packer(_NESTED_BUFFER))
        if type(value) in _CONTAINERS:
            _check_depth(value, DEPTH_MAX)
        self._depth = depth + 1
        try:
            return self._packers[depth].pack(value)  # type: ignore[no-any-return]
        finally:
            self._depth = depth

    # -- reading -------------------------------------------------------------------------------

    def _read_extension(self, code: int, data: bytes) -> Any:
        if self._depth >= DEPTH_MAX:
            raise SerializationError(f"values nest more than {DEPTH_MAX} deep")
        self._depth += 1
        try:
            reader = _READERS.get(code)
            if reader is not None:
                return reader(self, data)
            if self.opaque:
                return msgpack.ExtType(code, data)
            if code != _REGISTERED:
                raise SerializationError(f"extension code {code} is unknown")
            return self._read_registered(data)
        finally:
            self._depth -= 1

    def _read_registered(self, data: bytes) -> Any:
        unpacker = msgpack.Unpacker(
            strict_map_key=False, ext_hook=self._read_extension, max_buffer_size=len(data)
        )
        unpacker.feed(data)
        id_ = unpacker.unpack()
        entry = self._own.by_id.get(id_) or _shared.by_id.get(id_)
        if entry is None:
            raise SerializationError(
                f"type id {id_!r} is not registered here",
                hint=f"import the module that defines it, or register it with id={id_!r}",
            )
        body = unpacker.unpack()
        if unpacker.tell() != len(data):
            raise SerializationError(f"{_name(entry.type)} has bytes left over")
        try:
            return entry.read(body, self)
        except SerializationError:
            raise
        except Exception as problem:
            raise SerializationError(
                f"{_name(entry.type)} cannot be read: {type(problem).__name__}: {problem}"
            ) from problem


def _check_depth(value: Any, room: int) -> None:
    if room == 0:
        raise SerializationError(f"values nest more than {DEPTH_MAX} deep")
    if type(value) is dict:
        for key, item in value.items():
            if type(key) in _CONTAINERS:
                _check_depth(key, room - 1)
            if type(item) in _CONTAINERS:
                _check_depth(item, room - 1)
    else:
        for item in value:
            if type(item) in _CONTAINERS:
                _check_depth(item, room - 1)


# -- built-in extensions -----------------------------------------------------------------------

_Pair = tuple[int, Callable[[Serializer, Any], bytes], Callable[[Serializer, bytes], Any]]


def _write_set(serializer: Serializer, value: set[Any] | frozenset[Any]) -> bytes:
    items = sorted(serializer._nested(item) for item in value)
    return msgpack.Packer().pack_array_header(len(items)) + b"".join(items)  # type: ignore[no-any-return]


def _write_integer(serializer: Serializer, value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _pair(code: int, write: Callable[[Any], object], read: Callable[[Any], object]) -> _Pair:
    """An extension whose body is one plain value."""
    return (
        code,
        lambda serializer, value: serializer._nested(write(value)),
        lambda serializer, data: read(serializer.unpack(data)),
    )


_BUILT_IN: Final[dict[type, _Pair]] = {
    tuple: _pair(1, list, tuple),
    set: (2, _write_set, lambda serializer, data: set(serializer.unpack(data))),
    frozenset: (3, _write_set, lambda serializer, data: frozenset(serializer.unpack(data))),
    int: (4, _write_integer, lambda _, data: int.from_bytes(data, "big", signed=True)),
    Decimal: _pair(5, str, Decimal),
    uuid.UUID: (6, lambda _, value: value.bytes, lambda _, data: uuid.UUID(bytes=data)),
    dt.datetime: _pair(7, dt.datetime.isoformat, dt.datetime.fromisoformat),
    dt.date: _pair(8, dt.date.isoformat, dt.date.fromisoformat),
    dt.time: _pair(9, dt.time.isoformat, dt.time.fromisoformat),
    dt.timedelta: _pair(
        10,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda value: dt.timedelta(*value),
    ),
}


def _writer(pair: _Pair) -> Callable[[Serializer, Any], msgpack.ExtType]:
    code, write, _ = pair
    return lambda serializer, value: msgpack.ExtType(code, write(serializer, value))


def _reader(pair: _Pair) -> Callable[[Serializer, bytes], Any]:
    _, _, read = pair

    def guarded(serializer: Serializer, data: bytes) -> Any:
        try:
            return read(serializer, data)
        except ArithmeticError as problem:  # what Decimal says to nonsense
            raise SerializationError(f"the bytes do not decode: {problem!r}") from problem

    return guarded


_WRITERS: Final = {type_: _writer(pair) for type_, pair in _BUILT_IN.items()}
_READERS: Final = {pair[0]: _reader(pair) for pair in _BUILT_IN.values()}


# -- registered types --------------------------------------------------------------------------


def _entry(
    type_: type,
    id_: int,
    write: Callable[[Any], object] | None,
    read: Callable[[Any], Any] | None,
) -> _Entry:
    if type_ in _BUILT_IN or type_ in (list, dict, str, bytes, bool, float, type(None)):
        raise ConfigurationError(f"{_name(type_)} needs no registration")
    if write is not None and read is not None:
        to_value, to_object = write, read
        return _Entry(type_, id_, lambda o, _: to_value(o), lambda v, _: to_object(v))
    if write is not None or read is not None:
        raise ConfigurationError(f"{_name(type_)} needs both write= and read=")
    if issubclass(type_, Writable):
        return _Entry(type_, id_, _write_writable, _ReadWritable(type_))
    if issubclass(type_, enum.Enum):
        return _Entry(type_, id_, lambda o, _: o.value, lambda v, _: type_(v))
    if issubclass(type_, tuple) and hasattr(type_, "_fields"):
        return _Entry(type_, id_, lambda o, _: list(o), lambda v, _: type_(*v))
    if dataclasses.is_dataclass(type_):
        return _dataclass_entry(type_, id_)
    raise ConfigurationError(
        f"{_name(type_)} is no dataclass, enum, NamedTuple or Writable",
        hint="register it with write= and read=, which turn it into known types and back",
    )


def _dataclass_entry(type_: Any, id_: int) -> _Entry:
    fields = dataclasses.fields(type_)
    hidden = [field.name for field in fields if not field.init]
    if hidden:
        raise ConfigurationError(
            f"{_name(type_)}.{hidden[0]} is not an argument of __init__ and could not be read back",
            hint="register the class with write= and read=",
        )
    names = [field.name for field in fields]

    def write(value: Any, _: Serializer) -> object:
        return [getattr(value, name) for name in names]

    def read(values: Any, _: Serializer) -> object:
        if len(values) > len(names):
            raise SerializationError(
                f"{_name(type_)} has {len(names)} fields here, {len(values)} came",
                hint="the sender runs a newer version of the class",
            )
        return type_(**dict(zip(names, values, strict=False)))

    return _Entry(type_, id_, write, read)


def _write_writable(value: Writable, serializer: Serializer) -> object:
    buffer = Buffer()
    value.write_object(buffer, serializer)
    return buffer.values()


class _ReadWritable:
    """Reads a `Writable` class."""

    __slots__ = ("_type",)

    def __init__(self, type_: type[Writable]) -> None:
        self._type = type_

    def __call__(self, values: list[Any], serializer: Serializer) -> Writable:
        value = self._type.__new__(self._type)
        value.read_object(Buffer(values), serializer)
        return value


def _name(type_: type) -> str:
    return f"{type_.__module__}.{type_.__qualname__}"


def _unregistered(value: object) -> SerializationError:
    return SerializationError(
        f"cannot encode {_name(type(value))!r}",
        hint="decorate the class with @copycat.serializable(id=...), or register it with "
        "write= and read=, or pass builtins",
    )
