"""Threads against tasks: blocking and asynchronous clients at the same concurrency, same members.

::

    python -m benchmarks.blocking --callers 1,4,16 --seconds 3

Three real server processes with fsync, 64-byte values, both in turns. "calls/wake" is how many
calls of all threads the loop found when it was woken. Look at the ratio, not at the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import copycat
from benchmarks.cluster import VALUE
from benchmarks.members import Members

ROUNDS = 4
OPS = ("write", "linearizable read")


def blocking(addresses: str, op: str, callers: int, seconds: float) -> tuple[float, float]:
    """Operations per second by threads, and calls per wake-up."""
    counts = [0] * callers
    with copycat.sync.connect(addresses, timeout=30.0) as cc:
        m = cc.map("/bench")
        m.put("k", VALUE)
        wakes = _counted(cc._portal)
        call: Callable[[], Any] = (
            (lambda: m.put("k", VALUE)) if op == OPS[0] else lambda: m.get("k")
        )
        stop = time.perf_counter() + seconds

        def work(number: int) -> None:
            while time.perf_counter() < stop:
                call()
                counts[number] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts) / seconds, sum(counts) / max(1, wakes[0])


def _counted(portal: Any) -> list[int]:
    """How often the portal's loop is woken from now on."""
    wakes, drain = [0], portal._drain

    def counting() -> None:
        wakes[0] += 1
        drain()

    portal._drain = counting
    return wakes


async def asynchronous(addresses: str, op: str, callers: int, seconds: float) -> float:
    """Operations per second by tasks."""
    count = 0
    async with copycat.connect(addresses, timeout=30.0) as cc:
        m = cc.map("/bench")
        await m.put("k", VALUE)
        stop = time.perf_counter() + seconds

        async def work() -> None:
            nonlocal count
            while time.perf_counter() < stop:
                await (m.put("k", VALUE) if op == OPS[0] else m.get("k"))
                count += 1

        await asyncio.gather(*(work() for _ in range(callers)))
    return count / seconds


def on_a_fast_loop(op: str, callers: int, seconds: float, addresses: str) -> float:
    """`asynchronous`, on uvloop where there is one, as the blocking client's loop is."""
    factory: Any = None
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        pass
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(asynchronous(addresses, op, callers, seconds))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocking", description=__doc__)
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--callers", type=numbers, default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--data", help="a folder for the members' data; a temporary one if absent")
    options = parser.parse_args()
    with Members(options.data, fsync=True) as members:
        addresses = members.addresses
        print(f"{'operation':<18} {'callers':>8} {'tasks/s':>9} {'threads/s':>10} {'ratio':>6} "
              f"{'calls/wake':>11}")  # fmt: skip
        for op in OPS:
            for callers in options.callers:
                part = options.seconds / ROUNDS
                tasks = threads = gathered = 0.0
                for _ in range(ROUNDS):
                    tasks += on_a_fast_loop(op, callers, part, addresses) / ROUNDS
                    rate, per_wake = blocking(addresses, op, callers, part)
                    threads, gathered = threads + rate / ROUNDS, gathered + per_wake / ROUNDS
                print(f"{op:<18} {callers:>8} {tasks:>9,.0f} {threads:>10,.0f} "
                      f"{threads / tasks:>6.2f} {gathered:>11.2f}", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
