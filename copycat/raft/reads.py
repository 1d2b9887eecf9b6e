"""Linearizable reads without a log entry: ReadIndex (thesis 6.4).

A read may be served from the state at the commit index it found when it arrived, once a quorum has
answered a round that began afterwards: then nobody else can have led, and committed more, before
the read arrived. Holds identifiers and indexes only; whom to ask is ``replication``'s business.
"""

from __future__ import annotations

from collections import deque


class Reads:
    """The reads of one leadership that have not been confirmed yet."""

    __slots__ = ("asked", "waiting")

    def __init__(self) -> None:
        self.waiting: list[int] = []  # not in a round yet
        self.asked: deque[tuple[int, int, list[int]]] = deque()  # (round, index, ids), in order

    def begin(self, round_: int, index: int) -> None:
        """All waiting reads share ``round_``, which nobody has been asked yet (H27, H28)."""
        self.asked.append((round_, index, self.waiting))
        self.waiting = []

    def confirmed(self, round_: int) -> list[tuple[int, int]]:
        """A quorum answered ``round_`` or a later one: (id, index) of the reads it settles."""
        settled: list[tuple[int, int]] = []
        while self.asked and self.asked[0][0] <= round_:
            _, index, ids = self.asked.popleft()
            settled.extend((id_, index) for id_ in ids)
        return settled

    def fail(self) -> list[int]:
        """Give up: the ids of all reads, in the order of their arrival."""
        failed = [id_ for _, _, ids in self.asked for id_ in ids] + self.waiting
        self.asked.clear()
        self.waiting = []
        return failed
