"""What all blocking twins have in common: a portal, and the asynchronous object at its other end.

The twins of `copycat.sync.twins` are generated and stand on these classes; nothing here waits by
itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any, ClassVar, Generic, Self, TypeVar

from .. import handles, resources
from ..errors import MisuseError
from ..machine import EventDescriptor, StateMachine
from ..resources.base import Duration
from ..types import Consistency
from .portal import Portal

M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")


class Twin:
    """An asynchronous object, seen from other threads. Each subclass says what its `_async` is."""

    def __init__(self, portal: Portal, twin: Any) -> None:
        self._portal = portal
        self._twin = twin

    def _as(self, kind: type[T]) -> T:
        """The asynchronous object; `ForkedError` in a child process, where nobody would answer."""
        self._portal.check()
        twin: T = self._twin
        return twin

    def _run(
        self,
        work: Coroutine[Any, Any, T],
        undo: Callable[[T], Coroutine[Any, Any, object]] | None = None,
    ) -> T:
        return self._portal.run(work, undo)

    def _do(self, work: Callable[[], T]) -> T:
        return self._portal.do(work)

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        return self._portal.iterate(source)

    def _again(self, twin: object) -> Self:
        return type(self)(self._portal, twin)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Twin) and bool(other._twin == self._twin)

    def __hash__(self) -> int:
        return hash(self._twin)

    def __repr__(self) -> str:
        return repr(self._twin).replace("<Async", "<", 1)


class Handle(Twin):
    """A blocking handle of a resource; any number of threads may use it at the same time."""

    _kind: ClassVar[type[resources.Resource[Any]]]

    @classmethod
    def _at(cls, portal: Portal, access: resources.Access, path: str) -> Self:
        """A handle of the resource at ``path``."""
        return cls(portal, cls._kind(access, path))

    @property
    def _async(self) -> resources.Resource[Any]:
        return self._as(resources.Resource)

    @property
    def path(self) -> str:
        """The path in normal form."""
        return self._async.path

    def at(
        self,
        *,
        consistency: Consistency | None = None,
        timeout: float | timedelta | None = None,
    ) -> Self:
        """A view of the same resource with other defaults; ``timeout`` in seconds."""
        return self._again(self._async.at(consistency=consistency, timeout=timeout))

    def submit(self, operation: str, *args: object, timeout: Duration = None) -> Any:
        """Run a command of the machine; ``timeout`` in seconds."""
        return self._run(self._async.submit(operation, *args, timeout=timeout))

    def query(
        self,
        operation: str,
        *args: object,
        consistency: Consistency | None = None,
        timeout: Duration = None,
    ) -> Any:
        """Ask a query of the machine; ``timeout`` in seconds."""
        asked = self._async.query(operation, *args, consistency=consistency, timeout=timeout)
        return self._run(asked)

    def events(self, event: EventDescriptor[T]) -> Iterator[T]:
        """What the machine publishes as ``event`` (as in ``self.events(Bank.moved)``) from now on.

        In order, none lost or doubled; raises `SessionExpiredError` if some may have been missed.
        """
        return self._iterate(self._async.events(event))

    def open(self) -> Self:
        """Create the resource now rather than at its first use; returns the handle."""
        self._run(self._async.open())
        return self


class Resource(Handle, Generic[M]):
    """Subclass it for a client half of your own: ordinary methods that call `submit` and `query`.

    Associate the machine with ``machine = Bank``.
    """

    machine: ClassVar[type[StateMachine]]

    @classmethod
    def _at(cls, portal: Portal, access: resources.Access, path: str) -> Self:
        machine = getattr(cls, "machine", None)
        if not isinstance(machine, type):
            raise MisuseError(
                f"{cls.__name__} has no state machine",
                hint="write  machine = YourMachine  in the class",
            )
        # A handle of a machine is a resource too, whatever its static type says.
        return cls(portal, handles.MachineHandle(access, path, machine))


def plain(value: Any) -> Any:
    """The asynchronous object of a twin; anything else as it is."""
    return value._as(object) if isinstance(value, Twin) else value


__all__ = ["Handle", "Resource", "Twin", "plain"]
