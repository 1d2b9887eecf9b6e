"""Topics: who subscribes gets everything in order, and the publisher hears how many do."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest

import copycat
from copycat.errors import (
    MisuseError,
    OverloadedError,
    SerializationError,
    SessionExpiredError,
    UnknownResourceError,
)
from copycat.handles import CopycatClient
from copycat.listeners import WAITING_MAX
from copycat.resources import Subscription, TopicEvent

from ..client.fake_server import client, cluster_and_client, fake_cluster, until
from ..server.loops import run

Messages = Subscription[TopicEvent[object]]


async def drained(messages: Messages, last: object) -> list[object]:
    """The values up to ``last``."""
    found: list[object] = []
    async with asyncio.timeout(5):
        async for message in messages:
            found.append(message.value)
            if message.value == last:
                return found
    raise AssertionError(f"it ended after {found}")


@pytest.mark.parametrize("seed", range(4))
def test_every_subscriber_gets_what_is_published_while_it_subscribes(seed: int) -> None:
    """In order, once, from its beginning to its end; and the count is that of the sessions."""
    rng = random.Random(seed)
    published: list[object] = []

    async def main() -> None:
        async with fake_cluster() as cluster:
            clients = [await client(cluster).__aenter__() for _ in range(3)]
            there: list[tuple[CopycatClient, Messages, int]] = []  # and its place in published

            async def publish(cc: CopycatClient) -> None:
                reached = await cc.topic("/t").publish(len(published))
                assert reached == len({id(owner) for owner, *_ in there})
                published.append(len(published))

            async def check(messages: Messages, begin: int) -> None:
                if begin < len(published):
                    found = await drained(messages, published[-1])
                    first = published.index(found[0])
                    assert first <= begin, "it may begin with what is on its way to its client"
                    assert found == published[first:]

            for _ in range(150):
                cc = rng.choice(clients)
                kind = rng.randrange(10)
                if kind < 2:
                    messages = cc.topic("/t").subscribe()
                    await messages.__aenter__()
                    there.append((cc, messages, len(published)))
                elif kind == 2 and there:
                    owner, messages, begin = there.pop(rng.randrange(len(there)))
                    await check(messages, begin)
                    await messages.aclose()
                    await publish(owner)  # behind the word that it is over
                elif kind == 3:
                    cluster.members[cluster.leader or "n1"].drop()
                    cluster.elect(rng.choice(list(cluster.members)))
                else:
                    await publish(cc)
            await publish(clients[0])
            for _, messages, begin in there:
                await check(messages, begin)
            for cc in clients:
                await cc.close()

    run(main())


def test_a_cancelled_step_takes_nothing() -> None:
    """After a timeout the same iterator goes on where it was; two tasks cannot share it."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            topic = cc.topic("/t")
            async with topic.subscribe() as messages:
                for number in range(20):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.001):
                            await anext(messages)
                    assert await topic.publish(number) == 1
                    assert (await anext(messages)).value == number
                waiting = asyncio.create_task(anext(messages))  # type: ignore[arg-type]
                await asyncio.sleep(0)
                with pytest.raises(MisuseError, match="two tasks"):
                    await anext(messages)
                await topic.publish("for it")
                assert (await waiting).value == "for it"
                waiting = asyncio.create_task(anext(messages))  # type: ignore[arg-type]
                await asyncio.sleep(0)
            with pytest.raises(StopAsyncIteration):
                await waiting
            with pytest.raises(StopAsyncIteration):
                await anext(messages)

    run(main())


def test_a_subscription_that_is_dropped_is_over() -> None:
    """Whoever breaks out of the loop is not counted any more, without a word."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            topic = cc.topic("/t")

            async def hear_one() -> object:
                async for message in topic.subscribe():
                    return message.value
                return None

            hearing = asyncio.create_task(hear_one())
            while not await topic.publish("tick"):
                await asyncio.sleep(0.001)
            assert await hearing == "tick"
            gc.collect()
            async with asyncio.timeout(5):
                while await topic.publish("anybody?"):
                    await asyncio.sleep(0.001)

    run(main())


def test_the_end_of_the_session_is_an_error_after_the_last_message() -> None:
    """No hole: what came before is read, then each step says that the session ended."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            topic = cc.topic("/t")
            async with topic.subscribe() as messages:
                await topic.publish("before")
                await until(lambda: cc.session._event)
                first = cc.session.id
                cluster.expire_all()
                await until(lambda: cc.session.id != first)
                await until(lambda: cc.session.state is copycat.SessionState.CONNECTED)
                assert (await anext(messages)).value == "before"
                for _ in range(2):
                    with pytest.raises(SessionExpiredError, match="may have been missed"):
                        await anext(messages)
            async with topic.subscribe() as messages:
                assert await topic.publish("after") == 1
                assert (await anext(messages)).value == "after"

    run(main())


def test_a_deleted_topic_ends_its_subscriptions() -> None:
    """They say so, and do not wait for ever; a new handle makes another topic."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            async with cc.topic("/t").subscribe() as messages:
                await cc.delete("/t")
                with pytest.raises(UnknownResourceError):
                    await anext(messages)
            assert await cc.topic("/t").publish(1) == 0

    run(main())


def test_who_does_not_read_gets_an_error_and_no_hole() -> None:
    """Beyond the bound of an iterator nothing is kept; the messages before it come in order."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            topic = cc.topic("/t")
            async with topic.subscribe() as messages:
                for start in range(0, WAITING_MAX + 1000, 1000):
                    some = range(start, start + 1000)
                    await asyncio.gather(*(topic.publish(number) for number in some))
                for number in range(WAITING_MAX):
                    assert (await anext(messages)).value == number
                with pytest.raises(OverloadedError, match="too slow"):
                    await anext(messages)
                assert await topic.publish("nobody listens any more") == 0

    run(main())


def test_what_cannot_be_sent_fails_at_the_call() -> None:
    """A value without an encoding, or of more than a MiB, is the publisher's error alone."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            topic = cc.topic("/t")
            async with topic.subscribe() as messages:
                for bad in (object(), "x" * (1 << 20)):
                    with pytest.raises(SerializationError):
                        await topic.publish(bad)
                await topic.publish("good")
                assert (await anext(messages)).value == "good"

    run(main())
