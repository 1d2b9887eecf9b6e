"""The file that the lock protects: begin and end stamps, each checked against its fencing token.

The check and the write are one atomic step under ``flock``: a stamp whose token is lower than one
that is there already comes from a holder whose time is over, and is refused. The file is the
outside witness for the lock; it knows nothing of Copycat.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

_TAIL = 512


@dataclass(frozen=True, slots=True)
class Stamp:
    """``what`` is "begin" or "end"; ``when`` is monotonic time in seconds."""

    token: int
    who: str
    what: str
    when: float


class StampFile:
    """The stamps in the file ``path``, written by many processes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, token: int, who: str, what: str) -> bool:
        """Append a stamp, unless a higher token was here before: then False."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if token < _last_token(descriptor):
                return False
            line = json.dumps([token, who, what, round(time.monotonic(), 6)]) + "\n"
            os.write(descriptor, line.encode())
            return True
        finally:
            os.close(descriptor)  # and with it the flock

    def read(self) -> list[Stamp]:
        """All stamps, in the order in which they were written."""
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines()
        return [Stamp(*json.loads(line)) for line in lines]


def _last_token(descriptor: int) -> int:
    size = os.fstat(descriptor).st_size
    if size == 0:
        return 0
    tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    token: int = json.loads(tail.splitlines()[-1])[0]
    return token
