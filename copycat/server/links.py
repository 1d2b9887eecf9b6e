"""Outgoing links: this member's connection to every other member, kept up for as long as it runs.

All that this member says to a peer leaves on the link it dialled; a link receives nothing but the
answer to its handshake. A link that stood and broke is dialled again at once, because the answer
tells what happened: an address that *refuses* belongs to a process that is gone, and followers need
not wait out their election timeout (DESIGN section 5). Knows nothing of what the frames mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .._core.codec import PROTOCOL_VERSION, Frame
from .._core.layout import FormatError
from ..connection import WRITE_LIMIT, Complaints, FrameProtocol
from ..errors import UnavailableError
from ..handshake import MEMBER, Hello, Refusal, Welcome
from ..ports import Network, Random
from ..types import Address
from .effects import PeerDown, PeerUp
from .identity import Identity
from .roster import NOBODY, Seat

BACKOFF_MIN = 0.05
BACKOFF_MAX = 1.0
"""Seconds between two attempts; each wait is jittered down to half (H83)."""
EAGER_ATTEMPTS = 4
"""Attempts without a wait after a link broke: a dying process may still take a connection or two
that it never answers, before its address refuses."""
REPORT_AFTER = 0.02
"""Seconds after which a broken link is reported even if nobody has answered the new attempt."""
HANDSHAKE_TIMEOUT = 2.0

log = logging.getLogger("copycat.links")

Push = Callable[[PeerUp | PeerDown], None]
OnRefusal = Callable[[str, Refusal], None]


@dataclass(slots=True)
class LinkContext:
    """What all links of a member share."""

    identity: Identity
    network: Network
    random: Random
    push: Push
    on_refusal: OnRefusal
    complaints: Complaints
    committed: tuple[int, bytes] = (0, b"")  # the configuration that we show


class Link:
    """The connection to one peer; `run` keeps it up until it is cancelled."""

    def __init__(self, peer: str, seat: Seat, context: LinkContext) -> None:
        self.peer = peer
        self.seat = seat
        self.address = seat.address
        self.up = False
        self.dropped = 0  # frames that found no link
        self.problem = "not connected yet"
        self._uuid = seat.uuid
        self._priority = 1
        self._context = context
        self._protocol: FrameProtocol | None = None
        self._reported: bool | None = True  # None: broke, and nobody was told
        self._last_refusal = ""
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """The peer is up, we have just heard from it: do not wait to dial it."""
        self._nudged.set()

    def dismiss(self) -> None:
        """Say nothing more about the peer; whoever cancels `run` calls it."""
        self._reported = True

    def send(self, data: bytes) -> None:
        """Write whole frames, or drop them if the link is down."""
        protocol = self._protocol
        if self.up and protocol is not None:
            protocol.write(data)
        else:
            self.dropped += 1

    async def run(self) -> None:
        """Dial, wait until it breaks, dial again."""
        delay = BACKOFF_MIN
        eager = 0
        while True:
            if await self._connect():
                eager, delay = EAGER_ATTEMPTS, BACKOFF_MIN
                continue
            if eager and self._reported is not True:
                eager -= 1
                continue
            self._report(refused=False)
            eager = 0
            self._nudged.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay * self._context.random.uniform(0.5, 1.0)):
                    await self._nudged.wait()
            delay = min(2 * delay, BACKOFF_MAX)

    async def _connect(self) -> bool:
        """One attempt; if it succeeds, returns True when the link has broken again."""
        loop = asyncio.get_running_loop()
        greeted: asyncio.Future[None] = loop.create_future()
        lost: asyncio.Future[None] = loop.create_future()

        def on_frame(type_: int, payload: bytes) -> None:
            if greeted.done():
                raise FormatError(f"a frame of type {type_} where nothing is expected")
            problem = self._answered(type_, payload)
            if greeted.done():
                return  # the refusal was our end
            if problem is None:
                greeted.set_result(None)
            else:
                greeted.set_exception(ConnectionError(problem))

        def on_lost(error: BaseException | None) -> None:
            self.up = False
            if not greeted.done():
                reason = str(error) if error else "closed before the handshake was done"
                greeted.set_exception(ConnectionResetError(reason))
            if not lost.done():
                lost.set_result(None)

        protocol = FrameProtocol(
            on_frame,
            on_lost,
            complaints=self._context.complaints,
            write_limit=WRITE_LIMIT,
            handshake_timeout=HANDSHAKE_TIMEOUT,
        )
        try:
            await self._context.network.connect(self.address, lambda: protocol)
            identity = self._context.identity
            hello = Hello(
                MEMBER, identity.cluster, identity.name, identity.uuid,
                configuration=self._context.committed,
            )  # fmt: skip
            protocol.write(hello.frame())
            await greeted
            self._stands(protocol)
            await lost
        except ConnectionRefusedError:
            self.problem = "connection refused"
            self._report(refused=True)
            return False
        except OSError as problem:
            self.problem = problem.strerror or str(problem)
            return False
        finally:
            self.up = False
            protocol.abort()
            if not greeted.cancel() and not greeted.cancelled():
                greeted.exception()  # seen, whichever way this ends
        self._broke(loop)
        return True

    def _answered(self, type_: int, payload: bytes) -> str | None:
        """Look at the answer to our HELLO; what is wrong with it, or None."""
        if type_ == Frame.REFUSE:
            refusal = Refusal.parse(payload)
            if refusal.message != self._last_refusal:
                self._last_refusal = refusal.message
                # Members start one after another: being early is no reason to warn.
                early = refusal.code == UnavailableError.code
                level = logging.DEBUG if early else logging.WARNING
                log.log(level, "%s refuses our connection: %s", self.peer, refusal.message)
            self._context.on_refusal(self.peer, refusal)
            return refusal.message
        if type_ != Frame.WELCOME:
            raise FormatError(f"a frame of type {type_} instead of a welcome")
        welcome = Welcome.parse(payload)
        if welcome.protocol != PROTOCOL_VERSION:
            return f"it speaks protocol {welcome.protocol}, we speak {PROTOCOL_VERSION}"
        if welcome.cluster != self._context.identity.cluster:
            return f"{self.address} belongs to another cluster"
        if (welcome.name, welcome.uuid) != (self.peer, self._uuid):
            return f"{self.address} is {welcome.name}, not the {self.peer} of our cluster"
        self._priority = welcome.priority
        return None

    def _stands(self, protocol: FrameProtocol) -> None:
        protocol.established()
        self._report(refused=False)  # it had broken, and the process is there
        self._protocol = protocol
        self._last_refusal = ""
        self.problem = ""
        if protocol.open:
            self.up = True
            self._reported = None
            self._context.push(PeerUp(self.peer, self._priority))

    def _broke(self, loop: asyncio.AbstractEventLoop) -> None:
        self._protocol = None
        self.problem = "connection lost"
        # Should the new attempt hang, the member must hear of the break all the same.
        loop.call_later(REPORT_AFTER, self._report_late)

    def _report_late(self) -> None:
        if not self.up:
            self._report(refused=False)

    def _report(self, *, refused: bool) -> None:
        """Tell the member that the link is down: once, and once more if it proves refused."""
        if self._reported is True or (self._reported is False and not refused):
            return
        self._reported = refused
        self._context.push(PeerDown(self.peer, refused))


class Links:
    """The links to all peers. ``start`` needs a running loop; ``push`` gets `PeerUp`, `PeerDown`.

    Args:
        identity: who we are.
        network: the Network door.
        random: for the jitter.
        on_refusal: called with (peer, refusal) whenever a peer refuses our handshake.
    """

    def __init__(
        self,
        identity: Identity,
        network: Network,
        random: Random,
        *,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._identity = identity
        self._network = network
        self._random = random
        self._on_refusal = on_refusal or (lambda peer, refusal: None)
        self._links: dict[str, Link] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._context: LinkContext | None = None
        self._on_failure: Callable[[BaseException], None] | None = None

    def start(
        self,
        seats: Mapping[str, Seat],
        push: Push,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Begin to dial; ``on_failure`` hears of a link's task that ended by our own fault."""
        self._on_failure = on_failure
        self._context = LinkContext(
            self._identity, self._network, self._random, push, self._on_refusal, Complaints()
        )
        self.follow(seats)

    def follow(
        self, seats: Mapping[str, Seat], committed: tuple[int, bytes] = (0, b"")
    ) -> None:
        """These are the members now: dial who is new or moved, drop who is not among them.

        ``committed`` is the configuration, with its index, to be shown to whoever is dialled.
        """
        context = self._context
        if context is None:
            return
        context.committed = committed
        for peer, link in list(self._links.items()):
            if seats.get(peer) != link.seat:
                self._drop(peer)
                context.push(PeerDown(peer, False))
        for peer, seat in sorted(seats.items()):
            if peer == self._identity.name or peer in self._links or seat.uuid == NOBODY:
                continue
            link = self._links[peer] = Link(peer, seat, context)
            task = asyncio.get_running_loop().create_task(link.run(), name=f"copycat-link-{peer}")
            task.add_done_callback(self._ended)
            self._tasks[peer] = task

    def _drop(self, peer: str) -> None:
        task = self._tasks.pop(peer)
        task.remove_done_callback(self._ended)
        task.cancel()
        self._links.pop(peer).dismiss()

    def send(self, peer: str, data: bytes) -> None:
        """Write whole frames to ``peer``; they are dropped while its link is down."""
        link = self._links.get(peer)
        if link is not None:
            link.send(data)

    def nudge(self, peer: str) -> None:
        """``peer`` has just connected to us: dial it now if its link is down."""
        link = self._links.get(peer)
        if link is not None:
            link.nudge()

    @property
    def addresses(self) -> set[Address]:
        """Of all peers that have a link, up or not."""
        return {link.address for link in self._links.values()}

    @property
    def shown(self) -> tuple[int, bytes]:
        """The configuration that handshakes show, and its index."""
        return (0, b"") if self._context is None else self._context.committed

    def problems(self) -> dict[str, str]:
        """Why each peer that is not connected is not."""
        return {peer: link.problem for peer, link in self._links.items() if not link.up}

    def close(self) -> None:
        """Drop all links; nothing is pushed any more."""
        self._context = None
        for peer in list(self._tasks):
            self._drop(peer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._on_failure is not None:
            self._on_failure(error)
