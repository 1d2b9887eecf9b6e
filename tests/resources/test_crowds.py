"""Recipes for coordination under faults: what clients see while members and they suffer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from copycat.handles import CopycatClient
from copycat.ports import Random
from copycat.resources import AsyncQueue, Taken
from copycat.testing import CheckFailed
from copycat.testing.checkers import require_linearizable
from copycat.testing.queue_models import Latch, Queue

from .crowd import CLIENTS_SUFFER, MEMBERS_SUFFER, SESSION_S, Crowd

PERMITS = 2
ALL = MEMBERS_SUFFER + CLIENTS_SUFFER


def hurried(random: Random) -> float | None:
    """Sometimes a timeout, short enough to matter."""
    return random.choice((None, None, 0.05, 0.5))


# -- what is held ----------------------------------------------------------------------------------


def semaphores(seed: int, seconds: float = 20.0) -> Crowd:
    """A life at a semaphore: never more than its permits, and none is left over."""

    async def step(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        semaphore = cc.semaphore("/x", PERMITS)
        if random.random() < 0.3:
            held = await semaphore.acquire(timeout=hurried(random))
            await asyncio.sleep(random.expovariate(10))
            await semaphore.release(held)
            return
        async with semaphore as held:
            with crowd.believing("/x", cc, held.token, "permit"):
                if len(crowd.others("/x")) > PERMITS:
                    raise AssertionError(f"too many permits: {crowd.others('/x')}")
                await asyncio.sleep(random.choice((0.1, 3.0)) * random.random())

    async def judge(cc: CopycatClient) -> None:
        semaphore = cc.semaphore("/x", PERMITS)
        async with asyncio.timeout(3 * SESSION_S):
            async with semaphore, semaphore:
                assert await semaphore.available() == 0
        assert await semaphore.holders() == await semaphore.waiters() == []

    crowd = Crowd(seed, step, faults=ALL, session_s=SESSION_S)
    crowd.live(seconds, judge)
    return crowd


def sides(seed: int, seconds: float = 20.0) -> Crowd:
    """A life at a read-write lock: writers are alone, and nobody waits for the dead."""

    async def step(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        lock = cc.rwlock("/x")
        writes = random.random() < 0.3
        side = lock.writer if writes else lock.reader
        if random.random() < 0.3:
            async with asyncio.timeout(random.random()):
                await side.release(await side.acquire(timeout=hurried(random)))
            return
        async with side as held:
            with crowd.believing("/x", cc, held.token, "writer" if writes else "reader"):
                others = Counter(crowd.others("/x"))
                if others["writer"] > 1 or (others["writer"] and others["reader"]):
                    raise AssertionError(f"they are not alone: {others}")
                await asyncio.sleep(random.choice((0.1, 3.0)) * random.random())

    async def patient(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        with contextlib.suppress(TimeoutError):
            await step(crowd, cc, random)

    async def judge(cc: CopycatClient) -> None:
        lock = cc.rwlock("/x")
        async with asyncio.timeout(3 * SESSION_S):
            async with lock.writer:
                assert not await lock.reader.locked()
        assert await lock.reader.waiters() == await lock.writer.waiters() == []

    crowd = Crowd(seed, patient, faults=ALL, session_s=SESSION_S)
    crowd.live(seconds, judge)
    return crowd


# -- what opens ------------------------------------------------------------------------------------


def latches(seed: int, seconds: float = 20.0) -> Crowd:
    """A life at latches: open when enough counts are confirmed, closed while too few were tried."""
    tried: Counter[int] = Counter()
    confirmed: Counter[int] = Counter()
    opened: set[int] = set()
    count = 5

    async def step(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        number = len(opened)
        latch = cc.latch(f"/x/{number}", count)
        if random.random() < 0.6:
            tried[number] += 1
            before = confirmed[number]
            remains = await latch.count_down()
            confirmed[number] += 1
            if not count - tried[number] <= remains <= max(0, count - before - 1):
                raise AssertionError(f"{remains} of latch {number} remain: {tried}, {before}")
        else:
            await latch.wait(timeout=hurried(random))
            if tried[number] < count:
                raise AssertionError(f"latch {number} is open: {tried}, {confirmed}")
            opened.add(number)

    async def judge(cc: CopycatClient) -> None:
        for number in tried:
            latch = cc.latch(f"/x/{number}", count)
            done = count - await latch.count()
            assert min(confirmed[number], count) <= done <= tried[number]
            async with asyncio.timeout(3 * SESSION_S):
                while await latch.waiters():  # of clients that died
                    await asyncio.sleep(0.1)
            if confirmed[number] >= count or number in opened:
                await latch.wait(timeout=1)

    # Whoever waits for a latch that nobody counts down any more would wait for ever.
    async def bounded(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await step(crowd, cc, random)

    crowd = Crowd(seed, bounded, faults=ALL, session_s=SESSION_S)
    crowd.live(seconds, judge)
    assert opened
    return crowd


def barriers(seed: int, faults: tuple[str, ...], seconds: float = 20.0) -> Crowd:
    """A life at a barrier: places are those of the parties; without losses each is there as often.

    Whether a wait that failed was counted in cannot be known; it is only said to be unknown.
    """
    places: Counter[int] = Counter()
    doubts = 0
    parties = 3

    async def step(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        nonlocal doubts
        doubts += 1
        place = await cc.barrier("/x", parties).wait(timeout=random.choice((1.0, 4.0)))
        doubts -= 1
        places[place] += 1

    async def judge(cc: CopycatClient) -> None:
        barrier = cc.barrier("/x", parties)
        assert await barrier.n_waiting() == 0
        async with asyncio.timeout(3 * SESSION_S):
            assert sorted(await asyncio.gather(*(barrier.wait() for _ in range(3)))) == [0, 1, 2]

    crowd = Crowd(seed, step, faults=faults, session_s=SESSION_S)
    crowd.live(seconds, judge)
    assert set(places) <= {0, 1, 2}
    rounds = max(places.values())
    assert rounds
    assert parties * rounds - sum(places.values()) <= doubts
    return crowd


# -- what is handed on -----------------------------------------------------------------------------


class QueueLife:
    """What the clients of one queue did with its items."""

    def __init__(self) -> None:
        self.tried: set[str] = set()
        self.confirmed: set[str] = set()
        self.ended: Counter[str] = Counter()  # got, or acknowledged for certain
        self.perhaps: set[str] = set()  # taken, and the acknowledgement is in doubt
        self.doubts = 0  # gets of which nobody knows

    async def step(self, crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        """Put, get, or take and work."""
        queue = cc.queue("/x")
        kind = random.random()
        with contextlib.suppress(TimeoutError):
            if kind < 0.5:
                await self._put(f"{cc.name}-{len(self.tried)}", queue)
            elif kind < 0.7:
                await self._get(random, queue)
            else:
                async with asyncio.timeout(5.0):
                    item = await queue.take(timeout=hurried(random))
                await self._work(crowd, cc, random, item)

    async def _put(self, value: str, queue: AsyncQueue[str]) -> None:
        self.tried.add(value)
        await queue.put(value)
        self.confirmed.add(value)

    async def _get(self, random: Random, queue: AsyncQueue[str]) -> None:
        """One that is often cancelled: it takes nothing then, while the session lives."""
        self.doubts += 1
        async with asyncio.timeout(random.choice((0.02, 0.3, 5.0)) * random.random()):
            self.ended[await queue.get(timeout=hurried(random))] += 1
            self.doubts -= 1

    async def _work(
        self, crowd: Crowd, cc: CopycatClient, random: Random, item: Taken[str]
    ) -> None:
        place = f"item {item.value}"
        async with item:
            if self.ended[item.value]:
                raise AssertionError(f"{item.value} was done, and comes again")
            with crowd.believing(place, cc, item.token, "worker"):
                if len(crowd.others(place)) > 1:
                    raise AssertionError(f"{item.value} is worked at twice")
                await asyncio.sleep(random.choice((0.1, 3.0)) * random.random())
            if random.random() < 0.3:
                await item.nack()
                return
            self.perhaps.add(item.value)
            await item.ack()
            self.ended[item.value] += 1

    async def judge(self, cc: CopycatClient) -> None:
        """Take what is left, once the dead have lost what they had."""
        queue = cc.queue("/x")
        async with asyncio.timeout(3 * SESSION_S):
            while await queue.holders() or await queue.waiters():
                await asyncio.sleep(0.1)
        while await queue.size():
            self.ended[await queue.get_nowait()] += 1


def queues(seed: int, faults: tuple[str, ...] = ALL, seconds: float = 20.0) -> Crowd:
    """A life at a queue: what was put is done once or more, and got at most once; none is lost."""
    life = QueueLife()
    crowd = Crowd(seed, life.step, faults=faults, session_s=SESSION_S)
    crowd.live(seconds, life.judge)
    if twice := {value for value, times in life.ended.items() if times > 1}:
        raise CheckFailed("once", f"done twice: {twice}")
    assert set(life.ended) <= life.tried
    lost = life.confirmed - set(life.ended) - life.perhaps
    crowd.report = f"{len(life.confirmed)} put, {len(life.ended)} done, {lost} lost"
    # Only with its session a get can end between the removal and the answer.
    assert len(lost) <= (life.doubts if set(faults) & set(CLIENTS_SUFFER) else 0), crowd.report
    return crowd


def histories(seed: int, seconds: float = 20.0) -> Crowd:
    """A life whose every answer is written down, and explained by an order of its operations."""

    async def step(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        record, who = crowd.history.record, cc.name
        number = random.randrange(4)
        queue, latch = cc.queue(f"/queue/{number}"), cc.latch(f"/latch/{number}", 9)
        kind = random.random()
        if kind < 0.35:
            value = len(crowd.history.operations)
            await record(who, "put", queue.path, (value,), queue.put(value))
        elif kind < 0.65:
            await record(who, "get", queue.path, (), queue.get())
        elif kind < 0.75:
            await record(who, "peek", queue.path, (), queue.peek())
        elif kind < 0.85:
            await record(who, "size", queue.path, (), queue.size())
        elif kind < 0.95:
            await record(who, "count_down", latch.path, (), latch.count_down())
        else:
            await record(who, "count", latch.path, (), latch.count())

    # Whoever waits for an item that nobody puts any more would wait for ever.
    async def bounded(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        waiting = asyncio.ensure_future(step(crowd, cc, random))
        while not waiting.done() and not crowd.stopping:
            await asyncio.wait([waiting], timeout=0.5)
        if not waiting.done():
            waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting

    async def judge(cc: CopycatClient) -> None:
        """Nothing else is left to be seen."""

    crowd = Crowd(seed, bounded, faults=MEMBERS_SUFFER, session_s=30.0)
    crowd.live(seconds, judge)
    done = crowd.history.operations
    require_linearizable([each for each in done if "queue" in str(each.key)], Queue())
    require_linearizable([each for each in done if "latch" in str(each.key)], Latch(9))
    return crowd


# -- a few lives of each; thousands of others were clean ----------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_semaphores_under_faults(seed: int) -> None:
    """Whoever dies, stands still or is cut off: never too many permits, and none is lost."""
    assert semaphores(seed).steps > 20


@pytest.mark.parametrize("seed", range(2))
def test_read_write_locks_under_faults(seed: int) -> None:
    """No writer meets anybody, and nobody waits behind the dead."""
    assert sides(seed).steps > 20


@pytest.mark.parametrize("seed", range(2))
def test_latches_under_faults(seed: int) -> None:
    """They open when they were counted down, and not before."""
    assert latches(seed).steps > 20


@pytest.mark.parametrize("faults", [MEMBERS_SUFFER, ALL], ids=["members", "all"])
def test_barriers_under_faults(faults: tuple[str, ...]) -> None:
    """Parties go on three at a time, whoever else gives up or dies."""
    assert barriers(1, faults).steps > 20


@pytest.mark.parametrize("faults", [MEMBERS_SUFFER, ALL], ids=["members", "all"])
def test_queues_under_faults(faults: tuple[str, ...]) -> None:
    """Nothing is lost, nothing is done twice, and no item is worked at by two."""
    crowd = queues(1, faults)
    assert crowd.steps > 20, crowd.report


@pytest.mark.parametrize("seed", range(2))
def test_histories_are_those_of_one_queue_and_one_latch(seed: int) -> None:
    """While members suffer and sessions live, every answer is that of a single object."""
    crowd = histories(seed)
    assert crowd.steps > 50
