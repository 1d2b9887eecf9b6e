"""One life of a simulated cluster: members and clients under faults, then healing, then judgement.

Everything that happens follows from the `Plan`. Members and clients are the production code on
simulated doors; this file only hosts them, lets fate act, and asks at the end whether all is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import handles
from ..config import server_options
from ..errors import CopycatError, InvariantViolated
from ..node import Doors, RunningMember
from ..ports import Random
from ..types import Address
from .checkers import CheckFailed, check_exactly_once, require_linearizable
from .clock import SimulatedClock
from .disk import SimulatedDisk
from .fate import Fate
from .garbage import orderly
from .models import Long, MapKey
from .network import SimulatedNetwork
from .plan import Plan, Report
from .process import SimulatedProcess
from .timeline import Timeline
from .watch import Watch
from .workload import Client, Ledger, Records

PORT = 7400
HEALING_S = 40.0
SETTLING_S = 20.0


@dataclass(slots=True, eq=False)
class Host:
    """A machine for a member: its disk stays, its processes come and go."""

    name: str
    address: Address
    disk: SimulatedDisk
    process: SimulatedProcess | None = None
    running: RunningMember | None = None

    @property
    def is_up(self) -> bool:
        """Whether a process of it lives."""
        return self.process is not None and self.process.alive


class Life:
    """A cluster, its clients and its fate.

    Args:
        plan: what happens.
        tell: hears each line of the story.
    """

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.random = random = Random(plan.seed)
        self.timeline = Timeline(Random(random.getrandbits(64)), tell)
        self.network = SimulatedNetwork(self.timeline, Random(random.getrandbits(64)))
        self.watch = Watch()
        self.records = Records(lambda: self.timeline.now)
        self.hosts: dict[str, Host] = {}
        self.clients: dict[str, SimulatedProcess] = {}
        self.buried: list[SimulatedProcess] = []
        self.fate = Fate(self)
        self._clients_made = 0
        self._problem: BaseException | None = None
        for number in range(1, plan.members + 1):
            name = f"n{number}"
            disk = SimulatedDisk(random=Random(random.getrandbits(64)))
            self.hosts[name] = Host(name, Address(name, PORT), disk)

    # -- the whole life ------------------------------------------------------------------------

    def live(self) -> Report:
        """Suffer, heal, and be judged. Raises `CheckFailed` if a law was broken."""
        level = logging.getLogger("copycat").level
        logging.getLogger("copycat").setLevel(logging.CRITICAL + 1)
        try:
            with orderly():
                return self._live()
        finally:
            logging.getLogger("copycat").setLevel(level)
            for process in [*self.buried, *self.clients.values(), *self._member_processes()]:
                process.bury()

    def _live(self) -> Report:
        for host in self.hosts.values():
            self.start(host)
        for _ in range(self.plan.clients):
            self.new_client()
        self.fate.begin()
        self._run(self.plan.seconds)
        self.fate.end()
        self._check_healing()
        self._check_ending()
        return self._judge()

    def _run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, until something is wrong."""
        done = self.timeline.run(
            seconds, until=lambda: self._problem is not None or (until is not None and until())
        )
        if self._problem is not None:
            raise self._problem
        return done

    # -- members -------------------------------------------------------------------------------

    def start(self, host: Host) -> None:
        """Start a member's process on what its disk has kept."""
        process = self._process(host.name, host.name)
        host.process, host.running = process, None
        door = host.disk.mount(process.schedule)
        host.disk.on_crash = lambda: self.kill(host, power=self.random.random() < 0.5)
        process.spawn(self._serve(host, process, door))

    async def _serve(self, host: Host, process: SimulatedProcess, door: Any) -> None:
        options = server_options(
            name=host.name, listen=str(host.address), data="simulated",
            members={other.name: str(other.address) for other in self.hosts.values()},
            snapshot_bytes=self.plan.snapshot_bytes, segment_bytes=self.plan.segment_bytes,
        )  # fmt: skip
        doors = Doors(process.network, door, process.clock, process.random)
        running = RunningMember(options, doors, (Ledger,))
        try:
            await running.start()
            self.watch.adopt(running)
            host.running = running
            failed = running.failed
            error: BaseException | None = await failed if failed is not None else None
        except CopycatError as problem:
            error = problem
        except Exception as problem:
            self._fail(problem)
            return
        self._stopped(host, process, error)

    def _stopped(
        self, host: Host, process: SimulatedProcess, error: BaseException | None
    ) -> None:
        """A member stopped by itself: allowed after a disk error that we made, and only then."""
        self.timeline.trace(f"{host.name} stops: {error}")
        if isinstance(error, CheckFailed | InvariantViolated) or not self.fate.excuses(host, error):
            self._fail(error or CheckFailed("life", f"{host.name} stopped without a reason"))
            return
        self.fate.count("stopped by a disk error")
        self.timeline.after(0.0, lambda: self.kill(host, power=False, process=process))

    def kill(
        self, host: Host, *, power: bool, process: SimulatedProcess | None = None
    ) -> None:
        """End a member's process; with ``power`` the disk loses what was not synced."""
        if process is not None and host.process is not process:
            return
        if host.process is not None:
            host.process.kill()
            self.buried.append(host.process)
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

    # -- clients -------------------------------------------------------------------------------

    def new_client(self) -> None:
        """Start another client process."""
        self._clients_made += 1
        name = f"c{self._clients_made}"
        process = self.clients[name] = self._process(name, name)
        addresses = [host.address for host in self.hosts.values()]
        client = Client(name, self.plan, self.records, Random(process.random.getrandbits(64)))

        def open_() -> handles.Connecting:
            return handles.connect(
                addresses, network=process.network, clock=process.clock, random=process.random,
                machines=(Ledger,), name=name,
            )  # fmt: skip

        process.spawn(self._guard(client.run(open_)))

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except BaseExceptionGroup as group:
            wrong, _ = group.split(lambda error: not isinstance(error, asyncio.CancelledError))
            self._fail(_first(wrong or group))
        except Exception as error:
            self._fail(error)

    def client_died(self, name: str) -> None:
        """A client's process is gone, and with it what it believed."""
        self.records.paused(name)
        process = self.clients.pop(name)
        process.kill()
        self.buried.append(process)

    def _process(self, name: str, host: str) -> SimulatedProcess:
        random = self.random
        clock = SimulatedClock(
            self.timeline,
            start=random.uniform(0.0, 1e6),
            rate=1.0 + random.uniform(-self.plan.skew, self.plan.skew),
            wall_error=random.uniform(-10.0, 10.0),
        )
        return SimulatedProcess(
            self.timeline, self.network, name=name, host=host,
            random=Random(random.getrandbits(64)), clock=clock,
        )  # fmt: skip

    def _member_processes(self) -> list[SimulatedProcess]:
        return [host.process for host in self.hosts.values() if host.process is not None]

    def _fail(self, problem: BaseException) -> None:
        if self._problem is None:
            self._problem = problem

    # -- the end -------------------------------------------------------------------------------

    def _check_healing(self) -> None:
        """Once the faults are over a leader emerges, and every operation under way ends."""
        if not self._run(HEALING_S, lambda: self.leader() is not None):
            raise CheckFailed("liveness", f"no leader {HEALING_S} s after all faults were healed")
        before = len(self.records.history.operations)
        self._run(2.0)
        self.records.stopping = True
        operations = self.records.history.operations
        alive = set(self.clients)
        pending = [
            each
            for each in operations
            if each.end is None and each.client.partition("/")[0] in alive
        ]
        if not self._run(HEALING_S, lambda: all(each.end is not None for each in pending)):
            stuck = next(each for each in pending if each.end is None)
            raise CheckFailed("liveness", f"an operation never ends: {stuck}")
        if self.clients and self.plan.operation_limit > 1 and len(operations) == before == 0:
            raise CheckFailed("liveness", "nothing was ever asked")

    def _check_ending(self) -> None:
        """All members come to the same index and the same state."""
        if not self._run(SETTLING_S, self._is_settled):
            where = {host.name: self._status(host) for host in self.hosts.values()}
            raise CheckFailed("liveness", f"members do not come to the same index: {where}")
        for host in self.hosts.values():
            if host.running is not None and host.running.member is not None:
                self.watch.compare(host.name, host.running.member._applier)
        for process in [*self._member_processes(), *self.clients.values()]:
            if process.failures:
                raise CheckFailed("process", str(process.failures[0]))

    def _is_settled(self) -> bool:
        states = [self._status(host) for host in self.hosts.values()]
        return None not in states and len(set(states)) == 1

    def _status(self, host: Host) -> tuple[object, ...] | None:
        if host.running is None or host.running.member is None:
            return None
        status = host.running.member.status()
        if status["applied_index"] != status["last_index"]:
            return None
        return status["term"], status["last_index"]

    def _judge(self) -> Report:
        """The histories of all clients."""
        operations = self.records.history.operations
        by: dict[str, list[Any]] = {}
        for operation in operations:
            by.setdefault(str(operation.key), []).append(operation)
        ledger = by.pop("/ledger", [])
        require_linearizable(by.pop("/count", []), Long())
        require_linearizable([each for some in by.values() for each in some], MapKey())
        check_exactly_once(ledger, self._ledger())
        self._check_reports()
        return Report(
            trace=self.timeline.hash,
            virtual_s=self.timeline.now,
            events=self.timeline.happened,
            operations=len(operations),
            acknowledged=sum(each.outcome.value == "ok" for each in operations),
            elections=self.watch.elections,
            faults=dict(self.fate.counts),
        )

    def _ledger(self) -> list[str]:
        for host in self.hosts.values():
            if host.running is not None and host.running.member is not None:
                executor = host.running.member._applier.executor
                for instance in executor.instances():
                    if isinstance(instance.machine, Ledger):
                        return instance.machine.entries
        return []

    def _check_reports(self) -> None:
        """Within a session SEQUENTIAL counts never fall."""
        last: dict[str, int] = {}
        for who, count in self.records.reports:
            if count < last.get(who, 0):
                raise CheckFailed("sequential", f"{who} saw {last[who]} entries, then {count}")
            last[who] = count


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
