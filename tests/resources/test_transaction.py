"""Transactions as callers write them: scopes, outcomes, conflicts, and what goes wrong between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import copycat
from copycat._core.codec import Frame
from copycat.errors import (
    CommandFailed,
    ConflictError,
    DeadlineError,
    MisuseError,
    OutcomeUnknownError,
    OverloadedError,
    Rejected,
    ResourceTypeError,
    SerializationError,
    UnknownResourceError,
)
from copycat.machine import StateMachine, command, query
from copycat.resources import AsyncMap, LongMachine, MapMachine
from copycat.resources import queue as queue_module
from copycat.serializer import serializable
from copycat.types import Versioned

from ..client.fake_server import FakeCluster, client, cluster_and_client, fake_cluster, until
from ..server.loops import run


@serializable(id=9_007)
class Coin(copycat.Writable):
    """A type of the user."""

    def __init__(self, worth: int = 0) -> None:
        self.worth = worth

    def write_object(self, buffer: Any, serializer: Any) -> None:
        buffer.write(self.worth)

    def read_object(self, buffer: Any, serializer: Any) -> None:
        self.worth = buffer.read()


class Bank(StateMachine):
    """A user's machine: ``pay`` may say no."""

    def __init__(self) -> None:
        self.total = 10

    @command
    def pay(self, amount: int, tip: int = 0) -> Coin:
        if amount + tip > self.total:
            raise Rejected(f"only {self.total}")
        self.total -= amount + tip
        return Coin(amount)

    @command(check=lambda _, coin, times: coin.worth * times)
    def deposit(self, coin: Coin, times: int = 1) -> int:
        self.total += coin.worth * times
        return self.total

    @query
    def left(self) -> int:
        return self.total


def number_in(cluster: FakeCluster) -> int:
    """The integer at /n, as the cluster has it."""
    found = [each for each in cluster.applier.executor.instances() if each.path == "/n"]
    return vars(found[0].machine)["value"] if found else 0


def test_all_is_done_in_one_step_and_told() -> None:
    """Others see all or nothing of it, at one index; outcomes have what each operation returned."""

    async def main() -> None:
        async with cluster_and_client(machines=[Bank]) as (_, cc), asyncio.timeout(5):
            await cc.map("/m").update({"a": 1, "b": 2})
            async with cc.topic("/t").subscribe() as heard, cc.transaction() as tx:
                paid = tx.machine("/bank", Bank).run(Bank.pay, 3, tip=1)
                back = tx.machine("/bank", Bank).run(Bank.deposit, Coin(2))
                before = tx.map("/m").put("a", 10)
                gone, none = tx.map("/m").remove("b"), tx.map("/m").remove("c")
                tx.map("/m").update({"d": 4, "e": [5]})
                number = tx.long("/n").increment(5)
                set_ = tx.long("/n").set(7)
                told = tx.topic("/t").publish("paid")
                tx.queue("/q").put("ship")
                with pytest.raises(MisuseError, match="is not committed"):
                    assert paid.value
                assert await cc.map("/m").get("a") == 1
                await tx.commit()
                assert (paid.value.worth, back.value, before.value) == (3, 8, 1)
                assert (gone.value, none.value) == ([2], [])
                assert (number.value, set_.value, told.value) == (5, 5, 1)
                index = (await anext(heard)).index
            assert [pair async for pair in cc.map("/m").items()] == [
                ("a", 10), ("d", 4), ("e", [5]),
            ]  # fmt: skip
            assert await cc.map("/m").get_versioned("d") == Versioned(4, index)
            assert await cc.queue("/q").get() == "ship"
            assert await cc.long("/n").get() == 7
            assert await cc.machine("/bank", Bank).left() == 8

    run(main())


def test_what_was_read_must_not_have_changed() -> None:
    """A write in between is a conflict that shows what stands there, and nothing is done."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            accounts: AsyncMap[str, int] = one.map("/a")
            await accounts.put("ann", 5)
            for attempt, other in enumerate((6, None, 8)):
                with pytest.raises(ConflictError, match="'/a': the entry has version") as caught:
                    async with one.transaction() as tx:
                        ann = await tx.map("/a").get("ann", 0)
                        assert await tx.map("/a").get("bob", "nobody") == "nobody"
                        if other is None:
                            await two.map("/a").remove("ann")
                        else:
                            await two.map("/a").put("ann", other)
                        tx.map("/a").put("bob", ann)
                        tx.long("/n").increment()
                there = await accounts.get_versioned("ann")
                assert caught.value.current == there
                assert (there is None) is (other is None), attempt
            with pytest.raises(ConflictError, match="'/n': the value is 1, not 0") as caught:
                async with one.transaction() as tx:
                    assert await tx.long("/n").get() == 0
                    await two.long("/n").increment()
                    tx.map("/a").clear()
            assert caught.value.current == 1
            assert await accounts.size() == 1
            with pytest.raises(ConflictError) as caught:
                async with one.transaction() as tx:
                    tx.map("/a").run(MapMachine.put_if_version, "ann", 5, 0)
            assert caught.value.current == await accounts.get_versioned("ann")
            async with one.transaction() as tx:
                tx.map("/a").expect_absent("bob")
                tx.map("/a").put("bob", await tx.map("/a").get("ann"))
                assert await tx.long("/n").get() == 1
            assert await accounts.get("bob") == 8

    run(main())


def test_a_fencing_token_guards_what_is_written() -> None:
    """Whoever lost its lock or its leadership since changes nothing with the token it had."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            lock, election = cc.lock("/l"), cc.election("/e")
            async with lock as held, election as term, cc.transaction() as tx:
                tx.lock("/l").expect(held.token)
                tx.election("/e").expect(term.token)
                tx.long("/n").increment()
            for token, part in ((held.token, "lock"), (term.token, "election")):
                with pytest.raises(ConflictError, match="nobody holds it") as caught:
                    async with cc.transaction() as tx:
                        getattr(tx, part)("/l" if part == "lock" else "/e").expect(token)
                        tx.long("/n").increment()
                assert caught.value.current == []
            assert await cc.long("/n").get() == 1

    run(main())


def test_what_the_first_operation_says_counts_for_all() -> None:
    """Its no is the transaction's; a failure is told with the place where it arose."""

    async def main() -> None:
        async with cluster_and_client(machines=[Bank]) as (_, cc):
            with pytest.raises(Rejected, match="only 10") as caught:
                async with cc.transaction() as tx:
                    tx.machine("/bank", Bank).run(Bank.pay, 11)
                    tx.long("/n").increment()
            assert "in a transaction, at 'pay' of '/bank'" in caught.value.__notes__
            with pytest.raises(CommandFailed, match="AttributeError"):
                async with cc.transaction() as tx:
                    tx.long("/n").increment()
                    tx.machine("/bank", Bank).run(Bank.deposit, 5)  # type: ignore[arg-type]
            with pytest.raises(Rejected, match="an integer is needed"):
                async with cc.transaction() as tx:
                    tx.queue("/q").put(1)
                    tx.long("/n").increment("5")  # type: ignore[arg-type]
            assert (await cc.long("/n").get(), await cc.queue("/q").size()) == (0, 0)

    run(main())


def test_misuse_is_told_at_the_line() -> None:
    """Before anything is sent: what may fail and is not in front, too much, twice, no command."""

    async def main() -> None:
        async with cluster_and_client(machines=[Bank]) as (_, cc):
            async with cc.transaction() as tx:
                bank = tx.machine("/bank", Bank)
                tx.long("/n").increment()
                with pytest.raises(MisuseError, match="Bank.pay may fail") as caught:
                    bank.run(Bank.pay, 1)
                assert "give it a check" in caught.value.hint
                with pytest.raises(MisuseError, match="has no command 'left'"):
                    bank.run(Bank.left)
                with pytest.raises(MisuseError, match="has no command 'pay'"):
                    tx.machine("/n", LongMachine).run(Bank.pay, 1)
                with pytest.raises(TypeError, match="deposit"):
                    bank.run(Bank.deposit)  # type: ignore[call-arg]
                with pytest.raises(SerializationError):
                    tx.map("/m").put("x", object())
                for _ in range(127):
                    tx.long("/n").increment()
                with pytest.raises(MisuseError, match="at most 128"):
                    tx.long("/n").increment()
            assert await cc.long("/n").get() == 128
            for act in (lambda: tx.long("/n").increment(), lambda: tx.long("/n").expect(1)):
                with pytest.raises(MisuseError, match="is over"):
                    act()
            for again in (tx.commit(), tx.__aenter__(), tx.map("/m").get(1), tx.long("/n").get()):
                with pytest.raises(MisuseError, match="is over"):
                    await again
            async with cc.transaction():
                """Nothing to do, nothing to send."""

    run(main())


def test_a_body_that_raises_has_sent_nothing() -> None:
    """Its error goes on as it is."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            with pytest.raises(KeyError):
                async with cc.transaction() as tx:
                    number = tx.long("/n").increment()
                    raise KeyError
            with pytest.raises(MisuseError, match="is not committed"):
                assert number.value
            assert await cc.long("/n").get() == 0

    run(main())


def test_paths_come_and_go() -> None:
    """A resource is created when it is first used; one that was deleted is an error only once."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            for attempt in range(2):
                async with one.transaction() as tx:
                    tx.long("/a/n/").increment()
                    tx.map("/b").put(1, 2)
                await two.delete("/a")
                with pytest.raises(UnknownResourceError, match="was deleted"):
                    async with one.transaction() as tx:
                        tx.map("/b").put(1, attempt)
                        tx.long("/a/n").increment()
                assert await one.map("/b").get(1) == 2
            with pytest.raises(ResourceTypeError):
                async with one.transaction() as tx:
                    tx.long("/b").increment()

    run(main())


def test_a_transaction_is_done_once_over_reconnects_and_leaders() -> None:
    """It is repeated under the same number, and answered from what it did the first time."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            await cc.long("/n").open()
            await cc.queue("/q").open()
            for number in range(1, 30):
                leader = cluster.members[cluster.leader or "n1"]
                cluster.mute.add(Frame.RESULTS)
                tx = cc.transaction()
                added = tx.long("/n").increment()
                tx.queue("/q").put(number)
                committing = asyncio.create_task(tx.commit())
                await until(lambda: number_in(cluster) == number)  # noqa: B023
                cluster.mute.clear()
                leader.drop()
                cluster.elect(f"n{number % 3 + 1}")
                await committing
                assert added.value == number
            assert await cc.queue("/q").size() == 29

    run(main())


def test_an_outcome_may_be_unknown() -> None:
    """A deadline and a session's end say whether it may have been applied."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            await cc.long("/n").open()
            cluster.mute.add(Frame.RESULTS)
            with pytest.raises(DeadlineError) as caught:
                async with cc.transaction(timeout=0.05) as tx:
                    tx.long("/n").increment()
            assert caught.value.applied == "unknown"
            tx = cc.transaction()
            tx.long("/n").increment()
            committing = asyncio.create_task(tx.commit())
            await until(lambda: number_in(cluster) == 2)
            cluster.expire_all()
            with pytest.raises(OutcomeUnknownError):
                await committing
            assert number_in(cluster) == 2

    run(main())


def test_a_queue_takes_part_while_it_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the largest transaction is asked for, so that none fails half-way."""
    monkeypatch.setattr(queue_module, "ITEMS_MAX", 130)

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            for _ in range(2):
                await cc.queue("/q").put("x")
            async with cc.transaction() as tx:
                tx.long("/n").increment()
            with pytest.raises(OverloadedError):
                async with cc.transaction() as tx:
                    tx.long("/n").increment()
                    tx.queue("/q").put("y")
            assert await cc.long("/n").get() == 1
            await cc.queue("/q").get()
            async with cc.transaction() as tx:
                for number in range(128):
                    tx.queue("/q").put(number)
            assert await cc.queue("/q").size() == 129

    run(main())


def test_consumers_wait_for_what_a_transaction_puts() -> None:
    """An item goes to who waits for it, as if it had been put by itself."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc), asyncio.timeout(5):
            waiting = asyncio.create_task(cc.queue("/q").get())
            while not await cc.queue("/q").waiters():
                await asyncio.sleep(0.001)
            async with cc.transaction() as tx:
                tx.queue("/q").put(1)
                tx.queue("/q").put(2)
            assert await waiting == 1
            assert await cc.queue("/q").get() == 2

    run(main())
