"""Free TCP ports for clusters on loopback, chosen so that nobody else is given them meanwhile."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

from ..errors import UnavailableError

_PORTS = range(15_000, 32_000)
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free, and that no outgoing connection is ever given.

    A member that is down must find its port free again, and whoever dials it meanwhile must not be
    connected to himself: both can happen with the ports that a bind to port 0 gives.
    """
    found: list[int] = []
    low, high = _ephemeral_range()
    candidates = [port for port in _PORTS if not low <= port <= high]
    for port in random.SystemRandom().sample(candidates, len(candidates)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise UnavailableError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def _ephemeral_range() -> tuple[int, int]:
    with contextlib.suppress(OSError, ValueError):
        low, high = map(int, _EPHEMERAL.read_text().split())
        if not (low <= _PORTS.start and high >= _PORTS.stop):  # it leaves some of ours
            return low, high
    return 0, 0
