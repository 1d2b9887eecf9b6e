"""The laws about members can be broken, and are missed by nobody then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from copycat.node import RunningMember
from copycat.raft import Membership
from copycat.server.administration import Administration
from copycat.server.roster import Roster, Rosters, Seat
from copycat.testing.checkers import CheckFailed
from copycat.testing.life import Life
from copycat.testing.plan import MEMBER_FAULTS, Plan
from copycat.testing.watch_members import MembersWatch, incarnation
from copycat.types import Address


def fail(law: str, text: str) -> Any:
    """What `Watch` gives it."""
    raise CheckFailed(law, text)


def uuid(name: str) -> bytes:
    """The first incarnation's."""
    return name.encode().ljust(16, b"-")


def roster(*voters: str, outgoing: tuple[str, ...] = (), **others: bytes) -> Roster:
    """The voters with their first incarnations, but for ``others``."""
    membership = Membership(voters, (), outgoing)
    return Roster(
        membership,
        {
            name: Seat(Address(name, 7400), others.get(name, uuid(name)))
            for name in membership.names
        },
    )


def member(name: str, commit: int, *placed: tuple[int, Roster], out: bool = False) -> Any:
    """What the watch looks at of a member."""
    rosters = Rosters(placed[0], placed[1:])
    raft = SimpleNamespace(commit_index=commit, term=3)
    administration = SimpleNamespace(rosters=rosters, is_out=out)
    return SimpleNamespace(name=name, _raft=raft, _administration=administration)


ONE, THREE, FOUR = roster("n1"), roster("n1", "n2", "n3"), roster("n1", "n2", "n3", "n4")
JOINT = roster("n4", "n5", "n6", outgoing=("n1", "n2", "n3"))


def test_each_configuration_overlaps_with_the_next() -> None:
    """One voter more or less is a step, and a joint configuration; two at once are not."""
    for before, after in ((THREE, FOUR), (THREE, JOINT), (JOINT, roster("n4", "n5", "n6"))):
        MembersWatch(fail).look("n1/", member("n1", 9, (0, before), (7, after)), 9)
    for before, after in ((ONE, THREE), (THREE, roster("n4", "n5", "n6"))):
        with pytest.raises(CheckFailed, match="overlapping majorities"):
            MembersWatch(fail).look("n1/", member("n1", 9, (0, before), (7, after)), 9)


def test_one_change_after_the_other() -> None:
    """A log with two configurations of which nobody has committed the first breaks the law; that
    this very member has not heard of the commitment does not."""
    changing = member("n1", 5, (0, THREE), (7, FOUR), (9, THREE))
    MembersWatch(fail).look("n1/", changing, 8)
    with pytest.raises(CheckFailed, match="one change at a time"):
        MembersWatch(fail).look("n1/", changing, 6)


def test_another_incarnation_comes_only_after_the_first_has_gone() -> None:
    """A name goes from one uuid to another by way of a configuration without it."""
    other = roster("n1", "n2", "n3", n3=b"another one-----")
    without = roster("n1", "n2")
    MembersWatch(fail).look("n1/", member("n1", 9, (0, THREE), (3, without), (5, other)), 9)
    with pytest.raises(CheckFailed, match="incarnations"):
        MembersWatch(fail).look("n1/", member("n1", 9, (0, THREE), (5, other)), 9)


def test_members_commit_the_same_configurations() -> None:
    """Two that differ at one index differ in what is committed."""
    watch = MembersWatch(fail)
    watch.look("n1/", member("n1", 9, (0, THREE), (7, FOUR)), 9)
    assert watch.committed == (7, FOUR)
    with pytest.raises(CheckFailed, match="state machine safety"):
        watch.look("n2/", member("n2", 9, (0, THREE), (7, roster("n1", "n2"))), 9)


def test_majorities_are_counted_by_incarnation_in_both_halves() -> None:
    """Neither a vote of a wiped member's former self nor one half of two is enough."""
    watch = MembersWatch(fail)
    wiped = roster("n1", "n2", "n3", n2=b"another one-----")
    voted = {incarnation("n2", uuid("n2"))}
    leader = incarnation("n1", uuid("n1"))
    watch.elected(leader, member("n1", 0, (0, THREE)), voted.__contains__)
    with pytest.raises(CheckFailed, match="majority"):
        watch.elected(leader, member("n1", 0, (0, wiped)), voted.__contains__)
    with pytest.raises(CheckFailed, match="majority"):
        watch.commits(leader, member("n1", 0, (0, JOINT)), 0, {leader, *voted}.__contains__)
    with pytest.raises(CheckFailed, match="who is out"):
        watch.elected(leader, member("n1", 0, (0, THREE), out=True), voted.__contains__)
    with pytest.raises(CheckFailed, match="who is out"):
        watch.speaks(leader, member("n1", 0, (0, THREE), out=True))


def test_a_disk_can_be_lost_while_the_others_are_a_majority_whatever_comes() -> None:
    """What is not committed yet counts as well, and a member that was wiped is no good copy."""
    watch = MembersWatch(fail)
    uuids = {name: uuid(name) for name in ("n1", "n2", "n3")}
    watch.look("n1/", member("n1", 9, (0, THREE)), 9)
    assert watch.can_lose("n3", uuids)
    assert not watch.can_lose("n3", uuids | {"n2": b"another one-----"})
    watch.look("n1/", member("n1", 9, (0, THREE), (12, roster("n1", "n3"))), 9)
    assert not watch.can_lose("n3", uuids)
    assert watch.can_lose("n2", uuids)
    watch.wiped("n1/")
    assert watch.can_lose("n3", uuids)


def test_members_that_never_learn_of_their_removal_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A removed member that goes on as if nothing had happened fails the life."""
    monkeypatch.setattr(Administration, "is_out", False)
    monkeypatch.setattr(RunningMember, "_refused", lambda self, peer, refusal: None)
    with pytest.raises(CheckFailed, match="do not learn that they were removed"):
        for seed in range(3):
            Life(Plan(seed, faults=("add member", "remove member"), seconds=20.0)).live()


def test_votes_of_learners_that_are_counted_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wins by a majority of all members, voters or not, fails the life."""

    def anybody(membership: Membership, names: set[str]) -> bool:
        return 2 * len(set(membership.names) & names) > len(membership.voters)

    monkeypatch.setattr("copycat.raft.election.majority", anybody)
    monkeypatch.setattr(Membership, "rivals_of", Membership.peers_of)
    with pytest.raises(CheckFailed):
        for seed in range(5):
            Life(Plan(seed, faults=(*MEMBER_FAULTS, "kill"), fault_every=0.4, seconds=30.0)).live()
