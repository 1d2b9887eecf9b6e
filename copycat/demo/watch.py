"""Watches every member from outside, several times in a tenth of a second: who leads which term.

One connection a member, asked in turn and dialled again whenever it breaks. What it sees is the
outside evidence for how long there was no leader.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from ..cli.probe import Probe
from ..errors import CopycatError
from ..types import Address

INTERVAL_S = 0.01
REDIAL_S = 0.05


class Watch:
    """The latest status of each member that answers: ``async with Watch(addresses) as watch``."""

    def __init__(self, addresses: Mapping[str, Address]) -> None:
        self.seen: dict[str, dict[str, Any]] = {}
        self.elected: list[tuple[float, int, str]] = []  # when, term, leader: as first seen
        self._addresses = dict(addresses)
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    @property
    def leader(self) -> str | None:
        """Who leads the highest term, among those that answer."""
        leading = [(s["term"], n) for n, s in self.seen.items() if s["role"] == "leader"]
        return max(leading)[1] if leading else None

    @property
    def term(self) -> int:
        """The highest term seen."""
        return max((status["term"] for status in self.seen.values()), default=0)

    def members(self) -> str:
        """The members in a few characters each."""
        signs = {"leader": "*", "follower": "+"}
        return " ".join(
            f"{name}{signs.get(self.seen[name]['role'], '?') if name in self.seen else '-'}"
            for name in self._addresses
        )

    async def new_leader(self, above: int, timeout: float) -> tuple[float, int, str] | None:
        """When a leader of a term above ``above`` was first seen, the term, and who it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    for found in self.elected:
                        if found[1] > above:
                            return found
                    self._news.clear()
                    await self._news.wait()
        return None

    async def __aenter__(self) -> Self:
        for name, address in self._addresses.items():
            self._tasks.append(asyncio.create_task(self._member(name, address)))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _member(self, name: str, address: Address) -> None:
        while True:
            with contextlib.suppress(CopycatError):
                async with Probe(address) as member:
                    while True:
                        self._saw(name, await member.status())
                        await asyncio.sleep(INTERVAL_S)
            self.seen.pop(name, None)
            await asyncio.sleep(REDIAL_S)

    def _saw(self, name: str, status: dict[str, Any]) -> None:
        self.seen[name] = status
        term = status["term"]
        if status["role"] == "leader" and all(term != known for _, known, _ in self.elected):
            self.elected.append((time.monotonic(), term, name))
            self._news.set()
