"""The client processes, as seen by the demo: started, listened to, asked to finish.

What they report here only moves the progress bar; the proof is in the logs they leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from ..errors import UnavailableError
from ..types import Address
from .records import Worker, read_worker

COUNT = 3
FINISHED_WITHIN_S = 30.0


class Workers:
    """Several processes that use the cluster."""

    def __init__(self, folder: Path, text: Path, addresses: list[Address]) -> None:
        self._folder = folder
        self._text = text
        self._addresses = ",".join(map(str, addresses))
        self._processes: dict[str, Process] = {}
        self._progress: dict[str, int] = {}
        self._listening: list[asyncio.Task[None]] = []

    @property
    def stamps(self) -> Path:
        """The file that is written under the lock."""
        return self._folder / "stamps.jsonl"

    @property
    def acknowledged(self) -> int:
        """Acknowledged operations, as last reported."""
        return sum(self._progress.values())

    def check_alive(self) -> None:
        """Raise `UnavailableError` if a client ended before it was asked to."""
        for name, process in self._processes.items():
            if process.returncode is not None:
                raise UnavailableError(
                    f"the client {name} ended with {process.returncode}: {self._said(name)}"
                )

    async def start(self) -> None:
        """Start all of them; they begin to work at once."""
        for number in range(COUNT):
            name = f"w{number + 1}"
            arguments = ["-m", "copycat.demo.worker", "--number", str(number), "--of", str(COUNT)]
            arguments += ["--addresses", self._addresses, "--input", str(self._text)]
            arguments += ["--log", str(self._log(name)), "--stamps", str(self.stamps)]
            with (self._folder / f"{name}.log").open("ab") as output:
                self._processes[name] = process = await asyncio.create_subprocess_exec(
                    sys.executable, *arguments, stdin=PIPE, stdout=PIPE, stderr=output,
                    start_new_session=True,
                )  # fmt: skip
            self._listening.append(asyncio.create_task(self._listen(name, process)))

    async def finish(self) -> dict[str, int | None]:
        """Have them finish what they began; their exit codes, None for one that did not end."""
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
        waits = [asyncio.ensure_future(process.wait()) for process in self._processes.values()]
        await asyncio.wait(waits, timeout=FINISHED_WITHIN_S)
        return {name: process.returncode for name, process in self._processes.items()}

    async def stop(self) -> None:
        """End what still runs."""
        for process in self._processes.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        await asyncio.gather(*(process.wait() for process in self._processes.values()))
        await asyncio.gather(*self._listening, return_exceptions=True)

    def records(self) -> list[Worker]:
        """What they wrote down; raises ``ValueError`` for a damaged log."""
        return [read_worker(name, self._log(name)) for name in self._processes]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"

    def _said(self, name: str) -> str:
        lines = (self._folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    async def _listen(self, name: str, process: Process) -> None:
        if process.stdout is None:
            return
        async for line in process.stdout:
            self._progress[name] = json.loads(line)["acknowledged"]
