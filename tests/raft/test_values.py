"""Membership, quorums, options: small values with sharp edges."""

from __future__ import annotations

from itertools import product

import pytest

from copycat.errors import ConfigurationError
from copycat.raft import Membership, RaftOptions
from copycat.raft.quorum import majority, reached


@pytest.mark.parametrize("size", range(1, 8))
def test_reached_is_what_a_majority_has(size: int) -> None:
    """More than half of the voters have the value, and no larger one has so many."""
    names = tuple(f"n{i}" for i in range(size))
    for values in product(range(3), repeat=min(size, 6)):
        of = dict(zip(names, values + (1,) * size, strict=False))
        value = reached(Membership(names), of.__getitem__)
        assert 2 * sum(v >= value for v in of.values()) > size
        assert 2 * sum(v > value for v in of.values()) <= size


def test_a_majority_is_more_than_half_of_the_voters() -> None:
    """Half is not enough, and neither learners nor strangers count."""
    four = Membership(("a", "b", "c", "d"), ("l",))
    assert not majority(four, {"a", "b"})
    assert not majority(four, {"a", "b", "l", "stranger"})
    assert majority(four, {"a", "b", "d"})
    assert majority(Membership(("a",)), {"a"})
    assert not majority(Membership(("a",)), set())


def test_learners_do_not_count_for_what_is_reached() -> None:
    """Only voters commit."""
    values = {"a": 5, "b": 1, "c": 1, "l": 9, "m": 9}
    assert reached(Membership(("a", "b", "c"), ("l", "m")), values.__getitem__) == 1


@pytest.mark.parametrize(
    ("voters", "learners"), [((), ()), ((), ("a",)), (("a", "a"), ()), (("a",), ("a",))]
)
def test_a_membership_needs_voters_and_distinct_names(
    voters: tuple[str, ...], learners: tuple[str, ...]
) -> None:
    """Counting a name twice would be fatal."""
    with pytest.raises(ConfigurationError):
        Membership(voters, learners)


def test_peers_are_the_others_in_a_fixed_order() -> None:
    """Order must not depend on hashes."""
    membership = Membership(("c", "a", "b"), ("l",))
    assert membership.peers_of("a") == ("c", "b", "l")
    assert membership.rivals_of("a") == ("c", "b")


@pytest.mark.parametrize(
    "wrong",
    [
        {"heartbeat": 0.34},
        {"election_timeout": 0.5},
        {"heartbeat": 0.0},
        {"election_timeout": -1.0},
        {"max_inflight": 0},
        {"failover_jitter": 2.0},
        {"max_append_bytes": float("nan")},
    ],
)
def test_contradicting_options_are_refused(wrong: dict[str, float]) -> None:
    """A heartbeat fits three times into the election timeout (H35), and all are positive."""
    with pytest.raises(ConfigurationError):
        RaftOptions(**wrong)  # type: ignore[arg-type]


def test_a_heartbeat_of_exactly_a_third_is_fine() -> None:
    """Rounding must not refuse it."""
    RaftOptions(election_timeout=0.3, heartbeat=0.1)


def test_a_joint_majority_is_one_of_each_half() -> None:
    """The new voters alone cannot decide, and neither can the old ones (H12)."""
    joint = Membership(("a", "b", "c"), outgoing=("c", "d", "e"))
    assert not majority(joint, {"a", "b", "c"})
    assert not majority(joint, {"c", "d", "e"})
    assert majority(joint, {"a", "c", "d"})
    values = {"a": 9, "b": 9, "c": 9, "d": 1, "e": 2}
    assert reached(joint, values.__getitem__) == 2


def test_only_neighbouring_memberships_share_every_majority() -> None:
    """Voters change through a joint configuration and in no other way."""
    old, new = Membership(("a", "b", "c")), Membership(("a", "d"), ("b",))
    joint = old.towards(new)
    assert joint.is_joint and joint.follows(old) and not new.follows(old)
    assert joint.settled() == new and new.follows(joint) and not old.follows(joint)
    learners = Membership(("c", "b", "a"), ("d",), joining=("d",))
    assert old.towards(learners) == learners and learners.follows(old)
    assert learners.promoting("d") == Membership(("c", "b", "a", "d"))
    with pytest.raises(ConfigurationError):
        Membership(("a",), ("b",), joining=("c",))
