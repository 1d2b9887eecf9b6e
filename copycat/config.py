"""What a member can be told: one frozen dataclass, checked once, with errors that name the fix.

`server_options` takes what the user wrote (texts, numbers, timedeltas) and gives `ServerOptions`;
nobody downstream checks again. Opens nothing and asks nobody.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path

from .errors import ConfigurationError
from .types import Address

Duration = float | timedelta
HEARTBEATS_PER_TIMEOUT = 3

STORAGES = ("disk", "memory")
FSYNCS = ("always", "unsafe-never")
WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - what others cannot connect to
LOOPBACKS = ("localhost", "::1")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIZE_MIN = 64 << 10
PRIORITY_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The settings of one member; make them with `server_options`. Durations are in seconds.

    Args:
        name: this member, one of ``members``.
        listen: where it listens; None for a lone member without a network.
        advertise: where others reach it; None if it does not listen.
        members: every founding member's name and address, this one included.
        join: some members of the running cluster that a member with an empty directory joins.
        data: the data directory; None with ``storage="memory"``.
        storage: ``"disk"`` or ``"memory"`` (nothing survives the process).
        fsync: ``"always"``, or ``"unsafe-never"``: acknowledged writes are lost in a power cut.
        election_timeout: a follower that hears nothing for one to two of these asks for votes.
        heartbeat: between two rounds of an idle leader; at most a third of the above.
        session_timeout: a session that is silent for this long expires.
        segment_bytes: size of a log segment.
        snapshot_bytes: of log that is applied between two snapshots.
        max_connections: of clients at the same time.
        priority: from 0 to 1000; of several members that could lead, the highest should.
    """

    name: str = "n1"
    listen: Address | None = None
    advertise: Address | None = None
    members: Mapping[str, Address] = field(default_factory=dict)
    join: tuple[Address, ...] = ()
    data: Path | None = None
    storage: str = "disk"
    fsync: str = "always"
    election_timeout: float = 1.0
    heartbeat: float = 0.2
    session_timeout: float = 5.0
    segment_bytes: int = 32 << 20
    snapshot_bytes: int = 64 << 20
    max_connections: int = 10_000
    priority: int = 1

    def warnings(self) -> list[str]:
        """What is allowed and probably not meant; to be logged once at start."""
        found = []
        if len(self.members) == 2:
            found.append(
                "2 members tolerate 0 failures, same as 1. Add a third before you rely on it."
            )
        if self.fsync != "always":
            found.append(
                f"fsync={self.fsync!r}: writes are acknowledged before they are on disk, a power "
                "cut loses them. For comparison only."
            )
        return found


def server_options(**settings: object) -> ServerOptions:
    """Check what the user wrote and fill in what follows from it.

    Durations may be numbers of seconds or ``timedelta``, addresses ``"host:port"``, members a
    mapping of names to addresses or a text ``"n1=host:port,n2=host:port"``.

    Raises:
        ConfigurationError: a setting is unknown, malformed, or contradicts another one.
    """
    known = [each.name for each in fields(ServerOptions)]
    for key in settings:
        if key not in known:
            raise unknown_key(key, known)
    given = {key: value for key, value in settings.items() if value is not None}
    name = _name(given.get("name", "n1"))
    members = parse_members(given.get("members", {}))
    listen = _address(given.get("listen"), "listen", allow_zero=True)
    advertise = _address(given.get("advertise"), "advertise")
    join = parse_join(given.get("join", ()))
    if join:
        _check_joining(given, members, advertise or listen)
    listen, advertise, members = _addresses(name, listen, advertise, members)
    storage = _choice(given.get("storage", "disk"), "storage", STORAGES)
    election_timeout = duration(given.get("election_timeout", 1.0), "election_timeout")
    heartbeat = duration(given.get("heartbeat", 0.2), "heartbeat")
    _check_timing(election_timeout, heartbeat)
    session_timeout = duration(given.get("session_timeout", 5.0), "session_timeout")
    if session_timeout < 2 * election_timeout:
        raise ConfigurationError(
            f"session_timeout ({session_timeout:g} s) must be at least twice election_timeout "
            f"({election_timeout:g} s)",
            hint="otherwise every election would end sessions and release their locks",
        )
    defaults = ServerOptions()
    return ServerOptions(
        name=name,
        listen=listen,
        advertise=advertise,
        members=members,
        join=join,
        data=_data(given.get("data"), storage),
        storage=storage,
        fsync=_choice(given.get("fsync", "always"), "fsync", FSYNCS),
        election_timeout=election_timeout,
        heartbeat=heartbeat,
        session_timeout=session_timeout,
        segment_bytes=_whole(given, "segment_bytes", defaults.segment_bytes, _SIZE_MIN),
        snapshot_bytes=_whole(given, "snapshot_bytes", defaults.snapshot_bytes, _SIZE_MIN),
        max_connections=_whole(given, "max_connections", defaults.max_connections, 1),
        priority=_whole(given, "priority", defaults.priority, 0, PRIORITY_MAX),
    )


def parse_address(text: str | Address, setting: str = "address") -> Address:
    """``"host:port"`` or ``"[v6]:port"`` as an `Address`; ``setting`` is named in errors."""
    if isinstance(text, Address):
        host, port = text.host, str(text.port)
    else:
        host, colon, port = text.strip().rpartition(":")
        if not colon or not host:
            raise ConfigurationError(
                f"{setting} = {text!r} is not host:port", hint="write for example 10.0.0.1:7400"
            )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host and not isinstance(text, Address):
        raise ConfigurationError(
            f"{setting} = {text!r} is ambiguous", hint=f"put the IPv6 host in brackets: [{host}]"
        )
    if not port.isascii() or not port.isdigit():
        raise ConfigurationError(f"{setting} = {str(text)!r}: port {port!r} is not a number")
    if int(port) > 65535:
        raise ConfigurationError(f"port {port} is not in 1-65535 ({setting} = {text})")
    return Address(host, int(port))


def parse_members(value: object) -> dict[str, Address]:
    """The members: a mapping of names to addresses, or ``"n1=host:port,n2=host:port"``."""
    if isinstance(value, str):
        pairs: list[tuple[object, object]] = []
        for part in filter(None, (each.strip() for each in value.split(","))):
            name, equals, address = part.partition("=")
            if not equals:
                raise ConfigurationError(
                    f"members: {part!r} is not name=host:port",
                    hint="write for example n1=10.0.0.1:7400,n2=10.0.0.2:7400",
                )
            pairs.append((name.strip(), address))
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ConfigurationError(
            f"members must map names to addresses, not be a {type(value).__name__}"
        )
    members: dict[str, Address] = {}
    for key, where in pairs:
        name = _name(key)
        parsed = _address(where, f"members[{name!r}]")
        if parsed is None:
            raise ConfigurationError(f"members[{name!r}] has no address")
        if name in members:
            raise ConfigurationError(f"member {name!r} is listed twice")
        for other, taken in members.items():
            if taken == parsed:
                raise ConfigurationError(f"{other} and {name} are both listed at {parsed}")
        members[name] = parsed
    return members


def parse_join(value: object) -> tuple[Address, ...]:
    """The addresses to join at: a list of them, or ``"host:port,host:port"``."""
    parts = [each for each in value.split(",") if each.strip()] if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise ConfigurationError(
            f"join = {value!r} is no list of addresses", hint='write for example ["10.0.0.1:7400"]'
        )
    found = [_address(each, "join") for each in parts]
    return tuple(each for each in found if each is not None)


def _check_joining(
    given: Mapping[str, object], members: Mapping[str, Address], own: Address | None
) -> None:
    """Who joins has a name that it was given on purpose, and an address for the others."""
    if members:
        raise ConfigurationError(
            "join and members contradict each other",
            hint="members= founds a cluster, or restarts a founder; join= is for a running one",
        )
    if "name" not in given:
        raise ConfigurationError(
            "who joins needs a name of its own", hint='open("n4", listen=..., join=[...])'
        )
    if own is None or own.host in WILDCARDS:
        raise ConfigurationError(
            "who joins needs an address at which the members reach it",
            hint="pass listen=, and advertise= if that is a wildcard",
        )


def duration(value: object, setting: str) -> float:
    """Seconds, from a number of seconds or a ``timedelta``; must be positive and finite."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise ConfigurationError(
            f"{setting} = {value!r} is not a duration",
            hint="give a number of seconds or a datetime.timedelta",
        )
    if not (0 < seconds < math.inf):
        raise ConfigurationError(f"{setting} must be positive, not {seconds:g} s")
    return seconds


def unknown_key(key: str, known: list[str]) -> ConfigurationError:
    """The error for a setting nobody knows, with the one that was probably meant."""
    close = difflib.get_close_matches(key, known, n=1)
    meant = f", did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"
    return ConfigurationError(f"unknown setting {key}{meant}")


def _addresses(
    name: str,
    listen: Address | None,
    advertise: Address | None,
    members: dict[str, Address],
) -> tuple[Address | None, Address | None, dict[str, Address]]:
    """Fill in which of the three was left out; check that they agree."""
    if members and name not in members:
        raise ConfigurationError(
            f"name {name!r} is not one of the members ({', '.join(sorted(members))})",
            hint="use the same list on every host; it includes the host itself",
        )
    if not members:
        own = advertise or listen
        if own is None:
            return None, None, {name: Address("127.0.0.1", 0)}
        members = {name: own}
    elif members[name].port == 0:
        raise ConfigurationError(f"members[{name!r}] needs a port: others have to reach it")
    own = members[name]
    if advertise is not None and advertise != own:
        raise ConfigurationError(
            f"advertise = {advertise}, but members lists {name} at {own}",
            hint="leave advertise out, or use the same address in both",
        )
    if len(members) > 1:
        _check_reachable(name, own, members)
    return listen or own, own, members


def _check_reachable(name: str, own: Address, members: dict[str, Address]) -> None:
    for member, address in members.items():
        if address.host in WILDCARDS or address.port == 0:
            raise ConfigurationError(
                f"members[{member!r}] = {address}: nobody can connect to that address",
                hint="list the address at which the other members reach it",
            )
    away = [f"{other} at {a}" for other, a in members.items() if not _is_loopback(a.host)]
    if _is_loopback(own.host) and away:
        raise ConfigurationError(
            f"{name} advertises {own}, but peers are on other hosts ({', '.join(away)}); they "
            "could not reach it",
            hint=f"list {name} with an address of this host that the others can reach",
        )


def _is_loopback(host: str) -> bool:
    return host in LOOPBACKS or host.startswith("127.")


def _check_timing(election_timeout: float, heartbeat: float) -> None:
    if heartbeat * HEARTBEATS_PER_TIMEOUT > election_timeout * (1 + 1e-9):
        raise ConfigurationError(
            f"election_timeout ({election_timeout * 1000:g} ms) must be at least "
            f"{HEARTBEATS_PER_TIMEOUT} times heartbeat ({heartbeat * 1000:g} ms)",
            hint="otherwise a single lost heartbeat would start an election",
        )


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ConfigurationError(
            f"{value!r} is not a member's name",
            hint="use up to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit",
        )
    return value


def _address(value: object, setting: str, *, allow_zero: bool = False) -> Address | None:
    if value is None:
        return None
    if not isinstance(value, (str, Address)):
        raise ConfigurationError(
            f"{setting} = {value!r} is not an address", hint="write for example 10.0.0.1:7400"
        )
    address = parse_address(value, setting)
    if address.port == 0 and not allow_zero:
        raise ConfigurationError(f"port 0 is not in 1-65535 ({setting} = {address})")
    return address


def _choice(value: object, setting: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ConfigurationError(
            f"{setting} = {value!r} is not one of {', '.join(map(repr, allowed))}"
        )
    return str(value)


def _whole(
    given: Mapping[str, object], setting: str, default: int, least: int, most: int | None = None
) -> int:
    value = given.get(setting, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{setting} = {value!r} is not a whole number")
    if value < least:
        raise ConfigurationError(f"{setting} = {value} must be at least {least}")
    if most is not None and value > most:
        raise ConfigurationError(f"{setting} = {value} must be at most {most}")
    return value


def _data(value: object, storage: str) -> Path | None:
    if storage == "memory":
        if value is not None:
            raise ConfigurationError(
                f"data = {str(value)!r} contradicts storage = 'memory'",
                hint="leave one of them out",
            )
        return None
    if value is None:
        raise ConfigurationError(
            "data is missing: a member needs a directory of its own",
            hint="pass data='./data', or storage='memory' for one that forgets everything",
        )
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise ConfigurationError(f"data = {value!r} is not a path")
    return Path(value)
