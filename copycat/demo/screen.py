"""What the user sees while the demo runs, and its result: rich on a terminal, plain lines elsewhere.

Progress goes to standard error, results to standard output. It formats and decides nothing.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_EVERY_S = 1.0
DETAILS_SHOWN = 5


class Screen:
    """Progress on standard error."""

    def __init__(self) -> None:
        self._rich = _terminal(sys.stderr)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._last = (0.0, 0)  # when the last progress was shown, and how much there was
        self._rate = 0.0

    def say(self, message: str) -> None:
        """One event, with the time since the start."""
        line = f"{time.monotonic() - self._began:5.1f} s  {message}"
        if self._progress is not None:
            self._progress.console.print(line, highlight=False, markup=False)
        else:
            click.echo(line, err=True)

    def warn(self, message: str) -> None:
        """Something that makes the figures worth less."""
        click.secho(f"WARNING: {message}", err=True, fg="yellow", bold=True)

    def progress(
        self, elapsed: float, total: float, acknowledged: int, leader: tuple[str, int] | None
    ) -> None:
        """How far the work is, what was acknowledged, and who leads which term."""
        then, before = self._last
        if self._rich or elapsed - then >= PLAIN_EVERY_S:
            if elapsed > then:
                self._rate = (acknowledged - before) / (elapsed - then)
            self._last = (elapsed, acknowledged)
            who = f"leader {leader[0]}, term {leader[1]}" if leader else "NO LEADER"
            text = f"{self._rate:7,.0f} acknowledged/s  {who}"
            if self._rich:
                self._show(elapsed, total, text)
            else:
                self.say(text.strip())

    def end_progress(self) -> None:
        """The work is over."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None

    def _show(self, elapsed: float, total: float, text: str) -> None:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._progress.add_task(text, total=total)
            self._progress.start()
        if self._task is not None:
            self._progress.update(self._task, completed=elapsed, description=text)


def show(result: dict[str, Any]) -> None:
    """The result for people, on standard output."""
    if _terminal(sys.stdout):
        _table(result)
    else:
        for check in result["checks"]:
            mark = "ok" if check["ok"] else "FAILED"
            click.echo("\t".join((mark, check["name"], check["expected"], check["found"])))
    for check in result["checks"]:
        for problem in check["problems"][:DETAILS_SHOWN]:
            click.secho(f"  {check['name']}: {problem}", fg="red")
        more = check["problem_count"] - DETAILS_SHOWN
        if more > 0:
            click.echo(f"  {check['name']}: and {more} more")
    writes = result["writes"]
    click.echo(
        f"{writes['acknowledged']:,} writes acknowledged, {writes['per_s']:,}/s, "
        f"p50 {writes['p50_ms']} ms, p99 {writes['p99_ms']} ms "
        f"({'compiled core' if result['compiled'] else 'PURE PYTHON: no compiled core'}"
        f"{', DATA IN MEMORY (tmpfs)' if result['in_memory'] else ''})"
    )
    for number, kill in enumerate(result["kills"], 1):
        click.echo(f"kill {number}: {_kill(kill)}")
    verdict = "nothing lost, nothing twice" if result["ok"] else "SOMETHING IS OFF"
    click.secho(
        f"{verdict} ({result['seconds']:.1f} s)", fg="green" if result["ok"] else "red", bold=True
    )
    if result["kept"]:
        click.echo(f"the records are in {result['data']}")


def _kill(kill: dict[str, Any]) -> str:
    text = f"{kill['member']} of term {kill['term']} at {kill['at']:.1f} s: "
    if kill["without_leader_s"] is None:
        return text + "nothing was acknowledged around it"
    text += f"no acknowledgement for {kill['without_leader_s'] * 1000:.0f} ms, served again "
    text += f"{kill['served_again_s'] * 1000:.0f} ms after the kill"
    if kill["elected_s"] is not None:
        text += f" by {kill['new_leader']} (term {kill['new_term']}, "
        text += f"seen elected after {kill['elected_s'] * 1000:.0f} ms)"
    return text


def _table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "expected", "found", title="copycat demo", title_justify="left")
    for check in result["checks"]:
        mark = Text("ok", "green") if check["ok"] else Text("FAILED", "bold red")
        table.add_row(mark, check["name"], check["expected"], Text(check["found"]))
    Console().print(table)


def _terminal(stream: Any) -> bool:
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        import rich  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


__all__ = ["Screen", "show"]
