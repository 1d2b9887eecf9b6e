"""Short lives of clusters that read by leases, and a fate that plots against them (H29).

Every clock runs as wrongly as it may. Again and again there is a *coup*: the leader is cut off and
goes on, reading by its lease, while everybody else is told that it is gone for certain, or
restarts, or is bidden to stand, or finds the leader asleep. Answers may take long. `Checks` knows
what was committed when each read began.
"""

from __future__ import annotations

from collections.abc import Callable

from copycat.ports import Random
from copycat.raft import Membership, RaftOptions
from copycat.raft.inputs import PeerRefused, Reconfigure, Transfer
from copycat.raft.messages import Message

from .harness import Node
from .lives import Life

DRIFT = RaftOptions().clock_drift
COUPS = (
    "refused",  # the others are told that it is gone for certain
    "restart",  # and they restart
    "crash",  # or some of them do
    "deaf one",  # one did not hear it for long, and wants to stand anyway
    "minority",  # only a minority still hears it
    "transfer",
    "late bid",  # the one who is to lead hears of it late
    "members",  # the voters change
    "stall",
    "sleep",
)
COUP_S = 0.6
READ_S = 0.004
SECONDS = 12.0


class LeasedLife(Life):
    """A cluster in which nearly all reads are content with a lease."""

    sizes = (2, 3, 3, 3, 4, 5, 5, 5)

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.chance = Random(f"coups {seed}")
        self.leased = 0.95
        self.coups = 0
        self.slow: dict[tuple[str, str], float] = {}
        self.loss = self.doubling = 0.0
        self.disk_delay = 0.002
        self._victim = ""
        for node in self.cluster.nodes.values():
            node.rate = 1.0 + DRIFT * self.chance.choice((-1.0, -1.0, 1.0, 1.0, 0.0))

    # -- what happens --------------------------------------------------------------------------

    def _torment(self) -> None:
        """A coup, and while it lasts there is always somebody who reads and writes."""
        if not self.hostile:
            return
        self._work(self.cluster.now + 2 * COUP_S)
        leaders = self._awake_leaders()
        if leaders and self.chance.random() < 0.8:
            leader = leaders[0]
            # Its lease is a little older each time.
            self.at(self.cluster.now + 0.1 + self.chance.random() / 10, lambda: self._coup(leader))
        self.at(self.cluster.now + 2 * COUP_S, self._peace)

    def _work(self, until: float) -> None:
        now = self.cluster.now
        if now < until:
            for leader in self._awake_leaders():
                if not self._victim or self._victim == leader.name:
                    self.read(leader.name)
            if self.chance.random() < 0.05 and not self._victim:
                self.propose()  # (who did not hear of it could not be elected)
            self.at(now + READ_S, lambda: self._work(until))

    def _peace(self) -> None:
        self.cut.clear()
        self.slow.clear()
        self._stalled_until.clear()
        self._victim = ""
        for node in self.cluster.nodes.values():
            if node.raft is None:
                self.restart(node)
        self._work(self.cluster.now + COUP_S)
        self.at(self.cluster.now + COUP_S, self._torment)

    def _coup(self, leader: Node) -> None:
        """It goes on to believe that it leads; the others want somebody else."""
        if leader.raft is None or not leader.alive.is_leader:
            return
        self.coups += 1
        self._victim = leader.name
        kind = self.chance.choice(COUPS)
        others = [node for node in self.cluster.running() if node is not leader]
        if self.chance.random() < 0.5:
            self._answer_slowly(leader, 0.02 + self.chance.random() * 0.2)
        delay = 0.0
        if kind == "transfer":
            leader.step([Transfer(None)])
            self.at(self.cluster.now + 0.002, lambda: self._deafen(leader))
        elif kind == "late bid":
            delay = self._bid_late(leader)
        elif kind == "minority":
            few = len(self.cluster.nodes) // 2 + 1
            self.cut.update((leader.name, node.name) for node in others[:few])
            delay = 0.24 + self.chance.random() * 0.12
        elif kind == "deaf one":
            deaf = others.pop(0)
            self.cut.add((leader.name, deaf.name))
            self.at(self.cluster.now + 0.4, lambda: self._before_it_stands(deaf, leader, others))
            return
        elif kind == "members":
            self._shrink(leader)
            delay = self.chance.random() * 0.05
        elif kind == "stall":
            self._stalled_until[leader.name] = self.cluster.now + self.chance.random() * 0.5
        elif kind == "sleep":
            self._sleep(leader, self.chance.random() * 0.5)
        deaths = {"restart": 1.0, "crash": 0.5}.get(kind, 0.0)
        self.at(self.cluster.now + delay, lambda: self._strike(leader, others, deaths))

    def _before_it_stands(self, deaf: Node, leader: Node, others: list[Node]) -> None:
        """Somebody who has promised nothing is about to stand once more."""
        begin = max(self.cluster.now, deaf.wake_at - 0.02 - self.chance.random() * 0.15)
        deaths = self.chance.choice((0.0, 1.0))
        self.at(begin, lambda: self._strike(leader, others, deaths))

    def _strike(self, leader: Node, others: list[Node], deaths: float) -> None:
        """The leader is alone; to the ``others`` it is gone for certain, or they forget it."""
        self._isolate(leader)
        for node in others:
            begin = self.cluster.now + self.chance.random() * 0.02
            if self.chance.random() < deaths:
                self.at(begin, self._reborn(node))
            for nth in range(4):
                self.at(begin + 0.001 + nth * 0.08, self._told(node, leader.name))

    def _bid_late(self, leader: Node) -> float:
        """Hand over to somebody who is slow to hear; seconds until he does."""
        voters = [name for name in leader.alive.membership.voters if name != leader.name]
        if not voters:
            return 0.0
        delay = 0.05 + self.chance.random() * 0.15
        heir = self.chance.choice(voters)
        self.slow[leader.name, heir] = delay
        leader.step([Transfer(heir)])
        self.at(self.cluster.now + delay, lambda: self._deafen(leader))
        return delay

    def _deafen(self, leader: Node) -> None:
        self.cut.update((other, leader.name) for other in self.cluster.nodes)

    def _isolate(self, leader: Node) -> None:
        """No words go to it or come from it, but what is on its way may still arrive."""
        self._deafen(leader)
        self.cut.update((leader.name, other) for other in self.cluster.nodes)

    def _told(self, node: Node, leader: str) -> Callable[[], None]:
        def act() -> None:
            if node.raft is not None:
                node.step([PeerRefused(leader)])

        return act

    def _reborn(self, node: Node) -> Callable[[], None]:
        def act() -> None:
            if node.raft is not None:
                self.crash(node)
                self.restart(node)

        return act

    def _sleep(self, leader: Node, seconds: float) -> None:
        """Its machine sleeps, and its clock counts nothing of it."""
        until = self._stalled_until[leader.name] = self.cluster.now + seconds
        life = self._lives[leader.name]

        def wake() -> None:
            if self._lives[leader.name] == life and leader.raft is not None:
                leader.sleep(seconds)
                leader.step()

        self.at(until, wake)

    def _shrink(self, leader: Node) -> None:
        """Other voters: some become learners, or learners voters."""
        names = list(leader.alive.membership.names)
        voters = [name for name in names if self.chance.random() < 0.6] or names
        learners = tuple(name for name in names if name not in voters)
        wanted = Membership(tuple(voters), learners)
        if leader.alive.objection(wanted) is None:
            leader.step([Reconfigure(wanted)])

    def _answer_slowly(self, leader: Node, seconds: float) -> None:
        for other in self.cluster.nodes:
            self.slow[other, leader.name] = seconds

    def _put_on_its_way(self, message: Message) -> None:
        slow = self.slow.get((message.sender, message.to), 0.0)
        if (message.sender, message.to) in self.cut:
            return
        delay = 0.001 + slow + self.chance.expovariate(1000)
        self.at(self.cluster.now + delay, lambda: self._arrive(message))

    def crash(self, node: Node) -> None:
        """Die; nobody is told of it."""
        node.crash(None)
        self.checks.crashed(node)
        self._lives[node.name] += 1
        self._waking.pop(node.name, None)

    def live(self) -> None:
        """Suffer many coups."""
        self.at(0.0, self.cluster.start)
        self.at(1.0, self._torment)
        self.run_until(SECONDS)
