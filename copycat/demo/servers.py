"""Server processes on loopback: ``copycat serve`` started, killed with SIGKILL, started again.

What it starts it also ends, whatever happens: a server stops when the pipe on its standard input
closes, be it because this process died. It serves the demo, the benchmarks and the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ..cli.probe import member_status
from ..errors import UnavailableError
from ..testing.ports import free_ports
from ..types import Address

_LOG_TAIL = 2000


class Servers:
    """The member processes of one cluster: ``async with Servers(root) as servers``.

    Entering returns when every member knows a leader.

    Args:
        root: a directory; data directories and logs come to lie beneath it.
        size: members, named "n1", "n2", ...
        machines: ``module:attribute`` of state machines.
        options: further arguments of ``copycat serve``.
        environment: variables on top of this process's own.
        timeout: seconds until all have to be ready.
    """

    def __init__(
        self,
        root: Path,
        *,
        size: int = 3,
        machines: Sequence[str] = (),
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = 20.0,
    ) -> None:
        self.root = root
        self.addresses = {
            f"n{number}": Address("127.0.0.1", port)
            for number, port in enumerate(free_ports(size), start=1)
        }
        self._machines = machines
        self._options = options
        self._environment = {**os.environ, **(environment or {})}
        self._timeout = timeout
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def url(self) -> str:
        """All addresses, as ``copycat.connect`` takes them."""
        return ",".join(map(str, self.addresses.values()))

    @property
    def pids(self) -> dict[str, int]:
        """The running members' process ids."""
        return {name: process.pid for name, process in self._processes.items()}

    def data(self, name: str) -> Path:
        """The data directory of a member."""
        return self.root / name

    def log(self, name: str) -> str:
        """The end of what a member printed."""
        with contextlib.suppress(OSError):
            text = (self.root / f"{name}.log").read_text(errors="replace")
            return text[-_LOG_TAIL:].strip()
        return ""

    async def start(self, name: str) -> None:
        """Start a member's process; see `ready`."""
        members = ",".join(f"{each}={address}" for each, address in self.addresses.items())
        with (self.root / f"{name}.log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "copycat", "serve", *self._machines,
                "--name", name, "--members", members, "--data", str(self.data(name)),
                "--stop-on-eof", *self._options,
                stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the one who asked for it
            )  # fmt: skip

    async def ready(self, name: str) -> None:
        """Wait until the member knows a leader; raises `UnavailableError` with its last words."""
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            process = self._processes[name]
            if process.returncode is not None:
                raise UnavailableError(
                    f"{name} ended with exit code {process.returncode}: {self.log(name)}"
                )
            status = await member_status(self.addresses[name])
            if status is not None and status["leader"]:
                return
            await asyncio.sleep(0.02)
        raise UnavailableError(f"{name} was not ready within {self._timeout:g} s: {self.log(name)}")

    async def kill(self, name: str) -> float:
        """SIGKILL a member; the monotonic time at which the signal went out."""
        process = self._processes.pop(name)
        at = time.monotonic()
        process.kill()
        await process.wait()
        return at

    async def stop(self, name: str, timeout: float = 5.0) -> int:
        """Have a member stop in good order; its exit code."""
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        return await _ended(process, timeout)

    async def __aenter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            for name in self.addresses:
                await self.start(name)
            await asyncio.gather(*map(self.ready, self.addresses))
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        """Stop all; at once where something went wrong already."""
        await asyncio.gather(*(self.stop(name) for name in list(self._processes)))


async def _ended(process: asyncio.subprocess.Process, timeout: float) -> int:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(timeout):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()
