"""What became of an operation, in the caller's terms: result bytes and deadlines become errors.

Every error says what happened, whether the operation may have been applied, and with the names and
numbers of this run. It serves the `Session`; it decides nothing.
"""

from __future__ import annotations

from typing import Any

from ._core.layout import Status
from .errors import (
    Applied,
    CommandFailed,
    ConflictError,
    CopycatError,
    DeadlineError,
    ForkedError,
    NoLeaderError,
    NoQuorumError,
    OverloadedError,
    Rejected,
    ResourceTypeError,
    SessionExpiredError,
    UnknownResourceError,
)
from .serializer import Serializer
from .system import FENCED

_APPLIED_TEXT: dict[Applied, str] = {
    "no": "Not applied.",
    "unknown": "It may have been applied.",
    "yes": "Applied.",
}


def error_of(result: bytes, serializer: Serializer, *, is_query: bool = False) -> CopycatError:
    """The error behind a result whose status is not OK; a query never changed anything."""
    try:
        error = _error_of(result, serializer)
    except CopycatError as problem:  # it speaks of a type that is not registered here
        problem.applied = "unknown"
        error = problem
    if is_query:
        error.applied = "no"
    return error


def _error_of(result: bytes, serializer: Serializer) -> CopycatError:
    status = result[0]
    value: Any = serializer.unpack(result[1:])
    message = str(value[0])
    if status == Status.REJECTED:
        return Rejected(message)
    if status == Status.FAILED and message == FENCED:
        return _fenced(str(value[1]))
    if status == Status.FAILED:
        return CommandFailed(
            f"{value[2] if len(value) > 2 else 'the operation'} raised {value[0]}: {value[1]}",
            error_type=message,
            hint="it raised on every member alike, whose logs have the traceback (of the first of "
            "its kind); mend the machine or the arguments",
        )
    if status == Status.CONFLICT:
        return ConflictError(message, current=value[1])
    if status == Status.OVERLOADED:
        return OverloadedError(message, retry_after=value[1] / 1000)
    if status == Status.UNKNOWN_RESOURCE:
        return UnknownResourceError(message)
    if status == Status.UNKNOWN_OPERATION:
        return UnknownResourceError(
            message, hint="the members run other code than this client; start them with the same"
        )
    if status == Status.RESOURCE_TYPE:
        return ResourceTypeError(message, hint="use another path, or the type that is there")
    if status == Status.UNKNOWN_SESSION:
        return SessionExpiredError(message)
    return CopycatError(f"result with the unknown status {status}: {message}")


def _fenced(message: str) -> CopycatError:
    error = CommandFailed(
        message, error_type=FENCED, hint="mend the machine, delete the path, and create it anew"
    )
    error.applied = "no"
    return error


def unavailable(
    *,
    known: int,
    missing: dict[str, str],
    seconds: float,
    applied: Applied,
) -> CopycatError:
    """No leader was reachable for ``seconds``; ``missing`` says why, member by member."""
    needed = known // 2 + 1
    alive = max(known - len(missing), 0)
    effect = _APPLIED_TEXT[applied]
    reasons = ", ".join(_with_reason(name, reason) for name, reason in missing.items())
    if alive < needed:
        return NoQuorumError(
            f"{alive} of {known} members reachable, {needed} needed (waited {seconds:.1f} s). "
            f"{effect} Missing: {reasons}.",
            alive=alive,
            needed=needed,
            missing=tuple(_with_reason(name, reason) for name, reason in missing.items()),
            hint="start one of them; 'copycat status' shows where each member stands",
            applied=applied,
        )
    also = f" Missing: {reasons}." if missing else ""
    return NoLeaderError(
        f"{alive} of {known} members answer, but none of them led for {seconds:.1f} s. "
        f"{effect}{also}",
        hint="an election takes a second or two; if it goes on, look at the members' logs",
        applied=applied,
    )


def too_late(*, sent_to: str | None, seconds: float, is_query: bool) -> DeadlineError:
    """Time ran out although the leader was connected."""
    if sent_to is None:
        return DeadlineError(
            f"not sent within {seconds:.1f} s: the session had too many unanswered operations. "
            "Not applied.",
            applied="no",
            hint="run fewer operations at once, or give timeout= more seconds",
        )
    if is_query:
        return DeadlineError(
            f"asked {sent_to}, no answer within {seconds:.1f} s. Nothing was changed.",
            applied="no",
        )
    return DeadlineError(
        f"sent to {sent_to}, no answer within {seconds:.1f} s. It may have been applied.",
        applied="unknown",
        hint="read the state back before you decide to repeat it",
    )


def forked(opened_in: int, now_in: int) -> ForkedError:
    """What was opened in process ``opened_in`` is used in its child ``now_in``."""
    return ForkedError(
        f"the client was opened in pid {opened_in} before a fork, this is pid {now_in}",
        hint="open it in the worker: celery @worker_process_init, gunicorn post_fork",
    )


def _with_reason(name: str, reason: str) -> str:
    return f"{name} ({reason})"
