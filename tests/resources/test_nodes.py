"""Paths through handles: created, listed, listened to, gone with a session, deleted, stale."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import copycat
from copycat.errors import (
    ConfigurationError,
    ConflictError,
    MisuseError,
    OverloadedError,
    ResourceTypeError,
    SessionExpiredError,
    UnknownResourceError,
)
from copycat.machine import StateMachine, command
from copycat.nodes import NodeInfo, PathEvent
from copycat.resources import AsyncLong, AsyncMap
from copycat.server import system as system_module
from copycat.server import tree as tree_module
from copycat.types import EventType, Mode

from ..client.fake_server import client, cluster_and_client, fake_cluster
from ..server.loops import run

CREATED, DELETED, OPENED = EventType.CREATED, EventType.DELETED, EventType.OPENED


class Counter(StateMachine):
    """A user's machine."""

    def __init__(self) -> None:
        self.count = 0

    @command
    def up(self) -> int:
        self.count += 1
        return self.count


def told(events: list[PathEvent]) -> list[tuple[str, str]]:
    """Without the indexes."""
    return [(event.type.value, event.path) for event in events]


async def heard(changes: Any, count: int) -> list[PathEvent]:
    """The next ``count`` events."""
    async with asyncio.timeout(5):
        return [await anext(changes) for _ in range(count)]


def test_creating_is_recursive_and_idempotent_and_tells_what_is_there() -> None:
    """Ancestors come with a path, a second time changes nothing, and info has it all."""

    async def main() -> None:
        async with cluster_and_client(machines=[Counter]) as (_, cc):
            node = await cc.create("//a/b/c/")
            first = await node.info()
            assert first is not None
            assert (
                first == NodeInfo("/a/b/c", first.version, first.created_at, 0, 0, "", 0)
                and first.mode is Mode.PERSISTENT
                and first.created_at > 0
            )
            assert await cc.create("/a/b/c") == node
            assert await node.info() == first
            above = await cc.node("/a").info()
            assert above is not None and (above.version, above.children) == (first.version, 1)
            counter = await cc.create("/a/b/c", Counter)
            assert await counter.up() == 1
            with_resource = await node.info()
            assert with_resource is not None and with_resource.type == "Counter"
            assert with_resource.version == first.version < with_resource.resource
            assert await cc.node("/nothing").info() is None
            assert await cc.children("/nothing") == []
            assert not await cc.delete("/nothing")
            again = await node.create(AsyncLong) if await node.delete() else None
            assert again is not None and await again.increment() == 1
            later = await node.info()
            assert later is not None and later.version > first.version

    run(main())


def test_children_have_full_paths_in_order_of_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many of them come in several answers, none twice, and the root has children as well."""
    monkeypatch.setattr(tree_module, "PAGE_BYTES", 100)

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            names = [f"{number * 7 % 50:02}" for number in range(50)]
            for name in names:
                await cc.create(f"/many/{name}/below")
            found = await cc.children("/many/")
            assert [each.path for each in found] == [f"/many/{name}" for name in names]
            assert [each.path for each in await found[3].children()] == [f"{found[3].path}/below"]
            assert [each.path for each in await cc.node("/").children()] == ["/many"]
            assert [each.name for each in await cc.children("/many/00")] == ["below"]

    run(main())


def test_what_is_no_path_or_no_type_is_refused_at_once() -> None:
    """Errors name the path, the limit, or the class, before anything is sent (H96)."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            for wrong in ("/a/../b", "/" + "x" * 1100, "/x" * 65, "/a\0b", 7):
                with pytest.raises(ConfigurationError):
                    cc.node(wrong)  # type: ignore[arg-type]
                with pytest.raises(ConfigurationError):
                    cc.listen(wrong)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="'..'"):
                cc.node("/a").node("../b")
            for no_type in (int, "map", AsyncLong(cc._access, "/x")):
                with pytest.raises(MisuseError, match="Resource class"):
                    await cc.create("/a", no_type)  # type: ignore[call-overload]
            with pytest.raises(ConfigurationError, match="mode"):
                await cc.create("/a", mode=3)  # type: ignore[call-overload]
            assert not await cc.exists("/a")

    run(main())


def test_an_ephemeral_path_goes_with_its_session() -> None:
    """Also with the resource there, when the client closes or when its session expires."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as watcher:
            async with client(cluster) as one, watcher.listen("/workers") as changes:
                node = await one.create("/workers/w1", mode=Mode.EPHEMERAL)
                settings = await one.create("/workers/w2", AsyncMap, mode=Mode.EPHEMERAL)
                await settings.put("k", 1)
                there = await watcher.node("/workers/w1").info()
                assert there is not None and there.mode is Mode.EPHEMERAL
                assert there.owner == one.session.id
                assert await one.create("/workers/w1", mode=Mode.EPHEMERAL) == node
                assert await watcher.map("/workers/w2").get("k") == 1
                await one.close()
                assert told(await heard(changes, 6)) == [
                    ("created", "/workers"), ("created", "/workers/w1"),
                    ("created", "/workers/w2"), ("opened", "/workers/w2"),
                    ("deleted", "/workers/w1"), ("deleted", "/workers/w2"),
                ]  # fmt: skip
            assert await watcher.children("/workers") == [] and await watcher.exists("/workers")
            mine = await watcher.create("/workers/w3", mode=Mode.EPHEMERAL)
            before = watcher.session.id
            cluster.expire_all()
            while watcher.session.id in (0, before):
                await asyncio.sleep(0.005)
            assert not await mine.exists()

    run(main())


def test_ephemeral_paths_have_no_children_and_one_owner() -> None:
    """What cannot be both ways is a conflict that names the session, and changes nothing."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            await one.create("/e", mode=Mode.EPHEMERAL)
            await one.create("/p")
            owner = one.session.id
            for attempt in (
                one.create("/e/below/it"), one.create("/e/below", AsyncLong),
                one.long("/e/below").get(), one.create("/e"), one.create("/e", AsyncLong),
                two.create("/e", mode=Mode.EPHEMERAL),
                two.create("/e", AsyncLong, mode=Mode.EPHEMERAL),
            ):  # fmt: skip
                with pytest.raises(ConflictError, match=f"ephemeral, of session {owner}") as caught:
                    await attempt
                assert caught.value.current == owner and caught.value.applied == "no"
            for path in ("/p", "/"):
                with pytest.raises(ConflictError, match="persistent") as caught:
                    await one.create(path, mode=Mode.EPHEMERAL)
                assert caught.value.current == 0
            assert await one.children("/e") == []
            assert await two.long("/e").increment() == 1, "anybody may use what is there"
            assert len(cluster.applier.executor._instances) == 1
            assert await two.delete("/e"), "and delete it"
            await two.create("/e/below")

    run(main())


def test_ephemeral_paths_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session has so many, and may have another one when one of them is gone."""
    monkeypatch.setattr(system_module, "OWNED_MAX", 2)

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            for name in "ab":
                await cc.create(f"/{name}", mode=Mode.EPHEMERAL)
            for _ in range(2):
                with pytest.raises(OverloadedError, match="2 ephemeral paths, its limit"):
                    await cc.create("/c", AsyncLong, mode=Mode.EPHEMERAL)
            await cc.create("/a", mode=Mode.EPHEMERAL)
            await cc.delete("/a")
            await cc.create("/c", AsyncLong, mode=Mode.EPHEMERAL)

    run(main())


def test_deleting_by_version() -> None:
    """Only the path that was meant is deleted, not the one that was created in its place."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            node = await cc.create("/a")
            info = await node.info()
            assert info is not None
            with pytest.raises(ConflictError, match="has the version") as caught:
                await node.delete(version=info.version + 1)
            assert caught.value.current == info.version
            assert await node.delete(version=info.version)
            with pytest.raises(ConflictError, match="not there") as caught:
                await node.delete(version=info.version)
            assert caught.value.current is None

    run(main())


def test_listeners_hear_what_becomes_of_a_path_and_its_children() -> None:
    """In log order, of paths that do not exist yet as well, and not of what is further down."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            async with one.listen("/a") as changes, one.listen("/a/b") as below:
                await two.create("/a/b/c/d")
                await two.long("/a/n").increment()
                await two.create("/other")
                await two.delete("/a/b")
                await two.delete("/a")
                await two.create("/a")
                seen = await heard(changes, 7)
                assert told(seen) == [
                    ("created", "/a"), ("created", "/a/b"), ("created", "/a/n"), ("opened", "/a/n"),
                    ("deleted", "/a/b"), ("deleted", "/a/n"), ("deleted", "/a"),
                ]  # fmt: skip
                assert [event.index for event in seen] == sorted(event.index for event in seen)
                assert told(await heard(changes, 1)) == [("created", "/a")]
                assert told(await heard(below, 4)) == [
                    ("created", "/a/b"), ("created", "/a/b/c"),
                    ("deleted", "/a/b/c"), ("deleted", "/a/b"),
                ]  # fmt: skip
            async with asyncio.timeout(5):
                while len(cluster.applier.system._listening):
                    await asyncio.sleep(0.005)

    run(main())


def test_listening_ends_with_the_loop_that_is_left() -> None:
    """Whoever breaks out of the iteration listens no more, without another word."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):

            async def first() -> PathEvent:
                async for event in cc.listen("/a"):
                    return event
                raise AssertionError

            task = asyncio.create_task(first())
            while not len(cluster.applier.system._listening):
                await asyncio.sleep(0.001)
            await cc.create("/a")
            assert (await task).type is CREATED
            async with asyncio.timeout(5):
                while len(cluster.applier.system._listening):
                    await asyncio.sleep(0.005)

    run(main())


def test_listeners_miss_nothing_across_connections_and_say_so_after_a_session() -> None:
    """Broken connections leave no gap; the end of the session does, and is an error."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            async with one.listen("/") as changes:
                for number in range(30):
                    await two.create(f"/{number}")
                    if number % 5 == 0:
                        cluster.members["n1"].drop()
                assert [e.path for e in await heard(changes, 30)] == [f"/{n}" for n in range(30)]
                cluster.expire_all()
                with pytest.raises(SessionExpiredError, match="may have been missed"):
                    await heard(changes, 1)
            async with one.listen("/") as changes:
                await two.create("/new")
                assert told(await heard(changes, 1)) == [("created", "/new")]

    run(main())


def test_a_stale_handle_says_whether_there_is_another_resource_now() -> None:
    """Deleted, and deleted and created anew, are told apart; a new handle
    works (H54)."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            number = one.long("/a/n")
            await number.increment()
            old = number._resource
            await two.delete("/a")
            with pytest.raises(UnknownResourceError, match=r"at /a/n \(id \d+\) was del") as caught:
                await number.increment()
            assert caught.value.current is None and caught.value.applied == "no"
            await two.create("/a/n")
            with pytest.raises(UnknownResourceError, match=r"was deleted\n"):
                await number.get()
            await two.map("/a/n").put("k", 1)
            for attempt in (number.increment, number.get, number.at(timeout=1).get):
                with pytest.raises(
                    UnknownResourceError, match="another one .* 'copycat.map'"
                ) as caught:
                    await attempt()
                assert caught.value.current is not None and caught.value.current > old
            with pytest.raises(ResourceTypeError, match=r"holds a 'copycat\.map'"):
                await one.long("/a/n").get()
            assert await one.map("/a/n").get("k") == 1

    run(main())


def test_a_handle_that_was_never_used_is_not_stale() -> None:
    """What another handle had opened long ago does not matter to a new one."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            await one.long("/n").set(5)
            await two.delete("/n")
            assert await one.long("/n").get() == 0
            await two.delete("/n")
            assert await (await one.create("/n", AsyncLong)).increment() == 1
            await two.delete("/n")
            await one.long("/n").open()
            assert await two.exists("/n")
            async with one.lock("/l"):
                pass
            await two.delete("/l")
            async with asyncio.timeout(5), one.lock("/l") as held:
                assert held.token
            await one.map("/m").put("k", 1)
            await two.delete("/m")

            async def watch() -> Any:
                async for change in one.map("/m").watch():
                    return change.value
                raise AssertionError

            task = asyncio.create_task(watch())
            while not task.done():
                await two.map("/m").put("k", 2)
            assert await task == 2

    run(main())


def test_paths_on_a_real_cluster_outlive_its_leader() -> None:
    """An ephemeral path and a listener survive a new leader, and the path goes at the end."""

    async def main() -> None:
        async with (
            copycat.local_cluster(3, election_timeout=0.3, heartbeat=0.05) as cluster,
            cluster.client.listen("/here") as changes,
        ):
            async with cluster.connect() as other:
                await other.create("/here/it", mode=Mode.EPHEMERAL)
                await cluster.kill(cluster.leader)
                assert await cluster.client.exists("/here/it", timeout=10)
                await other.create("/here/too", timeout=10)
            assert told(await heard(changes, 4)) == [
                ("created", "/here"), ("created", "/here/it"), ("created", "/here/too"),
                ("deleted", "/here/it"),
            ]  # fmt: skip

    asyncio.run(main())
