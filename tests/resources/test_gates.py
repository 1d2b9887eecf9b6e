"""Latches and barriers: the machines against a model, the handles against a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest

from copycat.errors import (
    ConfigurationError,
    ConflictError,
    DeadlineError,
    Rejected,
    SessionExpiredError,
    UnknownResourceError,
)
from copycat.resources import AsyncLatch, BarrierMachine, LatchMachine

from ..client.fake_server import client, cluster_and_client, fake_cluster, until
from ..server.loops import run
from .test_machines import Runner


@pytest.mark.parametrize("seed", range(8))
def test_a_latch_opens_once_for_all(seed: int) -> None:
    """It opens exactly when the counts are made, tells each waiter once, and stays open."""
    rng = random.Random(seed)
    count = rng.randrange(1, 12)
    run, done = Runner(LatchMachine()), 0
    line: dict[bytes, int] = {}
    told: dict[bytes, int] = {}
    for number in range(60):
        claim, session = bytes([number]), rng.randrange(1, 5)
        kind = rng.randrange(8)
        run.events.clear()
        if kind < 3:
            by = rng.randrange(1, 3)
            done = min(count, done + by)
            assert (
                run("count_down", by, rng.choice([count, count, None]) if done > by else count)
                == count - done
            )
            opened = line if done == count else {}
            assert [(*value, to) for _, value, to in run.events] == [
                (claim, True, to) for claim, to in opened.items()
            ]
            told |= opened
            line = {} if opened else line
        elif kind < 6:
            assert run("acquire", claim, "me", True, count, session=session) is (done == count)
            if done < count:
                line[claim] = session
        elif kind == 6 and line:
            run("release", gone := rng.choice(list(line)))
            del line[gone]
        elif rng.random() < 0.3:
            run.close(session)
            line = {each: to for each, to in line.items() if to != session}
        else:
            run = run.restored()
        assert [to for _, to in run("line")] == list(line.values())
    assert not told.keys() & line.keys()
    assert run("state")[1] == done


@pytest.mark.parametrize("seed", range(8))
def test_a_barrier_opens_for_exactly_its_parties(seed: int) -> None:
    """Each round lets as many go as there are parties, each with another position, and no other."""
    rng = random.Random(seed)
    parties = rng.randrange(1, 6)
    run, line, broken, rounds = Runner(BarrierMachine()), dict[bytes, int](), False, 0
    for number in range(300):
        claim, session = number.to_bytes(2, "big"), rng.randrange(1, 5)
        kind = rng.randrange(12)
        run.events.clear()
        expected: list[Any] = []
        if kind < 7:
            answer = run("acquire", claim, "me", True, parties, session=session)
            if broken:
                assert answer == [-1]
            elif len(line) == parties - 1:
                assert answer == [parties - 1]
                expected = [(c, [i], to) for i, (c, to) in enumerate(line.items())]
                line, rounds = {}, rounds + 1
            else:
                assert answer == run("acquire", claim, "me", True, parties, session=session) == []
                line[claim] = session
        elif kind == 7 and line:
            run("release", gone := rng.choice(list(line)))
            del line[gone]
        elif kind == 8:
            run.close(session)
            line = {each: to for each, to in line.items() if to != session}
        elif kind in (9, 10):
            if rng.random() < 0.5:
                broken = kind == 9
                run("abort" if broken else "reset")
                expected = [(c, [-1], to) for c, to in line.items()]
                line = {}
        else:
            run = run.restored()
        assert [(*value, to) for _, value, to in run.events] == expected
        assert run("state") == [len(line), broken]
    assert rounds > 3


def test_numbers_are_settled_once() -> None:
    """The first use says how many, the next ones agree or are refused, and nothing is changed."""
    latch, barrier = Runner(LatchMachine()), Runner(BarrierMachine())
    with pytest.raises(Rejected, match="nobody has said yet how many counts"):
        latch("acquire", b"c", "me", True, None)
    for bad in (0, -1, True, 1.5, "2"):
        with pytest.raises(Rejected):
            latch("count_down", bad, 3)
        with pytest.raises(Rejected):
            latch("count_down", 1, bad)
        with pytest.raises(Rejected):
            barrier("acquire", b"c", "me", True, bad)
    assert latch("state") == [0, 0]
    assert latch("count_down", 1, 3) == 2
    with pytest.raises(ConflictError):
        latch("count_down", 1, 4)
    assert latch("state") == [3, 1]
    assert latch("count_down", 10**30, None) == 0
    assert barrier("acquire", b"c", "me", True, 2) == []
    with pytest.raises(ConflictError):
        barrier("acquire", b"d", "me", True, 3)
    assert barrier("acquire", b"d", "me", True, None) == [1]


# -- handles -----------------------------------------------------------------------------------


def test_latch_end_to_end() -> None:
    """Waiters of several clients go on when it opens; later ones at once."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            waiting = [asyncio.create_task(cc.latch("/l", 3).wait()) for cc in (one, two, two)]
            while len(await one.latch("/l", 3).waiters()) < 3:
                await asyncio.sleep(0.001)
            assert await two.latch("/l").count() == 3
            assert await two.latch("/l", 3).count_down(2) == 1
            assert not any(task.done() for task in waiting)
            assert await one.get("/l", AsyncLatch).count_down() == 0
            async with asyncio.timeout(2):
                await asyncio.gather(*waiting)
                await two.latch("/l").wait()
            assert await one.latch("/l", 3).count_down() == 0
            assert await one.latch("/l", 3).count() == 0

    run(main())


def test_a_latch_outlives_sessions() -> None:
    """Whoever waits when the session ends waits on under the next one; counts stay."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc, client(cluster) as other:
            assert await other.latch("/l", 2).count_down() == 1
            waiting = asyncio.create_task(cc.latch("/l", 2).wait())
            while not await other.latch("/l", 2).waiters():
                await asyncio.sleep(0.001)
            before = cc.session.id
            cluster.expire_all()
            await until(lambda: cc.session.id not in (0, before))
            while not await other.latch("/l", 2).waiters():
                await asyncio.sleep(0.001)
            assert not waiting.done()
            assert await other.latch("/l", 2).count_down() == 0
            async with asyncio.timeout(2):
                await waiting

    run(main())


def test_latch_and_barrier_say_what_is_wrong() -> None:
    """Other numbers, nonsense, timeouts and deleted paths are errors that name the path."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            await cc.latch("/l", 2).count_down()
            for call in (cc.latch("/l", 3).count_down(), cc.latch("/l", 3).wait()):
                with pytest.raises(ConflictError, match="'/l' has 2 counts, not 3"):
                    await call
            with pytest.raises(DeadlineError, match="latch '/l' was not open within 0.1 s") as late:
                await cc.latch("/l", 2).wait(timeout=0.05)
            assert late.value.applied == "no"
            with pytest.raises(Rejected, match="'/new' has"):
                await cc.latch("/new").count()
            for bad in (0, True, 1.5):
                with pytest.raises(ConfigurationError, match="count is a whole number"):
                    cc.latch("/l", bad)  # type: ignore[arg-type]
                with pytest.raises(ConfigurationError, match="parties is a whole number"):
                    cc.barrier("/b", bad)  # type: ignore[arg-type]
            barrier = cc.barrier("/b", 2)
            with pytest.raises(DeadlineError, match="barrier '/b' did not open") as late:
                await barrier.wait(timeout=0.05)
            assert late.value.applied == "unknown"
            assert await barrier.n_waiting() == 0
            with pytest.raises(ConflictError, match="'/b' has 2 parties, not 3"):
                await cc.barrier("/b", 3).wait()
            tasks = [asyncio.create_task(each.wait()) for each in (barrier, cc.latch("/l"))]
            while not (await barrier.waiters() and await cc.latch("/l").waiters()):
                await asyncio.sleep(0.001)
            await cc.delete("/l")
            await cc.delete("/b")
            async with asyncio.timeout(2):
                for task in tasks:
                    with pytest.raises(UnknownResourceError):
                        await task

    run(main())


def test_barrier_end_to_end() -> None:
    """Parties of several clients go on together, round after round, each at its own place."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            arrived = [0] * 5
            places: list[list[int]] = [[] for _ in range(5)]

            async def party(number: int) -> None:
                barrier = (one, two)[number % 2].barrier("/b", 4)
                for round_ in range(5):
                    await asyncio.sleep(0.001 * number)
                    arrived[round_] += 1
                    async with barrier as position:
                        assert arrived[round_] == 4
                        places[round_].append(position)

            async with asyncio.timeout(5):
                await asyncio.gather(*map(party, range(4)))
            assert [sorted(each) for each in places] == [[0, 1, 2, 3]] * 5
            assert one.barrier("/b", 4).parties == 4

    run(main())


def test_whoever_gives_up_at_a_barrier_is_not_counted() -> None:
    """A cancelled wait, at whatever moment, and an ended client leave no dead party behind."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc:
            barrier = cc.barrier("/b", 2)
            for delay in range(20):
                task = asyncio.create_task(barrier.wait())
                for _ in range(delay):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                assert await barrier.n_waiting() == 0
            async with client(cluster) as gone:
                leaving = asyncio.create_task(gone.barrier("/b", 2).wait())
                while not await barrier.n_waiting():
                    await asyncio.sleep(0.001)
            with pytest.raises(SessionExpiredError, match="while waiting at '/b'") as ended:
                await leaving
            assert ended.value.applied == "unknown"
            assert await barrier.n_waiting() == 0
            async with asyncio.timeout(2):
                both = await asyncio.gather(barrier.wait(), barrier.wait())
            assert sorted(both) == [0, 1]

    run(main())


def test_a_barrier_is_broken_until_it_is_reset() -> None:
    """Reset sends away who waits, abort also whoever comes; both as asyncio's barrier does."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            barrier = cc.barrier("/b", 2)

            async def sent_away() -> None:
                with pytest.raises(asyncio.BrokenBarrierError, match="'/b' was reset or aborted"):
                    await barrier.wait()

            for breaks in (barrier.reset, barrier.abort):
                task = asyncio.create_task(sent_away())
                while not await barrier.n_waiting():
                    await asyncio.sleep(0.001)
                await breaks()
                await task
            assert await barrier.broken()
            await sent_away()
            await barrier.reset()
            assert not await barrier.broken()
            async with asyncio.timeout(2):
                assert sorted(await asyncio.gather(barrier.wait(), barrier.wait())) == [0, 1]

    run(main())
