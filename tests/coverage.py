"""``python -m tests.coverage --seeds 40000..40059``: which lines simulated lives reach.

It lives the seeds in this process under ``coverage`` and tells, by file, how many of the lines of
the consensus, member, store, session and client code were run, and which were not. It needs the
package ``coverage``, of which the product knows nothing. Exit status 1 if a life failed or less was
reached than ``--least``.

What is not counted is left out by whole files, each with its reason, in `LEFT_OUT`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COUNTED = (
    "raft/*.py",
    "server/*.py",
    "_core/log.py",
    "_core/recovery.py",
    "_core/segment.py",
    "_core/terms.py",
    "_core/layout.py",
    "client.py",
    "cluster.py",
    "connection.py",
    "credentials.py",
    "handles.py",
    "handshake.py",
    "lifetime.py",
    "listeners.py",
    "outcomes.py",
    "pipeline.py",
    "pulse.py",
    "scopes.py",
    "session.py",
)
LEFT_OUT = {
    "server/clock.py": "the real clock; lives have a simulated one",
    "server/disk.py": "real descriptors; lives have a simulated disk, which is compared with it",
    "server/lanes.py": "the real disk's threads",
    "server/memory_disk.py": "the door of storage='memory', which lives do not use",
}
"""Files that no life can reach, and why. Real descriptors, sockets and threads have tests."""
NO_LINES = ("if TYPE_CHECKING:", r"^\s*\.\.\.$", r"-> .*: \.\.\.$")
"""What never runs anywhere: imports for the type checker, bodies of protocols."""


def measured() -> list[Path]:
    """The files that count."""
    package = ROOT / "copycat"
    found = sorted({path for pattern in COUNTED for path in package.glob(pattern)})
    return [path for path in found if path.relative_to(package).as_posix() not in LEFT_OUT]


def live(seeds: range, seconds: float) -> int:
    """Live them all; how many failed."""
    from copycat.testing.plan import draw  # measured from its first line on
    from copycat.testing.simulate import run

    failed, began = 0, time.perf_counter()
    for number, seed in enumerate(seeds, 1):
        report, failure = run(draw(seed, seconds=seconds))
        if report is None:
            failed += 1
            _say(f"FAILED seed {seed}: {failure}")
        if sys.stderr.isatty():
            rate = (time.perf_counter() - began) / number
            sys.stderr.write(f"\r{number}/{len(seeds)} lives, {rate:.1f} s each ")
    return failed


def tell(cover: Any, *, missing: bool) -> float:
    """Say what was reached, by file; the percentage of all."""
    lines = reached = 0
    for path in measured():
        _, statements, _, missed, where = cover.analysis2(str(path))
        lines += len(statements)
        reached += len(statements) - len(missed)
        share = 100 * (1 - len(missed) / max(1, len(statements)))
        name = path.relative_to(ROOT / "copycat").as_posix()
        _say(f"{name:28} {len(statements):5} lines {len(missed):4} missed {share:6.1f} %"
             + (f"   {where}" if missing and missed else ""))  # fmt: skip
    total = 100 * reached / max(1, lines)
    _say(f"{'all':28} {lines:5} lines {lines - reached:4} missed {total:6.1f} %")
    for name, reason in LEFT_OUT.items():
        _say(f"left out: {name}: {reason}")
    return total


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    return range(int(first), (int(last) if dots else int(first)) + 1)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.coverage")
    parser.add_argument("--seeds", type=_seeds, default=range(40000, 40060), help="A..B")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults, virtual time")
    parser.add_argument("--least", type=float, default=0.0, help="percent that must be reached")
    parser.add_argument("--data", type=Path, help="keep the raw figures there, adding to them")
    parser.add_argument("--quiet", action="store_true", help="no line numbers")
    options = parser.parse_args(arguments)
    try:
        from coverage import Coverage
    except ImportError:
        _say("nothing measured: this needs the package coverage (pip install coverage)")
        return 0
    cover = Coverage(
        data_file=None if options.data is None else str(options.data),
        include=[str(path) for path in measured()],
        config_file=False,
    )
    if options.data is not None and options.data.exists():
        cover.load()
    for pattern in NO_LINES:
        cover.exclude(pattern)
    cover.start()
    try:
        failed = live(options.seeds, options.seconds)
    finally:
        cover.stop()
        if options.data is not None:
            cover.save()
    return 1 if tell(cover, missing=not options.quiet) < options.least or failed else 0


if __name__ == "__main__":
    sys.exit(main())
