"""What SEQUENTIAL reads promise: a session never sees the world before its own last step.

It needs versions that rise with every change of a key (a log index, a counter's value), and says
nothing about sessions among each other: that is for ``linearizable.py``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable

from .checkers import CheckFailed
from .history import Operation, Outcome

Version = Callable[[Operation], int | None]


def _result(operation: Operation) -> int | None:
    return operation.result if isinstance(operation.result, int) else None


def check_monotonic(
    operations: Iterable[Operation],
    version: Version = _result,
    *,
    session: Callable[[Operation], Hashable] = lambda operation: operation.client,
) -> None:
    """Raise `CheckFailed` if an operation shows an older version than its session knew before.

    ``version`` is what an answered operation wrote or read, None if that is not known. What a
    session knew: the answers that it had when it invoked the operation.
    """
    due: list[tuple[int, int, Operation]] = []  # answers that are still to come: end, version
    known: dict[tuple[Hashable, Hashable], tuple[int, Operation]] = {}
    for operation in sorted(operations, key=lambda each: each.begin):
        while due and due[0][0] < operation.begin:
            _, seen, earlier = heapq.heappop(due)
            place = session(earlier), earlier.key
            if place not in known or known[place][0] < seen:
                known[place] = seen, earlier
        shown = version(operation) if operation.outcome is Outcome.OK else None
        if shown is None or operation.end is None:
            continue
        newest = known.get((session(operation), operation.key))
        if newest is not None and shown < newest[0]:
            raise CheckFailed(
                "monotonic",
                f"{operation} went back to version {shown}; its session knew {newest[0]}: "
                f"{newest[1]}",
            )
        heapq.heappush(due, (operation.end, shown, operation))
