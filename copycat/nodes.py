"""The path tree as a client sees it: `Node`, what is known of one, and what becomes of it.

A node is a name and does no I/O when it is made; whatever crosses the network is awaited. Nothing
is kept here: two calls are two questions to the cluster. It serves `Copycat` and its users.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast, overload

from .errors import MisuseError
from .listeners import Inbox, Registration
from .machine import StateMachine
from .machine_handle import MachineHandle
from .paths import normal_path
from .resources import Access, Resource
from .resources.base import Duration, seconds_of
from .system import SYSTEM_RESOURCE, SystemOperation
from .types import Consistency, EventType, Mode

R = TypeVar("R", bound=Resource[Any])
M = TypeVar("M", bound=StateMachine)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What the cluster knows of a path.

    ``version`` is the log index that created it: who deletes a path and creates it again gets
    another one. ``created_at`` is that index's log time in seconds. ``owner`` is the session that
    an ephemeral path goes with, else 0. ``resource`` is the id of what lives there, 0 for nothing,
    and ``type`` the name of its machine. ``children`` counts those directly beneath.
    """

    path: str
    version: int
    created_at: float
    owner: int
    resource: int
    type: str
    children: int

    @property
    def mode(self) -> Mode:
        """Whether the path goes with its session."""
        return Mode.EPHEMERAL if self.owner else Mode.PERSISTENT


@dataclass(frozen=True, slots=True)
class PathEvent:
    """What became of ``path``, the one that is listened to or one directly beneath it.

    ``type`` is `EventType.CREATED`, `EventType.DELETED`, or `EventType.OPENED` when a resource
    came to live there (it goes with its path). ``index`` is its place in the log.
    """

    type: EventType
    path: str
    index: int


class _Ear:
    """One listener of a path, from `begin` to `end`."""

    def __init__(self, access: Access, path: str) -> None:
        self._access = access
        self._path = path
        self._registration: Registration | None = None
        self.inbox = Inbox()

    async def begin(self) -> None:
        """From here on nothing is missed."""
        if self._registration is not None:
            return
        self._access.check()
        self._registration, told = self._access.session.listen(
            SYSTEM_RESOURCE, self._path, self.inbox.put, on_gap=self.inbox.end
        )
        try:
            if told is not None:
                self.inbox.begin(await told)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Nothing more is wanted; the cluster is told in the background."""
        registration, self._registration = self._registration, None
        if registration is not None:
            self._access.session.unlisten(registration)


class PathChanges(AsyncIterator[PathEvent]):
    """What becomes of a path and of what lies directly beneath it, from the first iteration on.

    ``async with`` begins at once: what is read inside it and what is told then leave no gap.
    """

    def __init__(self, access: Access, path: str) -> None:
        self._ear = _Ear(access, path)
        self._events = _heard(self._ear)
        self._path = path

    async def __aenter__(self) -> Self:
        await self._ear.begin()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PathEvent:
        return await anext(self._events)

    async def aclose(self) -> None:
        """Listen no more."""
        await self._events.aclose()
        self._ear.end()

    def __repr__(self) -> str:
        return f"<PathChanges {self._path!r}>"


async def _heard(ear: _Ear) -> AsyncGenerator[PathEvent, None]:
    """A generator, and no part of `PathChanges`: asyncio closes what was left in the middle."""
    await ear.begin()
    try:
        while True:
            (type_, path), index = await ear.inbox.get()
            yield PathEvent(EventType(type_), path, index)
    finally:
        ear.end()


class Node:
    """A position in the path tree; making one does no I/O.

    Queries take ``consistency``, and what crosses the network ``timeout`` in seconds.
    """

    def __init__(self, access: Access, path: str) -> None:
        self._access = access
        self._path = normal_path(path)

    @property
    def path(self) -> str:
        """The full path in normal form."""
        return self._path

    @property
    def name(self) -> str:
        """The last segment; empty for the root."""
        return self._path.rpartition("/")[2]

    @property
    def parent(self) -> Node | None:
        """The node above; None for the root."""
        if self._path == "/":
            return None
        return Node(self._access, self._path.rpartition("/")[0] or "/")

    def node(self, path: str) -> Node:
        """The node at ``path`` beneath this one."""
        return Node(self._access, self._path + normal_path(path))

    def get(self, type_: type[R]) -> R:
        """A handle of the `Resource` subclass ``type_``; no I/O."""
        if not (isinstance(type_, type) and issubclass(type_, Resource)):
            raise MisuseError(
                f"get() takes a Resource class, not {type_!r}",
                hint="machines of your own have cc.machine(path, MyMachine)",
            )
        return type_(self._access, self._path)

    async def exists(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether the path exists."""
        return cast(bool, await self._ask(SystemOperation.EXISTS, [], consistency, timeout))

    async def children(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Node]:
        """The nodes directly beneath, in order of creation; none if this one does not exist.

        They are fetched in pages of 256 KiB of names: beyond that, what is there from beginning to
        end appears exactly once, and what comes or goes meanwhile may appear or not.
        """
        found: list[Node] = []
        after = 0
        while True:
            names, after = await self._ask(SystemOperation.CHILDREN, [after], consistency, timeout)
            found += [self.node(name) for name in names]
            if not after:
                return found

    async def info(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> NodeInfo | None:
        """Version, owner, resource and so on; None if the path does not exist."""
        found = await self._ask(SystemOperation.INFO, [], consistency, timeout)
        if found is None:
            return None
        version, time_us, owner, resource, type_name, children = found
        return NodeInfo(self._path, version, time_us / 1e6, owner, resource, type_name, children)

    @overload
    async def create(self, *, mode: Mode = ..., timeout: Duration = ...) -> Node: ...
    @overload
    async def create(self, type_: type[R], *, mode: Mode = ..., timeout: Duration = ...) -> R: ...
    @overload
    async def create(self, type_: type[M], *, mode: Mode = ..., timeout: Duration = ...) -> M: ...
    async def create(
        self,
        type_: type[Any] | None = None,
        *,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> Any:
        """Create the path with all above it and, with a type, the resource there.

        Nothing happens if it is there already. An `EPHEMERAL` path goes, with its resource, when
        this client's session ends; it has no children, and what is above it stays. Should the
        session expire, the client goes on under a new one, and has to create the path again:
        `Session.watch` tells.

        Raises:
            ConflictError: the path is there in the other mode or goes with another session, or
                one above it is ephemeral; ``current`` is the session it goes with, 0 for none.
            ResourceTypeError: the path holds a resource of another type.
        """
        wanted = Mode(mode)
        if type_ is None:
            seconds = None if timeout is None else seconds_of(timeout)
            await self._access.system(
                SystemOperation.CREATE, self._path, wanted.value, timeout=seconds
            )
            return self
        if isinstance(type_, type) and issubclass(type_, StateMachine):
            return await MachineHandle(self._access, self._path, type_)._create(wanted, timeout)
        return await self.get(type_)._create(wanted, timeout)

    async def delete(self, *, version: int | None = None, timeout: Duration = None) -> bool:
        """Delete the path, all beneath it, and their resources; whether it was there.

        With a ``version``, as in `info`, only if it is still the one with that. The root stays
        when it is deleted, and is empty.

        Raises:
            ConflictError: there is none with ``version``; ``current`` is the one that is there.
        """
        seconds = None if timeout is None else seconds_of(timeout)
        gone = await self._access.system(
            SystemOperation.DELETE, self._path, version, timeout=seconds
        )
        return cast(bool, gone)

    def listen(self) -> PathChanges:
        """What becomes of this path and of what lies directly beneath it, in log order.

        The path need not exist, and the iteration goes on when it is deleted. None is lost or
        doubled, across connections and leaders; should the session end, `SessionExpiredError` is
        raised rather than leave a hole. To read the state and miss nothing after it::

            async with node.listen() as changes:
                there = await node.children()
                async for change in changes: ...
        """
        return PathChanges(self._access, self._path)

    def _ask(
        self,
        operation: SystemOperation,
        args: list[object],
        consistency: Consistency | None,
        timeout: Duration,
    ) -> asyncio.Future[Any]:
        level = Consistency.LINEARIZABLE if consistency is None else Consistency(consistency)
        seconds = None if timeout is None else seconds_of(timeout)
        return self._access.ask_system(
            operation, self._path, *args, consistency=level, timeout=seconds
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and other._path == self._path

    def __hash__(self) -> int:
        return hash(self._path)

    def __repr__(self) -> str:
        return f"<Node {self._path!r}>"
