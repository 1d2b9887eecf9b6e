"""The first frames of a connection: who speaks, for which cluster, and the answer.

The dialling side sends HELLO; the other one answers WELCOME or REFUSE. Control traffic, so the
payloads are msgpack maps, decoded strictly: anything unexpected is a `FormatError`. Nothing here
decides whom to trust; the gateway, the links and the client do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from ._core.codec import PROTOCOL_VERSION, Frame, pack_frame
from ._core.layout import FormatError

MEMBER = "member"
CLIENT = "client"

NAME_LIMIT = 256
MEMBERS_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Hello:
    """Who dials. ``cluster`` is None for a client that does not know it yet.

    A member also shows the newest configuration that it knows to be committed, with its index: who
    was away learns from it where the members are that were added meanwhile.
    """

    role: str
    cluster: bytes | None = None
    name: str = ""
    uuid: bytes = b""
    protocol: int = PROTOCOL_VERSION
    configuration: tuple[int, bytes] = (0, b"")

    def frame(self) -> bytes:
        """This as one frame."""
        fields = {
            "configuration": list(self.configuration),
            "protocol": self.protocol,
            "role": self.role,
            "cluster": self.cluster,
            "name": self.name,
            "uuid": self.uuid,
        }
        return pack_control(Frame.HELLO, fields)

    @classmethod
    def parse(cls, payload: bytes) -> Hello:
        """Read a HELLO's payload; raises `FormatError`."""
        map_ = Fields(payload)
        return cls(
            map_.text("role"),
            map_.optional_id("cluster"),
            map_.text("name"),
            map_.id("uuid"),
            map_.integer("protocol"),
            map_.placed("configuration"),
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """Who answers, and what it knows of the cluster: leader (or None), term, addresses.

    ``priority`` is the answering member's own: of several that could lead, the highest should.
    """

    cluster: bytes
    name: str
    uuid: bytes
    term: int = 0
    leader: str | None = None
    members: Mapping[str, str] = field(default_factory=dict)  # name -> "host:port"
    priority: int = 1
    protocol: int = PROTOCOL_VERSION

    def frame(self) -> bytes:
        """This as one frame."""
        fields = {
            "protocol": self.protocol,
            "cluster": self.cluster,
            "name": self.name,
            "uuid": self.uuid,
            "term": self.term,
            "leader": self.leader,
            "members": dict(self.members),
            "priority": self.priority,
        }
        return pack_control(Frame.WELCOME, fields)

    @classmethod
    def parse(cls, payload: bytes) -> Welcome:
        """Read a WELCOME's payload; raises `FormatError`."""
        map_ = Fields(payload)
        return cls(
            map_.id("cluster"),
            map_.text("name"),
            map_.id("uuid"),
            map_.integer("term"),
            map_.optional_text("leader"),
            map_.addresses("members"),
            map_.integer("priority"),
            map_.integer("protocol"),
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the other side does not want this connection; ``code`` is an error's code.

    A member that is refused as none is shown the committed configuration, with its index: if that
    is newer than what it knows, it was removed.
    """

    code: str
    message: str
    configuration: tuple[int, bytes] = (0, b"")

    def frame(self) -> bytes:
        """This as one frame."""
        shown = [list(self.configuration)] if self.configuration[0] else []
        return pack_control(Frame.REFUSE, [self.code, self.message, *shown])

    @classmethod
    def parse(cls, payload: bytes) -> Refusal:
        """Read a REFUSE's payload; raises `FormatError`."""
        fields = unpack_control(payload)
        if not (isinstance(fields, list) and len(fields) in (2, 3)):
            raise FormatError("a refusal has a code and a message, and may have a configuration")
        code, message, *shown = fields
        if not (isinstance(code, str) and isinstance(message, str)):
            raise FormatError("a refusal's code and message are text")
        return cls(code[:64], message[:2000], _placed(shown[0]) if shown else (0, b""))


def pack_control(type_: Frame, value: object) -> bytes:
    """One frame with a msgpack payload."""
    return pack_frame(type_, pack_msgpack(value))


def pack_msgpack(value: object) -> bytes:
    """Plain values as msgpack."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack_control(payload: bytes) -> object:
    """A msgpack payload; raises `FormatError` instead of whatever msgpack raises."""
    try:
        value: object = msgpack.unpackb(payload, strict_map_key=True, raw=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as problem:
        raise FormatError(f"not msgpack: {problem or type(problem).__name__}") from problem
    return value


class Fields:
    """A msgpack map whose fields are taken out with a check of their types."""

    def __init__(self, payload: bytes) -> None:
        map_ = unpack_control(payload)
        if not isinstance(map_, dict):
            raise FormatError("a map is expected")
        self._map: dict[Any, Any] = map_

    def integer(self, name: str) -> int:
        """A number that is not negative."""
        value = self._map.get(name)
        if type(value) is not int or value < 0:
            raise FormatError(f"{name} is not a number")
        return value

    def text(self, name: str) -> str:
        """A text of limited length."""
        value = self._map.get(name)
        if not isinstance(value, str) or len(value) > NAME_LIMIT:
            raise FormatError(f"{name} is not a short text")
        return value

    def optional_text(self, name: str) -> str | None:
        """A text of limited length, or None."""
        return None if self._map.get(name) is None else self.text(name)

    def id(self, name: str) -> bytes:
        """An id: sixteen bytes, or none at all where the sender has no id."""
        value = self._map.get(name)
        if not isinstance(value, bytes) or len(value) not in (0, 16):
            raise FormatError(f"{name} is not an id")
        return value

    def optional_id(self, name: str) -> bytes | None:
        """An id or None."""
        return None if self._map.get(name) is None else self.id(name)

    def addresses(self, name: str) -> dict[str, str]:
        """A map from names to addresses."""
        value = self._map.get(name)
        if not isinstance(value, dict) or len(value) > MEMBERS_LIMIT:
            raise FormatError(f"{name} is not a map")
        for key, address in value.items():
            if not (isinstance(key, str) and isinstance(address, str)):
                raise FormatError(f"{name} does not map names to addresses")
            if max(len(key), len(address)) > NAME_LIMIT:
                raise FormatError(f"{name} has a name or an address that is too long")
        return value

    def placed(self, name: str) -> tuple[int, bytes]:
        """An index and bytes; 0 and none if there is nothing (as in older protocols)."""
        return _placed(self._map.get(name, [0, b""]), name)

    def raw(self, name: str) -> object:
        """Whatever is there."""
        return self._map.get(name)


def _placed(value: object, name: str = "configuration") -> tuple[int, bytes]:
    if not (isinstance(value, list) and len(value) == 2):
        raise FormatError(f"{name} is not an index with bytes")
    index, data = value
    if type(index) is not int or index < 0 or not isinstance(data, bytes):
        raise FormatError(f"{name} is not an index with bytes")
    return index, data
