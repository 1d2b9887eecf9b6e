"""The laws of a cluster whose members change, checked from outside of all of them.

`Watch` calls it after every turn of every member. It compares the configurations in all logs,
counts majorities itself instead of asking the code it judges, and tells the rest of a simulation
who belongs to the cluster. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, NoReturn

from ..server.roster import NOBODY, PlacedRoster, Roster

Fail = Callable[[str, str], NoReturn]


def incarnation(name: str, uuid: bytes) -> str:
    """How one incarnation of a member is called here: a wiped one has promised nothing."""
    return f"{name}/{uuid.hex()[:8]}"


class MembersWatch:
    """Who takes part, as seen from everywhere at once.

    Args:
        fail: raises for a law and a text.

    Attributes:
        committed: the newest configuration that any member has known to be committed, and its
            index; None before there is one.
        changes: how many configurations were committed.
        on_change: called with the name of a member whose log has a configuration that it does not
            know to be committed.
        note: hears of every configuration that is committed.
    """

    def __init__(self, fail: Fail) -> None:
        self.committed: PlacedRoster | None = None
        self.changes = 0
        self.on_change: Callable[[str], None] = lambda name: None
        self.note: Callable[[str], None] = lambda text: None
        self._fail = fail
        self._commit_index = 0
        self._known: dict[int, str] = {}  # index -> the members of what was committed there
        self._later: dict[str, list[PlacedRoster]] = {}  # who -> what may still come of its log
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._halves: tuple[Roster | None, list[list[str]]] = (None, [])

    # -- after a turn --------------------------------------------------------------------------

    def look(self, who: str, member: Any, commit_index: int) -> None:
        """``who`` had a turn; ``commit_index`` is the highest that anybody knows."""
        rosters = member._administration.rosters
        own_commit = member._raft.commit_index
        last = rosters.last_index
        if self.committed is not None and own_commit >= self.committed[0] > last:
            self._fail("state machine safety", f"{who} knows of {own_commit}, and not of the "
                       f"members since {self.committed[0]}")  # fmt: skip
        state = (last, own_commit if own_commit < last else last, len(rosters._entries))
        if self._seen.get(who) == state:
            return
        self._commit_index = commit_index
        self._seen[who] = state
        entries: list[PlacedRoster] = [rosters.base, *rosters._entries]
        later = [entry for entry in entries if entry[0] > own_commit]
        if len(later) > 1 and later[-2][0] > self._commit_index:
            self._fail("one change at a time", f"{who} has {len(later)} configurations that are "
                       f"not committed, at {[index for index, _ in later]}")  # fmt: skip
        for before, after in pairwise(entries):
            self._check_step(who, before[1], after)
        self._later[who] = later
        self._commits(who, rosters.at(own_commit))
        if later:
            self.on_change(member.name)

    def _check_step(self, who: str, before: Roster, placed: PlacedRoster) -> None:
        """Each majority of one shares a voter with each majority of the next."""
        index, after = placed
        if not any(_overlap(one, other) for one in _halves(before) for other in _halves(after)):
            self._fail("overlapping majorities", f"{who} has {after.membership} at {index} after "
                       f"{before.membership}")  # fmt: skip
        for name, seat in after.seats.items():
            old = before.seats.get(name)
            if old is not None and old.uuid not in (NOBODY, seat.uuid):
                self._fail("incarnations", f"{who} has another {name} at {index} than before, and "
                           "nobody had removed that one")  # fmt: skip

    def _commits(self, who: str, placed: PlacedRoster) -> None:
        index, roster = placed
        told = repr(roster.membership)
        known = self._known.setdefault(index, told)
        if known != told:
            self._fail("state machine safety", f"{who} commits the members {told} at {index}, "
                       f"elsewhere there are {known}")  # fmt: skip
        if self.committed is None or index > self.committed[0]:
            self.committed = placed
            self.changes += 1
            self.note(_told(roster))

    # -- promises that are counted -------------------------------------------------------------

    def elected(self, who: str, member: Any, voted: Callable[[str], bool]) -> None:
        """``who`` leads now; ``voted`` tells of an incarnation whether it voted for that."""
        administration = member._administration
        if administration.is_out:
            self._fail("who is out", f"{who} leads, and knows that it was removed")
        roster = administration.rosters.current
        missing = self._short(roster, lambda each: each == who or voted(each))
        if missing:
            self._fail("majority", f"{who} leads term {member._raft.term} with too few votes of "
                       f"{missing}")  # fmt: skip

    def commits(self, who: str, member: Any, index: int, holds: Callable[[str], bool]) -> None:
        """The leader ``who`` commits.

        It counts by the configuration that was in force at ``index``, or by one that it appended
        in the same turn. ``holds`` tells of an incarnation whether it has all that is committed.
        """
        rosters = member._administration.rosters
        missing = self._short(rosters.at(index)[1], holds)
        if missing and (rosters.last_index <= index or self._short(rosters.current, holds)):
            self._fail("majority", f"{who} commits {member._raft.commit_index}, which too few of "
                       f"{missing} have acknowledged")  # fmt: skip

    def speaks(self, who: str, member: Any) -> None:
        """``who`` asks for votes or grants one."""
        if member._administration.is_out:
            self._fail("who is out", f"{who} takes part in an election, and knows that it is out")

    def _short(self, roster: Roster, has: Callable[[str], bool]) -> tuple[str, ...]:
        """A half of the voters of which no majority ``has`` it; empty if all is well."""
        known, halves = self._halves
        if known is not roster:  # mostly it is the same one again
            seats = roster.seats
            halves = [[incarnation(name, seats[name].uuid) for name in h] for h in _halves(roster)]
            self._halves = roster, halves
        for half in halves:
            if 2 * sum(map(has, half)) <= len(half):
                return tuple(half)
        return ()

    # -- for fate and for the end --------------------------------------------------------------

    def belongs(self, name: str, uuid: bytes) -> bool:
        """Whether that incarnation is in the committed configuration, or may still be."""
        return any(
            name in roster.seats and roster.seats[name].uuid == uuid for roster in self.possible()
        )

    def is_member(self, name: str, uuid: bytes) -> bool:
        """Whether the newest committed configuration has that incarnation."""
        if self.committed is None:
            return True
        seat = self.committed[1].seats.get(name)
        return seat is not None and seat.uuid == uuid

    def can_lose(self, lost: str, uuids: Mapping[str, bytes]) -> bool:
        """Whether the cluster recovers without the disk of ``lost``, whatever becomes of logs.

        ``uuids`` tells which incarnation of each member there is on a disk.
        """
        return not any(
            self._short(
                roster,
                lambda each: any(
                    name != lost and incarnation(name, uuid) == each for name, uuid in uuids.items()
                ),
            )
            for roster in self.possible()
        )

    def wiped(self, who: str) -> None:
        """The disk of ``who`` is no more: nothing will come of its log."""
        self._later.pop(who, None)
        self._seen.pop(who, None)

    def possible(self) -> Iterable[Roster]:
        """The committed configuration and all that may follow it, in any log."""
        if self.committed is None:
            return []
        index, roster = self.committed
        later = [each for some in self._later.values() for at, each in some if at > index]
        return [roster, *later]


def _told(roster: Roster) -> str:
    """Who takes part, for people."""
    each = roster.membership
    text = f"members: {', '.join(each.voters)}"
    if each.learners:
        text += f"; learners: {', '.join(each.learners)}"
    if each.outgoing:
        text += f"; until all know it {', '.join(each.outgoing)} decide too"
    return text


def _halves(roster: Roster) -> list[tuple[str, ...]]:
    membership = roster.membership
    return [half for half in (membership.voters, membership.outgoing) if half]


def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether every majority of one has a voter in common with every majority of the other."""
    return (len(one) // 2 + 1) + (len(other) // 2 + 1) > len(set(one) | set(other))
