"""Never run, only type-checked: what users write must type under ``mypy --strict``, plugin-free."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_type

import copycat
from copycat import Rejected, sync
from copycat.handles import Copycat
from copycat.machine import StateMachine, command, event, query
from copycat.nodes import Node, NodeInfo, PathEvent
from copycat.resources import (
    AsyncList,
    AsyncLong,
    AsyncMultiMap,
    AsyncQueue,
    AsyncReference,
    AsyncSet,
    AsyncTopic,
    Claim,
    GroupEvent,
    GroupMember,
    MapEvent,
    Membership,
    Outcome,
    Resource,
    SetEvent,
    Taken,
    TopicEvent,
    Transaction,
    ValueEvent,
    stateful,
)
from copycat.scopes import Held
from copycat.types import Consistency, EventType, Mode, SessionState, Versioned


class Bank(StateMachine):
    """A user's machine."""

    moved = event(tuple[str, str, int])

    @command
    def transfer(self, src: str, dst: str, amount: int = 1) -> int:
        self.moved.publish((src, dst, amount))
        self.moved.publish((src, dst))  # type: ignore[arg-type]
        self.commit.schedule(1.0, "transfer", src, dst)
        return amount

    @query(consistency=Consistency.SEQUENTIAL)
    def of(self, who: str) -> int:
        return len(who)

    @query
    def names(self) -> list[str]:
        return []


@stateful(Bank)
class Accounts(Resource[Bank]):
    """A client half of one's own."""

    async def pay(self, who: str) -> int:
        """Pay one."""
        return int(await self.submit("transfer", "house", who))

    async def payments(self) -> AsyncIterator[int]:
        """What is paid."""
        async for src, _, amount in self.events(Bank.moved):
            assert_type(src, str)
            yield amount


async def machines(cc: Copycat) -> None:
    """Handles of machines have the parameters and results of their bodies."""
    bank = cc.machine("/bank", Bank)
    assert_type(await bank.transfer("ann", "bob", 5), int)
    assert_type(await bank.transfer("ann", dst="bob"), int)
    assert_type(await bank.of("ann"), int)
    assert_type(await bank.names(), list[str])
    await bank.transfer("ann", 5)  # type: ignore[arg-type]
    await bank.transfer("ann")  # type: ignore[call-arg]
    _: int = bank.of("ann")  # type: ignore[assignment]  # forgot await
    async for src, dst, amount in bank.moved:
        assert_type(src, str)
        assert_type(dst, str)
        assert_type(amount, int)
    assert_type(cc.get("/x", Accounts), Accounts)
    assert_type(await cc.get("/x", Accounts).pay("bob"), int)
    accounts = cc.get("/x", Accounts).at(consistency=Consistency.SEQUENTIAL, timeout=1)
    assert_type(accounts, Accounts)
    async for amount in accounts.payments():
        assert_type(amount, int)


async def resources(cc: Copycat) -> None:
    """Built-in resources are typed as well."""
    m = cc.map("/m")
    assert_type(await m.get_versioned("k"), Versioned[Any] | None)
    async for change in m.watch(prefix="a"):
        assert_type(change, MapEvent[Any, Any])
    n = cc.long("/n").at(timeout=1.0)
    assert_type(n, AsyncLong)
    assert_type(await n.increment(), int)
    async with cc.lock("/l") as held:
        assert_type(held, Held)
        assert_type(held.token, int)
    assert_type(await cc.lock("/l").holder(), Claim | None)

    async def lead(term: Held) -> str:
        return str(term.token)

    assert_type(await cc.election("/e").run(lead), str)
    async for state in cc.session.watch():
        assert_type(state, SessionState)


async def paths(cc: Copycat) -> None:
    """So are paths, what is known of them, and what becomes of them."""
    node = await cc.create("/p", mode=Mode.EPHEMERAL)
    assert_type(node, Node)
    assert_type(node.parent, Node | None)
    assert_type(await cc.create("/p", AsyncLong), AsyncLong)
    assert_type(await cc.create("/p", Accounts, mode=Mode.EPHEMERAL), Accounts)
    assert_type(await cc.create("/p", Bank), Bank)
    assert_type(await node.create(Bank), Bank)
    assert_type(await node.create(AsyncLong, timeout=1.0), AsyncLong)
    assert_type(node.get(Accounts), Accounts)
    assert_type(await node.info(), NodeInfo | None)
    assert_type(await cc.children("/p", consistency=Consistency.SEQUENTIAL), list[Node])
    assert_type(await node.delete(version=7), bool)
    async for change in cc.listen("/p"):
        assert_type(change, PathEvent)
    async with node.listen() as changes:
        assert_type(await anext(changes), PathEvent)
    cc.get("/p", Bank)  # type: ignore[type-var]
    await cc.create("/p", int)  # type: ignore[type-var]


def lazily(problem: Rejected) -> None:
    """Names that are imported on demand have their types, and misspelt ones are errors."""
    assert_type(problem.hint, str)
    assert_type(copycat.COMPILED, bool)
    _: type[Copycat] = copycat.Copycat
    copycat.opne("n1")  # type: ignore[attr-defined]


async def coordination(cc: Copycat) -> None:
    """Semaphores and the like are typed as well."""
    async with cc.semaphore("/s", 3) as permit, cc.rwlock("/rw").reader as reading:
        assert_type(permit, Held)
        assert_type(reading, Held)
    assert_type(await cc.rwlock("/rw").writer.try_acquire(), Held | None)
    assert_type(await cc.semaphore("/s", 3).at(timeout=1).holders(), list[Claim])
    assert_type(await cc.latch("/l", 3).count_down(), int)
    async with cc.barrier("/b", 2) as position:
        assert_type(position, int)
    jobs: AsyncQueue[str] = cc.queue("/q")
    assert_type(await jobs.get(timeout=2), str)
    async with await jobs.take() as item:
        assert_type(item, Taken[str])
        assert_type(item.value, str)


async def values(cc: Copycat) -> None:
    """Sets, references and the like are typed as well."""
    tags: AsyncSet[str] = cc.set("/tags")
    assert_type(await tags.add("a", ttl=1.5), bool)
    async for change in tags.watch():
        assert_type(change, SetEvent[str])
    pairs: AsyncMultiMap[str, int] = cc.multimap("/pairs")
    assert_type(await pairs.get("k"), set[int])
    assert_type(await pairs.remove("k"), set[int])
    assert_type(await pairs.remove("k", 1), bool)
    lines: AsyncList[str] = cc.list("/lines")
    assert_type(await lines.pop(), str)
    setting: AsyncReference[int] = cc.reference("/setting")
    assert_type(await setting.get(), int | None)
    async for value in cc.boolean("/on").watch():
        assert_type(value, ValueEvent[bool])


class CalmBank(sync.Blocking, Bank):
    """Types the blocking handle."""


class Shares(sync.Resource[Bank]):
    """A blocking client half of one's own."""

    machine = Bank

    def pay(self, who: str) -> int:
        """Pay one."""
        return int(self.submit("transfer", "house", who))


def blocking() -> None:
    """The blocking twins have the types of the originals, without the awaiting."""
    with copycat.sync.connect("127.0.0.1:7401") as cc, sync.local_cluster(3) as cluster:
        assert_type(cc, sync.CopycatClient)
        assert_type(cluster.client, sync.CopycatClient)
        m: sync.Map[str, int] = cc.map("/m")
        assert_type(m.get("k"), int | None)
        assert_type(m.get("k", "none"), int | str)
        m.put("k", "v")  # type: ignore[arg-type]
        for key, value in m.items():
            assert_type(key, str)
            assert_type(value, int)
        for change in m.watch():
            assert_type(change, MapEvent[str, int])
        assert_type(cc.long("/n").at(timeout=1.0).increment(), int)
        with cc.lock("/l") as held, cc.barrier("/b", 2) as position:
            assert_type(held, sync.Held)
            assert_type(held.token, int)
            assert_type(position, int)
        assert_type(cc.lock("/l").try_acquire(timeout=1), sync.Held | None)
        with cc.queue("/q").take() as item:
            assert_type(item, sync.Taken[Any])
        assert_type(cc.election("/e").run(lambda term: str(term.token)), str)
        assert_type(cc.create("/p"), sync.Node)
        assert_type(cc.create("/p", sync.Long), sync.Long)
        assert_type(cc.get("/x", Shares).pay("bob"), int)
        calm = cc.machine("/bank", CalmBank)
        assert_type(calm.transfer("ann", dst="bob"), int)
        calm.transfer("ann", 5)  # type: ignore[arg-type]
        for src, _dst, _amount in calm.moved:
            assert_type(src, str)
        bank = cc.machine("/bank", Bank)
        assert_type(bank, sync.Machine[Bank])
        assert_type(bank.call(Bank.names), list[str])
        bank.call(Bank.of, 5)  # type: ignore[arg-type]


async def company(cc: Copycat) -> None:
    """Topics, groups and transactions are typed as well."""
    news: AsyncTopic[str] = cc.topic("/t")
    assert_type(await news.publish("x", timeout=1), int)
    await news.publish(1)  # type: ignore[arg-type]
    async with news.subscribe() as messages:
        async for message in messages:
            assert_type(message, TopicEvent[str])
            assert_type(message.value, str)
    async with await cc.group("/g").join({"a": 1}) as me:
        assert_type(me, Membership)
        assert_type(me.token, int)
        await me.update({"a": 2})
    assert_type(await cc.group("/g").members(), list[GroupMember])
    async for change in cc.group("/g").watch():
        assert_type(change, GroupEvent)
        assert_type(change.type, EventType)
    async with cc.transaction(timeout=1) as tx:
        assert_type(tx, Transaction)
        paid = tx.machine("/bank", Bank).run(Bank.transfer, "ann", "bob", amount=5)
        tx.machine("/bank", Bank).run(Bank.transfer, "ann", 5)  # type: ignore[arg-type]
        assert_type(tx.long("/n").increment(), Outcome[int])
        tx.map("/m").put("k", await tx.map("/m").get("k", 0))
        tx.queue("/q").put("x")
        tx.lock("/l").expect(me.token)
    assert_type(paid.value, int)
