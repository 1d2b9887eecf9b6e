"""The hunt for a mutant: a copy of the package with its mistake, and lives until one notices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .mutant import Mutant

ROOT = Path(__file__).parents[2]
SEEDS = 500
SECONDS = 30.0
"""Virtual seconds of trouble in a life; shorter than a simulation's own 60, and more of them."""


class Stale(Exception):
    """A mutant's text does not stand in the sources exactly once: the code has moved on."""


@dataclass(frozen=True, slots=True)
class Kill:
    """How a hunt ended. ``seeds``: how many lives it took, the last one included."""

    name: str
    killed: bool
    seeds: int
    verdict: str


def change(package: Path, mutant: Mutant) -> None:
    """Make the mistake in a copy of the package; raises `Stale`."""
    for path, old, new in mutant.edits:
        file = package / path
        text = file.read_text()
        if text.count(old) != 1 or old == new:
            raise Stale(f"{mutant.name}: {text.count(old)} places in {path} for {old!r}")
        file.write_text(text.replace(old, new))


def copy(to: Path) -> Path:
    """A copy of the package and its tests in the empty directory ``to``; the package's path."""
    rubbish = shutil.ignore_patterns("__pycache__", ".pytest_cache")
    shutil.copytree(ROOT / "tests", to / "tests", ignore=rubbish)
    return Path(shutil.copytree(ROOT / "copycat", to / "copycat", ignore=rubbish))


def hunt(mutant: Mutant | None, where: Path, like: Mutant, first: int, last: int) -> Kill:
    """Live the lives of seeds ``first`` to ``last`` in the copy at ``where``, until one fails.

    ``mutant`` has been made there (None: the copy is sound); ``like`` says which lives.
    """
    environment = {**os.environ, "PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["COPYCAT_PURE"] = "1" if like.pure else "0"
    command = [
        sys.executable, "-m", "tests.mutants.judge", like.judge, str(first), str(last),
        str(SECONDS), json.dumps(dict(like.plan)),
    ]  # fmt: skip
    name = "the original" if mutant is None else mutant.name
    seed = first - 1
    with (
        tempfile.TemporaryFile("w+") as stderr,  # a pipe that nobody reads would fill up, and hang
        subprocess.Popen(
            command, cwd=where, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                seed, problem = json.loads(line)
                if problem is not None:
                    return Kill(name, True, seed - first + 1, problem)
        finally:
            process.kill()
        process.wait()
        stderr.seek(0)
        words = stderr.read().strip().splitlines()
    if seed < last:  # the process itself died
        return Kill(name, True, seed - first + 2, (words or ["died"])[-1])
    return Kill(name, False, last - first + 1, "")


def hunt_once(mutant: Mutant, scratch: Path, first: int = 0, seeds: int = SEEDS) -> Kill:
    """Hunt one mutant; the life that kills it must pass on the original."""
    where = scratch / "mutant"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    change(copy(where), mutant)
    kill = hunt(mutant, where, mutant, first, first + seeds - 1)
    shutil.rmtree(where)
    if kill.killed:
        where.mkdir()
        copy(where)
        seed = first + kill.seeds - 1
        sound = hunt(None, where, mutant, seed, seed)
        shutil.rmtree(where)
        if sound.killed:
            return Kill(kill.name, False, kill.seeds, f"the original fails too: {sound.verdict}")
    return kill
