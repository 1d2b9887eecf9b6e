"""Queues: the machine against a model, the handles against a cluster that fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest

from copycat._core.codec import Frame
from copycat.errors import (
    CopycatError,
    DeadlineError,
    MisuseError,
    OverloadedError,
    Rejected,
    SessionExpiredError,
    UnknownResourceError,
)
from copycat.resources import QueueMachine, Taken
from copycat.resources import queue as queue_module

from ..client.fake_server import client, cluster_and_client, fake_cluster, until
from ..server.loops import run
from .test_machines import Runner


class Model:
    """A queue as one would draw it: what can be taken, who has what, who waits."""

    def __init__(self) -> None:
        self.ready: list[tuple[int, int]] = []  # (value, deliveries), sorted: values rise
        self.taken: dict[bytes, tuple[int, int, int]] = {}  # claim -> session, value, deliveries
        self.line: dict[bytes, int] = {}
        self.served: list[bytes] = []

    def give_back(self, claim: bytes) -> None:
        _, value, deliveries = self.taken.pop(claim)
        self.ready = sorted([*self.ready, (value, deliveries)])

    def serve(self) -> None:
        while self.line and self.ready:
            claim, session = next(iter(self.line.items()))
            del self.line[claim]
            self.take(claim, session)
            self.served.append(claim)

    def take(self, claim: bytes, session: int) -> None:
        value, deliveries = self.ready.pop(0)
        self.taken[claim] = session, value, deliveries + 1


@pytest.mark.parametrize("seed", range(12))
def test_a_queue_loses_and_doubles_nothing(seed: int) -> None:
    """Items come in order, once at a time, again if they were not acknowledged, else never."""
    rng = random.Random(seed)
    run, model = Runner(QueueMachine()), Model()
    tokens: list[int] = []
    done: list[int] = []
    puts = 0
    for number in range(600):
        run.events.clear()
        model.served.clear()
        claim, session = number.to_bytes(2, "big"), rng.randrange(1, 6)
        kind = rng.randrange(20)
        if kind < 6:
            puts += 1
            assert run("put", puts) is None
            model.ready.append((puts, 0))
        elif kind < 12:
            grant = run("acquire", claim, "me", wait := rng.random() < 0.7, session=session)
            if model.ready:
                model.take(claim, session)
                tokens.append(grant[0])
                assert (grant[2], grant[3]) == model.taken[claim][1:]
                assert run("acquire", claim, "me", True, session=session) == grant
            else:
                assert grant == []
                if wait:
                    model.line[claim] = session
        elif kind < 15 and model.taken:
            claim = rng.choice(list(model.taken))
            assert run("ack", claim) is True
            assert run("ack", claim) is False
            done.append(model.taken.pop(claim)[1])
        elif kind < 17 and model.taken | model.line:
            claim = rng.choice(list(model.taken | model.line))
            assert run("release", claim) is (claim in model.taken)
            if claim in model.taken:
                model.give_back(claim)
            model.line.pop(claim, None)
        elif kind == 17:
            run.close(session)
            model.line = {c: to for c, to in model.line.items() if to != session}
            for claim in [c for c, (owner, *_) in model.taken.items() if owner == session]:
                model.give_back(claim)
        elif kind == 18:
            run = run.restored()
        model.serve()
        told = [(value[0], to) for _, value, to in run.events]
        assert told == [(claim, model.taken[claim][0]) for claim in model.served]
        for _, (claim, grant), _ in run.events:
            tokens.append(grant[0])
            assert tuple(grant[2:]) == model.taken[claim][1:]
        assert run("size") == len(model.ready)
        assert run("first") == [value for value, _ in model.ready[:1]]
        assert [each[1] for each in run("line")] == list(model.line.values())
        assert [each[1] for each in run("held")] == [each[0] for each in model.taken.values()]
    assert tokens == sorted(set(tokens))
    left = [value for value, _ in model.ready] + [value for _, value, _ in model.taken.values()]
    assert sorted(done + left) == list(range(1, puts + 1))
    assert len(done) > 20


def test_a_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items, and claims that have or want one, have a limit; what is beyond changes nothing."""
    monkeypatch.setattr(queue_module, "ITEMS_MAX", 2)
    monkeypatch.setattr(queue_module, "TAKEN_MAX", 2)
    run = Runner(QueueMachine())
    run("put", 1)
    run("put", 2)
    assert run("acquire", b"a", "me", True)
    with pytest.raises(OverloadedError):
        run("put", 3)
    run("ack", b"a")
    for claim in (b"b", b"c"):
        run("acquire", claim, "me", True)
    with pytest.raises(OverloadedError):
        run("acquire", b"d", "me", True)
    assert run("acquire", b"c", "me", True) == [], "who is in stays in"
    assert run("size") == 0
    for bad in ([1, 2], ["1", 2, 3], 5, [0, 1, 1], [3, 1, 1], [1, 1, True]):
        with pytest.raises((Rejected, ValueError, TypeError)):
            run("put_back", b"x", bad, 1)
    assert run("size") == 0
    for _ in range(3):  # up to twice the limits, by a client that lies
        run("put_back", b"x", [1, "x", 1], 1)
    with pytest.raises(OverloadedError):
        run("put_back", b"x", [1, "x", 1], 1)


def test_only_the_session_that_took_an_item_puts_it_back() -> None:
    """What a later session would put back has gone back already, so it is not doubled."""
    run = Runner(QueueMachine())
    for value in ("one", ["two"], {"three": 3}):
        run("put", value)
    token, *item = run("acquire", b"a", "me", True, session=5)
    assert token
    run("ack", b"a", session=5)
    assert run("put_back", b"a", item, 5, session=6) is False
    assert run("size") == 2
    assert run("put_back", b"a", item, 5, session=5) is True
    assert run("size") == 3
    _, *again = run("acquire", b"b", "me", True, session=5)
    assert again == [item[0], "one", 2]
    assert run("put_back", b"b", again, 5, session=5) is True, "acknowledged or not"
    assert run("held") == []
    for _ in range(2):  # equal serials never make it compare values
        run("put_back", b"z", [1, {"x": 1}, 1], 5, session=5)
    assert run("size") == 5


# -- handles -----------------------------------------------------------------------------------


def test_queue_end_to_end() -> None:
    """Every verb does what a queue's would, in order, for any value, None included."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            queue, other = one.queue("/q"), two.queue("/q")
            with pytest.raises(asyncio.QueueEmpty, match="'/q' is empty"):
                await queue.get_nowait()
            assert await queue.peek() is None
            assert await queue.peek("nothing") == "nothing"
            for value in (None, (1, 2), {"a": [3]}, "last"):
                await queue.put(value)
            assert await other.size() == 4
            assert await other.peek("nothing") is None
            assert await other.get() is None
            assert await other.get_nowait() == (1, 2)
            async with await other.take() as item:
                assert item.value == {"a": [3]}
                assert item.deliveries == 1
                assert [each.token for each in await queue.holders()] == [item.token]
            last = await queue.take(timeout=1)
            assert await queue.size() == 0
            await last.ack()
            with pytest.raises(MisuseError, match="acked or nacked already"):
                await last.ack()
            with pytest.raises(DeadlineError, match="no item of '/q' came within 0.1 s") as late:
                await queue.get(timeout=0.05)
            assert late.value.applied == "no"
            assert await queue.holders() == await queue.waiters() == []
            assert not one._access.held
            assert not two._access.held

    run(main())


def test_many_consumers_share_the_work() -> None:
    """Each item goes to one consumer, and waiting consumers are served in their order."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            got: list[tuple[int, int]] = []

            async def consume(number: int) -> None:
                queue = (one, two)[number % 2].queue("/q")
                for _ in range(5):
                    got.append((number, await queue.get()))

            consumers = [asyncio.create_task(consume(number)) for number in range(8)]
            while len(await one.queue("/q").waiters()) < 8:
                await asyncio.sleep(0.001)
            for value in range(40):
                await one.queue("/q").put(value)
            async with asyncio.timeout(5):
                await asyncio.gather(*consumers)
            assert sorted(value for _, value in got) == list(range(40))
            assert await two.queue("/q").size() == 0

    run(main())


def test_what_is_not_acknowledged_comes_again_in_front() -> None:
    """nack, an exception in the scope and a closed client return the item before later ones."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one:
            queue = one.queue("/q")
            for value in ("a", "b"):
                await queue.put(value)
            first = await queue.take()
            await first.nack()
            assert await queue.peek() == "a"
            with pytest.raises(ValueError, match="mine"):
                async with await queue.take() as again:
                    assert (again.value, again.deliveries) == ("a", 2)
                    assert again.token > first.token
                    raise ValueError("mine")
            assert await queue.size() == 2
            async with client(cluster) as two:
                theirs = await two.queue("/q").take()
                assert theirs.value == "a"
                assert await queue.get() == "b"
            async with asyncio.timeout(2):
                back = await queue.take()
            assert (back.value, back.deliveries) == ("a", 4)
            async with back:
                await back.nack()  # by hand, inside
            assert await queue.size() == 1

    run(main())


def test_a_lost_item_cancels_its_scope_and_is_delivered_again() -> None:
    """When the session ends the body is cancelled, and the next consumer gets the item."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc:
            queue = cc.queue("/q")
            await queue.put("work")
            with pytest.raises(SessionExpiredError, match="an item of '/q' .token .* was lost"):
                async with await queue.take() as item:
                    cluster.expire_all()
                    await asyncio.sleep(5)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            bare = await queue.take()
            assert (bare.value, bare.deliveries) == ("work", 2)
            assert bare.token > item.token
            cluster.expire_all()
            async with asyncio.timeout(2):
                await bare.lost.wait()
            await bare.nack()  # it went back already
            with pytest.raises(SessionExpiredError):
                await bare.ack()
            with pytest.raises(SessionExpiredError):
                async with bare:
                    pass
            async with await queue.take() as last:
                assert last.deliveries == 3
            assert await queue.size() == 0
            assert await queue.holders() == []
            assert not cc._access.held

    run(main())


@pytest.mark.parametrize("kind", ["bare", "scope", "stubborn"])
def test_an_item_that_seemed_lost_is_not_idle(kind: str) -> None:
    """If silence ended the hold on it and the session lives after all, the next one gets the item.

    That goes also for a body that holds out against its cancellation: it ends with the error.
    """

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc, client(cluster) as other:
            await other.queue("/q").put("work")
            session = cc.session.id
            item = await cc.queue("/q").take()
            if kind == "bare":
                cc.session.lifetime._lose("silence")
            else:
                with pytest.raises(SessionExpiredError, match="was lost: silence"):
                    async with item:
                        cc.session.lifetime._lose("silence")
                        try:
                            await asyncio.sleep(5)
                        except asyncio.CancelledError:
                            if kind == "scope":
                                raise
            async with asyncio.timeout(2):
                assert await other.queue("/q").get() == "work"
            with pytest.raises(SessionExpiredError):
                await item.ack()
            assert cc.session.id == session
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert not cc._access.held

    run(main())


@pytest.mark.parametrize("verb", ["get", "take"])
def test_a_cancelled_wait_takes_nothing(verb: str) -> None:
    """Cancelling a get or take at any moment, also of its acknowledgement, loses no item."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            queue, producer = cc.queue("/q"), cc.queue("/q")
            sent = 0
            got: list[int] = []

            async def put() -> None:
                nonlocal sent
                sent += 1
                await producer.put(sent)

            for delay in range(60):
                if delay % 3 == 0:
                    await put()
                task = asyncio.create_task(getattr(queue, verb)())
                for _ in range(delay // 2):
                    await asyncio.sleep(0)
                if delay % 3 == 1:
                    await put()
                if delay % 3 == 2:
                    await asyncio.sleep(0.0004 * (delay % 8))
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    found: Any = await task
                    if isinstance(found, Taken):
                        await found.ack()
                    got.append(found.value if isinstance(found, Taken) else found)
            while await queue.size():
                got.append(await queue.get())
            assert sorted(got) == list(range(1, sent + 1))
            assert await queue.waiters() == await queue.holders() == []
            assert not cc._access.held

    run(main())


def test_a_get_whose_answer_is_late_gives_the_item_back() -> None:
    """If the acknowledgement of a get times out, the item is there for others, once."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc, client(cluster) as other:
            queue = cc.queue("/q")
            getting = asyncio.create_task(queue.at(timeout=0.1).get())
            while not await other.queue("/q").waiters():
                await asyncio.sleep(0.001)
            cluster.mute = {Frame.RESULTS}
            putting = asyncio.create_task(other.queue("/q").put("x"))
            with pytest.raises(DeadlineError):
                await getting
            cluster.mute = set()
            cluster.members["n1"].drop()
            async with asyncio.timeout(5):
                await putting
                assert await other.queue("/q").get() == "x"
            assert await other.queue("/q").size() == 0

    run(main())


def test_an_acknowledgement_can_be_tried_again() -> None:
    """After a DeadlineError the second try tells the truth: the item is gone."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            queue = cc.queue("/q")
            await queue.put("x")
            item = await queue.take()
            cluster.mute = {Frame.RESULTS}
            with pytest.raises(DeadlineError):
                await item.ack(timeout=0.05)
            cluster.mute = set()
            cluster.members["n1"].drop()
            await item.ack()
            assert await queue.size() == 0
            assert await queue.holders() == []

    run(main())


def test_a_deleted_queue_ends_waits_and_scopes() -> None:
    """Those who wait or work are told at once; a new handle has an empty queue."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc, client(cluster) as admin:
            queue = cc.queue("/q")
            await queue.put(1)
            working = asyncio.Event()

            async def work() -> None:
                async with await queue.take():
                    working.set()
                    await asyncio.sleep(5)

            tasks = [asyncio.create_task(work())]
            await working.wait()
            tasks.append(asyncio.create_task(queue.get()))
            while not await queue.waiters():
                await asyncio.sleep(0.001)
            await admin.delete("/q")
            async with asyncio.timeout(2):
                with pytest.raises(SessionExpiredError, match="the resource was deleted"):
                    await tasks[0]
                with pytest.raises(UnknownResourceError):
                    await tasks[1]
            assert await cc.queue("/q").size() == 0

    run(main())


def test_a_wait_goes_on_under_the_next_session() -> None:
    """Who waits when the session ends waits on, and gets the item."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc, client(cluster) as other:
            waiting = asyncio.create_task(cc.queue("/q").get())
            while not await other.queue("/q").waiters():
                await asyncio.sleep(0.001)
            before = cc.session.id
            cluster.expire_all()
            await until(lambda: cc.session.id not in (0, before))
            with contextlib.suppress(CopycatError):
                await other.queue("/q").size()
            await other.queue("/q").put("x")
            async with asyncio.timeout(2):
                assert await waiting == "x"

    run(main())
