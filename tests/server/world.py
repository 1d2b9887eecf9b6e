"""Whole members without a shell: virtual time, frames by value, disks that crash.

It carries out `Effects` the way the pump does, but decides by a seed what arrives when. The members
are the production ones from `Member.turn` down to the bytes on the (simulated) disk.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from typing import Any

from copycat._core import codec
from copycat._core.codec import Frame, FrameBuffer, Reason
from copycat._core.kernel import decode_results
from copycat.errors import MembershipError
from copycat.machine import StateMachine
from copycat.raft import RaftOptions
from copycat.serializer import Serializer
from copycat.server.applier import Applier
from copycat.server.effects import (
    ClientFrame,
    ClientGone,
    Job,
    JobDone,
    MemberInput,
    PeerDown,
    PeerFrame,
    PeerUp,
    RosterHeard,
)
from copycat.server.hardstate import HardStateFile
from copycat.server.member import Member, MemberOptions
from copycat.server.roster import PlacedRoster, Roster, Seat
from copycat.server.store import Store
from copycat.testing.disk import SimulatedDisk
from copycat.types import Address

from .images import commands, keep_alive, open_call, pack, unpack
from .test_applier import Tally

MACHINES: dict[str, type[StateMachine]] = {"Tally": Tally}


def seat_of(name: str) -> tuple[Address, bytes]:
    """Where a member listens, and its uuid."""
    return Address(name, 7400), name.encode().ljust(16, b".")


class Node:
    """A member, its disk, and the jobs it has under way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.priority = 1
        self.disk = SimulatedDisk()
        HardStateFile.found(self.disk).close()
        self.member: Member | None = None
        self.life = 0
        self.inbox: list[MemberInput] = []
        self.turn_at: float | None = None
        self.wake_at = 0.0
        self.committed = (0, b"")
        self.seats: Mapping[str, Seat] | None = None  # whom it speaks with
        self.lane_free = {"log": 0.0, "background": 0.0}
        self.applier: Applier | None = None
        self.uuid = seat_of(name)[1]
        self.is_out = False  # it stopped because it was removed
        self.told: PlacedRoster | None = None  # on joining; None: it is a founder


class World:
    """A cluster on virtual time."""

    def __init__(
        self, seed: int, names: tuple[str, ...] = ("n1", "n2", "n3"), *,
        snapshot_bytes: int = 64 << 20, segment_bytes: int = 64 << 10, loss: float = 0.0,
        priorities: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self.chance = random.Random(seed)
        self.now = 1000.0
        self.loss = loss
        self.snapshot_bytes = snapshot_bytes
        self.segment_bytes = segment_bytes
        self.nodes = {name: Node(name) for name in names}
        for name, priority in (priorities or {}).items():
            self.nodes[name].priority = priority
        self.cut: set[tuple[str, str]] = set()
        self.clients: dict[int, Client] = {}
        self._events: list[tuple[float, float, int, Callable[[], None]]] = []
        self._nth = 0
        self._last: dict[tuple[object, ...], float] = {}
        self.digests: dict[int, bytes] = {}
        self.founded = (0, Roster.founded({name: seat_of(name) for name in names}))
        for name in names:
            self.start(name)

    # -- time ----------------------------------------------------------------------------------

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self._nth += 1
        entry = (self.now + delay, self.chance.random(), self._nth, action)
        heapq.heappush(self._events, entry)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True as soon as ``until`` holds."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, _, action = heapq.heappop(self._events)
            action()
            if until is not None and until():
                return True
        self.now = end
        return until is not None and until()

    # -- members -------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        node = self.nodes[name]
        node.life += 1
        node.lane_free = {"log": self.now, "background": self.now}
        applier = Applier(MACHINES, Serializer())
        holder: list[Member] = []
        store = Store(
            node.disk, b"c" * 16, node.uuid,
            segment_bytes=self.segment_bytes,
            on_saved=lambda state: holder[0].hard_state_saved(state),
            on_durable=lambda index: holder[0].log_durable(index),
        )  # fmt: skip
        body = store.recover()
        if body is not None:
            applier.restore(body)
        options = MemberOptions(
            RaftOptions(), snapshot_bytes=self.snapshot_bytes, priority=node.priority
        )
        node.member = Member(
            name, node.told or self.founded, store, applier, options=options,
            random=random.Random(self.chance.random()), now=self.now, wall_us=10**15,
        )  # fmt: skip
        holder.append(node.member)
        node.applier = applier
        node.inbox, node.turn_at = [], None
        for other in self.nodes.values():
            if other is not node and other.member is not None:
                self.push(node, PeerUp(other.name, other.priority), 0.001)
                self.push(other, PeerUp(name, node.priority), 0.001)
        self._schedule(node, 0.0)

    def ask(self, name: str, request: str, *arguments: object) -> Any:
        """What a member answers to an administrator."""
        member = self.nodes[name].member
        assert member is not None
        self._schedule(self.nodes[name], 0.0)
        return member.admin(request, list(arguments))

    def wish(self, request: str, *arguments: object, seconds: float = 30.0) -> Any:
        """Ask the leader again and again, whoever that is, until it is done or refused."""
        end = self.now + seconds
        reply: Any = ["wait", "nobody leads"]
        while reply[0] in ("wait", "elsewhere") and self.now < end:
            leader = self.leader()
            if leader is not None:
                reply = self.ask(leader, request, *arguments)
            self.run(0.02)
        return reply

    def join(self, name: str) -> None:
        """A new member: asks to be added, is told the configuration, and takes part."""
        node = self.nodes[name] = Node(name)
        address, uuid = seat_of(name)
        reply = self.wish("join", name, str(address), uuid)
        assert reply[0] == "done", reply
        index, roster = reply[2]
        node.told = (index, Roster.decode(roster))
        self.start(name)

    def join_as(self, name: str, told: PlacedRoster, uuid: bytes) -> None:
        """A member starts with an empty disk, as another incarnation."""
        node = self.nodes[name] = Node(name)
        node.told, node.uuid = told, uuid
        self.start(name)

    def members(self) -> tuple[tuple[str, ...], ...]:
        """(voters, learners) as the leader has them."""
        member = self.nodes[self.leader() or ""].member
        assert member is not None
        status: Any = member.status()
        return tuple(status["voters"]), tuple(status["learners"])

    def crash(self, name: str) -> None:
        """The process and the power die; peers are refused, clients disconnected."""
        node = self.nodes[name]
        node.member = None
        node.life += 1
        node.disk.crash(self.chance)
        for other in self.nodes.values():
            if other.member is not None:
                self.push(other, PeerDown(name, True), 0.002)
        for client in self.clients.values():
            client.lost(name)

    def push(self, node: Node, input_: MemberInput, delay: float) -> None:
        life = node.life

        def arrive() -> None:
            if node.life == life and node.member is not None:
                node.inbox.append(input_)
                self._schedule(node, 0.0)

        self.at(delay, arrive)

    def _schedule(self, node: Node, delay: float) -> None:
        when = self.now + delay
        if node.turn_at is not None and node.turn_at <= when:
            return
        node.turn_at = when
        life = node.life

        def turn() -> None:
            if node.life == life and node.turn_at is not None and node.turn_at <= self.now:
                self._turn(node)

        self.at(delay, turn)

    def _turn(self, node: Node) -> None:
        node.turn_at = None
        inputs, node.inbox = node.inbox, []
        if node.member is None:
            return
        effects = node.member.turn(self.now, inputs)
        if isinstance(effects.fatal, MembershipError):
            node.is_out, node.member, node.applier = True, None, None
            node.life += 1
            return
        if effects.fatal is not None:
            raise effects.fatal
        if effects.seats is not None:
            node.seats, node.committed = effects.seats, effects.committed
        for peer, frames in effects.peer_frames:
            self._to_peer(node, peer, frames)
        for connection, frames in effects.client_frames:
            client = self.clients.get(connection)
            if client is not None and client.member == node.name:
                delay = self.in_order(node.name, connection)
                self.at(delay, self._client_action(client, node.name, frames))
        for job in effects.jobs:
            self._start(node, job)
        assert effects.wake_at > 0
        self._schedule(node, max(0.0, effects.wake_at - self.now))

    def in_order(self, *way: object) -> float:
        """A latency that overtakes nothing on the same connection, as TCP would not."""
        when = max(self.now + self._latency(), self._last.get(way, 0.0) + 1e-9)
        self._last[way] = when
        return when - self.now

    def _latency(self) -> float:
        return 0.0005 + self.chance.expovariate(2000)

    def _client_action(self, client: Client, member: str, frames: bytes) -> Callable[[], None]:
        return lambda: client.receive(member, frames)

    def _to_peer(self, node: Node, peer: str, frames: bytes) -> None:
        if (node.name, peer) in self.cut or node.seats is None or peer not in node.seats:
            return
        target = self.nodes.get(peer)
        if target is None or target.seats is None:
            return
        if node.name not in target.seats:
            index, encoded = node.committed  # the gateway there refuses it, or learns of it
            if index > target.committed[0] and node.name in Roster.decode(encoded).seats:
                self.push(target, RosterHeard(index, Roster.decode(encoded)), 0.001)
            return
        for type_, payload in FrameBuffer(1 << 30, expect_preamble=False).feed(frames):
            if self.chance.random() >= self.loss:
                frame = PeerFrame(node.name, type_, payload)
                self.push(self.nodes[peer], frame, self._latency())

    def _start(self, node: Node, job: Job) -> None:
        begin = max(self.now, node.lane_free[job.lane])
        duration = 0.0002 + self.chance.expovariate(3000)
        node.lane_free[job.lane] = begin + duration
        life = node.life

        def work() -> None:
            if node.life != life:
                return
            try:
                done = JobDone(job, job.run(), None)
            except Exception as error:
                done = JobDone(job, None, error)
            self.push(node, done, 0.0)

        self.at(begin + duration - self.now, work)

    # -- watching ------------------------------------------------------------------------------

    def leader(self) -> str | None:
        """The member that serves as leader, if exactly one does."""
        serving = [n.name for n in self.nodes.values() if n.member is not None and n.member.serving]
        return serving[0] if len(serving) == 1 else None

    def settled(self) -> bool:
        """All members alive, one serves, and all have applied the same."""
        members = [node.member for node in self.nodes.values() if not node.is_out]
        if self.leader() is None or any(member is None for member in members):
            return False
        return len({m.status()["applied_index"] for m in members if m}) == 1 and all(
            m.status()["commit_index"] == m.status()["last_index"] for m in members if m
        )

    def states(self) -> set[bytes]:
        """The states of all members, as bytes."""
        return {node.applier.image() for node in self.nodes.values() if node.applier is not None}


class Client:
    """A minimal client: adds one at a time or in pipelines, resends after any loss."""

    _next = 1

    def __init__(self, world: World) -> None:
        self.world = world
        Client._next += 1
        self.id = Client._next
        world.clients[self.id] = self
        self.uuid = world.chance.randbytes(16)
        self.secret = world.chance.randbytes(16)
        self.member: str | None = None
        self.session = 0
        self.resource = self.add = self.get = 0
        self.opened = False
        self.sequence = 0  # last sent ever
        self.answered = 0
        self.wanted = 0
        self.values: list[int] = []
        self.ended = False
        self._tick()

    def _tick(self) -> None:
        """Every 50 ms: (re)connect if needed, resend what is unanswered, keep alive."""
        if self.ended:
            return
        if self.member is None or self.world.nodes[self.member].member is None:
            alive = [n.name for n in self.world.nodes.values() if n.member is not None]
            leader = self.world.leader()
            if alive:
                self.connect(leader or self.world.chance.choice(alive))
        elif not self.session:
            self.send(Frame.REGISTER, pack([self.uuid, 5000, "c", self.secret]))
        elif self.sequence > self.answered:
            self._send_from(self.answered + 1)
        elif self.wanted > self.sequence:
            self.pump()
        else:
            self.send(Frame.RUN, keep_alive(self.session, 0, self.answered))
        self.world.at(0.05, self._tick)

    def connect(self, member: str) -> None:
        if self.member is not None and self.world.nodes[self.member].member is not None:
            self.world.push(self.world.nodes[self.member], ClientGone(self.id), 0.0)
        self.member = member
        if self.session:
            self.send(Frame.ATTACH, codec.ATTACH_HEAD.pack(self.session, 0, self.secret))

    def lost(self, member: str) -> None:
        if self.member == member:
            self.member = None

    def send(self, type_: Frame, payload: bytes) -> None:
        if self.member is not None:
            node = self.world.nodes[self.member]
            delay = self.world.in_order(self.id, self.member)
            self.world.push(node, ClientFrame(self.id, type_, payload), delay)

    def want(self, count: int) -> None:
        """Increment ``count`` more times."""
        self.wanted += count
        self.pump()

    @property
    def done(self) -> bool:
        return self.opened and self.answered >= self.wanted + 1

    def pump(self) -> None:
        if self.session and self.opened and self.sequence < self.wanted + 1:
            first = self.sequence + 1
            self.sequence = min(self.wanted + 1, self.sequence + 50)
            self._send_from(first)

    def _send_from(self, first: int) -> None:
        calls: list[tuple[int, int, list[object]]] = []
        for sequence in range(first, self.sequence + 1):
            calls.append(
                open_call("/t", "Tally", "add", "get")
                if sequence == 1
                else (self.resource, self.add, [1])
            )
        self.send(Frame.RUN, commands(self.session, first, *calls, acknowledged=self.answered))

    def receive(self, member: str, frames: bytes) -> None:
        if member != self.member:
            return
        for type_, payload in FrameBuffer(1 << 30, expect_preamble=False).feed(frames):
            if type_ == Frame.REGISTERED:
                session, uuid = codec.REGISTERED_HEAD.unpack(payload)
                assert uuid == self.uuid
                assert self.session in (0, session)
                if not self.session:
                    self.session, self.sequence = session, 1
                    self._send_from(1)
            elif type_ == Frame.RESULTS:
                self._results(payload)
            elif type_ == Frame.CLOSED:
                self.ended = True
            elif type_ == Frame.REJECT:
                reason = codec.REJECT_HEAD.unpack_from(payload)[0]
                assert reason not in (Reason.MALFORMED, Reason.FORBIDDEN), payload
                if reason == Reason.UNKNOWN_SESSION:
                    self.ended = True
                if reason == Reason.NOT_LEADER:
                    self.member = None

    def _results(self, payload: bytes) -> None:
        _, first, _, count = codec.RESULTS_HEAD.unpack_from(payload)
        for sequence, result in enumerate(
            decode_results(payload, codec.RESULTS_HEAD.size, count), first
        ):
            if sequence != self.answered + 1:
                assert sequence <= self.answered, "results must come in order"
                continue
            assert result[0] == 0, result
            self.answered = sequence
            if sequence == 1:
                self.resource, (self.add, self.get) = unpack(result[1:])
                self.opened = True
            else:
                self.values.append(unpack(result[1:]))
        self.pump()
