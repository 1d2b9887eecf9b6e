"""What the audience sees while the demo runs: a live line on a terminal, plain lines elsewhere.

It only shows what it is told. rich draws the terminal's line, if it is installed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Protocol, Self

PLAIN_INTERVAL_S = 1.0


@dataclass(slots=True)
class Scene:
    """What there is to see: seconds gone and to come, writes so far and per second, who leads."""

    elapsed_s: float = 0.0
    expected_s: float = 1.0
    writes: int = 0
    writes_per_s: float = 0.0
    leader: str | None = None
    term: int = 0
    members: str = ""

    def text(self) -> str:
        """The figures in one line."""
        return (
            f"{self.writes:>9,} writes {self.writes_per_s:>8,.0f}/s   "
            f"leader {self.leader or '--'}   term {self.term}   {self.members}"
        )


class Screen(Protocol):
    """Where the show is."""

    def show(self, scene: Scene) -> None: ...
    def say(self, line: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class PlainScreen:
    """Lines for a pipe or a log file: one each second, and one for everything that happens."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._begin = time.monotonic()
        self._next = 0.0

    def show(self, scene: Scene) -> None:
        """Show the figures, if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PLAIN_INTERVAL_S
            self.say(scene.text())

    def say(self, line: str) -> None:
        """Tell what happened."""
        self._out.write(f"{time.monotonic() - self._begin:5.1f} s  {line}\n")
        self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing has to be put back."""


class LiveScreen:
    """A progress bar at the bottom, and above it what happened."""

    def __init__(self, out: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(file=out, highlight=False)
        self._progress = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
        )
        self._begin = time.monotonic()
        self._task: Any = self._progress.add_task("starting three servers", total=None)

    def show(self, scene: Scene) -> None:
        """Show the figures."""
        style = "bold green" if scene.leader else "bold red"
        self._progress.update(
            self._task,
            total=scene.expected_s,
            completed=min(scene.elapsed_s, scene.expected_s),
            description=f"[{style}]{scene.text()}[/]",
        )

    def say(self, line: str) -> None:
        """Tell what happened."""
        since = time.monotonic() - self._begin
        self._console.print(f"{since:5.1f} s  {line}", markup=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()


def screen(out: IO[str]) -> Screen:
    """The best that ``out`` can show."""
    if out.isatty():
        try:
            return LiveScreen(out)
        except ModuleNotFoundError:
            pass
    return PlainScreen(out)
