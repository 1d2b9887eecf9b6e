"""Operations on their way: gathered into frames, matched with their answers, each in its order.

`Commands` gives contiguous sequence numbers at the moment of sending and keeps everything until it
is answered; `Queries` may be asked again at will. Both are plain books: they hold futures, make
bytes, and neither send nor wait. They serve the `Session`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ._core.calls import resolve, unpacker
from ._core.codec import ANSWERS_HEAD, HEADER, QUERY_HEAD, RESULTS_HEAD, Frame, pack_frame
from ._core.kernel import encode_run
from ._core.layout import RUN_HEADER_SIZE, FormatError, Kind, Status
from .errors import CopycatError, OverloadedError, SerializationError
from .outcomes import error_of
from .serializer import Serializer
from .types import Consistency

FRAME_BYTES = 256 << 10
BYTES_IN_FLIGHT = 8 << 20
QUERIES_IN_FLIGHT = 16_384

Command = tuple[int, int, bytes]
"""Resource, operation, arguments."""
Call = tuple["asyncio.Future[Any]", float, float, Command]
"""Future, deadline (loop time, s), timeout (s), command."""

OnUnknown = Callable[[int, "asyncio.Future[Any]", CopycatError], None]
"""Told of an operation on a resource (0: the system's) that is not there: who waits for it, and
what would be said to them. It sees to it that they hear of it."""

_COMMAND_OVERHEAD = 16
_NEVER = float("inf")


class Commands:
    """The commands of one session, in order; the last ``len(unanswered)`` sequences wait."""

    def __init__(self, serializer: Serializer, in_flight: int) -> None:
        self._serializer = serializer
        self._unpack = unpacker(serializer.unpack)
        self._in_flight = in_flight
        self._frames: deque[tuple[int, float, int]] = deque()  # last sequence, sent at, bytes
        self._bytes = 0  # in those frames
        self.queued: deque[Call] = deque()
        self.unanswered: deque[Call] = deque()
        self.sequence = 0
        self.on_unknown: OnUnknown = _told
        self.applied_index = 0

    def flush(self, session: int, now: float) -> bytes:
        """Frames with what is queued, as far as there is room; ``now`` is clock time in s."""
        queued, unanswered = self.queued, self.unanswered
        acknowledged = self.sequence - len(unanswered)
        room = self._in_flight - len(unanswered)
        frames: list[bytes] = []
        while queued and room > 0 and self._bytes < BYTES_IN_FLIGHT:
            commands: list[Command] = []
            size = 0
            while queued and room > 0 and size < FRAME_BYTES:
                call = queued.popleft()
                if call[0].done():  # cancelled or too late: it never gets a sequence
                    continue
                command = call[3]
                commands.append(command)
                unanswered.append(call)
                size += len(command[2]) + _COMMAND_OVERHEAD
                room -= 1
            if commands:
                frames.append(_run_frame(session, self.sequence + 1, acknowledged, commands))
                self.sequence += len(commands)
                self._frames.append((self.sequence, now, size))
                self._bytes += size
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def resend(self, session: int) -> bytes:
        """Frames with everything that is not answered, under the same sequences."""
        acknowledged = self.sequence - len(self.unanswered)
        frames: list[bytes] = []
        commands: list[Command] = []
        first, size = acknowledged + 1, 0
        for call in self.unanswered:
            commands.append(call[3])
            size += len(call[3][2]) + _COMMAND_OVERHEAD
            if size >= FRAME_BYTES:
                frames.append(_run_frame(session, first, acknowledged, commands))
                first, size, commands = first + len(commands), 0, []
        if commands:
            frames.append(_run_frame(session, first, acknowledged, commands))
        return b"".join(frames)

    def results(self, payload: bytes) -> float | None:
        """Resolve the futures of a RESULTS frame; when its newest finished frame was sent.

        0.0: no frame is finished. None: results before these are missing, nothing was resolved.
        """
        _, first, applied, count = RESULTS_HEAD.unpack_from(payload)
        unanswered = self.unanswered
        skip = self.sequence - len(unanswered) + 1 - first
        if skip < 0:
            return None
        if skip >= count:
            return 0.0
        if first + count - 1 > self.sequence:
            raise FormatError("results for commands that were never sent")
        resolve(payload, RESULTS_HEAD.size, count, skip, unanswered, self._unpack, self._odd)
        self.applied_index = max(self.applied_index, applied)
        sent = 0.0
        while self._frames and self._frames[0][0] < first + count:
            _, sent, size = self._frames.popleft()
            self._bytes -= size
        return sent

    def _odd(self, call: Call, result: bytes) -> None:
        """A result that is an error, or a value that cannot be read here."""
        problem = _problem(result, self._serializer, is_query=False)
        if result[0] == Status.OK:
            problem.applied = "yes"
        if result[0] == Status.UNKNOWN_RESOURCE:
            self.on_unknown(call[3][0], call[0], problem)
        else:
            call[0].set_exception(problem)

    def restart(self) -> list[Call]:
        """Begin a new session; returns what was sent under the old one and never answered."""
        sent = list(self.unanswered)
        self.unanswered.clear()
        self._frames.clear()
        self.sequence = self._bytes = 0
        return sent

    def sweep(self, now: float, late: Callable[[Call, bool], None]) -> float:
        """Call ``late(call, sent)`` for what is overdue; the next deadline."""
        following = _sweep(self.unanswered, now, lambda call: late(call, True))
        following = min(following, _sweep(self.queued, now, lambda call: late(call, False)))
        _purge(self.queued)
        return following


class Queries:
    """Queries by consistency: those to be sent, and frames that wait for their answers."""

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer
        self._unpack = unpacker(serializer.unpack)
        self.queued: dict[Consistency, deque[Call]] = {level: deque() for level in Consistency}
        self._asked: dict[int, tuple[object, Consistency, deque[Call]]] = {}  # by first id
        self._next_id = 1
        self._in_flight = 0
        self.on_unknown: OnUnknown = _told
        self.applied_index = 0

    @property
    def waiting(self) -> bool:
        """Whether there is a query to be sent."""
        return any(self.queued.values())

    def flush(self, link: object, min_index: int) -> bytes:
        """Frames to send over ``link`` with the queued queries."""
        frames: list[bytes] = []
        for consistency, queued in self.queued.items():
            while queued and self._in_flight < QUERIES_IN_FLIGHT:
                calls: deque[Call] = deque()
                size = 0
                room = QUERIES_IN_FLIGHT - self._in_flight
                while queued and len(calls) < room and size < FRAME_BYTES:
                    call = queued.popleft()
                    if not call[0].done():
                        calls.append(call)
                        size += len(call[3][2]) + _COMMAND_OVERHEAD
                if calls:
                    frames.append(self._frame(link, min_index, consistency, calls))
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def answers(self, payload: bytes) -> None:
        """Resolve the futures of an ANSWERS frame."""
        first, applied, count = ANSWERS_HEAD.unpack_from(payload)
        asked = self._asked.get(first)
        if asked is None:
            return  # asked again elsewhere meanwhile
        calls = asked[2]
        if count != len(calls):
            raise FormatError("answers do not match their queries")
        self._in_flight -= count
        del self._asked[first]
        # What a member that lags does not know of may well be there: nobody else is told.
        odd = self._odd if asked[1] is not Consistency.SERIALIZABLE else self._not_here
        resolve(payload, ANSWERS_HEAD.size, count, 0, calls, self._unpack, odd)
        self.applied_index = max(self.applied_index, applied)

    def _odd(self, call: Call, result: bytes) -> None:
        """An answer that is an error, or a value that cannot be read here."""
        if result[0] == Status.UNKNOWN_RESOURCE:
            problem = _problem(result, self._serializer, is_query=True)
            self.on_unknown(call[3][0], call[0], problem)
        else:
            self._not_here(call, result)

    def _not_here(self, call: Call, result: bytes) -> None:
        """The same, where it says nothing about other members."""
        call[0].set_exception(_problem(result, self._serializer, is_query=True))

    def again(self, first: int) -> None:
        """Queue the queries of a rejected frame once more, before the others."""
        asked = self._asked.pop(first, None)
        if asked is not None:
            _, consistency, calls = asked
            self._in_flight -= len(calls)
            self.queued[consistency].extendleft(reversed(calls))

    def lost(self, link: object) -> None:
        """``link`` will answer nothing more."""
        for first in [first for first, asked in self._asked.items() if asked[0] is link]:
            self.again(first)

    def sweep(self, now: float, late: Callable[[Call, bool], None]) -> float:
        """Call ``late(call, sent)`` for what is overdue; the next deadline."""
        following = _NEVER
        for _, _, calls in self._asked.values():
            following = min(following, _sweep(calls, now, lambda call: late(call, True)))
        for queued in self.queued.values():
            following = min(following, _sweep(queued, now, lambda call: late(call, False)))
            _purge(queued)
        return following

    def drain(self) -> list[Call]:
        """Take out everything, answered or not."""
        calls = [call for _, _, asked in self._asked.values() for call in asked]
        for queued in self.queued.values():
            calls += queued
            queued.clear()
        self._asked.clear()
        self._in_flight = 0
        return calls

    def _frame(
        self, link: object, min_index: int, consistency: Consistency, calls: deque[Call]
    ) -> bytes:
        first = self._next_id
        self._next_id += len(calls)
        self._in_flight += len(calls)
        self._asked[first] = (link, consistency, calls)
        body = encode_run(Kind.COMMAND, 0, 0, 0, [call[3] for call in calls])[RUN_HEADER_SIZE:]
        head = QUERY_HEAD.pack(first, min_index, len(calls), consistency)
        return pack_frame(Frame.QUERIES, head, body)


class Requests:
    """Administrators' requests, each to one member."""

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer
        self._asked: dict[int, tuple[object, asyncio.Future[Any]]] = {}
        self._last = 0

    def ask(
        self, link: object, name: str, arguments: list[object], future: asyncio.Future[Any]
    ) -> bytes:
        """The frame of a request to be sent over ``link``; ``future`` gets the reply."""
        self._last += 1
        self._asked[self._last] = (link, future)
        return pack_frame(Frame.ADMIN, self._serializer.pack([self._last, name, arguments]))

    def reply(self, payload: bytes) -> None:
        """Resolve the future of an ADMIN_REPLY frame."""
        request, error, value = self._serializer.unpack(payload)
        _, future = self._asked.pop(request, (None, None))
        if future is None or future.done():
            return
        if error is None:
            future.set_result(value)
        elif isinstance(error, list):  # a message, and milliseconds to wait
            future.set_exception(OverloadedError(error[0], retry_after=error[1] / 1000))
        else:
            future.set_exception(CopycatError(error))

    def asked(self, link: object) -> bool:
        """Whether an answer is due on ``link``."""
        return any(each is link for each, _ in self._asked.values())

    def lost(self, link: object | None, error: CopycatError) -> None:
        """``link`` (None: every one) will answer nothing more."""
        for id_, (asked, future) in list(self._asked.items()):
            if link is None or asked is link:
                del self._asked[id_]
                if not future.done():
                    future.set_exception(error)


def fail(call: Call, error: CopycatError) -> None:
    """Let whoever waits for ``call`` know; nothing if it is done."""
    if not call[0].done():
        call[0].set_exception(error)


def retrieved(future: asyncio.Future[Any]) -> None:
    """Nobody waits for this one; its failure shows in the next operation."""
    if not future.cancelled():
        future.exception()


def _told(resource: int, future: asyncio.Future[Any], problem: CopycatError) -> None:
    """Say so at once."""
    future.set_exception(problem)


def _run_frame(session: int, first: int, acknowledged: int, commands: list[Command]) -> bytes:
    run = encode_run(Kind.COMMAND, session, first, acknowledged, commands)
    return HEADER.pack(len(run), Frame.RUN, 0, 0) + run


def _problem(result: bytes, serializer: Serializer, *, is_query: bool) -> CopycatError:
    """What a result that is no plain value means to whoever waits for it."""
    if result[0] != Status.OK:
        return error_of(result, serializer, is_query=is_query)
    try:
        serializer.unpack(result[1:])
    except CopycatError as problem:
        return problem
    except Exception as problem:
        return SerializationError(f"the result cannot be read: {type(problem).__name__}")
    return SerializationError("the result could not be read")


def _sweep(calls: Iterable[Call], now: float, late: Callable[[Call], None]) -> float:
    following = _NEVER
    for call in calls:
        if not call[0].done():
            if call[1] <= now:
                late(call)
            elif call[1] < following:
                following = call[1]
    return following


def _purge(queued: deque[Call]) -> None:
    alive = [call for call in queued if not call[0].done()]
    if len(alive) != len(queued):
        queued.clear()
        queued.extend(alive)
