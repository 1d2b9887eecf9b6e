"""Administration: who belongs to the cluster, and what an administrator or a newcomer may ask.

It keeps the rosters that go with Raft's memberships, and turns a wish ("add n4") into the one that
Raft shall make come true. Wishes are idempotent: whoever has one repeats it until it is answered
with ``done``, from whatever leader there is by then. It belongs to the member's turn; that a change
is safe is Raft's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .._core.layout import BATCH_HEADER
from ..config import parse_members
from ..errors import ConfigurationError
from ..raft import Membership, Raft
from ..raft.inputs import Input, Reconfigure, Transfer
from ..raft.quorum import majority
from ..types import MemberType
from .peerwire import is_answer
from .roster import NOBODY, PlacedRoster, Roster, Rosters, Seat, roster_in

DONE = "done"
WAIT = "wait"  # it is under way, or something else is: ask again
REFUSED = "refused"
ELSEWHERE = "elsewhere"  # only a leader can say

Reply = list[Any]
"""One of the four words above, an explanation, and what was asked for if it is done."""


class Host(Protocol):
    """What administration asks of its member."""

    @property
    def name(self) -> str:
        """The member's name."""

    @property
    def peers_up(self) -> set[str]:
        """The peers that can be reached."""

    def tell(self, fact: Input) -> None:
        """Give Raft something in its next step."""

    def status(self) -> dict[str, object]:
        """Where this member stands."""

    def take_snapshot(self) -> int:
        """Begin to save the state; the index it stands for."""


class Administration:
    """The members of the cluster as one of them sees them.

    Args:
        raft: the member's, already with the memberships of ``rosters``.
        rosters: those of its log.
        here: where this member listens, and its incarnation.
        host: the member.
    """

    def __init__(self, raft: Raft, rosters: Rosters, here: Seat, host: Host) -> None:
        self.rosters = rosters
        self._raft = raft
        self._here = here
        self._host = host
        self._newcomers: dict[str, Seat] | None = None  # of the wish that Raft hears next
        self._shown: PlacedRoster | None = None  # committed, as somebody else knows
        self._strangers: set[str] = set()
        self._news = True
        self._wishes: dict[str, Callable[..., Reply]] = {
            "add": self._add,
            "join": self._join,
            "remove": self._remove,
            "promote": self._promote,
            "demote": self._demote,
            "lead": self._lead,
        }

    # -- the rosters follow the log ------------------------------------------------------------

    def appended(self, index: int, roster: Roster) -> None:
        """The entry at ``index`` brings ``roster``."""
        self.rosters.append(index, roster)
        self._news = True

    def appended_image(self, image: bytes) -> None:
        """A batch that brings a configuration was taken over from a leader."""
        self.appended(BATCH_HEADER.unpack_from(image)[4], roster_in(image))

    def truncated(self, from_index: int) -> None:
        """The log was cut."""
        self.rosters.truncate(from_index)
        self._news = True

    def replaced(self, placed: PlacedRoster) -> None:
        """A snapshot replaces the log."""
        self.rosters.reset(placed)
        self._news = True

    def heard(self, index: int, roster: Roster) -> None:
        """Somebody showed a committed configuration; our log may be behind it.

        It tells whom to speak with, for who leads may have been added while we were away, and
        whether we are a member at all.
        """
        known = self.committed[0] if self._shown is None else self._shown[0]
        if index > known:
            self._shown = (index, roster)
            self._news = True

    def next_roster(self, membership: Membership) -> Roster:
        """What the entry that Raft asks for has to say."""
        newcomers = {**(self._newcomers or {}), self._host.name: self._here}
        if self._host.name not in membership.names:
            del newcomers[self._host.name]
        return self.rosters.current.with_membership(membership, newcomers)

    def stepped(self) -> None:
        """Raft has heard the wish, if there was one, and done what it can."""
        self._newcomers = None

    def take_news(self) -> dict[str, Seat] | None:
        """Everybody to speak with, if that may have changed since the last call."""
        commit = self._raft.commit_index
        if not self._news:
            return None
        # Once more when it is committed: only then are those who leave not spoken with any more.
        self._news = self.rosters.last_index > commit
        seats = self.rosters.seats_since(commit)
        self._strangers.clear()
        if self._shown is not None:
            index, roster = self._shown
            if self.committed[0] >= index or self.rosters.at(index) == self._shown:
                return seats  # our log has it
            for name, seat in roster.seats.items():
                known = seats.setdefault(name, seat)
                if seat.uuid not in (NOBODY, known.uuid) and name != self._host.name:
                    seats[name] = seat
                    self._strangers.add(name)
        return seats

    def may_ask(self, name: str) -> bool:
        """Whether ``name`` may get more than answers from us.

        Another incarnation than the one in our log may not: what our configuration means for the
        old one must not reach it, above all not our requests for votes.
        """
        return name not in self._strangers

    def still_meant(self, held: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Those of the frames that may leave now: who has the name may be another one by now."""
        return [(to, frame) for to, frame in held if self.may_ask(to) or is_answer(frame)]

    @property
    def committed(self) -> tuple[int, bytes]:
        """The committed configuration and the index that brought it."""
        index, roster = self.rosters.at(self._raft.commit_index)
        return index, roster.encode()

    @property
    def is_out(self) -> bool:
        """Whether this member's removal is committed, as far as it knows or was shown."""
        index, roster = self.rosters.at(self._raft.commit_index)
        if self._shown is not None and self._shown[0] > index:
            roster = self._shown[1]
        seat = roster.seats.get(self._host.name)
        return seat is None or seat.uuid != self._here.uuid

    # -- requests ------------------------------------------------------------------------------

    def request(self, name: str, arguments: list[Any]) -> object:
        """Answer a request; raises ``LookupError`` for an unknown one, ``ValueError``."""
        if name == "status":
            return self._host.status()
        if name == "snapshot":
            return self._host.take_snapshot()
        if name == "transfer":
            return self._transfer(arguments)
        if name == "members":
            return self._members()
        wish = self._wishes.get(name)
        if wish is None:
            known = ", ".join(sorted([*self._wishes, "members", "snapshot", "status", "transfer"]))
            raise LookupError(f"there is no admin request {name!r}; known: {known}")
        raft = self._raft
        if not raft.is_leader:
            return [ELSEWHERE, f"{self._host.name} does not lead; the leader is {raft.leader}"]
        if not raft.ready_to_serve or raft.handing_over:
            return [WAIT, f"{self._host.name} has only begun to lead, or is handing over"]
        if self._newcomers is not None or not self._is_settled:
            return [WAIT, "another change of the members is under way"]
        try:
            return wish(*arguments)
        except ConfigurationError as problem:  # of the membership that was wished for
            return [REFUSED, str(problem)]
        except TypeError as problem:
            raise ValueError(f"{name} is asked with other arguments") from problem

    @property
    def _is_settled(self) -> bool:
        joint = self.rosters.current.membership.is_joint
        return not joint and self.rosters.last_index <= self._raft.commit_index

    def _transfer(self, arguments: list[Any]) -> str:
        """Begin to hand leadership to the member named, or to the best prepared one."""
        to = arguments[0] if arguments else None
        if not self._raft.is_leader:
            raise ValueError(f"{self._host.name} does not lead; the leader is {self._raft.leader}")
        rivals = self._raft.membership.rivals_of(self._host.name)
        if to is not None and to not in rivals:
            raise ValueError(f"{to!r} is not another voter; there are {', '.join(rivals)}")
        if to is not None and to not in self._host.peers_up:
            raise ValueError(f"{self._host.name} cannot reach {to}")
        self._host.tell(Transfer(None if to is None else str(to)))
        return self._host.name

    def _members(self) -> dict[str, object]:
        index, roster = self.rosters.at(self._raft.commit_index)
        return {
            "index": index,
            "term": self._raft.term,
            "leader": self._raft.leader,
            "members": [
                [info.name, str(info.address), info.uuid, info.type.value]
                for info in roster.infos()
            ],
        }

    # -- wishes --------------------------------------------------------------------------------

    def _join(self, name: str, address: str, uuid: bytes) -> Reply:
        """A newcomer wants to take part: what it has to know, once that is committed."""
        if not (isinstance(uuid, bytes) and len(uuid) == 16):
            raise ValueError("who joins has a uuid of 16 bytes")
        reply = self._add(name, address, uuid)
        if reply[0] == DONE:
            index, roster = self.rosters.at(self._raft.commit_index)
            reply.append([index, roster.encode()])
        return reply

    def _add(
        self, name: str, address: str, uuid: bytes = NOBODY, type_: str = MemberType.ACTIVE.value
    ) -> Reply:
        """Make ``name`` a learner, to become a voter if it is ACTIVE."""
        if not (isinstance(uuid, bytes) and len(uuid) in (0, 16)):
            raise ValueError("a member's uuid has 16 bytes")
        if type_ not in (MemberType.ACTIVE.value, MemberType.PASSIVE.value):
            raise ValueError(f"members are added as active or passive, not as {type_!r}")
        where = parse_members({name: address})[name]
        roster = self.rosters.current
        for other, seat in roster.seats.items():
            if seat.address == where and other != name:
                return [REFUSED, f"{other} listens at {where}"]
        m = roster.membership
        if name not in roster.seats:
            joining = (*m.joining, name) if type_ == MemberType.ACTIVE.value else m.joining
            wanted = Membership(m.voters, (*m.learners, name), (), joining)
            return self._wish(wanted, {name: Seat(where, uuid)}, f"{name} is being added")
        seat = roster.seats[name]
        if uuid in (NOBODY, seat.uuid) and seat.address == where:
            return [DONE, f"{name} is a member"]
        if uuid in (NOBODY, seat.uuid) or seat.uuid == NOBODY:
            return self._wish(m, {name: Seat(where, uuid or seat.uuid)}, f"{name} is being added")
        if name == self._host.name or name in self._host.peers_up:
            return [REFUSED, f"there is a {name} that is alive, and this is another incarnation"]
        return self._wish(_without(m, name), {}, f"another incarnation of {name} has to go first")

    def _remove(self, name: str) -> Reply:
        if name not in self.rosters.current.seats:
            return [DONE, f"{name} is no member"]
        wanted = _without(self.rosters.current.membership, name)
        return self._wish(wanted, {}, f"{name} is being removed")

    def _promote(self, name: str) -> Reply:
        """Let a learner become a voter as soon as it has caught up."""
        m = self.rosters.current.membership
        if name in m.voters:
            return [DONE, f"{name} is a voter"]
        if name not in m.learners:
            return [REFUSED, f"there is no member {name!r}; add it first"]
        if name in m.joining:
            return [WAIT, f"{name} has not caught up yet"]
        wanted = Membership(m.voters, m.learners, (), (*m.joining, name))
        return self._wish(wanted, {}, f"{name} becomes a voter when it has caught up")

    def _demote(self, name: str) -> Reply:
        """Let a voter be a learner."""
        m = self.rosters.current.membership
        if name not in m.names:
            return [REFUSED, f"there is no member {name!r}"]
        if name in m.learners and name not in m.joining:
            return [DONE, f"{name} is a learner"]
        rest = _without(m, name)
        wanted = Membership(rest.voters, (*rest.learners, name), (), rest.joining)
        return self._wish(wanted, {}, f"{name} is being demoted")

    def _lead(self, to: str | None, before: str | None) -> Reply:
        """Let ``to`` lead, or anybody but ``before``."""
        me = self._host.name
        if me == to or (to is None and me != before):
            return [DONE, f"{me} leads"]
        if to is not None and to not in self._raft.membership.voters:
            return [REFUSED, f"{to} is no voter"]
        if not self._raft.membership.rivals_of(me):
            return [REFUSED, f"{me} is the only voter"]
        if to is not None and to not in self._host.peers_up:
            return [REFUSED, f"{me} cannot reach {to}"]  # nothing is logged while one hands over
        self._host.tell(Transfer(to))
        return [WAIT, f"{me} is handing over"]

    def _wish(self, wanted: Membership, newcomers: Mapping[str, Seat], what: str) -> Reply:
        objection = self._raft.objection(wanted)
        if objection is not None:
            # Who is there and only a little behind will have caught up when we are asked again.
            there = {self._host.name, *self._host.peers_up}
            return [WAIT if majority(wanted, there) else REFUSED, objection]
        self._newcomers = dict(newcomers)
        self._host.tell(Reconfigure(wanted))
        return [WAIT, what]


def _without(m: Membership, name: str) -> Membership:
    groups = [tuple(o for o in group if o != name) for group in (m.voters, m.learners, m.joining)]
    return Membership(groups[0], groups[1], (), groups[2])
