"""The real Network door: TCP, with errors that say which address and what to do.

Sockets are made here and handed to the event loop, so that their options do not depend on the
loop's implementation. Knows nothing of frames; ``connection.py`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from .errors import ConfigurationError, UnavailableError
from .types import Address

USER_TIMEOUT_MS = 5000
"""Sent data that stays unacknowledged this long breaks the connection (H75)."""
KEEPALIVE_IDLE_S = 3
KEEPALIVE_INTERVAL_S = 1
KEEPALIVE_COUNT = 3
BACKLOG = 1024

_Info = tuple[int, tuple[object, ...]]  # address family, socket address


class RealServer:
    """A listening address: one socket for each IP address its host stands for."""

    def __init__(self, address: Address, servers: list[asyncio.Server]) -> None:
        self._address = address
        self._servers = servers

    @property
    def address(self) -> Address:
        """Where it listens, with the real port."""
        return self._address

    def close(self) -> None:
        """Stop listening; open connections stay."""
        for server in self._servers:
            server.close()


class RealNetwork:
    """TCP connections of this host. ``connect_timeout`` is in seconds."""

    def __init__(self, *, connect_timeout: float = 3.0) -> None:
        self._connect_timeout = connect_timeout

    async def listen(
        self, address: Address, factory: Callable[[], asyncio.BufferedProtocol]
    ) -> RealServer:
        """Listen; port 0 takes any free one.

        Raises:
            ConfigurationError: the port is in use, the host is not one of this machine's, or the
                port needs a privilege.
        """
        loop = asyncio.get_running_loop()
        try:
            infos = await _resolve(address, passive=True)
        except OSError as problem:
            raise ConfigurationError(
                f"cannot listen on {address}: the host {address.host!r} does not resolve "
                f"({_reason(problem)})",
                hint="use an IP address of this machine, or 0.0.0.0 for all of them",
            ) from problem
        if address.port == 0:
            del infos[1:]  # each would get another port
        sockets = _bind_all(address, infos)
        servers = []
        for sock in sockets:
            servers.append(await loop.create_server(factory, sock=sock, backlog=BACKLOG))
        port: int = sockets[0].getsockname()[1]
        return RealServer(Address(address.host, port), servers)

    async def connect(
        self, address: Address, factory: Callable[[], asyncio.BufferedProtocol]
    ) -> tuple[asyncio.Transport, asyncio.BufferedProtocol]:
        """Connect to the first of the host's IP addresses that answers.

        Raises:
            ConnectionRefusedError: every one of them refuses.
            UnavailableError: the host does not resolve.
            OSError: anything else, ``TimeoutError`` included.
        """
        loop = asyncio.get_running_loop()
        try:
            infos = await _resolve(address, passive=False)
        except OSError as problem:
            raise UnavailableError(
                f"the host {address.host!r} of {address} does not resolve ({_reason(problem)})",
                hint="check the name, and that this machine can resolve it",
            ) from problem
        problems: list[OSError] = []
        for family, target in infos:
            # The loop makes the socket. One of ours could not be handed over safely: if the peer
            # resets at that moment, uvloop closes the descriptor, and when our object goes, it
            # closes the same number again, whosever it is by then.
            try:
                async with asyncio.timeout(self._connect_timeout):
                    transport, protocol = await loop.create_connection(
                        factory, str(target[0]), address.port, family=family
                    )
            except OSError as failure:  # asyncio.timeout raises TimeoutError, which is one
                problems.append(failure)
            else:
                _tune(transport.get_extra_info("socket"))
                return transport, protocol
        other = [p for p in problems if not isinstance(p, ConnectionRefusedError)]
        last = (other or problems)[-1]
        if isinstance(last, TimeoutError):
            message = f"no answer from {address} in {self._connect_timeout} s"
            raise TimeoutError(errno.ETIMEDOUT, message) from last
        if last.errno is None:
            raise last
        # The event loops word it each in their own way; OSError picks the class by the number.
        raise OSError(last.errno, os.strerror(last.errno).lower()) from last


async def _resolve(address: Address, *, passive: bool) -> list[_Info]:
    """The host's socket addresses; literal ones without the detour through a thread."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address.host)
        except (OSError, ValueError):
            continue
        return [(family, (address.host, address.port))]
    found = await asyncio.get_running_loop().getaddrinfo(
        address.host or None,
        address.port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE if passive else 0,
    )
    infos: list[_Info] = []
    for family, _, _, _, target in found:
        if (family, target) not in infos:
            infos.append((family, target))
    return infos


def _new_socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    _tune(sock)  # a listening socket hands the options on to the connections it accepts
    return sock


def _tune(sock: socket.socket | None) -> None:
    """Small frames leave at once, and a peer that is gone is noticed (H75)."""
    if sock is None or sock.fileno() < 0:
        return  # lost already
    with contextlib.suppress(OSError):
        _set_options(sock)


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
    ):
        option = getattr(socket, name, None)  # not every system has each of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _bind_all(address: Address, infos: list[_Info]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    problem: OSError | None = None
    for family, target in infos:
        try:
            sock = _new_socket(family)
        except OSError as failure:  # an IPv6 address on a machine without IPv6
            problem = failure
            continue
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind(target)
            sock.listen(BACKLOG)
        except OSError as failure:
            sock.close()
            problem = failure
            if failure.errno != errno.EADDRNOTAVAIL:
                break
        else:
            sockets.append(sock)
    if problem is not None and (not sockets or problem.errno != errno.EADDRNOTAVAIL):
        for sock in sockets:
            sock.close()
        raise _cannot_listen(address, problem) from problem
    return sockets


def _cannot_listen(address: Address, problem: OSError) -> ConfigurationError:
    if problem.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"cannot listen on {address}: in use by {_who_listens(address.port)}",
            hint="stop that process, or choose another port",
        )
    if problem.errno == errno.EADDRNOTAVAIL:
        return ConfigurationError(
            f"cannot listen on {address}: this machine has no address {address.host}",
            hint="listen on an address of this machine (or 0.0.0.0) and advertise the one that "
            "others reach",
        )
    if problem.errno in (errno.EACCES, errno.EPERM):
        return ConfigurationError(
            f"cannot listen on {address}: permission denied",
            hint="ports below 1024 need a privilege: choose a higher one",
        )
    return ConfigurationError(f"cannot listen on {address}: {_reason(problem)}")


def _who_listens(port: int) -> str:
    """The process that listens on ``port``, as far as /proc lets us see."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    pids = [name for name in os.listdir("/proc") if name.isdigit()] if wanted else []
    for pid in pids:
        with contextlib.suppress(OSError):  # other users' processes, and those that just ended
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{descriptor}") in wanted:
                        if pid == str(os.getpid()):
                            return f"this very process (pid {pid})"
                        command = Path(f"/proc/{pid}/comm").read_text().strip()
                        return f"pid {pid} ({command})"
    return "another process"


def _listening_inodes(port: int) -> list[str]:
    listen_state, suffix = "0A", f":{port:04X}"
    inodes = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[1].endswith(suffix) and columns[3] == listen_state:
                    inodes.append(columns[9])
    return inodes


def _reason(problem: OSError) -> str:
    return problem.strerror or str(problem)
