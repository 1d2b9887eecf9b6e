"""The client half of a resource: opened at its first use, then operations by name.

A handle does no I/O when it is made. Everything a built-in resource does here a user's own
`Resource` can do as well.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar

from ..errors import ConfigurationError, MisuseError, SerializationError, UnknownResourceError
from ..listeners import Inbox, Registration
from ..machine import EventDescriptor, StateMachine, events_of, is_dynamic, operations_of
from ..paths import normal_path
from ..types import Consistency, Mode, SessionState
from .access import Access as Access
from .access import Opened
from .access import Step as Step
from .access import StepFailed as StepFailed

M = TypeVar("M", bound=StateMachine)
R = TypeVar("R")
T = TypeVar("T")

Duration = float | timedelta | None
"""Seconds, a timedelta, or None for the default."""


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
        self._check_kind(operation, is_query=False)
        return await self._command(operation, [*args], timeout)

    async def query(
        self,
        operation: str,
        *args: object,
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> Any:
        """Ask a query of the machine; ``timeout`` in seconds.

        As fresh as ``consistency`` says, or else the handle's `at`, or else the query's own.
        """
        self._check_kind(operation, is_query=True)
        return await self._query(operation, [*args], consistency, timeout)

    async def events(self, event: EventDescriptor[T]) -> AsyncIterator[T]:
        """What the machine publishes as ``event`` (as in ``self.events(Bank.moved)``) from now on.

        In order, none lost or doubled; raises `SessionExpiredError` if some may have been missed.
        """
        if events_of(self._machine).get(event.name) is not event:
            raise MisuseError(
                f"{self._machine.__name__} does not publish {event.name!r}",
                hint="name one of its own, as in self.events(MyMachine.changed)",
            )
        registration, inbox = await self._listen(event.name)
        try:
            while True:
                yield (await inbox.get())[0]
        finally:
            self._session.unlisten(registration)

    def _check_kind(self, operation: str, *, is_query: bool) -> None:
        known = operations_of(self._machine).get(operation)
        if known is not None and known.is_query is not is_query:
            kind, method = ("query", "query") if known.is_query else ("command", "submit")
            raise MisuseError(
                f"{self._machine.__name__}.{operation} is a {kind}",
                hint=f"write self.{method}({operation!r}, ...)",
            )

    @property
    def _resource(self) -> int:
        """The id of the resource; 0 while the handle has not opened it."""
        return 0 if self._opened is None else self._opened.resource

    async def open(self) -> Self:
        """Create the resource now rather than at its first use; returns the handle."""
        return await self._create(None, None)

    async def _create(self, mode: Mode | None, timeout: Duration) -> Self:
        """Make sure, by the cluster, that the resource is there, at a path in this ``mode``."""
        seconds = self._timeout if timeout is None else seconds_of(timeout)
        self._opened = await self._access.open(
            self._path, self._machine, mode=mode, timeout=seconds
        )
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

    async def _ready(
        self, also: tuple[str, ...] = (), timeout: Duration = None, *, sure: bool = False
    ) -> Opened:
        """The resource as this handle opened it; if it did not, as another one of this client
        did, unless it has to be ``sure`` to be there."""
        opened = self._opened
        if opened is None and not sure:
            opened = self._access.known(self._path, self._machine)
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
        also = () if operation in operations else (operation,)
        fresh = self._opened is None
        opened = await self._ready(also, timeout)
        try:
            return await go_on()
        except UnknownResourceError:
            if not (fresh and self._renew(opened)):
                raise
        await self._ready(also, timeout)
        return await go_on()

    def _renew(self, opened: Opened) -> bool:
        """Whether a first use, which began with ``opened``, may begin again.

        What a handle begins with was perhaps opened by another one, long ago, and deleted since
        then by another client. Nobody can say of a handle that was never used that it is stale.
        """
        if self._opened is opened:
            if self._access.known(self._path, self._machine) is opened:
                return False
            self._opened = None
        return True

    async def _listen(self, event: str) -> tuple[Registration, Inbox]:
        """Listen from now on; to be undone by ``unlisten``."""
        opened = await self._ready(sure=True)
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


def hashable(key: object) -> None:
    """Raise `SerializationError` if it cannot be a key, or an element of a set."""
    try:
        hash(key)
    except TypeError:
        raise SerializationError(
            f"a key needs a hash, as in a dict; {type(key).__name__} has none",
            hint="use a str, a number, bytes, a tuple, or a frozen dataclass",
        ) from None


def stateful(machine: type[StateMachine]) -> Callable[[type[R]], type[R]]:
    """Associate a `Resource` subclass with the machine that holds its state.

    Raises `ConfigurationError` for what is no machine, or no resource.
    """
    if not (isinstance(machine, type) and issubclass(machine, StateMachine)):
        raise ConfigurationError(
            f"@stateful takes a StateMachine class, not {machine!r}",
            hint="write @stateful(MyMachine) above the resource that it is the state of",
        )

    def associate(cls: type[R]) -> type[R]:
        if not (isinstance(cls, type) and issubclass(cls, Resource)):
            raise ConfigurationError(
                f"@stateful decorates Resource classes, not {cls!r}",
                hint=f"write class MyResource(Resource[{machine.__name__}])",
            )
        cls.machine = machine
        return cls

    return associate


def asynchronous(resource: Resource[Any], line: str) -> TypeError:
    """The error for using a handle as if it were a local object."""
    return TypeError(f"{type(resource).__name__} {resource.path!r} is asynchronous: use {line}")


def retrieved(future: asyncio.Future[Any]) -> None:
    """Nobody waits for this outcome: do not let asyncio complain about it."""
    if not future.cancelled():
        future.exception()
