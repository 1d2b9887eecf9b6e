"""Locks and elections against a fake cluster: who holds, who is told, and that none is leaked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from copycat.errors import (
    DeadlineError,
    LeadershipLost,
    LockLost,
    MisuseError,
    SessionExpiredError,
)
from copycat.resources import ElectionEvent
from copycat.types import EventType

from ..client.fake_server import client, cluster_and_client, fake_cluster, until
from ..server.loops import run


def test_lock_excludes_and_is_fair() -> None:
    """Tasks of several clients never overlap, get the lock in order, with rising tokens."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            inside = 0
            order: list[int] = []
            tokens: list[int] = []

            async def work(number: int) -> None:
                nonlocal inside
                lock = (one, two)[number % 2].lock("/l")
                async with lock as held:
                    inside += 1
                    assert inside == 1
                    order.append(number)
                    tokens.append(held.token)
                    held.check()
                    await asyncio.sleep(0.002)
                    inside -= 1

            tasks = []
            for number in range(20):
                tasks.append(asyncio.create_task(work(number)))
                await asyncio.sleep(0.003)
            await asyncio.gather(*tasks)
            assert order == list(range(20))
            assert tokens == sorted(set(tokens))
            assert not await one.lock("/l").locked()

    run(main())


def test_lock_is_free_when_its_holder_leaves() -> None:
    """Closing a client passes its locks on and takes it out of every line."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one:
            async with client(cluster) as two:
                await two.lock("/l").acquire()
                waiter = asyncio.create_task(one.lock("/l").acquire())
                gone = asyncio.create_task(two.lock("/l").acquire())
                await asyncio.sleep(0.05)
                assert len(await one.lock("/l").waiters()) == 2
            held = await waiter
            with pytest.raises(SessionExpiredError):
                await gone
            assert await one.lock("/l").waiters() == []
            assert (await one.lock("/l").holder()).token == held.token  # type: ignore[union-attr]

    run(main())


def test_cancelled_acquire_never_leaves_a_held_lock() -> None:
    """Cancelling an acquire at any moment withdraws it: the lock stays usable by others."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            lock = cc.lock("/l")
            await cc.lock("/l").locked()
            for delay in range(40):
                holder = await cc.lock("/l").acquire(timeout=2) if delay % 2 else None
                task = asyncio.create_task(lock.acquire())
                for _ in range(delay // 2):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    held = await task
                except asyncio.CancelledError:
                    pass
                else:
                    await lock.release(held)
                if holder is not None:
                    other = cc.lock("/l")
                    await other.release(holder)
                async with asyncio.timeout(2), cc.lock("/l"):
                    pass
            assert await cc.lock("/l").waiters() == []

    run(main())


def test_acquire_with_a_timeout_withdraws() -> None:
    """A timeout is a DeadlineError, and the claim leaves the line."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            held = await cc.lock("/l").acquire()
            other = cc.lock("/l")

            async def late() -> None:
                with pytest.raises(DeadlineError, match=r"'/l' was not obtained within 0\.1 s"):
                    await other.acquire(timeout=0.1)
                assert await other.try_acquire() is None

            await asyncio.create_task(late())
            assert await other.waiters() == []
            await cc.lock("/l").release(held)
            again = await asyncio.create_task(other.try_acquire())
            assert again is not None
            assert again.token > held.token

    run(main())


def test_reacquiring_in_one_task_is_a_misuse() -> None:
    """The task that holds the lock gets an error instead of waiting for itself."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            async with cc.lock("/l") as held:
                with pytest.raises(MisuseError, match=f"already holds '/l' .token {held.token}"):
                    await cc.lock("/l").acquire()
            with pytest.raises(MisuseError, match="not held"):
                await cc.lock("/l").release()

    run(main())


def test_lost_lock_cancels_the_body_before_the_cluster_can_regrant() -> None:
    """Silence cancels the body by the holder's own clock, and becomes LockLost."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster, session_timeout=0.5) as cc:
            loop = asyncio.get_running_loop()
            began = 0.0
            with pytest.raises(LockLost, match="no contact with a majority") as caught:
                async with cc.lock("/l") as held:
                    cluster.deaf = True
                    began = loop.time()
                    await asyncio.sleep(10)
            assert loop.time() - began < 0.5
            assert caught.value.token == held.token
            assert held.lost.is_set()
            with pytest.raises(LockLost):
                held.check()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            cluster.deaf = False
            async with asyncio.timeout(5), cc.lock("/l") as again:
                assert again.token > held.token

    run(main())


def test_a_foreign_cancellation_stays_one() -> None:
    """Cancelling the task from outside is not turned into LockLost, and releases the lock."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            entered = asyncio.Event()

            async def body() -> None:
                async with cc.lock("/l"):
                    entered.set()
                    await asyncio.sleep(10)

            task = asyncio.create_task(body())
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not await cc.lock("/l").locked()
            with pytest.raises(ValueError, match="mine"):
                async with cc.lock("/l"):
                    raise ValueError("mine")
            assert not await cc.lock("/l").locked()

    run(main())


def test_expired_session_loses_its_lock_at_once() -> None:
    """When the cluster says that the session is over, the body is cancelled right away."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            with pytest.raises(LockLost, match="ended it"):
                async with cc.lock("/l"):
                    cluster.expire_all()
                    await asyncio.sleep(5)

    run(main())


@pytest.mark.parametrize("waits", [False, True])
def test_a_claim_whose_session_ended_is_made_again(waits: bool) -> None:
    """Who asked for a lock, or waits for it, when the session ends gets it under the next one."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc, client(cluster) as other:
            if waits:
                await other.lock("/l").acquire()
            else:
                await cc.lock("/l").locked()
                cluster.deaf = True
            before = cc.session.id
            waiting = asyncio.ensure_future(cc.lock("/l").acquire(timeout=5))
            await asyncio.sleep(0.05)
            cluster.expire_all()
            cluster.deaf = False
            held = await waiting
            assert held.token and cc.session.id not in (0, before)
            assert [c.name for c in await cc.lock("/l").waiters()] == []

    run(main())


# -- elections ---------------------------------------------------------------------------------


def test_election_has_one_leader_and_passes_on() -> None:
    """Candidates lead one after the other; changes() shows each of them."""

    async def main() -> None:
        async with fake_cluster() as cluster:
            one_, two_ = client(cluster, name="one"), client(cluster, name="two")
            async with one_ as one, two_ as two:
                seen: list[ElectionEvent] = []

                async def follow() -> None:
                    async for change in one.election("/e").changes():
                        seen.append(change)

                follower = asyncio.create_task(follow())
                await asyncio.sleep(0.05)
                async with one.election("/e") as term:
                    assert await one.election("/e").is_leader(term.token)
                    leader = await two.election("/e").leader()
                    assert leader is not None
                    assert leader.name == "one"

                    async def campaign() -> None:
                        async with two.election("/e"):
                            await asyncio.sleep(0.02)

                    other = asyncio.create_task(campaign())
                    await asyncio.sleep(0.05)
                    assert [c.name for c in await one.election("/e").candidates()] == ["two"]
                await other
                await until(lambda: len(seen) == 3)
                follower.cancel()
                assert [(e.type, e.leader and e.leader.name) for e in seen] == [
                    (EventType.ELECTED, "one"),
                    (EventType.ELECTED, "two"),
                    (EventType.RESIGNED, None),
                ]
                assert not await one.election("/e").is_leader(term.token)

    run(main())


def test_run_campaigns_again_after_a_loss() -> None:
    """``run`` leads again after the session was lost, and returns the body's result."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            tokens: list[int] = []

            async def lead(term: Any) -> str:
                tokens.append(term.token)
                if len(tokens) < 3:
                    cluster.expire_all()
                    await asyncio.sleep(5)
                return "done"

            assert await cc.election("/e").run(lead) == "done"
            assert tokens == sorted(set(tokens))
            assert await cc.election("/e").leader() is None

    run(main())


def test_resigning_cancels_the_leading_task() -> None:
    """Another task's resign ends the term; the leader's body gets LeadershipLost."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            election = cc.election("/e")
            leading = asyncio.Event()

            async def body() -> None:
                async with election:
                    leading.set()
                    await asyncio.sleep(10)

            task = asyncio.create_task(body())
            await leading.wait()
            await election.resign()
            with pytest.raises(LeadershipLost, match="it resigned"):
                await task
            assert await election.leader() is None
            with pytest.raises(MisuseError, match="does not lead"):
                await election.resign()

    run(main())
