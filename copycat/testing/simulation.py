"""A simulated cluster for your own tests: production code, virtual time, faults when you say so.

::

    with Simulation(seed=7, machines=[Bank]) as sim:
        async def workload(cc):
            bank = cc.machine("/bank", Bank)
            await bank.deposit("ann", 10)
            sim.crash(sim.leader)
            assert await bank.of("ann") == 10
        sim.run(workload, seconds=30)
        sim.check()

Nothing sleeps: thirty virtual seconds take less than one. Everything follows from the seed, so a
failure is repeated by giving the same one. Your workload is ordinary asyncio code.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from ..errors import ConfigurationError, MisuseError, StorageError
from ..handles import CopycatClient
from ..machine import StateMachine
from .checkers import CheckFailed
from .fate import Fate
from .garbage import orderly
from .hosting import Host, Hosting
from .plan import FAULTS, MEMBER_FAULTS, Plan
from .workload import Records

T = TypeVar("T")

STARTING_S = 30.0
SETTLING_S = 60.0
_MEMBERS_MAX = 9
_SYNONYMS = {"crash": "kill", "delay": "clogged", "latency": "clogged", "power": "power cut"}
_CLIENT_FAULTS = ("client pause", "client death", "cut off", "client unheard")


class Simulation:
    """A cluster of ``members`` named n1, n2... in virtual time; use it as a context manager.

    Args:
        seed: of everything that is left to chance.
        members: how many.
        machines: your `StateMachine` classes.
        clock_skew: clocks run up to this fraction too fast or too slow, 0.01 for one percent.
        snapshot_bytes, segment_bytes: as for `copycat.open`.
        check_determinism: every command is run again in another process with other hashes, clocks
            and environment, and on a copy restored from its snapshot; the first difference is a
            `NondeterminismError` that names command and attribute.
        tell: hears each line of the story: starts, leaders, members, faults.
    """

    def __init__(
        self,
        seed: int = 0,
        members: int = 3,
        machines: Iterable[type[StateMachine]] = (),
        *,
        clock_skew: float = 0.0,
        snapshot_bytes: int = 1 << 20,
        segment_bytes: int = 64 << 10,
        check_determinism: bool = True,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        if not 1 <= members <= _MEMBERS_MAX:
            raise ConfigurationError(f"members={members!r} is not in 1..{_MEMBERS_MAX}")
        self.seed = seed
        self._hosting = Hosting(
            seed, members, machines=machines, skew=clock_skew, snapshot_bytes=snapshot_bytes,
            segment_bytes=segment_bytes, check_determinism=check_determinism, tell=tell,
        )  # fmt: skip
        self._hosting.excuse = self._excuses
        self._faulty: set[str] = set()
        self._fates: list[Fate] = []
        self._workloads = 0
        self._stack = ExitStack()
        self._log_level = logging.NOTSET

    def __enter__(self) -> Self:
        logger = logging.getLogger("copycat")
        self._log_level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        self._stack.enter_context(orderly())
        if self._hosting.determinism is not None:
            self._hosting.determinism.begin()
        for host in self._hosting.hosts.values():
            self._hosting.start(host)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            exc.add_note(f"simulated with seed={self.seed}, at {self.now:.6f} s of virtual time")
        self._hosting.timeline.sink = None  # what is left is no part of the story
        with self._stack:
            self._hosting.bury()
        logging.getLogger("copycat").setLevel(self._log_level)

    # -- running -------------------------------------------------------------------------------

    def run(
        self, workload: Callable[[CopycatClient], Awaitable[T]], seconds: float = 60.0
    ) -> T:
        """Run ``workload(cc)`` in a client process of its own; returns what it returns.

        Raises what the workload raises, and `CheckFailed` if it has not ended after ``seconds`` of
        virtual time or a law of the cluster was broken meanwhile.
        """
        self._workloads += 1
        process = self._hosting.client_process(f"workload-{self._workloads}")
        ended: list[tuple[Any, BaseException | None]] = []

        async def work() -> None:
            try:
                async with self._hosting.connect(process, timeout=STARTING_S) as cc:
                    ended.append((await workload(cc), None))
            except BaseException as error:
                ended.append((None, error))

        process.spawn(work())
        if not self._hosting.run(seconds, lambda: bool(ended)):
            raise CheckFailed("liveness", f"the workload has not ended after {seconds} s")
        result, error = ended[0]
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def advance(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._hosting.run(seconds)

    @property
    def now(self) -> float:
        """Virtual time in seconds."""
        return self._hosting.timeline.now

    @property
    def trace(self) -> str:
        """A digest of everything that happened: the same for the same seed and workload."""
        return self._hosting.timeline.hash

    @property
    def members(self) -> list[str]:
        """The names of all members, up or not."""
        return list(self._hosting.hosts)

    @property
    def leader(self) -> str | None:
        """The member that serves as leader, if there is one."""
        host = self._hosting.leader()
        return None if host is None else host.name

    # -- faults --------------------------------------------------------------------------------

    def crash(self, name: str | None, *, power: bool = False) -> None:
        """Kill a member's process; with ``power`` its disk loses what was not synced, torn."""
        self._hosting.kill(self._host(name), power=power)

    def restart(self, name: str) -> None:
        """Start a member that is down, from what its disk has kept."""
        host = self._host(name)
        if host.is_up:
            raise MisuseError(f"{name} is up")
        self._hosting.start(host)

    def partition(self, *groups: Iterable[str]) -> None:
        """Nothing goes between the groups of members; clients still reach everybody."""
        sides = [list(group) for group in groups]
        self._hosting.timeline.note(f"partition: {' | '.join(' '.join(side) for side in sides)}")
        for number, side in enumerate(sides):
            for other in sides[number + 1 :]:
                for one in side:
                    for name in other:
                        self._hosting.network.block(self._host(one).name, self._host(name).name)

    def isolate(self, name: str | None) -> None:
        """Cut a member off from its peers."""
        host = self._host(name)
        self.partition([host.name], [other for other in self.members if other != host.name])

    def heal(self) -> None:
        """Undo every partition, and start every member that is down."""
        self._hosting.network.heal()
        for host in self._hosting.hosts.values():
            if not host.is_up:
                self._hosting.start(host)

    def pause(self, name: str | None, seconds: float) -> None:
        """A member does nothing for a while, as under SIGSTOP."""
        process = self._host(name).process
        if process is not None:
            process.pause(seconds)

    def skew(self, name: str, rate: float) -> None:
        """A member's clock runs at ``rate`` from now on, 1.0 being right."""
        process = self._host(name).process
        if process is not None:
            process.set_clock_rate(rate)

    def flip_bit(self, name: str) -> str:
        """Flip one bit of what a member has on disk; says which. Crash it first, or do not hope
        that it notices before its next start."""
        self._faulty.add(name)
        flip = self._host(name).disk.flip_bit(self._hosting.random)
        return "nothing to flip" if flip is None else str(flip)

    def fill_disk(self, name: str, free_bytes: int = 0) -> None:
        """A member's disk has only so much room left; None of it comes back before `mend`."""
        disk = self._host(name).disk
        self._faulty.add(name)
        disk.capacity_bytes = disk.capacity_bytes - disk.free_bytes() + free_bytes

    def mend(self, name: str) -> None:
        """A member's disk is as good as new, but for what it lost."""
        disk = self._host(name).disk
        disk.rates.clear()
        disk.capacity_bytes = 1 << 40

    def torment(self, *kinds: str, every: float = 1.0) -> None:
        """Let random faults of these kinds happen until `relieve`.

        Without any named it is all of them but those that change who takes part. What cannot be
        named here are faults of clients: this simulation's client is your workload's.

        Raises `MisuseError` for a kind that there is not; it names all there are.
        """
        possible = [kind for kind in FAULTS if kind not in _CLIENT_FAULTS]
        wanted = kinds or tuple(kind for kind in possible if kind not in MEMBER_FAULTS)
        for kind in wanted:
            if kind not in possible:
                raise MisuseError(_no_fault(kind, possible))
        self._hosting.timeline.note(f"torment: {', '.join(wanted)}")
        plan = Plan(self.seed, faults=wanted, fault_every=every)
        fate = Fate(self._hosting, plan, Records(lambda: self.now), lambda: None)
        self._fates.append(fate)
        fate.begin()

    def relieve(self) -> None:
        """No more random faults; everything is healed and everybody comes back."""
        for fate in self._fates:
            fate.end()

    def _excuses(self, host: Host, error: BaseException | None) -> bool:
        injected = isinstance(error, StorageError) and host.name in self._faulty
        return injected or any(fate.excuses(host, error) for fate in self._fates)

    def _host(self, name: str | None) -> Host:
        host = self._hosting.hosts.get(name or "")
        if host is None:
            raise MisuseError(f"there is no member {name!r}; there are {self.members}")
        return host

    # -- judging -------------------------------------------------------------------------------

    def check(self) -> None:
        """Heal everything and raise `CheckFailed` unless all members come to the same state, and
        `NondeterminismError` if copies elsewhere come to another one.

        Raft's laws (one leader a term, logs that match, nothing committed is lost, no promise is
        forgotten) have been checked after every turn of every member anyway.
        """
        self.relieve()
        self.heal()
        if not self._hosting.run(SETTLING_S, lambda: self.leader is not None):
            raise CheckFailed("liveness", f"no leader {SETTLING_S} s after all faults were healed")
        self._hosting.run(1.0)
        if not self._hosting.run(SETTLING_S, self._hosting.is_settled):
            raise CheckFailed("liveness", "the members do not come to the same index")
        if self._hosting.determinism is not None:
            self._hosting.determinism.finish()
        self._hosting.compare_states()


def _no_fault(kind: str, possible: list[str]) -> str:
    """What can be named instead of ``kind``."""
    if kind in _CLIENT_FAULTS:
        reason = f"{kind!r} befalls clients, and the only one here is the workload's"
    else:
        near = difflib.get_close_matches(_SYNONYMS.get(kind, kind), possible, 1)
        reason = f"there is no fault {kind!r}" + (f", perhaps {near[0]!r} is meant" if near else "")
    plain = ", ".join(repr(each) for each in possible if each not in MEMBER_FAULTS)
    return (
        f"{reason}. Without a name these happen: {plain}. Those that change who takes part have to "
        f"be named: {', '.join(map(repr, MEMBER_FAULTS))}"
    )
