"""The client's side of secrets: kept to itself, shown when needed, and thieves get nowhere."""

from __future__ import annotations

import asyncio
import random

import pytest

from copycat._core.codec import Frame
from copycat.credentials import Credentials
from copycat.errors import SecurityError
from copycat.handles import CopycatClient
from copycat.types import SessionState

from ..server.loops import run
from .fake_server import client, cluster_and_client, fake_cluster, until


def secret_of(cc: CopycatClient) -> bytes:
    """What a client keeps to itself."""
    return cc.session._credentials.secret


def steal(thief: CopycatClient, victim: CopycatClient) -> None:
    """Let a client believe that it has the victim's session."""
    thief.session.lifetime.id = victim.session.id


def test_an_attempt_is_repeated_as_it_is_while_it_is_young() -> None:
    """A lost answer is asked for with the same uuid and secret; an old attempt is not worth it."""
    credentials = Credentials(random.Random(1), 2.5)
    first = credentials.attempt(10.0)
    assert credentials.attempt(12.5) == first
    assert credentials.accepted(b"?" * 16) is None
    assert credentials.accepted(first[0]) == 10.0
    assert credentials.secret == first[1]
    assert credentials.accepted(first[0]) is None, "an answer counts once"
    second = credentials.attempt(11.0)
    third = credentials.attempt(14.0)
    assert len({*first, *second, *third}) == 6
    assert credentials.accepted(second[0]) is None, "the answer to an attempt that was given up"
    assert credentials.accepted(third[0]) == 14.0
    assert len(credentials.secret) == 16 and repr(credentials) == "<Credentials>"


def test_a_registration_with_a_lost_answer_leaves_one_session() -> None:
    """The client asks the next leader again and gets the session that the first one made."""

    async def main() -> None:
        async with fake_cluster() as cluster:
            cluster.mute = {Frame.REGISTERED}
            connecting = client(cluster)
            opening = asyncio.create_task(connecting.__aenter__())
            await until(lambda: len(cluster.applier.sessions) == 1)
            (session,) = cluster.applier.sessions
            cluster.mute = set()
            cluster.elect("n2")
            cc = await opening
            assert cc.session.id == session.id and len(cluster.applier.sessions) == 1
            assert session.is_proven_by(secret_of(cc))
            assert await cc.long("/n").increment() == 1
            await connecting.__aexit__(None, None, None)

    run(main())


def test_a_thief_gets_a_security_error_and_the_owner_notices_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stolen id gives no lock away: the thief's commands fail, the owner goes on elsewhere."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc), client(cluster) as thief:
            number = cc.long("/n")
            await number.increment()
            theirs = thief.long("/n")
            await theirs.get()
            own, id_ = thief.session.id, cc.session.id
            steal(thief, cc)
            with pytest.raises(SecurityError) as caught:
                await theirs.increment()
            assert caught.value.applied == "unknown"
            await until(lambda: thief.session.state is SessionState.CONNECTED)
            assert thief.session.id not in (own, id_)
            assert cc.session.id == id_ and cc.session.state is SessionState.CONNECTED
            cluster.members["n1"].kill()
            cluster.elect("n3")
            assert await number.increment() == 2
            assert cc.session.id == id_
            assert any("secret is not that" in line for line in cluster.members["n1"].complaints)
            for secret in (secret_of(cc), secret_of(thief)):
                assert secret.hex() not in caplog.text and repr(secret) not in caplog.text
                assert repr(secret) not in repr([cc, cc.session, vars(cc)])

    with caplog.at_level("DEBUG"):
        run(main())


def test_a_thief_cannot_end_a_session() -> None:
    """A goodbye in another's name is refused; the session lives."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            async with client(cluster) as thief:
                steal(thief, cc)
            assert cluster.applier.sessions.get(cc.session.id) is not None
            assert await cc.long("/n").increment() == 1

    run(main())


def test_a_member_that_missed_the_secret_is_shown_it_again() -> None:
    """If an attach got lost in an overload, commands go on after another one, exactly once."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.increment()
            id_ = cc.session.id
            desk = cluster.members["n1"].desk
            for turn in range(2, 6):
                desk._proven.clear()
                desk._attached.clear()
                assert await number.increment() == turn
            assert cc.session.id == id_

    run(main())
