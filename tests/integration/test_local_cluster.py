"""The public API on real sockets: three members in one process that are killed and cut apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import copycat
from copycat.network import RealNetwork
from copycat.ports import Random
from copycat.testing.direct import Direct
from copycat.testing.local_cluster import LocalCluster


class Bank(copycat.StateMachine):
    """A user's machine."""

    moved = copycat.event(list[object])

    def __init__(self) -> None:
        self.balance: dict[str, int] = {}

    @copycat.command
    def deposit(self, who: str, amount: int) -> int:
        if amount <= 0:
            raise copycat.Rejected("deposits are positive")
        self.balance[who] = self.balance.get(who, 0) + amount
        self.moved.publish([who, amount])
        return self.balance[who]

    @copycat.query(consistency=copycat.Consistency.SERIALIZABLE)
    def of(self, who: str) -> int:
        return self.balance.get(who, 0)


@asynccontextmanager
async def cluster_of(size: int = 3, **settings: object) -> AsyncIterator[LocalCluster]:
    """A fast-paced cluster with the bank."""
    pace = {"election_timeout": 0.3, "heartbeat": 0.05, "session_timeout": 1.0, **settings}
    async with copycat.local_cluster(size, machines=[Bank], **pace) as cluster:
        yield cluster


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Wait for a condition, or fail."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


def test_writes_survive_the_leader() -> None:
    """Increments under way while leaders are killed count exactly once, in order."""

    async def story() -> None:
        async with cluster_of() as cluster:
            counter = cluster.client.long("/n")
            results: list[int] = []

            async def count() -> None:
                for _ in range(600):
                    results.append(await counter.increment())

            workers = [asyncio.create_task(count()) for _ in range(4)]
            for done in (300, 900, 1500):
                await until(lambda done=done: len(results) >= done)
                victim = cluster.leader
                await cluster.kill(victim)
                await until(lambda victim=victim: cluster.leader not in (None, victim))
                await cluster.restart(str(victim))
            await asyncio.gather(*workers)
            assert sorted(results) == list(range(1, 2401))
            assert await counter.get() == 2400

    asyncio.run(story())


def test_a_users_machine_with_events() -> None:
    """Commands, queries, rejections and events of a user's class, across a leader change."""

    async def story() -> None:
        async with cluster_of() as cluster:
            bank = cluster.client.machine("/bank", Bank)
            seen: list[object] = []

            async def listen() -> None:
                async for event in bank.moved:
                    seen.append(event)

            listener = asyncio.create_task(listen())
            assert await bank.deposit("ann", 5) == 5
            await until(lambda: True)
            with pytest.raises(copycat.Rejected, match="positive"):
                await bank.deposit("ann", -1)
            await bank.deposit("probe", 1)
            await until(lambda: bool(seen))
            known = len(seen)
            await cluster.kill(cluster.leader)
            for amount in range(1, 51):
                await bank.deposit("bob", amount)
            await until(lambda: len(seen) >= known + 50)
            assert seen[known:] == [["bob", amount] for amount in range(1, 51)]
            assert await bank.of("bob") == 1275
            listener.cancel()

    asyncio.run(story())


def test_an_isolated_leader_serves_nobody() -> None:
    """Behind a partition the old leader acknowledges nothing; the majority goes on (H27, H74)."""

    async def story() -> None:
        async with cluster_of() as cluster:
            m = cluster.client.map("/m")
            await m.put("k", "before")
            old = str(cluster.leader)
            others = [name for name in cluster.names if name != old]
            async with cluster.connect(only=[old], timeout=1.0) as stranded:
                cluster.partition([old], others)
                await until(lambda: cluster.leader not in (None, old))
                await m.put("k", "after")
                assert await m.get("k") == "after"
                member = cluster.members[old].member
                assert member is not None
                await until(lambda: not member.leading)
                # A client that only knew the old leader has learned of the others from it.
                assert await stranded.map("/m").get("k", timeout=5.0) == "after"
                cluster.heal()
                applied = cluster.members[str(cluster.leader)].status()["applied_index"]
                await until(
                    lambda: int(str(member.status()["applied_index"])) >= int(str(applied))
                )

    asyncio.run(story())


def test_without_a_majority_errors_name_the_missing() -> None:
    """With one of three alive a write fails in time, says why, and says that it did not happen."""

    async def story() -> None:
        async with cluster_of() as cluster:
            m = cluster.client.map("/m")
            await m.put("k", 1)
            for name in ("n1", "n2"):
                await cluster.kill(name)
            began = asyncio.get_running_loop().time()
            with pytest.raises(copycat.CopycatError) as caught:
                await m.put("k", 2, timeout=1.0)
            assert asyncio.get_running_loop().time() - began < 2.0
            assert isinstance(caught.value, copycat.UnavailableError | copycat.DeadlineError)
            await cluster.restart("n1")
            assert await m.get("k") in (1, 2)

    asyncio.run(story())


def test_locks_pass_from_a_lost_session_to_the_next() -> None:
    """A holder that vanishes loses the lock when its session ends; tokens rise (H42)."""

    async def story() -> None:
        async with cluster_of() as cluster:
            lock = cluster.client.lock("/l")
            async with cluster.connect(session_timeout=1.0) as other:
                held = await other.lock("/l").acquire()
                assert (await lock.holder()) is not None
                waiting = asyncio.create_task(lock.acquire())
                await until(lambda: True)
                await other.session._route.close()  # the process is gone: no farewell
                async with asyncio.timeout(10):
                    mine = await waiting
                assert mine.token > held.token
                await lock.release()
                await cluster.kill(cluster.leader)
                async with lock as again:
                    assert again.token > mine.token

    asyncio.run(story())


def test_a_leadership_ends_its_body_when_the_cluster_is_gone() -> None:
    """A leader that cannot reach the cluster is told before anybody else can lead."""

    async def story() -> None:
        async with cluster_of() as cluster:
            election = cluster.client.election("/e")
            with pytest.raises(copycat.LeadershipLost):
                async with election as term:
                    assert term.token > 0
                    for name in cluster.names:
                        await cluster.kill(name)
                    await asyncio.sleep(10)

    asyncio.run(story())


def test_everything_is_there_after_all_members_restart(tmp_path: Path) -> None:
    """A cluster on disk that stops whole comes back whole, with session and locks."""

    async def story() -> None:
        async with cluster_of(data=tmp_path, segment_bytes=64 << 10) as cluster:
            m = cluster.client.map("/m")
            await asyncio.gather(*(m.put(f"k{i}", "x" * 200) for i in range(2000)))
            for name in cluster.names:
                await cluster.kill(name)
            for name in cluster.names:
                await cluster.restart(name)
            assert await m.size() == 2000
            await m.put("k0", "y")
            assert await m.get("k0") == "y"

    asyncio.run(story())


def test_a_late_member_gets_a_snapshot(tmp_path: Path) -> None:
    """When the log was cut meanwhile, a returning member is brought up by a snapshot."""

    async def story() -> None:
        async with cluster_of(
            data=tmp_path, segment_bytes=64 << 10, snapshot_bytes=128 << 10
        ) as cluster:
            m = cluster.client.map("/m")
            await m.put("first", 1)
            away = next(name for name in cluster.names if name != cluster.leader)
            await cluster.kill(away)
            for _ in range(8):
                await asyncio.gather(*(m.put(f"k{i}", "x" * 500) for i in range(200)))
            leader = cluster.members[str(cluster.leader)]
            await until(lambda: int(str(leader.status()["first_index"])) > 10)
            await cluster.restart(away)
            target = int(str(leader.status()["last_index"]))
            await until(
                lambda: int(str(cluster.members[away].status()["applied_index"])) >= target
            )
            async with cluster.connect(only=[away]) as near:
                found = await near.map("/m").get(
                    "first", consistency=copycat.Consistency.SERIALIZABLE
                )
                assert found == 1

    asyncio.run(story())


def test_reads_by_a_lease_survive_their_leader() -> None:
    """They see every write, also the next leader's, which comes when the promises have run out."""

    async def story() -> None:
        async with copycat.local_cluster(3, election_timeout=0.4, heartbeat=0.1) as cluster:
            m = cluster.client.map("/m")
            quick = m.at(consistency=copycat.Consistency.LINEARIZABLE_LEASE)
            for number in range(20):
                await m.put("k", number)
                assert await quick.get("k") == number
            before = time.monotonic()
            await cluster.kill(cluster.leader)
            await m.put("k", 20)
            assert time.monotonic() - before > 0.2
            assert await quick.get("k") == 20

    asyncio.run(story())


def test_every_member_answers_linearizable_queries() -> None:
    """Whoever is asked, over real sockets, knows what was acknowledged a moment ago (H27)."""

    async def story() -> None:
        async with cluster_of() as cluster:
            counter = await cluster.client.long("/n").open()
            opened = await counter._ready()
            members = {name: Direct(RealNetwork(), Random(1)) for name in cluster.names}
            for name, direct in members.items():
                await direct.connect(cluster.addresses[name])
            for value in range(1, 31):
                await counter.increment()
                for name, direct in members.items():
                    answer, seen = await direct.ask(
                        opened.resource, opened.ids["get"], [],
                        copycat.Consistency.LINEARIZABLE, 0,
                    )  # fmt: skip
                    assert answer == value, name
                    assert seen >= cluster.client.session.index
            await cluster.kill(cluster.leader)
            await counter.increment()
            for name in cluster.members:
                direct = members[name]
                ask = direct.ask(
                    opened.resource, opened.ids["get"], [], copycat.Consistency.LINEARIZABLE, 0
                )
                assert (await ask)[0] == 31
            for direct in members.values():
                direct.close()

    asyncio.run(story())


def test_one_lone_member_is_a_cluster(tmp_path: Path) -> None:
    """With nothing but a directory there is a durable cluster of one, again after a restart."""

    async def story() -> None:
        for expected in (None, 1, 2):
            async with copycat.open(data=str(tmp_path / "d")) as cc:
                m = cc.map("/m")
                assert await m.put("k", (expected or 0) + 1) == expected

    asyncio.run(story())


def test_misuse_says_what_to_write_instead() -> None:
    """Forgetting ``async with`` names the right line."""

    async def story() -> None:
        for misused in (copycat.local_cluster(3), copycat.connect("127.0.0.1:1")):
            with pytest.raises(TypeError, match="async with"):
                await misused  # type: ignore[misc]
        with pytest.raises(copycat.ConfigurationError):
            copycat.local_cluster(0)
        with pytest.raises(copycat.ConfigurationError, match="99999"):
            copycat.connect("127.0.0.1:99999")

    asyncio.run(story())


def test_a_cluster_of_one_grows_and_replaces_its_founder() -> None:
    """Members are added while it works; the first one leaves; killed ones come back; nothing of
    what was counted is lost."""

    async def story() -> None:
        async with cluster_of(1) as cluster:
            counter = cluster.client.long("/n")
            await counter.increment(10)
            assert [await cluster.add(), await cluster.add()] == ["n2", "n3"]
            members = cluster.client.cluster
            assert {each.name for each in await members.members()} == {"n1", "n2", "n3"}
            await members.remove("n1", timeout=10)
            failed = cluster.members["n1"].failed
            async with asyncio.timeout(10):
                assert failed is None or isinstance(await failed, copycat.MembershipError)
            await cluster.stop("n1")
            with pytest.raises(copycat.MisuseError, match="n1 does not run"):
                await cluster.stop("n1")
            assert await counter.increment() == 11
            await cluster.kill("n2")
            await cluster.restart("n2")
            await until(lambda: cluster.leader is not None)
            cluster.partition({"n2"}, {"n3"})
            cluster.heal()
            assert await cluster.add() == "n4"
            assert await counter.increment() == 12

    asyncio.run(story())


def test_who_cannot_join_in_time_is_reported() -> None:
    """Without a majority nobody is added, and the error says so."""

    async def story() -> None:
        async with cluster_of(3) as cluster:
            await cluster.kill("n1")
            await cluster.kill("n2")
            with pytest.raises(copycat.DeadlineError, match="n4 does not vote after 1 s"):
                await cluster.add(timeout=1.0)

    asyncio.run(story())
