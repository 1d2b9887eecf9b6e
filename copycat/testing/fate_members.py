"""Fate's hand in who takes part: members join, leave, come back wiped, and change their part.

What it wants goes through the public API, and production may refuse it. The one thing it has to see
to itself is that a disk is given up only if the cluster can do without it for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import MembershipError, SecurityError, WrongClusterError
from ..types import MemberType
from .checkers import CheckFailed
from .console import DONE, LATE, Consoles, Wish

if TYPE_CHECKING:
    from ..server.roster import Roster
    from .hosting import Host, Hosting

MEMBERS_MAX = 6
HOSTS_MAX = 9
CONSOLES_MAX = 3
DOOMED_FROM_S = 5.0
"""Seconds that a member is down before its disk is given up: every leader has noticed by then."""
DOOMED_TO_S = 20.0
RESIZE_S = 2.0
STRIKES_MAX = 3
STRIKE_S = 0.002
"""Mean time between the moment in which a configuration is appended and the blow."""
AWAY_S = 20.0
"""Mean time that a member is away."""
RETURN_ODDS = 0.05
"""Probability per second that somebody starts a member again that was removed."""


class MembersFate:
    """Changes who takes part in one cluster.

    Args:
        hosting: the cluster.
        count: called with the name of what happened, when it happens later than it was asked for.

    Attributes:
        consoles: the administrators.
    """

    def __init__(self, hosting: Hosting, count: Callable[[str], None]) -> None:
        self.consoles = Consoles(hosting)
        self.acts: dict[str, Callable[[], bool]] = {
            "add member": lambda: self._add(MemberType.ACTIVE),
            "add learner": lambda: self._add(MemberType.PASSIVE),
            "remove member": self._remove,
            "replace": self._replace,
            "away": self._away,
            "wipe": self._wipe,
            "promote": lambda: self._change_part("promote"),
            "demote": lambda: self._change_part("demote"),
            "resize": self._resize,
            "struck": self._arm,
            "transfer to": self._transfer_to,
        }
        self._hosting = hosting
        self._random = hosting.random
        self._count = count
        self._over = False
        self._strikes = 0  # how many blows are due
        self._size = 0  # voters that there shall be; 0: as it comes

    # -- from beginning to end -----------------------------------------------------------------

    def begin(self) -> None:
        """Members that were removed are started again now and then."""
        self._hosting.timeline.after(1.0, self._return)

    def end(self) -> None:
        """No more changes; who belongs to the cluster comes back, and who does not learns it."""
        self._over = True
        for host in self._hosting.hosts.values():
            host.is_doomed = host.is_away = False
            if host.is_out and not host.is_up and not self._is_expected(host):
                self._hosting.start(host)  # it must find out that it is out
        self._mend()

    def _mend(self) -> None:
        """An administrator sees to it that everybody who has a place is there to take it."""
        for host in list(self._hosting.hosts.values()):
            if not host.is_up and self._is_expected(host):
                if host.is_out:
                    self._hosting.wipe(host)
                self._hosting.start(host)
        self._hosting.timeline.after(1.0, self._mend)

    def excuses(self, host: Host, error: BaseException | None) -> bool:
        """Whether a member may stop because of what became of its place."""
        hosting = self._hosting
        if not isinstance(error, MembershipError | WrongClusterError | SecurityError):
            return False
        if host.running is None:  # it was about to join, and may try again
            self._count("joining was refused")
            return host.joins
        if hosting.watch.members.is_member(host.name, host.uuid):
            return False
        host.is_out = True
        self._count("stopped as removed")
        return True

    # -- what it sees --------------------------------------------------------------------------

    @property
    def _roster(self) -> Roster | None:
        committed = self._hosting.watch.members.committed
        return None if committed is None else committed[1]

    def _is_expected(self, host: Host) -> bool:
        """Whether the cluster keeps a place for a member of that name."""
        roster = self._roster
        return roster is None or host.name in roster.seats or (host.joins and not host.is_out)

    def _some_member(self, roster: Roster) -> str:
        """Often the leader; members that are down as well."""
        leader = self._hosting.leader()
        names = roster.membership.names
        if leader is not None and leader.name in names and self._random.random() < 0.3:
            return leader.name
        return self._random.choice(names)

    def _may_wish(self) -> Roster | None:
        return self._roster if self.consoles.busy < CONSOLES_MAX and not self._over else None

    # -- coming --------------------------------------------------------------------------------

    def _add(self, type_: MemberType) -> bool:
        roster = self._may_wish()
        if roster is None or len(roster.seats) >= MEMBERS_MAX:
            return False
        host = self._newcomer(roster)
        if host is None:
            return False
        if type_ is MemberType.ACTIVE and self._random.random() < 0.5:
            self._hosting.start(host)  # joining adds it
            return True
        self.consoles.wish(
            f"add {type_.value}", host.name,
            lambda cluster, limit: cluster.add(
                host.name, host.address, type=type_, timeout=limit
            ),
            lambda wish: None if host.is_up else self._hosting.start(host),
        )  # fmt: skip
        return True

    def _newcomer(self, roster: Roster) -> Host | None:
        """A machine with an empty disk: a new one, or one whose member is out."""
        hosting = self._hosting
        idle = [
            host
            for host in hosting.hosts.values()
            if host.is_out and not host.is_up and host.name not in roster.seats
            and not hosting.watch.members.belongs(host.name, host.uuid)
        ]  # fmt: skip
        if idle and (len(hosting.hosts) >= HOSTS_MAX or self._random.random() < 0.6):
            host = self._random.choice(idle)
            hosting.wipe(host)
            return host
        if len(hosting.hosts) >= HOSTS_MAX:
            return None
        return hosting.add_host(f"n{len(hosting.hosts) + 1}", joins=True)

    def _return(self) -> None:
        """Somebody starts a member that was removed, on its old data."""
        if self._over:
            return
        for host in self._hosting.hosts.values():
            if host.is_out and not host.is_up and self._random.random() < RETURN_ODDS:
                self._count("started though removed")
                self._hosting.start(host)
        self._hosting.timeline.after(1.0, self._return)

    # -- going ---------------------------------------------------------------------------------

    def _remove(self) -> bool:
        roster = self._may_wish()
        if roster is not None:
            self._take_out(self._some_member(roster))
        return roster is not None

    def _take_out(self, name: str, then: Callable[[Wish], None] | None = None) -> None:
        self.consoles.wish(
            "remove", name, lambda cluster, limit: cluster.remove(name, timeout=limit), then
        )

    def _replace(self) -> bool:
        """A member goes, and comes back under its name with an empty disk."""
        roster = self._may_wish()
        if roster is None:
            return False
        host = self._hosting.hosts[self._some_member(roster)]
        uuid = host.uuid

        def come_back(wish: Wish) -> None:
            hosting = self._hosting
            if self._over or wish.outcome != DONE or not uuid or host.uuid != uuid:
                return
            if hosting.watch.members.belongs(host.name, uuid):
                return
            hosting.kill(host, power=False)
            hosting.wipe(host)
            hosting.start(host)
            self._count("came back wiped")

        self._take_out(host.name, come_back)
        return True

    def _away(self) -> bool:
        """A member is down for long, and hears of nothing."""
        hosting = self._hosting
        if self._roster is None or any(host.is_away for host in hosting.hosts.values()):
            return False
        host = hosting.hosts[self._some_member(self._roster)]
        host.is_away = True
        hosting.timeline.note(f"fate: {host.name} is away for long")
        hosting.kill(host, power=self._random.random() < 0.5)
        delay = self._random.expovariate(1 / AWAY_S)
        hosting.timeline.after(delay, lambda: setattr(host, "is_away", False))
        return True

    def _wipe(self) -> bool:
        """A member dies, and if the cluster can do without it, its disk is lost."""
        hosting = self._hosting
        if self._roster is None or any(host.is_doomed for host in hosting.hosts.values()):
            return False
        host = hosting.hosts[self._some_member(self._roster)]
        if not host.uuid or host.is_out:
            return False
        since = hosting.timeline.now
        host.is_doomed = True
        if host.is_up:
            hosting.kill(host, power=self._random.random() < 0.5)

        def look() -> None:
            if self._over or not host.is_doomed:
                return
            waited = hosting.timeline.now - since
            if waited >= DOOMED_FROM_S and hosting.can_lose(host):
                hosting.wipe(host)
                hosting.start(host)
                self._count("wiped")
            elif waited >= DOOMED_TO_S:
                host.is_doomed = False
            else:
                hosting.timeline.after(1.0, look)

        hosting.timeline.after(1.0, look)
        return True

    def _arm(self) -> bool:
        """The next one in whose log a new configuration stands is struck within a moment."""
        hosting = self._hosting
        self._strikes = min(self._strikes + 1, STRIKES_MAX)

        def strike(name: str) -> None:
            if not self._strikes or self._over or self._random.random() < 0.5:
                return
            self._strikes -= 1
            delay = self._random.expovariate(1 / STRIKE_S)
            hosting.timeline.after(delay, self._strike, hosting.hosts[name])

        hosting.watch.members.on_change = strike
        return False  # it is counted when it happens

    def _strike(self, host: Host) -> None:
        hosting, random = self._hosting, self._random
        process = host.process
        if self._over or process is None:
            return
        self._count("struck")
        kind = random.random()
        if kind < 0.5:
            hosting.kill(host, power=random.random() < 0.5)
        elif kind < 0.7:
            process.pause(random.random() * 3.0)
        else:
            others = [name for name in hosting.hosts if name != host.name]
            cut_off = [name for name in others if random.random() < 0.7]
            hosting.timeline.note(f"fate: {host.name} is cut off from {', '.join(cut_off)}")
            for name in cut_off:
                hosting.network.block(host.name, name)
            hosting.timeline.after(random.expovariate(1 / 3.0), hosting.network.heal)

    # -- other parts ---------------------------------------------------------------------------

    def _change_part(self, kind: str) -> bool:
        roster = self._may_wish()
        if roster is None:
            return False
        passive = list(roster.membership.learners)
        name = self._some_member(roster)
        if kind == "promote" and passive and self._random.random() < 0.8:
            name = self._random.choice(passive)
        self.consoles.wish(
            kind, name, lambda cluster, limit: getattr(cluster, kind)(name, timeout=limit)
        )
        return True

    def _resize(self) -> bool:
        """From now on there shall be one voter, three or five; one wish follows the other."""
        started = self._size != 0
        self._size = self._random.choice((1, 3, 5))
        self._hosting.timeline.note(f"fate: from now on {self._size} shall vote")
        if not started:
            self._hosting.timeline.after(RESIZE_S, self._towards_size)
        return True

    def _towards_size(self) -> None:
        if self._over:
            return
        roster = self._roster
        if roster is not None and not roster.membership.is_joint:
            voters = len(roster.membership.voters) + len(roster.membership.joining)
            if voters < self._size:
                self._add(MemberType.ACTIVE)
            elif voters > self._size:
                self._remove()
        self._hosting.timeline.after(RESIZE_S, self._towards_size)

    def _transfer_to(self) -> bool:
        """Somebody shall lead: a voter, a learner, somebody who is down, or nobody we know."""
        roster = self._may_wish()
        if roster is None:
            return False
        to = self._random.choice((*roster.membership.names, "nobody"))
        before = self._hosting.watch.members.committed

        def judge(wish: Wish) -> None:
            passive = to not in roster.membership.voters and to not in roster.membership.joining
            unchanged = before == self._hosting.watch.members.committed
            if wish.outcome == DONE and passive and unchanged:
                text = f"leadership went to {to}, who does not vote"
                self._hosting.fail(CheckFailed("transfer", text))

        self.consoles.wish(
            "transfer", to,
            lambda cluster, limit: cluster.transfer_leadership(to, timeout=limit), judge,
        )  # fmt: skip
        return True

    # -- judgement -----------------------------------------------------------------------------

    def voter_leads(self) -> bool:
        """Whether the leader is a voter, by the committed configuration."""
        leader, roster = self._hosting.leader(), self._roster
        if leader is None or roster is None:
            return False
        return leader.name in roster.membership.voters

    def strays(self) -> list[str]:
        """Members that run and are none any more: sooner or later they have to learn that.

        But for those that know the address of nobody who is one: they can only say so.
        """
        is_member = self._hosting.watch.members.is_member
        hosts = self._hosting.hosts.values()
        there = {host.address for host in hosts if is_member(host.name, host.uuid)}
        return [
            host.name
            for host in hosts
            if host.running is not None
            and not is_member(host.name, host.uuid)
            and there & host.running.known_addresses
        ]

    def last_wishes(self) -> list[Wish]:
        """What is asked for when all is healed: it must be done or refused, never late."""
        roster = self._roster
        if roster is None:
            return []
        name = self._random.choice(roster.membership.names)
        wish = self.consoles.wish
        return [
            wish("members", "", lambda cluster, limit: cluster.members(timeout=limit)),
            wish("promote", name, lambda cluster, limit: cluster.promote(name, timeout=limit)),
            wish("transfer", "", lambda c, limit: c.transfer_leadership(timeout=limit)),
        ]

    def check_wishes(self, last: list[Wish]) -> None:
        """Every wish has ended, and the last ones were heard."""
        stuck = self.consoles.overdue()
        if stuck is not None:
            raise CheckFailed("liveness", f"a wish never ends: {stuck}")
        for wish in last:
            if wish.outcome == LATE:
                raise CheckFailed("liveness", f"nobody makes a wish come true: {wish}")
        for wish in self.consoles.wishes:
            self._count(f"{wish.kind}: {wish.outcome}")
