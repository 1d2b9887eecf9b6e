"""What a user holds: `Copycat`, its factories, and typed handles of user machines.

Factories do no I/O; whatever crosses the network is awaited. Which doors are used is chosen by
`node`, not here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast, overload

from .client import Route, parse_addresses
from .cluster import Cluster
from .errors import ConfigurationError, MisuseError
from .lifetime import SessionOptions
from .machine import (
    EventDescriptor,
    Operation,
    StateMachine,
    checked_machines,
    events_of,
    operations_of,
)
from .paths import normal_path
from .ports import Clock, Network, Random
from .resources import (
    Access,
    AsyncBarrier,
    AsyncLatch,
    AsyncLock,
    AsyncLong,
    AsyncMap,
    AsyncQueue,
    AsyncReadWriteLock,
    AsyncSemaphore,
    AsyncTopic,
    LeaderElection,
    MembershipGroup,
    Resource,
    Transaction,
)
from .resources.base import seconds_of
from .serializer import Serializer
from .session import Session
from .system import SystemOperation
from .types import Address, SessionState

R = TypeVar("R", bound=Resource[Any])
M = TypeVar("M", bound=StateMachine)


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

    async def __aiter__(self) -> AsyncIterator[Any]:
        handle = self._handle
        registration, inbox = await handle._listen(self._event.name)
        try:
            while True:
                yield (await inbox.get())[0]
        finally:
            handle._session.unlisten(registration)

    def publish(self, value: object, *, to: int | None = None) -> NoReturn:
        """Only a machine publishes."""
        raise MisuseError(f"events are published by commands of the machine: {self._event.name!r}")


class Node:
    """A position in the path tree; making one does no I/O."""

    def __init__(self, copycat: Copycat, path: str) -> None:
        self._copycat = copycat
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
        return Node(self._copycat, self._path.rpartition("/")[0] or "/")

    def node(self, path: str) -> Node:
        """The node at ``path`` beneath this one."""
        return Node(self._copycat, f"{self._path}/{path}")

    def get(self, type_: type[R]) -> R:
        """A handle of the resource here."""
        return self._copycat.get(self._path, type_)

    async def children(self) -> list[Node]:
        """The nodes directly beneath; none if this one does not exist."""
        return await self._copycat.children(self._path)

    async def exists(self) -> bool:
        """Whether the path exists."""
        return await self._copycat.exists(self._path)

    @overload
    async def create(self) -> Node: ...
    @overload
    async def create(self, type_: type[R]) -> R: ...
    async def create(self, type_: type[Any] | None = None) -> Any:
        """Create the path and, with a type, the resource there."""
        if type_ is None:
            return await self._copycat.create(self._path)
        return await self._copycat.create(self._path, type_)

    async def delete(self) -> bool:
        """Delete the path, all beneath it, and their resources; whether it was there."""
        return await self._copycat.delete(self._path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and other._path == self._path

    def __hash__(self) -> int:
        return hash(self._path)

    def __repr__(self) -> str:
        return f"<Node {self._path!r}>"


class Copycat:
    """One process's share of a cluster. Belongs to the event loop it was opened in."""

    def __init__(self, access: Access, cluster: Cluster) -> None:
        self._access = access
        self._cluster = cluster

    @property
    def cluster(self) -> Cluster:
        """The cluster: its members, its leader, and how both are changed."""
        return self._cluster

    @property
    def session(self) -> Session:
        """The session: ``id``, ``state``, ``watch()``."""
        return self._access.session

    @property
    def name(self) -> str:
        """The name under which this process appears to others."""
        return self._access.name

    # -- factories: no I/O ---------------------------------------------------------------------

    def map(self, path: str) -> AsyncMap[Any, Any]:
        """A replicated dictionary."""
        return AsyncMap(self._access, path)

    def long(self, path: str) -> AsyncLong:
        """A replicated integer."""
        return AsyncLong(self._access, path)

    def lock(self, path: str) -> AsyncLock:
        """A lock for the whole cluster."""
        return AsyncLock(self._access, path)

    def election(self, path: str) -> LeaderElection:
        """A leader election."""
        return LeaderElection(self._access, path)

    def rwlock(self, path: str) -> AsyncReadWriteLock:
        """A lock for many readers or one writer."""
        return AsyncReadWriteLock(self._access, path)

    def semaphore(self, path: str, permits: int | None = None) -> AsyncSemaphore:
        """A semaphore with so many ``permits``; None: as many as others have settled."""
        return AsyncSemaphore(self._access, path, permits)

    def barrier(self, path: str, parties: int | None = None) -> AsyncBarrier:
        """A barrier for so many ``parties``; None: as many as others have settled."""
        return AsyncBarrier(self._access, path, parties)

    def latch(self, path: str, count: int | None = None) -> AsyncLatch:
        """A latch to be counted down ``count`` times; None: as often as others have settled."""
        return AsyncLatch(self._access, path, count)

    def queue(self, path: str) -> AsyncQueue[Any]:
        """A queue whose items are not lost with their consumers."""
        return AsyncQueue(self._access, path)

    def topic(self, path: str) -> AsyncTopic[Any]:
        """Messages for everybody who subscribes, in one order."""
        return AsyncTopic(self._access, path)

    def group(self, path: str) -> MembershipGroup:
        """Who is there: members with properties."""
        return MembershipGroup(self._access, path)

    def transaction(self, *, timeout: float | timedelta | None = None) -> Transaction:
        """Changes of several resources, all or none: ``async with cc.transaction() as tx``."""
        return Transaction(self._access, timeout)

    def machine(self, path: str, machine: type[M]) -> M:
        """A handle of your own machine: its operations and events, typed."""
        if not (isinstance(machine, type) and issubclass(machine, StateMachine)):
            raise MisuseError(
                f"machine() takes a StateMachine class, not {machine!r}",
                hint=f"write cc.machine({path!r}, MyMachine)",
            )
        return cast(M, MachineHandle(self._access, path, machine))

    def get(self, path: str, type_: type[R]) -> R:
        """A handle of a `Resource` subclass."""
        if not (isinstance(type_, type) and issubclass(type_, Resource)):
            raise MisuseError(
                f"get() takes a Resource class, not {type_!r}",
                hint="machines of your own have cc.machine(path, MyMachine)",
            )
        return type_(self._access, path)

    def node(self, path: str) -> Node:
        """The node at ``path``."""
        return Node(self, path)

    # -- paths ---------------------------------------------------------------------------------

    async def exists(self, path: str) -> bool:
        """Whether ``path`` exists."""
        found = await self._access.ask_system(SystemOperation.EXISTS, normal_path(path))
        return cast(bool, found)

    @overload
    async def create(self, path: str) -> Node: ...
    @overload
    async def create(self, path: str, type_: type[R]) -> R: ...
    async def create(self, path: str, type_: type[Any] | None = None) -> Any:
        """Create ``path`` with all above it and, with a type, the resource there."""
        if type_ is None:
            await self._access.system(SystemOperation.CREATE, normal_path(path))
            return Node(self, path)
        if issubclass(type_, StateMachine):
            handle = MachineHandle(self._access, path, type_)
            await handle._ready()
            return handle
        return await self.get(path, type_).open()

    async def delete(self, path: str) -> bool:
        """Delete ``path``, all beneath it, and their resources; whether it was there."""
        gone = await self._access.system(SystemOperation.DELETE, normal_path(path))
        return cast(bool, gone)

    async def children(self, path: str) -> list[Node]:
        """The nodes directly beneath ``path``."""
        found = await self._access.ask_system(SystemOperation.CHILDREN, normal_path(path))
        return [Node(self, child) for child in found]

    async def close(self) -> None:
        """End the session, which frees what it owns, and hang up."""
        self._access.check()
        await self._access.session.close()


class CopycatClient(Copycat):
    """A client: it stores nothing and reaches the members over the network."""

    def __repr__(self) -> str:
        session = self.session
        return f"<CopycatClient {self.name!r} session={session.id} {session.state.value}>"


def not_entered(name: str, what: str, variable: str = "cc") -> AttributeError:
    """The error of who asks ``what`` for a ``name`` that only the opened thing has."""
    if name.startswith("_"):
        return AttributeError(name)
    return AttributeError(
        f"copycat.{what} is not open yet and has no {name!r}: "
        f"use  async with copycat.{what} as {variable}:"
    )


class Connecting:
    """What `connect` returns: ``async with connect(...) as cc``."""

    def __init__(self, open_: Callable[[], tuple[Session, CopycatClient]], timeout: float) -> None:
        self._open = open_
        self._timeout = timeout
        self._client: CopycatClient | None = None

    async def __aenter__(self) -> CopycatClient:
        if self._client is not None:
            raise MisuseError("this connection is open already", hint="call connect() again")
        session, self._client = self._open()
        session.start()
        try:
            await session.opened(self._timeout)
        except BaseException:
            await session.close()
            raise
        return self._client

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client is not None and self._client.session.state is not SessionState.CLOSED:
            await self._client.session.close()

    def __await__(self) -> Generator[Any, None, NoReturn]:
        raise TypeError("connect() is not awaited: use  async with copycat.connect(...) as cc:")

    def __enter__(self) -> NoReturn:
        raise TypeError("connect() is asynchronous: use  async with copycat.connect(...) as cc:")

    def __exit__(self, *exc: object) -> None:
        """Never reached."""

    def __getattr__(self, name: str) -> NoReturn:
        raise not_entered(name, "connect(...)")


def connect(
    addresses: str | Iterable[str | Address],
    *,
    network: Network,
    clock: Clock,
    random: Random,
    machines: Iterable[type[StateMachine]] = (),
    name: str = "",
    serializer: Serializer | None = None,
    timeout: float | timedelta = 5.0,
    session_timeout: float | timedelta = 5.0,
    keep_alive: float | timedelta | None = None,
    in_flight: int = 8192,
) -> Connecting:
    """A client of the cluster that some of ``addresses`` belong to; durations in seconds.

    ``machines`` are checked now, so that a mistake in one shows here. ``in_flight`` limits the
    commands that may be unanswered. Raises `ConfigurationError`; entering raises an
    `UnavailableError` that says which member could not be reached and why.
    """
    parsed = parse_addresses(addresses)
    checked_machines(machines)
    options = SessionOptions(
        seconds_of(timeout),
        seconds_of(session_timeout),
        None if keep_alive is None else seconds_of(keep_alive),
        in_flight,
    )
    if not 0.1 <= options.session_timeout <= 3600:
        raise ConfigurationError("session_timeout is between 0.1 and 3600 seconds")
    if not 0 < options.beat <= options.session_timeout / 2:
        raise ConfigurationError("keep_alive is more than 0 and at most half of session_timeout")
    if not 1 <= in_flight <= 8192:
        raise ConfigurationError("in_flight is between 1 and 8192")

    def open_() -> tuple[Session, CopycatClient]:
        uuid = random.randbytes(16)
        client_name = name or f"client-{uuid.hex()[:8]}"
        codec = Serializer() if serializer is None else serializer
        route = Route(parsed, network, random, name=client_name, uuid=uuid)
        session = Session(route, codec, clock, random, options, client_name)
        access = Access(session, codec, random, client_name)
        return session, CopycatClient(access, Cluster(session, route))

    return Connecting(open_, options.timeout)


__all__ = ["Connecting", "Copycat", "CopycatClient", "MachineHandle", "Node", "connect"]
