"""No read by a lease is ever stale, whatever happens to clocks, votes and memories (H29).

Those who say so are tested as well: each way to get leases wrong has to be noticed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from copycat.raft import Raft, RaftOptions
from copycat.raft.election import Election
from copycat.raft.leases import Lease
from copycat.raft.messages import VoteRequest
from copycat.raft.progress import Progress
from copycat.raft.replication import Replication
from copycat.raft.standing import Standing

from .leased_lives import LeasedLife

LIVES = 30
CAUGHT_WITHIN = 100  # lives

Break = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("seed", range(LIVES), ids=lambda seed: f"seed_{seed}")
def test_no_read_by_a_lease_is_stale(seed: int) -> None:
    """Who answers by a lease knows of everything that anybody had committed before the read."""
    LeasedLife(seed).live()


def test_the_lives_are_full_of_coups() -> None:
    """Leaders are overthrown all the time, and most reads are served by leases."""
    coups = terms = leased = served = 0
    for seed in range(10):
        life = LeasedLife(seed)
        life.live()
        coups += life.coups
        terms += max(life.checks.leaders)
        leased += life.checks.leased_reads
        served += life.checks.served
    assert coups > 40
    assert terms > 40
    assert leased > served / 2 > 1000


# -- what would be wrong ---------------------------------------------------------------------------


def from_receipt(patch: pytest.MonkeyPatch) -> None:
    """The lease counts from when the answers came."""
    take = Replication._take_promise

    def late(self: Replication, peer: Progress, round_: int) -> None:
        before = self._lease.until
        take(self, peer, round_)
        if self._lease.until != before:
            self._lease.until = self._me.now + self._lease._span

    patch.setattr(Replication, "_take_promise", late)


def without_drift(patch: pytest.MonkeyPatch) -> None:
    """The lease is as long as the promises."""
    begin = Lease.__init__

    def init(self: Lease, options: RaftOptions) -> None:
        begin(self, options)
        self._span = options.election_timeout

    patch.setattr(Lease, "__init__", init)


def too_long(patch: pytest.MonkeyPatch) -> None:
    """The lease outlasts the promises."""
    begin = Lease.__init__

    def init(self: Lease, options: RaftOptions) -> None:
        begin(self, options)
        self._span = 1.2 * options.election_timeout

    patch.setattr(Lease, "__init__", init)


def in_a_hurry(patch: pytest.MonkeyPatch) -> None:
    """Who knows that the leader is gone waits for no promise."""
    bound = Standing.is_bound.fget
    assert bound is not None
    patch.setattr(
        Standing, "is_bound", property(lambda self: self.leader is not None and bound(self))
    )


def forgetful(patch: pytest.MonkeyPatch) -> None:
    """A promise does not survive a restart."""
    promise = Standing.promise

    def volatile(self: Standing, microseconds: int) -> None:
        promise(self, microseconds)
        self.promise_us = 0

    patch.setattr(Standing, "promise", volatile)


def generous(patch: pytest.MonkeyPatch) -> None:
    """A promise keeps one from standing, and from nothing else."""
    for name in ("is_sticky", "answer_vote"):
        _unbind(patch, name, getattr(Election, name))


def _unbind(patch: pytest.MonkeyPatch, name: str, method: Callable[..., object]) -> None:
    def unbound(self: Election, *request: VoteRequest) -> object:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Standing, "is_bound", property(lambda self: False))
            return method(self, *request)

    patch.setattr(Election, name, unbound)


def through_a_transfer(patch: pytest.MonkeyPatch) -> None:
    """Who bids somebody stand asks for another lease while he does."""
    patch.setattr(Lease, "forsake", Lease.lapse)


def kept_in_a_transfer(patch: pytest.MonkeyPatch) -> None:
    """Who bids somebody stand keeps his lease."""
    patch.setattr(Lease, "forsake", lambda self: None)


def through_a_sleep(patch: pytest.MonkeyPatch) -> None:
    """Time that the clock did not count is no time."""
    patch.setattr(Raft, "slept", lambda self: None)


def by_anybody(patch: pytest.MonkeyPatch) -> None:
    """One promise is enough."""
    patch.setattr(
        Replication, "_take_promise", lambda self, peer, round_: self._lease.promised(round_)
    )


def too_early(patch: pytest.MonkeyPatch) -> None:
    """A leader serves before an entry of its own term is committed (H11)."""
    patch.setattr(Raft, "ready_to_serve", property(lambda self: self.is_leader))


@pytest.mark.parametrize(
    ("break_it", "seed"),
    [
        (from_receipt, 11),
        (without_drift, 0),
        (too_long, 0),
        (in_a_hurry, 0),
        (forgetful, 1),
        (generous, 8),
        (through_a_transfer, 1),
        (kept_in_a_transfer, 1),
        (through_a_sleep, 4),
        (by_anybody, 17),
        (too_early, 10),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_leases_are_noticed(
    break_it: Break, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lives notice each way in which leases can be wrong; ``seed`` is known to."""
    break_it(monkeypatch)
    assert any(is_stale(seed + nth) for nth in range(CAUGHT_WITHIN))


def is_stale(seed: int) -> bool:
    """Whether a life finds a stale read."""
    try:
        LeasedLife(seed).live()
    except AssertionError as found:
        return "was committed before it" in str(found)
    return False
