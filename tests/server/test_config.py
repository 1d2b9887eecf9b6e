"""The settings: what follows from what, and an error with a fix for every mistake."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from copycat.config import ServerOptions, parse_address, parse_members, server_options
from copycat.errors import ConfigurationError
from copycat.types import Address

THREE = {"n1": "10.0.0.1:7400", "n2": "10.0.0.2:7400", "n3": "10.0.0.3:7400"}


def options(**settings: object) -> ServerOptions:
    """Options with a data directory."""
    return server_options(**{"data": "d", **settings})


def test_a_lone_member_needs_nothing_but_a_directory() -> None:
    """It listens nowhere and is its own only member."""
    made = options()
    assert (made.name, made.listen, list(made.members)) == ("n1", None, ["n1"])
    assert made.data == Path("d")
    assert made.warnings() == []


def test_a_lone_member_may_listen() -> None:
    """Its listening address is the one it is known by; port 0 takes any."""
    made = options(name="x", listen="127.0.0.1:0")
    assert made.listen == Address("127.0.0.1", 0)
    assert dict(made.members) == {"x": Address("127.0.0.1", 0)}


def test_a_member_of_three_listens_where_it_is_listed() -> None:
    """listen and advertise follow from the list; either may be given where they differ."""
    made = options(name="n2", members=THREE)
    assert made.listen == made.advertise == Address("10.0.0.2", 7400)
    made = options(name="n2", members=THREE, listen="0.0.0.0:7400", advertise="10.0.0.2:7400")
    assert made.listen == Address("0.0.0.0", 7400)
    text = ",".join(f"{name}={address}" for name, address in THREE.items())
    assert options(name="n2", members=text).members == made.members


def test_durations_are_seconds_or_timedeltas() -> None:
    """Both mean the same."""
    made = options(election_timeout=timedelta(milliseconds=600), heartbeat=0.2)
    assert (made.election_timeout, made.heartbeat) == (0.6, 0.2)


def test_questionable_settings_are_warned_about() -> None:
    """Two members and no fsync are allowed, but not silently; memory is what was asked for."""
    two = {name: THREE[name] for name in ("n1", "n2")}
    assert "2 members tolerate 0 failures" in options(members=two).warnings()[0]
    assert "power cut" in options(fsync="unsafe-never").warnings()[0]
    assert server_options(storage="memory").warnings() == []


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"electon_timeout": 1}, "unknown setting electon_timeout, did you mean election_timeout?"),
        ({"zzz": 1}, "unknown setting zzz; known: "),
        ({"listen": "10.0.0.1:99999"}, r"port 99999 is not in 1-65535 \(listen = 10.0.0.1:99999"),
        ({"listen": "10.0.0.1"}, "listen = '10.0.0.1' is not host:port"),
        ({"listen": "10.0.0.1:http"}, "port 'http' is not a number"),
        ({"listen": "::1:7400"}, "ambiguous"),
        ({"listen": 7400}, "listen = 7400 is not an address"),
        ({"advertise": "10.0.0.1:0"}, "port 0 is not in 1-65535"),
        ({"name": "n9", "members": THREE}, "name 'n9' is not one of the members"),
        ({"name": "a b"}, "'a b' is not a member's name"),
        ({"name": "n1", "members": THREE, "advertise": "1.2.3.4:5"}, "but members lists n1 at"),
        ({"members": {**THREE, "n2": "10.0.0.1:7400"}}, "both listed at 10.0.0.1:7400"),
        ({"members": {**THREE, "n2": "0.0.0.0:7400"}}, "nobody can connect"),
        ({"members": {**THREE, "n1": "127.0.0.1:7400"}}, "they could not reach it"),
        ({"members": "n1"}, "'n1' is not name=host:port"),
        ({"members": "n1=a:1,n1=b:1"}, "listed twice"),
        ({"members": 3}, "must map names to addresses"),
        ({"members": {"n1": None}}, "has no address"),
        ({"heartbeat": 0.5}, r"election_timeout \(1000 ms\) must be at least 3 times heartbeat"),
        ({"heartbeat": 0}, "heartbeat must be positive"),
        ({"heartbeat": "1s"}, "heartbeat = '1s' is not a duration"),
        ({"heartbeat": True}, "is not a duration"),
        ({"election_timeout": float("inf")}, "must be positive"),
        ({"election_timeout": float("nan")}, "must be positive"),
        ({"session_timeout": 1}, "must be at least twice election_timeout"),
        ({"storage": "tape"}, "storage = 'tape' is not one of 'disk', 'memory'"),
        ({"fsync": "sometimes"}, "fsync = 'sometimes' is not one of"),
        ({"storage": "memory"}, "contradicts storage = 'memory'"),
        ({"data": None}, "data is missing"),
        ({"data": ""}, "data = '' is not a path"),
        ({"segment_bytes": 10}, "segment_bytes = 10 must be at least"),
        ({"segment_bytes": 1e9}, "is not a whole number"),
    ],
)
def test_mistakes_are_named(settings: dict[str, object], text: str) -> None:
    """Every mistake is a ConfigurationError that says what is wrong in the user's own words."""
    with pytest.raises(ConfigurationError, match=text):
        options(**settings)


def test_addresses_are_read_and_written_alike() -> None:
    """Names, IPv4 and bracketed IPv6 survive the way there and back."""
    for text in ("db.example:1", "10.0.0.1:65535", "[::1]:7400"):
        assert str(parse_address(text)) == text
    assert parse_address(Address("::1", 7400)) == Address("::1", 7400)
    assert parse_members({"a": Address("::1", 7400)}) == {"a": Address("::1", 7400)}


def test_who_joins_says_who_and_where_it_is() -> None:
    """Addresses to join at are texts or a list; a name and a reachable address are needed."""
    made = options(name="n4", listen="10.0.0.4:7400", join="10.0.0.1:7400, 10.0.0.2:7400")
    assert made.join == (Address("10.0.0.1", 7400), Address("10.0.0.2", 7400))
    assert dict(made.members) == {"n4": Address("10.0.0.4", 7400)}
    assert options(name="n4", listen="h:1", join=[Address("g", 2)]).join == (Address("g", 2),)
    wrong: list[tuple[str, dict[str, object]]] = [
        ("contradict", {"name": "n1", "members": THREE}),
        ("a name of its own", {"listen": "h:1"}),
        ("an address at which", {"name": "n4"}),
        ("an address at which", {"name": "n4", "listen": "0.0.0.0:1"}),
    ]
    for match, settings in wrong:
        with pytest.raises(ConfigurationError, match=match):
            options(join=["10.0.0.1:7400"], **settings)
    for join in (5, ["h"], ["h:0"]):
        with pytest.raises(ConfigurationError, match="join"):
            options(name="n4", listen="h:1", join=join)
