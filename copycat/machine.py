"""The author's contract: a class whose ``@command`` methods change replicated state.

A machine runs on every member, on the same commands in the same order, and must reach the same
state everywhere: no clock, no chance and no input but what a command brings and `Commit` offers.
Nothing here does I/O or knows of sessions, logs or event loops. It serves the authors of machines
(the built-in resources among them, which have no other door), the applier, and client handles.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from datetime import timedelta
from random import Random
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from .errors import ConfigurationError, MisuseError
from .system import DELETED
from .types import Consistency

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

_ATTACHED = "commit"


class Runtime(Protocol):
    """What the applier offers to a machine, through its `Commit`."""

    def publish(self, resource: int, event: str, value: object, to: int | None) -> int:
        """Send ``value`` to session ``to``, or to all that listen to ``event``; to how many."""

    def schedule(
        self, resource: int, delay_us: int, operation: str, args: tuple[object, ...]
    ) -> None:
        """Run a command once log time has advanced by ``delay_us`` microseconds."""


class Commit:
    """The circumstances of the running command: the same on every member.

    ``index`` is its place in the log, ``time_us`` the log time in microseconds (it never goes
    back), ``session`` the caller (0: a timer). ``operation`` and ``args`` are filled in only for
    machines that override ``apply``.
    """

    __slots__ = (
        "_machine", "_random", "_random_index", "_resource", "_runtime",
        "args", "index", "operation", "read_only", "session", "time_us",
    )  # fmt: skip

    def __init__(self, machine: StateMachine, resource: int, runtime: Runtime) -> None:
        self._machine = machine
        self._resource = resource
        self._runtime = runtime
        self._random = Random(0)
        self._random_index = 0
        self.index = 0
        self.time_us = 0
        self.session = 0
        self.operation = ""
        self.args: tuple[Any, ...] = ()
        self.read_only = False

    @property
    def time(self) -> float:
        """Log time in seconds."""
        return self.time_us / 1_000_000

    @property
    def random(self) -> Random:
        """Chance that is the same on every member: seeded by the command's index."""
        if self._random_index != self.index:
            self._random_index = self.index
            self._random = Random(self.index)
        return self._random

    def publish(self, event: str, value: object, *, to: int | None = None) -> int:
        """Send an event to the session ``to``, or to every session that listens (None).

        Returns the number of sessions that will get it unless they end before.
        """
        self._writing("publish an event")
        return self._runtime.publish(self._resource, event, value, to)

    def dismiss(self, sessions: Iterable[int]) -> None:
        """For ``on_delete``: let the handles of ``sessions`` fail what waits for this resource.

        What they hold of it (a lock, a leadership) is lost at that moment, and their iterators and
        waits end with `UnknownResourceError`.
        """
        for session in dict.fromkeys(sessions):
            self.publish(DELETED, None, to=session)

    def schedule(self, delay: float | timedelta, operation: str, *args: object) -> None:
        """Run the command ``operation`` with ``args`` after ``delay`` seconds of log time."""
        self._writing("schedule a command")
        cls = type(self._machine)
        known = operations_of(cls).get(operation)
        if not is_dynamic(cls) and (known is None or known.is_query):
            raise MisuseError(f"{cls.__name__} has no command {operation!r} to schedule")
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if not 0 <= seconds < 1e12:
            raise MisuseError(f"a delay is a finite number of seconds from 0, not {delay!r}")
        self._runtime.schedule(self._resource, round(seconds * 1_000_000), operation, args)

    def _writing(self, what: str) -> None:
        if self.read_only:
            raise MisuseError(f"a query cannot {what}: it runs on one member only")


class Blocking:
    """Marks what types the blocking handle of a machine: ``class CalmBank(Blocking, Bank): pass``.

    See `copycat.sync`; such a class is never run.
    """


class Operation(Generic[P, R]):
    """A method that clients may call through the log (a command) or beside it (a query).

    Its static type is what a caller sees on the handle: the same parameters, awaitable. On the
    machine itself it can only be run by the cluster; ``function`` is the body, and ``check`` what
    a transaction asks before it (see `command`).
    """

    def __init__(
        self,
        function: Callable[..., R],
        *,
        is_query: bool,
        consistency: Consistency = Consistency.LINEARIZABLE,
        check: Callable[..., object] | None = None,
    ) -> None:
        self.signature = _checked_signature(function)
        self.function = function
        self.check = check
        self.is_query = is_query
        self.consistency = consistency
        self.name: str = function.__name__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        self.least, self.most = _arity(self.signature)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Operation[P, R]: ...
    @overload
    def __get__(self, instance: Blocking, owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: object, owner: type) -> object:
        return self if instance is None else _Misused(owner, self.name)

    def positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments as they travel; raises ``TypeError`` if they do not fit the body."""
        if not kwargs and self.least <= len(args) <= self.most:
            return args
        return self.completed(args, kwargs)

    def completed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments of the body, those with defaults too; raises ``TypeError``."""
        try:
            bound = self.signature.bind(None, *args, **kwargs)
        except TypeError as problem:
            raise TypeError(f"{self.name}(): {problem}") from None
        bound.apply_defaults()
        return bound.args[1:]


class _Misused:
    """What a machine gets when it reaches for one of its own operations."""

    def __init__(self, owner: type, name: str) -> None:
        self._owner = owner
        self._name = name

    def __call__(self, *args: object, **kwargs: object) -> Any:
        owner, name = self._owner.__name__, self._name
        raise MisuseError(
            f"{owner}.{name} was called on the machine itself",
            hint=f"share a plain method between operations; in tests call "
            f"{owner}.{name}.function(machine, ...)",
        )


@overload
def command(function: Callable[Concatenate[S, P], R], /) -> Operation[P, R]: ...
@overload
def command(
    *, check: Callable[..., object] | None = ...
) -> Callable[[Callable[Concatenate[S, P], R]], Operation[P, R]]: ...
def command(function: Any = None, /, *, check: Callable[..., object] | None = None) -> Any:
    """Declare a method that changes state: it travels through the log, exactly once.

    With a ``check`` it can stand anywhere in a transaction, otherwise only in front. That function
    gets the same arguments, machine first, and changes nothing. It raises (`Rejected`, say) if the
    command could fail, and passes only if the command is sure to succeed now and after any 128
    commands of the same transaction. Should that prove wrong, all resources that the transaction
    has touched are fenced, on all members alike: nobody ever sees a half of it.
    """
    if function is None:
        return lambda body: Operation(body, is_query=False, check=check)
    return Operation(function, is_query=False)


@overload
def query(function: Callable[Concatenate[S, P], R], /) -> Operation[P, R]: ...
@overload
def query(
    *, consistency: Consistency = ...
) -> Callable[[Callable[Concatenate[S, P], R]], Operation[P, R]]: ...
def query(function: Any = None, /, *, consistency: Consistency = Consistency.LINEARIZABLE) -> Any:
    """Declare a method that only reads; ``consistency`` is its default freshness."""
    if function is None:
        return lambda body: Operation(body, is_query=True, consistency=consistency)
    return Operation(function, is_query=True, consistency=consistency)


class Events(Generic[T]):
    """The events of one name: published by the machine, iterated through a handle."""

    __slots__ = ("_commit", "_name")

    def __init__(self, commit: Commit, name: str) -> None:
        self._commit = commit
        self._name = name

    def publish(self, value: T, *, to: int | None = None) -> int:
        """Send ``value`` to the session ``to``, or to every session that listens (None).

        Returns the number of sessions that will get it unless they end before.
        """
        return self._commit.publish(self._name, value, to=to)

    def __aiter__(self) -> AsyncIterator[T]:
        raise MisuseError("a machine publishes its events; iterate over them through a handle")


class EventDescriptor(Generic[T]):
    """A typed event of a machine's class."""

    def __init__(self, type_: object) -> None:
        self.type = type_
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> EventDescriptor[T]: ...
    @overload
    def __get__(self, instance: Blocking, owner: type) -> Iterable[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Events[T]: ...
    def __get__(self, instance: object, owner: type) -> object:
        if instance is None:
            return self
        commit = getattr(instance, _ATTACHED, None)
        if commit is None:
            raise MisuseError(f"{owner.__name__} publishes {self.name!r} outside of a command")
        return Events(commit, self.name)


def event(type_: type[T]) -> EventDescriptor[T]:
    """Declare an event whose values have ``type_`` (for type checkers and for readers)."""
    return EventDescriptor(type_)


class StateMachine:
    """The base of replicated classes: instance attributes are the state.

    ``version`` says which code wrote the state; ``type_name`` names the machine in the log and
    defaults to the class's name.
    """

    version: ClassVar[int] = 1
    type_name: ClassVar[str] = ""
    _operations: ClassVar[dict[str, Operation[..., Any]]] = {}

    commit: Commit
    """The circumstances of the running operation; set by the member that runs the machine."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls._operations = _collect(cls)

    def apply(self, commit: Commit) -> object:
        """Override to answer operations by name: ``commit.operation`` and ``commit.args``."""
        raise MisuseError(f"{type(self).__name__} has no operation {commit.operation!r}")

    def snapshot(self) -> object:
        """The state as a serializable value; by default all instance attributes.

        Encoding it stops the member for as long as it takes. A machine with much state may return
        an iterator instead: its values are taken one by one later, while commands go on, and must
        not show what these change. They have to be
        cut in the same places on every member, however it came by the state.
        """
        return {name: value for name, value in vars(self).items() if name != _ATTACHED}

    def restore(self, image: Any) -> None:
        """Become the machine whose ``snapshot()`` gave ``image``; an iterator if it gave one."""
        attributes = vars(self)
        for name in [name for name in attributes if name != _ATTACHED]:
            del attributes[name]
        attributes.update(image)

    def on_register(self, session: int) -> None:
        """A session was registered."""

    def on_expire(self, session: int) -> None:
        """A session expired; ``on_close`` follows."""

    def on_close(self, session: int) -> None:
        """A session ended, whether it expired or was closed: release what it owned."""

    def on_delete(self, session: int) -> None:
        """The resource is being deleted by ``session``: say so to those who depend on it.

        The last time that the machine runs. Events published here still arrive, and sessions that
        listen are told anyway; `Commit.dismiss` tells those that wait without listening. What it
        raises is ignored: a path can always be deleted.
        """


# -- for the applier and for handles -----------------------------------------------------------


def operations_of(cls: type[StateMachine]) -> dict[str, Operation[..., Any]]:
    """The operations of a machine by name, checked when the class was defined."""
    return cls._operations


def events_of(cls: type[StateMachine]) -> dict[str, EventDescriptor[Any]]:
    """The declared events of a machine by name."""
    found: dict[str, EventDescriptor[Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, EventDescriptor):
                found[name] = value
    return found


def type_name_of(cls: type[StateMachine]) -> str:
    """The name under which a machine stands in the log."""
    return vars(cls).get("type_name") or cls.__name__


def is_dynamic(cls: type[StateMachine]) -> bool:
    """Whether the machine answers operations by name through its own ``apply``."""
    return cls.apply is not StateMachine.apply


def attach(machine: StateMachine, resource: int, runtime: Runtime) -> Commit:
    """Give ``machine`` its `Commit`; the applier sets index, time_us and session before each run.

    ``resource`` is the id under which the machine publishes and schedules.
    """
    commit = Commit(machine, resource, runtime)
    machine.commit = commit
    return commit


def bound_operations(machine: StateMachine) -> dict[str, Callable[..., Any]]:
    """The bodies of an attached machine's operations as plain callables, by name."""
    return {
        name: _read_only(machine, operation.function)
        if operation.is_query
        else operation.function.__get__(machine)
        for name, operation in operations_of(type(machine)).items()
    }


def dynamic_operation(
    machine: StateMachine, name: str, *, is_query: bool = False
) -> Callable[..., object]:
    """A callable that runs ``machine.apply`` for the operation ``name`` of a dynamic machine."""

    def run(*args: object) -> object:
        commit = machine.commit
        commit.operation, commit.args = name, args
        return machine.apply(commit)

    return _read_only(machine, lambda _, *args: run(*args)) if is_query else run


def _read_only(machine: StateMachine, function: Callable[..., Any]) -> Callable[..., Any]:
    commit = machine.commit

    def read(*args: object) -> Any:
        commit.read_only = True
        try:
            return function(machine, *args)
        finally:
            commit.read_only = False

    return read


# -- checks at class definition ----------------------------------------------------------------


def _collect(cls: type[StateMachine]) -> dict[str, Operation[..., Any]]:
    reserved = vars(StateMachine).keys() | {_ATTACHED}
    found: dict[str, Operation[..., Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Operation):
                if name in reserved or name.startswith("_"):
                    raise ConfigurationError(
                        f"{cls.__name__}.{name} cannot be an operation: the name is taken",
                        hint="give it another name that does not begin with an underscore",
                    )
                known = found.get(name)
                if known is not None and known.is_query != value.is_query:
                    raise ConfigurationError(
                        f"{cls.__name__}.{name} is a command in one class and a query in another"
                    )
                found[name] = value
            elif name in found:
                raise ConfigurationError(
                    f"{cls.__name__}.{name} hides an operation of the same name",
                    hint="decorate it with @command or @query as well, or rename it",
                )
    return found


def checked_machines(given: object) -> tuple[type[StateMachine], ...]:
    """The classes that somebody gave as ``machines=``. Raises `ConfigurationError`."""
    if isinstance(given, (type, str, StateMachine)) or not isinstance(given, Iterable):
        raise ConfigurationError(
            f"machines={given!r} is no list of classes", hint="write machines=[MyMachine]"
        )
    return tuple(_checked_machine(each) for each in given)


def _checked_machine(given: object) -> type[StateMachine]:
    if isinstance(given, type) and issubclass(given, StateMachine):
        return given
    hint = "give a class that inherits from copycat.StateMachine"
    if isinstance(given, StateMachine):
        hint = f"give the class, not an instance: {type(given).__name__}; members make their own"
    elif isinstance(machine := getattr(given, "machine", None), type):
        hint = f"it is a resource: members need its machine, {machine.__name__}"
    elif isinstance(given, str):
        hint += '; names as in "module:Class" are for configuration files and copycat serve'
    raise ConfigurationError(f"machines= has {given!r}, which is no StateMachine class", hint=hint)


def _checked_signature(function: Callable[..., Any]) -> inspect.Signature:
    name = getattr(function, "__qualname__", repr(function))
    if not inspect.isfunction(function):
        raise ConfigurationError(f"@command and @query decorate methods, not {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"{name} is async: an operation runs at once, on every member alike",
            hint="write it with def; do I/O in the caller and pass the result as an argument",
        )
    if inspect.isgeneratorfunction(function):
        raise ConfigurationError(f"{name} is a generator: return a list instead of yielding")
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            raise ConfigurationError(
                f"{name} has the keyword-only parameter {parameter.name!r}: arguments of an "
                "operation travel by position"
            )
    if not signature.parameters:
        raise ConfigurationError(f"{name} has no parameter for self")
    return signature


def _arity(signature: inspect.Signature) -> tuple[int, int]:
    """The least and the most positional arguments after ``self``."""
    parameters = list(signature.parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        most = 1 << 30
    else:
        most = len(parameters)
    least = sum(
        parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        for parameter in parameters
    )
    return least, most
