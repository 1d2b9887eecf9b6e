"""Fate: the faults of a simulated life, one after another, by chance.

It uses what the simulated doors offer to make trouble, and undoes all of it at the end. It knows
nothing of the protocol and looks at members only to find the one that leads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, CorruptLogError, StorageError
from .disk import FAST, SLOW, STALLING
from .endpoint import FrameFaults
from .fate_disks import DisksFate
from .fate_members import MembersFate
from .network import CLOGGED

if TYPE_CHECKING:
    from .hosting import Host, Hosting
    from .plan import Plan
    from .workload import Records

BEGIN_S = 2.0
REVIVE_S = 3.0
"""Mean time that a dead member stays down, in seconds."""
DOWN_ODDS = 0.7
"""Probability that a fault on a second member spares it while another one is down."""


class Fate:
    """Acts on one cluster and its clients.

    Args:
        hosting: the cluster.
        plan: which faults happen, and how often.
        records: hears of clients that stand still or die.
        new_client: starts another client.

    Attributes:
        counts: how often each fault happened.
        members: its hand in who takes part.
        disks: its hand in what disks lose and spoil.
    """

    def __init__(
        self, hosting: Hosting, plan: Plan, records: Records, new_client: Callable[[], None]
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._hosting = hosting
        self._plan = plan
        self._records = records
        self._new_client = new_client
        self._random = hosting.random
        self._over = False
        self._faulty_disks: set[str] = set()
        self._misled: set[str] = set()  # members that were given a wrong list of founders
        self._acts: dict[str, Callable[[], bool]] = {
            "kill": lambda: self._kill(power=False),
            "power cut": lambda: self._kill(power=True),
            "crash point": self._crash_point,
            "everybody dies": self._everybody_dies,
            "partition": self._partition,
            "one way": self._one_way,
            "isolation": self._isolation,
            "clogged": self._clog,
            "resets": self._reset,
            "frames": self._frames,
            "pause": self._pause,
            "suspend": self._suspend,
            "slow disk": self._slow_disk,
            "sync error": self._sync_error,
            "full disk": self._full_disk,
            "transfer": lambda: self._ask("transfer"),
            "snapshot": lambda: self._ask("snapshot"),
            "calendar": self._calendar,
            "client pause": self._client_pause,
            "client death": self._client_death,
            "cut off": self._cut_off,
            "client unheard": self._client_unheard,
        }
        self.members = MembersFate(hosting, self.count)
        self.disks = DisksFate(hosting, self.count)
        self._acts |= self.members.acts | self.disks.acts

    def count(self, what: str) -> None:
        """Something of that kind happened."""
        self.counts[what] += 1

    def excuses(self, host: Host, error: BaseException | None) -> bool:
        """Whether a member may stop because of what was done to its disk."""
        if self.disks.excuses(host, error):
            return True
        if self._misled and isinstance(error, ConfigurationError) and not host.uuid:
            self.count("stopped over different lists")
            return True
        excused = isinstance(error, StorageError) and host.name in self._faulty_disks
        excused = excused and not isinstance(error, CorruptLogError)  # nobody damaged a file there
        if excused:
            self.count("stopped by a disk error")
        return excused or self.members.excuses(host, error)

    # -- from beginning to end -----------------------------------------------------------------

    def begin(self) -> None:
        """Faults happen from now on."""
        self._appoint(BEGIN_S)
        self._hosting.timeline.after(1.0, self._revive)
        self.members.begin()

    def end(self) -> None:
        """No more of it: heal everything, and bring everybody back."""
        self._note("no more faults: all is healed, everybody comes back")
        self._over = True
        hosting = self._hosting
        hosting.network.heal()
        hosting.network.frame_faults.clear()
        for one in hosting.hosts:
            for other in hosting.hosts:
                hosting.network.clog(one, other, 1.0)
        self.disks.end()
        for host in hosting.hosts.values():
            self._repair(host)
            host.disk.crash_after = None
            if host.is_up and host.name in self._misled and not host.uuid:
                hosting.kill(host, power=False)  # it waits for somebody who does not exist
            if not host.is_up and not host.is_out:
                hosting.start(host)
        self.members.end()

    def start_late(self, host: Host, within_s: float) -> None:
        """Start a founding member for the first time some time, perhaps with a wrong list first."""
        hosting, random = self._hosting, self._random

        def start() -> None:
            if self._over or host.is_up or host.uuid or host.is_doomed or host.is_away:
                return  # it came to life some other way
            founders = dict(hosting.founders)
            if random.random() < 0.3 and not host.disk.medium.names:
                self._misled.add(host.name)
                other = random.choice(list(founders))
                if random.random() < 0.5:
                    founders[other] = "elsewhere:1" if other != host.name else founders[other]
                elif other != host.name:
                    del founders[other]
                founders |= random.choice(({}, {"n99": "n99:7400"}))
            hosting.start(host, founders)

        hosting.timeline.after(random.uniform(0.0, within_s), start)

    def _appoint(self, delay: float) -> None:
        self._hosting.timeline.after(delay, self._act)

    def _act(self) -> None:
        plan = self._plan
        if self._over or not plan.faults or sum(self.counts.values()) >= plan.fault_limit:
            return
        kind = self._random.choice(self._plan.faults)
        if self._acts[kind]():
            self.count(kind)
        self._appoint(self._random.expovariate(1 / self._plan.fault_every))

    def _revive(self) -> None:
        """Whoever is down comes back after a while."""
        if self._over:
            return
        for host in self._hosting.hosts.values():
            if host.is_out or host.is_doomed or host.is_away:
                continue
            if not host.is_up and self._random.random() < 1 / REVIVE_S:
                self._repair(host)
                self._hosting.start(host)
        self._hosting.timeline.after(1.0, self._revive)

    def _later(self, mean_s: float, action: Callable[[], object], what: str = "") -> None:
        def act() -> None:
            if what:
                self._note(what)
            action()

        self._hosting.timeline.after(self._random.expovariate(1 / mean_s), act)

    def _note(self, what: str) -> None:
        self._hosting.timeline.note(f"fate: {what}")

    # -- members -------------------------------------------------------------------------------

    def _victim(self) -> Host | None:
        """Some member that is up, often the leader; often nobody while another one is down."""
        hosting = self._hosting
        there = [host for host in hosting.hosts.values() if not host.is_out]
        up = [host for host in there if host.is_up]
        if not up or (len(up) < len(there) and self._random.random() < DOWN_ODDS):
            return None
        leader = hosting.leader()
        if leader is not None and self._random.random() < 0.5:
            return leader
        return self._random.choice(up)

    def _kill(self, *, power: bool) -> bool:
        host = self._victim()
        if host is not None:
            how = "loses power" if power else "is killed"
            self._hosting.timeline.trace(f"fate: {host.name} {how}")
            self._hosting.kill(host, power=power)
        return host is not None

    def _crash_point(self) -> bool:
        host = self._victim()
        if host is not None:
            host.disk.crash_after = self._random.randint(0, 25)
            self._hosting.timeline.trace(f"fate: {host.name} will die at its disk")
        return host is not None

    def _everybody_dies(self) -> bool:
        if self._random.random() < 0.8:
            return False
        power = self._random.random() < 0.7
        self._hosting.timeline.trace("fate: everybody dies")
        for host in self._hosting.hosts.values():
            if host.is_up:
                self._hosting.kill(host, power=power)
        return True

    def _pause(self) -> bool:
        host = self._victim()
        if host is None or host.process is None:
            return False
        host.process.pause(self._random.choice((0.1, 0.5, 1.5, 4.0)) * self._random.random())
        return True

    def _suspend(self) -> bool:
        host = self._victim()
        if host is None or host.process is None:
            return False
        host.process.suspend(self._random.choice((0.1, 0.5, 1.5, 4.0)) * self._random.random())
        return True

    def _ask(self, name: str) -> bool:
        """An administrator asks the leader for something, as its console would."""
        host = self._hosting.leader()
        if host is None or host.running is None or host.running.member is None:
            return False
        member, process = host.running.member, host.process
        if process is None:
            return False
        what = "hand over" if name == "transfer" else "take a snapshot"
        self._note(f"the leader {host.name} is asked to {what}")
        process.loop.call_soon(lambda: _quietly(lambda: member.admin(name, [])))
        return True

    def _calendar(self) -> bool:
        host = self._victim()
        if host is None or host.process is None:
            return False
        self._note(f"the calendar of {host.name} jumps")
        host.process.clock.jump(self._random.choice((-1.0, 1.0)) * self._random.choice((1, 3600)))
        return True

    # -- disks ---------------------------------------------------------------------------------

    def _repair(self, host: Host) -> None:
        self.disks.restore(host)
        host.disk.latency = FAST
        host.disk.rates.clear()
        host.disk.capacity_bytes = 1 << 40

    def _slow_disk(self) -> bool:
        host = self._victim()
        if host is None:
            return False
        host.disk.latency = self._random.choice((SLOW, STALLING))
        self._note(f"the disk of {host.name} is slow")
        end = f"the disk of {host.name} is fast again"
        self._later(5.0, lambda: setattr(host.disk, "latency", FAST), end)
        return True

    def _sync_error(self) -> bool:
        host = self._victim()
        if host is None:
            return False
        self._faulty_disks.add(host.name)
        host.disk.rates["sync"] = 0.2
        self._note(f"syncs of the disk of {host.name} fail now and then")
        end = f"the disk of {host.name} syncs again"
        self._later(2.0, lambda: host.disk.rates.pop("sync", None), end)
        return True

    def _full_disk(self) -> bool:
        host = self._victim()
        if host is None:
            return False
        self._faulty_disks.add(host.name)
        used = host.disk.capacity_bytes - host.disk.free_bytes()
        host.disk.capacity_bytes = used + self._random.randrange(0, 64 << 10)
        self._note(f"the disk of {host.name} is full, or nearly so")
        # Now and then for long, and then another one may be as full at the same time, or all.
        mean_s = self._random.choice((5.0, 5.0, 30.0))
        end = f"the disk of {host.name} has room again"
        self._later(mean_s, lambda: setattr(host.disk, "capacity_bytes", 1 << 40), end)
        return True

    # -- the network ---------------------------------------------------------------------------

    def _everybody(self) -> list[str]:
        return [*self._hosting.hosts, *self._hosting.clients, *self._hosting.consoles]

    def _heal_later(self) -> None:
        self._later(3.0, self._hosting.network.heal)

    def _partition(self) -> bool:
        members = list(self._hosting.hosts)
        one_side = {name for name in self._everybody() if self._random.random() < 0.5}
        for name in members:
            for other in self._everybody():
                if (name in one_side) != (other in one_side):
                    self._hosting.network.block(name, other)
        self._hosting.timeline.trace(f"fate: partition {sorted(one_side)}")
        self._heal_later()
        return True

    def _link(self) -> tuple[str, str] | None:
        """A member and somebody else."""
        one = self._random.choice(list(self._hosting.hosts))
        others = [name for name in self._everybody() if name != one]
        return (one, self._random.choice(others)) if others else None

    def _one_way(self) -> bool:
        link = self._link()
        if link is None:
            return False
        one, other = link
        if self._random.random() < 0.5:
            one, other = other, one
        self._hosting.network.block(one, other, both=False)
        self._hosting.timeline.trace(f"fate: nothing goes from {one} to {other}")
        self._heal_later()
        return True

    def _isolation(self) -> bool:
        leader = self._hosting.leader()
        if leader is None:
            return False
        for other in self._hosting.hosts:
            if other != leader.name:
                self._hosting.network.block(leader.name, other)
        self._hosting.timeline.trace(f"fate: the leader {leader.name} is cut off from its peers")
        self._heal_later()
        return True

    def _clog(self) -> bool:
        link = self._link()
        if link is None:
            return False
        one, other = link
        self._note(f"what goes from {one} to {other} takes long")
        self._hosting.network.clog(one, other, CLOGGED * self._random.choice((1.0, 10.0)))
        end = f"what goes from {one} to {other} is as quick as ever"
        self._later(4.0, lambda: self._hosting.network.clog(one, other, 1.0), end)
        return True

    def _reset(self) -> bool:
        link = self._link()
        if link is None:
            return False
        one, other = link
        self._hosting.network.reset(one, other, one_end=self._random.random() < 0.5)
        return True

    def _frames(self) -> bool:
        faults = FrameFaults(drop=0.05, duplicate=0.05, reorder=0.05)
        names = list(self._hosting.hosts)
        for one in names:
            for other in names:
                if one != other:
                    self._hosting.network.frame_faults[one, other] = faults
        self._note("frames between members are lost, doubled, and overtake each other")
        end = "frames between members come through again"
        self._later(4.0, self._hosting.network.frame_faults.clear, end)
        return True

    # -- clients -------------------------------------------------------------------------------

    def _client_pause(self) -> bool:
        clients = self._hosting.clients
        if not clients:
            return False
        name = self._random.choice(list(clients))
        self._records.paused(name)
        clients[name].pause(self._random.choice((0.5, 3.0, 8.0)) * self._random.random())
        return True

    def _cut_off(self) -> bool:
        if not self._hosting.clients:
            return False
        name, network = self._random.choice(list(self._hosting.clients)), self._hosting.network
        members, after = list(self._hosting.hosts), self._hosting.timeline.after

        def block(*, both: bool) -> None:
            for member in members:
                network.block(member, name, both=both)

        def end() -> None:
            self._note(f"{name} is no longer cut off")
            for member in members:
                network.unblock(member, name)

        # At first it may be heard, and only hear nothing: what it says is done, and not answered.
        deaf_s = self._random.choice((0.0, 0.5)) * self._random.random()
        block(both=not deaf_s)
        if deaf_s:
            after(deaf_s, lambda: block(both=True))
        after(deaf_s + self._random.expovariate(1 / 5.0), end)
        self._hosting.timeline.trace(f"fate: {name} is cut off")
        return True

    def _client_death(self) -> bool:
        clients = self._hosting.clients
        if not clients:
            return False
        name = self._random.choice(list(clients))
        self._records.paused(name)
        self._hosting.client_died(name)
        self._later(2.0, self._new_client)
        return True

    def _client_unheard(self) -> bool:
        """A client is cut off for about as long as its session lasts; who holds the lock if may be.

        Before that its answers are held back for a moment. They come while it is not heard, or
        when all is over, or never if the connection breaks.
        """
        hosting, random = self._hosting, self._random
        clients, network = hosting.clients, hosting.network
        if not clients:
            return False
        holders = [name for name in self._records.holding if name in clients]
        name = random.choice(holders or list(clients))
        members = list(hosting.hosts)
        lasts_s = self._plan.session_s * random.uniform(0.8, 1.6)
        answers_come = random.random() < 0.5

        def silence() -> None:
            if self._over:
                return
            for member in members:
                network.block(name, member, both=False)
                if answers_come:
                    network.unblock(member, name, both=False)
            hosting.timeline.after(lasts_s, speech)

        def speech() -> None:
            self._note(f"{name} is heard again")
            for member in members:
                network.unblock(name, member)

        hosting.timeline.trace(f"fate: {name} hears nothing for a while")
        for member in members:
            network.block(member, name, both=False)
        hosting.timeline.after(self._plan.session_s * random.uniform(0.0, 0.5), silence)
        return True


def _quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except (LookupError, ValueError):
        return  # it leads no more
