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
    Rejected,
    ResourceTypeError,
    SerializationError,
    SessionExpiredError,
    UnknownResourceError,
)
from copycat.machine import Commit, StateMachine, command, event, query
from copycat.resources import MapEvent, Resource, stateful
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
