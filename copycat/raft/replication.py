"""The leader's half of replication: windows, rounds, commitment (thesis 3.5, 3.6.2, 10.2.1).

Entries leave in pipelined windows of whole batches, before they are durable here. A *round* is a
number that every request carries and every answer echoes: a new one begins with each heartbeat,
each probe and each group of reads, and whoever echoes it accepted this leader after it began.
A heartbeat names the entry before the next one to send, so that a lost window shows as a mismatch.

It never changes a role: that the quorum fell silent is only reported.
"""

from __future__ import annotations

from typing import Protocol

from ..errors import invariant
from .leases import Lease
from .messages import AppendRequest, AppendResponse, SnapshotResponse
from .options import RaftOptions
from .progress import PeerStatus, Progress, ProgressState
from .quorum import reached
from .standing import Standing

NEVER = float("inf")


class LogView(Protocol):
    """What Raft needs to know about batches; the log itself stays outside."""

    def window_end(self, first_index: int, max_bytes: int) -> tuple[int, int]:
        """(last index, bytes) of the whole batches from ``first_index`` within ``max_bytes``.

        At least one batch if there is one; ``(first_index - 1, 0)`` when there is nothing.
        ``first_index`` begins a batch, or is the index after the last.
        """

    def batch_start(self, index: int) -> int:
        """The first index of the batch that holds ``index``, an index of the log."""


class Replication:
    """The leadership of one term; between leaderships it is empty."""

    def __init__(self, standing: Standing, log: LogView, options: RaftOptions) -> None:
        self._me = standing
        self._log = log
        self._options = options
        self._peers: dict[str, Progress] = {}
        self._lease = Lease(options)
        self._round = 0
        self._wanted_round = 0  # the newest round that everybody is to be asked
        self._notice_at = NEVER
        self._tick_at = NEVER
        self._news = False  # somebody acknowledged something since it was last counted
        self._counted = -1  # our own durable index when it was last counted
        self.first_index: int | None = None  # of the own term: the no-op's

    def start(self) -> None:
        """Take office: nothing is known about anybody yet."""
        me = self._me
        self.stop()
        self.follow_membership()
        self._tick_at = me.now + self._options.heartbeat

    def follow_membership(self) -> None:
        """Another configuration is in force: begin to send to some, stop sending to others."""
        me = self._me
        names = me.membership.peers_of(me.name)
        for name in [name for name in self._peers if name not in names]:
            del self._peers[name]
        for name in names:
            if name not in self._peers:
                self._peers[name] = Progress(name, me.trail.last_index + 1, me.now)
        self._news = True
        self._lease.lapse()  # another majority has to have promised

    def stop(self) -> None:
        """Leave office."""
        self._peers = {}
        self._round = self._wanted_round = 0
        self._notice_at = self._tick_at = NEVER
        self._counted = -1
        self.first_index = None
        self._lease.begin_term()

    @property
    def wake_at(self) -> float:
        """When the leader has to act by itself."""
        return min(self._tick_at, self._notice_at)

    def progress(self) -> list[PeerStatus]:
        """Of all peers, for displays."""
        return [peer.status() for peer in self._peers.values()]

    # -- time ----------------------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether the next heartbeat is due."""
        return self._me.now >= self._tick_at

    def has_quorum(self) -> bool:
        """Check-quorum: has a majority answered within an election timeout (H74)?"""
        me = self._me
        peers = self._peers
        heard_at = reached(
            me.membership, lambda name: me.now if name == me.name else peers[name].heard_at
        )
        return me.now - heard_at < self._options.election_timeout

    def tick(self, *, excuse_silence: bool) -> None:
        """Begin a heartbeat's round, and give up waiting for whoever is silent.

        After a stall of our own silence says nothing: answers may lie unread in our queues.
        """
        now = self._me.now
        self._tick_at = now + self._options.heartbeat
        if self._lease.asked_us:
            self._lease.review(now)
        self._wanted_round = self.begin_round()
        if excuse_silence:
            return
        patience = self._options.election_timeout
        for peer in self._peers.values():
            if peer.answering and now - peer.heard_at >= patience:
                peer.lost()
            elif peer.transfer_at is not None and now - peer.transfer_at >= patience:
                peer.transfer_at = None  # the transfer stalled: `flush` begins it anew

    # -- whom to hand over to ------------------------------------------------------------------

    def is_level(self, name: str) -> bool:
        """Whether ``name`` has everything that we have."""
        peer = self._peers.get(name)
        return peer is not None and peer.match_index == self._me.trail.last_index

    def has_caught_up(self, name: str) -> bool:
        """Whether ``name`` answers and has all that is committed."""
        peer = self._peers.get(name)
        me = self._me
        return (
            peer is not None
            and peer.answering
            and me.now - peer.heard_at < self._options.election_timeout
            and peer.match_index >= me.commit_index
        )

    def best_prepared(self) -> str | None:
        """The voter that answers and has most of our log; None if nobody answers."""
        me = self._me
        able = [
            self._peers[name]
            for name in me.membership.voters
            if name != me.name and self._peers[name].answering and self._peers[name].match_index
        ]
        return max(able, key=lambda peer: (peer.match_index, peer.name)).name if able else None

    # -- rounds --------------------------------------------------------------------------------

    def begin_round(self) -> int:
        """A round that nobody has been asked yet."""
        self._round += 1
        if self._lease.asked_us:
            self._lease.began(self._round, self._me.now)
        return self._round

    def begin_read_round(self) -> int:
        """A round that everybody is asked in this step."""
        self._wanted_round = self.begin_round()
        return self._wanted_round

    def confirmed_round(self) -> int:
        """The newest round that a quorum has answered."""
        me = self._me
        peers = self._peers
        return reached(
            me.membership, lambda name: self._round if name == me.name else peers[name].round
        )

    # -- leases --------------------------------------------------------------------------------

    def has_lease(self, now: float) -> bool:
        """Whether nobody else can have been elected by local time ``now`` (s); asks for more."""
        self._lease.want(now)
        return now < self._lease.until

    def lapse_lease(self) -> None:
        """Time may have passed that our clock did not count."""
        self._lease.lapse()

    def forsake_lease(self) -> None:
        """Somebody is bidden to stand."""
        self._lease.forsake()

    def _take_promise(self, peer: Progress, round_: int) -> None:
        me = self._me
        peers = self._peers
        peer.promised_round = max(peer.promised_round, round_)
        self._lease.promised(
            reached(
                me.membership,
                lambda name: self._round if name == me.name else peers[name].promised_round,
            )
        )

    # -- answers -------------------------------------------------------------------------------

    def take(self, answer: AppendResponse) -> None:
        """Learn from a peer's answer of this term."""
        me = self._me
        peer = self._peers.get(answer.sender)
        if peer is None:
            return
        invariant(
            answer.match_index <= me.trail.last_index,
            "{} acknowledges {}, our log ends before it",
            answer.sender, answer.match_index,
        )  # fmt: skip
        peer.heard(answer.round, me.now)
        self._news = True
        if answer.promised:
            self._take_promise(peer, answer.round)
        peer.acknowledge(answer.match_index)
        if answer.success:
            peer.matched(answer.round)
        elif answer.round >= peer.since_round and peer.state is not ProgressState.SNAPSHOT:
            # Neither log can match where the other has only smaller terms: skip them whole.
            found = me.trail.last_at_most(answer.hint_index, answer.hint_term)
            peer.probe(self._window_start(found + 1))

    def _window_start(self, index: int) -> int:
        """``index``, or where our batch around it begins.

        A hint is about the other log: where terms differ it may point into the middle of a batch
        of ours, and windows are made of whole batches.
        """
        trail = self._me.trail
        if trail.base_index + 1 < index <= trail.last_index:
            return self._log.batch_start(index)
        return index

    def take_snapshot_answer(self, answer: SnapshotResponse) -> None:
        """Learn how far a snapshot transfer is."""
        me = self._me
        peer = self._peers.get(answer.sender)
        if peer is None:
            return
        peer.heard(0, me.now)
        if answer.done:
            # A new leader may not know yet that the index is committed, but it has the entry.
            invariant(
                answer.index <= me.trail.last_index,
                f"{answer.sender} installed a snapshot at {answer.index}, our log ends before it",
            )
            peer.transfer_at = None
            self._news = True
            peer.acknowledge(answer.index)
        elif peer.transfer_at is not None:
            peer.transfer_at = me.now
            me.ready.snapshot_answers += (answer,)

    def peer_lost(self, name: str) -> None:
        """What was on its way to ``name`` is gone."""
        peer = self._peers.get(name)
        if peer is not None:
            peer.lost()

    # -- commitment ----------------------------------------------------------------------------

    def commit(self) -> None:
        """Commit what a majority holds durably, counting ourselves like any other (H6).

        Only an entry of the own term is committed by counting; it carries all before it (H5).
        """
        me = self._me
        peers = self._peers
        if not self._news and me.durable_index == self._counted:
            return
        self._news = False
        self._counted = me.durable_index
        index = reached(
            me.membership,
            lambda name: me.durable_index if name == me.name else peers[name].match_index,
        )
        if index > me.commit_index and me.trail.term_at(index) == me.term:
            me.commit(index)

    # -- sending -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send whatever every peer may get now."""
        me = self._me
        notify = me.now >= self._notice_at
        if notify:
            self._notice_at = NEVER
        behind = False
        last_index = me.trail.last_index
        for peer in self._peers.values():
            if peer.next_index <= me.trail.base_index:
                self._transfer(peer)
            elif peer.next_index <= last_index or peer.state is not ProgressState.REPLICATE:
                self._send_windows(peer)
            if peer.asked_round < self._wanted_round:
                self._send_empty(peer)
            elif peer.commit_told < me.commit_index and peer.state is ProgressState.REPLICATE:
                if notify:
                    self._send_empty(peer)
                else:
                    behind = True
        if behind and self._notice_at == NEVER:
            self._notice_at = me.now + self._options.commit_notice

    def _transfer(self, peer: Progress) -> None:
        """Ask for a snapshot to be sent, once, and only to a peer that answers."""
        peer.need_snapshot()
        if peer.transfer_at is None and peer.answering:
            peer.transfer_at = self._me.now
            self._me.ready.install += (peer.name,)

    def _send_windows(self, peer: Progress) -> None:
        if peer.state is ProgressState.SNAPSHOT:
            peer.probe(peer.next_index)  # it has caught up with our log's beginning
        if peer.state is ProgressState.PROBE and not peer.probed:
            # A round it was not asked yet tells the answer to this probe from earlier ones.
            if peer.asked_round == self._round:
                self.begin_round()
            peer.since_round = self._round
            if not (peer.answering and self._send_window(peer)):
                self._send_empty(peer)
            peer.probed = True
        while peer.next_index <= self._me.trail.last_index and peer.has_room(self._options):
            if not self._send_window(peer):
                break

    def _send_window(self, peer: Progress) -> bool:
        first = peer.next_index
        last, size = self._log.window_end(first, self._options.max_append_bytes)
        if last < first:
            return False
        self._request(peer, first - 1, last)
        peer.sent(last, size)
        return True

    def _send_empty(self, peer: Progress) -> None:
        if peer.state is ProgressState.SNAPSHOT:
            self._request(peer, 0, 0)  # the empty log matches everybody's
        else:
            self._request(peer, peer.next_index - 1, peer.next_index - 1)

    def _request(self, peer: Progress, prev_index: int, last_index: int) -> None:
        me = self._me
        prev_term = me.trail.term_at(prev_index) if prev_index else 0
        request = AppendRequest(
            me.term, me.name, peer.name, prev_index, prev_term, last_index,
            me.commit_index, self._round, lease_us=self._lease.asked_us,
        )  # fmt: skip
        me.send(request)
        peer.asked_round = self._round
        peer.commit_told = me.commit_index
