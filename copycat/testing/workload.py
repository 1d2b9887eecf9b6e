"""What simulated clients do: ordinary code of users, whose every answer is written down.

Clients share a map, a counter, a lock and a ledger. They give up, go on, and come back as users do;
what they saw is judged afterwards. It knows the public API and nothing of the cluster behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import CopycatError, UnavailableError, UnknownResourceError
from ..handles import Copycat
from ..machine import StateMachine, command, event, query
from ..ports import Random
from ..resources import Resource
from ..types import Address, Consistency
from .checkers import CheckFailed, Exclusion, Tokens
from .checkers import Events as EventCheck
from .direct import Direct
from .history import History
from .plan import Plan

KEYS = 5
REST_S = 0.2


def _padded(value: str, plan: Plan) -> str:
    """``value`` made long: in every other life with what cannot be packed."""
    missing = plan.value_bytes - len(value)
    if missing > 0 and plan.seed % 2 == 0:
        return value + hashlib.shake_128(value.encode()).hexdigest(missing // 2)
    return value.ljust(plan.value_bytes, ".")


class Ledger(StateMachine):
    """Unique entries in the order in which they were applied; tells each of them to listeners."""

    type_name = "copycat.testing.Ledger"
    appended = event(list)

    def __init__(self) -> None:
        self.entries: list[str] = []

    @command
    def append(self, entry: str) -> int:
        """Add an entry; the number of entries then."""
        self.entries.append(entry)
        self.appended.publish([len(self.entries), entry])
        return len(self.entries)

    @query
    def read(self) -> list[str]:
        """All entries."""
        return self.entries

    @query
    def count(self) -> int:
        """How many there are."""
        return len(self.entries)


class Records:
    """What all clients of a life saw; shared by them, and judged at its end."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.history = History(now)
        self.exclusion = Exclusion()
        self.fence = Tokens()
        self.events = EventCheck()
        self.now = now
        self.holding: dict[str, int] = {}  # client -> token, while it believes to hold the lock
        self.turns: dict[str, float] = {}  # client -> when it got the lock the last time
        self.healed = False  # no more faults: everybody stays, and gets its turns
        self.stopping = False  # no new operations are begun
        self.reports: list[tuple[str, int]] = []
        self.sessions: dict[str, Any] = {}  # of the clients that are connected
        self.note: Callable[[str], None] = lambda text: None  # hears what a story should tell
        self.direct = 0  # answers that came straight from some member

    def paused(self, client: str) -> None:
        """``client`` stands still: it believes nothing until it runs again."""
        token = self.holding.pop(client, None)
        if token is not None:
            self.exclusion.end("/lock", client, token, self.now())


class Client:
    """The tasks of one client process.

    ``direct`` asks one of ``members`` at a time, besides what goes the usual way.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        records: Records,
        random: Random,
        direct: Direct,
        members: Callable[[], list[Address]],
    ) -> None:
        self.name = name
        self._direct = direct
        self._members = members
        self._counted = 0  # the most entries of the ledger that it was told of...
        self._seen = 0  # ...and the newest state that a member has shown it directly
        self._plan = plan
        self._records = records
        self._history = records.history
        self._random = random
        self._made = 0
        self._leaving = False

    async def run(self, open_: Callable[[], Any]) -> None:
        """Connect, however long it takes, and work until the life ends."""
        while not self._records.stopping:
            try:
                async with open_() as cc:
                    await self._work(cc)
            except UnavailableError:
                await asyncio.sleep(REST_S)

    async def _work(self, cc: Copycat) -> None:
        self._records.sessions[self.name] = cc.session
        async with asyncio.TaskGroup() as group:
            for task in (self._map, self._map, self._other, self._lock, self._ask):
                group.create_task(self._repeat(task, cc))
            listener = group.create_task(self._listen(cc))
            until = self._records.now() + self._random.expovariate(1 / self._plan.stay_s)
            while self._stays(until):  # noqa: ASYNC110
                await asyncio.sleep(REST_S)
            self._leaving = True
            listener.cancel()
            self._direct.close()
        self._leaving = False

    def _stays(self, until: float) -> bool:
        records = self._records
        return not records.stopping and (records.healed or records.now() < until)

    async def _repeat(
        self, operation: Callable[[Copycat], Coroutine[Any, Any, object]], cc: Copycat
    ) -> None:
        """Again and again, with pauses; errors are part of the history."""
        for _ in range(self._plan.operation_limit):
            await asyncio.sleep(self._random.expovariate(1 / self._think_s()))
            if self._records.stopping or self._leaving:
                return
            with contextlib.suppress(CopycatError):
                await operation(cc)

    def _think_s(self) -> float:
        return min(self._plan.think_s, 1.0) if self._records.healed else self._plan.think_s

    def _who(self, cc: Copycat) -> str:
        """This client's session: order is promised within one."""
        return f"{self.name}/{cc.session.id}"

    def _level(self) -> Consistency:
        """How a linearizable read is made sure of."""
        leased = self._random.random() < self._plan.leased
        return Consistency.LINEARIZABLE_LEASE if leased else Consistency.LINEARIZABLE

    # -- operations ----------------------------------------------------------------------------

    async def _map(self, cc: Copycat) -> None:
        m, random = cc.map("/map"), self._random
        key = f"k{random.randrange(KEYS)}"
        self._made += 1
        value = _padded(f"{self.name}-{self._made}", self._plan)
        record, who = self._history.record, self._who(cc)
        kind = random.random()
        if kind < 0.35:
            await record(who, "get", key, (), m.get(key, consistency=self._level()))
        elif kind < 0.7:
            await record(who, "put", key, (value,), m.put(key, value))
        elif kind < 0.8:
            await record(who, "put_if_absent", key, (value,), m.put_if_absent(key, value))
        elif kind < 0.9:
            await record(who, "remove", key, (), m.remove(key))
        else:
            read = m.get(key, consistency=self._level())
            old = await record(who, "get", key, (), read)
            if old is not None:
                call = m.replace_if(key, old, value)
                await record(who, "replace_if", key, (old, value), call)

    async def _other(self, cc: Copycat) -> None:
        await (self._count(cc) if self._random.random() < 0.4 else self._append(cc))

    async def _count(self, cc: Copycat) -> None:
        counter = cc.long("/count")
        record, who = self._history.record, self._who(cc)
        if self._random.random() < 0.5:
            await record(who, "increment", "/count", (), counter.increment())
        else:
            await record(who, "get", "/count", (), counter.get(consistency=self._level()))

    async def _append(self, cc: Copycat) -> None:
        ledger: Any = cc.machine("/ledger", Ledger)
        self._made += 1
        entry = f"{self.name}-{self._made}"
        record, who = self._history.record, self._who(cc)
        if self._random.random() < 0.6:
            await record(who, "append", "/ledger", (entry,), ledger.append(entry))
            return
        level = self._random.choice((Consistency.SEQUENTIAL, Consistency.SERIALIZABLE))
        view = ledger.at(consistency=level)
        count = await view.count()
        if level is Consistency.SEQUENTIAL:
            self._records.reports.append((who, count))
            self._counted = max(self._counted, count)

    async def _ask(self, cc: Copycat) -> None:
        """Ask some member directly: no answer is staler than its level allows (H27, H30)."""
        direct, random = self._direct, self._random
        if not direct.stands or random.random() < 0.1:
            await direct.connect(random.choice(self._members()))
        record, who = self._history.record, f"{self._who(cc)}/direct"
        kind = random.random()
        if kind < 0.4:
            key = f"k{random.randrange(KEYS)}"
            await record(who, "get", key, (), self._answer(cc, cc.map("/map"), "get", [key]))
        elif kind < 0.7:
            await record(who, "get", "/count", (), self._answer(cc, cc.long("/count"), "get", []))
        else:
            known = self._counted
            ledger: Any = cc.machine("/ledger", Ledger)
            count = await self._answer(cc, ledger, "count", [], Consistency.SEQUENTIAL)
            if count < known:
                raise CheckFailed("sequential", f"{who} knew {known} entries, then saw {count}")
            self._counted = max(self._counted, count)

    async def _answer(
        self,
        cc: Copycat,
        resource: Resource[Any],
        operation: str,
        arguments: list[object],
        level: Consistency = Consistency.LINEARIZABLE,
    ) -> Any:
        opened = await resource._ready()
        number = opened.ids[operation]
        index = max(self._seen, cc.session.index)
        try:
            answer, seen = await self._direct.ask(opened.resource, number, arguments, level, index)
        except UnknownResourceError as problem:
            raise CheckFailed("stale", f"a member does not know {resource}: {problem}") from None
        if level is Consistency.SEQUENTIAL and seen < index:
            raise CheckFailed("sequential", f"the state at {seen} was shown to who knew {index}")
        self._seen = max(self._seen, seen)
        self._records.direct += 1
        return answer

    async def _lock(self, cc: Copycat) -> None:
        records, random = self._records, self._random
        # The holder's name is the client's: its tasks take the lock one after another.
        async with cc.lock("/lock") as held:
            records.turns[self.name] = records.now()
            records.exclusion.begin("/lock", self.name, held.token, records.now())
            records.holding[self.name] = held.token
            records.note(f"{self.name} holds /lock, token {held.token}")
            try:
                # Now and then for as long as a session may last unheard: that is when it counts.
                long = not records.healed and random.random() < 0.15
                await asyncio.sleep(random.uniform(1.0, 8.0) if long else random.expovariate(4))
                if records.holding.get(self.name) == held.token:
                    records.fence.passed("/lock", self.name, held.token)
            finally:
                if records.holding.get(self.name) == held.token:
                    del records.holding[self.name]
                    records.exclusion.end("/lock", self.name, held.token, records.now())
        await asyncio.sleep(self._think_s())

    async def _listen(self, cc: Copycat) -> None:
        """Hear every entry of the ledger: in order, once, without a gap that is not announced."""
        while True:
            try:
                last = 0
                async for position, entry in cc.machine("/ledger", Ledger).appended:
                    if last and position != last + 1:
                        raise CheckFailed(
                            "events", f"{self.name} heard {position} ({entry}) after {last}"
                        )
                    last = position
            except CopycatError:
                await asyncio.sleep(REST_S)
