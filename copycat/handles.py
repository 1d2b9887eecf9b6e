"""What a user holds: `Copycat` with its factories, and the client that `connect` opens.

Factories do no I/O; whatever crosses the network is awaited. Which doors are used is chosen by
`node`, not here.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Generator, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast, overload

from .client import Route, parse_addresses
from .cluster import Cluster
from .errors import ConfigurationError, MisuseError
from .lifetime import SessionOptions
from .machine import StateMachine, checked_machines
from .machine_handle import MachineHandle
from .nodes import Node, PathChanges
from .ports import Clock, Network, Random
from .resources import (
    Access,
    AsyncBarrier,
    AsyncBoolean,
    AsyncLatch,
    AsyncList,
    AsyncLock,
    AsyncLong,
    AsyncMap,
    AsyncMultiMap,
    AsyncQueue,
    AsyncReadWriteLock,
    AsyncReference,
    AsyncSemaphore,
    AsyncSet,
    AsyncTopic,
    LeaderElection,
    MembershipGroup,
    Resource,
    Transaction,
)
from .resources.base import Duration, seconds_of
from .serializer import Serializer
from .session import Session
from .types import Address, Consistency, Mode, SessionState

R = TypeVar("R", bound=Resource[Any])
M = TypeVar("M", bound=StateMachine)


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

    def set(self, path: str) -> AsyncSet[Any]:
        """A replicated set."""
        return AsyncSet(self._access, path)

    def multimap(self, path: str) -> AsyncMultiMap[Any, Any]:
        """A replicated map of keys to sets of values."""
        return AsyncMultiMap(self._access, path)

    def list(self, path: str) -> AsyncList[Any]:
        """A replicated list."""
        return AsyncList(self._access, path)

    def boolean(self, path: str) -> AsyncBoolean:
        """A replicated flag."""
        return AsyncBoolean(self._access, path)

    def reference(self, path: str) -> AsyncReference[Any]:
        """One replicated value of any type."""
        return AsyncReference(self._access, path)

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
        return self.node(path).get(type_)

    def node(self, path: str) -> Node:
        """The node at ``path``."""
        return Node(self._access, path)

    # -- paths: see `Node` ---------------------------------------------------------------------

    async def exists(
        self, path: str, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """Whether ``path`` exists."""
        return await self.node(path).exists(consistency=consistency, timeout=timeout)

    @overload
    async def create(self, path: str, *, mode: Mode = ..., timeout: Duration = ...) -> Node: ...
    @overload
    async def create(
        self, path: str, type_: type[R], *, mode: Mode = ..., timeout: Duration = ...
    ) -> R: ...
    @overload
    async def create(
        self, path: str, type_: type[M], *, mode: Mode = ..., timeout: Duration = ...
    ) -> M: ...
    async def create(
        self,
        path: str,
        type_: type[Any] | None = None,
        *,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> Any:
        """Create ``path`` with all above it and, with a type, the resource there.

        An ``EPHEMERAL`` path goes with this client's session. Raises as `Node.create` does.
        """
        node: Any = self.node(path)
        return await node.create(type_, mode=mode, timeout=timeout)

    async def delete(
        self, path: str, *, version: int | None = None, timeout: Duration = None
    ) -> bool:
        """Delete ``path``, all beneath it, and their resources; whether it was there."""
        return await self.node(path).delete(version=version, timeout=timeout)

    async def children(
        self, path: str, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> builtins.list[Node]:
        """The nodes directly beneath ``path``, in order of creation."""
        return await self.node(path).children(consistency=consistency, timeout=timeout)

    def listen(self, path: str) -> PathChanges:
        """What becomes of ``path`` and of what lies directly beneath it; see `Node.listen`."""
        return self.node(path).listen()

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
