"""A simulated client that uses the whole public API, and checks that errors are the right ones.

`workload` proves what a few resources promise; a roamer goes everywhere else: the tree of paths,
elections, machines that misbehave, the cluster's own questions. What it does beside the point of an
operation may fail as anything does while members die; an answer of the wrong kind breaks a law.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import (
    CommandFailed,
    ConfigurationError,
    ConflictError,
    CopycatError,
    DeadlineError,
    LeadershipLost,
    LockLost,
    MisuseError,
    OutcomeUnknownError,
    Rejected,
    ResourceTypeError,
    SerializationError,
    SessionExpiredError,
    UnavailableError,
    UnknownResourceError,
)
from ..handles import Copycat, connect
from ..ports import Random
from ..resources import AsyncLong
from ..system import FENCED, SystemOperation
from ..types import Consistency, EventType, Mode
from .checkers import CheckFailed
from .moody import Echo, Moody, Stubborn, Unregistered
from .plan import Plan
from .workload import REST_S, Records

TROUBLE = (
    UnavailableError, DeadlineError, OutcomeUnknownError, SessionExpiredError, LockLost,
    LeadershipLost, UnknownResourceError,
)  # fmt: skip
"""What may happen to any operation while members die and paths are deleted."""
PATHS = ("/tree", "/tree/a", "/tree/a/b", "/tree/a/b/c", "/tree/d")
LARGE = 100_000
FLOOD = 90
MANY = 17_000
"""Events, more than wait for a slow consumer."""
Deed = Callable[[Copycat], Awaitable[object]]


class Roamer:
    """The tasks of one client process.

    Args:
        name: of the client.
        plan: how busy it is.
        records: says when the life ends.
        random: its chance.
    """

    def __init__(self, name: str, plan: Plan, records: Records, random: Random) -> None:
        self.name = name
        self._plan = plan
        self._records = records
        self._random = random
        self._deeds: tuple[tuple[int, Deed], ...] = (
            (6, self._tree), (2, self._wrong_type), (8, self._moods), (2, self._deep),
            (3, self._echo), (3, self._election), (3, self._lock), (4, self._burst),
            (4, self._ask), (4, self._missing), (2, self._listen), (1, self._flood),
            (2, self._digest), (2, self._rush), (2, self._vanish), (1, self._misuse),
            (2, self._heed),
        )  # fmt: skip

    async def run(self, open_: Callable[..., Any]) -> None:
        """Connect, however long it takes, and roam until the life ends."""
        random = self._random
        while not self._records.stopping:
            options = {
                "in_flight": random.choice((8, 64, 8192)),
                "session_timeout": random.choice((1.0, 5.0, 30.0)),
                "timeout": random.choice((0.5, 5.0, 20.0)),
            }
            try:
                async with open_(**options) as cc:
                    self._records.sessions[self.name] = cc.session
                    async with asyncio.TaskGroup() as group:
                        for _ in range(2):
                            group.create_task(self._roam(cc))
                    if random.random() < 0.3:
                        await cc.close()
                        await self._expect(SessionExpiredError, cc.long("/roamed").get())
            except (UnavailableError, SessionExpiredError):
                await asyncio.sleep(REST_S)

    async def _roam(self, cc: Copycat) -> None:
        weights = [weight for weight, _ in self._deeds]
        until = self._records.now() + self._random.expovariate(1 / min(20.0, self._plan.stay_s))
        while not self._records.stopping and self._records.now() < until:
            await asyncio.sleep(self._random.expovariate(1 / self._plan.think_s))
            ((_, deed),) = self._random.choices(self._deeds, weights)
            with contextlib.suppress(*TROUBLE, TimeoutError):
                await deed(cc)
            self._look(cc)

    def _look(self, cc: Copycat) -> None:
        """What is known without asking."""
        session = cc.session
        if cc.name != self.name or str(session.id) not in repr(session) or not repr(cc):
            raise CheckFailed("roamer", f"{self.name} is {cc!r}")
        if cc.cluster.term < 0 or (cc.cluster.leader == "" or cc.cluster.id == ""):
            raise CheckFailed("roamer", f"{self.name} knows no cluster")

    async def _expect(self, error: type[CopycatError], call: Awaitable[object]) -> CopycatError:
        """``call`` must end with that error, if it is not disturbed."""
        try:
            value = await call
        except error as problem:
            return problem
        except CommandFailed as problem:
            if problem.error_type == FENCED:
                raise UnknownResourceError("the machine is fenced") from problem
            raise CheckFailed("roamer", f"{problem!r} instead of {error.__name__}") from problem
        except TROUBLE:
            raise
        except CopycatError as problem:
            raise CheckFailed("roamer", f"{problem!r} instead of {error.__name__}") from problem
        raise CheckFailed("roamer", f"{value!r} instead of {error.__name__}")

    # -- paths ---------------------------------------------------------------------------------

    async def _tree(self, cc: Copycat) -> None:
        random = self._random
        node = cc.node(random.choice(PATHS))
        if node.name not in node.path or node not in {node: 1} or node.path not in repr(node):
            raise CheckFailed("roamer", f"{node!r} is called {node.name}")
        kind = random.randrange(11)
        if kind == 0:
            with contextlib.suppress(ConflictError):
                await node.create(mode=random.choice((Mode.PERSISTENT, Mode.EPHEMERAL)))
        elif kind == 1:
            machine: Any = random.choice((Moody, Echo))
            with contextlib.suppress(ResourceTypeError, ConflictError):
                await node.create(machine, mode=random.choice((Mode.PERSISTENT, Mode.EPHEMERAL)))
        elif kind == 2:
            with contextlib.suppress(ConflictError):
                await node.node("x").create()
        elif kind == 3 and random.random() < 0.5:
            await node.delete()
        elif kind == 4:
            found = await node.children()
            if any(child.parent != node for child in found):
                raise CheckFailed("roamer", f"{node} has the children {found}")
        elif kind == 5:
            await (node.parent or node).exists()
        elif kind == 6 and random.random() < 0.3:
            await cc.delete("/tree")
        elif kind == 7:
            with contextlib.suppress(ResourceTypeError, ConflictError):
                await cc.create(node.path, AsyncLong)
                await node.get(AsyncLong).increment()
        elif kind == 9:
            info = await node.info()
            if info is not None and info.owner == cc.session.id and info.children:
                raise CheckFailed("roamer", f"{info} is ephemeral and has children")
        elif kind == 10:
            info = await node.info()
            with contextlib.suppress(ConflictError):
                await node.delete(version=1 if info is None else info.version)
        elif kind == 8 and random.random() < 0.1:
            await cc.node("/tree").node("z").delete()
        elif random.random() < 0.1:
            await cc.delete(random.choice(("/moody", "/echo", "/campaign", "/door")))

    async def _heed(self, cc: Copycat) -> None:
        """What is told of a path makes sense: it comes and goes in turn, and so do its children."""
        path = self._random.choice(PATHS)
        there: dict[str, bool] = {}
        index = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._random.uniform(0.0, 20.0)):
                async for event in cc.listen(path):
                    parent = cc.node(event.path).parent
                    near = event.path == path or (parent is not None and parent.path == path)
                    is_new = event.type is EventType.CREATED
                    before = there.get(event.path, not is_new)
                    if not near or event.index < index or before is is_new:
                        raise CheckFailed("roamer", f"{event} of {path} after {there} at {index}")
                    there[event.path] = event.type is not EventType.DELETED
                    index = event.index

    async def _wrong_type(self, cc: Copycat) -> None:
        await cc.map("/roamed").put("k", 1)
        with contextlib.suppress(UnknownResourceError):
            await self._expect(ResourceTypeError, cc.long("/roamed").get())

    async def _missing(self, cc: Copycat) -> None:
        """Machines and operations that there are not."""
        random = self._random
        kind = random.randrange(4)
        if kind == 0:
            machine: Any = cc.machine("/unregistered", Unregistered)
            await self._expect(UnknownResourceError, machine.anything())
        elif kind == 1:
            stubborn: Any = cc.machine("/stubborn", Stubborn)
            await self._expect(CommandFailed, stubborn.anything())
        elif kind == 2:
            moody: Any = cc.machine("/moody", Moody)
            await self._expect(UnknownResourceError, moody._command("sing", []))
        else:
            handle: Any = cc.machine("/moody", Moody)
            if hasattr(handle, "sing"):
                raise CheckFailed("roamer", f"{handle!r} sings")
            await self._expect(UnknownResourceError, handle._query("hum", []))

    # -- machines ------------------------------------------------------------------------------

    async def _moods(self, cc: Copycat) -> None:
        moody: Any = cc.machine("/moody", Moody)
        random = self._random
        kind = random.randrange(10)
        if kind == 0:
            await self._expect(Rejected, moody.refuse())
        elif kind == 1:
            await self._expect(ConflictError, moody.conflict(random.random() < 0.5))
        elif kind == 2:
            problem = await self._expect(CommandFailed, moody.fail())
            if "0x…" not in str(problem):
                raise CheckFailed("roamer", f"an address is in {problem}")
        elif kind == 3:
            await self._expect(CommandFailed, moody.odd())
        elif kind == 4:
            await moody.later(random.expovariate(1.0), 1)
        elif kind == 5:
            await self._expect(CommandFailed, moody.misread())
        elif kind == 6:
            await moody.tell(random.randint(1, 20), random.choice((1, 100)))
        elif kind == 7:
            level = random.choice(list(Consistency))
            await moody.at(consistency=level).read()
        else:
            await moody.add(1)

    async def _deep(self, cc: Copycat) -> None:
        """A machine that recursed is fenced until its path is deleted."""
        deep: Any = cc.machine("/deep", Moody)
        try:
            await deep.deep()
        except CommandFailed:
            try:
                await deep.add(1)
            except CommandFailed as problem:
                if problem.error_type != FENCED:
                    raise CheckFailed("roamer", f"a fenced machine says {problem!r}") from problem
            await cc.delete("/deep")

    async def _echo(self, cc: Copycat) -> None:
        echo: Any = cc.machine("/echo", Echo)
        word = self._random.choice(("hello", "again", "fail"))
        if word == "fail":
            await self._expect(CommandFailed, echo._command(word, [1]))
            return
        ask = self._random.random() < 0.3
        answer = await (echo._query if ask else echo._command)(word, [self.name, 1])
        if answer != [self.name, 1]:
            raise CheckFailed("roamer", f"the echo is {answer}")

    async def _burst(self, cc: Copycat) -> None:
        """Many commands at once, more than may be unanswered; and many questions."""
        moody: Any = cc.machine("/moody", Moody)
        many = [moody.add(1) for _ in range(self._random.choice((20, 100, 300)))]
        many += [moody.read() for _ in range(50)]
        answers = await asyncio.gather(*many, return_exceptions=True)
        self._check_all(answers)

    async def _rush(self, cc: Copycat) -> None:
        """Large values, so many that one frame does not take them."""
        m = cc.map("/roamed")
        size = self._random.choice((1000, LARGE))
        puts = [m.put(f"large{n}", "." * size) for n in range(self._random.randint(1, 14))]
        self._check_all(await asyncio.gather(*puts, return_exceptions=True))

    def _check_all(self, answers: list[Any]) -> None:
        for answer in answers:
            fenced = isinstance(answer, CommandFailed) and answer.error_type == FENCED
            if isinstance(answer, BaseException) and not (fenced or isinstance(answer, TROUBLE)):
                raise CheckFailed("roamer", f"one of many ended with {answer!r}")

    # -- scopes --------------------------------------------------------------------------------

    async def _election(self, cc: Copycat) -> None:
        election = cc.election("/campaign")
        kind = self._random.randrange(4)
        if kind == 0:
            await election.leader()
            await election.candidates()
        elif kind == 1:
            async with asyncio.timeout(30.0):
                await election.run(self._lead)
        else:
            try:
                async with asyncio.timeout(30.0), election as term:
                    await self._lead(term)
                    if kind == 2:
                        await election.resign()
                        with contextlib.suppress(LeadershipLost):
                            term.check()
                            raise CheckFailed("roamer", f"{term!r} was given back")
            except LeadershipLost as problem:
                if not problem.token:
                    raise CheckFailed("roamer", f"{problem!r} names no token") from problem

    async def _lead(self, term: Any) -> None:
        await asyncio.sleep(self._random.expovariate(1.0))
        term.check()
        if term.remaining() <= 0 or "left=" not in repr(term):
            raise CheckFailed("roamer", f"{term!r} passed its check")

    async def _lock(self, cc: Copycat) -> None:
        """A lock that is held for long: losses are noticed before somebody else has it."""
        held = None
        with contextlib.suppress(TimeoutError, LockLost):
            async with asyncio.timeout(30.0), cc.lock("/door") as held:
                while self._random.random() < 0.9 and not self._records.stopping:
                    await asyncio.sleep(0.5)
                    held.check()
        if held is not None and not ("released" in repr(held) or "lost" in repr(held)):
            raise CheckFailed("roamer", f"{held!r} is neither given back nor lost")

    # -- questions -----------------------------------------------------------------------------

    async def _ask(self, cc: Copycat) -> None:
        cluster = cc.cluster
        kind = self._random.randrange(5)
        if kind == 0:
            try:
                await cluster.member((await cluster.members())[0].name)
                await cluster.member("nobody")
                raise CheckFailed("roamer", "there is a member called nobody")
            except LookupError:
                pass
        elif kind == 1:
            with contextlib.suppress(CopycatError):
                await asyncio.gather(cluster.snapshot(), cluster.snapshot())
        elif kind == 2:
            await cc.session.admin(self._random.choice(("status", "members")), [])
        elif kind == 3:
            with contextlib.suppress(CopycatError):
                await cc.session.admin(self._random.choice(("dance", "lead", "add")), [1, 2])
        else:
            watch = cc.session.watch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    async for _ in watch:
                        pass

    async def _digest(self, cc: Copycat) -> None:
        with contextlib.suppress(CopycatError):
            index, digest = await cc._access.system(SystemOperation.DIGEST)
            found = await cc._access.ask_system(SystemOperation.DIGEST_AT, index)
            if found not in (digest, None):
                raise CheckFailed("roamer", f"two members differ at {index}")

    async def _listen(self, cc: Copycat) -> None:
        """Hear something for a while; what is deleted ends the iteration."""
        moody: Any = cc.machine("/moody", Moody)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._random.expovariate(0.3)):
                async for number, _ in moody.told:
                    if number < 0:
                        raise MisuseError("events count from 0")

    async def _flood(self, cc: Copycat) -> None:
        """More events than are kept for a session: it ends, and says so."""
        flooded: Any = cc.machine("/flood", Moody)
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._drown(flooded))
            await asyncio.sleep(1.0)
            with contextlib.suppress(*TROUBLE):
                kind = self._random.random()
                if kind < 0.3:
                    await flooded.tell(MANY, 1)
                else:
                    await flooded.tell(FLOOD, LARGE if kind < 0.7 else 1)
            await asyncio.sleep(2.0)
            listening.cancel()

    async def _vanish(self, cc: Copycat) -> None:
        """What listens to a path that is deleted is told so, after the last event."""
        moody: Any = cc.machine("/vanishing", Moody)

        async def hear() -> None:
            async for _ in moody.told:
                pass

        async def end() -> None:
            with contextlib.suppress(*TROUBLE):
                await self._expect(UnknownResourceError, hear())

        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(end())
            await asyncio.sleep(0.5)
            with contextlib.suppress(*TROUBLE):
                await moody.tell(1, 1)
                await cc.delete("/vanishing")
            await asyncio.sleep(2.0)
            hearing.cancel()

    async def _misuse(self, cc: Copycat) -> None:
        """What cannot work fails at once, and says why."""
        moody: Any = cc.machine("/moody", Moody)
        large = "." * ((1 << 20) + 1)
        await self._expect(SerializationError, cc.map("/roamed").put("k", large))
        wrong: tuple[Callable[[], object], ...] = (
            lambda: moody.told.publish([]),
            lambda: connect([], network=None, clock=None, random=None),  # type: ignore[arg-type]
            lambda: connect("n1:0", network=None, clock=None, random=None),  # type: ignore[arg-type]
            lambda: self._connect(in_flight=0),
            lambda: self._connect(session_timeout=0.01),
            lambda: self._connect(keep_alive=4.0, session_timeout=5.0),
            lambda: self._connect(machines=[int]),
        )
        for call in wrong:
            try:
                call()
            except (ConfigurationError, MisuseError):
                continue
            raise CheckFailed("roamer", f"a misuse was taken: {moody!r}, {moody.add!r}")

    @staticmethod
    def _connect(**options: Any) -> object:
        return connect("n1:1", network=None, clock=None, random=None, **options)  # type: ignore[arg-type]

    async def _drown(self, flooded: Any) -> None:
        with contextlib.suppress(*TROUBLE):
            async for _ in flooded.told:
                await asyncio.sleep(0.2)
