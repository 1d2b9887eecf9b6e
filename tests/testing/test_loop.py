"""The simulated loop does what asyncio does, repeats exactly, and ends without a trace."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from copycat.errors import MisuseError
from copycat.testing.disk import Crashed
from copycat.testing.process import SimulatedProcess
from copycat.testing.world import World


def lived(world: World, main: Coroutine[Any, Any, Any], limit_s: float = 100.0) -> Any:
    """What ``main`` returns, in a process of its own."""
    task = world.process("p").spawn(main)
    assert world.run(limit_s, until=task.done)
    return task.result()


# -- asyncio as we know it -------------------------------------------------------------------------


def test_callbacks_run_in_turns_as_in_asyncio() -> None:
    """What is called soon from a callback waits for the next turn; order is kept; same as asyncio.

    The real loop runs the same script and is the judge.
    """

    async def script() -> list[str]:
        loop = asyncio.get_running_loop()
        said: list[str] = []

        def say(text: str, *then: str) -> None:
            said.append(text)
            if then:
                loop.call_soon(say, *then)

        loop.call_soon(say, "a", "c", "e")
        loop.call_later(0.0, say, "timer")
        loop.call_soon(say, "b", "d")
        loop.call_soon(say, "never").cancel()
        loop.call_later(0.02, say, "later")
        loop.call_later(0.01, say, "sooner")
        loop.call_later(0.015, say, "never").cancel()
        async with asyncio.TaskGroup() as group:
            for name in "xy":
                group.create_task(asyncio.sleep(0)).add_done_callback(
                    lambda _, name=name: said.append(name)
                )
        await asyncio.sleep(0.05)
        return said

    with World(1) as world:
        simulated = lived(world, script())
        assert 0.05 <= world.now < 0.06
    assert simulated == asyncio.run(script())


def test_timeouts_groups_and_events_work() -> None:
    """A timeout ends a wait, a group cancels its other tasks, an event wakes its waiters."""

    async def main() -> list[object]:
        seen: list[object] = []
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.sleep(1e6)
        seen.append(round(loop.time() - begun, 3))

        async def sleeper() -> None:
            try:
                await asyncio.sleep(1e6)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        async def failing() -> None:
            await asyncio.sleep(0.1)
            raise KeyError("boom")

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(sleeper())
                group.create_task(failing())
        event = asyncio.Event()
        loop.call_later(3.0, event.set)
        await event.wait()
        seen.append(asyncio.current_task() is not None)
        waited = await asyncio.gather(asyncio.sleep(2, "a"), asyncio.sleep(1, "b"))
        return [*seen, *waited, round(loop.time() - begun, 2)]

    with World(2) as world:
        assert lived(world, main()) == [0.5, "cancelled", True, "a", "b", 5.6]
        assert not world.failures


def test_an_abandoned_generator_cleans_up() -> None:
    """Whoever stops iterating over an async generator gets its ``finally``, in the loop."""
    closed: list[bool] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0.01)
            closed.append(asyncio.current_task() is not None)

    async def main() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(1)

    with World(3) as world:
        lived(world, main())
    assert closed == [True]


def test_threads_are_refused() -> None:
    """A simulated process has no executor, and says so; nor does a simulation run inside a loop."""

    async def main() -> None:
        with pytest.raises(MisuseError, match="no threads"):
            await asyncio.to_thread(lambda: None)

    with World(4) as world:
        lived(world, main())

        async def outside() -> None:
            with pytest.raises(MisuseError, match="plain function"):
                world.run(1.0)

        asyncio.run(outside())


def test_turns_cost_time() -> None:
    """A task that never waits does not stop the world: its turns take virtual time."""

    async def busy() -> None:
        while True:
            await asyncio.sleep(0)

    with World(5) as world:
        process = world.process("p", turn_s=0.001)
        process.spawn(busy())
        world.run(1.0)
        assert 900 < process.loop.turns < 1100
        assert world.now == 1.0


# -- what goes wrong shows -------------------------------------------------------------------------


def test_nothing_that_fails_vanishes() -> None:
    """A callback, a spawned task, and a task or future that nobody asks: each is a failure."""

    async def fails(text: str) -> None:
        raise ValueError(text)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: 1 // 0)
        forgotten = loop.create_task(fails("forgotten"))
        await asyncio.sleep(0.1)
        del forgotten
        loop.create_future().set_exception(ValueError("future"))
        caught = loop.create_task(fails("caught"))
        with pytest.raises(ValueError, match="caught"):
            await caught

    with World(6) as world:
        process = world.process("p")
        process.spawn(main())
        process.spawn(fails("spawned"))
        world.run(1.0)
        gc.collect()
        texts = sorted(str(each.exception) for each in world.failures)
        assert texts == ["forgotten", "future", "integer division or modulo by zero", "spawned"]


# -- the same again --------------------------------------------------------------------------------


def ties(seed: int) -> tuple[str, str]:
    """Five processes that all wake at the same instants, and the order in which they did."""
    order: list[str] = []

    async def tick(name: str) -> None:
        for _ in range(20):
            order.append(name)
            await asyncio.sleep(0.25)

    with World(seed) as world:
        for name in "abcde":
            world.process(name, turn_s=0.0).spawn(tick(name))
        world.run(10)
        return "".join(order), world.timeline.hash


def test_a_seed_determines_everything() -> None:
    """Same seed, same order of ties and same trace hash; other seeds, others."""
    runs = [ties(seed) for seed in (1, 1, 2, 3)]
    assert runs[0] == runs[1]
    assert len({order for order, _ in runs}) == 3
    assert len({digest for _, digest in runs}) == 3
    assert {"".join(sorted(runs[0][0][at : at + 5])) for at in range(0, 100, 5)} == {"abcde"}


def test_the_hash_seed_of_python_does_not_matter() -> None:
    """A cluster's life has the same trace in interpreters that hash strings differently."""
    code = (
        "from tests.testing.test_network import cluster_life\n"
        "import sys; sys.stdout.write(cluster_life(3)[0])"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_what_is_traced_is_hashed_and_shown() -> None:
    """A line of the trace reaches the sink with its time, and changes the hash."""
    lines: list[str] = []
    digests = []
    for text in ("one", "other"):
        with World(7, sink=lines.append) as world:
            world.timeline.after(1.5, world.timeline.trace, text)
            world.run(2)
            digests.append(world.timeline.hash)
    assert lines == ["    1.500000 one", "    1.500000 other"]
    assert digests[0] != digests[1]


# -- suffering -------------------------------------------------------------------------------------


async def beat(said: list[float], process: SimulatedProcess, now: Callable[[], float]) -> None:
    """Say every 0.1 s what time it is in the world."""
    while True:
        said.append(round(now(), 2))
        await asyncio.sleep(0.1)


def test_a_paused_process_does_nothing_and_then_goes_on() -> None:
    """Nothing happens in a pause; what was due meanwhile happens after it; others do not notice."""
    with World(8) as world:
        sick, well = world.process("sick"), world.process("well")
        said: dict[str, list[float]] = {"sick": [], "well": []}
        for process in (sick, well):
            process.spawn(beat(said[process.name], process, lambda: world.now))
        world.run(1.05)
        before = sick.clock.now()
        sick.pause(2.0)
        world.run(1.0)
        assert said["sick"][-1] == pytest.approx(1.0)
        world.run(1.5)
        assert not [each for each in said["sick"] if 1.05 < each < 3.05]
        assert said["sick"][-1] > 3.3
        assert len(said["well"]) >= 35
        assert sick.clock.now() - before == pytest.approx(2.5)


def test_a_suspended_machine_loses_time() -> None:
    """While a machine sleeps its monotonic clock stands, and timers are late by as much."""
    with World(9) as world:
        process = world.process("p")
        woken: list[float] = []

        async def main() -> None:
            await asyncio.sleep(1.0)
            woken.append(round(world.now, 3))

        process.spawn(main())
        world.run(0.5)
        now, too, wall = process.clock.now(), process.clock.suspended_too(), process.clock.wall()
        process.suspend(10.0)
        world.run(4.0)
        assert process.clock.now() == now
        assert process.clock.suspended_too() == pytest.approx(too + 4)
        world.run(10.0)
        assert woken == [11.0]
        assert process.clock.now() == pytest.approx(now + 4)
        assert process.clock.suspended_too() == pytest.approx(too + 14)
        process.clock.jump(-3600)
        assert process.clock.wall() == pytest.approx(wall + 14 - 3600)


def test_clocks_run_at_their_own_speed() -> None:
    """A clock of rate 2 sleeps half as long; a change counts for timers that are set already."""
    with World(10) as world:
        woken: dict[str, float] = {}

        async def sleep(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken[name] = round(world.now, 3)

        fast, slow, changing = (
            world.process("fast", clock_rate=2.0),
            world.process("slow", clock_rate=0.5),
            world.process("changing"),
        )
        for process in (fast, slow, changing):
            process.spawn(sleep(process.name, 10.0))
        world.run(2.0)
        changing.set_clock_rate(4.0)
        world.run()
        assert woken == {"fast": 5.0, "slow": 20.0, "changing": 4.0}


def test_a_killed_process_does_nothing_any_more() -> None:
    """After `kill` nothing runs: no task, timer, callback or ``finally``; and nobody complains."""
    with World(11) as world:
        process = world.process("p")
        said: list[object] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(1.0, said.append, "timer")
            doomed = loop.create_future()
            doomed.set_exception(ValueError("never seen"))
            try:
                async with asyncio.timeout(0.9):
                    await asyncio.sleep(1e6)
            finally:
                said.append(doomed)

        process.spawn(main())
        process.schedule(0.7, lambda: said.append("disk"))
        world.run(0.5)
        process.kill()
        process.loop.call_soon(said.append, "soon")
        process.loop.call_later(0.1, said.append, "later")
        world.run(10)
        assert said == []
        assert not process.alive
        assert not process.failures


def test_a_process_may_be_killed_from_within() -> None:
    """`kill` in a callback, or a crash of its disk in a task, ends the turn that is going on."""
    for seed in range(12, 16):
        with World(seed) as world:
            process = world.process("p")
            said: list[str] = []

            async def crash() -> None:
                raise Crashed("torn")

            process.loop.call_soon(said.append, "before")
            if seed % 2:
                process.loop.call_soon(process.kill)
            else:
                process.spawn(crash())
            world.timeline.after(0.001, process.loop.call_soon, said.append, "after")
            process.loop.call_soon(process.loop.call_soon, said.append, "next turn")
            world.run(1)
            assert said[:1] == ["before"]
            assert "after" not in said
            assert not process.alive
            assert not world.failures


@pytest.mark.filterwarnings("error")
def test_the_dead_are_buried_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    """At the world's end the dead let go of everything, even what will not end, without a word."""

    async def stubborn() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(1e6)

    async def main() -> None:
        with pytest.raises(BaseExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(stubborn())

    with World(16) as world:
        process = world.process("p")
        process.spawn(main())
        process.spawn(stubborn())
        world.run(1)
        process.kill()
        process.spawn(stubborn())  # never begins
        task = process.loop.create_task(stubborn())
    assert process.loop.tasks == {}
    del process, world, task
    gc.collect()
    assert capfd.readouterr() == ("", "")
