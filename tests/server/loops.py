"""Helpers for tests that run an event loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from copycat.connection import FrameProtocol
from copycat.types import Address

_PORTS = itertools.cycle(range(10_000 + os.getpid() * 97 % 10_000, 30_000))
_AT_END: list[Callable[[], None]] = []
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(main: Coroutine[Any, Any, None], loop: str = "uvloop", timeout: float = 20.0) -> None:
    """Run ``main`` to its end; an exception that a callback swallowed fails the test."""
    swallowed: list[dict[str, Any]] = []

    async def guarded() -> None:
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, context: swallowed.append(context))
        _AT_END.clear()
        try:
            async with asyncio.timeout(timeout):
                await main
        finally:
            for close in _AT_END:
                close()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(guarded())
    assert not swallowed, swallowed


def at_end(close: Callable[[], None]) -> None:
    """Have `run` call this before it closes its loop, however the test ends."""
    _AT_END.append(close)


async def until(holds: Callable[[], object], timeout: float = 5.0) -> None:
    """Wait until a condition of the outside world holds."""
    async with asyncio.timeout(timeout):
        while not holds():
            await asyncio.sleep(0.001)


def free_port() -> int:
    """A port nobody listens on now, and that no outgoing connection is given by the kernel."""
    while True:
        port = next(_PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def local(port: int = 0) -> Address:
    """A loopback address."""
    return Address("127.0.0.1", port)


class Recorder:
    """A connection's owner that writes down what it is told."""

    def __init__(self, **settings: Any) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.lost: list[BaseException | None] = []
        self.protocol = FrameProtocol(self._frame, self.lost.append, **settings)

    def _frame(self, type_: int, payload: bytes) -> None:
        self.frames.append((type_, payload))
