"""The three server processes: started, killed with SIGKILL, started again, and always cleaned up.

Each is an ordinary ``copycat serve`` in a process group of its own; nothing is shared with the demo
but an address. Processes are ended by their id only, and end by themselves when the demo is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from ..cli.probe import Probe, member_status
from ..errors import CopycatError, UnavailableError
from ..types import Address

NAMES = ("n1", "n2", "n3")
MACHINE = "copycat.demo.machines:WordCount"
STARTED_WITHIN_S = 15.0
POLL_S = 0.005
PORTS = range(20_000, 32_000)
"""Below what systems hand out to outgoing connections, so that nobody takes a dead server's port."""


class Servers:
    """Three members on loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.addresses = dict(zip(NAMES, free_addresses(len(NAMES)), strict=True))
        self._processes: dict[str, Process] = {}

    def pid(self, name: str) -> int:
        """The process id of a member."""
        return self._processes[name].pid

    async def start(self, name: str) -> None:
        """Start a member's process; it may not be ready yet."""
        members = ",".join(f"{name}={address}" for name, address in self.addresses.items())
        arguments = ["-m", "copycat", "serve", MACHINE, "--name", name, "--members", members]
        arguments += ["--data", str(self._folder / name), "--stop-on-eof"]
        with (self._folder / f"{name}.log").open("ab") as output:
            self._processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, stdin=PIPE, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    async def kill(self, name: str) -> None:
        """SIGKILL: no goodbye, no flush."""
        process = self._processes[name]
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()

    async def stop(self) -> None:
        """End all members in good order, and those that do not listen without."""
        await end(list(self._processes.values()))

    async def ready(self) -> tuple[str, int]:
        """Wait until all members run and agree on a leader; returns it and its term."""
        try:
            async with asyncio.timeout(STARTED_WITHIN_S):
                while True:
                    found = await self.statuses()
                    leaders = {(status["leader"], status["term"]) for status in found.values()}
                    if len(found) == len(NAMES) and len(leaders) == 1:
                        leader, term = leaders.pop()
                        if leader is not None:
                            return leader, term
                    self._check_alive()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise UnavailableError(
                f"the servers were not ready within {STARTED_WITHIN_S:g} s: {self.last_words()}"
            ) from None

    async def statuses(self) -> dict[str, dict[str, Any]]:
        """What each member that answers says about itself."""
        asked = [member_status(address) for address in self.addresses.values()]
        answers = zip(self.addresses, await asyncio.gather(*asked), strict=True)
        return {n: a for n, a in answers if a is not None and "commit_index" in a}

    async def leader(self) -> tuple[str, int] | None:
        """Who leads the highest term, and that term."""
        found = await self.statuses()
        leading = [(s["term"], name) for name, s in found.items() if s["role"] == "leader"]
        return (max(leading)[1], max(leading)[0]) if leading else None

    async def successor(self, killed: str, term: int, timeout: float) -> tuple[str, int, float]:
        """Wait for the leader of a higher term: its name, its term, and when it was seen.

        Raises ``TimeoutError``.
        """
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
            first: asyncio.Future[tuple[str, int, float]]
            first = asyncio.get_running_loop().create_future()
            others = [name for name in NAMES if name != killed]
            watches = [group.create_task(self._watch(name, term, first)) for name in others]
            found = await first
            for watch in watches:
                watch.cancel()
        return found

    async def _watch(
        self, name: str, term: int, first: asyncio.Future[tuple[str, int, float]]
    ) -> None:
        while not first.done():
            with contextlib.suppress(CopycatError):
                async with Probe(self.addresses[name]) as member:
                    while not first.done():
                        status = await member.status()
                        if status["role"] == "leader" and status["term"] > term:
                            if not first.done():
                                first.set_result((name, status["term"], time.monotonic()))
                            return
                        await asyncio.sleep(POLL_S)
            await asyncio.sleep(POLL_S)

    async def caught_up(self, name: str, timeout: float) -> float:
        """Wait until ``name`` has applied what is committed now; returns when it was seen to.

        Raises ``TimeoutError``.
        """
        async with asyncio.timeout(timeout):
            goal = 0
            while True:
                found = await self.statuses()
                if not goal and found:
                    goal = max(status["commit_index"] for status in found.values())
                if goal and name in found and found[name]["applied_index"] >= goal:
                    return time.monotonic()
                await asyncio.sleep(0.02)

    def last_words(self) -> str:
        """The last line each server wrote."""
        said = []
        for name in NAMES:
            path = self._folder / f"{name}.log"
            lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
            said.append(f"{name}: {lines[-1] if lines else 'nothing'}")
        return "; ".join(said)

    def _check_alive(self) -> None:
        for name, process in self._processes.items():
            if process.returncode is not None:
                raise UnavailableError(f"the server {name} ended by itself: {self.last_words()}")


async def end(processes: list[Process], patience_s: float = 3.0) -> None:
    """Ask processes to stop by closing their standard input; after ``patience_s``, kill them."""
    for process in processes:
        if process.stdin is not None:
            process.stdin.close()
    waits = [asyncio.ensure_future(process.wait()) for process in processes]
    if not waits:
        return
    try:
        await asyncio.wait(waits, timeout=patience_s)
    finally:
        for process in processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait(waits)


def free_addresses(count: int) -> list[Address]:
    """Loopback ports that are free now; kept apart by holding all of them while choosing."""
    chance = random.SystemRandom()
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            candidate = socket.socket()
            held.append(candidate)
            try:
                candidate.bind(("127.0.0.1", chance.choice(PORTS)))
            except OSError:
                held.pop().close()
        return [Address("127.0.0.1", each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()


__all__ = ["NAMES", "Servers", "end", "free_addresses"]
