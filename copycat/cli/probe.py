"""Asks one particular member about itself: its status, its digest of the state at an index.

A client of the cluster always talks to the leader; whoever compares members needs to ask each one.
It registers no session, follows no redirect and never tries again. It serves ``copycat status``,
the demo and the benchmarks.
"""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import Any, Self, cast

from .._core.codec import (
    ANSWERS_HEAD,
    PEER_FRAME_LIMIT,
    QUERY_HEAD,
    Frame,
    pack_frame,
)
from .._core.kernel import decode_results, encode_run
from .._core.layout import RUN_HEADER_SIZE, FormatError, Kind, Status
from ..connection import FrameProtocol
from ..errors import ConfigurationError, CopycatError, UnavailableError
from ..handles import Copycat
from ..handshake import CLIENT, Hello, Refusal, Welcome, unpack_control
from ..network import RealNetwork
from ..serializer import Serializer
from ..system import SYSTEM_RESOURCE, SystemOperation
from ..types import Address, Consistency


class Probe:
    """One connection to one member: ``async with Probe(address) as member``.

    Entering raises `UnavailableError` if the member does not answer or belongs to no cluster yet.
    ``timeout`` is for each step, in seconds; ``refused`` tells that the member is there, and did
    not want this connection.
    """

    def __init__(self, address: Address, *, timeout: float = 1.0) -> None:
        self.address = address
        self.refused = False
        self.welcome = Welcome(b"", "", b"")
        self._timeout = timeout
        self._serializer = Serializer()
        self._last = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}  # 0: the welcome
        self._protocol = FrameProtocol(self._on_frame, self._on_lost, on_connected=self._greet)

    @property
    def name(self) -> str:
        """The member's name."""
        return self.welcome.name

    async def status(self) -> dict[str, Any]:
        """Where the member stands: role, term, leader, indexes."""
        id_, answer = self._expect()
        self._protocol.write(pack_frame(Frame.ADMIN, self._serializer.pack([id_, "status", []])))
        return cast("dict[str, Any]", await self._answer(answer))

    async def digest_at(self, index: int) -> bytes | None:
        """The member's digest of its state at ``index``; None until it has applied that."""
        id_, answer = self._expect()
        arguments = self._serializer.pack([index])
        command = (SYSTEM_RESOURCE, SystemOperation.DIGEST_AT, arguments)
        body = encode_run(Kind.COMMAND, 0, 0, 0, [command])[RUN_HEADER_SIZE:]
        head = QUERY_HEAD.pack(id_, 0, 1, Consistency.SERIALIZABLE)
        self._protocol.write(pack_frame(Frame.QUERIES, head, body))
        return cast("bytes | None", await self._answer(answer))

    # -- the connection ------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        welcomed = self._waiting[0] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout):
                await RealNetwork().connect(self.address, lambda: self._protocol)
                self.welcome = await welcomed
        except TimeoutError:
            self._protocol.abort()
            raise UnavailableError(f"{self.address}: no answer for {self._timeout:g} s") from None
        except ConnectionRefusedError:
            raise UnavailableError(f"{self.address}: connection refused") from None
        except CopycatError:
            raise
        except OSError as problem:
            reason = problem.strerror or problem
            raise UnavailableError(f"{self.address}: {reason}") from None
        self._protocol.established(PEER_FRAME_LIMIT)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._protocol.close()

    def _greet(self) -> None:
        self._protocol.write(Hello(CLIENT, None, "probe", os.urandom(16)).frame())

    def _expect(self) -> tuple[int, asyncio.Future[Any]]:
        if not self._protocol.open:
            raise UnavailableError(f"{self.address}: connection closed")
        self._last += 1
        future = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        return self._last, future

    async def _answer(self, answer: asyncio.Future[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise UnavailableError(f"{self.address}: no answer for {self._timeout:g} s") from None

    def _on_frame(self, type_: int, payload: bytes) -> None:
        if type_ == Frame.WELCOME:
            self._resolve(0, Welcome.parse(payload))
        elif type_ == Frame.REFUSE:
            self.refused = True
            self._fail(UnavailableError(f"{self.address}: {Refusal.parse(payload).message}"))
        elif type_ == Frame.ADMIN_REPLY:
            self._on_reply(unpack_control(payload))
        elif type_ == Frame.ANSWERS:
            first, _, count = ANSWERS_HEAD.unpack_from(payload)
            (result,) = decode_results(payload, ANSWERS_HEAD.size, count)
            if result[0] == Status.OK:
                self._resolve(first, self._serializer.unpack(result[1:]))
            else:
                self._fail(CopycatError(f"{self.address}: the member refused a question"))

    def _on_reply(self, fields: object) -> None:
        if not (isinstance(fields, list) and len(fields) == 3):
            raise FormatError("a reply has three fields")
        id_, error, value = fields
        if error is None:
            self._resolve(id_, value)
        else:
            self._fail(CopycatError(f"{self.address}: {error}"))

    def _on_lost(self, problem: BaseException | None) -> None:
        self._fail(UnavailableError(f"{self.address}: {problem or 'connection closed'}"))

    def _resolve(self, id_: int, value: object) -> None:
        future = self._waiting.pop(id_, None)
        if future is not None and not future.done():
            future.set_result(value)

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # it may be that nobody waits any more


async def member_status(address: Address, *, timeout: float = 1.0) -> dict[str, Any] | None:
    """The status of the member at ``address``, or None if it does not answer in time."""
    try:
        async with Probe(address, timeout=timeout) as member:
            return await member.status()
    except UnavailableError:
        return None


async def ask_for_digest(client: Copycat) -> int:
    """Have every member digest its state at one log index, which is returned."""
    index, _ = await client._access.system(SystemOperation.DIGEST)
    return cast(int, index)


async def digest_of(address: Address, index: int, *, timeout: float = 10.0) -> bytes:
    """The digest of the member at ``address``; waits until it has applied ``index``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    problem: CopycatError | None = None
    while loop.time() < deadline:
        try:
            async with Probe(address) as member:
                while loop.time() < deadline:
                    digest = await member.digest_at(index)
                    if digest is not None:
                        return digest
                    await asyncio.sleep(0.02)
        except ConfigurationError:
            raise
        except CopycatError as failure:
            problem = failure
            await asyncio.sleep(0.05)
    raise UnavailableError(
        f"{address} did not digest its state at index {index} within {timeout:g} s"
        + (f": {problem}" if problem else "")
    )
