"""Leadership transfer: the leader lets a follower catch up and bids it stand (thesis 3.10).

While one is under way the leader takes no proposals, so that the target can draw level; if it does
not win within an election timeout, the leader goes on as before. What the target does when it is
bidden stands in ``raft``. Bookkeeping only: it sends nothing by itself.
"""

from __future__ import annotations

NEVER = float("inf")


class Handover:
    """The transfer of one leadership, if one is under way."""

    __slots__ = ("bidden", "deadline", "for_good", "target")

    def __init__(self) -> None:
        self.target: str | None = None
        self.bidden = False  # it was told to stand
        self.deadline = NEVER  # local time at which we give up
        self.for_good = False  # the leader is no voter any more: it leaves even if this fails

    def begin(self, target: str, deadline: float) -> None:
        """``target`` shall lead, by ``deadline``; an earlier transfer is forgotten."""
        self.target = target
        self.bidden = False
        self.deadline = deadline

    def end(self) -> None:
        """It succeeded, failed, or lost its meaning."""
        self.target = None
        self.deadline = NEVER
