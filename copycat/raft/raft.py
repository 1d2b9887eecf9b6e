"""The Raft of one member: takes inputs step by step, and says what is to be done.

This file holds what concerns all parts: the order within a step, the rule of terms, and the
changes of role. What a follower, a candidate and a leader do in detail stands in ``following``,
``election`` and ``replication``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import invariant
from ..ports import Random
from .asking import Asking
from .changes import has_to_leave, next_step, objection
from .configurations import Configurations, Placed
from .election import NEVER, Election
from .following import Following
from .handover import Handover
from .inputs import (
    Campaign,
    Compacted,
    Durable,
    Input,
    Installed,
    PeerLost,
    PeerRefused,
    Read,
    Receive,
    Reconfigure,
    Saved,
    Transfer,
    Yield,
)
from .invariants import Witness
from .membership import Membership
from .messages import (
    AppendRequest,
    AppendResponse,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    SnapshotChunk,
    SnapshotResponse,
    Stand,
    VoteRequest,
    VoteResponse,
)
from .options import RaftOptions
from .progress import PeerStatus
from .reads import Reads
from .ready import HardState, Ready, Role
from .replication import LogView, Replication
from .standing import Standing
from .trail import Trail

MAX_TERM_JUMP = 1 << 32
"""A message whose term is further ahead than this is not believed (H34)."""

_FACTS = (Durable, Saved, Compacted, Installed)


class Raft:
    """One member's decisions. Synchronous; the caller brings time, inputs and chance.

    Args:
        name: this member.
        configuration: who votes and who only follows, as recovered from a snapshot or as founded,
            with the index that brought it.
        configurations: the same from the log's entries.
        hard_state: term and vote as recovered from disk.
        trail: the log as recovered from disk, all of it durable; Raft owns it from now on.
        log: sizes of batches, for cutting windows.
        options: timeouts and limits.
        random: seeded, for timeouts and jitter.
        now: monotonic time in seconds, as in every later `step`.
        commit_index: what is known to be committed, from a snapshot.
    """

    def __init__(
        self,
        name: str,
        configuration: Placed,
        hard_state: HardState,
        trail: Trail,
        log: LogView,
        options: RaftOptions,
        random: Random,
        now: float,
        commit_index: int = 0,
        configurations: Iterable[Placed] = (),
    ) -> None:
        placed = Configurations(configuration, configurations)
        me = Standing(name, placed, hard_state, trail, commit_index, now)
        self._me = me
        self._options = options
        self._election = Election(me, options, random)
        self._following = Following(me, options)
        self._replication = Replication(me, log, options)
        self._handover = Handover()
        self._reads = Reads(me)
        self._asking = Asking(me, random, options.election_timeout)
        self._witness = Witness(me)
        self._wake_at = self._election.deadline
        self._was_late = False

    # -- what it shows -------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """The part this member plays now."""
        return self._me.role

    @property
    def abstains(self) -> bool:
        """Whether this member has lost a part of its log and lets others elect."""
        return self._me.abstains

    @property
    def is_leader(self) -> bool:
        """Whether this member leads the current term."""
        return self._me.role is Role.LEADER

    @property
    def leader(self) -> str | None:
        """The leader of the current term, if known."""
        return self._me.leader

    @property
    def term(self) -> int:
        """The current term."""
        return self._me.term

    @property
    def vote(self) -> str | None:
        """Whom this member voted for in the current term."""
        return self._me.vote

    @property
    def commit_index(self) -> int:
        """Everything up to it is committed."""
        return self._me.commit_index

    @property
    def last_index(self) -> int:
        """Of the last entry, durable or not."""
        return self._me.trail.last_index

    @property
    def durable_index(self) -> int:
        """Everything up to it is on this member's disk."""
        return self._me.durable_index

    @property
    def membership(self) -> Membership:
        """Who takes part, by the newest configuration in the log."""
        return self._me.membership

    def configuration_at(self, index: int) -> Placed:
        """Who took part at ``index``, an index of the log or its base: for a snapshot there."""
        return self._me.configurations.at(index)

    @property
    def ready_to_serve(self) -> bool:
        """Whether it leads and its first entry of this term is committed (H11)."""
        first = self._replication.first_index
        return first is not None and first <= self._me.commit_index

    @property
    def handing_over(self) -> bool:
        """Whether a transfer of leadership is under way: no proposals are taken meanwhile."""
        return self._handover.target is not None

    def lease_index(self, now: float) -> int | None:
        """An index at which a read may be served at once, by the lease that holds at ``now`` (s).

        None if none does: then the read needs a round like any other. Either way a lease is wanted
        from now on, and the requests of the next rounds ask for it.
        """
        me = self._me
        if me.role is not Role.LEADER or not self.ready_to_serve:
            return None
        if self._replication.has_lease(now) and not self.is_late(now):
            return me.commit_index
        return None

    def slept(self) -> None:
        """The machine slept, which the clock of the steps did not count: no lease holds now."""
        self._replication.lapse_lease()

    def snapshot_replaces_log(self, index: int, term: int) -> bool:
        """Whether a snapshot at ``index`` voids the log, or leaves what follows it in force (H20).

        To be asked just before the step that gets `Installed`: if so, the log is reset first.
        """
        me = self._me
        return index > me.commit_index and not me.trail.holds(index, term)

    def progress_of(self) -> list[PeerStatus]:
        """The leader's view of its peers; empty on others."""
        return self._replication.progress()

    # -- what it does --------------------------------------------------------------------------

    def propose(self, count: int) -> int | None:
        """Take a batch of ``count`` entries into the log, as the last of the current term.

        Returns the index of its first entry, or None if this member does not lead, or is handing
        its leadership over. The caller appends the image to its log at once and then calls `step`,
        which sends it.
        """
        me = self._me
        if me.role is not Role.LEADER or self._handover.target is not None:
            return None
        base = me.trail.last_index + 1
        me.trail.extend(base, base + count - 1, me.term)
        if self._replication.first_index is None:
            self._replication.first_index = base
        return base

    def step(self, now: float, inputs: Iterable[Input] = ()) -> Ready:
        """Take all inputs and the time, and return what is to be done.

        Facts about this member's own disk come first, wherever they stand among the inputs: they
        speak of the log as it was before this step.
        """
        me = self._me
        me.begin(now)
        late = now - self._wake_at > self._options.election_timeout / 2
        if late:
            self._replication.lapse_lease()
        slept, self._was_late = late and not self._was_late, late
        news: list[Input] = []
        for item in inputs:
            if isinstance(item, _FACTS):
                self._learn(item)
            else:
                news.append(item)
        for item in news:
            self._take(item)
        self._keep_time(slept)
        if me.role is not Role.LEADER:
            self._following.answer()
            self._asking.flush()
        elif not me.ready.elected:  # the no-op is proposed first, and travels with the probes
            self._lead()
        return self._end()

    def is_late(self, now: float) -> bool:
        """Whether we did nothing for so long that something must have held us up."""
        return now - self._wake_at > self._options.election_timeout / 2

    def _end(self) -> Ready:
        me = self._me
        self._witness.observe()
        ready = me.end()
        if me.role is not Role.LEADER:
            self._wake_at = self._election.deadline
        elif ready.elected:
            self._wake_at = me.now
        else:
            self._wake_at = min(self._replication.wake_at, self._handover.deadline)
        ready.wake_at = self._wake_at
        return ready

    # -- inputs --------------------------------------------------------------------------------

    def _learn(self, fact: Durable | Saved | Compacted | Installed) -> None:
        """Something about our own disk became true."""
        me = self._me
        if isinstance(fact, Durable):
            me.made_durable(fact.index)
        elif isinstance(fact, Saved):
            me.saved = HardState(fact.term, fact.vote)
            if me.role is Role.CANDIDATE and (fact.term, fact.vote) == (me.term, me.name):
                self._election.own_vote_saved()
                self._conclude_poll()
        elif isinstance(fact, Compacted):
            me.compact(fact.index, fact.term)
        else:
            me.install(fact.index, fact.term, fact.configuration)
            self._following.installed(fact.index)

    def _take(self, news: Input) -> None:
        """Something happened outside."""
        me = self._me
        if isinstance(news, Receive):
            self._receive(news.message)
        elif isinstance(news, Read):
            if me.role is Role.LEADER:
                self._reads.waiting.append(news.id)
            else:
                self._asking.add(news.id)
        elif isinstance(news, PeerLost | PeerRefused):
            self._replication.peer_lost(news.name)
            if news.name == me.leader:
                self._asking.fail()  # what was asked, or its answer, may be lost
                if isinstance(news, PeerRefused):
                    self._election.leader_refused()
        elif isinstance(news, Transfer):
            self._begin_transfer(news.to)
        elif isinstance(news, Reconfigure):
            self._reconfigure(news.wanted)
        elif isinstance(news, Yield):
            self._step_down()
            self._election.postpone(news.seconds)
        elif isinstance(news, Campaign) and me.term == 0 and me.role is Role.FOLLOWER:
            self._election.deadline = me.now

    def _receive(self, message: Message) -> None:
        """The rule of terms: a later one is entered, an earlier one is told so (thesis 3.3)."""
        me = self._me
        if message.term == me.term:  # as nearly always; the two that come all the time first
            if isinstance(message, AppendRequest):
                self._hear_leader(message.sender)
                self._following.take(message)
                return
            if isinstance(message, AppendResponse):
                self._replication.take(message)
                return
        if message.term - me.term > MAX_TERM_JUMP:
            return
        if isinstance(message, VoteRequest):
            self._receive_vote_request(message)
            return
        if isinstance(message, VoteResponse) and message.pre and message.granted:
            self._election.count(message)  # it names the term asked about: nobody is there yet
            self._conclude_poll()
            return
        if message.term > me.term:
            self._enter_term(message.term)
            self._receive(message)
        elif message.term < me.term:
            self._tell_term(message)
        elif isinstance(message, VoteResponse):
            self._election.count(message)
            self._conclude_poll()
        elif isinstance(message, SnapshotChunk):
            self._hear_leader(message.sender)
            self._following.take_chunk(message)
        elif isinstance(message, SnapshotResponse):
            self._replication.take_snapshot_answer(message)
        elif isinstance(message, ReadIndexResponse):
            self._asking.take(message)
        elif isinstance(message, ReadIndexRequest):
            self._receive_read(message)
        elif isinstance(message, Stand) and message.sender == me.leader and me.is_voter:
            self._stand(bidden=True)

    def _receive_read(self, request: ReadIndexRequest) -> None:
        """Another member has reads: like our own, but only a leader has anything to say."""
        if self._me.role is Role.LEADER:
            self._reads.waiting.append(request)
        else:
            self._reads.refuse(request)

    def _receive_vote_request(self, request: VoteRequest) -> None:
        if request.pre:
            self._election.answer_pre_vote(request)
            return
        loyal = self._election.is_sticky() and not request.bidden
        if request.term > self._me.term and not loyal:
            self._enter_term(request.term)
        self._election.answer_vote(request)

    def _tell_term(self, message: Message) -> None:
        """An old leader, or who still believes in it, has to learn that its term is over."""
        me = self._me
        if isinstance(message, AppendRequest):
            me.send(AppendResponse(me.term, me.name, message.sender, False, 0, 0))
        elif isinstance(message, SnapshotChunk):
            me.send(SnapshotResponse(me.term, me.name, message.sender, message.index, 0, False))
        elif isinstance(message, ReadIndexRequest):
            self._reads.refuse(message)

    # -- changes of role -----------------------------------------------------------------------

    def _enter_term(self, term: int) -> None:
        """Somebody is in a later term: follow there, without a vote and without a leader."""
        self._step_down()
        self._asking.fail()
        self._me.enter_term(term)
        self._following.enter_term()

    def _step_down(self) -> None:
        """Be a follower, in the same term and bound by the same vote (H2)."""
        me = self._me
        if me.role is Role.LEADER:
            me.leader = None
            me.ready.deposed = True
            me.ready.elected = False
            me.ready.configure = None
            self._reads.fail()
            self._replication.stop()
            self._handover.end()
            self._handover.for_good = False
            self._election.restart_timer()
        me.role = Role.FOLLOWER

    def _hear_leader(self, name: str) -> None:
        """The leader of the current term speaks."""
        self._witness.leads(self._me.term, name)
        self._me.role = Role.FOLLOWER
        self._me.leader = name
        self._election.heard_leader()

    def _poll(self) -> None:
        """Ask whether an election could be won; nobody's term changes by asking."""
        me = self._me
        me.role = Role.PRE_CANDIDATE
        me.leader = None
        self._election.ask(pre=True)
        self._conclude_poll()

    def _conclude_poll(self) -> None:
        """Go one step further if a majority is with us."""
        me = self._me
        if me.role is Role.PRE_CANDIDATE and self._election.won:
            self._stand()
        elif me.role is Role.CANDIDATE and self._election.won:
            me.role = Role.LEADER
            me.leader = me.name
            me.ready.elected = True
            self._witness.leads(me.term, me.name)
            self._replication.start()

    def _stand(self, *, bidden: bool = False) -> None:
        """Be a candidate of the next term."""
        me = self._me
        me.role = Role.CANDIDATE
        self._asking.fail()
        me.enter_term(me.term + 1, vote=me.name)
        self._following.enter_term()
        self._election.ask(pre=False, bidden=bidden)

    # -- handing over --------------------------------------------------------------------------

    def _begin_transfer(self, to: str | None) -> None:
        me = self._me
        under_way = self.handing_over and not self._handover.for_good
        if me.role is not Role.LEADER or me.ready.configure is not None or under_way:
            return  # (one that is repeated must not put the end of it off for ever)
        target = self._replication.best_prepared() if to is None else to
        if target is not None and target != me.name and target in me.membership.voters:
            self._handover.begin(target, me.now + self._options.election_timeout)

    def _hand_over(self, target: str) -> None:
        """Bid the target stand as soon as it has everything; give up when its time is over."""
        me = self._me
        handover = self._handover
        if me.now >= handover.deadline:
            handover.end()
            if handover.for_good:
                self._step_down()
        elif not handover.bidden and self._replication.is_level(target):
            handover.bidden = True
            self._replication.forsake_lease()
            me.send(Stand(me.term, me.name, target))

    # -- changing the members ------------------------------------------------------------------

    def objection(self, wanted: Membership) -> str | None:
        """Why the members cannot be changed to ``wanted`` now, in words; None if they can."""
        me = self._me
        if me.role is not Role.LEADER:
            return f"{me.name} does not lead; the leader is {me.leader}"
        if not self.ready_to_serve or self._handover.target is not None:
            return f"{me.name} has only begun to lead, or is handing over"
        return objection(me, self._replication, wanted)

    def propose_configuration(self, membership: Membership) -> int | None:
        """Take a configuration into the log, as a batch of one entry; like `propose`.

        It is in force from now on. Raises `InvariantViolated` if it may not come next.
        """
        me = self._me
        invariant(
            membership.follows(me.membership) and me.configurations.last_index <= me.commit_index,
            "{} cannot come after {}", membership, me.membership,
        )  # fmt: skip
        base = self.propose(1)
        if base is not None:
            me.configure(base, membership)
            self._replication.follow_membership()
        return base

    def _reconfigure(self, wanted: Membership) -> None:
        me = self._me
        if me.ready.configure is None and self.objection(wanted) is None:
            me.ready.configure = me.membership.towards(wanted)

    def _mind_membership(self) -> None:
        """Go one step further once the last one is committed, or leave if that was its aim."""
        me = self._me
        if me.ready.configure is not None or self.handing_over or not self.ready_to_serve:
            return
        if not has_to_leave(me):
            me.ready.configure = next_step(me, self._replication)
            return
        self._handover.for_good = True
        self._begin_transfer(None)
        if not self.handing_over:
            self._step_down()

    # -- time, and the leader's turn -----------------------------------------------------------

    def _keep_time(self, slept: bool) -> None:
        """Do what is due; after a sleep of our own, hear first what was said meanwhile (H87).

        One sleep is excused, not a habit: a member that is late every time must not lead.
        """
        me = self._me
        if me.role is Role.LEADER:
            if not self._replication.is_due:
                return
            if not slept and not self._replication.has_quorum():
                self._step_down()
            else:
                self._replication.tick(excuse_silence=slept)
        elif me.now >= self._election.deadline:
            if slept:
                self._election.postpone(self._options.heartbeat / 2)
            elif me.is_bound:
                self._election.await_promise()
            elif me.is_voter:
                self._poll()
            else:  # a learner only stops believing in a leader that fell silent
                me.leader = None
                self._election.postpone(NEVER)

    def _lead(self) -> None:
        """Commit, let reads share a round, send, and settle what was confirmed."""
        me = self._me
        self._replication.commit()
        self._mind_membership()
        if self._reads.waiting and self.ready_to_serve:
            self._reads.begin(self._replication.begin_read_round(), me.commit_index)
        self._replication.flush()
        if self._handover.target is not None:
            self._hand_over(self._handover.target)
        if self._reads.asked:
            self._reads.confirmed(self._replication.confirmed_round())
