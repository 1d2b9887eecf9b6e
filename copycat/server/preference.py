"""Who should lead if several could: the leader hands over to a peer of higher priority.

A wish, never a rule: elections do not look at it, so no priority can keep a cluster without a
leader. A leader that has served for a while and sees a connected voter of higher priority that is
level hands its leadership over. If leadership comes back soon (the preferred member has a full
disk, or a bad network), the next attempt waits twice as long. It serves the `Member`; it knows no
clock and decides nothing about elections.
"""

from __future__ import annotations

from collections.abc import Set

from ..raft import Raft

SERVED_TIMEOUTS = 2.0
"""Election timeouts for which a leader serves before it hands over for the first time."""
RETURN_TIMEOUTS = 120.0
"""Leadership that comes back within so many election timeouts came back soon."""
REST_TIMEOUTS_MAX = 600.0


class Preference:
    """The priorities of a member and of its peers.

    Args:
        priority: of this member; the highest should lead.
        election_timeout: in seconds; all waiting is measured in it.
    """

    def __init__(self, priority: int, election_timeout: float) -> None:
        self._own = priority
        self._timeout = election_timeout
        self._higher: dict[str, int] = {}  # peers that should rather lead
        self._rest = SERVED_TIMEOUTS * election_timeout
        self._next_at: float | None = None  # local time of the next attempt; None: not leading
        self._handed_at: float | None = None

    def heard(self, peer: str, priority: int) -> None:
        """``peer`` said what its priority is."""
        if priority > self._own:
            self._higher[peer] = priority
        else:
            self._higher.pop(peer, None)

    def heir(self, raft: Raft, peers_up: Set[str], now: float) -> str | None:
        """Whom to hand over to at local time ``now`` (s), if anybody; asked once a turn."""
        if not self._higher:
            return None
        if not raft.ready_to_serve:
            self._next_at = None
            return None
        if self._next_at is None:
            self._began(now)
        if self._next_at is None or now < self._next_at or raft.handing_over:
            return None
        self._next_at = now + self._rest
        heir = self._best(raft, peers_up)
        if heir is not None:
            self._handed_at = now
        return heir

    def _began(self, now: float) -> None:
        """A leadership begins: perhaps one that was handed over and came back."""
        soon = RETURN_TIMEOUTS * self._timeout
        if self._handed_at is not None and now - self._handed_at < max(soon, 2 * self._rest):
            self._rest = min(2 * self._rest, REST_TIMEOUTS_MAX * self._timeout)
        else:
            self._rest = SERVED_TIMEOUTS * self._timeout
        self._next_at = now + self._rest

    def _best(self, raft: Raft, peers_up: Set[str]) -> str | None:
        able = [
            (self._higher[peer.name], peer.match_index, peer.name)
            for peer in raft.progress_of()
            if peer.name in self._higher
            and peer.name in peers_up
            and peer.name in raft.membership.voters
            and peer.match_index >= raft.commit_index
        ]
        return max(able)[2] if able else None
