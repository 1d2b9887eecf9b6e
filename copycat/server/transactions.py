"""A transaction: several commands as one entry of the log, all of them or none.

Nothing is ever undone. Instead, nothing is done before it is certain that nothing can fail:

1. every precondition is asked, a query of a built-in machine that raises if it does not hold;
2. every command is *checked*: it exists, its arguments fit, and its machine's own check passes.
   A passed check is a promise that the command succeeds, also after the others of the transaction;
3. the commands run, in their order.

The first command alone may be one without a check, so that it may be any command of any machine: if
it raises, no other one has changed anything, and all ends there. (What a user's command had
changed before it raised stays changed, as it does without a transaction.) A later one that breaks
its promise leaves the others half-done: all resources that were touched are fenced then, and nobody
sees what is in them. So a transaction is done, or not done, or what it touched is gone; never
something else.

Whatever happens here is the same on every member, like any command (see `executor`). Pure; it knows
no session and no log, and serves the `System`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._core.calls import OK, OK_NONE
from .._core.layout import Status
from ..errors import Rejected
from ..machine import operations_of
from ..system import FENCED
from .executor import MEMBER_ONLY, Executor, Instance, failure, is_built_in

STEPS_MAX = 128
"""Preconditions, and commands, of one transaction."""
RESULT_BYTES_MAX = 4 << 20
"""Results of all commands; those beyond it are not told."""
NOT_TOLD = b""

Step = list[Any]  # resource, operation, arguments as bytes


@dataclass(slots=True)
class _Command:
    """A command that can run."""

    instance: Instance
    operation: int
    function: Callable[..., Any]
    args: list[Any]


class _Refused(Exception):
    """The transaction ends here, and nothing was changed; ``result`` says why."""

    def __init__(self, result: bytes) -> None:
        super().__init__()
        self.result = result


class Transaction:
    """One run of one transaction, at one index."""

    def __init__(self, executor: Executor, index: int, time_us: int, session: int) -> None:
        self._executor = executor
        self._circumstances = index, time_us, session
        self._nth = 0

    def run(self, expected: list[Step], commands: list[Step]) -> list[object]:
        """[results, -1], or [[], nth step that failed, its result]; preconditions come first."""
        for steps in (expected, commands):
            _check_shape(steps)
        checked: list[_Command] = []
        results: list[bytes] = []
        try:
            for self._nth, step in enumerate(expected):
                self._expect(*step)
            for self._nth, step in enumerate(commands, len(expected)):
                checked.append(self._checked(*step, first=not checked))
            for self._nth, command in enumerate(checked, len(expected)):
                results.append(self._do(command, checked[: len(results) + 1]))
        except _Refused as refused:
            return [[], self._nth, refused.result]
        return [_told(results), -1]

    def _expect(self, resource: int, operation: int, arguments: bytes) -> None:
        function, instance = self._resolved(resource, operation, queries=True)
        if not is_built_in(instance.type_name):
            # What a query of a user's machine does has never to be the same on every member.
            raise _Refused(
                failure(
                    Status.REJECTED,
                    f"{instance.type_name} is a machine of your own: let the command that comes "
                    "first check what you expect of it",
                )
            )
        self._guarded(instance, operation, lambda: function(*_arguments(instance, arguments)))

    def _checked(self, resource: int, operation: int, arguments: bytes, *, first: bool) -> _Command:
        function, instance = self._resolved(resource, operation, queries=False)
        name = self._executor.name_of(operation) or ""
        known = operations_of(type(instance.machine)).get(name)
        check = None if known is None else known.check
        if check is None and not first:
            raise _Refused(
                failure(
                    Status.REJECTED,
                    f"{instance.type_name}.{name} has no check, so it can only be the first "
                    "operation of a transaction",
                )
            )
        args: list[Any] = []

        def pass_check() -> None:
            given = _arguments(instance, arguments)
            args.extend(given if known is None else known.completed(tuple(given), {}))
            if check is not None:
                check(instance.machine, *args)

        self._guarded(instance, operation, pass_check)
        return _Command(instance, operation, function, args)

    def _do(self, command: _Command, touched: list[_Command]) -> bytes:
        """Run a command, the last one of those that were ``touched``; its result."""
        instance = command.instance
        problem = self._run(command)
        if isinstance(problem, bytes):
            return problem
        alone = len(touched) == 1
        if alone or isinstance(problem, MEMBER_ONLY) or self._is_our_end(problem, instance):
            raise _Refused(self._executor.failed(problem, instance, command.operation))
        reason = (
            f"{instance.type_name}.{self._executor.name_of(command.operation)} at {instance.path} "
            f"raised {type(problem).__name__} in the transaction at index "
            f"{self._circumstances[0]}, although its check had passed"
        )
        for each in dict.fromkeys(done.instance for done in touched):
            told = f"{each.path} is fenced: {reason}; delete the path to use it again"
            self._executor.fence(each, told)
        raise _Refused(failure(Status.FAILED, FENCED, reason)) from problem

    def _run(self, command: _Command) -> bytes | Exception:
        instance = command.instance
        self._set(instance)

        def body() -> bytes:
            value = command.function(*command.args)
            return OK_NONE if value is None else OK + instance.pack(value)

        try:
            return self._level(body)
        except Exception as problem:
            return problem

    def _guarded(self, instance: Instance, operation: int, body: Callable[[], object]) -> None:
        """Run what must not change anything."""
        self._set(instance)

        def quietly() -> bytes:
            body()
            return OK_NONE

        instance.commit.read_only = True
        try:
            self._level(quietly)
        except Exception as problem:
            # A user's check that recursed without end has changed nothing: that is no fence.
            harmless = isinstance(problem, RecursionError) and not is_built_in(instance.type_name)
            told = self._executor.mishap if harmless else self._executor.failed
            raise _Refused(told(problem, instance, operation)) from problem
        finally:
            instance.commit.read_only = False

    @staticmethod
    def _is_our_end(problem: Exception, instance: Instance) -> bool:
        """Our own machines do not recurse: this member has too little stack (see `executor`)."""
        return isinstance(problem, RecursionError) and is_built_in(instance.type_name)

    def _level(self, run: Callable[[], bytes]) -> bytes:
        level = self._executor.level
        return run() if level is None else level.anew(run)

    def _resolved(
        self, resource: int, operation: int, *, queries: bool
    ) -> tuple[Callable[..., Any], Instance]:
        found = self._executor.resolve(resource, operation, queries=queries)
        if isinstance(found, bytes):
            raise _Refused(found)
        return found

    def _set(self, instance: Instance) -> None:
        commit = instance.commit
        commit.index, commit.time_us, commit.session = self._circumstances


def _check_shape(steps: object) -> None:
    # Lists, and nothing else: the order of a set is another one on each member.
    if type(steps) is not list or len(steps) > STEPS_MAX:
        raise Rejected(f"a transaction has a list of at most {STEPS_MAX} steps of each kind")
    for step in steps:
        if type(step) is not list or [type(part) for part in step] != [int, int, bytes]:
            raise Rejected("a step is [resource, operation, arguments as bytes]")


def _arguments(instance: Instance, encoded: bytes) -> list[Any]:
    args = instance.unpack(encoded)
    if type(args) is not list:
        raise Rejected("arguments are a list")
    return args


def _told(results: list[bytes]) -> list[bytes]:
    room = RESULT_BYTES_MAX
    told = []
    for result in results:
        room -= len(result)
        told.append(result if room >= 0 else NOT_TOLD)
    return told
