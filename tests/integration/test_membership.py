"""Members come and go on real sockets, while a client works and must not notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import copycat
from copycat import MembershipError, MemberType
from copycat.testing.ports import free_ports

PACE: dict[str, Any] = {"election_timeout": 0.4, "heartbeat": 0.1}


class Load:
    """A client that counts without pause; any error of an operation is kept."""

    def __init__(self, addresses: list[str]) -> None:
        self.counted = 0
        self.errors: list[BaseException] = []
        self._addresses = addresses
        self._stop = False

    async def run(self) -> None:
        """Count until `stop`."""
        async with copycat.connect(self._addresses, timeout=15.0) as cc:
            counter = cc.long("/count")
            while not self._stop:
                try:
                    self.counted = await counter.increment()
                except Exception as error:
                    self.errors.append(error)
                    raise
                await asyncio.sleep(0.001)

    async def some(self, count: int = 50) -> None:
        """Wait until it has counted some more."""
        wanted = self.counted + count
        async with asyncio.timeout(20):
            while self.counted < wanted and not self.errors:
                await asyncio.sleep(0.005)
        assert not self.errors

    def stop(self) -> None:
        """The last one."""
        self._stop = True


class Town:
    """Members by name, opened and closed one by one."""

    def __init__(self, count: int, data: Path | None = None) -> None:
        ports = free_ports(count)
        self.where = {f"n{i}": f"127.0.0.1:{port}" for i, port in enumerate(ports, 1)}
        self.open: dict[str, copycat.CopycatServer] = {}
        self._stacks: dict[str, AsyncExitStack] = {}
        self._data = data

    async def start(self, name: str, **settings: Any) -> copycat.CopycatServer:
        """Open a member."""
        if self._data is None:
            settings |= {"storage": "memory"}
        else:
            settings |= {"data": str(self._data / name)}
        stack = AsyncExitStack()
        opening = copycat.open(name, listen=self.where[name], timeout=10.0, **PACE, **settings)
        self.open[name] = await stack.enter_async_context(opening)
        self._stacks[name] = stack
        return self.open[name]

    async def join(self, name: str) -> copycat.CopycatServer:
        """Open one that joins the others."""
        return await self.start(name, join=[self.where["n1"], self.where["n2"]])

    async def stop(self, name: str) -> None:
        """Close a member."""
        del self.open[name]
        await self._stacks.pop(name).aclose()

    async def close(self) -> None:
        """Close all."""
        for name in list(self.open):
            await self.stop(name)


@asynccontextmanager
async def town(count: int, data: Path | None = None) -> AsyncIterator[Town]:
    """Room for so many members."""
    made = Town(count, data)
    try:
        async with asyncio.timeout(60):
            yield made
    finally:
        await made.close()


async def voters(cc: copycat.Copycat, count: int) -> list[str]:
    """The voters, once there are so many."""
    while True:
        members = await cc.cluster.members()
        names = [each.name for each in members if each.type is MemberType.ACTIVE]
        status = await cc.session.admin("status", [])
        if len(status["voters"]) == len(names) == count:
            return names
        await asyncio.sleep(0.02)


def test_one_grows_to_three_and_five_and_shrinks_back() -> None:
    """A lone member takes in four more under load and loses them again, itself included; the
    client counts on without an error and without a gap."""

    async def main() -> None:
        async with town(5) as place:
            await place.start("n1")
            load = Load([place.where["n1"]])
            task = asyncio.create_task(load.run())
            await load.some()
            for count, name in enumerate(("n2", "n3", "n4", "n5"), 2):
                cc = await place.join(name)
                assert len(await voters(cc, count)) == count
                await load.some()
            admin = place.open["n5"]
            assert (await admin.cluster.member("n3")).address.port > 0
            for heir in ("n3", "n1"):
                await admin.cluster.transfer_leadership(heir)
                assert (await admin.session.admin("status", []))["leader"] == heir
            await admin.cluster.remove("n1", timeout=10)
            failed = place.open["n1"].failed
            assert failed is not None
            assert isinstance(await failed, MembershipError)
            await place.stop("n1")
            await load.some()
            for name in ("n2", "n3", "n4"):
                await admin.cluster.remove(name, timeout=10)
                await load.some()
                failed = place.open[name].failed
                assert failed is not None
                assert isinstance(await failed, MembershipError)
                await place.stop(name)
            assert await voters(admin, 1) == ["n5"]
            await load.some()
            load.stop()
            await task
            assert not load.errors
            assert await admin.long("/count").get() == load.counted

    asyncio.run(main())


def test_members_remember_where_they_belong(tmp_path: Path) -> None:
    """Restarted members, founder and joined alike, find one another without asking to join."""

    async def main() -> None:
        async with town(3, tmp_path) as place:
            await place.start("n1")
            await place.join("n2")
            cc = await place.join("n3")
            await voters(cc, 3)
            await cc.map("/m").put("k", 1)
            id_ = cc.cluster.id
            await place.close()
            async with asyncio.TaskGroup() as group:
                for name in ("n2", "n3"):
                    group.create_task(place.join(name))
                group.create_task(place.start("n1"))
            cc = place.open["n2"]
            assert cc.cluster.id == id_
            assert await cc.map("/m").get("k") == 1
            assert sorted(await voters(cc, 3)) == ["n1", "n2", "n3"]

    asyncio.run(main())


def test_a_member_at_another_address_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A member that has joined and comes back elsewhere hears where the others look for it."""

    async def main() -> None:
        async with town(2, tmp_path) as place:
            await place.start("n1")
            await voters(await place.join("n2"), 2)
            await place.stop("n2")
            before = place.where["n2"]
            place.where["n2"] = f"127.0.0.1:{free_ports(1)[0]}"
            lost = asyncio.create_task(place.start("n2"))
            while f"copycat serve --listen {before}" not in caplog.text:
                await asyncio.sleep(0.02)
            lost.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lost

    asyncio.run(main())


def test_a_wiped_member_comes_back_by_joining(tmp_path: Path) -> None:
    """It gets another incarnation and its place again; its old self is refused."""

    async def main() -> None:
        async with town(3, tmp_path) as place:
            await place.start("n1")
            await place.join("n2")
            cc = await place.join("n3")
            await voters(cc, 3)
            before = await cc.cluster.member("n3")
            await place.stop("n3")
            (tmp_path / "n3").rename(tmp_path / "old")
            cc = await place.join("n3")
            assert sorted(await voters(cc, 3)) == ["n1", "n2", "n3"]
            assert (await cc.cluster.member("n3")).uuid != before.uuid
            await place.stop("n3")
            (tmp_path / "n3").rename(tmp_path / "new")
            (tmp_path / "old").rename(tmp_path / "n3")
            with pytest.raises(copycat.WrongClusterError, match="another incarnation"):
                await place.join("n3")

    asyncio.run(main())


def test_a_removed_member_does_not_open_again(tmp_path: Path) -> None:
    """Opened with its old directory it fails at once and says how it can come back."""

    async def main() -> None:
        async with town(3, tmp_path) as place:
            await place.start("n1")
            cc = await place.join("n2")
            gone = await place.join("n3")
            await voters(cc, 3)
            await cc.cluster.remove("n3")
            assert gone.failed is not None
            assert isinstance(await gone.failed, MembershipError)
            await place.stop("n3")
            for _ in range(2):
                with pytest.raises(MembershipError, match="n3") as caught:
                    await place.join("n3")
                assert "join" in caught.value.hint

    asyncio.run(main())


def test_a_place_can_be_kept_for_a_learner() -> None:
    """`add` as PASSIVE: who joins under that name follows, does not vote, and can be promoted."""

    async def main() -> None:
        async with town(2) as place:
            one = await place.start("n1")
            await one.cluster.add("n2", place.where["n2"], type=MemberType.PASSIVE)
            cc = await place.join("n2")
            assert (await cc.cluster.member("n2")).type is MemberType.PASSIVE
            assert await voters(cc, 1) == ["n1"]
            with pytest.raises(MembershipError, match="at least one voter"):
                await cc.cluster.remove("n1")
            await cc.cluster.promote("n2")
            assert await voters(cc, 2) == ["n1", "n2"]
            await cc.cluster.demote("n2")
            assert await voters(cc, 1) == ["n1"]
            assert await cc.cluster.snapshot() > 0
            with pytest.raises(LookupError):
                await cc.cluster.member("n9")

    asyncio.run(main())


def test_a_name_that_is_alive_is_not_taken_over() -> None:
    """Who joins under the name of a member that is there is refused, and says why."""

    async def main() -> None:
        async with town(3) as place:
            await place.start("n1")
            cc = await place.join("n2")
            await voters(cc, 2)
            opening = copycat.open(
                "n2", listen=place.where["n3"], storage="memory", join=[place.where["n1"]], **PACE
            )
            with pytest.raises(MembershipError, match="alive"):
                async with opening:
                    pass
            assert sorted(await voters(cc, 2)) == ["n1", "n2"]

    asyncio.run(main())
