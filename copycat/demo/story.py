"""The demo's course of events: start, work, kill and restart leaders, finish, collect the evidence.

It decides when things happen and writes down when they did; whether all went well is for the judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import copycat

from ..cli.probe import ask_for_digest, digest_of
from ..errors import CopycatError
from .evidence import Evidence, Kill
from .machines import WordCount
from .records import read_stamps, words_of
from .screen import Screen
from .servers import Servers
from .worker import COUNTER, WORDS
from .workers import Workers

WARM_UP_S = 3.5
PER_KILL_S = 3.5
DOWN_S = 1.0
ELECTED_WITHIN_S = 10.0
BACK_WITHIN_S = 15.0
PAGE = 2000
WATCH_S = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall happen; ``seconds`` is the time for work, kills included."""

    folder: Path
    text: Path
    kills: int
    seconds: float

    def kill_times(self) -> list[float]:
        """When to kill, in seconds from the beginning of the work: evenly spread."""
        step = self.seconds / (self.kills + 1)
        return [step * (number + 1) for number in range(self.kills)]


async def play(plan: Plan, screen: Screen) -> tuple[Evidence, float]:
    """Run the whole story; the evidence, and the monotonic time at which the work began.

    All processes are gone when it returns or raises.
    """
    servers = Servers(plan.folder)
    workers = Workers(plan.folder, plan.text, list(servers.addresses.values()))
    try:
        screen.say(f"starting three servers in {plan.folder}")
        for name in servers.addresses:
            await servers.start(name)
        leader, term = await servers.ready()
        screen.say(f"{leader} leads term {term}; starting the clients")
        await workers.start()
        began = time.monotonic()
        async with _watching(servers, workers, plan, screen):
            kills = await _work(plan, servers, workers, screen, began)
            screen.say("finishing what is under way")
            exit_codes = await workers.finish()
        screen.say("reading the records and asking every member")
        return await _collect(plan, servers, workers, exit_codes, kills), began
    finally:
        await asyncio.shield(_clean_up(workers, servers))


async def _clean_up(workers: Workers, servers: Servers) -> None:
    try:
        await workers.stop()
    finally:
        await servers.stop()


async def _work(
    plan: Plan, servers: Servers, workers: Workers, screen: Screen, began: float
) -> list[Kill]:
    kills: list[Kill] = []
    for at in plan.kill_times():
        await asyncio.sleep(began + at - time.monotonic())
        workers.check_alive()
        kill = await _kill_leader(servers, screen)
        if kill is None:
            screen.say("nobody leads: nobody can be killed")
            continue
        kills.append(kill)
        await asyncio.sleep(kill.at + DOWN_S - time.monotonic())
        kill.restarted_at = time.monotonic()
        await servers.start(kill.member)
        with contextlib.suppress(TimeoutError):
            kill.back_at = await servers.caught_up(kill.member, BACK_WITHIN_S)
            screen.say(f"{kill.member} is back, {kill.back_at - kill.restarted_at:.2f} s "
                       "after its restart")  # fmt: skip
    await asyncio.sleep(began + plan.seconds - time.monotonic())
    workers.check_alive()
    return kills


async def _kill_leader(servers: Servers, screen: Screen) -> Kill | None:
    found = await servers.leader()
    if found is None:
        return None
    leader, term = found
    kill = Kill(leader, servers.pid(leader), term, time.monotonic())
    ended = asyncio.ensure_future(servers.kill(leader))  # the signal is sent before it first waits
    screen.say(f"SIGKILL to the leader {leader} (term {term}, pid {kill.pid})")
    with contextlib.suppress(TimeoutError):
        kill.new_leader, kill.new_term, kill.elected_at = await servers.successor(
            leader, term, ELECTED_WITHIN_S
        )
        screen.say(f"{kill.new_leader} leads term {kill.new_term}, "
                   f"{(kill.elected_at - kill.at) * 1000:.0f} ms after the kill")  # fmt: skip
    await ended
    return kill


async def _collect(
    plan: Plan,
    servers: Servers,
    workers: Workers,
    exit_codes: dict[str, int | None],
    kills: list[Kill],
) -> Evidence:
    addresses = servers.addresses
    known = ",".join(map(str, addresses.values()))
    async with copycat.connect(known, machines=[WordCount], name="judge", timeout=10.0) as cc:
        words: dict[str, int] = {}
        machine = cc.machine(WORDS, WordCount)
        start = 0
        while page := await machine.page(start, PAGE):
            words.update((word, count) for word, count in page)
            start += len(page)
        counter = await cc.long(COUNTER).get()
        index = await ask_for_digest(cc)
        asked = [_digest(addresses[name], index) for name in addresses]
        digests = dict(zip(addresses, await asyncio.gather(*asked), strict=True))
    return Evidence(
        lines=words_of(plan.text.read_text(encoding="utf-8", errors="replace")),
        workers=workers.records(),
        exit_codes=exit_codes,
        stamps=read_stamps(workers.stamps),
        words=words,
        counter=counter,
        digest_index=index,
        digests=digests,
        kills=kills,
        kills_planned=plan.kills,
    )


async def _digest(address: copycat.Address, index: int) -> str | None:
    try:
        return (await digest_of(address, index)).hex()
    except CopycatError:
        return None


@contextlib.asynccontextmanager
async def _watching(
    servers: Servers, workers: Workers, plan: Plan, screen: Screen
) -> AsyncIterator[None]:
    """Show progress while the body runs."""

    async def watch() -> None:
        began = time.monotonic()
        while True:
            leader = await servers.leader()
            elapsed = time.monotonic() - began
            screen.progress(elapsed, plan.seconds, workers.acknowledged, leader)
            await asyncio.sleep(WATCH_S)

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        screen.end_progress()


__all__ = ["PER_KILL_S", "WARM_UP_S", "Plan", "play"]
