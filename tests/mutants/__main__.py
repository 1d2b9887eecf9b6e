"""``python -m tests.mutants [NAME ...] [--json FILE] [--table] [--jobs N]``: hunt all mutants.

With ``--table`` the result is written to tests/MUTANTS.md, which is committed as documentation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .catalogue import MUTANTS
from .hunt import SECONDS, SEEDS, Kill, hunt_once
from .judge import RAFT_LIVES, STORE_LIVES

TABLE = Path(__file__).parents[1] / "MUTANTS.md"


def table(kills: list[Kill]) -> str:
    """The result as a page."""
    counts = [kill.seeds for kill in kills if kill.killed]
    lines = [
        "# Mutants",
        "",
        "Deliberate mistakes in the production code, each made in a copy of the package, and the",
        "number of seeds until a life broke a law that it keeps on the original. Written by",
        "`python -m tests.mutants --table`; `tests/mutants` has the changes themselves.",
        "",
        f"{len(kills)} mutants, {len(counts)} killed, median {statistics.median(counts):g} seeds, "
        f"at most {max(counts)} of {SEEDS}. A seed is a life of {SECONDS:g} virtual seconds "
        "(`life`), of members",
        f"without sockets (`world`), {STORE_LIVES} lives of a store on a bad disk (`store`), "
        f"{RAFT_LIVES} of Raft alone (`raft`),",
        "or one with leases (`leased`). Some are given the faults that the mistake is about.",
        "",
        "| mutant | lives | seeds | noticed by |",
        "| --- | --- | ---: | --- |",
    ]
    for kill in kills:
        judge = MUTANTS[kill.name].judge
        judge += " (faults chosen)" if MUTANTS[kill.name].plan else ""
        seeds = str(kill.seeds) if kill.killed else f"**alive** after {kill.seeds}"
        verdict = kill.verdict.split(" (at ")[0][:90].replace("|", "/")
        lines.append(f"| {kill.name} | {judge} | {seeds} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--table", action="store_true", help=f"write {TABLE.name}")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in MUTANTS]
    if unknown:
        parser.error(f"there is no mutant {unknown[0]!r}")
    wanted = [mutant for name, mutant in MUTANTS.items() if name in (options.names or MUTANTS)]
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        futures = [
            pool.submit(hunt_once, mutant, Path(scratch) / str(n), 0, options.seeds)
            for n, mutant in enumerate(wanted)
        ]
        for future in futures:
            kill = future.result()
            kills.append(kill)
            fate = f"{kill.seeds:>4} seeds" if kill.killed else "     ALIVE"
            print(f"{fate}  {kill.name}: {kill.verdict[:140]}", flush=True)
    if options.json:
        found = [{"name": k.name, "killed": k.killed, "seeds": k.seeds} for k in kills]
        Path(options.json).write_text(json.dumps({"mutants": found}, indent=2) + "\n")
    if options.table:
        TABLE.write_text(table(kills))
    alive = [kill.name for kill in kills if not kill.killed]
    if alive:
        print(f"alive: {', '.join(alive)}", file=sys.stderr)
    return 1 if alive else 0


if __name__ == "__main__":
    raise SystemExit(main())
