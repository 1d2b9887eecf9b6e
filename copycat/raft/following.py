"""The follower's half of replication: take over what the leader sends, acknowledge what is durable.

A log is cut only where its terms really conflict with the leader's, never because a request is
short or old (H9), and never at or below the commit index (H10). All requests of a step are
answered together at its end, from what the log holds then. Never looks into images.
"""

from __future__ import annotations

from ..errors import invariant
from .messages import AppendRequest, AppendResponse, SnapshotChunk, SnapshotResponse
from .options import RaftOptions
from .standing import Standing


class Following:
    """What a member knows about the leader of the current term."""

    def __init__(self, standing: Standing, options: RaftOptions) -> None:
        self._me = standing
        self._promise_max_us = options.election_timeout_us
        self._matched = 0
        self._acknowledged = 0
        self._round = 0
        self._answered_round = 0
        self._promised_round = -1
        self._missing: tuple[int, int] | None = None
        self.enter_term()

    def enter_term(self) -> None:
        """A new term began, so what matched the last leader's log proves nothing.

        Only what is committed is certainly in the log of every later leader (thesis 3.6.3).
        """
        self._matched = self._me.commit_index
        self._acknowledged = self._matched
        self._round = 0
        self._answered_round = 0
        self._promised_round = -1
        self._missing = None

    def take(self, request: AppendRequest) -> None:
        """Match, append and commit what a request of the current leader allows."""
        me = self._me
        if request.round >= self._round:
            self._round = request.round
            # A leader that is more patient than we are must not make an election wait so long.
            if 0 < request.lease_us <= self._promise_max_us:
                me.promise(request.lease_us)
                self._promised_round = request.round
        if not self._matches(request.prev_index, request.prev_term):
            self._missing = (request.prev_index, request.prev_term)
            return
        for span, image in zip(request.spans, request.images, strict=True):
            if span.last_index <= me.commit_index:
                continue
            if span.base_index <= me.trail.last_index:
                if me.trail.term_at(span.base_index) == span.term:
                    invariant(
                        me.trail.holds(span.last_index, span.term),
                        f"half of the batch {span} is here: a batch is whole or absent",
                    )
                    continue
                me.truncate(span.base_index)
            me.append(span, image)
        self._matched = max(self._matched, request.last_index)
        # H8: nothing is committed here beyond what is known to equal the leader's log.
        me.commit(min(request.commit_index, self._matched))

    def _matches(self, index: int, term: int) -> bool:
        """Whether our log up to ``index`` equals the leader's, whose entry there has ``term``."""
        me = self._me
        if index > me.commit_index:
            return me.trail.holds(index, term)
        # Committed entries are in the leader's log; below the base their terms are not known here.
        invariant(
            index < me.trail.base_index or me.trail.holds(index, term),
            "the leader has term {} at {}, which is committed here with another",
            term, index,
        )  # fmt: skip
        return True

    def answer(self) -> None:
        """Answer the leader once for the whole step, if there is anything new to say.

        New is: a mismatch, a round that was not answered yet, or more durable entries (H7).
        """
        me = self._me
        if me.leader is None:
            return
        missing, self._missing = self._missing, None
        if missing is not None and self._matches(*missing):
            missing = None  # a later message of this step filled the gap
        acknowledged = min(self._matched, me.durable_index)
        if (
            missing is None
            and self._round <= self._answered_round
            and acknowledged <= self._acknowledged
        ):
            return
        hint_index = hint_term = 0
        if missing is not None:
            hint_index = me.trail.last_at_most(*missing)
            hint_term = me.trail.term_at(hint_index)
        self._answered_round = self._round
        self._acknowledged = acknowledged
        answer = AppendResponse(
            me.term, me.name, me.leader, missing is None, acknowledged, self._round,
            hint_index, hint_term, self._promised_round == self._round,
        )  # fmt: skip
        me.send(answer)

    # -- snapshots -----------------------------------------------------------------------------

    def take_chunk(self, chunk: SnapshotChunk) -> None:
        """Hand a piece of a snapshot out to be written, unless we are past it already (H19)."""
        if chunk.index > self._me.commit_index:
            self._me.ready.chunks += (chunk,)
        else:
            self.installed(chunk.index)

    def installed(self, index: int) -> None:
        """The snapshot at ``index`` is in force, or superseded: the leader need not send it."""
        me = self._me
        self._matched = max(self._matched, me.commit_index)
        if me.leader is not None:
            me.send(SnapshotResponse(me.term, me.name, me.leader, index, 0, True))
