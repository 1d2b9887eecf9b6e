"""What ``python -m copycat.testing.simulate`` is asked for, and refusals of what makes no sense.

A refusal is one line that says what to write instead, with exit status 2. Nothing is lived here.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

LIVES = range(100)
SECONDS = 60.0


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and what to do."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"{self.prog}: {message} (--help tells more)\n")


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    try:
        begin = int(first)
        end = int(last) if dots else begin
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no range: write 0..99") from None
    if begin < 0:
        raise argparse.ArgumentTypeError(f"{text!r} has negative seeds: begin at 0")
    if end < begin:
        raise argparse.ArgumentTypeError(f"{text!r} is empty: write {end}..{begin}")
    return range(begin, end + 1)


def _number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is too low: {least} or more")
        return value

    return number


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 60 or 0.5")
    return value


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: name a file in a directory")
    return path


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """What is to be done; ends the process with status 2 if that makes no sense."""
    parser = _Parser(
        prog="python -m copycat.testing.simulate", allow_abbrev=False,
        description="Live many simulated lives of a cluster under faults, and judge each.",
    )  # fmt: skip
    add = parser.add_argument
    add("--seeds", type=_seeds, metavar="A..B", help="both included  [default: 0..99]")
    add("--seed", type=_number(0), metavar="N", help="one life only")
    add("--seconds", type=_duration, default=SECONDS, help="of faults, in virtual time  [60]")
    add("--jobs", type=_number(1), default=1, metavar="N", help="processes at work  [1]")
    add("--json", type=_file, metavar="FILE", help="write the summary there")
    add("--ledger", type=_file, metavar="FILE", help="leave out what it has; add what was lived")
    add("--trace", action="store_true", help="tell the story of --seed")
    add("--packets", action="store_true", help="with --trace: tell of each packet too")
    add("--no-shrink", action="store_true", help="do not look for smaller lives")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        if options.seeds is not None:
            parser.error("--seed and --seeds contradict each other: leave one out")
        options.seeds = range(options.seed, options.seed + 1)
    if options.trace:
        if options.seeds is None or len(options.seeds) > 1:
            parser.error("--trace tells one life: say which, as in --seed 17 --trace")
        for name in ("json", "ledger"):
            if getattr(options, name) is not None:
                parser.error(f"--trace writes no --{name}: leave one of them out")
        if options.jobs > 1:
            parser.error("--trace tells one life, in one process: leave --jobs out")
    elif options.packets:
        parser.error("--packets belongs to a story: add --trace")
    options.seeds = LIVES if options.seeds is None else options.seeds
    return options
