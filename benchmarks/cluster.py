"""End to end: three real server processes with fsync, one client process, one await per operation.

::

    python -m benchmarks.cluster --in-flight 1,64,256,1024 --seconds 5 --json out.json
    python -m benchmarks.cluster --connections 256 --in-flight 256      a connection per operation
    python -m benchmarks.cluster --pure                                 everything in pure mode
    python -m benchmarks.cluster --both                                 both modes, side by side

Writes are ``await m.put(k, v)`` and reads ``await m.get(k)``, linearizable by a round and then by a
lease, 64-byte values, from as many tasks as operations are in flight. Machines are shared and
noisy: read ratios of one run, and look at the raw fdatasync latency that is printed with a table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

from benchmarks.members import Members, Point, raw_sync_us
from copycat.types import Consistency

VALUE = b"v" * 64
KEYS = 10_000


async def load(clients: list[object], op: str, in_flight: int, seconds: float) -> array[float]:
    """Latencies in seconds of all operations that ended within the time."""
    latencies = array("d")
    stop = time.perf_counter() + seconds
    clock = time.perf_counter

    async def worker(number: int) -> None:
        m = clients[number % len(clients)].map("/bench")  # type: ignore[attr-defined]
        position = number * 7919
        began = clock()
        while began < stop:
            position += 1
            key = f"k{position % KEYS:07d}"
            if op == "write":
                await m.put(key, VALUE)
            elif op == "lease read":
                await m.get(key, consistency=Consistency.LINEARIZABLE_LEASE)
            else:
                await m.get(key)
            ended = clock()
            latencies.append(ended - began)
            began = ended

    await asyncio.gather(*(worker(number) for number in range(in_flight)))
    return latencies


async def measure(options: argparse.Namespace, members: Members) -> list[Point]:
    """All points of one mode."""
    import copycat

    points: list[Point] = []
    async with contextlib.AsyncExitStack() as stack:
        clients: list[object] = []
        for _ in range(options.connections):
            client = copycat.connect(members.addresses, timeout=30.0)
            clients.append(await stack.enter_async_context(client))
        await load(clients, "write", max(64, options.connections), min(1.0, options.seconds))
        gc.collect()
        gc.freeze()
        for op in ("write", "linearizable read", "lease read"):
            for in_flight in options.in_flight:
                servers, own, began = members.cpu_s(), time.process_time(), time.perf_counter()
                latencies = await load(clients, op, in_flight, options.seconds)
                elapsed = time.perf_counter() - began
                servers, own = members.cpu_s() - servers, time.process_time() - own
                ordered = sorted(latencies)
                count = len(ordered)
                point = Point(
                    op, in_flight, options.connections, len(VALUE), round(count / elapsed, 1),
                    round(ordered[count // 2] * 1e3, 4),
                    round(ordered[min(count - 1, int(count * 0.99))] * 1e3, 4),
                    round(servers / count * 1e4, 5), round(own / count * 1e4, 5),
                )  # fmt: skip
                points.append(point)
                print(point.line(), flush=True)
    return points


def run_mode(options: argparse.Namespace) -> dict[str, object]:
    """One mode in this process: start the members, measure, stop them."""
    import copycat

    if options.pure == copycat.COMPILED:
        raise SystemExit(
            "COPYCAT_PURE=1 did not select the pure mode"
            if options.pure
            else "this interpreter has no compiled core: build it (make test does), or use --pure"
        )
    mode = "pure" if options.pure else "compiled"
    with Members(options.data, fsync=True) as members:
        label = " on tmpfs: fsync costs nothing here" if members.on_tmpfs else ""
        print(f"\n{mode}, fsync always{label}; raw fdatasync of 256 bytes p50 "
              f"{raw_sync_us(members.root):.0f} us")  # fmt: skip
        print(Point.header())
        try:
            import uvloop

            points = uvloop.run(measure(options, members))
        except ImportError:
            points = asyncio.run(measure(options, members))
    return {
        "mode": mode,
        "fsync": "tmpfs" if members.on_tmpfs else "always",
        "machine": machine(),
        "points": [point.as_dict() for point in points],
    }


def machine() -> str:
    """What this was measured on."""
    model = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return (
        f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}, "
        f"CPython {platform.python_version()}"
    )


def run_both(arguments: list[str]) -> int:
    """Each mode in a process of its own, then the ratios."""
    results = {}
    for mode in ("compiled", "pure"):
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            command = [sys.executable, "-m", "benchmarks.cluster", *arguments, "--json", out.name]
            subprocess.run(command + ["--pure"] * (mode == "pure"), check=True)
            results[mode] = json.loads(Path(out.name).read_text())
    print("\ncompiled against pure, operations per second")
    for one, other in zip(results["compiled"]["points"], results["pure"]["points"], strict=True):
        ratio = one["ops_per_s"] / other["ops_per_s"]
        print(f"{one['op']:<18} {one['in_flight']:>6}  {one['ops_per_s']:>10,.0f}  "
              f"{other['ops_per_s']:>10,.0f}  {ratio:5.2f}x")  # fmt: skip
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--in-flight", type=numbers, default=[1, 64, 256, 1024])
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--data", help="a folder for the members' data; a temporary one if absent")
    parser.add_argument("--pure", action="store_true", help="pure mode in all processes")
    parser.add_argument("--both", action="store_true", help="both modes and their ratios")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.both:
        rest = [argument for argument in sys.argv[1:] if argument != "--both"]
        return run_both(rest)
    if options.pure and os.environ.get("COPYCAT_PURE") != "1":
        command = [sys.executable, "-m", "benchmarks.cluster", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, "COPYCAT_PURE": "1"}).returncode
    result = run_mode(options)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
