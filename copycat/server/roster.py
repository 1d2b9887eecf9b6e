"""Where the members are and which incarnations: what a configuration says beyond Raft's names.

A `Roster` is the content of a configuration entry, of the configuration in a snapshot, and of what
somebody who joins is told. `Rosters` holds those of a log by index, cut and compacted with it, as
Raft keeps its memberships. Plain values: nothing here decides who may be a member.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._core.kernel import batch_runs, decode_commands, encode_run
from .._core.layout import BATCH_HEADER, FormatError, Kind
from ..config import parse_address
from ..errors import ConfigurationError
from ..handshake import pack_msgpack, unpack_control
from ..raft import Membership
from ..types import Address, MemberInfo, MemberType

NOBODY = b""
"""The uuid of a place that is kept for a member that is still to come."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a member listens, and which incarnation of it belongs to the cluster."""

    address: Address
    uuid: bytes


@dataclass(frozen=True, slots=True)
class Roster:
    """A membership and everybody's seat."""

    membership: Membership
    seats: Mapping[str, Seat]

    @classmethod
    def founded(cls, founders: Mapping[str, tuple[Address, bytes]]) -> Roster:
        """The one a cluster begins with: all founders vote."""
        seats = {name: Seat(*founder) for name, founder in sorted(founders.items())}
        return cls(Membership(tuple(seats)), seats)

    def with_membership(self, membership: Membership, others: Mapping[str, Seat]) -> Roster:
        """The next one: the same seats, but for ``others``, and only those of who is left."""
        seats = {**self.seats, **others}
        return Roster(membership, {name: seats[name] for name in membership.names})

    def relocated(self, addresses: Mapping[str, Address]) -> Roster:
        """The same members at these addresses, as far as they are given."""
        seats = {
            name: Seat(addresses.get(name, seat.address), seat.uuid)
            for name, seat in self.seats.items()
        }
        return Roster(self.membership, seats)

    def type_of(self, name: str) -> MemberType:
        """The part ``name`` plays, or will as soon as it has caught up."""
        membership = self.membership
        active = name in membership.voters or name in membership.joining
        return MemberType.ACTIVE if active else MemberType.PASSIVE

    def infos(self) -> list[MemberInfo]:
        """Every member, voters first."""
        return [
            MemberInfo(name, self.seats[name].address, self.seats[name].uuid, self.type_of(name))
            for name in self.membership.names
        ]

    # -- as bytes ------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """See layout.py, 'Configuration'."""
        m = self.membership
        groups = [list(group) for group in (m.voters, m.learners, m.outgoing, m.joining)]
        seats = {
            name: [str(self.seats[name].address), self.seats[name].uuid] for name in m.names
        }
        return pack_msgpack([*groups, seats])

    @classmethod
    def decode(cls, data: bytes) -> Roster:
        """Read what `encode` wrote; raises `FormatError`."""
        fields = unpack_control(data)
        if not (isinstance(fields, list) and len(fields) == 5 and isinstance(fields[4], dict)):
            raise FormatError("a configuration has four groups and a map of members")
        groups = [_names(group) for group in fields[:4]]
        seats = {name: _seat(name, seat) for name, seat in fields[4].items()}
        try:
            membership = Membership(*groups)
        except ConfigurationError as problem:
            raise FormatError(f"no membership: {problem}") from problem
        if sorted(seats) != sorted(membership.names):
            raise FormatError("a configuration says of some members not where they are")
        return cls(membership, seats)

    def run(self) -> bytes:
        """The only run of a configuration's batch."""
        return encode_run(Kind.CONFIGURATION, 0, 0, 0, [(0, 0, self.encode())])


def roster_in(image: bytes) -> Roster:
    """The roster in a configuration's image; raises `FormatError` if that is malformed."""
    runs = batch_runs(image)
    if len(runs) != 1 or runs[0][0] != Kind.CONFIGURATION or runs[0][4] != 1:
        raise FormatError("a configuration stands in a batch of its own")
    return Roster.decode(decode_commands(image, runs[0][5], 1)[0][2])


PlacedRoster = tuple[int, Roster]
"""A roster and the index of the entry that brought it; 0 for what was founded."""


def newer(known: PlacedRoster, configuration: tuple[int, bytes]) -> PlacedRoster:
    """The configuration in a snapshot, or the one we know if that is as new.

    It can be newer: who joins is told one that is committed, and the leader's snapshot is older.
    """
    index, encoded = configuration
    return (index, Roster.decode(encoded)) if index > known[0] else known


def have_others(
    name: str, told: PlacedRoster, images: Iterable[bytes], snapshot: tuple[int, bytes] | None
) -> bool:
    """Whether somebody besides ``name`` votes, by what is left of a log and its snapshot."""
    base = told if snapshot is None else newer(told, snapshot)
    return any(voter != name for voter in Rosters.recovered(base, images).current.membership.voters)


class Rosters:
    """The rosters of a log, by index.

    Args:
        base: what was in force before the first entry that matters; who joined was told one from
            the future of its log, and what lies before it is history.
        entries: those of the log, ascending.
    """

    def __init__(self, base: PlacedRoster, entries: Iterable[PlacedRoster] = ()) -> None:
        self._base = base
        self._entries = [entry for entry in entries if entry[0] > base[0]]

    @classmethod
    def recovered(cls, base: PlacedRoster, images: Iterable[bytes]) -> Rosters:
        """Those of a log that was read back, of which ``images`` bring configurations."""
        return cls(base, [(BATCH_HEADER.unpack_from(each)[4], roster_in(each)) for each in images])

    def memberships(self) -> list[tuple[int, Membership]]:
        """What Raft has to know: that of the base, then those of the entries."""
        return [(index, roster.membership) for index, roster in (self._base, *self._entries)]

    @property
    def base(self) -> PlacedRoster:
        """What was in force before the entries."""
        return self._base

    @property
    def last_index(self) -> int:
        """Of the entry that brought what is in force."""
        return self._entries[-1][0] if self._entries else self._base[0]

    @property
    def current(self) -> Roster:
        """The newest, in force though it may not be committed."""
        return self._entries[-1][1] if self._entries else self._base[1]

    def at(self, index: int) -> PlacedRoster:
        """What is in force at ``index``."""
        found = self._base
        for entry in self._entries:
            if entry[0] > index:
                break
            found = entry
        return found

    def seats_since(self, commit_index: int) -> dict[str, Seat]:
        """Everybody in the committed roster or a later one; the later one's word counts.

        Who is to leave is spoken with until that is committed: the change may come undone.
        """
        seats = dict(self.at(commit_index)[1].seats)
        for index, roster in self._entries:
            if index > commit_index:
                seats |= roster.seats
        return seats

    def append(self, index: int, roster: Roster) -> None:
        """The entry at ``index`` brings ``roster``."""
        if index > self._base[0]:
            self._entries.append((index, roster))

    def truncate(self, from_index: int) -> None:
        """The entries from ``from_index`` on are gone."""
        while self._entries and self._entries[-1][0] >= from_index:
            self._entries.pop()

    def compact(self, index: int) -> None:
        """A snapshot stands for the log up to ``index``."""
        while self._entries and self._entries[0][0] <= index:
            self._base = self._entries.pop(0)

    def reset(self, base: PlacedRoster) -> None:
        """A snapshot, with what was in force there, replaces everything."""
        self._base = base
        self._entries.clear()


def _names(group: Any) -> tuple[str, ...]:
    if not (isinstance(group, list) and all(isinstance(name, str) for name in group)):
        raise FormatError("a configuration's groups hold names")
    return tuple(group)


def _seat(name: object, pair: object) -> Seat:
    if not (isinstance(name, str) and isinstance(pair, list) and len(pair) == 2):
        raise FormatError("a member is described by an address and a uuid")
    address, uuid = pair
    if not (isinstance(address, str) and isinstance(uuid, bytes) and len(uuid) in (0, 16)):
        raise FormatError("a member is described by an address and a uuid")
    try:
        return Seat(parse_address(address), uuid)
    except ConfigurationError as problem:
        raise FormatError(f"the address of {name} is none: {address!r}") from problem
