"""``python -m copycat.testing.simulate``: many lives, one a seed, and what came of them.

::

    python -m copycat.testing.simulate --seeds 0..999 --jobs 2
    python -m copycat.testing.simulate --seed 17 --trace        the story of one life
    python -m copycat.testing.simulate --seed 17 --trace --packets
    python -m copycat.testing.simulate --seeds 0..99 --json out.json

    python -m copycat.testing.simulate --seeds 0..19999 --jobs 2 --ledger ledger.jsonl

A ledger remembers which seeds were lived with which code; what it has already is left out.

A life that breaks a law is run again with less of everything, as long as it still fails, and the
smallest one is told. Exit status: 0 if all is well, 1 if a life failed, 2 if it was asked for what
makes no sense.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from .checkers import CheckFailed
from .life import Life
from .plan import Plan, Report, draw
from .simulate_options import read_options

SHRINK_ATTEMPTS = 60
LEDGER_STRETCH = 50
INTERRUPTED, NOBODY_READS = 130, 141


@dataclass(slots=True)
class Result:
    """What came of one seed."""

    seed: int
    report: Report | None = None
    failure: str = ""
    plan: str = ""  # of the smallest failing life
    took_s: float = 0.0


@dataclass(slots=True)
class Summary:
    """What came of many."""

    lives: int = 0
    virtual_s: float = 0.0
    operations: int = 0
    acknowledged: int = 0
    elections: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one more."""
        self.lives += 1
        report = result.report
        if report is None:
            self.failed.append(result)
            return
        self.virtual_s += report.virtual_s
        self.operations += report.operations
        self.acknowledged += report.acknowledged
        self.elections += report.elections
        self.faults.update(report.faults)


def run(plan: Plan) -> tuple[Report | None, str]:
    """Live once: (report, "") or (None, what went wrong)."""
    life = Life(plan)
    try:
        return life.live(), ""
    except Exception as problem:
        kind = "" if isinstance(problem, CheckFailed) else f"{type(problem).__name__}: "
        return None, f"{kind}{problem} (at {life.timeline.now:.3f} s)"


def run_seed(seed: int, seconds: float, *, shrink: bool = True) -> Result:
    """One seed's life; if it fails, the smallest life found that fails as well."""
    began = time.perf_counter()
    plan = draw(seed, seconds=seconds)
    report, failure = run(plan)
    if report is None and shrink:
        plan, failure = shrunk(plan, failure)
    told = "" if report is not None else repr(plan)
    return Result(seed, report, failure, told, time.perf_counter() - began)


def shrunk(plan: Plan, failure: str) -> tuple[Plan, str]:
    """A smaller plan that still fails, and how; first it ends where the failure was seen."""
    law = failure.partition(":")[0]
    attempts = SHRINK_ATTEMPTS
    candidates = [replace(plan, seconds=plan.seconds / 2), *plan.smaller()]
    while candidates and attempts:
        candidate = candidates.pop(0)
        attempts -= 1
        report, problem = run(candidate)
        if report is None and problem.partition(":")[0] == law:
            plan, failure = candidate, problem
            halved = replace(plan, seconds=plan.seconds / 2)
            candidates = [halved, *plan.smaller()]
    return plan, failure


def _work(task: tuple[int, float, bool]) -> Result:
    seed, seconds, shrink = task
    return run_seed(seed, seconds, shrink=shrink)


def results(seeds: Sequence[int], seconds: float, jobs: int, *, shrink: bool) -> Iterator[Result]:
    """The results of many seeds, as they come."""
    tasks = ((seed, seconds, shrink) for seed in seeds)
    if jobs <= 1:
        yield from map(_work, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _leave_interrupts) as pool:
        yield from pool.imap_unordered(_work, tasks, chunksize=1)


def _leave_interrupts() -> None:
    """A worker leaves Ctrl-C to the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _progress(done: int, of: int, failed: int, began: float) -> None:
    if sys.stderr.isatty():
        filled = 30 * done // of
        rate = done / (time.perf_counter() - began) * 60
        sys.stderr.write(
            f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{of} lives, {failed} failed, "
            f"{rate:.0f} a minute "
        )
        sys.stderr.flush()


def _tell(summary: Summary, seconds: float) -> None:
    out = sys.stdout.write
    for result in sorted(summary.failed, key=lambda each: each.seed):
        out(f"FAILED seed {result.seed}: {result.failure}\n  smallest: {result.plan}\n")
    hours = summary.virtual_s / 3600
    out(
        f"{summary.lives} lives in {seconds:.0f} s ({summary.lives / seconds * 60:.0f} a minute), "
        f"{hours:.2f} virtual hours, {summary.operations:,} operations checked, "
        f"{summary.acknowledged:,} acknowledged, {summary.elections:,} elections\n"
    )
    faults = ", ".join(f"{count} {kind}" for kind, count in summary.faults.most_common())
    out(f"faults: {faults or 'none'}\n")
    out(f"{len(summary.failed)} failed\n")


class Ledger:
    """A file with a line for every stretch of seeds, and a digest of the code that lived them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._code = code_digest()

    def missing(self, seeds: range, seconds: float) -> list[int]:
        """The seeds that were not lived with the present code."""
        known: set[int] = set()
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                entry = json.loads(line)
                if (entry["code"], entry["seconds"]) == (self._code, seconds):
                    known.update(entry["seeds"])
        return [seed for seed in seeds if seed not in known]

    def add(self, results: list[Result], seconds: float) -> None:
        """Remember some lives."""
        summary = Summary()
        for result in results:
            summary.add(result)
        entry = {
            "code": self._code, "seconds": seconds, "seeds": sorted(r.seed for r in results),
            "virtual_s": round(summary.virtual_s, 3), "operations": summary.operations,
            "acknowledged": summary.acknowledged, "elections": summary.elections,
            "failed": sorted(result.seed for result in summary.failed),
        }  # fmt: skip
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def code_digest(root: Path = Path(__file__).parents[1]) -> str:
    """Of what lives run: the package without its command line, its comments and docstrings."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py*")):
        name = path.relative_to(root).as_posix()
        if path.suffix not in (".py", ".pyx", ".pxd") or name.startswith("cli/"):
            continue
        text = path.read_text()
        digest.update(f"{name}\0{_bare(text) if path.suffix == '.py' else text}\0".encode())
    return digest.hexdigest()[:16]


def _bare(source: str) -> str:
    """Python without what only people read."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [each for each in node.body if not _is_remark(each)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_remark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _plain(summary: Summary) -> dict[str, object]:
    found = {each.name: getattr(summary, each.name) for each in fields(summary)}
    found["faults"] = dict(summary.faults)
    found["failed"] = [asdict(result) for result in summary.failed]
    return found


class _OutputEnded(Exception):
    """Whoever read the story has heard enough."""


def _story(seed: int, seconds: float, *, packets: bool) -> int:
    """Tell one life; returns the exit status."""

    def tell(line: str) -> None:
        try:
            _say(line)
        except BrokenPipeError:  # no member is to see this: it would be its disk
            life.hosting.fail(_OutputEnded())

    life = Life(draw(seed, seconds=seconds), tell, packets=packets)
    _say(str(life.plan))
    try:
        report = life.live()
    except _OutputEnded:
        raise BrokenPipeError from None
    except Exception as problem:
        kind = "" if isinstance(problem, CheckFailed) else f"{type(problem).__name__}: "
        _say(f"FAILED seed {seed}: {kind}{problem} (at {life.timeline.now:.3f} s)")
        return 1
    _say(str(report))
    return 0


def _live(options: argparse.Namespace) -> int:
    """Live all that is wanted; returns the exit status."""
    ledger = None if options.ledger is None else Ledger(options.ledger)
    seeds, seconds = options.seeds, options.seconds
    wanted = list(seeds) if ledger is None else ledger.missing(seeds, seconds)
    summary, began = Summary(), time.perf_counter()
    unwritten: list[Result] = []
    for result in results(wanted, seconds, options.jobs, shrink=not options.no_shrink):
        summary.add(result)
        if result.report is None:
            _say(f"FAILED seed {result.seed}: {result.failure}")
            sys.stdout.flush()
        unwritten.append(result)
        is_last = summary.lives == len(wanted)
        if ledger is not None and (is_last or len(unwritten) >= LEDGER_STRETCH):
            ledger.add(unwritten, seconds)
            unwritten = []
        _progress(summary.lives, len(wanted), len(summary.failed), began)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    _tell(summary, time.perf_counter() - began)
    if options.json is not None:
        options.json.write_text(json.dumps(_plain(summary), indent=1) + "\n")
    return 1 if summary.failed else 0


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = read_options(arguments)
    try:
        if options.trace:
            status = _story(options.seeds[0], options.seconds, packets=options.packets)
        else:
            status = _live(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        with open(os.devnull, "w") as nothing:  # what is still to be written goes nowhere
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        return NOBODY_READS
    return status


if __name__ == "__main__":
    sys.exit(main())
