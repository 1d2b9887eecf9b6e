"""A client process of the demo: real work through the public interface, everything written down.

Started as ``python -m copycat.demo.worker``; it works until its standard input says so or closes,
so it never outlives the demo. It knows nothing of kills and makes no exception for them. It judges
nothing: the log it leaves behind is read by `evidence`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import copycat
from copycat.demo.loops import run
from copycat.demo.machines import WordCount
from copycat.demo.records import ClientLog, StaleTokenError, stamp, words_of

WORDS, COUNTER, LOCK, ELECTION, DUTY = "/demo/words", "/demo/n", "/demo/lock", "/demo/lead", "/duty"
COUNTING_TASKS = 8
INCREMENTING_TASKS = 2
TURN_S = 0.002
TERM_S = 1.0
REPORT_S = 0.05
RETRY_S = 0.05
TIMEOUT_S = 20.0
STATUS_S = 0.1

class Work:
    """The tasks of one client process."""

    def __init__(self, cc: copycat.Copycat, log: ClientLog, stamps: Path) -> None:
        self._cc = cc
        self._log = log
        self._stamps = stamps
        self._name = cc.name
        self.stopping = asyncio.Event()

    async def count_words(self, lines: list[list[str]], numbers: Iterator[int]) -> None:
        """Count one line after another; other tasks take lines from the same iterator."""
        machine = self._cc.machine(WORDS, WordCount)
        while not self.stopping.is_set():
            line = next(numbers)
            while not await self._logged("count", machine.count(lines[line]), line):
                pass

    async def increment(self) -> None:
        """Increment the shared number."""
        counter = self._cc.long(COUNTER)
        while not self.stopping.is_set():
            await self._logged("increment", counter.increment())

    async def take_turns(self) -> None:
        """Write a begin and an end under the lock."""
        lock = self._cc.lock(LOCK)
        while not self.stopping.is_set():
            try:
                async with lock as held:
                    stamp(self._stamps, "begin", held.token, self._name)
                    await asyncio.sleep(TURN_S)
                    stamp(self._stamps, "end", held.token, self._name)
            except StaleTokenError as problem:
                self._log.note("stale", problem=str(problem))
            except copycat.LockLost as problem:
                self._log.note("lock lost", token=problem.token, error=str(problem))
            except copycat.CopycatError as problem:
                await self._trouble("lock", problem)

    async def lead(self) -> None:
        """Be the elected leader for a while whenever it is our turn."""
        election = self._cc.election(ELECTION)
        duty = self._cc.map(DUTY)
        while not self.stopping.is_set():
            token = 0
            try:
                async with election as term:
                    token = term.token
                    self._log.note("term begins", token=token)
                    until = asyncio.get_running_loop().time() + TERM_S
                    while not self.stopping.is_set() and until > self._now():
                        await self._logged("report", _nothing(duty.put("leader", self._name)))
                        await asyncio.sleep(REPORT_S)
                    self._log.note("term ends", token=token)
            except copycat.LeadershipLost as problem:
                self._log.note("term lost", token=token, error=str(problem))
            except copycat.CopycatError as problem:
                await self._trouble("election", problem)

    async def tell_progress(self) -> None:
        """Tell the parent, on standard output, how far we are."""
        while not self.stopping.is_set():
            sys.stdout.write(json.dumps({"acknowledged": self._log.acknowledged}) + "\n")
            sys.stdout.flush()
            await asyncio.sleep(STATUS_S)

    async def obey(self) -> None:
        """Stop when the parent says so, or is gone."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.readline()
        self.stopping.set()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _logged(
        self, kind: str, operation: Coroutine[Any, Any, int], line: int = -1
    ) -> bool:
        """Run one operation between its intent and its outcome; False if it may be tried again."""
        number = self._log.intent(kind, line)
        try:
            self._log.ack(number, await operation)
        except copycat.CopycatError as problem:
            self._log.failed(number, problem.applied, f"{problem.code} {problem}")
            await asyncio.sleep(RETRY_S)
            return problem.applied != "no"
        return True

    async def _trouble(self, what: str, problem: copycat.CopycatError) -> None:
        self._log.note("trouble", what=what, error=f"{problem.code} {problem}")
        await asyncio.sleep(RETRY_S)


async def _nothing(operation: Coroutine[Any, Any, object]) -> int:
    """The operation's result does not matter."""
    await operation
    return 0


async def work(options: argparse.Namespace) -> None:
    """Connect, do everything at once, and leave a complete log."""
    lines = words_of(Path(options.input).read_text(encoding="utf-8", errors="replace"))
    share = range(options.number, len(lines), options.of) or range(len(lines))
    numbers = itertools.cycle(share)
    name = f"w{options.number + 1}"
    connecting = copycat.connect(
        options.addresses, machines=[WordCount], name=name, timeout=TIMEOUT_S
    )
    log = ClientLog(Path(options.log))
    async with connecting as cc:
        gc.freeze()
        job = Work(cc, log, Path(options.stamps))
        async with asyncio.TaskGroup() as group:
            group.create_task(job.obey())
            group.create_task(job.tell_progress())
            group.create_task(job.take_turns())
            group.create_task(job.lead())
            for _ in range(COUNTING_TASKS):
                group.create_task(job.count_words(lines, numbers))
            for _ in range(INCREMENTING_TASKS):
                group.create_task(job.increment())
    log.close()


def main() -> None:
    """The process's entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--addresses", "--log", "--input", "--stamps"):
        parser.add_argument(name, required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--of", type=int, required=True)
    run(work(parser.parse_args()))


if __name__ == "__main__":
    main()
