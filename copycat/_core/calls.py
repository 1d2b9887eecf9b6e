"""Both ends of a call, in their pure body: how a client's operations enter and get their results,
the loop that runs commands on a member, and the fast codecs of both.

``calls.pyx`` is the compiled body. A codec made here never differs from the ``fallback`` it is
given, which knows every type and raises every error: the compiled one takes plain built-in values
itself and hands everything else over. `run_commands` is the only place where a machine is called.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .kernel import Buffer, decode_commands, decode_results, encode_results
from .layout import RESULT_HEADER_SIZE, FormatError, Status

OK = bytes((Status.OK,))
OK_NONE = OK + b"\xc0"

Entry = tuple[
    Callable[..., Any],  # the body of a command
    Any,  # the machine's Commit
    Callable[[bytes], Any],  # unpack: a list of arguments
    Callable[[object], bytes],  # pack
    Callable[[Exception], bytes],  # the result of an exception; raises what must stop the member
]


def packer(fallback: Callable[[object], bytes]) -> Callable[[object], bytes]:
    """A function that does what ``fallback`` does: a value to msgpack."""
    return fallback


def unpacker(fallback: Callable[[Buffer], Any]) -> Callable[[Buffer], Any]:
    """A function that does what ``fallback`` does: msgpack to a value."""
    return fallback


class _Deadlines(Protocol):
    """When the next operation is overdue."""

    next: float

    def by(self, deadline: float) -> None:
        """Look at ``deadline`` at the latest."""


class Intake:
    """Where a client's operations enter: each gets a future and a deadline, and waits in a queue.

    It takes what is as it should be. Anything else it leaves alone, and to whoever asked.

    Args:
        loop: the client's event loop; ``running`` gives the one that runs now.
        pack: from a list of arguments to bytes, of at most ``most_bytes``.
        timeout: seconds, for operations that name none.
        deadlines: are told of deadlines earlier than theirs.
        most: operations that may wait in a queue.
        flush_at: ``flush_early`` is called at once when so many wait.
        flush: is called by the loop once a turn in which something entered.
    """

    def __init__(
        self,
        loop: Any,
        running: Callable[[], Any],
        pack: Callable[[object], bytes],
        timeout: float,
        deadlines: _Deadlines,
        most: int,
        most_bytes: int,
        flush_at: int,
        flush_early: Callable[[], None],
        flush: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._running = running
        self._pack = pack
        self._timeout = timeout
        self._deadlines = deadlines
        self._most = most
        self._most_bytes = most_bytes
        self._flush_at = flush_at
        self._flush_early = flush_early
        self._flush = flush
        self.closed = False
        self.flush_due = False

    def enter(
        self,
        queue: deque[Any],
        resource: int,
        operation: int | None,
        arguments: list[Any],
        timeout: float | None,
    ) -> Any:
        """Queue (future, deadline, timeout, (resource, operation, bytes)); the future.

        None, and nothing is queued, if the client is closed, another loop runs, the operation has
        no number, or there is too much. Raises what ``pack`` raises.
        """
        loop = self._loop
        if (
            operation is None
            or self.closed
            or self._running() is not loop
            or len(queue) >= self._most
        ):
            return None
        packed = self._pack(arguments)
        if len(packed) > self._most_bytes:
            return None
        if timeout is None:
            timeout = self._timeout
        deadline = loop.time() + timeout
        if deadline < self._deadlines.next:
            self._deadlines.by(deadline)
        future = loop.create_future()
        queue.append((future, deadline, timeout, (resource, operation, packed)))
        if not self.flush_due:
            self.flush_due = True
            loop.call_soon(self._flush)
        if len(queue) == self._flush_at:
            self._flush_early()
        return future


def resolve(
    buffer: Buffer,
    offset: int,
    count: int,
    skip: int,
    calls: deque[Any],
    unpack: Callable[[Buffer], Any],
    odd: Callable[[Any, bytes], None],
) -> None:
    """Give the ``count`` results that fill the rest of ``buffer``, less ``skip``, to ``calls``.

    Each takes the first of ``calls`` out; its first part is its future. A result that is not a
    value goes to ``odd(call, result)``, unless nobody waits for it any more. Raises `FormatError`,
    before anything is taken out.
    """
    results = decode_results(buffer, offset, count)
    if count - skip > len(calls):
        raise FormatError("there are more results than calls")
    for result in results[skip:] if skip else results:
        call = calls.popleft()
        future = call[0]
        if future.done():
            continue
        if result == OK_NONE:
            future.set_result(None)
        elif result[0] != Status.OK:
            odd(call, result)
        else:
            try:
                value = unpack(result[1:])
            except Exception:
                odd(call, result)
            else:
                future.set_result(value)


def run_commands(
    image: Buffer,
    offset: int,
    count: int,
    skip: int,
    index: int,
    time_us: int,
    session: int,
    table: dict[tuple[int, int], Entry],
    slow: Callable[[int, int, bytes, int, int], bytes],
    events: dict[int, Any],
    flush: Callable[[int], None],
    room: int,
    most: int,
    refused: bytes,
    too_long: bytes,
) -> bytes:
    """Run ``count`` commands from ``offset`` less the first ``skip``; their results, encoded.

    ``index`` belongs to the first command that runs. A command whose (resource, operation) is not
    in ``table`` goes to ``slow(resource, operation, arguments, index, session)``, which may add it.
    Whenever ``events`` is not empty after a command, ``flush(index)`` is called.

    When the results have ``room`` bytes, no other command runs: the result of each is ``refused``.
    ``too_long`` stands for a result of more than ``most`` bytes. All members must agree on both.
    """
    results: list[bytes] = []
    size = 0
    for resource, operation, arguments in decode_commands(image, offset, count, skip):
        if size >= room:
            results.append(refused)
            index += 1
            continue
        entry = table.get((resource, operation))
        if entry is None:
            result = slow(resource, operation, arguments, index, session)
        else:
            function, commit, unpack, pack, failed = entry
            commit.index = index
            commit.time_us = time_us
            commit.session = session
            try:
                value = function(*unpack(arguments))
                result = OK_NONE if value is None else OK + pack(value)
            except Exception as problem:
                result = failed(problem)
        if len(result) > most:
            result = too_long
        results.append(result)
        size += RESULT_HEADER_SIZE + len(result)
        if events:
            flush(index)
        index += 1
    return encode_results(results)
