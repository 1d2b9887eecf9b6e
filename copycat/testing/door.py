"""The simulated Network door: how one process listens and connects.

It raises what the real door raises, after the same waits. What happens to a connection that stands
is the business of `SimulatedNetwork`.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from ..errors import ConfigurationError
from ..types import Address
from .endpoint import Endpoint
from .loop import SimulatedLoop
from .network import SimulatedNetwork

OWN_HOST = ("", "0.0.0.0", "127.0.0.1", "localhost", "::", "::1")  # noqa: S104
"""Names by which every host knows itself."""


class Listener:
    """A port on which a process listens."""

    def __init__(
        self,
        door: NetworkDoor,
        address: Address,
        factory: Callable[[], asyncio.BufferedProtocol],
    ) -> None:
        self.door = door
        self.factory = factory
        self._address = address
        self._closed = False

    @property
    def address(self) -> Address:
        """Where it listens, with the real port."""
        return self._address

    def close(self) -> None:
        """Stop listening; open connections stay."""
        if not self._closed:
            self._closed = True
            self.door.world.listeners.pop((self.door.host, self._address.port), None)

    def accept(self, endpoint: Endpoint) -> None:
        """Take a connection, in the process's loop."""
        if self._closed:
            endpoint.die()
        else:
            endpoint.begin(self.factory())


class NetworkDoor:
    """The Network door of one process, on its host.

    ``connect_timeout`` is in seconds, as the real one's.
    """

    def __init__(
        self,
        world: SimulatedNetwork,
        loop: SimulatedLoop,
        name: str,
        host: str,
        *,
        connect_timeout: float = 3.0,
    ) -> None:
        self.world = world
        self.loop = loop
        self.host = host
        self.alive = True
        self._name = name
        self._connect_timeout = connect_timeout

    async def listen(
        self, address: Address, factory: Callable[[], asyncio.BufferedProtocol]
    ) -> Listener:
        """Listen; port 0 takes any free one. Raises `ConfigurationError`, as the real one."""
        if address.host not in (self.host, *OWN_HOST):
            raise ConfigurationError(
                f"cannot listen on {address}: this machine has no address {address.host}"
            )
        port = address.port or self.world.free_port()
        if (self.host, port) in self.world.listeners:
            raise ConfigurationError(f"cannot listen on {address}: in use by another process")
        listener = Listener(self, Address(address.host, port), factory)
        if self.alive:
            self.world.listeners[self.host, port] = listener
        return listener

    async def connect(
        self, address: Address, factory: Callable[[], asyncio.BufferedProtocol]
    ) -> tuple[asyncio.Transport, asyncio.BufferedProtocol]:
        """Connect. Raises ``ConnectionRefusedError`` if nobody listens there, ``TimeoutError``."""
        dial = _Dial(self, address)
        try:
            async with asyncio.timeout(self._connect_timeout):
                endpoint = await dial.answer
            protocol = factory()
            begun = self.loop.create_future()
            self.loop.call_soon(_begin, endpoint, protocol, begun)
            await begun
        except TimeoutError as problem:
            dial.give_up()
            message = f"no answer from {address} in {self._connect_timeout} s"
            raise TimeoutError(errno.ETIMEDOUT, message) from problem
        except BaseException:
            dial.give_up()
            raise
        return endpoint, protocol

    def end(self) -> None:
        """The process is gone: nothing of it listens, and its peers are reset."""
        self.alive = False
        for listener in list(self.world.listeners.values()):
            if listener.door is self:
                listener.close()
        for connection in list(self.world.connections.values()):
            for end in connection.ends:
                if end.loop is self.loop:
                    end.die()


def _begin(
    endpoint: Endpoint, protocol: asyncio.BufferedProtocol, begun: asyncio.Future[None]
) -> None:
    if not begun.done():  # nobody gave up meanwhile
        endpoint.begin(protocol)
        begun.set_result(None)


class _Dial:
    """One attempt to connect, from the first packet to the answer."""

    def __init__(self, door: NetworkDoor, address: Address) -> None:
        self.answer: asyncio.Future[Endpoint] = door.loop.create_future()
        self._door = door
        self._world = door.world
        self._host = door.host if address.host in OWN_HOST else address.host
        self._port = address.port
        self._local = Endpoint(
            door.world, door.loop, door.host, Address(door.host, door.world.free_port())
        )
        self._local.dialled = True
        self._over = not door.alive
        self._remote: Endpoint | None = None
        self._send(self._arrive)

    def give_up(self) -> None:
        """The program does not want it any more."""
        self._over = True
        if self._remote is not None:
            self._local.abandon()

    def _send(self, arrive: Callable[[], None], *, back: bool = False) -> None:
        ends = (self._host, self._door.host) if back else (self._door.host, self._host)
        self._world.timeline.after(self._world.latency(*ends), self._travel, ends, arrive)

    def _travel(self, ends: tuple[str, str], arrive: Callable[[], None]) -> None:
        """Arrive, or be sent again as long as a partition is in between and somebody waits."""
        world = self._world
        if not world.blocked(*ends):
            arrive()
        elif not self._over and self._door.alive:
            delay = world.weather.retry_s * world.random.uniform(0.9, 1.1)
            world.timeline.after(delay, self._travel, ends, arrive)

    def _arrive(self) -> None:
        """The first packet is at the other host."""
        if self._over or not self._door.alive:
            return
        listener = self._world.listeners.get((self._host, self._port))
        if listener is None:
            self._send(self._refused, back=True)
            return
        door = listener.door
        self._remote = Endpoint(
            self._world, door.loop, door.host, Address(door.host, listener.address.port)
        )
        connection = self._world.connection(self._local, self._remote)
        self._world.timeline.show(f"{self._local.address} dials {self._remote.address}")
        if self._world.blocked(door.host, self._door.host):
            connection.watch()
        door.loop.post(listener.accept, self._remote)
        self._send(self._stands, back=True)

    def _refused(self) -> None:
        self._door.loop.post(self._fail)

    def _fail(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(
                ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")
            )

    def _stands(self) -> None:
        self._door.loop.post(self._succeed)

    def _succeed(self) -> None:
        if not self.answer.done():
            self.answer.set_result(self._local)
