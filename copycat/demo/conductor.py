"""The conductor: starts servers and clients, kills leaders, brings them back, calls the judge.

It takes no part in the work. What it prints at the end is computed by `judge` from records that
others made. Whatever it starts it also ends, on Ctrl-C too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import node
from .._core import COMPILED
from ..cli.common import lies_in_memory
from ..cli.probe import ask_for_digest, digest_of
from ..errors import CopycatError
from ..handles import Copycat
from . import judge, records
from .judge import Check, Client, Kill
from .screen import Scene, Screen
from .servers import Servers
from .stamps import StampFile
from .watch import Watch
from .words import WordCount, words_of
from .worker import COUNTER, WORDS, Orders

MACHINE = "copycat.demo.words:WordCount"

OPENING_S = 1.5
DOWN_S = 0.8
PAUSE_S = 1.0
CLOSING_S = 1.0
ELECTION_TIMEOUT_S = 10.0
CATCH_UP_TIMEOUT_S = 15.0
WORKER_TIMEOUT_S = 15.0
SHOW_S = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to happen."""

    text: Path
    folder: Path
    kills: int = 2
    clients: int = 3
    members: int = 3

    @property
    def seconds(self) -> float:
        """About how long the show takes."""
        return OPENING_S + self.kills * (DOWN_S + PAUSE_S + 0.7) + CLOSING_S


@dataclass(frozen=True, slots=True)
class Report:
    """What came out; ``ok`` if every check holds."""

    checks: tuple[Check, ...]
    speed: dict[str, float]
    problems: tuple[str, ...]
    setting: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether everything was as it must be."""
        return all(check.ok for check in self.checks) and not self.problems

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {
            "ok": self.ok,
            **self.setting,
            "speed": self.speed,
            **{check.name: {"ok": check.ok, **check.figures} for check in self.checks},
            "problems": list(self.problems),
        }


class Conductor:
    """One performance of the demo."""

    def __init__(self, plan: Plan, screen: Screen) -> None:
        self._plan = plan
        self._screen = screen
        self._servers = Servers(plan.folder, size=plan.members, machines=[MACHINE])
        self._watch = Watch(self._servers.addresses)
        self._workers: dict[str, asyncio.subprocess.Process] = {}
        self._writes: dict[str, int] = {}
        self._kills: list[Kill] = []
        self._problems: list[str] = []
        self._begin = time.monotonic()

    async def perform(self) -> Report:
        """From the first process to the verdict; raises `CopycatError` if nothing can start."""
        async with self._servers as servers, self._watch:
            pids = ", ".join(f"{name} pid {pid}" for name, pid in servers.pids.items())
            self._screen.say(f"{len(servers.pids)} servers run: {pids}")
            reading: list[asyncio.Task[None]] = []
            showing = asyncio.create_task(self._show())
            try:
                for number in range(self._plan.clients):
                    reading.append(await self._start_worker(number))
                self._screen.say(f"{self._plan.clients} clients work, each in its own process")
                await self._drama()
                await self._stop_workers()
                await asyncio.gather(*reading)
            finally:
                for task in (*reading, showing):
                    task.cancel()
                self._kill_workers()
            return await self._verdict()

    # -- the plot ------------------------------------------------------------------------------

    async def _drama(self) -> None:
        """Let them work, kill leaders, let them work on."""
        self._begin = time.monotonic()
        await asyncio.sleep(OPENING_S)
        for _ in range(self._plan.kills):
            await self._kill_the_leader()
            await asyncio.sleep(PAUSE_S)
        await asyncio.sleep(CLOSING_S)

    async def _kill_the_leader(self) -> None:
        leader, term = self._watch.leader, self._watch.term
        if leader is None:
            self._problems.append("there was no leader to kill")
            return
        pid = self._servers.pids[leader]
        at = await self._servers.kill(leader)
        self._watch.seen.pop(leader, None)
        self._screen.say(f"killed the leader {leader} (SIGKILL to pid {pid}, term {term})")
        found = await self._watch.new_leader(term, ELECTION_TIMEOUT_S)
        if found is None:
            self._problems.append(f"no new leader within {ELECTION_TIMEOUT_S:g} s")
            self._kills.append(Kill(leader, term, at))
            return
        elected_at, new_term, new_leader = found
        self._screen.say(f"{new_leader} leads term {new_term} after {elected_at - at:.3f} s")
        await asyncio.sleep(DOWN_S)
        caught_up = await self._bring_back(leader)
        self._kills.append(Kill(leader, term, at, new_leader, new_term, elected_at, caught_up))

    async def _bring_back(self, name: str) -> float | None:
        """Restart ``name``; seconds until it had applied what was committed at its restart."""
        begin = time.monotonic()
        target = max(status["commit_index"] for status in self._watch.seen.values())
        await self._servers.start(name)
        while time.monotonic() < begin + CATCH_UP_TIMEOUT_S:
            status = self._watch.seen.get(name)
            if status is not None and status["applied_index"] >= target:
                seconds = time.monotonic() - begin
                self._screen.say(f"{name} is back, and caught up after {seconds:.1f} s")
                return seconds
            await asyncio.sleep(0.02)
        self._problems.append(f"{name} did not catch up within {CATCH_UP_TIMEOUT_S:g} s")
        return None

    # -- the clients ---------------------------------------------------------------------------

    def _records(self, number: int) -> Path:
        return self._plan.folder / f"client-{number + 1}.jsonl"

    async def _start_worker(self, number: int) -> asyncio.Task[None]:
        plan = self._plan
        name = f"client-{number + 1}"
        orders = Orders(
            name=name,
            cluster=self._servers.url,
            text=str(plan.text),
            records=str(self._records(number)),
            stamps=str(plan.folder / "stamps.jsonl"),
            share=number,
            shares=plan.clients,
        )
        with (plan.folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "copycat.demo.worker", orders.as_argument(),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._workers[name] = process
        return asyncio.create_task(self._read(name, process))

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        """What a worker says on its way: how many operations were acknowledged."""
        if process.stdout is not None:
            async for line in process.stdout:
                self._writes[name] = int(line)

    async def _stop_workers(self) -> None:
        for process in self._workers.values():
            if process.stdin is not None:
                process.stdin.close()
        for name, process in self._workers.items():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WORKER_TIMEOUT_S):
                    await process.wait()
            if process.returncode != 0:
                log = (self._plan.folder / f"{name}.log").read_text(errors="replace")
                code = process.returncode
                self._problems.append(f"{name} ended with {code}: {log[-1000:].strip()}")

    def _kill_workers(self) -> None:
        for process in self._workers.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    # -- the show ------------------------------------------------------------------------------

    async def _show(self) -> None:
        """Keep the screen up to date."""
        before: list[tuple[float, int]] = []
        while True:
            now, writes = time.monotonic(), sum(self._writes.values())
            before = [each for each in before if each[0] > now - 1] + [(now, writes)]
            seconds = now - before[0][0]
            rate = (writes - before[0][1]) / seconds if seconds else 0.0
            watch = self._watch
            self._screen.show(
                Scene(
                    now - self._begin, self._plan.seconds, writes, rate,
                    watch.leader, watch.term, watch.members(),
                )
            )  # fmt: skip
            await asyncio.sleep(SHOW_S)

    # -- the verdict ---------------------------------------------------------------------------

    async def _verdict(self) -> Report:
        plan = self._plan
        async with node.connect(
            self._servers.url, machines=[WordCount], name="conductor", timeout=20
        ) as cc:
            found = await cc.machine(WORDS, WordCount).table()
            counter = await cc.long(COUNTER).get()
            replicas = await self._digests(cc)
        clients = [
            Client.of(name, records.read(self._records(number)))
            for number, name in enumerate(self._workers)
        ]
        stamps = StampFile(plan.folder / "stamps.jsonl").read()
        text = words_of(plan.text.read_text(encoding="utf-8", errors="replace"))
        checks = (
            judge.check_words(clients, text, found),
            judge.check_increments(clients, counter),
            judge.check_lock(clients, stamps),
            judge.check_leaders(clients),
            replicas,
            judge.check_failover(clients, self._kills, plan.kills),
        )
        failures = [line for client in clients for line in client.failures]
        return Report(
            checks, judge.speed(clients), tuple(self._problems + failures[:10]), self._setting()
        )

    async def _digests(self, cc: Copycat) -> Check:
        index = await ask_for_digest(cc)
        names = list(self._servers.addresses)
        answers = await asyncio.gather(
            *(digest_of(self._servers.addresses[name], index) for name in names),
            return_exceptions=True,
        )
        digests: dict[str, bytes | None] = {}
        for name, answer in zip(names, answers, strict=True):
            digests[name] = answer if isinstance(answer, bytes) else None
            if isinstance(answer, CopycatError):
                self._problems.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
        return judge.check_replicas(index, digests)

    def _setting(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "mode": "compiled" if COMPILED else "pure",
            "servers": plan.members,
            "clients": plan.clients,
            "input": str(plan.text),
            "data": str(plan.folder),
            "tmpfs": lies_in_memory(plan.folder),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        }
