"""Resources of users' own: a machine, and a client half with ordinary methods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import copycat
from copycat import Consistency, Rejected, Resource, StateMachine, command, query, stateful
from copycat.errors import (
    ConfigurationError,
    MisuseError,
    ResourceTypeError,
    SerializationError,
    SessionExpiredError,
    UnknownResourceError,
)

from ..client.fake_server import client, cluster_and_client, fake_cluster
from ..server.loops import run


class Bank(StateMachine):
    """The machine of API.md."""

    moved = copycat.event(tuple[str, str, int])
    strange = copycat.event(int)

    def __init__(self) -> None:
        self.balance: dict[str, int] = {}

    @command
    def transfer(self, src: str, dst: str, amount: int) -> int:
        if self.balance.get(src, 0) < amount:
            raise Rejected(f"{src} has only {self.balance.get(src, 0)}")
        self.balance[src] -= amount
        self.balance[dst] = self.balance.get(dst, 0) + amount
        self.moved.publish((src, dst, amount))
        return self.balance[src]

    @command
    def deliver(self, dst: str, amount: int) -> None:
        self.balance[dst] = self.balance.get(dst, 0) + amount

    @query(consistency=Consistency.SEQUENTIAL)
    def of(self, who: str) -> int:
        return self.balance.get(who, 0)


@stateful(Bank)
class Inventory(Resource[Bank]):
    """A client half."""

    async def fill(self, shelf: str, count: int) -> None:
        """More of it."""
        await self.submit("deliver", shelf, count)

    async def move(self, source: str, target: str, count: int) -> int:
        """From shelf to shelf; what is left."""
        return int(await self.submit("transfer", source, target, count))

    async def count(self, shelf: str, *, consistency: Consistency | None = None) -> int:
        """What is there."""
        return int(await self.query("of", shelf, consistency=consistency))

    async def moves(self) -> AsyncIterator[tuple[str, str, int]]:
        """What is moved from now on."""
        async for move in self.events(Bank.moved):
            yield move


class Plain(Resource[Bank]):
    """Associated by an attribute."""

    machine = Bank


class Homeless(Resource[Bank]):
    """Not associated with any machine."""


class Other(StateMachine):
    """Another machine."""

    happened = copycat.event(int)

    def __init__(self) -> None:
        self.n = 0


def test_methods_submit_and_ask() -> None:
    """A custom resource shares its state with every handle of its machine; errors come through."""

    async def main() -> None:
        async with fake_cluster(machines=[Bank]) as cluster, client(cluster) as cc:
            stock = cc.get("/x", Inventory)
            assert not await cc.exists("/x"), "get does no I/O"
            await stock.fill("a", 5)
            assert await stock.move("a", "b", 2) == 3
            assert await cc.machine("/x", Bank).of("a") == await cc.get("/x", Plain).query(
                "of", "a"
            )
            with pytest.raises(Rejected, match="a has only 3"):
                await stock.move("a", "b", 9)
            for level in Consistency:
                assert await stock.count("b", consistency=level) == 2
                assert await stock.at(consistency=level, timeout=1).count("b") == 2
            assert repr(stock) == f"<Inventory '/x' on {cc.name}>"
            with pytest.raises(SerializationError, match=r"Bank\.deliver\(dst=<function>\)"):
                await stock.fill(run, 1)  # type: ignore[arg-type]
            with pytest.raises(UnknownResourceError, match="Bank has no operation 'steal'"):
                await stock.submit("steal")
            with pytest.raises(ResourceTypeError, match="'Bank'"):
                await cc.long("/x").get()

    run(main())


def test_creating_and_deleting_one() -> None:
    """``create`` makes sure that it is there; deleted, its handle is stale like any other."""

    async def main() -> None:
        async with cluster_and_client(machines=[Bank]) as (_, cc):
            stock = await cc.create("/y/stock", Inventory)
            assert isinstance(stock, Inventory) and await cc.exists("/y/stock")
            info = await cc.node("/y/stock").info()
            assert info is not None and info.type == "Bank"
            await stock.fill("a", 1)
            assert await (await cc.node("/y/stock").create(Inventory)).count("a") == 1
            assert await cc.node("/y").node("stock").get(Inventory).count("a") == 1
            await cc.delete("/y")
            with pytest.raises(UnknownResourceError, match="was deleted"):
                await stock.count("a")

    run(main())


def test_events_of_its_machine() -> None:
    """A client half iterates over them, and ends like every listener."""

    async def main() -> None:
        async with fake_cluster(machines=[Bank]) as cluster, client(cluster) as cc:
            stock = await cc.create("/x", Inventory)
            await stock.fill("a", 9)
            seen: list[tuple[str, str, int]] = []

            async def hear() -> None:
                async for move in stock.moves():
                    seen.append(move)

            task = asyncio.create_task(hear())
            while not len(cluster.applier.system._listening):
                await asyncio.sleep(0.001)
            for count in (1, 2):
                await stock.move("a", "b", count)
            while len(seen) < 2:
                await asyncio.sleep(0.001)
            assert seen == [("a", "b", 1), ("a", "b", 2)]
            cluster.expire_all()
            with pytest.raises(SessionExpiredError):
                await task
            with pytest.raises(MisuseError, match="Bank does not publish 'happened'"):
                await anext(stock.events(Other.happened))

    run(main())


def test_mistakes_are_named_where_they_are_made() -> None:
    """A missing machine, something that is none, a query that is submitted."""

    async def main() -> None:
        async with cluster_and_client(machines=[Bank]) as (_, cc):
            with pytest.raises(ConfigurationError, match="Homeless has no state machine"):
                cc.get("/x", Homeless)
            with pytest.raises(MisuseError, match="Resource class"):
                cc.get("/x", Bank)  # type: ignore[type-var]
            stock = cc.get("/x", Inventory)
            with pytest.raises(MisuseError, match=r"Bank\.of is a query") as caught:
                await stock.submit("of", "a")
            assert "self.query('of', ...)" in caught.value.hint
            with pytest.raises(MisuseError, match=r"Bank\.transfer is a command"):
                await stock.query("transfer", "a", "b", 1)

    run(main())
    with pytest.raises(ConfigurationError, match="StateMachine class, not <class 'int'>"):
        stateful(int)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="decorates Resource classes"):
        stateful(Bank)(Other)
    with pytest.raises(
        ConfigurationError, match="it is a resource: members need its machine, Bank"
    ):
        copycat.open("n1", storage="memory", machines=[Inventory])  # type: ignore[list-item]


def test_a_custom_resource_on_a_real_cluster() -> None:
    """Three members, the leader killed under it."""

    async def main() -> None:
        async with copycat.local_cluster(3, machines=[Bank], heartbeat=0.05) as cluster:
            stock = await cluster.client.create("/stock", Inventory)
            await stock.fill("a", 5)
            await cluster.kill(cluster.leader)
            assert await stock.at(timeout=20).move("a", "b", 4) == 1
            assert await stock.count("b", consistency=Consistency.LINEARIZABLE) == 4

    asyncio.run(main())
