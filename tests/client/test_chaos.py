"""Random faults, seeded: whatever happens to connections and leaders, each command counts once."""

from __future__ import annotations

import asyncio
import random

import pytest

from copycat._core.codec import Frame
from copycat.errors import LockLost, OutcomeUnknownError, SessionExpiredError

from ..server.loops import run
from .fake_server import FakeCluster, client, fake_cluster


async def trouble(cluster: FakeCluster, rng: random.Random, rounds: int, *, expiry: bool) -> None:
    """Do ``rounds`` bad things, then heal everything."""
    for _ in range(rounds):
        await asyncio.sleep(rng.uniform(0, 0.01))
        kind = rng.randrange(8)
        leader = cluster.members[cluster.leader or "n1"]
        if kind == 0:
            leader.drop()
        elif kind == 1:
            cluster.elect(rng.choice(list(cluster.members)))
        elif kind == 2:
            cluster.elect(None)
            await asyncio.sleep(rng.uniform(0, 0.02))
            cluster.elect(rng.choice(list(cluster.members)))
        elif kind == 3:
            cluster.mute = set(
                rng.sample([Frame.RESULTS, Frame.EVENTS, Frame.ANSWERS, Frame.KEPT], 2)
            )
        elif kind == 4:
            cluster.mute = set()
            leader.drop()
        elif kind == 5:
            leader.overload = rng.randrange(4)
        elif kind == 6:
            cluster.deaf = True
            await asyncio.sleep(rng.uniform(0, 0.01))
            cluster.deaf = False
            leader.drop()
        elif expiry and rng.random() < 0.3:
            cluster.expire_all()
    cluster.mute, cluster.deaf = set(), False
    for member in cluster.members.values():
        member.overload = 0
        member.drop()
    cluster.elect("n1")


@pytest.mark.parametrize("seed", range(12))
def test_every_increment_counts_exactly_once(seed: int) -> None:
    """All results are distinct and their number is the counter's value, under any faults."""

    async def main() -> None:
        rng = random.Random(seed)
        async with fake_cluster() as cluster, client(cluster) as cc:
            number = cc.long("/n")
            await number.increment(0)
            results: list[int] = []
            healthy = False

            async def work() -> None:
                while not healthy:
                    before = len(results)
                    results.append(await number.increment())
                    assert await number.get() >= results[before]

            workers = [asyncio.create_task(work()) for _ in range(rng.choice((1, 5, 40)))]
            await trouble(cluster, rng, 40, expiry=False)
            healthy = True
            await asyncio.gather(*workers)
            assert len(results) >= 3
            assert sorted(results) == list(range(1, len(results) + 1))
            assert await number.get() == len(results)

    run(main(), timeout=30)


@pytest.mark.parametrize("seed", range(8))
def test_expired_sessions_leave_doubt_only_where_it_is_due(seed: int) -> None:
    """Acknowledged increments are there, refused ones are not, and doubtful ones are counted."""

    async def main() -> None:
        rng = random.Random(100 + seed)
        async with fake_cluster() as cluster, client(cluster) as cc:
            number = cc.long("/n")
            await number.increment(0)
            acknowledged = doubtful = 0
            healthy = False

            async def work() -> None:
                nonlocal acknowledged, doubtful
                while not healthy:
                    try:
                        await number.increment()
                        acknowledged += 1
                    except OutcomeUnknownError:
                        doubtful += 1

            workers = [asyncio.create_task(work()) for _ in range(10)]
            await trouble(cluster, rng, 40, expiry=True)
            healthy = True
            await asyncio.gather(*workers)
            assert acknowledged >= 3
            assert acknowledged <= await number.get() <= acknowledged + doubtful

    run(main(), timeout=30)


@pytest.mark.parametrize("seed", range(8))
def test_locks_never_leak_and_tokens_rise(seed: int) -> None:
    """Whatever is cancelled, lost or timed out: the lock is free in the end, its tokens rose."""

    async def main() -> None:
        rng = random.Random(200 + seed)
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            tokens: list[int] = []
            healthy = False

            async def work(turn: int) -> None:
                while not healthy:
                    lock = (one, two)[turn % 2].lock("/l")
                    try:
                        async with asyncio.timeout(rng.uniform(0, 0.03)):
                            async with lock as held:
                                tokens.append(held.token)
                                await asyncio.sleep(rng.uniform(0, 0.002))
                    except (TimeoutError, LockLost):
                        pass
                    except (SessionExpiredError, OutcomeUnknownError):
                        pass

            workers = [asyncio.create_task(work(turn)) for turn in range(6)]
            await trouble(cluster, rng, 40, expiry=True)
            healthy = True
            await asyncio.gather(*workers)
            async with asyncio.timeout(5), one.lock("/l") as held:
                tokens.append(held.token)
            assert await two.lock("/l").waiters() == []
            assert not await two.lock("/l").locked()
            assert len(tokens) >= 3
            assert tokens == sorted(set(tokens))

    run(main(), timeout=30)
