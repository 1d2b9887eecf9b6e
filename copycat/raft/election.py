"""Elections: timers, votes and the patience between them (thesis 3.4, 4.2.3 and 9.6).

Three defences act together, never one alone (H16): a pre-vote asks whether an election could be
won before any term rises; stickiness refuses every vote while the current leader is being heard;
check-quorum (in ``replication``) makes a leader that lost its followers give up. Fast failover
waives stickiness for one term, on this member only, once the leader's process is certainly gone.
A promise that a lease may rest on (``leases``) is waived by nothing but the leader's own bid.

It counts and answers votes; what follows from winning or from a later term is done in ``raft``.
"""

from __future__ import annotations

from ..ports import Random
from .messages import VoteRequest, VoteResponse
from .options import RaftOptions
from .quorum import majority
from .ready import Role
from .standing import Standing

FAILOVER_TRIES = 5
NEVER = float("inf")


class Election:
    """One member's part in elections, as voter and as candidate."""

    def __init__(self, standing: Standing, options: RaftOptions, random: Random) -> None:
        self._me = standing
        self._options = options
        self._random = random
        self._granted: set[str] = set()  # who voted for us in the poll under way
        self._heard_at = -NEVER  # the current leader, in seconds
        self._waived_term = -1  # the term whose leader is gone for certain
        self._tries_left = 0  # quick attempts left of a fast failover
        self.restart_timer()
        if standing.membership.electors == (standing.name,):
            self.deadline = standing.now  # there is nobody to wait for

    # -- timers --------------------------------------------------------------------------------

    def restart_timer(self) -> None:
        """Wait for a fresh random time in [T, 2T) from now (H35)."""
        patience = self._options.election_timeout * (1.0 + self._random.random())
        self.deadline = self._me.now + patience

    def postpone(self, seconds: float) -> None:
        """Wait a little longer: perhaps it was us who slept."""
        self.deadline = self._me.now + seconds

    def await_promise(self) -> None:
        """Try again when the promise in force has run out; perhaps others try then, too."""
        jitter = self._options.failover_jitter * self._random.random()
        self.deadline = self._me.promised_until + jitter

    def heard_leader(self) -> None:
        """The leader of the current term spoke."""
        me = self._me
        self._heard_at = me.now
        if self._tries_left and me.term == self._waived_term:
            return  # words from beyond the grave: they were under way when its process died
        self._tries_left = 0
        self.restart_timer()

    def leader_refused(self) -> None:
        """The leader's process is gone for certain: ask for votes soon, and let others do so.

        Once per term: should the leader be alive after all (behind a firewall that refuses for
        it), its followers must not ask for votes for ever.
        """
        me = self._me
        if self._waived_term == me.term:
            return
        me.leader = None
        self._waived_term = me.term
        if me.is_voter:
            self._tries_left = FAILOVER_TRIES
            jitter = self._options.failover_jitter * self._random.random()
            self.deadline = min(self.deadline, me.now + jitter)

    def _quick_retry_at(self) -> float:
        """When to try again in a fast failover: jittered, and slower each time."""
        slower = 1 << (FAILOVER_TRIES - self._tries_left)
        spread = 0.5 + self._random.random()
        return self._me.now + self._options.failover_jitter * spread * slower

    # -- the candidate's side ------------------------------------------------------------------

    def ask(self, *, pre: bool, bidden: bool = False) -> None:
        """Open a poll; its first answer, or the next timer, settles it.

        The own pre-vote counts at once. The own vote is a promise like any other: it counts when
        it is on disk (H1), see `own_vote_saved`.
        """
        me = self._me
        self._granted.clear()
        if pre:
            self._granted.add(me.name)
        term = me.term + 1 if pre else me.term
        trail = me.trail
        for voter in me.membership.rivals_of(me.name):
            me.send(
                VoteRequest(term, me.name, voter, trail.last_index, trail.last_term, pre, bidden)
            )
        if self._tries_left:
            self._tries_left -= 1
            self.deadline = self._quick_retry_at()
        else:
            self.restart_timer()

    def own_vote_saved(self) -> None:
        """The vote for ourselves in the current term is durable."""
        self._granted.add(self._me.name)

    def count(self, answer: VoteResponse) -> None:
        """Count a granted answer, by voter and only for the poll under way (H3).

        A late answer to an earlier pre-vote for the same term cannot be told apart and does no
        harm: a pre-vote promises nothing.
        """
        me = self._me
        if me.role is Role.PRE_CANDIDATE:
            wanted = answer.pre and answer.term == me.term + 1
        else:
            wanted = me.role is Role.CANDIDATE and not answer.pre and answer.term == me.term
        if wanted and answer.granted:
            self._granted.add(answer.sender)

    @property
    def won(self) -> bool:
        """Whether a majority has granted the poll under way."""
        return majority(self._me.membership, self._granted)

    # -- the voter's side ----------------------------------------------------------------------

    def is_sticky(self) -> bool:
        """Whether a leader is in office, as far as this member can tell (H15).

        A leader itself is: it gives up by itself when a quorum no longer answers.
        """
        me = self._me
        if me.role is Role.LEADER or me.is_bound:
            return True
        return (
            me.leader is not None
            and me.term != self._waived_term
            and me.now - self._heard_at < self._options.election_timeout
        )

    def answer_pre_vote(self, request: VoteRequest) -> None:
        """Would we vote for this candidate in that term? Nothing changes by answering."""
        me = self._me
        granted = (
            request.term > me.term
            and not me.abstains
            and not self.is_sticky()
            and self._is_up_to_date(request)
        )
        if granted and self._tries_left and me.role is Role.FOLLOWER:
            # Somebody else was quicker in this failover: let it win instead of splitting votes.
            self.deadline = max(self.deadline, self._quick_retry_at())
        term = request.term if granted else me.term
        me.send(VoteResponse(term, me.name, request.sender, granted, True))

    def answer_vote(self, request: VoteRequest) -> None:
        """Vote, at most once per term, for a candidate whose log is not behind ours."""
        me = self._me
        free = me.vote is None and (request.bidden or not me.is_bound)
        granted = (
            request.term == me.term
            and not me.abstains
            and (free or me.vote == request.sender)
            and self._is_up_to_date(request)
        )
        if granted:
            me.grant(request.sender)
            me.role = Role.FOLLOWER
            self._tries_left = 0
            self.restart_timer()
        me.send(VoteResponse(me.term, me.name, request.sender, granted, False))

    def _is_up_to_date(self, request: VoteRequest) -> bool:
        """Compare the last entries, terms first (thesis 3.6.1, H4)."""
        trail = self._me.trail
        theirs = (request.last_term, request.last_index)
        return theirs >= (trail.last_term, trail.last_index)
