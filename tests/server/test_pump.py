"""The pump with a scripted member: one turn per loop turn, sends before jobs, failures stop it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from copycat.errors import StorageError
from copycat.server import pump as pump_module
from copycat.server.clock import RealClock
from copycat.server.effects import (
    ClientFrame,
    ClientGone,
    Effects,
    Job,
    JobDone,
    MemberInput,
    Slept,
)
from copycat.server.memory_disk import MemoryDisk
from copycat.server.pump import Pump
from copycat.server.roster import Seat

from .loops import LOOPS, run, until

Script = Callable[[float, list[MemberInput]], Effects]


class Scripted:
    """A member whose turns are a function of the test's."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or (lambda now, inputs: Effects(wake_at=math.inf))
        self.seen: list[list[MemberInput]] = []
        self.times: list[float] = []

    def turn(self, now: float, inputs: list[MemberInput]) -> Effects:
        """Note what came in, then do what the script says."""
        self.seen.append(inputs)
        self.times.append(now)
        return self.script(now, inputs)


class Sides:
    """Links and gateway in one, writing down what they are told."""

    def __init__(self) -> None:
        self.deeds: list[Any] = []

    def send(self, peer: str, data: bytes) -> None:
        self.deeds.append(("send", peer, data))

    def write(self, connection: int, data: bytes) -> None:
        self.deeds.append(("write", connection, data))

    def close_client(self, connection: int) -> None:
        self.deeds.append(("close", connection))

    def complain(self, connection: int, message: str) -> None:
        self.deeds.append(("complain", connection, message))

    def announce(self, term: int, leader: str | None) -> None:
        self.deeds.append(("announce", term, leader))

    def follow(self, seats: Mapping[str, Seat], committed: object) -> None:
        self.deeds.append(("follow", dict(seats), committed))

    def turn_done(self) -> None:
        self.deeds.append("done")

    def close(self) -> None:
        self.deeds.append("closed")


def make(member: Scripted) -> tuple[Pump, Sides]:
    """A pump on the running loop."""
    sides = Sides()
    loop = asyncio.get_running_loop()
    return Pump(member, MemoryDisk(), RealClock(), sides, sides, loop, name="n1"), sides


@pytest.mark.parametrize("loop", LOOPS)
def test_inputs_of_one_loop_turn_make_one_member_turn(loop: str) -> None:
    """What is pushed before the turn runs arrives together and in order; nothing runs without."""

    async def main() -> None:
        member = Scripted()
        pump, _ = make(member)
        inputs: list[MemberInput] = [ClientFrame(1, 2, b"x"), ClientGone(1), ClientGone(2)]
        for input_ in inputs:
            pump.push(input_)
        assert member.seen == []
        await asyncio.sleep(0.02)
        assert member.seen == [inputs]
        pump.close()

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_effects_are_carried_out_in_the_written_order(loop: str) -> None:
    """Peers, clients, closes; then the jobs in a later round; their ends come back as inputs."""
    effects = Effects(
        peer_frames=[("n2", b"a"), ("n3", b"b")],
        client_frames=[(7, b"c")],
        close=[7],
        wake_at=math.inf,
        leadership=(0, None),
    )

    async def main() -> None:
        member = Scripted()
        pump, sides = make(member)

        def work() -> int:
            sides.deeds.append("job")
            return 5

        good = Job("log", work)
        bad = Job("background", lambda: 1 / 0)
        effects.jobs = [good, bad]
        turns = iter([effects])
        member.script = lambda now, inputs: next(turns, Effects(wake_at=math.inf))
        pump.start()
        await until(lambda: sum(map(len, member.seen)) == 2)
        order = [deed if isinstance(deed, str) else deed[:2] for deed in sides.deeds]
        assert order[:7] == [
            ("send", "n2"), ("send", "n3"), ("write", 7), ("close", 7),
            ("announce", 0), "done", "job",
        ]  # fmt: skip
        ends = [input_ for inputs in member.seen for input_ in inputs]
        assert all(isinstance(end, JobDone) for end in ends)
        assert isinstance(ends[0], JobDone) and ends[0].job is good and ends[0].result == 5
        assert isinstance(ends[1], JobDone) and isinstance(ends[1].error, ZeroDivisionError)
        pump.close()

    run(main(), loop)


@pytest.mark.parametrize("prompt", [True, False])
def test_a_job_that_ended_inline_shares_a_turn_unless_it_is_urgent(prompt: bool) -> None:
    """An urgent completion is taken in before anything else; another waits for what arrives."""

    async def main() -> None:
        member = Scripted()
        pump, _ = make(member)
        jobs = [Job("log", lambda: 5)]
        turns = iter([Effects(jobs=jobs, prompt=prompt, wake_at=math.inf)])
        member.script = lambda now, inputs: next(turns, Effects(wake_at=math.inf))
        pump.push(ClientGone(1))
        # It arrives in the same round of the loop as the first turn, just after it.
        asyncio.get_running_loop().call_soon(lambda: pump.push(ClientGone(2)))
        await until(lambda: sum(map(len, member.seen)) == 3)
        kinds = [[type(input_).__name__ for input_ in inputs] for inputs in member.seen]
        if prompt:
            assert kinds == [["ClientGone"], ["JobDone"], ["ClientGone"]]
        else:
            assert kinds == [["ClientGone"], ["JobDone", "ClientGone"]]
        pump.close()

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_the_member_is_woken_at_the_time_it_asked_for(loop: str) -> None:
    """Never early, hardly late; an earlier wish replaces a later one, and the other way round."""
    wishes = iter([0.5, 0.03, 0.08, 0.04])
    due: list[float] = []

    async def main() -> None:
        def script(now: float, inputs: list[MemberInput]) -> Effects:
            wish = next(wishes, None)
            due.append(math.inf if wish is None else now + wish)
            return Effects(wake_at=due[-1])

        member = Scripted(script)
        pump, _ = make(member)
        pump.start()
        await until(lambda: len(due) == 1)
        pump.start()  # the wish for 0.5 s is replaced by one for 0.03 s
        await until(lambda: len(due) == 5)
        pump.close()
        for wished, came in zip(due[1:4], member.times[2:5], strict=True):
            assert 0 <= came - wished < 0.05
        assert member.times[-1] - member.times[0] < 0.45

    run(main(), loop)


def test_an_idle_member_is_left_alone() -> None:
    """A wish that moves on does not cost turns: only the timer looks again."""

    async def main() -> None:
        member = Scripted(lambda now, inputs: Effects(wake_at=now + 0.25))
        pump, _ = make(member)
        for _ in range(20):
            pump.push(ClientGone(1))
            await asyncio.sleep(0.02)
        assert len(member.seen) == 20
        pump.close()
        await asyncio.sleep(0.3)
        assert len(member.seen) == 20

    run(main())


@pytest.mark.parametrize("kind", ["raises", "fatal"])
def test_a_failed_turn_stops_the_member(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of that turn is carried out, everything is closed, and the node is told (H88)."""
    problem = StorageError("the disk is gone")

    def script(now: float, inputs: list[MemberInput]) -> Effects:
        if kind == "raises":
            raise problem
        return Effects(peer_frames=[("n2", b"never")], fatal=problem)

    async def main() -> None:
        member = Scripted(script)
        pump, sides = make(member)
        pump.push(ClientGone(1))
        assert await pump.failed is problem
        assert sides.deeds == ["closed", "closed"]
        pump.push(ClientGone(2))
        await asyncio.sleep(0.01)
        assert len(member.seen) == 1

    with caplog.at_level(logging.CRITICAL):
        run(main())
    assert "n1 stops: the disk is gone" in caplog.text


def test_a_job_that_cannot_be_submitted_stops_the_member() -> None:
    """A write that never starts would be waited for in vain."""

    async def main() -> None:
        job = Job("nowhere", lambda: None)
        member = Scripted(lambda now, inputs: Effects(jobs=[job], wake_at=math.inf))
        pump, _ = make(member)
        pump.start()
        assert "nowhere" in str(await pump.failed)

    run(main())


def test_a_timer_may_find_that_nothing_is_due_any_more() -> None:
    """A member that had something to wait for, and then has nothing, is left alone."""

    async def main() -> None:
        wakes = [0.03, math.inf]
        member = Scripted(lambda now, inputs: Effects(wake_at=now + wakes.pop(0)))
        pump, _ = make(member)
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what))
        pump.start()
        await until(lambda: len(wakes) == 1)
        pump.push(ClientGone(1))
        await until(lambda: not wakes)
        await asyncio.sleep(0.06)
        assert not failures and len(member.seen) == 2
        pump.close()

    run(main())


@pytest.mark.parametrize("quiet_s", [0.0, 60.0])
def test_stalls_are_counted_and_named(
    quiet_s: float, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback that blocks the loop is noticed whether the pump waits for a turn or a timer; in
    the first moments it is only counted."""
    monkeypatch.setattr(pump_module, "QUIET_S", quiet_s)

    async def main() -> None:
        member = Scripted(lambda now, inputs: Effects(wake_at=now + 0.05))
        pump, _ = make(member)
        pump.start()
        await asyncio.sleep(0.01)
        time.sleep(0.2)  # the application blocks the loop while the timer is due
        await asyncio.sleep(0.01)
        assert pump.stalls == 1
        asyncio.get_running_loop().call_soon(time.sleep, 0.15)
        pump.push(ClientGone(1))  # waits behind the blocking callback
        await asyncio.sleep(0.02)
        assert pump.stalls >= 2
        assert 0.14 < pump.longest_stall < 5
        pump.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    lines = [record.message for record in caplog.records if "event loop blocked" in record.message]
    assert len(lines) == (0 if quiet_s else 1)


class Suspendable(RealClock):
    """A clock of a machine that may have slept; it counts how often it is asked about that."""

    def __init__(self) -> None:
        self.slept = 1000.0
        self.asked = 0

    def suspended_too(self) -> float:
        self.asked += 1
        return self.now() + self.slept


def test_a_member_to_which_sleep_matters_hears_of_it_first() -> None:
    """The turn after a sleep begins with it (H29); before, the other clock is not read at all."""

    async def main() -> None:
        member = Scripted()
        clock = Suspendable()
        sides = Sides()
        loop = asyncio.get_running_loop()
        pump = Pump(member, MemoryDisk(), clock, sides, sides, loop, name="n1")
        pump.start()
        await until(lambda: len(member.seen) == 1)
        clock.slept += 50
        pump.push(ClientGone(1))
        await until(lambda: len(member.seen) == 2)
        assert clock.asked == 0
        member.script = lambda now, inputs: Effects(wake_at=math.inf, sleep_matters=True)
        for _ in range(2):
            pump.push(ClientGone(1))
            await until(lambda: not pump._inputs)
        member.script = lambda now, inputs: Effects(wake_at=math.inf)
        for _ in range(3):
            pump.push(ClientGone(1))
            await until(lambda: not pump._inputs)
        clock.slept += 0.01
        for _ in range(2):
            pump.push(ClientGone(2))
            await until(lambda: not pump._inputs)
        assert [ClientGone(2) in turn for turn in member.seen] == [False] * 7 + [True] * 2
        assert member.seen[-2:] == [[Slept(), ClientGone(2)], [ClientGone(2)]]
        assert not any(Slept() in turn for turn in member.seen[:-2])
        pump.close()

    run(main())
