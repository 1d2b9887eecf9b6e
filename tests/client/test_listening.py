"""Who begins to listen hears all from one index on, whatever it had listened to before (H43).

Found by simulated lives in which clients are cut off: a listener that had given up in doubt, a
command, and a new listener went out together.
"""

from __future__ import annotations

import asyncio

import pytest

from copycat._core.kernel import encode_run
from copycat._core.layout import Kind
from copycat.errors import SessionExpiredError
from copycat.listeners import Inbox
from copycat.serializer import Serializer
from copycat.testing.workload import Ledger

from ..server.loops import run
from .fake_server import FakeCluster, client, fake_cluster


def append_elsewhere(cluster: FakeCluster, session: int, resource: int, operation: int) -> None:
    """Another session's entry is applied, and its event is on the way; nothing is read yet."""
    known = cluster.applier.sessions.get(session)
    assert known is not None
    command = (resource, operation, Serializer().pack(["from elsewhere"]))
    cluster.log([encode_run(Kind.COMMAND, session, known.last_sequence + 1, 0, [command])])
    cluster.members["n1"].answer()


def test_a_new_listener_hears_nothing_of_an_earlier_one() -> None:
    """An event for a listener that is gone is not given to the next one, who would miss what
    follows it."""

    async def main() -> None:
        cluster_of = fake_cluster(machines=[Ledger])
        async with cluster_of as cluster, client(cluster) as one, client(cluster) as two:
            ledger = one.machine("/ledger", Ledger)
            await two.machine("/ledger", Ledger).append("first")
            opened, session, ids = await ledger._ready(), one.session, (await ledger._ready()).ids
            gone, told = session.listen(opened.resource, "appended", lambda *_: None)
            assert told is not None
            await told
            append_elsewhere(cluster, two.session.id, opened.resource, ids["append"])
            session.unlisten(gone)
            missed = session.command(opened.resource, ids["append"], ["nobody hears it"])
            inbox = Inbox()
            _, told = session.listen(opened.resource, "appended", inbox.put)
            assert told is not None
            inbox.begin(await told)
            await missed
            await ledger.append("heard")
            (position, entry), _ = await inbox.get()
            assert (position, entry) == (4, "heard")

    run(main())


def test_whoever_joins_a_listener_waits_for_the_same_answer() -> None:
    """A second listener of an event is not told that it hears it before the cluster has said so."""

    async def main() -> None:
        async with fake_cluster(machines=[Ledger]) as cluster, client(cluster) as one:
            ledger = one.machine("/ledger", Ledger)
            await ledger.append("first")
            resource = (await ledger._ready()).resource
            inboxes = Inbox(), Inbox()
            answers = [one.session.listen(resource, "appended", each.put)[1] for each in inboxes]
            assert answers[0] is not None
            assert answers[1] is not None
            answers[0].cancel()  # one gives up; the other goes on
            inboxes[1].begin(await answers[1])
            await ledger.append("second")
            (position, _), _ = await inboxes[1].get()
            assert position == 2
            assert one.session.listen(resource, "appended", inboxes[0].put)[1] is None

    run(main())


def test_listeners_end_with_their_session() -> None:
    """After a gap nobody counts as listening: who listens next asks the cluster again."""

    async def main() -> None:
        async with fake_cluster(machines=[Ledger]) as cluster, client(cluster) as one:
            ledger = one.machine("/ledger", Ledger)
            await ledger.append("first")
            resource = (await ledger._ready()).resource
            slow, next_one = Inbox(), Inbox()  # the first has not noticed yet when the next comes
            _, told = one.session.listen(resource, "appended", slow.put, on_gap=slow.end)
            assert told is not None
            await told
            before = one.session.id
            cluster.expire_all()
            while one.session.id in (0, before):
                await asyncio.sleep(0.01)
            _, told = one.session.listen(resource, "appended", next_one.put, on_gap=next_one.end)
            assert told is not None
            next_one.begin(await told)
            await ledger.append("second")
            (position, _), _ = await next_one.get()
            assert position == 2
            with pytest.raises(SessionExpiredError):
                await slow.get()

    run(main())
