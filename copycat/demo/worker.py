"""A client process of the demo: counts words, increments, takes turns, stands for election.

It writes down for itself what was acknowledged and when (`records`), and what it did under the lock
into the protected file (`stamps`). It stops when its standard input closes, finishing what is under
way. Nobody else looks into its memory: the judge only gets its files.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import copycat

from .records import Records
from .stamps import StampFile
from .words import WordCount, words_of

WORDS = "/demo/words"
COUNTER = "/demo/counter"
LOCK = "/demo/lock"
ELECTION = "/demo/election"
BOARD = "/demo/board"

TURN_S = 0.002
BETWEEN_TURNS_S = 0.01
REIGN_S = 2.0
BEAT_S = 0.05
REPORT_S = 0.1
OPERATION_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What one worker is told: who it is, where things are, and its share of the text."""

    name: str
    cluster: str
    text: str
    records: str
    stamps: str
    share: int  # takes every ``shares``-th word, from this one on
    shares: int
    word_tasks: int = 16
    increment_tasks: int = 4

    def as_argument(self) -> str:
        """As one argument of the command line."""
        return json.dumps(asdict(self))


class Worker:
    """One client at work."""

    def __init__(self, orders: Orders, cc: copycat.Copycat, records: Records) -> None:
        self._orders = orders
        self._cc = cc
        self._records = records
        self._words = words_of(Path(orders.text).read_text(encoding="utf-8", errors="replace"))
        self._stamps = StampFile(Path(orders.stamps))
        self._stop = asyncio.Event()
        self._taken = itertools.count()
        self.words_taken = 0
        self.increments_tried = 0

    async def work(self) -> None:
        """Work until standard input closes."""
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), self._told)
        orders = self._orders
        words = self._words
        share = words[orders.share :: orders.shares] or words
        # Those that always wait are cancelled at the end; the others finish what they began.
        waiting = [asyncio.create_task(job()) for job in (self._take_turns, self._lead)]
        reporting = asyncio.create_task(self._report())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(orders.word_tasks):
                    group.create_task(self._count(share))
                for _ in range(orders.increment_tasks):
                    group.create_task(self._increment())
        finally:
            for task in (*waiting, reporting):
                task.cancel()
            results = await asyncio.gather(*waiting, reporting, return_exceptions=True)
            now = time.monotonic()
            self._records.note("end", now, self.words_taken, self.increments_tried)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    def _told(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop.set()

    # -- what it does --------------------------------------------------------------------------

    async def _count(self, words: list[str]) -> None:
        """Count the next word, again and again; the text has no end."""
        machine = self._cc.machine(WORDS, WordCount)
        stop, records = self._stop, self._records
        while not stop.is_set():
            self.words_taken = (position := next(self._taken)) + 1
            word = words[position % len(words)]
            begin = time.monotonic()
            with self._failures("word", word):
                await machine.add(word)
                now = time.monotonic()
                records.done("word", now, now - begin, json.dumps(word))

    async def _increment(self) -> None:
        """Increment the shared counter."""
        counter = self._cc.long(COUNTER)
        while not self._stop.is_set():
            self.increments_tried += 1
            begin = time.monotonic()
            with self._failures("increment", ""):
                value = await counter.increment()
                now = time.monotonic()
                self._records.done("increment", now, now - begin, str(value))

    async def _take_turns(self) -> None:
        """Take the lock, stamp the file, give it back."""
        lock = self._cc.lock(LOCK)
        while not self._stop.is_set():
            token = 0
            try:
                async with lock as held:
                    token = held.token
                    self._noted("lock", await self._turn(token), token)
            except copycat.LockLost:
                self._noted("lock", "lost", token)
            except copycat.CopycatError as problem:
                self._failed("lock", str(problem), problem)
            await asyncio.sleep(BETWEEN_TURNS_S)

    async def _turn(self, token: int) -> str:
        """What the lock protects; a body that is cancelled stamps its end as well."""
        stamps, name = self._stamps, self._orders.name
        if not stamps.write(token, name, "begin"):
            return "refused"
        ended = False
        try:
            await asyncio.sleep(TURN_S)  # the work that must not be disturbed
        finally:
            ended = stamps.write(token, name, "end")
        return "end" if ended else "refused"

    async def _lead(self) -> None:
        """Stand for election; lead for a while, then let others lead."""
        election = self._cc.election(ELECTION)
        board: copycat.AsyncMap[str, list[Any]] = self._cc.map(BOARD)
        while not self._stop.is_set():
            token = 0
            try:
                async with election as term:
                    token = term.token
                    self._noted("lead", "begin", token)
                    try:
                        end = time.monotonic() + REIGN_S
                        while time.monotonic() < end:
                            await board.put("leader", [self._orders.name, token])
                            await asyncio.sleep(BEAT_S)
                    finally:
                        self._noted("lead", "end", token)
            except copycat.LeadershipLost:
                self._noted("lead", "lost", token)
            except copycat.CopycatError as problem:
                self._failed("lead", str(problem), problem)
            await asyncio.sleep(BETWEEN_TURNS_S)

    async def _report(self) -> NoReturn:
        """Tell the conductor how far we are, and keep the records on file."""
        while True:
            await asyncio.sleep(REPORT_S)
            self._records.flush()
            try:
                sys.stdout.write(f"{self._records.acknowledged}\n")
                sys.stdout.flush()
            except BrokenPipeError:  # the conductor was killed: nobody waits for anything now
                os._exit(1)

    # -- what it writes down -------------------------------------------------------------------

    def _noted(self, what: str, event: str, token: int) -> None:
        self._records.note(what, time.monotonic(), event, token)

    @contextlib.contextmanager
    def _failures(self, what: str, detail: str) -> Any:
        """An operation that fails is written down as such; the work goes on."""
        try:
            yield
        except copycat.CopycatError as problem:
            self._failed(what, detail, problem)

    def _failed(self, what: str, detail: str, problem: copycat.CopycatError) -> None:
        self._records.note("failed", time.monotonic(), what, detail, problem.applied, str(problem))


async def work(orders: Orders) -> None:
    """One worker, from its connection to its end."""
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _give_up)  # until there is work
    with Records(Path(orders.records)) as records:
        async with copycat.connect(
            orders.cluster, machines=[WordCount], name=orders.name, timeout=OPERATION_TIMEOUT_S
        ) as cc:
            await Worker(orders, cc, records).work()


def _give_up() -> None:
    """Standard input closed before there was anything to finish."""
    if not os.read(sys.stdin.fileno(), 4096):
        os._exit(1)


def main() -> None:
    """The process: its orders are its only argument."""
    orders = Orders(**json.loads(sys.argv[1]))
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ModuleNotFoundError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    job: Coroutine[Any, Any, None] = work(orders)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(job)


if __name__ == "__main__":
    main()
