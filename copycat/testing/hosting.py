"""Hosts for members in virtual time: production members on simulated doors, watched all the time.

A host's disk stays while its processes come and go. Members and clients are started here, and
nothing is decided: faults come from ``fate`` or a test, laws are checked in ``watch``. It serves
`Life` and `Simulation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .. import handles
from ..config import server_options
from ..errors import CopycatError, InvariantViolated
from ..machine import StateMachine, checked_machines
from ..node import Doors, RunningMember
from ..ports import Random
from ..types import Address
from .checkers import CheckFailed
from .clock import SimulatedClock
from .determinism import Determinism
from .disk import SimulatedDisk
from .network import SimulatedNetwork
from .process import SimulatedProcess
from .timeline import Timeline
from .watch import Watch
from .watch_members import incarnation

PORT = 7400

Excuse = Callable[["Host", BaseException | None], bool]


@dataclass(slots=True, eq=False)
class Host:
    """A machine for a member: its disk stays, its processes come and go."""

    name: str
    address: Address
    disk: SimulatedDisk
    process: SimulatedProcess | None = None
    running: RunningMember | None = None
    joins: bool = False  # it is opened with join=, not with the founding members
    uuid: bytes = b""  # which incarnation its disk has, if it ever took part
    is_out: bool = False  # its member said that it was removed, and stopped
    is_doomed: bool = False  # it stays down: its disk is given up
    is_away: bool = False  # it stays down for long
    is_damaged: bool = False  # something on its disk is not as it was written

    @property
    def is_up(self) -> bool:
        """Whether a process of it lives."""
        return self.process is not None and self.process.alive


class Hosting:
    """A simulated cluster and whoever connects to it.

    Args:
        seed: of everything that is left to chance.
        members: how many; they are called n1, n2...
        machines: your `StateMachine` classes.
        skew: clocks run up to this fraction too fast or too slow.
        snapshot_bytes, segment_bytes: of the members' storage.
        check_determinism: run every command again elsewhere, and compare (see ``determinism``).
        tell: hears each line of the story.

    Attributes:
        excuse: says whether a member may have stopped by itself with an error.
        started: is told of a member that has read its disk.
    """

    def __init__(
        self,
        seed: int,
        members: int,
        *,
        machines: Iterable[type[StateMachine]] = (),
        skew: float = 0.0,
        snapshot_bytes: int = 1 << 20,
        segment_bytes: int = 64 << 10,
        check_determinism: bool = False,
        preferred: str = "",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.random = random = Random(seed)
        self.timeline = Timeline(Random(random.getrandbits(64)), tell)
        self.network = SimulatedNetwork(self.timeline, Random(random.getrandbits(64)))
        self.watch = Watch(lambda: self.timeline.now, skew)
        self.watch.note = self.timeline.note
        self.hosts: dict[str, Host] = {}
        self.clients: dict[str, SimulatedProcess] = {}
        self.consoles: dict[str, SimulatedProcess] = {}
        self.excuse: Excuse = lambda host, error: False
        self.started: Callable[[Host], None] = lambda host: None
        self.watch.damaged = lambda name: self.hosts[name].is_damaged
        self.problem: BaseException | None = None
        self._machines = checked_machines(machines)
        self.determinism: Determinism | None = None
        if check_determinism and self._machines:
            self.determinism = Determinism(self._machines, seed, self.fail)
        self._skew = skew
        self._preferred = preferred  # the member that should lead
        self._storage = {"snapshot_bytes": snapshot_bytes, "segment_bytes": segment_bytes}
        self._dead: list[SimulatedProcess] = []
        self.founders = {f"n{i}": str(Address(f"n{i}", PORT)) for i in range(1, members + 1)}
        for name in self.founders:
            self.add_host(name)

    # -- time ----------------------------------------------------------------------------------

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, until something is wrong; True as soon as ``until`` holds."""
        done = self.timeline.run(
            seconds, until=lambda: self.problem is not None or (until is not None and until())
        )
        if self.problem is not None:
            raise self.problem
        return done

    def fail(self, problem: BaseException) -> None:
        """Something is wrong: `run` raises the first such problem."""
        if self.problem is None:
            self.problem = problem

    def bury(self) -> None:
        """The world is over."""
        consoles = self.consoles.values()
        for process in [*self._dead, *self.clients.values(), *consoles, *self.member_processes()]:
            process.bury()
        if self.determinism is not None:
            self.determinism.close()

    # -- members -------------------------------------------------------------------------------

    def add_host(self, name: str, *, joins: bool = False) -> Host:
        """A machine with an empty disk, for a founding member or for one that ``joins``."""
        disk = SimulatedDisk(random=Random(self.random.getrandbits(64)))
        host = self.hosts[name] = Host(name, Address(name, PORT), disk, joins=joins)
        return host

    def wipe(self, host: Host) -> None:
        """A machine that is down loses its disk for good; who is started there has to join."""
        self.timeline.trace(f"{host.name} has lost its disk")
        self.watch.members.wiped(incarnation(host.name, host.uuid))
        host.disk = SimulatedDisk(random=Random(self.random.getrandbits(64)))
        host.joins, host.uuid = True, b""
        host.is_out = host.is_doomed = host.is_damaged = False

    def can_lose(self, host: Host) -> bool:
        """Whether the cluster can live on without what is on the disk of ``host``, for ever."""
        uuids = {
            each.name: each.uuid
            for each in self.hosts.values()
            if each.uuid and not (each.is_doomed or each.is_damaged)
        }
        return self.watch.members.can_lose(host.name, uuids)

    def start(self, host: Host, founders: dict[str, str] | None = None) -> None:
        """Start a member's process on what its disk has kept; ``founders`` if it is misled."""
        self.timeline.note(f"{host.name} starts{', to join' if host.joins else ''}")
        process = self.process(host.name)
        host.process, host.running = process, None
        door = host.disk.mount(process.schedule)
        host.disk.on_crash = lambda: self.kill(host, power=self.random.random() < 0.5)
        process.spawn(self._serve(host, process, door, founders or self.founders))

    async def _serve(
        self, host: Host, process: SimulatedProcess, door: Any, founders: dict[str, str]
    ) -> None:
        others = [str(other.address) for other in self.hosts.values() if other is not host]
        how = {"join": others} if host.joins else {"members": founders}
        doors = Doors(process.network, door, process.clock, process.random)
        try:
            options = server_options(
                name=host.name, listen=str(host.address), data="simulated",
                priority=9 if host.name == self._preferred else 1, **how, **self._storage,
            )  # fmt: skip
            running = RunningMember(options, doors, self._machines)
            await running.start()
            self.watch.adopt(running)
            if self.determinism is not None:
                self.determinism.adopt(running.member)
            host.running = running
            self._recovered(running)
            host.uuid = running.identity.uuid if running.identity is not None else b""
            self.started(host)
            failed = running.failed
            error: BaseException | None = await failed if failed is not None else None
        except CopycatError as problem:
            error = problem
        except Exception as problem:
            self.fail(problem)
            return
        self._stopped(host, process, error)

    def _recovered(self, running: RunningMember) -> None:
        member = running.member
        if member is not None:
            status = member.status()
            log = f"its log ends at {status['last_index']}"
            self.timeline.note(f"{running.name} is up: term {status['term']}, {log}")

    def _stopped(self, host: Host, process: SimulatedProcess, error: BaseException | None) -> None:
        """A member stopped by itself: allowed after what was done to it, and only then."""
        self.timeline.trace(f"{host.name} stops: {error}")
        try:
            excused = self.excuse(host, error)
        except CheckFailed as problem:
            self.fail(problem)
            return
        if isinstance(error, CheckFailed | InvariantViolated) or not excused:
            self.fail(error or CheckFailed("life", f"{host.name} stopped without a reason"))
            return
        self.timeline.after(0.0, lambda: self.kill(host, power=False, process=process))

    def kill(self, host: Host, *, power: bool, process: SimulatedProcess | None = None) -> None:
        """End a member's process; with ``power`` the disk loses what was not synced."""
        if process is not None and host.process is not process:
            return
        if host.process is not None:
            host.process.kill()
            self._dead.append(host.process)
        host.process = host.running = None
        if power:
            host.disk.power_cut()
        else:
            host.disk.kill()

    def leader(self) -> Host | None:
        """The host of a member that serves as leader."""
        for host in self.hosts.values():
            running = host.running
            if host.is_up and running and running.member and running.member.serving:
                return host
        return None

    def present(self) -> list[Host] | None:
        """The hosts of all members by the newest committed configuration, voters first.

        None while one of them has yet to come, or the members are still changing.
        """
        if self.watch.members.committed is None:
            return list(self.hosts.values())
        _, roster = self.watch.members.committed
        if roster.membership.is_joint or roster.membership.joining:
            return None
        found = [self.hosts[name] for name in roster.membership.names]
        ready = all(host.uuid == roster.seats[host.name].uuid for host in found)
        return found if ready else None

    def is_settled(self) -> bool:
        """Whether all members are up and have applied the same log."""
        states = [self.status(host) for host in self.present() or ()]
        return bool(states) and None not in states and len(set(states)) == 1

    def status(self, host: Host) -> tuple[object, ...] | None:
        """(term, index) of a member that has applied all it has; None of another."""
        if host.running is None or host.running.member is None:
            return None
        status = host.running.member.status()
        if status["applied_index"] != status["last_index"]:
            return None
        return status["term"], status["last_index"]

    def waiting_queries(self) -> int:
        """How many frames of queries wait at members (H26: in the end, none)."""
        members = [host.running.member for host in self.hosts.values() if host.running is not None]
        return sum(len(member._desk._reads) for member in members if member is not None)

    def compare_states(self) -> None:
        """Raise `CheckFailed` if members differ at the same index, or somebody failed unheard."""
        appliers = {
            host.name: host.running.member._applier
            for host in self.hosts.values()
            if host.running is not None and host.running.member is not None
        }
        for name, applier in appliers.items():
            self.watch.compare(name, applier)
        for name, applier in appliers.items():
            if applier.agreement.differences:
                found = "; ".join(
                    f"{what} differs since index {index}"
                    for what, index in applier.agreement.differences.items()
                )
                raise CheckFailed("same state", f"{name} says that {found}")
        consoles = self.consoles.values()
        for process in [*self.member_processes(), *self.clients.values(), *consoles]:
            if process.failures:
                raise CheckFailed("process", str(process.failures[0]))

    # -- clients and processes -----------------------------------------------------------------

    def client_process(self, name: str) -> SimulatedProcess:
        """A new process for a client."""
        process = self.clients[name] = self.process(name)
        return process

    def connect(self, process: SimulatedProcess, **options: Any) -> handles.Connecting:
        """What `copycat.connect` would give in that process."""
        return handles.connect(
            [host.address for host in self.hosts.values()], network=process.network,
            clock=process.clock, random=process.random, machines=self._machines,
            name=process.name, **options,
        )  # fmt: skip

    def console_process(self, name: str) -> SimulatedProcess:
        """A new process for an administrator."""
        process = self.consoles[name] = self.process(name)
        return process

    def console_ended(self, name: str) -> None:
        """An administrator has gone home."""
        process = self.consoles.pop(name)
        process.kill()
        self._dead.append(process)

    def client_died(self, name: str) -> None:
        """A client's process is gone."""
        process = self.clients.pop(name)
        process.kill()
        self._dead.append(process)

    def process(self, name: str) -> SimulatedProcess:
        """A new process on the host of its name, with clocks that are more or less right."""
        random = self.random
        clock = SimulatedClock(
            self.timeline,
            start=random.uniform(0.0, 1e6),
            rate=1.0 + random.uniform(-self._skew, self._skew),
            wall_error=random.uniform(-10.0, 10.0),
        )
        return SimulatedProcess(
            self.timeline, self.network, name=name, host=name,
            random=Random(random.getrandbits(64)), clock=clock,
        )  # fmt: skip

    def member_processes(self) -> list[SimulatedProcess]:
        """Of all members that have one."""
        return [host.process for host in self.hosts.values() if host.process is not None]
