"""Exactly once: increments that are under way while their leader's process is killed.

With thousands in flight the kill falls between sending, logging, committing and answering, so the
client has to send much of it again; the answers themselves show whether anything counted twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import copycat
from copycat.demo.servers import Servers

from .cluster import client, digests, kill, leader, restart, servers, until

BURST = 20_000
"""More than a session may have unanswered, so that some are still to be sent when it strikes."""
STRIKES = 3

VictimsOf = Callable[[Servers], Coroutine[Any, Any, list[str]]]


class Pipeline:
    """Increments of one client, submitted in bursts; their answers in the order of the calls."""

    def __init__(self, cc: copycat.Copycat) -> None:
        self._counter = cc.long("/n")
        self._calls: list[asyncio.Future[int]] = []
        self.done = 0

    @property
    def waiting(self) -> int:
        """How many calls have no answer yet."""
        return len(self._calls) - self.done

    def burst(self) -> None:
        """Submit a great many at once."""
        for _ in range(BURST):
            call = asyncio.ensure_future(self._counter.increment())
            call.add_done_callback(self._answered)
            self._calls.append(call)

    async def answers(self) -> list[int]:
        """Every answer so far; raises the first error."""
        return await asyncio.gather(*self._calls)

    def _answered(self, call: asyncio.Future[int]) -> None:
        self.done += 1


async def the_leader(running: Servers) -> list[str]:
    """The member that leads."""
    return [await leader(running)]


async def everybody(running: Servers) -> list[str]:
    """All three."""
    return list(running.pids)


async def strike(running: Servers, victims: list[str], pipelines: list[Pipeline]) -> None:
    """Kill in the midst of a burst of each pipeline, and start the victims again."""
    before = [pipeline.done for pipeline in pipelines]
    for pipeline in pipelines:
        pipeline.burst()
    await until(
        lambda: all(
            pipeline.done > done for pipeline, done in zip(pipelines, before, strict=True)
        )
    )
    await kill(running, victims)
    assert all(pipeline.waiting for pipeline in pipelines), "the kill came too late to matter"
    await restart(running, victims)
    for pipeline in pipelines:
        await pipeline.answers()


@pytest.mark.parametrize("victims_of", [the_leader, everybody])
def test_pipelined_increments_count_once(
    tmp_path: Path, victims_of: VictimsOf
) -> None:
    """Each of thousands of increments in flight counts once, in order, whoever is killed (H36)."""

    async def story() -> None:
        async with servers(tmp_path) as running, client(running, "counter") as cc:
            pipeline = Pipeline(cc)
            for _ in range(STRIKES):
                await strike(running, await victims_of(running), [pipeline])
            total = STRIKES * BURST
            assert await pipeline.answers() == list(range(1, total + 1))
            assert await cc.long("/n").get() == total
            assert len(set((await digests(running, cc)).values())) == 1

    asyncio.run(story())


def test_two_clients_share_a_counter_across_a_kill(tmp_path: Path) -> None:
    """Two pipelines interleave; together they get every number once, each its own in order."""

    async def story() -> None:
        async with (
            servers(tmp_path) as running,
            client(running, "one") as one,
            client(running, "other") as other,
        ):
            pipelines = [Pipeline(one), Pipeline(other)]
            await strike(running, await the_leader(running), pipelines)
            answers = [await pipeline.answers() for pipeline in pipelines]
            for own in answers:
                assert own == sorted(own)
            assert sorted(answers[0] + answers[1]) == list(range(1, 2 * BURST + 1))

    asyncio.run(story())
