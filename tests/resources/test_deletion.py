"""Deleting a path ends what depended on it: holders, those in line, watchers, listeners."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

import copycat
from copycat.errors import LeadershipLost, LockLost, UnknownResourceError
from copycat.machine import StateMachine, command, event
from copycat.resources import LockMachine
from copycat.system import DELETED

from ..client.fake_server import client, cluster_and_client, fake_cluster
from ..server.loops import run
from .test_machines import Runner


class Ward(StateMachine):
    """A user's machine that has something to say at its end."""

    last = event(str)

    def __init__(self) -> None:
        self.guests: list[int] = []

    @command
    def enter(self) -> None:
        self.guests.append(self.commit.session)

    def on_delete(self, session: int) -> None:
        self.last.publish("farewell")
        self.commit.dismiss(self.guests)
        raise RuntimeError("never keeps a path from being deleted")


def test_holder_and_line_are_told_once_each() -> None:
    """A deleted lock dismisses every session that holds or waits, once, and nobody is granted."""
    turns = Runner(LockMachine())
    for claim, session in ((b"a", 1), (b"b", 2), (b"c", 3), (b"d", 2)):
        turns("acquire", claim, "me", True, session=session)
    turns.events.clear()
    turns.machine.on_delete(9)
    assert turns.events == [
        ("changed", [], None), (DELETED, None, 1), (DELETED, None, 2), (DELETED, None, 3),
    ]  # fmt: skip


def test_a_deleted_lock_is_lost_and_its_line_fails() -> None:
    """The holder's body is cancelled with LockLost, waiters get UnknownResourceError at once."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            entered = asyncio.Event()
            tokens: list[int] = []

            async def hold() -> None:
                async with one.lock("/a/l") as held:
                    tokens.append(held.token)
                    held.check()
                    entered.set()
                    try:
                        await asyncio.sleep(30)
                    finally:
                        with pytest.raises(LockLost):
                            held.check()

            holder = asyncio.create_task(hold())
            await entered.wait()
            line = [asyncio.create_task(cc.lock("/a/l").acquire()) for cc in (one, two, two)]
            while len(await two.lock("/a/l").waiters()) < 3:
                await asyncio.sleep(0.001)
            assert await two.delete("/a")
            async with asyncio.timeout(2):
                with pytest.raises(LockLost, match="the resource was deleted"):
                    await holder
                for waiter in line:
                    with pytest.raises(
                        UnknownResourceError, match=r"at /a/l \(id \d+\) was deleted"
                    ):
                        await waiter
            async with one.lock("/a/l") as again:
                assert again.token > tokens[0], "fencing tokens rise over a deletion"

    run(main())


def test_a_deleted_election_ends_leader_candidates_and_watchers() -> None:
    """The leader's body ends as LeadershipLost; who watches sees the end, not silence."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            entered = asyncio.Event()
            seen: list[object] = []

            async def lead(_: object) -> None:
                entered.set()
                await asyncio.sleep(30)

            async def watch() -> None:
                async for change in cc.election("/e").changes():
                    seen.append(change.leader)

            async def enter() -> None:
                async with cc.election("/e") as term:
                    await lead(term)

            watcher = asyncio.create_task(watch())
            leader = asyncio.create_task(enter())
            await entered.wait()
            candidate = asyncio.create_task(cc.election("/e").run(lead))
            while not await cc.election("/e").candidates():
                await asyncio.sleep(0.001)
            await cc.delete("/e")
            async with asyncio.timeout(2):
                with pytest.raises(LeadershipLost, match="the resource was deleted"):
                    await leader
                for task in (candidate, watcher):
                    with pytest.raises(UnknownResourceError, match="was deleted"):
                        await task
            assert seen[-1] is None, "that nobody leads any more is the last thing they see"

    run(main())


def test_watches_and_events_of_deleted_resources_end() -> None:
    """A map's watch and a user machine's events end; what the machine said last comes before."""

    async def main() -> None:
        async with cluster_and_client(machines=[Ward]) as (cluster, cc):
            ward = cc.machine("/d/ward", Ward)
            heard: list[Any] = []

            async def collect(events: AsyncIterator[Any]) -> None:
                async for each in events:
                    heard.append(each)

            tasks = [
                asyncio.create_task(collect(cc.map("/d/m").watch())),
                asyncio.create_task(collect(ward.last)),  # type: ignore[arg-type]
            ]
            while len(cluster.applier.system._listening) < 1:
                await asyncio.sleep(0.001)
            while len(heard) < 1:
                await cc.map("/d/m").put("k", 1)
            await cc.delete("/d")
            async with asyncio.timeout(2):
                for task in tasks:
                    with pytest.raises(UnknownResourceError):
                        await task
            assert heard[-1] == "farewell"
            assert not len(cluster.applier.system._listening)
            with pytest.raises(UnknownResourceError):
                await ward.enter()

    run(main())


def test_a_machine_dismisses_whom_it_wants() -> None:
    """A user's ``on_delete`` reaches sessions that wait without listening."""

    async def main() -> None:
        async with cluster_and_client(machines=[Ward]) as (cluster, cc):
            ward = cc.machine("/ward", Ward)
            await ward.enter()
            session = cluster.applier.sessions.get(cc.session.id)
            assert session is not None
            before = session.last_event
            await cc.delete("/ward")
            assert session.last_event > before

    run(main())


def test_a_lock_is_lost_at_once_on_a_real_cluster() -> None:
    """On three members, one client's delete ends another client's lock and the waits for it."""

    async def main() -> None:
        async with (
            copycat.local_cluster(3, election_timeout=0.3, heartbeat=0.05) as cluster,
            cluster.connect() as admin,
        ):
            lock = cluster.client.lock("/l")
            held = await lock.acquire()
            waiter = asyncio.create_task(admin.lock("/l").acquire())
            while not await lock.waiters():
                await asyncio.sleep(0.005)
            await admin.delete("/l")
            async with asyncio.timeout(5):
                await held.lost.wait()
                with pytest.raises(UnknownResourceError):
                    await waiter
            with pytest.raises(LockLost):
                held.check()
            with contextlib.suppress(LockLost):
                await lock.release(held)
            assert (await cluster.client.lock("/l").acquire()).token > held.token

    asyncio.run(main())


def test_what_a_deleted_resource_scheduled_goes_with_it() -> None:
    """Resources that come and go with entries that would end later leave no timers behind."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            for number in range(20):
                await cc.map(f"/m/{number}").put("k", 1, ttl=3600)
                if number % 2:
                    await cc.delete("/m")
            assert cluster.applier.timers == []
            assert cluster.applier._timers_of == {}

    run(main())
