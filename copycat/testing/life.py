"""One life of a simulated cluster: members and clients under faults, then healing, then judgement.

Everything that happens follows from the `Plan`. Members and clients are the production code on
simulated doors; this file lets fate act, and asks at the end whether all is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ..machine import StateMachine
from ..ports import Random
from .checkers import CheckFailed, check_exactly_once, require_linearizable
from .direct import Direct
from .fate import Fate
from .garbage import orderly
from .history import Outcome
from .hosting import Hosting
from .models import Long, MapKey
from .moody import MACHINES
from .plan import UNLIMITED, Plan, Report
from .roamer import Roamer
from .story import Story
from .strangers import Strangers
from .workload import Client, Ledger, Records

HEALING_S = 40.0
SETTLING_S = 20.0
ENDING_S = 90.0
"""Within this a client that is told to stop has ended: the longest of all its patiences."""
COMMANDS = ("put", "put_if_absent", "remove", "replace_if", "increment", "append")


class Life:
    """A cluster, its clients and its fate.

    Args:
        plan: what happens.
        tell: hears each line of the story.
        packets: whether it hears of each packet too.
    """

    def __init__(
        self, plan: Plan, tell: Callable[[str], None] | None = None, *, packets: bool = False
    ) -> None:
        self.plan = plan
        self._story = None if tell is None else Story(tell)
        self.hosting = hosting = Hosting(
            plan.seed, plan.members, machines=_machines(plan), skew=plan.skew,
            snapshot_bytes=plan.snapshot_bytes, segment_bytes=plan.segment_bytes,
            preferred=f"n{plan.preferred}", tell=self._story.hear if self._story else None,
        )  # fmt: skip
        self.timeline = hosting.timeline
        self.timeline.details = packets
        self.records = Records(lambda: self.timeline.now)
        if self._story is not None:
            self.records.history.on_end = self._story.ended
            self.records.note = self.timeline.note
        self.records.sessions = hosting.watch.sessions
        self.fate = Fate(hosting, plan, self.records, self.new_client)
        hosting.excuse = self.fate.excuses
        self._clients_made = 0
        self._workers: list[str] = []
        self._programs: dict[str, asyncio.Task[None]] = {}  # of all clients, by process

    def live(self) -> Report:
        """Suffer, heal, and be judged. Raises `CheckFailed` if a law was broken."""
        logger = logging.getLogger("copycat")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)  # what members complain of is what fate has done
        try:
            with orderly():
                try:
                    return self._live()
                finally:
                    self._end_story()
                    self.hosting.bury()
        finally:
            logger.setLevel(level)

    def _end_story(self) -> None:
        """What happens when the world is over is nobody's story."""
        self.timeline.sink = None
        if self._story is not None:
            self._story.flush()

    def _live(self) -> Report:
        for host in self.hosting.hosts.values():
            if self.plan.founding_s:
                self.fate.start_late(host, self.plan.founding_s)
            else:
                self.hosting.start(host)
        for _ in range(self.plan.clients):
            self.new_client()
        for number in range(1, self.plan.roamers + 1):
            self._new_roamer(f"r{number}")
        if self.plan.strangers_every:
            self._let_in_strangers()
        self.fate.begin()
        self.hosting.run(self.plan.seconds)
        self.fate.end()
        self._check_healing()
        self._check_ending()
        return self._judge()

    # -- clients -------------------------------------------------------------------------------

    def new_client(self) -> None:
        """Start another client process."""
        self._clients_made += 1
        name = f"c{self._clients_made}"
        self.timeline.note(f"{name} starts")
        process = self.hosting.client_process(name)
        self._workers.append(name)
        client = Client(
            name, self.plan, self.records, Random(process.random.getrandbits(64)),
            Direct(process.network, process.random),
            lambda: [host.address for host in self.hosting.hosts.values()],
        )  # fmt: skip
        patience = process.random.choice((5.0, 20.0))  # less or more than its session lasts
        connect = partial(
            self.hosting.connect, process, timeout=patience, session_timeout=self.plan.session_s
        )
        self._programs[name] = process.spawn(self._guard(partial(client.run, connect)))

    def _new_roamer(self, name: str) -> None:
        process = self.hosting.client_process(name)
        roamer = Roamer(name, self.plan, self.records, Random(process.random.getrandbits(64)))
        connect = partial(self.hosting.connect, process)
        self._programs[name] = process.spawn(self._guard(partial(roamer.run, connect)))

    def _let_in_strangers(self) -> None:
        process = self.hosting.console_process("stranger")
        strangers = Strangers(self.hosting, process, self.plan.strangers_every)
        work = partial(strangers.run, lambda: self.records.stopping)
        process.spawn(self._guard(work))

    async def _guard(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except BaseExceptionGroup as group:
            wrong, _ = group.split(lambda error: not isinstance(error, asyncio.CancelledError))
            self.hosting.fail(_first(wrong or group))
        except Exception as error:
            self.hosting.fail(error)

    # -- the end -------------------------------------------------------------------------------

    def _check_healing(self) -> None:
        """Once the faults are over a leader emerges, and every operation under way ends (H26)."""
        run, clients = self.hosting.run, self.hosting.clients
        if not run(HEALING_S, lambda: self.hosting.leader() is not None):
            raise CheckFailed("liveness", f"no leader {HEALING_S} s after all faults were healed")
        self._check_service()
        self.records.stopping = True
        pending = [
            each
            for each in self.records.history.operations
            if each.end is None and each.client.partition("/")[0] in clients
        ]
        if not run(HEALING_S, lambda: all(each.end is not None for each in pending)):
            stuck = next(each for each in pending if each.end is None)
            raise CheckFailed("liveness", f"an operation never ends: {stuck}")
        if not run(ENDING_S, lambda: not self._running()):
            raise CheckFailed("liveness", f"{self._running()} were told to stop, and never end")
        last = self.fate.members.last_wishes()
        run(HEALING_S, lambda: all(wish.outcome for wish in self.fate.members.consoles.wishes))
        self.fate.members.check_wishes(last)

    def _check_service(self) -> None:
        """Every client that is left gets a command done, and its turn at the lock (H26)."""
        operations, healed = self.records.history.operations, self.timeline.now
        begun = len(operations)
        self.records.healed = True
        unserved = [name for name in self._workers if name in self.hosting.clients]
        if self.plan.operation_limit < UNLIMITED:
            unserved = []  # some have nothing left to do
        waiting = list(unserved)
        for _ in range(int(HEALING_S)):
            self.hosting.run(2.0)
            done = {
                each.client.partition("/")[0]
                for each in operations[begun:]
                if each.outcome is Outcome.OK and each.name in COMMANDS
            }
            unserved = [n for n in unserved if n not in done and not self._is_lost(n)]
            turns = self.records.turns
            waiting = [n for n in waiting if turns.get(n, 0.0) < healed and not self._is_lost(n)]
            if not (unserved or waiting):
                return
        raise CheckFailed(
            "liveness",
            f"{2 * HEALING_S:g} s after all faults were healed {unserved} "
            f"got no command done, and {waiting} not the lock",
        )

    def _running(self) -> list[str]:
        there = self.hosting.clients
        running = [n for n, task in self._programs.items() if n in there and not task.done()]
        return [name for name in running if not self._is_lost(name)]

    def _is_lost(self, name: str) -> bool:
        """Whether all members that a client knows of left while it could reach nobody."""
        session = self.records.sessions.get(name)
        committed = self.hosting.watch.members.committed
        if session is None or committed is None:
            return False
        there = [seat.address for seat in committed[1].seats.values()]
        return not any(address in there for address in session._route._known())

    def _check_ending(self) -> None:
        """All members come to the same index and the same state, and keep nobody waiting."""
        hosting = self.hosting
        if not hosting.run(SETTLING_S, hosting.is_settled):
            where = {host.name: hosting.status(host) for host in hosting.present() or ()}
            raise CheckFailed(
                "liveness",
                f"members do not come to the same index: {where} "
                f"of {hosting.watch.members.committed}",
            )
        hosting.compare_states()
        hosting.run(SETTLING_S, self.fate.members.voter_leads)
        if not self.fate.members.voter_leads():
            raise CheckFailed("liveness", "whoever leads does not vote, and goes on")
        strays = self.fate.members.strays
        if not hosting.run(SETTLING_S, lambda: not strays()):
            raise CheckFailed("liveness", f"{strays()} do not learn that they were removed")
        if not hosting.run(SETTLING_S, lambda: hosting.waiting_queries() == 0):
            raise CheckFailed("liveness", f"{hosting.waiting_queries()} queries wait for ever")

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
            elections=self.hosting.watch.elections,
            faults=dict(self.fate.counts),
        )

    def _ledger(self) -> list[str]:
        for host in self.hosting.present() or ():
            if host.running is not None and host.running.member is not None:
                for instance in host.running.member._applier.executor.instances():
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


def _machines(plan: Plan) -> tuple[type[StateMachine], ...]:
    return (Ledger, *MACHINES) if plan.roamers else (Ledger,)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
