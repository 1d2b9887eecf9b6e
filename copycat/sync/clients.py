"""Those few methods of clients, nodes and clusters whose types no generator could know.

What takes a class and gives a handle of it is here; everything else is generated. It serves the
twins of the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from .. import handles, node
from ..errors import MisuseError
from ..machine import Blocking, StateMachine
from ..resources import Access
from ..resources.base import Duration
from ..testing.local_cluster import LocalCluster
from ..types import Mode
from .base import Handle, Twin
from .machines import Machine, machine_handle
from .opening import Opening
from .portal import Portal

if TYPE_CHECKING:
    from .twins.handles import CopycatClient
    from .twins.nodes import Node

B = TypeVar("B", bound=Blocking)
H = TypeVar("H", bound=Handle)
M = TypeVar("M", bound=StateMachine)


class Client(Twin):
    """What gives handles by their class."""

    @property
    def _async(self) -> handles.Copycat:
        return self._as(handles.Copycat)

    @overload
    def machine(self, path: str, machine: type[B]) -> B: ...
    @overload
    def machine(self, path: str, machine: type[M]) -> Machine[M]: ...
    def machine(self, path: str, machine: type[Any]) -> Any:
        """A handle of your own machine: its operations as blocking calls, its events to iterate.

        For operations that type checkers know, say once ``class CalmBank(copycat.sync.Blocking,
        Bank): pass`` and ask for that.
        """
        return machine_handle(self._portal, self._async, path, machine)

    def get(self, path: str, type_: type[H]) -> H:
        """A handle by its class: one of `copycat.sync`, or your own `copycat.sync.Resource`."""
        return _handle(self._portal, self._async._access, path, type_)

    @overload
    def create(self, path: str, *, mode: Mode = ..., timeout: Duration = ...) -> Node: ...
    @overload
    def create(
        self, path: str, type_: type[H], *, mode: Mode = ..., timeout: Duration = ...
    ) -> H: ...
    def create(
        self,
        path: str,
        type_: type[Any] | None = None,
        *,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> Any:
        """Create ``path`` with all above it and, with a type, the resource there.

        An ``EPHEMERAL`` path goes with this client's session.
        """
        here = Position(self._portal, self._async.node(path))
        if type_ is None:
            return here.create(mode=mode, timeout=timeout)
        return here.create(type_, mode=mode, timeout=timeout)


class Position(Twin):
    """What a node gives by class."""

    @property
    def _async(self) -> handles.Node:
        return self._as(handles.Node)

    def get(self, type_: type[H]) -> H:
        """A handle of the resource here."""
        here = self._async
        return _handle(self._portal, here._access, here.path, type_)

    @overload
    def create(self, *, mode: Mode = ..., timeout: Duration = ...) -> Node: ...
    @overload
    def create(self, type_: type[H], *, mode: Mode = ..., timeout: Duration = ...) -> H: ...
    def create(
        self,
        type_: type[Any] | None = None,
        *,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> Any:
        """Create the path and, with a type, the resource there."""
        here: Any = self._async
        if type_ is not None:
            handle = self.get(type_)  # checks the type
            kind = getattr(type_, "_kind", None) or type_.machine
            self._run(here.create(kind, mode=mode, timeout=timeout))
            return handle
        from .twins.nodes import Node  # it stands on this module

        return Node(self._portal, self._run(here.create(mode=mode, timeout=timeout)))


class Embedded(Twin):
    """A member inside this process."""

    @property
    def _async(self) -> node.CopycatServer:
        return self._as(node.CopycatServer)

    @property
    def failed(self) -> BaseException | None:
        """The error, when the member had to stop by itself (a bad disk, say)."""
        failed = self._async.failed
        return failed.result() if failed is not None and failed.done() else None


class Playground(Twin):
    """A cluster in this process."""

    @property
    def _async(self) -> LocalCluster:
        return self._as(LocalCluster)

    def connect(self, **options: Any) -> Opening[CopycatClient]:
        """Another client: ``with cluster.connect() as cc``; options as in `copycat.sync.connect`.

        It has a thread of its own. ``only`` names the members it may know.
        """
        from .twins.handles import CopycatClient

        return Opening(self._async.connect(**options), "sync.connect(...)", CopycatClient)


def _handle(portal: Portal, access: Access, path: str, type_: type[H]) -> H:
    if not (isinstance(type_, type) and issubclass(type_, Handle)):
        raise MisuseError(
            f"get() takes a Resource class of copycat.sync, not {type_!r}",
            hint="machines of your own have cc.machine(path, MyMachine)",
        )
    return type_._at(portal, access, path)


__all__ = ["Client", "Embedded", "Playground", "Position"]
