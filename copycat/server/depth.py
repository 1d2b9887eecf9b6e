"""The same depth of stack for machines on every member, so that a runaway recursion ends alike.

How deep a command may recurse depends on `sys.getrecursionlimit` and on how deep the stack is
already, which differs between members: another event loop, another embedding program, the compiled
or the pure kernels, a replay at the start or a turn. A recursion that grows with the data would
then fail on one member first. So, while user machines run, the limit is raised by just as much as
is in use: the body of a command always has the limit, as it was when the member was opened, to
itself. That number is configuration, like the machines' code, and has to be the same on all
members. The limit is only ever raised, by a few dozen frames: other threads lose nothing.

What it does not level: recursion inside C code (comparing or printing nested values), which newer
interpreters count apart. It decides nothing; the `Executor` does (see `Executor.fence`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType


def depth() -> int:
    """Frames in use, as the interpreter counts them (which includes some of C)."""
    try:
        sys.setrecursionlimit(1)  # refused, since this function itself runs already
    except RecursionError as problem:
        _, _, text = str(problem).partition("at the recursion depth ")
        number = text.partition(":")[0]
        if number.isdigit():
            return int(number)
    count, frame = 0, sys._getframe()
    while frame.f_back is not None:
        count, frame = count + 1, frame.f_back
    return count


class Level:
    """``with level:`` what runs inside has as many frames as ever, however deep it begins."""

    __slots__ = ("_frames", "_restore", "detour", "lead")

    def __init__(self) -> None:
        self._frames = sys.getrecursionlimit()
        self._restore = 0
        self.lead = 0
        """Frames between here and the body of a command: the kernels differ in it."""
        self.detour = 0
        """Frames that the first command of its kind is farther away than the others."""

    def __enter__(self) -> None:
        self._restore = limit = sys.getrecursionlimit()
        level = self._frames + depth() + self.lead
        if level > limit:
            sys.setrecursionlimit(level)

    def first(self, run: Callable[[], bytes]) -> bytes:
        """What ``run`` returns, which takes the detour."""
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit + self.detour)
        try:
            return run()
        finally:
            sys.setrecursionlimit(limit)

    def anew(self, run: Callable[[], bytes]) -> bytes:
        """What ``run`` returns, which has all the frames from here on: no kernel lies between."""
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(self._frames + depth())
        try:
            return run()
        finally:
            sys.setrecursionlimit(limit)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.setrecursionlimit(self._restore)
