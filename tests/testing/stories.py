"""Histories as drawings: a line per client, time runs to the right.

``a: [put 1 -> None]   [get -> 2]``: from ``[`` to ``]`` an operation runs; ``-> value`` is its
answer, ``?`` in place of it an unknown outcome, ``!`` a failure. What touches overlaps.
"""

from __future__ import annotations

import ast
import re

from copycat.testing.history import History, Operation

_OPERATION = re.compile(r"\[(\w+)((?: [^\]?!>]+?)??) *(?:-> *(.+?)|([?!]))? *\]")


def history(drawing: str, *, key: str = "k") -> list[Operation]:
    """The operations of a drawing, in the order of their invocation."""
    events: list[tuple[int, int, str, re.Match[str]]] = []
    for line in drawing.splitlines():
        if not line.strip():
            continue
        client, _, _ = line.strip().partition(":")
        found = list(_OPERATION.finditer(line))
        assert len(found) == line.count("["), line
        for match in found:
            events.append((match.start(), 0, client, match))
            events.append((match.end() - 1, 1, client, match))
    time = 0
    recorded = History(lambda: float(time))
    running: dict[tuple[str, int], Operation] = {}
    for column, is_end, client, match in sorted(events, key=lambda event: event[:3]):
        time = column
        name, arguments, result, other = match.groups()
        if not is_end:
            values = [ast.literal_eval(each) for each in arguments.split()]
            running[client, match.start()] = recorded.invoke(client, name, key, *values)
            continue
        operation = running[client, match.start()]
        if other == "?":
            recorded.unknown(operation, "DeadlineError")
        elif other == "!":
            recorded.failed(operation, "OverloadedError")
        else:
            recorded.ok(operation, ast.literal_eval(result) if result else None)
    return recorded.operations
