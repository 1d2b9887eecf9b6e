"""One short, hostile life of a cluster: everything that happens follows from a seed.

Messages are lost, doubled, delayed and overtake each other; links are cut one way; disks are slow;
members crash in the middle of a sync, stall, and come back; logs are compacted. Then the world
heals and the cluster must make progress. `Checks` watches every event.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from copycat.ports import Random
from copycat.raft import Membership, RaftOptions
from copycat.raft.inputs import PeerLost, PeerRefused, Receive, Reconfigure, Transfer
from copycat.raft.messages import Message

from .checks import Checks
from .harness import Cluster, Node

OPTIONS = RaftOptions(
    election_timeout=0.3,
    heartbeat=0.08,
    failover_jitter=0.01,
    max_append_bytes=40,
    max_inflight=3,
    max_inflight_bytes=100,
)
HOSTILE_SECONDS = 6.0
HEALING_TIMEOUTS = 12  # election timeouts within which a healed cluster must be whole again


class Life:
    """A cluster, its network and disks in virtual time, and a malicious fate."""

    sizes: tuple[int, ...] = (1, 2, 3, 3, 3, 4, 5, 5)

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.checks = Checks()
        size = self.random.choice(self.sizes)
        voters = tuple(f"n{i}" for i in range(1, size + 1))
        learners = ("learner",) if self.random.random() < 0.3 else ()
        randoms = {name: Random(self.random.getrandbits(64)) for name in voters + learners}
        self.cluster = Cluster(voters, learners, randoms, self.checks, OPTIONS)
        self.checks.cluster = self.cluster
        self.hostile = True
        self.loss = self.random.choice((0.0, 0.05, 0.2))
        self.doubling = self.random.choice((0.0, 0.1, 0.4))
        self.disk_delay = self.random.choice((0.001, 0.01, 0.1))
        self.spikes = self.random.choice((0.0, 0.05, 0.2))  # the share of messages that are late
        self.cut: set[tuple[str, str]] = set()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._reads = 0
        self.reconfigured = 0
        self.leases = Random(f"leases {seed}")
        self.leased = 0.7 * (seed % 2)  # the share of reads that are content with a lease
        if self.leased:
            drift = OPTIONS.clock_drift
            for node in self.cluster.nodes.values():
                node.rate = 1.0 + self.leases.uniform(-drift, drift)
        self._waking: dict[str, float] = {}
        self._stalled_until: dict[str, float] = {}
        self._lives: dict[str, int] = dict.fromkeys(self.cluster.nodes, 0)

    # -- time ----------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do ``action`` at ``time``; equal times in the order of asking."""
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, action))

    def run_until(self, end: float) -> None:
        """Let everything happen up to ``end``."""
        while self._queue and self._queue[0][0] <= end:
            time, _, action = heapq.heappop(self._queue)
            self.cluster.now = max(self.cluster.now, time)
            action()
            self._look_around()
        self.cluster.now = end

    def _look_around(self) -> None:
        """Put new messages on their way, begin syncs, set alarms."""
        messages, self.cluster.in_flight = self.cluster.in_flight, []
        for message in messages:
            self._put_on_its_way(message)
        for node in self.cluster.running():
            if node.sync is None and node.dirty:
                self._begin_sync(node)
            if self._waking.get(node.name) != node.wake_at:
                self._waking[node.name] = node.wake_at
                if node.wake_at < float("inf"):
                    self.at(node.wake_at, self._alarm(node))

    def _alarm(self, node: Node) -> Callable[[], None]:
        life = self._lives[node.name]

        def ring() -> None:
            if self._lives[node.name] == life and node.raft is not None:
                if self.cluster.now < self._stalled_until.get(node.name, 0.0):
                    self.at(self._stalled_until[node.name], ring)
                elif node.wake_at <= self.cluster.now:
                    node.step()

        return ring

    # -- network and disks ---------------------------------------------------------------------

    def _put_on_its_way(self, message: Message) -> None:
        if (message.sender, message.to) in self.cut or self.random.random() < self.loss:
            return
        copies = 2 if self.random.random() < self.doubling else 1
        for _ in range(copies):
            delay = 0.001 + self.random.expovariate(200 if self.hostile else 1000)
            if self.hostile and self.random.random() < self.spikes:
                delay += self.random.random() * OPTIONS.election_timeout
            self.at(self.cluster.now + delay, lambda: self._arrive(message))

    def _arrive(self, message: Message) -> None:
        node = self.cluster.nodes[message.to]
        if node.raft is None:
            return
        until = self._stalled_until.get(node.name, 0.0)
        if self.cluster.now < until:
            self.at(until, lambda: self._arrive(message))
        else:
            node.step([Receive(message)])

    def _begin_sync(self, node: Node) -> None:
        node.begin_sync()
        life = self._lives[node.name]

        def finish() -> None:
            if self._lives[node.name] == life and node.sync is not None:
                node.end_sync()

        self.at(self.cluster.now + self.random.random() * self.disk_delay, finish)

    # -- fate ----------------------------------------------------------------------------------

    def _torment(self) -> None:
        """One misfortune or one wish of a client, and the appointment for the next."""
        if not self.hostile:
            return
        names = list(self.cluster.nodes)
        node = self.cluster.nodes[self.random.choice(names)]
        peer = self.random.choice(names)
        chance = self.random.random()
        if node.raft is None:
            if chance < 0.2:
                self.restart(node)
        elif chance < 0.02:
            self.crash(node)
        elif chance < 0.04 and peer != node.name:
            self.cut.add((node.name, peer))
        elif chance < 0.06:
            self.isolate(self.random.choice(self.cluster.leaders() or [node]))
        elif chance < 0.09:
            self.cut.clear()
        elif chance < 0.11:
            self.stall(self.random.choice(self.cluster.leaders() or [node]))
        elif chance < 0.15 and peer != node.name:
            node.step([PeerLost(peer)])
        elif chance < 0.23:
            self.compact(node)
        elif chance < 0.25:
            self.hand_over(node, self.random.choice((None, peer)))
        elif chance < 0.28:
            self.reconfigure()
        elif chance < 0.30:
            self.reborn(node)
        elif chance < 0.42:
            self.read()
        else:
            self.propose()
        self.at(self.cluster.now + self.random.expovariate(40), self._torment)

    def stall(self, node: Node) -> None:
        """It does nothing for a while, and the first thing it sees afterwards is a read (H27)."""
        until = self.cluster.now + self.random.random() * 1.5
        self._stalled_until[node.name] = until
        self.at(until, lambda: self.read(node.name))

    def hand_over(self, node: Node, heir: str | None) -> None:
        """It is asked to; while another one is elected at once, reads go on coming to it."""
        node.step([Transfer(heir)])

        def ask() -> None:
            if self.hostile and node in self._awake_leaders():
                self.read_at(node)

        for later in range(1, 11):
            self.at(self.cluster.now + 0.004 * later, ask)

    def _awake(self) -> list[Node]:
        now = self.cluster.now
        running = self.cluster.running()
        return [node for node in running if self._stalled_until.get(node.name, 0.0) <= now]

    def _awake_leaders(self) -> list[Node]:
        awake = self._awake()
        return [node for node in self.cluster.leaders() if node in awake]

    def isolate(self, node: Node) -> None:
        """Nobody hears it, or it hears nobody, or both."""
        deaf, dumb = self.random.choice(((True, True), (True, False), (False, True)))
        for other in self.cluster.nodes:
            if dumb:
                self.cut.add((node.name, other))
            if deaf:
                self.cut.add((other, node.name))

    def crash(self, node: Node) -> None:
        """Die at any moment of a sync; some neighbours notice."""
        node.crash(self.random.choice((None, 1, 2, 3, 4)))
        self.checks.crashed(node)
        self._lives[node.name] += 1
        self._waking.pop(node.name, None)
        for other in self.cluster.running():
            if self.random.random() < 0.5:
                other.step([PeerRefused(node.name)])

    def restart(self, node: Node) -> None:
        """Come back from the disk."""
        node.start()

    def reborn(self, node: Node) -> None:
        """It asks, dies, comes back at once and asks again: the answer that is still under way was
        meant for the process before (H28)."""
        now = self.cluster.now
        if self._stalled_until.get(node.name, 0.0) > now:
            return
        self.read_at(node)

        def die() -> None:
            if node.raft is not None:
                self.crash(node)
                self.restart(node)

        def ask() -> None:
            if self.hostile and node in self._awake():
                self.read_at(node)

        self.at(now + 0.004, die)
        for later in range(1, 9):
            self.at(now + 0.004 + 0.01 * later, ask)

    def compact(self, node: Node) -> None:
        """Drop some of what is committed; not while a sync could bring it back."""
        ends = [span.last_index for span, _ in node.log.batches]
        candidates = [end for end in ends if end <= node.alive.commit_index]
        if candidates and node.sync is None and not node.dirty:
            node.compact(self.random.choice(candidates))

    def propose(self) -> int | None:
        """A batch of any size, at whoever believes to lead."""
        leaders = self._awake_leaders()
        if leaders:
            return self.random.choice(leaders).propose(self.random.randint(1, 4))
        return None

    def reconfigure(self) -> None:
        """Any other members, at whoever believes to lead; now and then somebody new."""
        leaders = self._awake_leaders()
        if not leaders:
            return
        leader = self.random.choice(leaders)
        raft = leader.alive
        names = list(raft.membership.names)
        new = f"n{len(self.cluster.nodes) + 1}"
        if len(self.cluster.nodes) < 6 and self.random.random() < 0.3:
            names.append(new)
        if len(names) > 3 and self.random.random() < 0.5:
            names.remove(self.random.choice(names))
        voters = [name for name in names if name != new and self.random.random() < 0.8]
        learners = [name for name in names if name not in voters]
        joining = [name for name in learners if self.random.random() < 0.5]
        if not voters:
            return
        wanted = Membership(tuple(voters), tuple(learners), joining=tuple(joining))
        if raft.objection(wanted) is None:
            if new in learners:
                told = raft.configuration_at(raft.last_index)
                node = self.cluster.add(new, Random(self.random.getrandbits(64)), told)
                self._lives[node.name] = 0
            self.reconfigured += 1
            leader.step([Reconfigure(wanted)])

    def read(self, name: str = "") -> None:
        """A read at whoever believes to lead, or at one of them; as often at anybody else."""
        nodes = [node for node in self._awake_leaders() if name in ("", node.name)]
        if not name and self.random.random() < 0.5:
            nodes = self._awake()
        if nodes:
            self.read_at(self.random.choice(nodes))

    def read_at(self, node: Node) -> None:
        """A read at a member, whatever it is."""
        self._reads += 1
        self.checks.asked(node, self._reads)
        node.read(self._reads, leased=self.leased > self.leases.random())

    # -- the whole life ------------------------------------------------------------------------

    def live(self) -> None:
        """Suffer, heal, and prove that it was survived."""
        self.at(0.0, self.cluster.start)
        self.at(0.5, self._torment)
        self.run_until(HOSTILE_SECONDS)
        self._heal()
        self.run_until(self.cluster.now + HEALING_TIMEOUTS * OPTIONS.election_timeout)
        self._check_progress()

    def _heal(self) -> None:
        self.hostile = False
        self.loss = self.doubling = 0.0
        self.disk_delay = 0.005
        self.cut.clear()
        self._stalled_until.clear()
        for node in self.cluster.nodes.values():
            if node.raft is None:
                self.restart(node)

    def _check_progress(self) -> None:
        """A leader is there, a proposal commits everywhere, a read is served (liveness)."""
        leaders = self.cluster.leaders()
        assert len(leaders) == 1, f"{len(leaders)} leaders after healing"
        members = leaders[0].alive.membership
        assert not members.is_joint, "a joint configuration stays for ever"
        assert leaders[0].alive.ready_to_serve
        base, served = self.propose(), self.checks.served
        assert base is not None
        for name in members.names:
            self.read_at(self.cluster.nodes[name])
        self.run_until(self.cluster.now + 4 * OPTIONS.election_timeout)
        assert self.checks.served == served + len(members.names), "a read waits for ever"
        assert not self.checks.waiting, "a read is never settled"
        for name in members.names:
            node = self.cluster.nodes[name]
            raft = node.alive
            assert raft.membership == members
            assert raft.commit_index == leaders[0].log.last_index >= base, (
                f"{node.name} committed {raft.commit_index} of {leaders[0].log.last_index}"
            )
