"""Queries straight to one member, whatever its part: what a client that wants the nearest asks.

A connection without a session, with a real handshake and real frames. It chooses nobody, repeats
nothing, and judges no answer. It serves workloads in virtual time.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .._core.codec import (
    ANSWERS_HEAD,
    PEER_FRAME_LIMIT,
    QUERY_HEAD,
    REJECT_HEAD,
    Frame,
    Reason,
    pack_frame,
)
from .._core.kernel import decode_results, encode_run
from .._core.layout import RUN_HEADER_SIZE, Kind
from ..connection import FrameProtocol
from ..errors import UnavailableError
from ..handshake import CLIENT, Hello
from ..outcomes import error_of
from ..ports import Network, Random
from ..serializer import Serializer
from ..types import Address, Consistency

TIMEOUT_S = 3.0


class Direct:
    """The queries of one client process to one member at a time.

    Args:
        network: the process's.
        random: for the process's id.
    """

    def __init__(self, network: Network, random: Random) -> None:
        self._network = network
        self._uuid = random.randbytes(16)
        self._serializer = Serializer()
        self._protocol: FrameProtocol | None = None
        self._welcomed: asyncio.Future[None] | None = None
        self._asked: dict[int, asyncio.Future[tuple[Any, int]]] = {}
        self._last = 0

    @property
    def stands(self) -> bool:
        """Whether there is a connection."""
        return self._protocol is not None and self._protocol.open

    async def connect(self, address: Address) -> None:
        """To this member from now on; raises `UnavailableError`."""
        self.close()
        welcomed = self._welcomed = asyncio.get_running_loop().create_future()
        protocol = FrameProtocol(self._frame, lambda error: self._lost(protocol))
        self._protocol = protocol
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._network.connect(address, lambda: protocol)
                protocol.write(Hello(CLIENT, None, "direct", self._uuid).frame())
                await welcomed
        except OSError as problem:
            self.close()
            raise UnavailableError(f"{address} cannot be asked: {problem}") from problem
        protocol.established(PEER_FRAME_LIMIT)

    async def ask(
        self,
        resource: int,
        operation: int,
        arguments: list[object],
        level: Consistency,
        min_index: int,
    ) -> tuple[Any, int]:
        """The answer, and the log index whose state it shows.

        Raises `UnavailableError` where there is none, and the errors of the query itself.
        """
        protocol = self._protocol
        if protocol is None or not protocol.open:
            raise UnavailableError("there is no connection")
        self._last += 1
        number = self._last
        future: asyncio.Future[tuple[Any, int]] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        call = [(resource, operation, self._serializer.pack(arguments))]
        body = encode_run(Kind.COMMAND, 0, 0, 0, call)[RUN_HEADER_SIZE:]
        head = QUERY_HEAD.pack(number, min_index, 1, level)
        protocol.write(pack_frame(Frame.QUERIES, head, body))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await future
        except TimeoutError as problem:
            raise UnavailableError("no answer in time") from problem
        finally:
            self._asked.pop(number, None)

    def close(self) -> None:
        """Hang up; who waits for an answer gets none."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.abort()
        self._fail("the connection was closed")

    # -- from the connection -------------------------------------------------------------------

    def _frame(self, type_: int, payload: bytes) -> None:
        if type_ == Frame.WELCOME and self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_result(None)
        elif type_ == Frame.ANSWERS:
            number, applied, count = ANSWERS_HEAD.unpack_from(payload)
            (result,) = decode_results(payload, ANSWERS_HEAD.size, count)
            future = self._asked.get(number)
            if future is None or future.done():
                return
            if result[0] == 0:
                future.set_result((self._serializer.unpack(result[1:]), applied))
            else:
                future.set_exception(error_of(result, self._serializer, is_query=True))
        elif type_ == Frame.REJECT:
            reason, _, _, _, number, _ = REJECT_HEAD.unpack_from(payload)
            future = self._asked.get(number)
            if future is not None and not future.done():
                future.set_exception(UnavailableError(f"refused: {Reason(reason).name}"))

    def _lost(self, protocol: FrameProtocol) -> None:
        if protocol is self._protocol:
            self._protocol = None
            self._fail("the connection is lost")

    def _fail(self, why: str) -> None:
        for future in [self._welcomed, *self._asked.values()]:
            if future is not None and not future.done():
                future.set_exception(UnavailableError(why))
                future.exception()  # it may be that nobody waits any more
