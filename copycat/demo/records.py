"""What a client of the demo writes down for itself: one JSON list a line, in a file of its own.

The first item says what the line is about, the second when (seconds of the machine's monotonic
clock, which all processes share)::

    ["word", when, milliseconds, word]          acknowledged
    ["increment", when, milliseconds, value]    acknowledged
    ["lock" | "lead", when, event, token]       event: begin, end, lost, refused
    ["failed", when, what, detail, applied]     an operation failed; applied: "no" or "unknown"
    ["end", when, words taken, increments tried]

It serves `worker`, which writes, and `judge`, which reads. The file is the client's word against
the cluster's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Records:
    """The growing records of one client; ``acknowledged`` counts operations."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self.acknowledged = 0

    def done(self, what: str, when: float, seconds: float, detail: str) -> None:
        """An operation was acknowledged; ``detail`` is JSON already, this line is written often."""
        self.acknowledged += 1
        self._file.write(f'["{what}",{when:.6f},{seconds * 1000:.3f},{detail}]\n')

    def note(self, what: str, when: float, *details: object) -> None:
        """Anything else."""
        self._file.write(json.dumps([what, round(when, 6), *details]) + "\n")

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def read(path: Path) -> Iterator[list[Any]]:
    """The records in ``path``, in the order in which they were written."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
