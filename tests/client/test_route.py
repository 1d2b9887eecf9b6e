"""The way to the leader, in corners that a working cluster seldom shows."""

from __future__ import annotations

import asyncio
from random import Random

from copycat._core.codec import HEADER_SIZE, Frame
from copycat.client import Link, Route
from copycat.handshake import Welcome
from copycat.network import RealNetwork
from copycat.types import Address

from ..server.loops import run


def test_a_welcome_that_comes_as_the_time_runs_out_is_no_error() -> None:
    """The dial gave up in the same turn of the loop: the connection is closed, and that is all.

    Found by a simulated life (seed 5033).
    """

    async def main() -> None:
        address = Address("127.0.0.1", 1)
        route = Route([address], RealNetwork(), Random(1), name="c", uuid=b"u" * 16)
        link = Link(route, address, asyncio.get_running_loop())
        link.welcomed.cancel()  # as a time-out does to the future that is awaited
        welcome = Welcome(b"c" * 16, "n1", b"m" * 16, 1, None, {}).frame()[HEADER_SIZE:]
        route.frame(link, Frame.WELCOME, welcome)
        assert link.closed
        await route.close()

    run(main())
