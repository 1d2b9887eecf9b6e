"""A command as a user runs it, and a cluster of real processes to run it against."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from copycat.demo.servers import Servers
from copycat.testing.ports import free_ports

Copycat = Callable[..., "subprocess.CompletedProcess[str]"]


def run_copycat(
    *arguments: str, timeout: float = 20.0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``copycat ARGUMENTS`` to its end."""
    inherited = {key: value for key, value in os.environ.items() if key != "COPYCAT_URL"}
    return subprocess.run(
        [sys.executable, "-m", "copycat", *arguments],
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Member:
    """One ``copycat serve`` that is ended with the test."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "copycat", "serve", *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
            )

    @property
    def said(self) -> str:
        """What it printed so far."""
        return self.log.read_text()

    def wait_for(self, text: str, timeout: float = 15.0) -> None:
        """Wait until it printed ``text``."""
        deadline = time.monotonic() + timeout
        while text not in self.said:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} in: {self.said}")
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(10)

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Member]]:
    """Start ``copycat serve ARGUMENTS``."""
    started: list[Member] = []

    def start(*arguments: str, **environment: str) -> Member:
        member = Member(tmp_path / f"serve-{len(started)}.log", *arguments, **environment)
        started.append(member)
        return member

    yield start
    for member in started:
        member.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three real member processes; whoever breaks them mends them."""
    with asyncio.Runner() as runner:
        servers = Servers(tmp_path_factory.mktemp("cluster"))
        runner.run(servers.__aenter__())
        yield servers
        runner.run(servers.__aexit__(None, None, None))


@pytest.fixture
def port() -> int:
    """A port where nobody listens."""
    return free_ports(1)[0]
