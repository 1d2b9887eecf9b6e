"""The independent records of a demo run: how they are written, and how they are read back.

Every client process writes a log of its own: a line before an operation is sent (the intent) and
one after its outcome is known, with the monotonic time of this machine, which all processes share.
The file under the lock is written by whoever holds it. Nothing here asks the cluster anything; the
judge (`evidence`) believes only what stands in these files.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def words_of(text: str) -> list[list[str]]:
    """The words of each line that has any, in lower case."""
    found = (_WORD.findall(line.lower()) for line in text.splitlines())
    return [words for words in found if words]


class StaleTokenError(Exception):
    """Somebody with a higher fencing token has written already."""


class ClientLog:
    """The log of one client process: one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("x", encoding="utf-8", buffering=1 << 16)
        self._operations = 0
        self.acknowledged = 0

    def intent(self, operation: str, line: int = -1) -> int:
        """An operation is about to be sent; returns its number in this log."""
        self._operations = number = self._operations + 1
        self._file.write(
            f'{{"intent":{number},"op":"{operation}","line":{line},"t":{time.monotonic():.6f}}}\n'
        )
        return number

    def ack(self, number: int, value: int) -> None:
        """The cluster acknowledged operation ``number`` with ``value``."""
        self._file.write(f'{{"ack":{number},"value":{value},"t":{time.monotonic():.6f}}}\n')
        self.acknowledged += 1

    def failed(self, number: int, applied: str, error: str) -> None:
        """Operation ``number`` failed; ``applied`` is what the error says: no, yes or unknown."""
        self.note("failed", failed=number, applied=applied, error=error)
        self.flush()

    def note(self, what: str, **facts: object) -> None:
        """Anything else worth a record."""
        self._file.write(json.dumps({"note": what, **facts, "t": time.monotonic()}) + "\n")

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """The log is complete: its last line says how many operations it has."""
        self.note("complete", operations=self._operations)
        self._file.close()


def stamp(path: Path, kind: str, token: int, who: str) -> None:
    """Append a line under the lock's protection, unless a higher token stands there already.

    The check of the token and the write are one step under ``flock``. Raises `StaleTokenError`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        highest = _last_token(descriptor)
        if token < highest:
            raise StaleTokenError(f"{kind} of token {token} came after token {highest}")
        line = {"kind": kind, "token": token, "who": who, "t": time.monotonic()}
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def _last_token(descriptor: int) -> int:
    """The token of the last line; no line has a higher one, because each was checked so."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, 512, max(0, size - 512)).splitlines()
    return int(json.loads(tail[-1])["token"]) if tail else 0


# -- reading back ------------------------------------------------------------------------------


@dataclass(slots=True)
class Operation:
    """One operation as its client saw it; times in seconds of the monotonic clock."""

    kind: str
    line: int
    sent: float
    done: float | None = None
    value: int = 0
    failure: str = ""
    applied: str = ""


@dataclass(slots=True)
class Worker:
    """Everything one client process wrote down."""

    name: str
    operations: dict[int, Operation] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)

    def noted(self, what: str) -> list[dict[str, Any]]:
        """The notes of one kind, in order."""
        return [note for note in self.notes if note["note"] == what]

    @property
    def complete(self) -> bool:
        """Whether the log ends as it should, with every operation in it."""
        ends = self.noted("complete")
        return len(ends) == 1 and ends[0]["operations"] == len(self.operations)


@dataclass(frozen=True, slots=True)
class Stamp:
    """One line of the file under the lock."""

    kind: str
    token: int
    who: str
    t: float


def read_worker(name: str, path: Path) -> Worker:
    """Read a client's log; a damaged line raises ``ValueError``."""
    worker = Worker(name)
    for entry in _lines(path):
        if "intent" in entry:
            worker.operations[entry["intent"]] = Operation(entry["op"], entry["line"], entry["t"])
        elif "ack" in entry:
            operation = worker.operations[entry["ack"]]
            operation.done, operation.value = entry["t"], entry["value"]
        else:
            worker.notes.append(entry)
            if "failed" in entry:
                operation = worker.operations[entry["failed"]]
                operation.failure, operation.applied = entry["error"], entry["applied"]
    return worker


def read_stamps(path: Path) -> list[Stamp]:
    """Read the file under the lock, in the order in which it was written."""
    return [Stamp(**entry) for entry in _lines(path)]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


__all__ = [
    "ClientLog",
    "Operation",
    "StaleTokenError",
    "Stamp",
    "Worker",
    "read_stamps",
    "read_worker",
    "stamp",
    "words_of",
]
