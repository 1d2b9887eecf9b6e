"""Every error that Copycat raises on purpose, sorted by what the caller may do next.

Each carries four facts: ``code`` (stable, ``CC-...``), ``retryable`` (the same call may succeed
later), ``applied`` (did the operation take effect: ``"no"``, ``"yes"``, ``"unknown"``) and ``hint``
(the next step, shown in the traceback).

::

    CopycatError
    ├─ ConfigurationError (ValueError)
    ├─ SerializationError (TypeError)   ├─ ResourceTypeError   └─ UnknownResourceError
    ├─ Rejected                  your command said no, identically on every member
    ├─ CommandFailed             your command raised, identically on every member
    ├─ ConflictError             a precondition failed; has .current
    ├─ UnavailableError (ConnectionError): NoLeaderError, NoQuorumError, OverloadedError
    ├─ DeadlineError (TimeoutError)
    ├─ OutcomeUnknownError
    ├─ SessionExpiredError, LockLost (.token), LeadershipLost (.token)
    ├─ MembershipError
    ├─ StorageError (OSError): DataDirectoryInUse, WrongClusterError, CorruptLogError, DiskFullError
    ├─ SecurityError
    └─ MisuseError (RuntimeError): ForkedError, WrongLoopError, NondeterminismError
"""

from __future__ import annotations

from typing import ClassVar, Literal

Applied = Literal["no", "yes", "unknown"]


class CopycatError(Exception):
    """The root of all errors raised by Copycat."""

    code: ClassVar[str] = "CC-ERROR"
    retryable: bool = False
    applied: Applied = "no"
    default_hint: ClassVar[str] = ""

    def __init__(
        self, message: str, *, hint: str | None = None, applied: Applied | None = None
    ) -> None:
        super().__init__(message)
        self.hint = self.default_hint if hint is None else hint
        if applied is not None:
            self.applied = applied
        if self.hint:
            self.add_note(f"hint: {self.hint}")


class ConfigurationError(CopycatError, ValueError):
    """A setting is missing, unknown, or contradicts another one."""

    code = "CC-CONFIG"


class SerializationError(CopycatError, TypeError):
    """A value cannot be encoded, or bytes do not decode; raised at the call, never later."""

    code = "CC-SERIALIZATION"


class ResourceTypeError(CopycatError, TypeError):
    """The path holds a resource of another type."""

    code = "CC-RESOURCE-TYPE"


class UnknownResourceError(CopycatError, LookupError):
    """The resource was deleted, or its machine is not registered on the members.

    ``current`` is the id of the resource that has come to its path since then, as far as is known:
    who holds a stale handle can tell that it was only deleted (None) from that it was created anew.
    """

    code = "CC-UNKNOWN-RESOURCE"

    def __init__(
        self, message: str, *, current: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.current = current


class Rejected(CopycatError):
    """Raised inside a command to say no: the same answer on every member, state unchanged."""

    code = "CC-REJECTED"


class CommandFailed(CopycatError):
    """A command or query of a state machine raised; members are unharmed and agree about it.

    ``error_type`` is the name of the exception's class on the members.
    """

    code = "CC-COMMAND-FAILED"
    applied: Applied = "yes"

    def __init__(self, message: str, *, error_type: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.error_type = error_type


class ConflictError(CopycatError):
    """A precondition (a version, an absence) did not hold; ``current`` is what stands there."""

    code = "CC-CONFLICT"

    def __init__(self, message: str, *, current: object = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.current = current


class UnavailableError(CopycatError, ConnectionError):
    """No member that can serve the operation was reachable in time."""

    code = "CC-UNAVAILABLE"
    retryable = True


class NoLeaderError(UnavailableError):
    """Members answer, but none of them knows a leader yet."""

    code = "CC-NO-LEADER"


class NoQuorumError(UnavailableError):
    """Too few members are alive: ``alive``, ``needed``, and the ``missing`` ones with reasons."""

    code = "CC-NO-QUORUM"

    def __init__(
        self,
        message: str,
        *,
        alive: int = 0,
        needed: int = 0,
        missing: tuple[str, ...] = (),
        hint: str | None = None,
        applied: Applied | None = None,
    ) -> None:
        super().__init__(message, hint=hint, applied=applied)
        self.alive = alive
        self.needed = needed
        self.missing = missing


class OverloadedError(UnavailableError):
    """The cluster refused more work for now; ``retry_after`` is in seconds."""

    code = "CC-OVERLOADED"

    def __init__(self, message: str, *, retry_after: float = 0.05, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class DeadlineError(CopycatError, TimeoutError):
    """The operation's time ran out; the message says at which stage."""

    code = "CC-DEADLINE"
    retryable = True
    applied: Applied = "unknown"


class OutcomeUnknownError(CopycatError):
    """The session died between sending and the answer: the command may have been applied."""

    code = "CC-OUTCOME-UNKNOWN"
    applied: Applied = "unknown"
    default_hint = "read the state back before you decide to repeat the command"


class SessionExpiredError(CopycatError):
    """The session ended: what it owned (locks, leaderships, ephemeral values) is gone."""

    code = "CC-SESSION-EXPIRED"


class LockLost(CopycatError):
    """The lock may belong to somebody else by now; the body was cancelled. ``token``: its fence."""

    code = "CC-LOCK-LOST"
    default_hint = "pass held.token to whatever you write, so that late writes are refused there"

    def __init__(self, message: str, *, token: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.token = token


class LeadershipLost(CopycatError):
    """The leadership may belong to somebody else by now; the body was cancelled."""

    code = "CC-LEADERSHIP-LOST"
    default_hint = "pass term.token to whatever you write, so that late writes are refused there"

    def __init__(self, message: str, *, token: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.token = token


class MembershipError(CopycatError):
    """A change of the members was refused, for example because it would lose the majority."""

    code = "CC-MEMBERSHIP"


class StorageError(CopycatError, OSError):
    """The disk, or something on it, is not as it must be."""

    code = "CC-STORAGE"


class DataDirectoryInUse(StorageError):
    """Another process holds the data directory; ``pid`` is its process id where known."""

    code = "CC-DATA-IN-USE"

    def __init__(self, message: str, *, pid: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class WrongClusterError(StorageError):
    """The data directory, or a peer, belongs to another cluster."""

    code = "CC-WRONG-CLUSTER"


class CorruptLogError(StorageError):
    """Damage that is not a torn tail: ``segment`` is the file, ``offset`` the first bad byte."""

    code = "CC-CORRUPT-LOG"

    def __init__(
        self, message: str, *, segment: str = "", offset: int = 0, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.segment = segment
        self.offset = offset


class DiskFullError(StorageError):
    """No space is left for what has to be written."""

    code = "CC-DISK-FULL"
    retryable = True


class SecurityError(CopycatError):
    """A peer or client could not be trusted, or is not allowed to do this."""

    code = "CC-SECURITY"


class MisuseError(CopycatError, RuntimeError):
    """The library was called in a way that cannot work."""

    code = "CC-MISUSE"


class ForkedError(MisuseError):
    """The object was opened before a fork and is used after it."""

    code = "CC-FORKED"


class WrongLoopError(MisuseError):
    """The object belongs to another event loop."""

    code = "CC-WRONG-LOOP"


class NondeterminismError(MisuseError):
    """Members disagree about a machine's state; ``index`` is the first log index concerned."""

    code = "CC-NONDETERMINISM"

    def __init__(self, message: str, *, index: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.index = index


class InvariantViolated(CopycatError):
    """A safety rule of Copycat itself does not hold: our bug. The member stops at once."""

    code = "CC-INVARIANT"
    default_hint = "keep the data directory and report this: it must never happen"


def invariant(holds: bool, message: str, *values: object) -> None:
    """Raise `InvariantViolated` unless ``holds``; unlike ``assert`` it survives ``python -O``.

    ``values`` fill the braces of ``message``: only then, since a check that holds must cost little.
    """
    if not holds:
        raise InvariantViolated(message.format(*values))
