"""Checks after every event: the safety laws of Raft, seen from outside all members at once.

They know the toy disks, so they can tell what really is durable, and they remember everything that
was ever committed or promised, so they can tell when something is taken back.
"""

from __future__ import annotations

from copycat.raft import Ready
from copycat.raft.messages import AppendRequest, AppendResponse, Message, Span, VoteResponse

from .harness import Cluster, Node, Trace


class Checks(Trace):
    """Raises ``AssertionError`` at the first broken law."""

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.leaders: dict[int, str] = {}
        self.votes: dict[tuple[str, int], str] = {}
        # (base index, term) -> (span, image, term of the entry before): log matching
        self.batches: dict[tuple[int, int], tuple[Span, bytes, int]] = {}
        # base index -> (span, image), in order: what was ever committed anywhere
        self.committed: dict[int, tuple[Span, bytes]] = {}
        self.commit_index = 0
        self.commit_terms: dict[int, int] = {}  # what was committed in a term, up to which index
        self.commits: dict[str, int] = {}
        self.reads: dict[int, int] = {}  # id -> what was committed when it was asked
        self.waiting: dict[int, str] = {}  # reads that are not settled yet, and where they wait
        self.served = 0
        self.served_elsewhere = 0  # by members that do not lead
        self.leased_reads = 0  # of them

    # -- promises ------------------------------------------------------------------------------

    def sent(self, node: Node, message: Message) -> None:
        """What leaves must be true on disk (H1, H7)."""
        disk = node.disk
        assert message.term <= disk.hard_state.term or getattr(message, "pre", False), (
            f"{node.name} speaks in term {message.term}, which is not durable"
        )
        if isinstance(message, VoteResponse) and message.granted and not message.pre:
            assert disk.hard_state.term > message.term or disk.hard_state.vote == message.to, (
                f"{node.name} sends a vote that is not on its disk"
            )
        if isinstance(message, AppendResponse):
            assert message.match_index <= disk.last_index, (
                f"{node.name} acknowledges {message.match_index}, durable is {disk.last_index}"
            )
        if isinstance(message, AppendRequest):
            for span, image in zip(message.spans, message.images, strict=True):
                known = self.batches[span.base_index, span.term]
                assert known[:2] == (span, image), "an image changed on its way"

    def synced(self, node: Node) -> None:
        """One vote per term, for ever (H2)."""
        state = node.disk.hard_state
        if state.vote is not None:
            first = self.votes.setdefault((node.name, state.term), state.vote)
            assert first == state.vote, f"{node.name} votes twice in term {state.term}"

    def asked(self, node: Node, id_: int) -> None:
        """A read begins at ``node``."""
        self.reads[id_] = self.commit_index
        self.waiting[id_] = node.name

    # -- logs ----------------------------------------------------------------------------------

    def staged(self, node: Node, span: Span, image: bytes) -> None:
        """Log matching: one (index, term) means one batch after one predecessor."""
        log = node.log
        before = log.batches[-2][0].term if len(log.batches) > 1 else log.base_term
        known = self.batches.setdefault((span.base_index, span.term), (span, image, before))
        assert known == (span, image, before), (
            f"{node.name} appends {span} after term {before}; elsewhere it is {known}"
        )

    def truncated(self, node: Node, from_index: int) -> None:
        """Nothing committed is ever dropped (H10)."""
        assert from_index > self.commits.get(node.name, 0), "committed entries are truncated"

    # -- steps ---------------------------------------------------------------------------------

    def stepped(self, node: Node, ready: Ready) -> None:
        """Leaders, commits and reads."""
        raft = node.alive
        if raft.is_leader:
            leader = self.leaders.setdefault(raft.term, node.name)
            assert leader == node.name, f"two leaders in term {raft.term}"
        if ready.elected:
            self._check_completeness(node)
        self._check_commit(node, ready.commit_index)
        for id_ in ready.reads_failed:
            assert self.waiting.pop(id_) == node.name
        for id_, index in ready.reads:
            assert self.waiting.pop(id_) == node.name, "a read is settled twice, or elsewhere"
            self.served += 1
            self.served_elsewhere += not raft.is_leader
            assert index >= self.reads[id_], (
                f"read {id_} is served at {index}, {self.reads[id_]} was committed before it"
            )
        self._check_disk(node)

    def _check_disk(self, node: Node) -> None:
        raft = node.alive
        assert raft.durable_index <= max(node.disk.last_index, node.disk.snapshot[0])

    def leased(self, node: Node, id_: int, index: int) -> None:
        """Who has a lease knows of all that anybody has committed (H29)."""
        assert self.waiting.pop(id_) == node.name
        self.served += 1
        self.leased_reads += 1
        assert index >= self.reads[id_], (
            f"read {id_} is served by a lease at {index}, {self.reads[id_]} was committed before it"
        )

    def _check_completeness(self, node: Node) -> None:
        """A new leader has everything that was committed in earlier terms.

        Votes may be counted late: such a leader need not have what a later one has committed.
        """
        log, term = node.log, node.alive.term
        before = [index for in_term, index in self.commit_terms.items() if in_term < term]
        index = max(before, default=0)
        assert log.last_index >= index, "a leader without committed entries"
        for span, image in log.batches:
            if span.last_index <= index:
                assert self.committed[span.base_index] == (span, image), "a leader with other ones"

    def _check_commit(self, node: Node, index: int) -> None:
        before = self.commits.get(node.name, 0)
        assert index >= before, f"the commit index of {node.name} fell"
        if index == before:
            return
        self.commits[node.name] = index
        if node.alive.is_leader:
            terms = [span.term for span, _ in node.log.batches if span.last_index <= index]
            assert terms and terms[-1] == node.alive.term, (
                f"{node.name} commits up to {index} by counting, which ends in an earlier term"
            )  # what is counted there can be replaced by another leader (thesis 3.6.2, H5)
        if index > self.commit_index:
            self._check_quorum(node, index)
        for span, image in node.log.batches:
            if before < span.last_index <= index:
                assert self.committed[span.base_index] == (span, image), (
                    f"{node.name} commits {span}, elsewhere it is another"
                )

    def _check_quorum(self, node: Node, index: int) -> None:
        """What is committed is durable on a majority, by the disks themselves (H1, H6, H7)."""
        assert self.cluster is not None
        membership = node.alive.membership
        for span, image in node.log.batches:
            if not self.commit_index < span.last_index <= index:
                continue
            holders = [
                name
                for name, holder in self.cluster.nodes.items()
                if (span, image) in holder.disk.batches or span.last_index <= holder.disk.base[0]
            ]
            assert all(
                2 * len({*half} & {*holders}) > len(half)
                for half in (membership.voters, membership.outgoing)
                if half
            ), f"{span} is committed, durable only on {holders}"
            self.committed[span.base_index] = (span, image)
        self.commit_index = self.commit_terms[node.alive.term] = index

    def crashed(self, node: Node) -> None:
        """It will begin with what its snapshot says, and nobody waits for it any more."""
        self.waiting = {id_: name for id_, name in self.waiting.items() if name != node.name}
        self.commits[node.name] = node.disk.snapshot[0]
