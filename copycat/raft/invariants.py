"""A witness that compares each step with the one before: laws that hold whatever arrives.

Checks that belong to one operation stand beside it (``standing``, ``trail``); here are those that
span steps. They cost about a microsecond and stay on in production: a member that finds itself
breaking a law of Raft must stop before anybody hears of it.
"""

from __future__ import annotations

from ..errors import InvariantViolated, invariant
from .ready import Role
from .standing import Standing


class Witness:
    """Remembers what must never be taken back."""

    __slots__ = ("_commit_index", "_leader", "_leader_term", "_standing", "_term", "_vote")

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._term = standing.term
        self._vote = standing.vote
        self._commit_index = standing.commit_index
        self._leader_term = 0
        self._leader = ""

    def leads(self, term: int, name: str) -> None:
        """``name`` acts as the leader of ``term``: nobody else may ever have."""
        if term > self._leader_term:
            self._leader_term = term
            self._leader = name
        else:
            invariant(
                term == self._leader_term and name == self._leader,
                f"two leaders: {name} in term {term}, {self._leader} in {self._leader_term}",
            )

    def observe(self) -> None:
        """Check the standing at the end of a step against the one before."""
        now = self._standing
        if now.term < self._term:
            raise InvariantViolated(f"the term fell from {self._term} to {now.term}")
        if now.term == self._term and self._vote is not None and now.vote != self._vote:
            raise InvariantViolated(
                f"the vote of term {now.term} changed from {self._vote} to {now.vote}"
            )
        if now.commit_index < self._commit_index:
            raise InvariantViolated(
                f"the commit index fell from {self._commit_index} to {now.commit_index}"
            )
        trail = now.trail
        if not trail.base_index <= now.commit_index <= trail.last_index:
            raise InvariantViolated(
                f"committed {now.commit_index} lies outside the log, "
                f"{trail.base_index} to {trail.last_index}"
            )
        if now.durable_index > trail.last_index or trail.last_term > now.term:
            raise InvariantViolated(
                f"durable {now.durable_index} of {trail.last_index}, last term "
                f"{trail.last_term} in term {now.term}"
            )
        if now.role is Role.LEADER and (now.saved.term, now.saved.vote) != (now.term, now.name):
            # H1: whoever leads has its own vote on disk, however the votes were counted.
            raise InvariantViolated(f"a leader of term {now.term} whose vote is not durable")
        self._term = now.term
        self._vote = now.vote
        self._commit_index = now.commit_index
