"""One life of a simulated cluster: members and clients under faults, then healing, then judgement.

Everything that happens follows from the `Plan`. Members and clients are the production code on
simulated doors; this file lets fate act, and asks at the end whether all is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ..ports import Random
from .checkers import CheckFailed, check_exactly_once, require_linearizable
from .direct import Direct
from .fate import Fate
from .garbage import orderly
from .hosting import Hosting
from .models import Long, MapKey
from .plan import Plan, Report
from .workload import Client, Ledger, Records

HEALING_S = 40.0
SETTLING_S = 20.0


class Life:
    """A cluster, its clients and its fate.

    Args:
        plan: what happens.
        tell: hears each line of the story.
    """

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.hosting = hosting = Hosting(
            plan.seed, plan.members, machines=(Ledger,), skew=plan.skew,
            snapshot_bytes=plan.snapshot_bytes, segment_bytes=plan.segment_bytes, tell=tell,
        )  # fmt: skip
        self.timeline = hosting.timeline
        self.records = Records(lambda: self.timeline.now)
        self.fate = Fate(hosting, plan, self.records, self.new_client)
        hosting.excuse = self.fate.excuses
        self._clients_made = 0

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
                    self.hosting.bury()
        finally:
            logger.setLevel(level)

    def _live(self) -> Report:
        for host in self.hosting.hosts.values():
            self.hosting.start(host)
        for _ in range(self.plan.clients):
            self.new_client()
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
        process = self.hosting.client_process(name)
        client = Client(
            name, self.plan, self.records, Random(process.random.getrandbits(64)),
            Direct(process.network, process.random),
            lambda: [host.address for host in self.hosting.hosts.values()],
        )  # fmt: skip
        process.spawn(self._guard(client.run(lambda: self.hosting.connect(process))))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
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
        run(2.0)
        self.records.stopping = True
        pending = [
            each
            for each in self.records.history.operations
            if each.end is None and each.client.partition("/")[0] in clients
        ]
        if not run(HEALING_S, lambda: all(each.end is not None for each in pending)):
            stuck = next(each for each in pending if each.end is None)
            raise CheckFailed("liveness", f"an operation never ends: {stuck}")

    def _check_ending(self) -> None:
        """All members come to the same index and the same state, and keep nobody waiting."""
        hosting = self.hosting
        if not hosting.run(SETTLING_S, hosting.is_settled):
            where = {host.name: hosting.status(host) for host in hosting.hosts.values()}
            raise CheckFailed("liveness", f"members do not come to the same index: {where}")
        hosting.compare_states()
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
        for host in self.hosting.hosts.values():
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


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
