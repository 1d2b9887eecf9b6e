"""``python -m benchmarks.kernels [--json FILE]``: the kernels and the log, compiled against pure.

Both bodies run in this one process, in turns, so that a noisy machine is noisy for both; of several
rounds the fastest counts. Figures are nanoseconds for what the name says. A kernel that is 30 times
faster does not make a cluster 30 times faster: ``benchmarks.cluster`` says what it does make.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
from pathlib import Path
from time import perf_counter_ns

from .cases import Case, cases, modes

ROUND_NS = 4_000_000


def repetitions(case: Case) -> int:
    """How often ``case`` has to run to fill a round."""
    case.run()
    begin = perf_counter_ns()
    case.run()
    return max(1, ROUND_NS // max(1, perf_counter_ns() - begin))


def round_ns(case: Case, times: int) -> float:
    """Nanoseconds per piece of work over ``times`` runs."""
    run = case.run
    begin = perf_counter_ns()
    for _ in range(times):
        run()
    return (perf_counter_ns() - begin) / (times * case.per_run)


def measure(rounds: int) -> list[dict[str, object]]:
    """Each kernel's best time in each mode; a mode that is not there is None."""
    by_mode = {mode: cases(mode) for mode in modes()}
    found: list[dict[str, object]] = []
    for position, case in enumerate(by_mode["pure"]):
        sides = {mode: listed[position] for mode, listed in by_mode.items()}
        times = {mode: repetitions(side) for mode, side in sides.items()}
        best: dict[str, float] = {}
        gc.collect()
        for _ in range(rounds):
            for mode, side in sides.items():
                took = round_ns(side, times[mode])
                best[mode] = min(took, best.get(mode, took))
        found.append(
            {
                "name": case.name,
                "compiled_ns": round(best["compiled"], 2) if "compiled" in best else None,
                "pure_ns": round(best["pure"], 2),
            }
        )
    return found


def table(kernels: list[dict[str, object]]) -> str:
    """The figures for a terminal."""
    lines = [f"{'ns':42}{'compiled':>12}{'pure':>12}{'ratio':>9}"]
    for each in kernels:
        compiled, pure = each["compiled_ns"], each["pure_ns"]
        fast = isinstance(compiled, float) and isinstance(pure, float)
        ratio = f"{pure / compiled:8.1f}x" if fast else ""  # type: ignore[operator]
        lines.append(f"{each['name']:42}{compiled or '-':>12}{pure:>12}{ratio:>9}")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=25, help="rounds per kernel and mode (25)")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, modes: {', '.join(modes())}")
    if "compiled" not in modes():
        print("The compiled core is not in use: nothing to compare with.", file=sys.stderr)
    kernels = measure(options.rounds)
    print(table(kernels))
    if options.json is not None:
        options.json.write_text(json.dumps({"kernels": kernels}, indent=1) + "\n")


if __name__ == "__main__":
    main()
