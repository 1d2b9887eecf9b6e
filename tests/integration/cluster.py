"""Real member processes under load: the pace, the clients that keep records, the digests.

It adds to `copycat.demo.servers` what the tests of recovery share. Every figure that a test judges
by comes from the clients' own records or from each member's own digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import copycat
from copycat.cli.probe import ask_for_digest, digest_of, member_status
from copycat.demo.servers import Servers

PACE = """\
election_timeout = 0.5
heartbeat = 0.1
segment_bytes = 262144
snapshot_bytes = 524288
"""
"""Quick elections; segments and snapshots so small that many of both come to be in one test."""

PATIENCE = 30.0
"""Seconds: an operation has to outlive any restart, on a busy machine too."""


@contextlib.asynccontextmanager
async def servers(folder: Path) -> AsyncIterator[Servers]:
    """Three real processes with real logs and fsync, all stopped at the end."""
    settings = folder / "pace.toml"
    settings.write_text(PACE)
    async with Servers(
        folder / "members", options=["--config", str(settings)], timeout=PATIENCE
    ) as running:
        yield running


@contextlib.asynccontextmanager
async def client(running: Servers, name: str) -> AsyncIterator[copycat.Copycat]:
    """A client whose session outlives all that the tests do."""
    async with copycat.connect(
        running.url, name=name, timeout=PATIENCE, session_timeout=PATIENCE
    ) as cc:
        yield cc


async def statuses(running: Servers) -> list[dict[str, Any]]:
    """What every running member says of itself; nothing from those that do not answer."""
    answers = await asyncio.gather(
        *(member_status(running.addresses[name]) for name in running.pids)
    )
    return [status for status in answers if status is not None]


async def leader(running: Servers) -> str:
    """The running member that leads, by its own word, in the highest term."""
    async with asyncio.timeout(PATIENCE):
        while True:
            leading = [
                (status["term"], status["name"])
                for status in await statuses(running)
                if status["role"] == "leader"
            ]
            if leading:
                return str(max(leading)[1])
            await asyncio.sleep(0.01)


async def kill(running: Servers, victims: Sequence[str]) -> None:
    """SIGKILL, one right after the other."""
    await asyncio.gather(*(running.kill(name) for name in victims))


async def restart(running: Servers, victims: Sequence[str]) -> None:
    """Start them again; returns when each knows a leader."""
    for name in victims:
        await running.start(name)
    await asyncio.gather(*(running.ready(name) for name in victims))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, or fail."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


async def digests(running: Servers, cc: copycat.Copycat) -> dict[str, bytes]:
    """Every member's own digest of its state at one index."""
    index = await ask_for_digest(cc)
    found = await asyncio.gather(
        *(digest_of(address, index, timeout=PATIENCE) for address in running.addresses.values())
    )
    return dict(zip(running.addresses, found, strict=True))


class Load:
    """Writers and counters that note what was acknowledged, until they are told to stop.

    Each key is written once, by one writer; each increment's answer is kept.

    Args:
        cc: the client.
        seed: of the pauses between operations.
        writers, counters: tasks of each kind.
    """

    def __init__(self, cc: copycat.Copycat, seed: int, *, writers: int, counters: int) -> None:
        self.written: dict[str, int] = {}
        self.counted: list[int] = []
        self._map: copycat.AsyncMap[str, int] = cc.map("/written")
        self._counter = cc.long("/counted")
        self._random = random.Random(seed)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._writers, self._counters = writers, counters

    @property
    def done(self) -> int:
        """How many operations were acknowledged."""
        return len(self.written) + len(self.counted)

    def check(self) -> None:
        """Raise what went wrong in a task that should still be at work."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def progress(self, operations: int) -> None:
        """Wait until so many more operations are acknowledged."""
        goal = self.done + operations

        def reached() -> bool:
            self.check()
            return self.done >= goal

        await until(reached)

    async def __aenter__(self) -> Load:
        start = asyncio.get_running_loop().create_task
        self._tasks = [start(self._write(each)) for each in range(self._writers)]
        self._tasks += [start(self._count()) for _ in range(self._counters)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._stopping = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        else:
            await asyncio.gather(*self._tasks)

    async def _write(self, writer: int) -> None:
        number = 0
        while not self._stopping:
            key = f"{writer}-{number}"
            await self._map.put(key, number)
            self.written[key] = number
            number += 1
            await self._think()

    async def _count(self) -> None:
        while not self._stopping:
            self.counted.append(await self._counter.increment())
            await self._think()

    async def _think(self) -> None:
        """A client has other things to do, too; it keeps the amount of data at bay."""
        await asyncio.sleep(self._random.uniform(0, 0.005))


async def missing(cc: copycat.Copycat, written: dict[str, int]) -> list[str]:
    """The keys of ``written`` that are not there, or hold another value."""
    m: copycat.AsyncMap[str, int] = cc.map("/written")
    found = await asyncio.gather(*(m.get(key) for key in written))
    return [key for (key, value), read in zip(written.items(), found, strict=True) if read != value]
