"""Another time and place, as another member may have: clocks, time zone, host name, environment.

A deterministic machine notices nothing of it. What each process has of its own anyway (chance,
addresses, its process id) needs no help, and the seed of hashes can only be set at its start. It
serves the copies of a simulation that run "on another machine".
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

SHIFT_S = 86_400 * 1000 + 12_345.678
"""So much later it is there; more than any rounding hides."""
HOST = "elsewhere"
_KEPT = ("PATH", "TZ", "PYTHON", "LD_", "LC_", "LANG")
"""Beginnings of the names of variables by which the interpreter itself still works."""
_S, _NS = ("time", "monotonic", "perf_counter", "process_time"), 1_000_000_000
_CALENDAR = ("localtime", "gmtime", "ctime")


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Clocks of the `time` module and the host's name are others inside. (``datetime`` has clocks
    of its own, in C; it follows the time zone, see `time_zone`.)"""
    real: list[tuple[Any, str, Any]] = []

    def put(module: Any, name: str, value: object) -> None:
        real.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    now = time.time
    for name in _S:
        put(time, f"{name}_ns", _later(getattr(time, f"{name}_ns"), int(SHIFT_S * _NS)))
        put(time, name, _later(getattr(time, name), SHIFT_S))
    for name in _CALENDAR:
        put(time, name, _of_later(getattr(time, name), now))
    put(socket, "gethostname", lambda: HOST)
    try:
        yield
    finally:
        for module, name, value in real:
            setattr(module, name, value)


def time_zone() -> str:
    """A zone, for the variable ``TZ``, in which it is another day than here."""
    here = time.localtime().tm_gmtoff // 3600
    there = here - 24 if here > 0 else here + 24
    return f"ELSE{-there:+d}"  # POSIX counts hours to the west


def change_environment() -> None:
    """Every variable has another value from now on, except those the interpreter needs."""
    for name in list(os.environ):
        if not name.startswith(_KEPT):
            os.environ[name] = HOST


def _later(clock: Callable[[], Any], shift: float) -> Callable[[], Any]:
    return lambda: clock() + shift


def _of_later(calendar: Callable[[float], Any], now: Callable[[], float]) -> Callable[..., Any]:
    return lambda seconds=None: calendar(now() + SHIFT_S if seconds is None else seconds)
