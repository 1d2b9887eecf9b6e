"""A disk that is full or does not answer: what a member still takes, and its way out (H61, H69).

A member whose disk is full goes on to vote, to hear and send heartbeats and to answer reads. As a
follower it counts entries that find no room as lost on the way; as a leader it refuses commands,
tries to cut the log by a snapshot, and lets another member lead if one can. So does a leader whose
disk takes half an election timeout for a write: the others commit without it, but it cannot keep
for ever what it has not written. It decides nothing about elections and does nothing by itself: the
member asks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Set

from ..raft import Raft
from ..raft.inputs import Input, Receive
from ..raft.messages import AppendRequest
from .store import Store

REST_S = 60.0
"""Seconds between two attempts to cut the log by a snapshot."""
HANDOVER_REST_S = 20.0
"""Seconds between two attempts to let another member lead; each costs an entry in the full logs."""

log = logging.getLogger("copycat.member")


class Shortage:
    """One member's view of its disk. A write that takes ``patience`` seconds is stuck."""

    def __init__(self, store: Store, patience: float) -> None:
        self._store = store
        self._patience = patience
        self._writes_since = 0.0
        self._next_attempt = -math.inf
        self._next_handover = -math.inf

    def fitting(self, inputs: list[Input], commit_index: int) -> list[Input]:
        """``inputs`` without the entries that find no room.

        Nothing of them is acknowledged, and the leader sends them again with its heartbeats, which
        are heard as ever.
        """
        kept: list[Input] = []
        lengths: list[int] = []
        replaces = False
        for input_ in inputs:
            request = input_.message if isinstance(input_, Receive) else None
            if isinstance(request, AppendRequest) and request.images:
                log_ = self._store.log
                new = [
                    (len(image), span.base_index <= log_.last_index)
                    for span, image in zip(request.spans, request.images, strict=True)
                    if span.last_index > commit_index and log_.term_at(span.last_index) != span.term
                ]
                wanted = lengths + [length for length, _ in new]
                replaces = replaces or any(replaced for _, replaced in new)
                if new and not self._store.make_room(wanted, after_cut=replaces):
                    continue
                lengths = wanted
            kept.append(input_)
        return kept

    def attempt_is_due(self, now: float) -> bool:
        """Whether to try a snapshot at local time ``now``; True once in a while only."""
        if now < self._next_attempt:
            return False
        self._next_attempt = now + REST_S
        return True

    def handover_is_due(self, now: float) -> bool:
        """Whether to look for another leader at local time ``now``; True once in a while only."""
        if now < self._next_handover:
            return False
        self._next_handover = now + HANDOVER_REST_S
        return True

    def wrote(self, now: float) -> None:
        """A write began at local time ``now`` (s)."""
        self._writes_since = now

    def is_stuck(self, now: float) -> bool:
        """Whether a write is under way for too long at local time ``now`` (s)."""
        return self._store.writing and now - self._writes_since > self._patience

    def report(self, name: str) -> None:
        """Say that ``name`` is read-only."""
        log.error(
            "%s is read-only: %s. It resumes by itself when there is space", name, self._store.full
        )

    def heirs(self, raft: Raft, peers_up: Set[str]) -> list[str]:
        """Who could lead instead of a leader; of a follower nobody."""
        return [
            peer.name
            for peer in raft.progress_of()
            if peer.name in peers_up
            and peer.name in raft.membership.voters
            and peer.match_index >= raft.commit_index
        ]
