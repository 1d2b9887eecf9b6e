"""What a client has seen, it sees ever after: events count like answers (H30, H43)."""

from __future__ import annotations

import asyncio

from copycat._core.codec import QUERY_HEAD, Frame
from copycat.server.desk import Desk
from copycat.types import Consistency

from ..server.loops import run
from .fake_server import FakeCluster, client, fake_cluster


def minimal_indexes(cluster: FakeCluster) -> list[int]:
    """From now on, the index that each SEQUENTIAL query frame asks for."""
    found: list[int] = []

    def spy(desk: Desk) -> None:
        frame = desk.frame

        def watched(connection: int, type_: int, payload: bytes) -> None:
            if type_ == Frame.QUERIES and QUERY_HEAD.unpack_from(payload)[3] == (
                Consistency.SEQUENTIAL
            ):
                found.append(QUERY_HEAD.unpack_from(payload)[1])
            frame(connection, type_, payload)

        desk.frame = watched  # type: ignore[method-assign]

    for member in cluster.members.values():
        spy(member.desk)
    return found


def test_a_sequential_read_after_an_event_is_not_older_than_the_event() -> None:
    """Whoever hears of a change asks for a state that has it, also from a member that lags."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            asked = minimal_indexes(cluster)
            watched = two.map("/m").watch()
            first = asyncio.ensure_future(anext(watched))
            while not first.done():
                await one.map("/m").put("k", 1)
            for value in range(5):
                await one.map("/m").put("k", value)
                event = await anext(watched)
                assert two.session.index >= event.index > 0
                view = two.map("/m").at(consistency=Consistency.SEQUENTIAL)
                await view.get("k")
                assert asked[-1] >= event.index

    run(main())


def test_what_was_seen_survives_the_session() -> None:
    """A new session of the same client still asks for nothing older than it has seen."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            watched = two.map("/m").watch()
            first = asyncio.ensure_future(anext(watched))
            while not first.done():
                await one.map("/m").put("k", 1)
            event = await first
            old = two.session.id
            cluster.expire_all()
            async with asyncio.timeout(5):
                while two.session.id in (0, old):
                    await asyncio.sleep(0.001)
            assert two.session.index >= event.index

    run(main())
