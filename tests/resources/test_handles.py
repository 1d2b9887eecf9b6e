"""Handles of resources against a fake cluster: what a user sees, and what must not leak."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from copycat._core.codec import Frame
from copycat.errors import (
    CommandFailed,
    ConfigurationError,
    ConflictError,
    DeadlineError,
    LeadershipLost,
    LockLost,
    MisuseError,
    Rejected,
    ResourceTypeError,
    SerializationError,
    SessionExpiredError,
    UnknownResourceError,
)
from copycat.machine import Commit, StateMachine, command, event, query
from copycat.resources import ElectionEvent, MapEvent, Resource, stateful
from copycat.serializer import serializable
from copycat.types import Consistency, EventType, Versioned

from ..client.fake_server import client, cluster_and_client, fake_cluster, until
from ..server.loops import run


@serializable(id=60100)
@dataclass(frozen=True)
class Limits:
    """A user's value type."""

    rps: int
    tags: tuple[str, ...] = ()


class Bank(StateMachine):
    """A user's machine."""

    moved = event(tuple[str, str, int])

    def __init__(self) -> None:
        self.balance: dict[str, int] = {}

    @command
    def transfer(self, src: str, dst: str, amount: int = 1) -> int:
        """Move money."""
        if amount < 0:
            raise Rejected("only forwards")
        if amount > 1000:
            raise KeyError("too much")
        self.balance[src] = self.balance.get(src, 0) - amount
        self.balance[dst] = self.balance.get(dst, 0) + amount
        self.moved.publish((src, dst, amount))
        return self.balance[src]

    @query
    def of(self, who: str) -> int:
        return self.balance.get(who, 0)


class Echo(StateMachine):
    """A machine without fixed operations."""

    def apply(self, commit: Commit) -> object:
        return [commit.operation, *commit.args]


@stateful(Bank)
class Accounts(Resource[Bank]):
    """A user's client half."""

    async def pay(self, who: str) -> int:
        """One unit from the house."""
        return int(await self.submit("transfer", "house", who))


def test_map_operations_end_to_end() -> None:
    """Every operation of AsyncMap does what a dict's would."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            m = cc.map("/m")
            assert await m.put("a", 1) is None
            assert await m.put("a", 2) == 1
            assert await m.put_if_absent("a", 3) == 2
            assert await m.put_if_absent("b", None) is None
            assert await m.get("b", "default") is None
            assert await m.get("zz", "default") == "default"
            assert await m.get("zz") is None
            assert await m.replace("zz", 1) is None
            assert await m.replace("a", 5) == 2
            assert await m.replace_if("a", 5, 6)
            assert not await m.remove_if("a", 5)
            assert await m.contains("b")
            assert await m.contains_value(6)
            await m.update({"c": Limits(5, ("x",)), (1, 2): {3}})
            assert await m.get("c") == Limits(5, ("x",))
            keys = [k async for k in m.keys()]  # noqa: SIM118  # no dict
            assert keys == ["a", "b", "c", (1, 2)]
            assert [v async for v in m.values()] == [6, None, Limits(5, ("x",)), {3}]
            assert [pair async for pair in m.items()].index(("a", 6)) == 0
            assert await m.pop("a") == 6
            assert await m.pop("a", None) is None
            with pytest.raises(KeyError):
                await m.pop("a")
            assert await m.size() == 3
            assert await m.remove("b") is None
            await m.clear()
            assert await m.is_empty()

    run(main())


def test_map_versions_end_to_end() -> None:
    """A conflict brings what stands there."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            m = cc.map("/m")
            version = await m.put_if_version("k", Limits(1), 0)
            assert await m.get_versioned("k") == Versioned(Limits(1), version)
            with pytest.raises(ConflictError) as caught:
                await m.put_if_version("k", Limits(2), 0)
            assert caught.value.current == Versioned(Limits(1), version)
            assert caught.value.applied == "no"
            assert await m.get_versioned("none") is None

    run(main())


def test_map_watch_survives_leader_changes_without_gap_or_repeat() -> None:
    """A watcher sees each matching change once, in order, whatever connections do."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc, client(cluster) as writer:
            seen: list[MapEvent[Any, Any]] = []

            async def watch() -> None:
                async for change in cc.map("/m").watch(prefix="k"):
                    seen.append(change)

            watcher = asyncio.create_task(watch())
            await cc.map("/m").size()
            await asyncio.sleep(0.05)
            m = writer.map("/m")
            for number in range(120):
                await m.put("k", number)
                await m.put("other", number)
                if number % 30 == 10:
                    cluster.mute = {Frame.EVENTS}
                if number % 30 == 15:
                    cluster.mute = set()
                if number % 30 == 20:
                    cluster.members["n1"].drop()
            cluster.elect("n2")
            await m.remove("k")
            await until(lambda: len(seen) == 121)
            assert [change.value for change in seen[:120]] == list(range(120))
            assert seen[120].type is EventType.REMOVE
            assert seen[120].previous == 119
            indexes = [change.index for change in seen]
            assert indexes == sorted(set(indexes))
            watcher.cancel()

    run(main())


def test_watch_says_so_when_changes_may_be_missing() -> None:
    """After the end of the session a watch raises instead of going on with a hole."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            watch = cc.map("/m").watch()
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.05)
            cluster.expire_all()
            with pytest.raises(SessionExpiredError, match="may have been missed"):
                await waiting

    run(main())


def test_user_machine_end_to_end() -> None:
    """Commands, queries, rejections, failures and events of a user's class."""

    async def main() -> None:
        async with cluster_and_client(machines=[Bank, Echo]) as (_, cc):
            bank = cc.machine("/bank", Bank)
            stream = aiter(bank.moved)
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.05)
            assert await bank.transfer("ann", dst="bob", amount=5) == -5
            assert await bank.of("bob") == 5
            assert await first == ("ann", "bob", 5)
            with pytest.raises(Rejected, match="only forwards"):
                await bank.transfer("ann", "bob", -1)
            with pytest.raises(CommandFailed, match="too much") as caught:
                await bank.transfer("ann", "bob", 1001)
            assert caught.value.error_type == "KeyError"
            with pytest.raises(TypeError, match="transfer"):
                await bank.transfer("ann")  # type: ignore[call-arg]
            with pytest.raises(AttributeError, match="it has: of, transfer"):
                await bank.steal()  # type: ignore[attr-defined]
            assert await cc.get("/bank", Accounts).pay("bob") == -1
            assert repr(bank) == f"<Bank '/bank' on {cc.name}>"
            echo: Any = cc.machine("/echo", Echo)
            assert await echo.submit("shout", 1, [2]) == ["shout", 1, [2]]
            assert await echo.query("ask", 3) == ["ask", 3]

    run(main())


def test_bad_arguments_are_named_at_the_call() -> None:
    """What cannot be encoded is refused with operation, parameter and type."""

    async def main() -> None:
        async with cluster_and_client(machines=[Bank]) as (_, cc):
            bank = cc.machine("/bank", Bank)
            with pytest.raises(SerializationError, match=r"Bank\.transfer\(dst=<function>\)"):
                await bank.transfer("ann", run)  # type: ignore[arg-type]
            with pytest.raises(SerializationError, match="a key needs a hash"):
                await cc.map("/m").put([1], 1)

    run(main())


def test_wrong_type_unknown_machine_and_deleted_resource() -> None:
    """A path has one type; a deleted resource's handle fails for good, a new one works."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            number = cc.long("/a/b")
            await number.increment()
            with pytest.raises(ResourceTypeError, match=r"holds a 'copycat\.long'"):
                await cc.map("/a/b").put(1, 2)
            with pytest.raises(UnknownResourceError, match="not registered"):
                await cc.machine("/x", Bank).of("ann")
            assert await cc.delete("/a")
            for _ in range(2):
                with pytest.raises(UnknownResourceError):
                    await number.increment()
            assert await cc.long("/a/b").increment() == 1

    run(main())


def test_paths_and_nodes() -> None:
    """Nodes are created with their ancestors, listed, and deleted with what is beneath."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            node = await cc.create("//a/b/")
            assert node.path == "/a/b"
            assert node.name == "b"
            assert node.parent is not None
            assert await node.parent.children() == [node]
            assert await cc.exists("/a")
            number = await node.node("n").create(type(cc.long("/x")))
            assert await number.increment() == 1
            assert [child.name for child in await node.children()] == ["n"]
            assert await cc.delete("/a")
            assert not await node.exists()
            with pytest.raises(ConfigurationError):
                cc.map("/a/../b")

    run(main())


def test_synchronous_syntax_is_refused_with_the_right_line() -> None:
    """Dict syntax, plain with, and awaiting connect() name what to write instead."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            m, lock = cc.map("/m"), cc.lock("/l")
            with pytest.raises(TypeError, match=r"await m\.put\('k', 1\)"):
                m["k"] = 1
            with pytest.raises(TypeError, match=r"await m\.get\('k'\)"):
                m["k"]
            with pytest.raises(TypeError, match=r"await m\.size\(\)"):
                len(m)
            with pytest.raises(TypeError, match="async for"):
                list(m)
            with pytest.raises(TypeError, match="async with"), lock:
                pass
            with pytest.raises(TypeError, match="async with"):
                await client(cluster)
            assert bool(m)

    run(main())


def test_views_have_their_own_defaults() -> None:
    """``at`` gives a view and leaves the handle alone."""

    async def main() -> None:
        async with cluster_and_client(machines=[Bank]) as (cluster, cc):
            number = cc.long("/n")
            await number.increment()
            quick = number.at(timeout=0.05)
            cluster.mute = {Frame.RESULTS}
            with pytest.raises(DeadlineError, match=r"within 0\.1 s"):
                await quick.increment()
            cluster.mute = set()
            cluster.members["n1"].drop()
            assert await number.increment() == 3
            bank = cc.machine("/bank", Bank)
            assert await bank.at(consistency=Consistency.SERIALIZABLE).of("ann") == 0
            with pytest.raises(AttributeError, match="no operation 'off'"):
                bank.off  # noqa: B018

    run(main())


# -- locks -------------------------------------------------------------------------------------


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
