"""What the leader knows about one peer: how far it got, and how boldly to send.

::

              an answer to the probe: its log matches
      PROBE ------------------------------------------> REPLICATE
       ^ ^  <------------------------------------------   |
       | |       a mismatch, a lost link, silence         |
       | |                                                |
       | '--- the snapshot is installed ---  SNAPSHOT  <--'  what it needs next was compacted
       '-----------------------------------------------^

PROBE sends one request and waits; REPLICATE sends window after window without waiting; SNAPSHOT
sends no entries until the peer has the snapshot. Bookkeeping only: it sends nothing by itself.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from .options import RaftOptions


class ProgressState(enum.Enum):
    """How the leader sends to a peer."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer's progress, for status displays."""

    name: str
    match_index: int
    state: ProgressState


class Progress:
    """One peer, as the leader of the current term sees it."""

    __slots__ = (
        "answering", "asked_round", "commit_told", "heard_at", "in_flight_bytes", "match_index",
        "name", "next_index", "probed", "promised_round", "round", "since_round", "state",
        "transfer_at", "windows",
    )  # fmt: skip

    def __init__(self, name: str, next_index: int, now: float) -> None:
        self.name = name
        self.state = ProgressState.PROBE
        self.match_index = 0  # durable there and equal to our log
        self.next_index = next_index  # the first entry not sent yet
        self.heard_at = now  # of its last answer, in seconds
        self.answering = True  # False: it seems to be gone, so it gets no entries until it answers
        self.round = 0  # the newest round it has answered
        self.promised_round = 0  # the newest for which it has promised what a lease needs
        self.asked_round = 0  # the newest round it was asked
        self.since_round = 0  # answers to earlier rounds say nothing about the present state
        self.commit_told = 0  # the newest commit index it was sent
        self.probed = False  # the one request of PROBE is under way
        self.windows: deque[tuple[int, int]] = deque()  # (last index, bytes) on their way
        self.in_flight_bytes = 0
        self.transfer_at: float | None = None  # of the last sign of a snapshot transfer under way

    def has_room(self, options: RaftOptions) -> bool:
        """Whether one more window may be sent now."""
        if self.state is ProgressState.REPLICATE:
            return (
                len(self.windows) < options.max_inflight
                and self.in_flight_bytes < options.max_inflight_bytes
            )
        return self.state is ProgressState.PROBE and not self.probed

    def sent(self, last_index: int, size: int) -> None:
        """A window up to ``last_index`` leaves; we go on as if it arrived."""
        self.next_index = last_index + 1
        self.windows.append((last_index, size))
        self.in_flight_bytes += size

    def heard(self, round_: int, now: float) -> None:
        """It answered ``round_``."""
        self.heard_at = now
        self.answering = True
        self.round = max(self.round, round_)

    def acknowledge(self, index: int) -> None:
        """Everything up to ``index`` is durable there and equal to our log."""
        self.match_index = max(self.match_index, index)
        self.next_index = max(self.next_index, index + 1)
        while self.windows and self.windows[0][0] <= index:
            self.in_flight_bytes -= self.windows.popleft()[1]

    def matched(self, round_: int) -> None:
        """It accepted a request of ``round_``: if that was the probe, speed up."""
        if self.state is ProgressState.PROBE and self.probed and round_ >= self.since_round:
            self.state = ProgressState.REPLICATE

    def probe(self, next_index: int) -> None:
        """Forget what is on its way and find out, from ``next_index``, where its log matches."""
        self.state = ProgressState.PROBE
        self.next_index = max(next_index, self.match_index + 1)
        self.probed = False
        self.transfer_at = None
        self.windows.clear()
        self.in_flight_bytes = 0

    def need_snapshot(self) -> None:
        """What it needs next was compacted."""
        if self.state is not ProgressState.SNAPSHOT:
            self.probe(self.next_index)
            self.state = ProgressState.SNAPSHOT

    def lost(self) -> None:
        """The link broke or the peer fell silent: send no entries until it answers again.

        If it never acknowledged anything to this leader, only its next answer tells where it is:
        probing from the beginning would match, and resend the whole log.
        """
        self.probe(self.match_index + 1 if self.match_index else self.next_index)
        self.answering = False

    def status(self) -> PeerStatus:
        """For displays."""
        return PeerStatus(self.name, self.match_index, self.state)
