"""``copycat demo``: where the demo's data lie, what is shown, and the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import cast

import click

from .._core import COMPILED
from ..demo.conductor import Conductor, Plan, Report
from ..demo.screen import Screen, screen
from ..demo.words import words_of
from .common import NEGATIVE, USAGE, Failure, echo_json, json_option, lies_in_memory, run
from .serve import PURE_WARNING

README = Path(__file__).resolve().parents[2] / "README.md"
MEMORY = "on a tmpfs: fsync costs nothing there, so the times mean little"


@click.command()
@click.option(
    "--kills",
    type=click.IntRange(0, 20),
    default=2,
    show_default=True,
    help="How often the leader is killed.",
)
@click.option(
    "--input",
    "text",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The text whose words are counted.  [default: the README]",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="An empty folder for the data, kept.  [default: a temporary one]",
)
@click.option(
    "--clients", type=click.IntRange(1, 16), default=3, show_default=True, help="Client processes."
)
@json_option
def demo(kills: int, text: Path | None, data: Path | None, clients: int, as_json: bool) -> int:
    """Watch a real cluster lose its leader, and see what it did not lose.

    Three server processes with durable logs; client processes that count words, increment, take
    turns under a lock and lead; SIGKILL for the leader, again and again. At the end everything is
    compared with the clients' own records. Exit code 1 if anything is off.
    """  # fmt: skip
    out = sys.stderr if as_json else sys.stdout
    with _folder(data) as folder:
        plan = Plan(_text(text, folder), folder, kills, clients)
        if not words_of(plan.text.read_text(encoding="utf-8", errors="replace")):
            raise Failure(f"{plan.text} has no words to count", code=USAGE)
        with screen(out) as show:
            _introduce(show, plan)
            report = run(_perform(Conductor(plan, show)))
        if as_json:
            echo_json(report.as_json())
        else:
            _print(report)
    if not report.ok:
        click.echo(f"Everything that was recorded is kept in {folder}", err=True)
        return NEGATIVE
    if data is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


async def _perform(conductor: Conductor) -> Report:
    """The performance; a polite end cleans up like Ctrl-C."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await conductor.perform()
    except asyncio.CancelledError:
        raise click.exceptions.Abort from None


@contextlib.contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    """The folder for the data: given and kept, or temporary, on a real disk if there is one.

    A temporary one goes when something raises; otherwise that is for the verdict to decide.
    """
    if data is not None:
        data.mkdir(parents=True, exist_ok=True)
        if any(data.iterdir()):
            raise Failure(
                f"{data} is not empty", hint="give the demo a folder of its own", code=USAGE
            )
        yield data.resolve()
        return
    places = [tempfile.gettempdir(), "/var/tmp", "."]  # noqa: S108 - one may be a tmpfs
    real = [place for place in places if Path(place).is_dir() and not lies_in_memory(place)]
    folder = Path(tempfile.mkdtemp(prefix="copycat-demo-", dir=(real or places)[0])).resolve()
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _text(given: Path | None, folder: Path) -> Path:
    """The text to count: the given one, the README beside the sources, or the installed one."""
    if given is not None:
        return given.resolve()
    if README.exists():
        return README
    metadata = cast(Message, importlib.metadata.metadata("copycat-raft"))
    description = str(metadata.get_payload())
    file = folder / "README.md"
    file.write_text(description, encoding="utf-8")
    return file


def _introduce(show: Screen, plan: Plan) -> None:
    memory = f" ({MEMORY})" if lies_in_memory(plan.folder) else ""
    mode = "compiled" if COMPILED else "pure Python"
    show.say(
        f"Copycat demo, {mode} mode, about {plan.seconds:.0f} s; data in {plan.folder}{memory}"
    )
    if not COMPILED:
        for line in PURE_WARNING.splitlines():
            show.say(line)


def _print(report: Report) -> None:
    """The verdict for people."""
    click.echo()
    click.echo("Compared with the clients' own records, the lock's file and each member's digest:")
    for check in report.checks:
        sign = (
            click.style("ok ", fg="green") if check.ok else click.style("BAD", fg="red", bold=True)
        )
        click.echo(f"  {sign}  {check.name:<11} {check.text}")
    speed = report.speed
    click.echo(
        f"       {'writes':<11} {speed['writes_per_s']:,.0f}/s, each synced to disk by a majority; "
        f"p50 {speed['p50_ms']:.2f} ms, p99 {speed['p99_ms']:.2f} ms, kills included"
    )
    for problem in report.problems:
        click.echo(f"  {click.style('BAD', fg='red', bold=True)}  {problem}")
    click.echo()
    if report.ok:
        click.secho(
            "Nothing that was acknowledged got lost, nothing was applied twice.",
            fg="green",
            bold=True,
        )
    else:
        click.secho("Something is off: see above.", fg="red", bold=True)
