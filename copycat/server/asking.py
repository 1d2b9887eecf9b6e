"""Asking around: a member that hears of no leader asks the addresses it was opened with.

All the members that its log knows may be gone or others by now, and then nobody of the cluster
would ever dial it. Whoever it asks either knows it, and speaks to it from then on, or refuses it
and shows the newer configuration that it is not in. It decides nothing and changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Set

from .._core.codec import Frame
from .._core.layout import FormatError
from ..connection import FrameProtocol
from ..handshake import MEMBER, Hello, Refusal
from ..ports import Network, Random
from ..types import Address
from .identity import Identity

REST_S = 5.0
"""Seconds between two looks, jittered down to half."""
ANSWER_S = 2.0
NOTICE_INTERVAL = 60.0

log = logging.getLogger("copycat.asking")


class Asking:
    """Asks on behalf of one member.

    Args:
        identity: who we are.
        addresses: where somebody of the cluster may be.
        linked: called for the addresses that have a link of their own; whoever is there is heard.
        is_lost: called to tell whether there is no leader, as far as the member knows.
        shown: called for the configuration that a handshake shows, with its index.
        on_refusal: called with (address, refusal).
        network: the Network door.
        random: for the jitter.
    """

    def __init__(
        self,
        identity: Identity,
        addresses: Iterable[Address],
        *,
        linked: Callable[[], Set[Address]],
        is_lost: Callable[[], bool],
        shown: Callable[[], tuple[int, bytes]],
        on_refusal: Callable[[str, Refusal], None],
        network: Network,
        random: Random,
    ) -> None:
        self._identity = identity
        self._addresses = list(dict.fromkeys(addresses))
        self._linked = linked
        self._is_lost = is_lost
        self._shown = shown
        self._on_refusal = on_refusal
        self._network = network
        self._random = random
        self._friends: set[Address] = set()  # whoever is there knows us, and will speak to us

    async def run(self) -> None:
        """Look now and then, until it is cancelled."""
        loop = asyncio.get_running_loop()
        notice_at = lost_since = 0.0
        while True:
            await asyncio.sleep(REST_S * self._random.uniform(0.5, 1.0))
            if not self._is_lost():
                lost_since = 0.0
                continue
            linked = self._linked()
            for address in self._addresses:
                if address not in linked and address not in self._friends:
                    await self._ask(address)
            lost_since = lost_since or loop.time()
            if loop.time() >= max(notice_at, lost_since + ANSWER_S):
                notice_at = loop.time() + NOTICE_INTERVAL
                self._complain(linked)

    def _complain(self, linked: Set[Address]) -> None:
        known = ", ".join(sorted(str(each) for each in {*linked, *self._addresses}))
        log.warning(
            "%s has no leader and waits for a majority of the members it knows; it has tried %s. "
            "It goes on by itself when they can be reached. Keep its data. (Should all of them "
            "have been replaced meanwhile: open it with join= and the address of one of today's)",
            self._identity.name, known,
        )  # fmt: skip

    async def _ask(self, address: Address) -> None:
        """One handshake; a refusal is told on, everything else is forgotten."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Refusal | None] = loop.create_future()

        def on_frame(type_: int, payload: bytes) -> None:
            if type_ not in (Frame.REFUSE, Frame.WELCOME):
                raise FormatError(f"a frame of type {type_} where a handshake is expected")
            if answered.done():
                return
            if type_ == Frame.WELCOME:  # asking once more would only break a link of ours
                self._friends.add(address)
            answered.set_result(Refusal.parse(payload) if type_ == Frame.REFUSE else None)

        def on_lost(error: BaseException | None) -> None:
            if not answered.done():
                answered.set_result(None)

        protocol = FrameProtocol(on_frame, on_lost)
        me = self._identity
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._network.connect(address, lambda: protocol)
                hello = Hello(MEMBER, me.cluster, me.name, me.uuid, configuration=self._shown())
                protocol.write(hello.frame())
                refusal = await answered
        except OSError:  # and nobody answering in time
            return
        finally:
            protocol.abort()
            answered.cancel()
        if refusal is not None:
            self._on_refusal(str(address), refusal)
