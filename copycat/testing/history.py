"""A history: what clients asked, when, and what they were told.

It records and judges nothing: see ``linearizable.py``, ``monotonic.py`` and ``checkers.py``. It
serves workloads of the simulator and of real clusters. A history can be written as JSON lines, one
an event, in the order of events; an invocation is written before the call, so that a client that
dies leaves an operation of unknown outcome.

An invocation: ``{"id", "at", "client", "name", "key", "arguments"}``; its end: ``{"id", "at",
"outcome"}`` with ``"result"`` or ``"error"``. Times are seconds; bytes are ``{"hex": "..."}``.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from ..errors import CopycatError, MisuseError

T = TypeVar("T")


class Outcome(enum.Enum):
    """What the caller knows: it took effect; it certainly did not; nobody can tell."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(slots=True, eq=False)
class Operation:
    """One call of one client.

    Attributes:
        key: operations with different keys do not influence each other.
        arguments: without the key.
        invoked, returned: times in seconds; ``returned`` is when the caller got its answer or gave
            up, None while it waits.
        begin, end: places of these two events among all events of the history. They, not the
            times, say what came before what: much can happen at one instant of virtual time.
        outcome: UNKNOWN until the answer is there; then it may take effect at any time from its
            invocation on, or never.
        error: the class of the error, where there was one.
    """

    client: str
    name: str
    key: Hashable
    arguments: tuple[Hashable, ...]
    invoked: float
    begin: int
    outcome: Outcome = Outcome.UNKNOWN
    result: Hashable = None
    error: str = ""
    returned: float | None = None
    end: int | None = None

    def __str__(self) -> str:
        call = ", ".join(map(repr, (self.key, *self.arguments)))
        until = "..." if self.returned is None else f"{self.returned:.3f}"
        if self.outcome is Outcome.OK:
            became = f"-> {self.result!r}"
        elif self.end is None:
            became = "unanswered"
        else:
            became = f"{self.outcome.value}: {self.error}" if self.error else self.outcome.value
        return f"{self.client} [{self.invoked:.3f}..{until}] {self.name}({call}) {became}"


class History:
    """Operations in the order of their invocation.

    Args:
        now: the time in seconds; the same clock for all clients.
        sink: is given each line of the JSON form (without a newline) when it happens.

    Attributes:
        on_end: called with each operation when it has ended.
    """

    def __init__(
        self,
        now: Callable[[], float] = lambda: 0.0,
        *,
        sink: Callable[[str], None] | None = None,
    ) -> None:
        self.operations: list[Operation] = []
        self.on_end: Callable[[Operation], None] = lambda operation: None
        self._now = now
        self._sink = sink
        self._events = 0

    # -- recording -----------------------------------------------------------------------------

    def invoke(self, client: str, name: str, key: object, *arguments: object) -> Operation:
        """Note a call before it is made.

        Raises `MisuseError` for values other than None, bool, int, float, str, bytes, and lists
        and tuples of these.
        """
        frozen = cast("tuple[Hashable, ...]", freeze(arguments))
        operation = Operation(client, name, freeze(key), frozen, self._now(), self._next())
        self.operations.append(operation)
        if self._sink is not None:
            self._sink(_invocation(operation))
        return operation

    def ok(self, operation: Operation, result: object = None) -> None:
        """It was answered with ``result``."""
        self._end(operation, Outcome.OK, freeze(result), "")

    def failed(self, operation: Operation, error: str = "") -> None:
        """It certainly had no effect and never will."""
        self._end(operation, Outcome.FAILED, None, error)

    def unknown(self, operation: Operation, error: str = "") -> None:
        """The caller gave up: it may have an effect now, later or never."""
        self._end(operation, Outcome.UNKNOWN, None, error)

    async def record(
        self,
        client: str,
        name: str,
        key: object,
        arguments: tuple[object, ...],
        call: Awaitable[T],
        *,
        result: Callable[[T], object] | None = None,
    ) -> T:
        """Await ``call`` and note it; ``result`` makes of the answer what is noted.

        Returns and raises what ``call`` does. An error counts as failed only if it says that the
        operation was not applied; anything else, a cancellation too, leaves it unknown.
        """
        operation = self.invoke(client, name, key, *arguments)
        try:
            answer = await call
        except CopycatError as error:
            end = self.failed if error.applied == "no" else self.unknown
            end(operation, type(error).__name__)
            raise
        except BaseException as error:
            self.unknown(operation, type(error).__name__)
            raise
        self.ok(operation, answer if result is None else result(answer))
        return answer

    def _next(self) -> int:
        self._events += 1
        return self._events

    def _end(self, operation: Operation, outcome: Outcome, result: Hashable, error: str) -> None:
        if operation.end is not None:
            raise MisuseError(f"this operation has ended before: {operation}")
        operation.outcome, operation.result, operation.error = outcome, result, error
        operation.returned, operation.end = self._now(), self._next()
        if self._sink is not None:
            self._sink(_ending(operation))
        self.on_end(operation)

    # -- the written form ----------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """The JSON form: what a sink would have been given."""
        events = [(each.begin, _invocation, each) for each in self.operations]
        events += [(each.end, _ending, each) for each in self.operations if each.end is not None]
        events.sort(key=lambda event: event[0])
        return (write(operation) for _, write, operation in events)

    @classmethod
    def read(cls, lines: Iterable[str]) -> History:
        """The history behind its JSON form. Raises `MisuseError` where a line makes no sense."""
        history = cls()
        running: dict[int, Operation] = {}
        for number, line in enumerate(lines, 1):
            try:
                history._replay(json.loads(line, object_hook=_unhexed), running)
            except (KeyError, ValueError, TypeError) as problem:
                raise MisuseError(f"line {number} is no event of a history: {problem}") from problem
        return history

    def _replay(self, event: dict[str, Any], running: dict[int, Operation]) -> None:
        time = float(event["at"])
        self._now = lambda: time
        if "outcome" not in event:
            arguments = event["arguments"]
            operation = self.invoke(event["client"], event["name"], event["key"], *arguments)
            running[event["id"]] = operation
        else:
            operation = running.pop(event["id"])
            outcome, result = Outcome(event["outcome"]), freeze(event.get("result"))
            self._end(operation, outcome, result, event.get("error", ""))

    def __str__(self) -> str:
        return "\n".join(map(str, self.operations))


def freeze(value: object) -> Hashable:
    """``value`` with lists as tuples: it can be compared later, whatever became of the original.

    Raises `MisuseError` for what has no JSON form here.
    """
    if isinstance(value, (list, tuple)):
        return tuple(map(freeze, value))
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    raise MisuseError(
        f"a history cannot hold a {type(value).__name__}: {value!r}",
        hint="note what matters of it as numbers and texts, for example a lock's token",
    )


def _invocation(operation: Operation) -> str:
    return _line(
        id=operation.begin,
        at=operation.invoked,
        client=operation.client,
        name=operation.name,
        key=operation.key,
        arguments=operation.arguments,
    )


def _ending(operation: Operation) -> str:
    fields: dict[str, object] = {"outcome": operation.outcome.value}
    if operation.outcome is Outcome.OK:
        fields["result"] = operation.result
    elif operation.error:
        fields["error"] = operation.error
    return _line(id=operation.begin, at=operation.returned, **fields)


def _line(**fields: object) -> str:
    return json.dumps(fields, separators=(",", ":"), default=_hexed)


def _hexed(value: object) -> object:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    raise TypeError(f"no JSON form for {value!r}")


def _unhexed(fields: dict[str, Any]) -> object:
    return bytes.fromhex(fields["hex"]) if fields.keys() == {"hex"} else fields
