"""Majorities, in two questions. Pure functions of a membership; nothing else counts members.

Any two majorities share a voter: that is all of Raft's safety in one sentence. With a joint
configuration both functions ask each half and take the weaker answer (thesis 4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TypeVar

from .membership import Membership

N = TypeVar("N", int, float)


def reached(membership: Membership, value_of: Callable[[str], N]) -> N:
    """The largest value that a majority of the voters has reached.

    Of match indexes it is what may be committed, of echoed rounds what is confirmed, and of times
    of last contact the moment up to which the leader certainly led.
    """
    value = _reached(membership.voters, value_of)
    if membership.outgoing:
        value = min(value, _reached(membership.outgoing, value_of))
    return value


def majority(membership: Membership, names: Container[str]) -> bool:
    """Whether ``names`` contains more than half of the voters; others in it do not count."""
    return all(
        2 * sum(voter in names for voter in half) > len(half)
        for half in (membership.voters, membership.outgoing)
        if half
    )


def _reached(voters: tuple[str, ...], value_of: Callable[[str], N]) -> N:
    values = sorted(map(value_of, voters))
    return values[(len(values) - 1) // 2]
