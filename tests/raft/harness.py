"""A cluster of Raft cores in which time, messages and syncs happen only when told to.

`Node` does what the real member does with a `Ready`, in the order the contract asks for, on a toy
log and a toy disk. `Cluster` carries messages and the virtual time. Both report everything they do
to a `Trace`, which the text stories print and the random lives check.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from copycat.ports import Random
from copycat.raft import HardState, Membership, Raft, RaftOptions, Ready, Role
from copycat.raft.configurations import Placed
from copycat.raft.inputs import Compacted, Durable, Input, Installed, Read, Saved
from copycat.raft.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    SnapshotChunk,
    SnapshotResponse,
    Span,
)

from .toydisk import Sync, ToyDisk, ToyLog

CHUNKS = 2  # pieces of one byte each that make a toy snapshot


class Trace:
    """Hears of everything that happens; subclasses print it or check it."""

    def sent(self, node: Node, message: Message) -> None:
        """A message left."""

    def staged(self, node: Node, span: Span, image: bytes) -> None:
        """A batch was taken into a log, not durable yet."""

    def truncated(self, node: Node, from_index: int) -> None:
        """A log was cut."""

    def synced(self, node: Node) -> None:
        """Something became durable."""

    def stepped(self, node: Node, ready: Ready) -> None:
        """A step was carried out."""

    def leased(self, node: Node, id_: int, index: int) -> None:
        """A read was served at ``index`` without asking anybody."""


class Node:
    """One member: a Raft core and the little that a shell has to do for it."""

    def __init__(self, cluster: Cluster, name: str, membership: Membership, random: Random) -> None:
        self.cluster = cluster
        self.name = name
        self.founded: Placed = (0, membership)
        self.random = random
        self.disk = ToyDisk()
        self.log = ToyLog()
        self.raft: Raft | None = None
        self.rate = 1.0  # seconds that its clock counts in a second
        self.slept = 0.0  # seconds that its clock has not counted
        self.wake_at = 0.0  # in the cluster's time
        self.sync: Sync | None = None
        self._proposed = 0
        self._forget()

    def _forget(self) -> None:
        """Lose what only memory held."""
        self.held: list[Message] = []
        self.unsaved: HardState | None = None
        self.installing: tuple[int, int] | None = None
        self.received = 0
        self.sync = None

    @property
    def alive(self) -> Raft:
        """The core of a node that runs."""
        assert self.raft is not None, f"{self.name} is down"
        return self.raft

    @property
    def now(self) -> float:
        """What its clock shows."""
        return (self.cluster.now - self.slept) * self.rate

    def sleep(self, seconds: float) -> None:
        """Its clock has stood still for the last ``seconds``, which the shell notices."""
        self.slept += seconds
        self.alive.slept()

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Recover from the disk and begin."""
        self.log = self.disk.read()
        self.raft = Raft(
            self.name, self.disk.configuration or self.founded, self.disk.hard_state,
            self.log.trail(), self.log,
            self.cluster.options, self.random, self.now,
            commit_index=self.disk.snapshot[0], configurations=self.log.configurations(),
        )  # fmt: skip
        self.step()

    def crash(self, torn_steps: int | None = None) -> None:
        """Die; of a sync under way the first ``torn_steps`` actions have happened."""
        if self.sync is not None and torn_steps is not None:
            self.disk.write_torn(self.sync, torn_steps)
        self.raft = None
        self._forget()

    # -- steps ---------------------------------------------------------------------------------

    def step(self, inputs: Iterable[Input] = ()) -> Ready:
        """One step of the core, carried out."""
        ready = self.alive.step(self.now, inputs)
        self._carry_out(ready)
        self.cluster.trace.stepped(self, ready)
        if ready.elected:
            self.propose(1)
        if ready.configure is not None:
            self._configure(ready.configure)
        return ready

    def read(self, id_: int, *, leased: bool = False) -> None:
        """A linearizable read; by the lease if it may and there is one."""
        index = self.alive.lease_index(self.now) if leased else None
        if index is None:
            self.step([Read(id_)])
        else:
            self.cluster.trace.leased(self, id_, index)

    def _configure(self, membership: Membership) -> None:
        raft = self.alive
        base = raft.propose_configuration(membership)
        assert base is not None
        self._append(Span(base, base, raft.term, membership))

    def propose(self, count: int) -> int | None:
        """A batch of ``count`` entries."""
        raft = self.alive
        base = raft.propose(count)
        if base is not None:
            self._append(Span(base, base + count - 1, raft.term))
        return base

    def _append(self, span: Span) -> None:
        self._proposed += 1
        self._stage(span, f"{self.name}/{span.term}/{self._proposed}".encode())
        self.step()

    def _stage(self, span: Span, image: bytes) -> None:
        self.log.append(span, image)
        self.cluster.trace.staged(self, span, image)

    def _carry_out(self, ready: Ready) -> None:
        self.wake_at = ready.wake_at / self.rate + self.slept
        if self.now < ready.wake_at and self.cluster.now >= self.wake_at:
            self.wake_at = self.cluster.now + 1e-6  # lost in rounding
        if ready.hard_state is not None:
            if self.unsaved is not None and self.unsaved.term < ready.hard_state.term:
                self.held = [each for each in self.held if not isinstance(each, AppendResponse)]
            self.unsaved = ready.hard_state
        if ready.truncate_from is not None:
            self.log.truncate(ready.truncate_from)
            self.cluster.trace.truncated(self, ready.truncate_from)
        for image, span in zip(ready.append, self._spans(ready), strict=True):
            self._stage(span, image)
        for peer in ready.install:
            self._send_chunk(peer, 0)
        for answer in ready.snapshot_answers:
            self._send_chunk(answer.sender, answer.offset)
        for chunk in ready.chunks:
            self._receive_chunk(chunk)
        for message in ready.messages:
            self._send(message)

    def _spans(self, ready: Ready) -> list[Span]:
        """The spans of the images to append: the toy image does not say, the core's trail does."""
        return [self.cluster.spans[image] for image in ready.append]

    # -- messages ------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        if isinstance(message, AppendRequest) and message.last_index > message.prev_index:
            batches = self.log.between(message.prev_index + 1, message.last_index)
            spans, images = zip(*batches, strict=True)
            message = replace(message, spans=spans, images=images)
        if self.unsaved is not None:
            self.held.append(message)  # nothing leaves before term and vote are on disk (H1)
        else:
            self._release(message)

    def _release(self, message: Message) -> None:
        self.cluster.trace.sent(self, message)
        self.cluster.carry(message)

    # -- disk ----------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether a sync would change anything on disk."""
        log, disk = self.log, self.disk
        return (
            self.unsaved is not None
            or self._is_complete
            or log.last_index != disk.last_index
            or log.batches[-1:] != disk.batches[-1:]
        )

    @property
    def _is_complete(self) -> bool:
        return self.installing is not None and self.received == CHUNKS

    def begin_sync(self) -> None:
        """Start to make durable what is staged now."""
        log = self.log
        snapshot = self.installing if self._is_complete else None
        self.sync = Sync(
            self.unsaved,
            (log.base_index, log.base_term),
            list(log.batches),
            log.generation,
            snapshot,
            self.cluster.snapshots[snapshot] if snapshot is not None else None,
        )

    def end_sync(self) -> None:
        """What was staged when the sync began is durable now."""
        sync, self.sync = self.sync, None
        assert sync is not None
        raft = self.alive
        inputs: list[Input] = []
        current = sync.generation == self.log.generation
        self.disk.write(sync)
        if sync.hard_state is not None:
            inputs.append(Saved(sync.hard_state.term, sync.hard_state.vote))
            if self.unsaved == sync.hard_state:
                self.unsaved = None
        if current:  # otherwise it speaks of a log that is no more (H17)
            inputs.append(Durable(sync.last_index))
        if sync.snapshot is not None:
            configuration = self.cluster.snapshots[sync.snapshot]
            inputs.append(Installed(*sync.snapshot, configuration))
            self.installing = None
            if raft.snapshot_replaces_log(*sync.snapshot):
                self.log.reset(*sync.snapshot)
                self.disk.base, self.disk.batches = sync.snapshot, []
        if self.unsaved is None:
            held, self.held = self.held, []
            for message in held:
                self._release(message)
        self.cluster.trace.synced(self)
        self.step(inputs)

    # -- snapshots -----------------------------------------------------------------------------

    def compact(self, index: int) -> None:
        """Take a snapshot at ``index`` and drop the log up to there; durable at once."""
        assert index <= self.alive.commit_index, "only what is committed may be compacted"
        self.disk.configuration = self.alive.configuration_at(index)
        self.log.cut_before(index)
        self.disk.snapshot = (index, self.log.base_term)
        self.cluster.snapshots[self.disk.snapshot] = self.disk.configuration
        if self.disk.last_index > index:
            self.disk.batches = [b for b in self.disk.batches if b[0].last_index > index]
        else:
            self.disk.batches = []
        self.disk.base = self.disk.snapshot
        if self.sync is not None:
            self.sync.base = self.disk.base
            self.sync.batches = [b for b in self.sync.batches if b[0].last_index > index]
        self.step([Compacted(index, self.log.base_term)])

    def _send_chunk(self, peer: str, offset: int) -> None:
        if offset < CHUNKS:
            index, term = self.disk.snapshot
            self._send(
                SnapshotChunk(
                    self.alive.term, self.name, peer, index, term, offset, CHUNKS, b"%d" % offset
                )
            )

    def _receive_chunk(self, chunk: SnapshotChunk) -> None:
        if self.sync is not None and self.sync.snapshot is not None:
            return  # one install at a time (H18)
        snapshot = (chunk.index, chunk.snapshot_term)
        if self.installing != snapshot:
            self.installing, self.received = snapshot, 0
        if chunk.offset == self.received:
            self.received += len(chunk.data)
        if self.received < chunk.total:
            self._send(
                SnapshotResponse(
                    chunk.term, self.name, chunk.sender, chunk.index, self.received, False
                )
            )


class Cluster:
    """Nodes, the messages between them, and one clock.

    Args:
        voters, learners: names.
        randoms: one source of chance per name.
        trace: hears of everything.
        options: for all nodes.
    """

    def __init__(
        self,
        voters: tuple[str, ...],
        learners: tuple[str, ...],
        randoms: dict[str, Random],
        trace: Trace,
        options: RaftOptions | None = None,
    ) -> None:
        self.now = 0.0
        self.trace = trace
        self.options = options or RaftOptions()
        self.in_flight: list[Message] = []
        self.spans: dict[bytes, Span] = {}  # of every image ever made
        self.snapshots: dict[tuple[int, int], Placed] = {}  # what was in force at each
        membership = Membership(voters, learners)
        self.nodes = {
            name: Node(self, name, membership, randoms[name]) for name in membership.names
        }

    def start(self) -> None:
        """Start all nodes."""
        for node in self.nodes.values():
            node.start()

    def add(self, name: str, random: Random, configuration: Placed) -> Node:
        """A new member that was told ``configuration``; it has nothing else."""
        node = self.nodes[name] = Node(self, name, configuration[1], random)
        node.founded = configuration
        node.start()
        return node

    def carry(self, message: Message) -> None:
        """Take a message; remember the spans of its images."""
        if isinstance(message, AppendRequest):
            self.spans.update(zip(message.images, message.spans, strict=True))
        self.in_flight.append(message)

    def running(self) -> list[Node]:
        """The nodes that are up."""
        return [node for node in self.nodes.values() if node.raft is not None]

    def leaders(self) -> list[Node]:
        """The nodes that lead, of the newest term first."""
        leading = [node for node in self.running() if node.alive.role is Role.LEADER]
        return sorted(leading, key=lambda node: -node.alive.term)
