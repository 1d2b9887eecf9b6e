"""The simulated network: hosts, connections between them, and everything that befalls them.

Processes reach it through their `NetworkDoor`. Connections behave like TCP: bytes stay in order, a
partition holds them back, a dead process's host answers with resets. Faults come from the world's
seeded chance (`Weather`) and from explicit calls.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ports import Random
from .endpoint import Endpoint, FrameFaults
from .stream import Stream
from .timeline import Timeline

if TYPE_CHECKING:
    from .door import Listener

FIRST_FREE_PORT = 49152
CLOGGED = 100.0
"""How many times slower a clogged link is."""


@dataclass(slots=True)
class Weather:
    """How the network is; times in seconds, odds are probabilities. May be changed at any time.

    Attributes:
        least_s: the latency is at least this...
        mean_s: ...and so much more on average.
        spike: odds that what is sent is late by up to ``spike_s``.
        split: odds that what is written arrives in two pieces, at different times.
        short: odds that a read finds only a part of what has arrived, often a single byte.
        reset: odds, per piece, that the connection breaks.
        window: bytes that may be on the way or unread.
        resend_s: after a partition, what it held back comes within this time.
        heal_reset: odds that a connection breaks at the end of a partition that held bytes back.
        dead_after_s: within this range an end gives up a connection through a partition.
        retry_s: a connection attempt that a partition stops is repeated so often.
    """

    least_s: float = 0.0001
    mean_s: float = 0.0004
    spike: float = 0.001
    spike_s: float = 0.2
    split: float = 0.05
    short: float = 0.1
    reset: float = 0.0
    window: int = 256 << 10
    resend_s: float = 0.4
    heal_reset: float = 0.3
    dead_after_s: tuple[float, float] = (5.0, 7.0)
    retry_s: float = 1.0


class Connection:
    """Two endpoints and the two streams between them."""

    def __init__(
        self, network: SimulatedNetwork, number: int, ends: tuple[Endpoint, Endpoint]
    ) -> None:
        self.number = number
        self.ends = ends
        self._network = network
        self._patience = 0  # which watch counts
        for end, peer in (ends, ends[::-1]):
            end.peer, end.connection = peer, self
            end.stream = Stream(network, end, peer, network.weather.window)

    def reset(self, *, one_end: bool = False) -> None:
        """Break it for both ends, or for one, whose peer will learn of it when it sends."""
        ends = list(self.ends)
        if one_end:
            ends = [self._network.random.choice(ends)]
        for end in ends:
            end.fail(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))

    def watch(self) -> None:
        """A partition is in between: each end gives up after a while, if that lasts."""
        self._patience += 1
        network = self._network
        for end in self.ends:
            delay = network.random.uniform(*network.weather.dead_after_s)
            network.timeline.after(delay, self._give_up, end, self._patience)

    def healed(self) -> None:
        """The partition ended, in one direction at least."""
        network, random = self._network, self._network.random
        if not any(network.blocked(end.host, end.peer.host) for end in self.ends):
            self._patience += 1
            held = any(end.stream.holds for end in self.ends)
            if held and random.random() < network.weather.heal_reset:
                self.reset(one_end=random.random() < 0.5)
        for end in self.ends:
            end.stream.healed()

    def ended(self) -> None:
        """One end is closed."""
        if all(end.over for end in self.ends):
            self._network.connections.pop(self.number, None)

    def _give_up(self, end: Endpoint, patience: int) -> None:
        if patience == self._patience:
            end.fail(TimeoutError(errno.ETIMEDOUT, "connection timed out"))

    def __repr__(self) -> str:
        return f"connection {self.number}"


class SimulatedNetwork:
    """The network of one world; ``random`` is the chance that all its weather comes from."""

    def __init__(self, timeline: Timeline, random: Random, weather: Weather | None = None) -> None:
        self.timeline = timeline
        self.random = random
        self.weather = weather or Weather()
        self.connections: dict[int, Connection] = {}
        self.listeners: dict[tuple[str, int], Listener] = {}
        self.frame_faults: dict[tuple[str, str], FrameFaults] = {}
        """(dialling host, other host) -> what happens to whole writes of the dialling side."""
        self._blocked: dict[tuple[str, str], None] = {}
        self._clogged: dict[tuple[str, str], float] = {}
        self._numbers = 0
        self._ports = 0

    # -- faults --------------------------------------------------------------------------------

    def block(self, source: str, target: str, *, both: bool = True) -> None:
        """Let nothing pass from host to host, in both directions or in one."""
        self.timeline.trace(f"block {source} -> {target}{' and back' if both else ''}", detail=True)
        known = self.blocked(source, target) or self.blocked(target, source)
        self._blocked[source, target] = None
        if both:
            self._blocked[target, source] = None
        if not known:
            for connection in self._between(source, target):
                connection.watch()

    def unblock(self, source: str, target: str, *, both: bool = True) -> None:
        """End what `block` began."""
        self.timeline.trace(
            f"unblock {source} -> {target}{' and back' if both else ''}", detail=True
        )
        self._blocked.pop((source, target), None)
        if both:
            self._blocked.pop((target, source), None)
        for connection in self._between(source, target):
            connection.healed()

    def heal(self) -> None:
        """No partition and no clog any more."""
        if self._blocked or self._clogged:
            self.timeline.note("the network is whole again")
        self._clogged.clear()
        for source, target in list(self._blocked):
            self.unblock(source, target, both=False)

    def clog(self, source: str, target: str, factor: float = CLOGGED) -> None:
        """Multiply the latency of one direction; 1 is as before."""
        self.timeline.trace(f"clog {source} -> {target} {factor:g} times", detail=True)
        self._clogged[source, target] = factor

    def reset(self, source: str, target: str, *, one_end: bool = False) -> None:
        """Break every connection between two hosts, for both ends of each or for one."""
        self.timeline.trace(f"reset {source} - {target}{' at one end' if one_end else ''}")
        for connection in self._between(source, target):
            connection.reset(one_end=one_end)

    # -- for streams and endpoints -------------------------------------------------------------

    def blocked(self, source: str, target: str) -> bool:
        """Whether nothing passes from host to host."""
        return (source, target) in self._blocked

    def latency(self, source: str, target: str) -> float:
        """How long the next thing takes, in seconds."""
        weather, random = self.weather, self.random
        delay = weather.least_s + random.expovariate(1.0) * weather.mean_s
        if random.random() < weather.spike:
            delay += random.random() * weather.spike_s
        return delay * self._clogged.get((source, target), 1.0)

    def unlucky(self) -> bool:
        """Whether a connection breaks now, by chance."""
        odds = self.weather.reset
        return odds > 0 and self.random.random() < odds

    def part(self, size: int) -> int:
        """How much of ``size`` bytes a read finds."""
        random = self.random
        if size > 1 and random.random() < self.weather.short:
            return 1 if random.random() < 0.3 else random.randrange(1, size)
        return size

    def faults_of(self, endpoint: Endpoint) -> FrameFaults | None:
        """What happens to the writes of an endpoint that dialled."""
        return self.frame_faults.get((endpoint.host, endpoint.peer.host))

    def free_port(self) -> int:
        """A port that nobody has had for long."""
        self._ports += 1
        return FIRST_FREE_PORT + self._ports % (1 << 14)

    def connection(self, dialling: Endpoint, accepting: Endpoint) -> Connection:
        """Join two endpoints."""
        self._numbers += 1
        connection = Connection(self, self._numbers, (dialling, accepting))
        self.connections[self._numbers] = connection
        return connection

    def _between(self, one: str, other: str) -> list[Connection]:
        wanted = ((one, other), (other, one))
        return [
            each
            for each in self.connections.values()
            if (each.ends[0].host, each.ends[1].host) in wanted
        ]
