"""``copycat demo``: kill the leader of a real cluster in mid-work, and check that nothing was lost.

Options, the folder, the verdict's form and the exit code; what happens in between is in `story`.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .. import COMPILED
from ..cli.common import NEGATIVE, Failure, echo_json, lies_in_memory, run
from .evidence import DETAILS_MAX, Check, judge
from .figures import figures
from .place import find_text, new_folder
from .screen import Screen, show
from .story import PER_KILL_S, WARM_UP_S, Plan, play

PURE = (
    "the compiled core is missing: this runs the slower pure Python mode. "
    "Build it: pip install --no-cache-dir --force-reinstall --no-binary copycat-raft copycat-raft"
)
IN_MEMORY = (
    "{} lies in memory (tmpfs): writes are not durable there, and the figures say "
    "nothing about a disk"
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    kills: int
    seconds: float
    text: Path | None
    data: Path | None
    keep: bool


@click.command()
@click.option("--kills", type=click.IntRange(0, 20), default=2, show_default=True,
              help="How many leaders to kill.")  # fmt: skip
@click.option("--input", "text", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The text whose words are counted.  [default: the README]")  # fmt: skip
@click.option("--data", type=click.Path(file_okay=False, path_type=Path),
              help="An empty or new folder for data and records; kept.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the temporary folder.")
@click.option("--seconds", type=click.FloatRange(min=1.0),
              help=f"How long to work.  [default: {WARM_UP_S:g}, and {PER_KILL_S:g} per kill]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def demo(
    kills: int,
    text: Path | None,
    data: Path | None,
    keep: bool,
    seconds: float | None,
    as_json: bool,
) -> int:
    """Watch a real three-process cluster lose its leader, and check that it lost nothing.

    Three servers with fsync, three client processes that count words, increment a number, take
    turns under a lock and elect a leader, and SIGKILL for whoever leads. Exit code 1 if any check
    fails.
    """
    if seconds is None:
        seconds = WARM_UP_S + PER_KILL_S * kills
    result = run(_demo(Options(kills, seconds, text, data, keep)))
    if as_json:
        echo_json(result)
    else:
        show(result)
    return 0 if result["ok"] else NEGATIVE


async def _demo(options: Options) -> dict[str, Any]:
    began = time.monotonic()
    task = asyncio.current_task()
    if task is not None:  # a polite end cleans up like Ctrl-C
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    folder = _folder(options.data)
    keep = options.keep or options.data is not None
    screen = Screen()
    if not COMPILED:
        screen.warn(PURE)
    in_memory = lies_in_memory(folder)
    if in_memory:
        screen.warn(IN_MEMORY.format(folder))
    try:
        text, name = find_text(folder, options.text)
        screen.say(f"counting the words of {name}")
        evidence, started = await play(Plan(folder, text, options.kills, options.seconds), screen)
        checks = judge(evidence)
        facts = figures(evidence, started)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return {
        "ok": all(check.ok for check in checks),
        "compiled": COMPILED,
        "in_memory": in_memory,
        "input": name,
        "data": str(folder),
        "kept": keep,
        "seconds": round(time.monotonic() - began, 2),
        **facts,
        "checks": [_plain(check) for check in checks],
    }


def _plain(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "ok": check.ok,
        "expected": check.expected,
        "found": check.found,
        **check.facts,
        "problems": check.problems[:DETAILS_MAX],
        "problem_count": len(check.problems),
    }


def _folder(given: Path | None) -> Path:
    if given is None:
        return new_folder()
    if given.exists() and any(given.iterdir()):
        raise Failure(f"{given} is not empty", hint="give a new folder, or none", code=2)
    given.mkdir(parents=True, exist_ok=True)
    return given.resolve()


__all__ = ["demo"]
