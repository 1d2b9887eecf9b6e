"""A life as a story: who leads, what befalls whom, who takes part, and what clients were told.

The lines of a `Timeline` come through as they are. Operations of clients are told one a line where
few happen between two other lines; many are told in one line, but for those that failed or took
long. It hears and writes, in the order of virtual time, and changes nothing. It serves
``python -m copycat.testing.simulate --trace``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .differences import shown
from .history import Operation, Outcome

EACH = 3
"""So many operations in a row have a line each."""
TOGETHER_S = 1.0
"""What is told in one line happened within this time."""
LONG_S = 1.0
"""An operation that took longer has a line of its own."""


class Story:
    """Writes a life down, one line after another.

    Args:
        write: is given each line, without a newline.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._gathered: list[Operation] = []

    def hear(self, line: str) -> None:
        """A line with its time, from the timeline."""
        self.flush()
        self._write(line)

    def ended(self, operation: Operation) -> None:
        """A client was answered, or gave up."""
        at, gathered = _end(operation), self._gathered
        if gathered and at - _end(gathered[0]) > TOGETHER_S:
            self.flush()
        if operation.outcome is Outcome.OK and at - operation.invoked <= LONG_S:
            gathered.append(operation)
            return
        self.hear(_line(operation))

    def flush(self) -> None:
        """Write what has been gathered."""
        gathered = self._gathered
        if len(gathered) <= EACH:
            lines = [_line(operation) for operation in gathered]
        else:
            lines = [_summary(gathered)]
        gathered.clear()
        for line in lines:
            self._write(line)


def _end(operation: Operation) -> float:
    return operation.invoked if operation.returned is None else operation.returned


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1.0 else f"{seconds * 1000:.0f} ms"


def _line(operation: Operation) -> str:
    at = _end(operation)
    who, _, how = operation.client.partition("/")
    directly = ", asked of one member" if how.endswith("direct") else ""
    call = ", ".join(map(shown, (operation.key, *operation.arguments)))
    if operation.outcome is Outcome.OK:
        became = f"-> {shown(operation.result)}"
    elif operation.outcome is Outcome.FAILED:
        became = f"failed: {operation.error}"
    else:
        became = f"may have happened or not: {operation.error}"
    took = _took(at - operation.invoked)
    return f"{at:12.6f} {who}: {operation.name}({call}) {became} ({took}{directly})"


def _summary(operations: list[Operation]) -> str:
    who = sorted({operation.client.partition("/")[0] for operation in operations})
    kinds = Counter(operation.name for operation in operations)
    counted = ", ".join(f"{count} {name}" for name, count in kinds.most_common())
    longest = max(_end(operation) - operation.invoked for operation in operations)
    return (
        f"{_end(operations[-1]):12.6f} {', '.join(who)}: {len(operations)} operations done since "
        f"{_end(operations[0]):.3f} ({counted}), in {_took(longest)} at most"
    )
