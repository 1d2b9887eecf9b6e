"""Blocking handles of users' machines: operations are calls, events are iterated.

Type checkers know the operations of a class that is also `Blocking`, and of any class through
`Machine.call`. It serves `Copycat.machine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, NoReturn, ParamSpec, Self, TypeVar, cast

from .. import handles
from ..errors import MisuseError
from ..machine import Blocking, Operation, StateMachine, events_of, operations_of
from .base import Handle
from .portal import Portal

M = TypeVar("M", bound=StateMachine)
P = ParamSpec("P")
R = TypeVar("R")


class Machine(Handle, Generic[M]):
    """A handle of a user's machine; an operation wins over a method here with the same name."""

    def __init__(self, portal: Portal, twin: handles.MachineHandle) -> None:
        super().__init__(portal, twin)
        for name in operations_of(twin._machine):
            self.__dict__[name] = _Bound(self, name)
        for name in events_of(twin._machine):
            self.__dict__[name] = _Events(self, name)

    @property
    def _async(self) -> handles.MachineHandle:
        return self._as(handles.MachineHandle)

    def at(self, **defaults: Any) -> Self:
        """A view of the same machine with other defaults (``consistency``, ``timeout``)."""
        return self._again(self._async.at(**defaults))

    def call(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """``bank.call(Bank.transfer, "ann", "bob", 5)``: typed for every machine."""
        result: R = _Bound(self, operation.name)(*args, **kwargs)
        return result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._async, name)  # says which operations there are


class _Bound:
    """One operation of one handle."""

    def __init__(self, handle: Machine[Any], name: str) -> None:
        self._handle = handle
        self._name = name
        self.__doc__ = operations_of(handle._async._machine)[name].__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        handle = self._handle
        return handle._run(handle._async.__dict__[self._name](*args, **kwargs))

    def __repr__(self) -> str:
        return f"<{self._name} of {self._handle!r}>"


class _Events:
    """One event of one handle: ``for value in handle.event``."""

    def __init__(self, handle: Machine[Any], name: str) -> None:
        self._handle = handle
        self._name = name

    def __iter__(self) -> Iterator[Any]:
        handle = self._handle
        return handle._iterate(aiter(handle._async.__dict__[self._name]))

    def publish(self, value: object, *, to: int | None = None) -> NoReturn:
        """Only a machine publishes."""
        raise MisuseError(f"events are published by commands of the machine: {self._name!r}")


def machine_handle(portal: Portal, client: handles.Copycat, path: str, wanted: type[Any]) -> Any:
    """A handle of the machine that ``wanted`` is, or types."""
    machine = wanted
    if isinstance(wanted, type) and issubclass(wanted, Blocking):
        real = [base for base in wanted.__mro__ if not issubclass(base, Blocking)]
        machine = next((base for base in real if issubclass(base, StateMachine)), StateMachine)
        if machine is StateMachine:
            raise MisuseError(
                f"{wanted.__name__} types no machine",
                hint="write  class CalmBank(copycat.sync.Blocking, Bank): pass",
            )
    return Machine(portal, cast(handles.MachineHandle, client.machine(path, machine)))


__all__ = ["Machine", "machine_handle"]
