"""Exactly once: increments that are under way while their leader's process is killed.

With thousands in flight the kill falls between sending, logging, committing and answering, so the
client has to send much of it again; the answers themselves show whether anything counted twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import copycat
from copycat.cli.probe import member_status
from copycat.demo.servers import Servers

from .cluster import PATIENCE, client, digests, kill, leader, restart, servers

IN_FLIGHT = 4000
"""More than a client sends without an answer: there is something in every stage of its way."""
LOGGED_ONLY = 64
"""Entries that a leader has logged and sent, and nobody acknowledged (few batches may be so)."""
MOMENTS = (1, 2_000, 7_000)
"""A strike falls on the answer of this number since the last one."""

VictimsOf = Callable[[Servers], Coroutine[Any, Any, list[str]]]


class Pipeline:
    """Increments of one client, so many always in flight; answers in the order of the calls."""

    def __init__(self, cc: copycat.Copycat) -> None:
        self._counter = cc.long("/n")
        self._calls: list[asyncio.Future[int]] = []
        self._done = 0
        self._goal = 0
        self._reached = asyncio.Event()
        self._flowing = False

    async def open(self) -> None:
        """Have the cluster open the counter, which it could not do without a majority."""
        await self._counter.get()

    def flow(self) -> None:
        """Fill the pipeline; from now on each answer makes room for the next call."""
        self._flowing = True
        for _ in range(IN_FLIGHT):
            self._call()

    async def answered(self, count: int) -> None:
        """Wait until so many more are answered."""
        self._goal = self._done + count
        self._reached.clear()
        await self._reached.wait()

    def ebb(self) -> None:
        """Make no more calls."""
        self._flowing = False

    async def answers(self) -> list[int]:
        """Every answer; raises the first error."""
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*self._calls)

    def _call(self) -> None:
        call = asyncio.ensure_future(self._counter.increment())
        call.add_done_callback(self._answered)
        self._calls.append(call)

    def _answered(self, call: asyncio.Future[int]) -> None:
        self._done += 1
        if self._done >= self._goal:
            self._reached.set()
        if self._flowing and not call.cancelled() and call.exception() is None:
            self._call()


async def the_leader(running: Servers) -> list[str]:
    """The member that leads."""
    return [await leader(running)]


async def everybody(running: Servers) -> list[str]:
    """All three."""
    return list(running.pids)


async def strike(
    running: Servers, victims: list[str], pipelines: list[Pipeline], moment: int
) -> None:
    """Kill in the midst of the flow, and start the victims again; all is answered in the end."""
    for pipeline in pipelines:
        pipeline.flow()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(pipeline.answered(moment) for pipeline in pipelines))
    await kill(running, victims)
    for pipeline in pipelines:
        pipeline.ebb()
    await restart(running, victims)
    for pipeline in pipelines:
        await pipeline.answers()


@pytest.mark.parametrize("victims_of", [the_leader, everybody])
def test_pipelined_increments_count_once(tmp_path: Path, victims_of: VictimsOf) -> None:
    """Each of thousands of increments in flight counts once, in order, whoever is killed (H36)."""

    async def story() -> None:
        async with servers(tmp_path) as running, client(running, "counter") as cc:
            pipeline = Pipeline(cc)
            for moment in MOMENTS:
                await strike(running, await victims_of(running), [pipeline], moment)
            answers = await pipeline.answers()
            assert answers == list(range(1, len(answers) + 1))
            assert await cc.long("/n").get() == len(answers)
            assert len(set((await digests(running, cc)).values())) == 1

    asyncio.run(story())


async def kill_between_log_and_answer(running: Servers, pipelines: list[Pipeline]) -> None:
    """Have the leader log and send what it cannot commit, kill it, and let the others go on.

    The followers are frozen meanwhile: the leader's entries wait in their sockets. Once thawed they
    log them, the next leader commits them, and the clients, never answered, send them again.
    """
    (leads,) = await the_leader(running)
    frozen = [pid for name, pid in running.pids.items() if name != leads]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pipeline in pipelines:
            pipeline.flow()
        async with asyncio.timeout(PATIENCE):
            while not await is_behind_its_log(running, leads):
                await asyncio.sleep(0.005)
        await kill(running, [leads])
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    for pipeline in pipelines:
        pipeline.ebb()
    await restart(running, [leads])
    for pipeline in pipelines:
        await pipeline.answers()


async def is_behind_its_log(running: Servers, name: str) -> bool:
    """Whether a member has logged a good deal that it cannot commit."""
    status = await member_status(running.addresses[name])
    return (
        status is not None
        and int(status["last_index"]) >= int(status["commit_index"]) + LOGGED_ONLY
    )


def test_what_the_next_leader_commits_is_not_applied_again(tmp_path: Path) -> None:
    """Two clients' increments, logged by one leader and committed by the next, count once (H36)."""

    async def story() -> None:
        async with (
            servers(tmp_path) as running,
            client(running, "one") as one,
            client(running, "other") as other,
        ):
            pipelines = [Pipeline(one), Pipeline(other)]
            for pipeline in pipelines:
                await pipeline.open()
            for _ in range(3):
                await kill_between_log_and_answer(running, pipelines)
            answers = [await pipeline.answers() for pipeline in pipelines]
            for own in answers:
                assert own == sorted(own)
            together = sorted(answers[0] + answers[1])
            assert together == list(range(1, len(together) + 1))
            assert await one.long("/n").get() == len(together)

    asyncio.run(story())
