"""Where one member stands: what it has promised, what its log holds, what it believes.

All parts of Raft read these values and few change them; each change that safety hangs on is a
method here, which guards its rule. It decides nothing, and it sends only into the `Ready` of the
step under way.
"""

from __future__ import annotations

from ..errors import invariant
from .configurations import Configurations, Placed
from .membership import Membership
from .messages import Message, Span
from .ready import HardState, Ready, Role
from .trail import Trail


class Standing:
    """The state of one member that its roles share."""

    __slots__ = (
        "_announced", "_staged", "commit_index", "configurations", "durable_index", "leader",
        "membership", "name", "now", "owes", "promise_us", "promised_until", "ready", "role",
        "saved", "term", "trail", "vote",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        configurations: Configurations,
        hard_state: HardState,
        trail: Trail,
        commit_index: int,
        now: float,
    ) -> None:
        self.name = name
        self.configurations = configurations
        self.membership = configurations.current
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.saved = hard_state  # the newest term and vote known to be on disk
        # When a promise was given is not written down: all of it may be ahead (H29).
        self.promise_us = hard_state.promise_us
        self.owes = hard_state.owes
        self.promised_until = now + hard_state.promise_us / 1e6
        self.role = Role.FOLLOWER
        self.leader: str | None = None
        self.trail = trail
        self.durable_index = trail.last_index  # recovery found it on disk
        self.commit_index = max(commit_index, trail.base_index)
        self.now = now
        self.ready = Ready()
        self._announced = hard_state
        self._staged: list[int] = []  # base index of each image in ready.append
        invariant(
            self.commit_index <= trail.last_index,
            f"index {self.commit_index} was committed, but the log ends at {trail.last_index}",
        )
        invariant(
            trail.last_term <= self.term,
            f"the log has term {trail.last_term}, but the hard state only {self.term}",
        )

    @property
    def is_voter(self) -> bool:
        """Whether this member may ask for votes.

        Also one that is to be removed may, as long as that is not known to be committed: perhaps
        nobody else has the entries without which no other can win (thesis 4.2.2). Its own vote
        does not count then. After a restart little is known to be committed, so any configuration
        from there on may be the one that is.
        """
        possible = self.configurations.since(self.commit_index)
        if self.abstains:
            return False
        return any(self.name in membership.electors for membership in possible)

    @property
    def abstains(self) -> bool:
        """Whether this member lost entries that it may have acknowledged, and has not all of them.

        Its vote could help somebody who never had them to win. So whoever leads now was elected
        by others, of whom each majority has what was committed; and once the log holds what such
        a leader brought in its own term, it equals that leader's up to there (H57, H58).
        """
        return self.owes > 0

    def begin(self, now: float) -> Ready:
        """Start a step: a fresh `Ready`, and time, which never goes back."""
        self.now = max(now, self.now)
        self.ready = Ready()
        self._staged.clear()
        return self.ready

    def end(self) -> Ready:
        """Finish the step."""
        told = self._announced
        if (
            self.term != told.term or self.vote != told.vote or self.promise_us != told.promise_us
            or self.owes != told.owes
        ):  # fmt: skip
            self._announced = HardState(self.term, self.vote, self.promise_us, self.owes)
            self.ready.hard_state = self._announced
        self.ready.commit_index = self.commit_index
        return self.ready

    def send(self, message: Message) -> None:
        """Put a message into the step's `Ready`."""
        self.ready.messages.append(message)

    def enter_term(self, term: int, vote: str | None = None) -> None:
        """Go to a later term. Only here is a vote forgotten, and the leader with it (H2)."""
        invariant(term > self.term, f"the term would fall from {self.term} to {term}")
        self.term = term
        self.vote = vote
        self.leader = None
        if not self.is_bound:
            self.promise_us = 0  # a restart need not wait for what has run out

    def grant(self, candidate: str) -> None:
        """Vote for ``candidate`` in the current term."""
        invariant(
            self.vote in (None, candidate),
            f"a second vote in term {self.term}: {candidate} after {self.vote}",
        )
        self.vote = candidate

    @property
    def is_bound(self) -> bool:
        """Whether a promise to let nobody be elected is in force."""
        return self.now < self.promised_until

    def promise(self, microseconds: int) -> None:
        """Let nobody be elected for so long, counted from now by this member's own clock.

        How long is on disk before anybody hears of it; the same promise again costs nothing.
        """
        self.promised_until = max(self.promised_until, self.now + microseconds / 1e6)
        self.promise_us = max(self.promise_us, microseconds)

    def commit(self, index: int) -> None:
        """Raise the commit index to ``index``; a smaller one changes nothing."""
        if index > self.commit_index:
            invariant(
                index <= self.trail.last_index,
                "cannot commit {}: the log ends at {}", index, self.trail.last_index,
            )  # fmt: skip
            self.commit_index = index

    def made_durable(self, index: int) -> None:
        """Everything up to ``index`` is on disk."""
        invariant(
            index <= self.trail.last_index,
            "index {} is said to be durable, but the log ends at {}", index, self.trail.last_index,
        )  # fmt: skip
        self.durable_index = max(self.durable_index, index)
        self._settle()

    def _settle(self) -> None:
        """Owe nothing any more if the log is durable up to a new leader's own entries."""
        if self.owes and self.durable_index >= self.trail.base_index:
            term = self.trail.term_at(self.durable_index)
            if term is not None and term >= self.owes:
                self.owes = 0

    def append(self, span: Span, image: bytes) -> None:
        """Take over a batch of the leader."""
        self.trail.extend(span.base_index, span.last_index, span.term)
        self.ready.append.append(image)
        self._staged.append(span.base_index)
        if span.membership is not None:
            self.configure(span.base_index, span.membership)

    def configure(self, index: int, membership: Membership) -> None:
        """The entry at ``index`` brings ``membership``: from now on it counts (thesis 4.1)."""
        self.configurations.append(index, membership)
        self.membership = self.configurations.current

    def truncate(self, from_index: int) -> None:
        """Drop the log from ``from_index`` on, which conflicts with the leader's (H9, H10)."""
        invariant(
            from_index > self.commit_index,
            f"truncation from {from_index} would drop committed entries: "
            f"{self.commit_index} is committed",
        )
        # What this very step has staged is simply taken back; only the rest is on disk.
        written = self._staged[0] - 1 if self._staged else self.trail.last_index
        while self._staged and self._staged[-1] >= from_index:
            self._staged.pop()
            self.ready.append.pop()
        if from_index <= written:
            self.ready.truncate_from = from_index
        self.trail.truncate(from_index)
        self.configurations.truncate(from_index)
        self.membership = self.configurations.current
        self.durable_index = min(self.durable_index, from_index - 1)

    def compact(self, index: int, term: int) -> None:
        """The log begins after ``index`` now."""
        self.trail.compact(index, term)
        self.configurations.compact(index)

    def install(self, index: int, term: int, configuration: Placed) -> None:
        """A durable snapshot stands for everything up to ``index``."""
        if index <= self.commit_index:
            return  # an older one never replaces newer state (H19)
        if not self.trail.holds(index, term):
            # H20: what conflicts with the snapshot, and all that was built upon it, is void.
            invariant(
                self.role is not Role.LEADER,
                f"a snapshot at {index} of term {term} contradicts the leader's own log",
            )
            self.trail.reset(index, term)
            self.configurations.reset(configuration)
            self.membership = self.configurations.current
            self.durable_index = index
        self.durable_index = max(self.durable_index, index)
        self.commit_index = index
        self._settle()
