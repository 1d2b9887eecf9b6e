"""The way to the leader: dials members, learns who leads, and keeps one connection there.

It carries frames and never looks into commands. While the leader answers there is one connection;
when it breaks, every member is dialled at once and those that answer are kept until one of them
announces the new leader, so nothing is polled. It serves the `Session`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from struct import error as StructError
from typing import Protocol

from ._core.codec import PEER_FRAME_LIMIT, Frame
from ._core.layout import FormatError
from .config import parse_address
from .connection import Complaints, FrameProtocol
from .errors import Applied, ConfigurationError, CopycatError, SerializationError
from .handshake import CLIENT, Hello, Refusal, Welcome, unpack_control
from .outcomes import unavailable
from .ports import Network, Random
from .types import Address

log = logging.getLogger("copycat.client")

DIAL_TIMEOUT = 1.0
RETRY_FIRST = 0.010
RETRY_LAST = 1.000
DEMOTED_FOR = 0.5
_UNNEEDED = ConnectionAbortedError("not needed")


def parse_addresses(addresses: str | Iterable[str | Address]) -> list[Address]:
    """Addresses from a comma-separated string or a list; raises `ConfigurationError`."""
    parts = addresses.split(",") if isinstance(addresses, str) else list(addresses)
    parsed = [parse_address(part) for part in parts if not isinstance(part, str) or part.strip()]
    if not parsed:
        raise ConfigurationError("no member's address is given")
    for address in parsed:
        if address.port == 0:
            raise ConfigurationError(f"port 0 of {address} is not in 1-65535")
    return list(dict.fromkeys(parsed))


class Link:
    """One connection to one member, from HELLO to its end."""

    def __init__(self, route: Route, address: Address, loop: asyncio.AbstractEventLoop) -> None:
        self._route = route
        self.address = address
        self.name = ""
        self.closed = False
        self.welcomed: asyncio.Future[None] = loop.create_future()
        self.protocol = FrameProtocol(
            self._on_frame,
            self._end,
            on_connected=lambda: self.protocol.write(route.greeting),
            complaints=route.complaints,
            handshake_timeout=2 * DIAL_TIMEOUT,
        )

    def send(self, data: bytes) -> None:
        """Send whole frames now; silently nothing once the connection is lost."""
        self.protocol.write(data)

    def close(self, problem: BaseException | None = None) -> None:
        """Hang up; the route hears of it at once."""
        if not self.closed:
            self._end(problem)
            self.protocol.close()

    def _on_frame(self, type_: int, payload: bytes) -> None:
        if self.closed:
            return
        try:
            self._route.frame(self, type_, payload)
        except (SerializationError, StructError, ValueError, TypeError, LookupError) as problem:
            raise FormatError(f"frame {type_} cannot be understood: {problem}") from problem

    def _end(self, problem: BaseException | None) -> None:
        if self.closed:
            return
        self.closed = True
        problem = problem or ConnectionResetError("connection closed")
        if not self.welcomed.done():
            self.welcomed.set_exception(problem)
            self.welcomed.exception()  # it may be that nobody waits any more
        self._route.link_lost(self, problem)

    def __repr__(self) -> str:
        return f"<Link {self.name or '?'} {self.address}>"


class Listener(Protocol):
    """Who uses the route: the session."""

    def leader_found(self, link: Link, term: int) -> None:
        """``link`` leads to the leader of ``term``; it may be the same link as before."""

    def member_found(self, link: Link) -> None:
        """Some member answers or knows a leader, while we have no connection to one."""

    def leader_gone(self, link: Link) -> None:
        """What was sent over ``link`` and not answered has to be sent again elsewhere.

        Also said of a closed link to a member that did not lead.
        """

    def frame(self, link: Link, type_: int, payload: bytes) -> None:
        """A frame for the session arrived."""


class Route:
    """Knows the members and finds the one that leads."""

    def __init__(
        self,
        addresses: Iterable[Address],
        network: Network,
        random: Random,
        *,
        name: str,
        uuid: bytes,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._network = network
        self._random = random
        self._seeds = list(addresses)
        self._names: dict[Address, str] = {}
        self._links: dict[str, Link] = {}
        self._dialing: dict[Address, asyncio.Task[None]] = {}
        self._failures: dict[Address, str] = {}
        self._strange: set[Address] = set()  # of another cluster
        self._demoted: dict[tuple[str, int], float] = {}
        self._retry = RETRY_FIRST
        self._retry_timer: asyncio.TimerHandle | None = None
        self._cluster: bytes | None = None
        self._term = 0
        self._current: Link | None = None
        self._current_term = 0
        self._suspecting = False
        self._closed = False
        self.members: dict[str, Address] = {}
        self.leader: str | None = None
        self.listener: Listener | None = None
        self.complaints = Complaints()
        self.greeting = Hello(CLIENT, None, name, uuid).frame()

    @property
    def current(self) -> Link | None:
        """The connection to the leader, if there is one."""
        return self._current

    @property
    def cluster(self) -> bytes | None:
        """The id of the cluster, known after the first contact."""
        return self._cluster

    @property
    def term(self) -> int:
        """The newest term that was heard of."""
        return self._term

    @property
    def any_link(self) -> Link | None:
        """A connection to any member: what is not the leader's alone can be asked there."""
        return self._current or next(iter(self._links.values()), None)

    def start(self, listener: Listener) -> None:
        """Begin to look for the leader, and go on for ever."""
        self.listener = listener
        self._look()

    def demote(self, link: Link) -> None:
        """``link`` said that it does not lead."""
        if link is self._current:
            self._demoted[link.name, self._current_term] = self._loop.time() + DEMOTED_FOR
            self._drop_current()
            self._look()

    def suspect(self, *, hang_up: bool) -> None:
        """The leader does not answer: ask the others. To ``hang_up`` helps if the connection is
        dead and nobody said so."""
        if hang_up and self._current is not None:
            self._current.close(ConnectionAbortedError("it does not answer"))
        if not self._suspecting:
            self._suspecting = True
            self._look()

    def trust(self) -> None:
        """The leader answers again."""
        if self._suspecting:
            self._suspecting = False
            self._close_others()

    def unreachable(self) -> dict[str, str]:
        """What is wrong with each known member that cannot be reached, by name or address."""
        found: dict[str, str] = {}
        for address in self._known():
            name = self._name_of(address)
            if name in self._links:
                continue
            reason = self._failures.get(address, "no answer yet")
            label = f"{address}: {reason}"
            found[name or str(address)] = label if name else reason
        return found

    def unavailable(self, seconds: float, applied: Applied) -> CopycatError:
        """Why nothing was answered for ``seconds``."""
        return unavailable(
            known=len(self.members) or len(self._seeds),
            missing=self.unreachable(),
            seconds=seconds,
            applied=applied,
        )

    async def close(self) -> None:
        """Hang up everywhere."""
        self._closed = True
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        for link in list(self._links.values()):
            link.close()
        tasks = list(self._dialing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- from links ----------------------------------------------------------------------------

    def frame(self, link: Link, type_: int, payload: bytes) -> None:
        """A frame arrived on ``link``."""
        if type_ == Frame.WELCOME:
            self._welcome(link, Welcome.parse(payload))
        elif type_ == Frame.REFUSE:
            refusal = Refusal.parse(payload)
            link.close(ConfigurationError(f"refused: {refusal.message} ({refusal.code})"))
        elif not link.name:
            raise FormatError(f"frame {type_} came before WELCOME")
        elif type_ == Frame.LEADER:
            term, leader, members = _leader_of(payload)
            if members and term >= self._term:
                self.members = members
            if leader is None and link is self._current and term >= self._current_term:
                self._drop_current()
                self._look()
            self._learn(term, leader)
            if leader is not None and self._current is None and self.listener is not None:
                self.listener.member_found(link)
        elif self.listener is not None:
            self.listener.frame(link, type_, payload)

    def link_lost(self, link: Link, problem: BaseException) -> None:
        """``link`` is closed, by either side."""
        if problem is not _UNNEEDED:
            self._failures[link.address] = _reason(problem)
        if self._links.get(link.name) is link:
            del self._links[link.name]
        if link is self._current:
            self._drop_current()
        elif self.listener is not None:
            self.listener.leader_gone(link)
        if not self._closed and self._current is None and link.name:
            self._look()

    # -- finding -------------------------------------------------------------------------------

    def _known(self) -> list[Address]:
        """Members' addresses, and those seeds that are not known to be one of them."""
        members = set(self.members.values())
        return list(self.members.values()) + [
            seed
            for seed in self._seeds
            if seed not in members and self._names.get(seed) not in self.members
        ]

    def _name_of(self, address: Address) -> str:
        for name, known in self.members.items():
            if known == address:
                return name
        return self._names.get(address, "")

    def _look(self) -> None:
        """Dial every member that is not connected; again later if that brings no leader."""
        if self._closed:
            return
        for address in self._known():
            self._dial(address)
        if self._retry_timer is None:
            delay = self._retry * (0.5 + self._random.random() / 2)
            self._retry = min(self._retry * 2, RETRY_LAST)
            self._retry_timer = self._loop.call_later(delay, self._look_again)

    def _look_again(self) -> None:
        self._retry_timer = None
        if self._current is None or self._suspecting:
            self._look()

    def _dial(self, address: Address) -> None:
        name = self._name_of(address)
        if address in self._dialing or name in self._links or self._closed:
            return
        task = self._loop.create_task(self._dialled(address))
        self._dialing[address] = task
        task.add_done_callback(lambda _: self._dialing.pop(address, None))

    async def _dialled(self, address: Address) -> None:
        link = Link(self, address, self._loop)
        problem: BaseException = ConnectionAbortedError("given up")
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                await self._network.connect(address, lambda: link.protocol)
                await link.welcomed
        except TimeoutError:
            problem = TimeoutError(f"no answer for {DIAL_TIMEOUT:g} s")
        except (OSError, CopycatError, FormatError) as failure:
            problem = failure
        finally:
            # A time-out cancels the future that is awaited, so it may be done without a welcome.
            if not link.welcomed.done() or link.welcomed.cancelled():
                link.close(problem)

    def _welcome(self, link: Link, welcome: Welcome) -> None:
        if link.welcomed.done():  # its time ran out in this very turn, or it says so twice
            link.close(_UNNEEDED)
            return
        name = welcome.name
        if self._cluster and welcome.cluster and welcome.cluster != self._cluster:
            if link.address not in self._strange:
                self._strange.add(link.address)
                log.warning(
                    "%s belongs to cluster %s, the members before it to %s: the addresses name two "
                    "clusters, and only the first that answered is used",
                    link.address, welcome.cluster.hex()[:8], self._cluster.hex()[:8],
                )  # fmt: skip
            link.close(ConfigurationError("belongs to another cluster"))
            return
        self._cluster = welcome.cluster or self._cluster
        self._names[link.address] = name
        self._failures.pop(link.address, None)
        if welcome.members and welcome.term >= self._term:  # else it was away for long
            self.members = {n: parse_address(text) for n, text in welcome.members.items()}
        link.protocol.established(PEER_FRAME_LIMIT)
        link.welcomed.set_result(None)
        if name in self._links:  # two addresses of one member
            link.close(_UNNEEDED)
            return
        link.name = name
        self._links[name] = link
        if self._current is not None and not self._suspecting:
            self._close_others()
            return
        self._learn(welcome.term, welcome.leader)
        if self._current is None and self.leader == name:
            self._learn(self._term, name)
        if self._current is None and self.listener is not None:
            self.listener.member_found(link)

    def _learn(self, term: int, leader: str | None) -> None:
        """Somebody says who leads ``term``."""
        if term < self._term or leader is None:
            return
        until = self._demoted.get((leader, term))
        if until is not None:
            if until > self._loop.time():
                return
            del self._demoted[leader, term]
        if self._current is not None and self._current.name != leader:
            self._drop_current()  # the connection stays, in case the new leader is short-lived
        self._term, self.leader = term, leader
        link = self._links.get(leader)
        if link is not None:
            self._adopt(link, term)
        else:
            self._look()

    def _adopt(self, link: Link, term: int) -> None:
        if link is self._current and term == self._current_term:
            return
        if self._current is not None and self._current is not link:
            self._drop_current()
        self._current, self._current_term = link, term
        self._demoted.clear()
        self._retry = RETRY_FIRST
        self._suspecting = False
        self._close_others()
        if self.listener is not None:
            self.listener.leader_found(link, term)

    def _drop_current(self) -> None:
        link, self._current = self._current, None
        self.leader = None
        if link is not None and self.listener is not None:
            self.listener.leader_gone(link)

    def _close_others(self) -> None:
        for link in [link for link in self._links.values() if link is not self._current]:
            link.close(_UNNEEDED)


def _reason(problem: BaseException) -> str:
    if isinstance(problem, ConnectionRefusedError):
        return "connection refused"
    return str(problem) or type(problem).__name__


def _leader_of(payload: bytes) -> tuple[int, str | None, dict[str, Address]]:
    fields = unpack_control(payload)
    if not (isinstance(fields, list) and len(fields) == 3 and isinstance(fields[0], int)):
        raise FormatError("a LEADER frame has a term, a name and the members")
    term, leader, members = fields
    if not (leader is None or isinstance(leader, str)) or not isinstance(members, dict):
        raise FormatError("a leader's name is text, and the members are a map")
    return term, leader, {str(name): parse_address(text) for name, text in members.items()}
