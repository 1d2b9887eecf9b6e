"""The memberships of a log, by index."""

from __future__ import annotations

from copycat.raft import HardState, Membership, Trail
from copycat.raft.configurations import Configurations
from copycat.raft.messages import Span
from copycat.raft.standing import Standing

ONE, TWO, THREE = Membership(("a",)), Membership(("a",), ("b",)), Membership(("a",), ("c",))


def test_the_newest_entry_is_in_force_until_it_is_cut_off() -> None:
    """It counts from its appending, and going back restores what was before (H13)."""
    known = Configurations((0, ONE))
    known.append(5, TWO)
    known.append(9, THREE)
    assert (known.current, known.last_index) == (THREE, 9)
    assert [known.at(index)[1] for index in (4, 5, 8, 9)] == [ONE, TWO, TWO, THREE]
    known.truncate(9)
    assert known.current == TWO
    known.truncate(3)
    assert (known.current, known.last_index) == (ONE, 0)


def test_a_snapshot_takes_the_place_of_what_it_covers() -> None:
    """The base moves up with the log, and a snapshot from elsewhere replaces everything."""
    known = Configurations((0, ONE), [(5, TWO), (9, THREE)])
    known.compact(6)
    known.truncate(7)
    assert known.at(6) == (5, TWO) and known.last_index == 5
    known.reset((3, THREE))
    assert known.current == THREE and known.last_index == 3


def test_whoever_was_told_a_later_membership_ignores_history() -> None:
    """A joining member reads the log from its beginning, but takes part as it was told."""
    known = Configurations((9, THREE), [(5, TWO)])
    known.append(7, ONE)
    assert known.current == THREE
    known.append(12, TWO)
    assert known.current == TWO


def test_an_installed_snapshot_voids_a_configuration_that_never_committed() -> None:
    """What was appended and contradicts the snapshot goes, and with it its membership (H14).

    Where the log holds the snapshot's last entry, what follows it stays in force (H13).
    """
    three = Membership(("n1", "n2", "n3"))
    stale = Membership(("n1", "n2"), outgoing=("n1", "n2", "n3"))
    new = Membership(("n1", "n2", "n3"), ("n4",))

    def standing() -> Standing:
        me = Standing(
            "n1", Configurations((0, three)), HardState(2, None), Trail(0, 0, [(1, 1)], 4), 0, 0.0
        )
        me.begin(0.0)
        me.append(Span(5, 5, 2, stale), b"")
        assert me.membership == stale
        return me

    me = standing()
    me.install(6, 2, (6, new))
    assert me.membership == new and me.trail.last_index == 6
    me = standing()
    me.install(4, 1, (0, three))
    assert me.membership == stale and me.trail.last_index == 5


def test_who_is_in_any_configuration_that_may_be_the_committed_one_may_stand() -> None:
    """A leader that takes itself out dies with the only copy of that entry. When it is back it
    knows of no commitment, and nobody else can win: found by the simulated life 31227."""
    joint = Membership(("a",), (), ("a", "b"))
    placed = Configurations((0, TWO), [(3, Membership(("a", "b"))), (5, joint), (7, ONE)])

    def b_may_stand(commit_index: int) -> bool:
        trail = Trail(0, 0, ((1, 1),), 8)
        return Standing("b", placed, HardState(1, None), trail, commit_index, 0.0).is_voter

    assert b_may_stand(0) and b_may_stand(4) and b_may_stand(6)
    assert not b_may_stand(7)
