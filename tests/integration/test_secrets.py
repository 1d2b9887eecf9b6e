"""Secrets of sessions on real members: in no file, log line or status, and good on every member."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

import copycat
from copycat.handles import CopycatClient

from .test_local_cluster import Bank, until


def shapes(secret: bytes) -> list[bytes]:
    """How a secret might be written somewhere."""
    return [secret, secret.hex().encode(), repr(secret).encode()]


def test_secrets_stay_with_their_clients(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Through a registration, a kill, a reconnect and snapshots, no secret is written anywhere."""

    async def story() -> list[bytes]:
        async with (
            copycat.local_cluster(
                3, machines=[Bank], data=tmp_path, election_timeout=0.3, heartbeat=0.05,
                segment_bytes=64 << 10, snapshot_bytes=64 << 10,
            ) as cluster,
            cluster.connect() as cc,
        ):  # fmt: skip
            clients: list[CopycatClient] = [cluster.client, cc]
            bank = cc.machine("/bank", Bank)
            id_ = cc.session.id
            for _ in range(16):
                await asyncio.gather(*(bank.deposit("a" * 100, 1) for _ in range(64)))
            await until(lambda: bool(list(tmp_path.glob("*/snapshots/*.snap"))))
            victim = cluster.leader
            await cluster.kill(victim)
            assert await bank.deposit("a" * 100, 1) == 1025
            assert cc.session.id == id_
            secrets = [each.session._credentials.secret for each in clients]
            said = repr([vars(each) for each in clients])
            said += repr([member.status() for member in cluster.members.values()])
            assert not any(shape.decode("latin-1") in said for s in secrets for shape in shapes(s))
            return secrets

    with caplog.at_level("DEBUG"):
        secrets = asyncio.run(story())
    assert len({secret for secret in secrets if len(secret) == 16}) == 2
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files) + caplog.text.encode()
    assert b"a" * 100 in written, "the files that were searched hold what was logged"
    for secret in secrets:
        assert not any(shape in written for shape in shapes(secret))


def test_thieves_are_counted_and_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Who uses a stolen id hears so at each try; the log has one line, the owner his lock."""

    async def story() -> None:
        async with (
            copycat.local_cluster(3, election_timeout=0.3, heartbeat=0.05) as cluster,
            cluster.connect() as owner,
            cluster.connect() as thief,
            owner.lock("/vault") as held,
        ):
            number = thief.long("/n")
            await number.increment()
            for _ in range(5):
                thief.session.lifetime.id = owner.session.id
                with pytest.raises(copycat.SecurityError, match="the secret is not that of"):
                    await number.increment()
                await until(lambda: thief.session.state is copycat.SessionState.CONNECTED)
            assert await thief.lock("/vault").try_acquire() is None
            assert await number.get() == 1
            assert held.token and owner.session.state is copycat.SessionState.CONNECTED
            gateway = cluster.members[str(cluster.leader)]._gateway
            # Each time a run is refused, and then an attach.
            assert gateway is not None and gateway.complaints.count >= 10

    asyncio.run(story())
    assert sum("refused: the secret" in record.getMessage() for record in caplog.records) == 1


def test_real_clients_take_chance_from_the_operating_system() -> None:
    """What a client has shown of its chance does not give its next secret away."""

    async def look() -> None:
        session, _ = copycat.connect("127.0.0.1:1")._open()
        assert isinstance(session._random, random.SystemRandom)

    asyncio.run(look())
