"""Single steps of a single core: rules that are easier to say than to provoke in a cluster."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantViolated
from copycat.ports import Random
from copycat.raft import HardState, Membership, Raft, RaftOptions, Ready, Role, Trail
from copycat.raft.inputs import (
    Campaign,
    Compacted,
    Durable,
    Input,
    Installed,
    Read,
    Receive,
    Saved,
)
from copycat.raft.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    SnapshotChunk,
    SnapshotResponse,
    Span,
    Stand,
    VoteRequest,
    VoteResponse,
)

from .toydisk import ToyLog

THREE = Membership(("n1", "n2", "n3"))


class Member:
    """One core named n1 and the shortest way to talk to it."""

    def __init__(
        self,
        term: int = 1,
        vote: str | None = None,
        trail: Trail | None = None,
        commit_index: int = 0,
        membership: Membership = THREE,
        promise_us: int = 0,
        owes: int = 0,
        **options: int,
    ) -> None:
        self.now = 0.0
        self.log = ToyLog()
        self.raft = Raft(
            "n1", (0, membership), HardState(term, vote, promise_us, owes),
            trail or Trail(), self.log, RaftOptions(**options),
            Random(1), self.now, commit_index,
        )  # fmt: skip

    def step(self, *inputs: Input | Message) -> Ready:
        """Messages may be given as they are."""
        wrapped = [Receive(i) if isinstance(i, Message) else i for i in inputs]
        return self.raft.step(self.now, wrapped)

    def plays(self, role: Role) -> bool:
        """Whether that is its role now."""
        return self.raft.role is role

    def expire(self) -> Ready:
        """Wait until something is due."""
        self.now = self.step().wake_at
        return self.step()

    def propose(self, count: int) -> int:
        """As a member does."""
        base = self.raft.propose(count)
        assert base is not None
        self.log.append(Span(base, base + count - 1, self.raft.term), b"%d" % base)
        return base

    def lead(self) -> Ready:
        """Through an election, its no-op proposed and durable."""
        self.expire()
        asked = self.raft.term + 1
        self.step(VoteResponse(asked, "n2", "n1", True, True))
        assert self.plays(Role.CANDIDATE)
        self.step(Saved(asked, "n1"), VoteResponse(asked, "n2", "n1", True, False))
        self.propose(1)
        return self.step(Durable(self.raft.last_index))


def append(term: int, prev: tuple[int, int], *spans: Span, sender: str = "n2") -> AppendRequest:
    """A request with its images."""
    last = spans[-1].last_index if spans else prev[0]
    images = tuple(f"{span}".encode() for span in spans)
    return AppendRequest(term, sender, "n1", *prev, last, 0, 1, spans, images)


def test_a_poisoned_term_is_not_believed() -> None:
    """A message from an absurdly late term changes nothing and gets no answer (H34)."""
    member = Member(term=7)
    for pre in (True, False):
        ready = member.step(VoteRequest(8 + (1 << 32), "n2", "n1", 9, 9, pre))
        assert not ready.messages
    ready = member.step(AppendResponse(8 + (1 << 32), "n2", "n1", False, 0, 0))
    assert member.raft.term == 7
    assert ready.hard_state is None
    member.step(AppendResponse(7 + (1 << 32), "n2", "n1", False, 0, 0))
    assert member.raft.term == 7 + (1 << 32)


def test_a_vote_survives_a_step_down_in_the_same_term() -> None:
    """Only a later term frees the vote (H2): the rival of the same term is refused."""
    member = Member()
    member.lead()
    while member.plays(Role.LEADER):
        ready = member.expire()
    assert ready.deposed
    assert member.plays(Role.FOLLOWER)
    assert member.raft.vote == "n1"
    ready = member.step(VoteRequest(2, "n3", "n1", 99, 99, False))
    assert ready.messages == [VoteResponse(2, "n1", "n3", False, False)]


def test_a_vote_is_repeated_for_the_same_candidate_only() -> None:
    """A lost answer is given again; a second candidate of the term is refused."""
    member = Member()
    ready = member.step(VoteRequest(2, "n2", "n1", 0, 0, False))
    assert ready.hard_state == HardState(2, "n2")
    again = member.step(VoteRequest(2, "n2", "n1", 0, 0, False))
    other = member.step(VoteRequest(2, "n3", "n1", 5, 2, False))
    assert again.messages == [VoteResponse(2, "n1", "n2", True, False)]
    assert other.messages == [VoteResponse(2, "n1", "n3", False, False)]
    assert other.hard_state is None


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(9, 2, False), (1, 4, True), (5, 3, True), (4, 3, False), (6, 3, True)],
)
def test_a_vote_needs_a_log_that_is_not_behind(
    last_index: int, last_term: int, granted: bool
) -> None:
    """The later last term wins; within one term the longer log (H4)."""
    for pre in (True, False):
        member = Member(term=3, trail=Trail(0, 0, [(1, 1), (4, 3)], 5))
        ready = member.step(VoteRequest(4, "n2", "n1", last_index, last_term, pre))
        answer = ready.messages[0]
        assert isinstance(answer, VoteResponse)
        assert answer.granted is granted


def test_answers_of_other_polls_are_not_counted() -> None:
    """Not those of an earlier term, not pre-votes for votes, not refusals, not twice (H3)."""
    five = Membership(("n1", "n2", "n3", "n4", "n5"))
    member = Member(membership=five)
    member.expire()
    assert member.plays(Role.PRE_CANDIDATE)
    stale = [VoteResponse(1, name, "n1", True, True) for name in ("n2", "n3", "n4")]
    member.step(*stale)
    assert member.plays(Role.PRE_CANDIDATE)
    member.step(*[VoteResponse(2, name, "n1", True, True) for name in ("n2", "n3")])
    assert member.plays(Role.CANDIDATE)
    member.step(Saved(2, "n1"))
    member.step(
        VoteResponse(2, "n2", "n1", True, False),
        VoteResponse(2, "n2", "n1", True, False),
        VoteResponse(2, "n3", "n1", False, False),
        VoteResponse(3, "n4", "n1", True, True),
        VoteResponse(1, "n4", "n1", True, False),
    )
    assert member.plays(Role.CANDIDATE)
    assert member.step(VoteResponse(2, "n5", "n1", True, False)).elected


def test_the_own_vote_counts_only_when_saved() -> None:
    """Nothing short of the very term and vote being durable elects a lone voter (H1)."""
    member = Member(membership=Membership(("n1",)))
    ready = member.step()
    assert ready.hard_state == HardState(2, "n1")
    assert member.plays(Role.CANDIDATE)
    assert not member.step(Saved(1, "n1")).elected
    assert not member.step(Saved(2, None)).elected
    assert member.step(Saved(2, "n1")).elected


def windows(ready: Ready, peer: str) -> list[AppendRequest]:
    """The requests with entries for ``peer``."""
    return [
        message
        for message in ready.messages
        if isinstance(message, AppendRequest)
        and message.to == peer
        and message.last_index > message.prev_index
    ]


def test_only_so_many_windows_are_under_way() -> None:
    """Nothing is sent before the probe is answered, then eight windows, then one per answer."""
    member = Member(max_append_bytes=1)
    member.lead()
    for _ in range(12):
        member.propose(1)
        assert not windows(member.step(), "n2")
    ready = member.step(AppendResponse(2, "n2", "n1", True, 0, 1))
    assert [window.last_index for window in windows(ready, "n2")] == [2, 3, 4, 5, 6, 7, 8]
    assert not windows(ready, "n3")
    ready = member.step(AppendResponse(2, "n2", "n1", True, 3, 1))
    assert [window.last_index for window in windows(ready, "n2")] == [9, 10, 11]


def test_only_so_many_bytes_are_under_way() -> None:
    """A window may cross the limit of bytes, no further one leaves until there is room again."""
    member = Member(max_append_bytes=1, max_inflight_bytes=3)
    member.lead()
    for _ in range(5):
        member.propose(1)  # images of one byte
    ready = member.step(AppendResponse(2, "n2", "n1", True, 0, 1))
    assert [window.last_index for window in windows(ready, "n2")] == [2, 3]
    ready = member.step(AppendResponse(2, "n2", "n1", True, 2, 1))
    assert [window.last_index for window in windows(ready, "n2")] == [4, 5]


def test_a_window_holds_as_much_as_allowed() -> None:
    """What gathered while the windows were full leaves in one request."""
    member = Member(max_inflight=1)
    member.lead()
    ready = member.step(AppendResponse(2, "n2", "n1", True, 1, 1))
    member.propose(1)
    assert [window.last_index for window in windows(member.step(), "n2")] == [2]
    for _ in range(5):
        member.propose(3)
        assert not windows(member.step(), "n2")
    ready = member.step(AppendResponse(2, "n2", "n1", True, 2, 1))
    assert [(w.prev_index, w.last_index) for w in windows(ready, "n2")] == [(2, 17)]


def test_facts_come_before_news() -> None:
    """A sync that ended before this step says nothing about what this step replaces (H17)."""
    member = Member(trail=Trail(0, 0, [(1, 1)], 1), commit_index=1)
    member.step(append(1, (1, 1), Span(2, 4, 1)))
    ready = member.step(append(2, (1, 1), Span(2, 4, 2), sender="n3"), Durable(4))
    assert ready.truncate_from == 2
    answer = ready.messages[-1]
    assert isinstance(answer, AppendResponse)
    assert answer.match_index == 1
    ready = member.step(Durable(4))
    answer = ready.messages[-1]
    assert isinstance(answer, AppendResponse)
    assert answer.match_index == 4


def test_what_a_step_staged_itself_is_taken_back_quietly() -> None:
    """Two leaders in one step: the first one's entries never reach the log, which is not cut."""
    member = Member(trail=Trail(0, 0, [(1, 1)], 1), commit_index=1)
    ready = member.step(
        append(2, (1, 1), Span(2, 3, 2), Span(4, 4, 2), sender="n2"),
        append(3, (3, 2), Span(4, 6, 3), sender="n3"),
    )
    assert ready.truncate_from is None
    assert ready.append == [f"{Span(2, 3, 2)}".encode(), f"{Span(4, 6, 3)}".encode()]
    assert member.raft.last_index == 6

    ready = member.step(
        append(4, (3, 2), Span(4, 4, 4), sender="n2"),
        append(5, (1, 1), Span(2, 2, 5), sender="n3"),
    )
    assert ready.truncate_from == 2
    assert ready.append == [f"{Span(2, 2, 5)}".encode()]
    assert member.raft.last_index == 2


def test_an_earlier_leader_is_told_nothing_that_has_to_go() -> None:
    """In one step: all matches leader 3, then leader 4 has another entry 3. Only 4 hears (H7)."""
    member = Member(term=3, trail=Trail(0, 0, [(1, 1)], 5))
    ready = member.step(append(3, (5, 1)), append(4, (2, 1), Span(3, 3, 4), sender="n3"))
    assert ready.truncate_from == 3
    told = [each for each in ready.messages if isinstance(each, AppendResponse)]
    assert all((each.to, each.term) == ("n3", 4) for each in told)


def test_an_older_snapshot_changes_nothing() -> None:
    """What is committed beyond it stays, and the leader is told to go on (H19)."""
    member = Member(trail=Trail(0, 0, [(1, 1)], 5), commit_index=4)
    member.step(append(1, (5, 1)))
    ready = member.step(SnapshotChunk(1, "n2", "n1", 3, 1, 0, 9))
    assert not ready.chunks
    assert ready.messages == [SnapshotResponse(1, "n1", "n2", 3, 0, True)]
    assert not member.raft.snapshot_replaces_log(3, 1)
    ready = member.step(Installed(3, 1, (0, THREE)))
    assert (ready.commit_index, member.raft.last_index) == (4, 5)


def test_a_snapshot_keeps_only_what_it_proves() -> None:
    """A log that holds the snapshot's last entry keeps its suffix; any other one goes (H20)."""
    member = Member(term=2, trail=Trail(0, 0, [(1, 1), (4, 2)], 6))
    assert not member.raft.snapshot_replaces_log(5, 2)
    ready = member.step(Installed(5, 2, (0, THREE)))
    assert (ready.commit_index, member.raft.last_index) == (5, 6)
    member.step(Compacted(5, 2))

    member = Member(term=3, trail=Trail(0, 0, [(1, 1), (4, 2)], 6))
    assert member.raft.snapshot_replaces_log(5, 3)
    ready = member.step(Installed(5, 3, (0, THREE)))
    assert (ready.commit_index, member.raft.last_index, member.raft.durable_index) == (5, 5, 5)


def test_truncating_what_is_committed_stops_the_member() -> None:
    """A leader that contradicts committed entries is a bug that must not spread (H10)."""
    member = Member(term=2, trail=Trail(0, 0, [(1, 1)], 3), commit_index=3)
    with pytest.raises(InvariantViolated):
        member.step(append(2, (3, 2)))


def test_two_leaders_of_one_term_stop_the_member() -> None:
    """Election safety is watched by everybody."""
    member = Member(term=2)
    member.step(append(2, (0, 0), sender="n2"))
    with pytest.raises(InvariantViolated):
        member.step(append(2, (0, 0), sender="n3"))


def test_durable_beyond_the_log_stops_the_member() -> None:
    """A completion for entries that are gone must have been dropped by the store (H17)."""
    member = Member()
    with pytest.raises(InvariantViolated):
        member.step(Durable(1))


def test_a_leader_serves_reads_only_after_its_first_commit() -> None:
    """Until then they wait; if it is deposed first, they fail (H11, H25)."""
    member = Member()
    ready = member.lead()
    assert not member.raft.ready_to_serve
    ready = member.step(Read(1), Read(2))
    assert not ready.reads
    assert not ready.reads_failed
    ready = member.step(AppendResponse(9, "n3", "n1", False, 0, 0))
    assert ready.deposed
    assert list(ready.reads_failed) == [1, 2]
    assert ready.hard_state == HardState(9, None)
    assert member.raft.propose(1) is None


def test_one_sleep_is_excused_but_not_a_habit() -> None:
    """A leader that is late every time gives up like any other that hears of nobody (H87)."""
    member = Member()
    member.lead()
    member.now += 3.0
    assert not member.step().deposed
    member.now += 3.0
    assert member.step().deposed


def test_time_that_goes_back_is_ignored() -> None:
    """Timers only ever run forward (H70)."""
    member = Member()
    member.now = 0.9
    before = member.step().wake_at
    member.now = 0.1
    assert member.step().wake_at == before


def test_the_same_inputs_give_the_same_steps() -> None:
    """Nothing but inputs, time and the seed decides."""

    def history() -> list[Ready]:
        member = Member()
        member.lead()
        steps = [member.step(Read(1)), member.step(AppendResponse(2, "n2", "n1", True, 1, 1))]
        member.now += 0.2
        return [*steps, member.step()]

    assert history() == history()


def test_a_freshly_founded_cluster_need_not_wait_for_a_timeout() -> None:
    """Before the first term a member told to campaign asks at once, by a pre-vote; later never."""
    fresh = Member(term=0)
    asked = fresh.step(Campaign()).messages
    assert [(m.to, m.pre) for m in asked if isinstance(m, VoteRequest)] == [
        ("n2", True),
        ("n3", True),
    ]
    assert fresh.raft.term == 0
    grown = Member(term=1)
    assert grown.step(Campaign()).messages == []


def asking(round_: int, lease_us: int = 1_000_000) -> AppendRequest:
    """An empty request of n2 in term 2 that asks for a promise."""
    return AppendRequest(2, "n2", "n1", 0, 0, 0, 0, round_, lease_us=lease_us)


def answers(ready: Ready) -> list[tuple[int, bool]]:
    """(round, promised) of the answers to requests."""
    return [(m.round, m.promised) for m in ready.messages if isinstance(m, AppendResponse)]


def test_a_promise_is_kept_in_every_term() -> None:
    """Whoever promised votes for nobody until then, also in a term that it came to otherwise, but
    does what the leader itself asks for (H29)."""
    for bidden in (False, True):
        member = Member(term=2)
        assert answers(member.step(asking(1))) == [(1, True)]
        member.step(AppendResponse(3, "n3", "n1", False, 0, 0))
        assert member.raft.term == 3
        member.now = 0.99
        ready = member.step(VoteRequest(3, "n3", "n1", 9, 2, False, bidden))
        assert ready.messages == [VoteResponse(3, "n1", "n3", bidden, False)]
        member.now = 1.0
        ready = member.step(VoteRequest(3, "n3", "n1", 9, 2, False))
        assert ready.messages == [VoteResponse(3, "n1", "n3", True, False)]


def test_a_promise_is_on_disk_before_anybody_hears_of_it() -> None:
    """The first promise of a term changes the hard state, the next ones do not; a later term
    forgets it when it has run out, and not before."""
    member = Member(term=2)
    assert member.step(asking(1)).hard_state == HardState(2, None, 1_000_000)
    member.now = 0.5
    assert member.step(asking(2)).hard_state is None
    ready = member.step(AppendResponse(3, "n3", "n1", False, 0, 0))
    assert ready.hard_state == HardState(3, None, 1_000_000)
    member.now = 1.5
    ready = member.step(AppendResponse(4, "n3", "n1", False, 0, 0))
    assert ready.hard_state == HardState(4, None, 0)


def test_only_the_newest_round_can_ask_for_a_promise() -> None:
    """An answer says ``promised`` only if its own round asked, or a repetition of it; a request
    from earlier does not make a promise longer."""
    member = Member(term=2)
    assert answers(member.step(asking(1, 0))) == [(1, False)]
    assert answers(member.step(asking(2))) == [(2, True)]
    assert answers(member.step(asking(3, 0))) == [(3, False)]
    member.now = 0.5
    assert answers(member.step(asking(2))) == []
    assert answers(member.step(asking(4), asking(5, 0))) == [(5, False)]
    assert answers(member.step(asking(7, 0), asking(6))) == [(7, False)]
    assert answers(member.step(asking(8), asking(7))) == [(8, True)]


def test_nobody_promises_more_than_his_own_patience() -> None:
    """A leader that was set to be more patient gets no promise: no election waits so long."""
    member = Member(term=2)
    assert answers(member.step(asking(1, 1_000_001))) == [(1, False)]
    assert member.step(VoteRequest(3, "n3", "n1", 9, 2, False, True)).messages


def test_a_longer_promise_of_an_earlier_life_is_kept() -> None:
    """What was promised under other settings counts, by what is written down of it."""
    member = Member(term=2, promise_us=3_000_000)
    member.now = 2.9
    member.step()
    assert member.plays(Role.FOLLOWER)
    ready = member.step(VoteRequest(3, "n3", "n1", 9, 2, False))
    assert ready.messages == [VoteResponse(2, "n1", "n3", False, False)]
    member.now = 3.1
    member.step()
    assert member.plays(Role.PRE_CANDIDATE)


# -- a part of the log is lost -----------------------------------------------------------------


def test_who_lost_entries_lets_others_elect_until_it_has_a_new_leaders() -> None:
    """No vote, no pre-vote, no candidacy, not even a bidden one; then everything again (H57)."""
    trail = Trail(0, 0, [(1, 1)], 4)
    member = Member(term=6, owes=6, trail=trail)
    assert member.raft.abstains
    for term, pre in ((7, True), (7, False)):
        (answer,) = member.step(VoteRequest(term, "n2", "n1", 90, 5, pre)).messages
        assert isinstance(answer, VoteResponse) and not answer.granted
    for _ in range(4):
        member.now += 10
        assert not member.step().messages
    assert member.plays(Role.FOLLOWER)
    member.step(append(7, (4, 1), Span(5, 5, 3)), Durable(4))
    member.step(Durable(5))  # of an earlier term: other entries may have been there once
    member.step(Stand(7, "n2", "n1"))
    assert member.plays(Role.FOLLOWER) and member.raft.abstains
    ready = member.step(append(7, (5, 3), Span(6, 6, 7)))
    assert member.raft.abstains and ready.hard_state is None  # it is not on disk yet
    ready = member.step(Durable(6))
    assert not member.raft.abstains
    assert ready.hard_state == HardState(7, None, 0, 0)
    member.now += 10
    (answer,) = member.step(VoteRequest(8, "n2", "n1", 6, 7, True)).messages
    assert isinstance(answer, VoteResponse) and answer.granted


def test_a_snapshot_of_a_new_leader_pays_as_well() -> None:
    """A snapshot that ends in a later term holds all that was lost."""
    member = Member(term=6, owes=6)
    member.step(append(7, (0, 0)))
    ready = member.step(Installed(40, 7, (0, THREE)))
    assert not member.raft.abstains
    assert ready.hard_state == HardState(7, None, 0, 0)


def test_an_older_snapshot_does_not() -> None:
    """What follows it may have been acknowledged and lost."""
    member = Member(term=6, owes=6)
    member.step(append(7, (0, 0)))
    member.step(Installed(40, 5, (0, THREE)))
    assert member.raft.abstains
