"""What may become of the members, and what comes next (thesis 4.1 to 4.3): two questions, no deeds.

One change at a time, each committed before the next (H13): learners come and go in one entry,
voters through a joint configuration, and whoever is to be a voter has caught up as a learner first.
"""

from __future__ import annotations

from .membership import Membership
from .quorum import majority
from .replication import Replication
from .standing import Standing


def is_settled(me: Standing) -> bool:
    """Whether the configuration in force is committed, and not a step on the way."""
    return not me.membership.is_joint and me.configurations.last_index <= me.commit_index


def objection(me: Standing, replication: Replication, wanted: Membership) -> str | None:
    """Why a leader cannot change the members to ``wanted`` now, in words; None if it can."""
    if not is_settled(me):
        return "another change of the members is under way"
    if wanted.is_joint:
        return "a joint configuration is a step, not an aim"
    for name in wanted.voters:
        if name not in me.membership.names:
            return f"{name} has to be a learner before it can be a voter"
    able = {
        name for name in wanted.voters if name == me.name or replication.has_caught_up(name)
    }
    if not majority(wanted, able):
        missing = ", ".join(name for name in wanted.voters if name not in able)
        return f"without {missing} the new voters would have no majority"
    return None


def next_step(me: Standing, replication: Replication) -> Membership | None:
    """What a leader appends now by itself: the end of a joint configuration, or a promotion."""
    if me.configurations.last_index > me.commit_index:
        return None
    membership = me.membership
    if membership.is_joint:
        return membership.settled()
    for name in membership.joining:
        if replication.has_caught_up(name):
            return membership.towards(membership.promoting(name))
    return None


def has_to_leave(me: Standing) -> bool:
    """Whether the leader is no voter any more, and that is committed (thesis 4.2.2)."""
    return is_settled(me) and me.name not in me.membership.voters
