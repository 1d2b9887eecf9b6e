"""The typed handle of a user's machine: its operations as coroutines, its events to iterate.

It knows nothing of paths but its own, and chooses no doors. It serves `Copycat.machine`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn

from .errors import MisuseError
from .machine import EventDescriptor, Operation, StateMachine, events_of, operations_of
from .resources import Access, Resource


class MachineHandle(Resource[StateMachine]):
    """A handle of a user's machine: its commands and queries as coroutines, its events to iterate.

    An operation of the machine wins over a method of this class with the same name.
    """

    machine = StateMachine

    def __init__(self, access: Access, path: str, machine: type[StateMachine]) -> None:
        super().__init__(access, path)
        self._machine = machine
        self._bind()

    def at(self, **defaults: Any) -> MachineHandle:
        """A view of the same machine with other defaults (``consistency``, ``timeout``)."""
        view = super().at(**defaults)
        view._bind()
        return view

    def _bind(self) -> None:
        for name, operation in operations_of(self._machine).items():
            self.__dict__[name] = _BoundOperation(self, operation)
        for name, event in events_of(self._machine).items():
            self.__dict__[name] = _BoundEvent(self, event)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # `copy` asks before there is a machine to look at
            raise AttributeError(name)
        known = ", ".join(sorted(operations_of(self._machine))) or "none"
        raise AttributeError(f"{self._machine.__name__} has no operation {name!r}; it has: {known}")

    def __repr__(self) -> str:
        return f"<{self._machine.__name__} {self._path!r} on {self._access.name}>"


class _BoundOperation:
    """One operation of one handle."""

    def __init__(self, handle: MachineHandle, operation: Operation[..., Any]) -> None:
        self._handle = handle
        self._operation = operation
        self.__doc__ = operation.__doc__

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        operation = self._operation
        arguments = list(operation.positional(args, kwargs))
        if operation.is_query:
            return await self._handle._query(operation.name, arguments)
        return await self._handle._command(operation.name, arguments)

    def __repr__(self) -> str:
        return f"<{self._operation.name} of {self._handle!r}>"


class _BoundEvent:
    """One event of one handle: ``async for value in handle.event``."""

    __slots__ = ("_event", "_handle")

    def __init__(self, handle: MachineHandle, event: EventDescriptor[Any]) -> None:
        self._handle = handle
        self._event = event

    def __aiter__(self) -> AsyncIterator[Any]:
        return Resource.events(self._handle, self._event)

    def publish(self, value: object, *, to: int | None = None) -> NoReturn:
        """Only a machine publishes."""
        raise MisuseError(f"events are published by commands of the machine: {self._event.name!r}")
