"""The client half of a resource: opened at its first use, then operations by name.

`Access` is what all handles of one client share. A handle does no I/O when it is made. Everything
a built-in resource does here a user's own `Resource` can do as well.
"""

from __future__ import annotations

import asyncio
import copy
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar, cast

from .._core.calls import packer, unpacker
from ..errors import (
    ConfigurationError,
    CopycatError,
    SerializationError,
    UnknownResourceError,
    WrongLoopError,
)
from ..listeners import Inbox, Registration
from ..machine import StateMachine, is_dynamic, operations_of, type_name_of
from ..outcomes import error_of, forked
from ..paths import normal_path
from ..ports import Random
from ..scopes import Held
from ..serializer import Serializer
from ..session import Session
from ..system import SYSTEM_RESOURCE, SystemOperation
from ..types import Consistency, SessionState

M = TypeVar("M", bound=StateMachine)
R = TypeVar("R")

Duration = float | timedelta | None
"""Seconds, a timedelta, or None for the default."""


@dataclass(slots=True)
class Opened:
    """A resource as the cluster knows it: its id, and the ids of operations by name."""

    resource: int
    ids: dict[str, int]


Step = tuple[str, type[StateMachine], str, bytes]
"""Of a transaction: path, machine, operation, arguments."""


class StepFailed(Exception):
    """A transaction ended at its step ``nth``; ``error`` is what its caller has to hear."""

    def __init__(self, nth: int, error: CopycatError) -> None:
        super().__init__()
        self.nth = nth
        self.error = error


class Access:
    """What every handle of one client needs: the session, and what is open already."""

    def __init__(self, session: Session, serializer: Serializer, random: Random, name: str) -> None:
        self.session = session
        self.pack = packer(serializer.pack)
        self.unpack = unpacker(serializer.unpack)
        self._serializer = serializer
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.held: dict[int, dict[Held, None]] = {}  # by resource: what this client holds now
        self._random = random
        self._pid = os.getpid()
        self._opened: dict[tuple[str, str], Opened] = {}
        session.when_unknown(self._forget)

    def check(self) -> None:
        """Raise unless this is the loop (and the process) the client was opened in."""
        if asyncio.get_running_loop() is not self.loop:
            self.wrong_place()

    def wrong_place(self) -> NoReturn:
        """Raise `ForkedError` or `WrongLoopError`."""
        if os.getpid() != self._pid:
            raise forked(self._pid, os.getpid())
        raise WrongLoopError(
            "the client belongs to another event loop",
            hint="from another thread use asyncio.run_coroutine_threadsafe(..., loop) with the "
            "loop it was opened in",
        )

    def new_claim(self) -> bytes:
        """An id that nobody else has."""
        return self._random.randbytes(16)

    def hold(self, resource: int, held: Held) -> None:
        """Something of the resource is held from now on: it is lost if that is deleted."""
        self.held.setdefault(resource, {})[held] = None

    def let_go(self, resource: int, held: Held) -> None:
        """It was given back, or is lost already."""
        holds = self.held.get(resource, {})
        holds.pop(held, None)
        if not holds:
            self.held.pop(resource, None)

    def known(self, path: str, machine: type[StateMachine]) -> Opened | None:
        """What is open already."""
        return self._opened.get((path, type_name_of(machine)))

    async def open(
        self,
        path: str,
        machine: type[StateMachine],
        *,
        also: tuple[str, ...] = (),
        timeout: float | None = None,
    ) -> Opened:
        """Open, and if need be create, the resource; ``also`` names dynamic operations."""
        type_name = type_name_of(machine)
        known = self._opened.get((path, type_name))
        names = sorted({*operations_of(machine), *also, *(known.ids if known else ())})
        resource, ids = await self.system(
            SystemOperation.OPEN, path, type_name, machine.version, names, timeout=timeout
        )
        opened = Opened(resource, dict(zip(names, ids, strict=True)))
        self._opened[path, type_name] = opened
        return opened

    def system(
        self, operation: SystemOperation, *args: object, timeout: float | None = None
    ) -> asyncio.Future[Any]:
        """Submit one of the system's commands."""
        self.check()
        return self.session.command(SYSTEM_RESOURCE, operation, [*args], timeout)

    def ask_system(
        self,
        operation: SystemOperation,
        *args: object,
        consistency: Consistency = Consistency.LINEARIZABLE,
    ) -> asyncio.Future[Any]:
        """Ask one of the system's queries."""
        self.check()
        return self.session.query(SYSTEM_RESOURCE, operation, [*args], consistency)

    async def transact(
        self, expected: list[Step], steps: list[Step], *, timeout: float | None = None
    ) -> list[bytes]:
        """Run ``steps``, all or none, if what is ``expected`` holds; the encoded results.

        Raises `StepFailed` with the place of the first that failed (what is expected comes first).
        """
        called = []
        for path, machine, operation, arguments in (*expected, *steps):
            opened = self.known(path, machine)
            if opened is None or operation not in opened.ids:
                opened = await self.open(path, machine, also=(operation,), timeout=timeout)
            called.append([opened.resource, opened.ids[operation], arguments])
        results, failed, *why = await self.system(
            SystemOperation.TRANSACT, called[: len(expected)], called[len(expected) :],
            timeout=timeout,
        )  # fmt: skip
        if failed < 0:
            return cast("list[bytes]", results)
        problem = error_of(why[0], self._serializer)
        if isinstance(problem, UnknownResourceError):
            self._forget(called[failed][0])
        raise StepFailed(failed, problem)

    def _forget(self, resource: int) -> None:
        """The resource was deleted: what is held of it is lost, new handles open anew."""
        for held in self.held.pop(resource, {}):
            held.lose("the resource was deleted")
        for key in [key for key, opened in self._opened.items() if opened.resource == resource]:
            del self._opened[key]


class Resource(Generic[M]):
    """A typed handle of the resource at ``path``, whose state is a ``machine``.

    Subclass it for a client half of your own: ordinary async methods that call `submit` and
    `query`; associate the machine with ``machine = Bank`` or ``@stateful(Bank)``.
    """

    machine: ClassVar[type[StateMachine]]

    def __init__(self, access: Access, path: str) -> None:
        if not isinstance(getattr(type(self), "machine", None), type):
            raise ConfigurationError(
                f"{type(self).__name__} has no state machine",
                hint="decorate the class with @copycat.stateful(YourMachine)",
            )
        self._access = access
        self._session = access.session
        self._enter, self._queue = access.session.entrance
        self._machine: type[StateMachine] = self.machine
        self._path = normal_path(path)
        self._opened: Opened | None = None
        self._consistency: Consistency | None = None
        self._timeout: float | None = None

    @property
    def path(self) -> str:
        """The path in normal form."""
        return self._path

    def at(
        self,
        *,
        consistency: Consistency | None = None,
        timeout: float | timedelta | None = None,
    ) -> Self:
        """A view of the same resource with other defaults; ``timeout`` in seconds."""
        view = copy.copy(self)
        if consistency is not None:
            view._consistency = Consistency(consistency)
        if timeout is not None:
            view._timeout = seconds_of(timeout)
        return view

    async def submit(self, operation: str, *args: object, timeout: Duration = None) -> Any:
        """Run a command of the machine; ``timeout`` in seconds."""
        return await self._command(operation, [*args], timeout)

    async def query(
        self,
        operation: str,
        *args: object,
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> Any:
        """Ask a query of the machine; ``timeout`` in seconds."""
        return await self._query(operation, [*args], consistency, timeout)

    @property
    def _resource(self) -> int:
        """The id of the resource; 0 while the handle has not opened it."""
        return 0 if self._opened is None else self._opened.resource

    async def open(self) -> Self:
        """Create the resource now rather than at its first use; returns the handle."""
        await self._ready()
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r} on {self._access.name}>"

    # -- for subclasses; both return at once with something to await ---------------------------

    def _command(self, operation: str, args: list[Any], timeout: Duration = None) -> Awaitable[Any]:
        seconds = self._timeout if timeout is None else seconds_of(timeout)
        opened = self._opened
        if opened is not None:
            try:
                entered: Awaitable[Any] | None = self._enter(
                    self._queue, opened.resource, opened.ids.get(operation), args, seconds
                )
            except SerializationError as problem:
                raise self._unpackable(operation, args, problem) from None
            if entered is not None:
                return entered
        self._access.check()
        id_ = None if opened is None else opened.ids.get(operation)
        if opened is None or id_ is None:
            return self._open_then(
                lambda: self._command(operation, args, timeout), operation, timeout
            )
        return self._session.command(opened.resource, id_, args, seconds)

    def _query(
        self,
        operation: str,
        args: list[Any],
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> Awaitable[Any]:
        self._access.check()
        opened = self._opened
        if opened is None or operation not in opened.ids:
            return self._open_then(
                lambda: self._query(operation, args, consistency, timeout), operation, timeout
            )
        level = consistency if consistency is not None else self._consistency
        if level is None:
            known = operations_of(self._machine).get(operation)
            level = known.consistency if known is not None else Consistency.LINEARIZABLE
        elif level.__class__ is not Consistency:
            level = Consistency(level)
        seconds = self._timeout if timeout is None else seconds_of(timeout)
        try:
            return self._session.query(opened.resource, opened.ids[operation], args, level, seconds)
        except SerializationError as problem:
            raise self._unpackable(operation, args, problem) from None

    def _quietly(self, operation: str, args: list[Any]) -> asyncio.Future[Any] | None:
        """Submit a command whose outcome nobody has to wait for (cleaning up)."""
        opened = self._opened
        if opened is None or self._session.state is SessionState.CLOSED:
            return None
        # Without a deadline: it goes out when it can, or becomes pointless with the session.
        future = self._session.command(opened.resource, opened.ids[operation], args, math.inf)
        future.add_done_callback(retrieved)
        return future

    async def _ready(self, also: tuple[str, ...] = (), timeout: Duration = None) -> Opened:
        opened = self._opened or self._access.known(self._path, self._machine)
        if opened is None or any(name not in opened.ids for name in also):
            seconds = self._timeout if timeout is None else seconds_of(timeout)
            opened = await self._access.open(self._path, self._machine, also=also, timeout=seconds)
        self._opened = opened
        return opened

    async def _open_then(
        self, go_on: Callable[[], Awaitable[Any]], operation: str, timeout: Duration
    ) -> Any:
        operations = operations_of(self._machine)
        if operation not in operations and not is_dynamic(self._machine):
            raise UnknownResourceError(f"{self._machine.__name__} has no operation {operation!r}")
        await self._ready(() if operation in operations else (operation,), timeout)
        return await go_on()

    async def _listen(self, event: str) -> tuple[Registration, Inbox]:
        """Listen from now on; to be undone by ``unlisten``."""
        opened = await self._ready()
        inbox = Inbox()
        registration, told = self._session.listen(
            opened.resource, event, inbox.put, on_gap=inbox.end
        )
        try:
            if told is not None:
                inbox.begin(await told)
        except BaseException:
            self._session.unlisten(registration)
            raise
        return registration, inbox

    def _unpackable(
        self, operation: str, args: list[Any], problem: SerializationError
    ) -> SerializationError:
        """The same error, saying which argument of which operation it is about."""
        known = operations_of(self._machine).get(operation)
        names = list(known.signature.parameters)[1:] if known is not None else []
        for position, value in enumerate(args):
            try:
                self._access.pack(value)
            except SerializationError as cause:
                name = names[position] if position < len(names) else f"argument {position}"
                where = f"{self._machine.__name__}.{operation}({name}=<{type(value).__name__}>)"
                return SerializationError(f"{where}: {cause}", hint=cause.hint)
        return problem

    # -- what looks like a collection but is not one -------------------------------------------

    def __getitem__(self, key: object) -> NoReturn:
        raise asynchronous(self, f"await m.get({key!r})")

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise asynchronous(self, f"await m.put({key!r}, {value!r})")

    def __delitem__(self, key: object) -> NoReturn:
        raise asynchronous(self, f"await m.remove({key!r})")

    def __contains__(self, key: object) -> NoReturn:
        raise asynchronous(self, f"await m.contains({key!r})")

    def __len__(self) -> NoReturn:
        raise asynchronous(self, "await m.size()")

    def __iter__(self) -> NoReturn:
        raise asynchronous(self, "async for k, v in m.items()")

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> NoReturn:
        raise asynchronous(self, "async with")

    def __exit__(self, *exc: object) -> None:
        """Never reached."""


def seconds_of(duration: float | timedelta) -> float:
    """A duration in seconds; raises `ConfigurationError` unless it is a number from 0."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ConfigurationError(f"a timeout is a number of seconds from 0, not {duration!r}")
    return seconds


def stateful(machine: type[StateMachine]) -> Callable[[type[R]], type[R]]:
    """Associate a `Resource` subclass with the machine that holds its state."""

    def associate(cls: type[R]) -> type[R]:
        cls.machine = machine  # type: ignore[attr-defined]
        return cls

    return associate


def asynchronous(resource: Resource[Any], line: str) -> TypeError:
    """The error for using a handle as if it were a local object."""
    return TypeError(f"{type(resource).__name__} {resource.path!r} is asynchronous: use {line}")


def retrieved(future: asyncio.Future[Any]) -> None:
    """Nobody waits for this outcome: do not let asyncio complain about it."""
    if not future.cancelled():
        future.exception()
