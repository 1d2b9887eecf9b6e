"""Crowds: several simulated clients that share one resource while members and clients suffer.

A workload is ordinary user code. Here is who believes to hold what, when the life ends, and that
everything is given back afterwards; what an answer may be is said by the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from copycat.errors import CopycatError, UnavailableError
from copycat.handles import CopycatClient
from copycat.ports import Random
from copycat.testing import CheckFailed, Simulation
from copycat.testing.fate import Fate
from copycat.testing.plan import Plan
from copycat.testing.process import SimulatedProcess
from copycat.testing.workload import Records

MEMBERS_SUFFER = ("kill", "power cut", "isolation", "partition", "resets", "transfer", "snapshot")
CLIENTS_SUFFER = ("client death", "client pause", "cut off", "client unheard")
SESSION_S = 2.0

Step = Callable[["Crowd", CopycatClient, Random], Awaitable[object]]


class Crowd(Records):
    """One life: ``clients`` at a time repeat ``step`` for some seconds under faults."""

    def __init__(
        self, seed: int, step: Step, *, clients: int = 4, faults: tuple[str, ...], session_s: float
    ) -> None:
        self._sim = Simulation(seed)
        super().__init__(lambda: self._sim.now)
        self._step = step
        self._clients = clients
        self._session_s = session_s
        self._fate = Fate(
            self._sim._hosting, Plan(seed, faults=faults, fault_every=0.7, session_s=session_s),
            self, self._new_client,
        )  # fmt: skip
        self._born = 0
        self._busy: dict[str, SimulatedProcess] = {}
        self._beliefs: dict[str, dict[str, Any]] = {}  # resource -> client and token -> as what
        self.deaths = 0
        self.steps = 0
        self.losses = 0
        self.report = ""

    def live(self, seconds: float, judge: Callable[[CopycatClient], Awaitable[object]]) -> None:
        """Everything: the life, its end, and ``judge`` by a last client."""
        with self._sim as sim:
            for _ in range(self._clients):
                self._new_client()
            self._fate.begin()
            sim._fates.append(self._fate)
            sim.advance(seconds)
            self.healed = self.stopping = True
            sim.relieve()
            sim.heal()
            if not sim._hosting.run(60.0, lambda: not self._working() or bool(self._failed())):
                raise CheckFailed("liveness", f"{self._working()} wait for ever")
            if failures := self._failed():
                raise CheckFailed("crowd", "\n".join(failures))
            sim.run(judge, seconds=60.0)
            sim.check()

    # -- beliefs -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def believing(self, resource: str, cc: CopycatClient, token: int, kind: str) -> Iterator[None]:
        """``cc`` believes to hold it; ends with a loss, a release, or the client's standing."""
        beliefs = self._beliefs.setdefault(resource, {})
        me = f"{cc.name} {token}"
        if any(each.split()[1] == str(token) for each in beliefs):
            raise CheckFailed("tokens", f"{me}: the token is not new: {beliefs}")
        beliefs[me] = kind
        try:
            yield
        finally:
            beliefs.pop(me, None)

    def others(self, resource: str) -> list[str]:
        """As what all clients believe to hold it."""
        return list(self._beliefs.get(resource, {}).values())

    def who(self, resource: str) -> set[int]:
        """The tokens under which clients believe to hold it."""
        return {int(me.split()[1]) for me in self._beliefs.get(resource, {})}

    def paused(self, client: str) -> None:
        """A client that stands still, or is dead, believes nothing."""
        for beliefs in self._beliefs.values():
            for me in [each for each in beliefs if each.split()[0] == client]:
                del beliefs[me]

    # -- clients -------------------------------------------------------------------------------

    def _working(self) -> list[str]:
        return [name for name, process in self._busy.items() if process.alive]

    def _failed(self) -> list[str]:
        return [str(each) for process in self._busy.values() for each in process.failures]

    def _new_client(self) -> None:
        if self.stopping:
            return
        self.deaths += self._born >= self._clients
        self._born += 1
        process = self._sim._hosting.client_process(f"c{self._born}")
        self._busy[process.name] = process
        process.spawn(self._client(process))

    async def _client(self, process: SimulatedProcess) -> None:
        random = Random(process.random.getrandbits(64))
        while not self.stopping:
            with contextlib.suppress(UnavailableError):
                async with (
                    self._sim._hosting.connect(process, session_timeout=self._session_s) as cc,
                    asyncio.TaskGroup() as group,
                ):
                    for _ in range(2):
                        group.create_task(self._work(cc, random))
            await asyncio.sleep(0.2)
        del self._busy[process.name]

    async def _work(self, cc: CopycatClient, random: Random) -> None:
        for _ in range(random.randrange(5, 60)):
            if self.stopping:
                return
            await asyncio.sleep(random.expovariate(4))
            try:
                await self._step(self, cc, random)
                self.steps += 1
            except CopycatError:
                self.losses += 1
