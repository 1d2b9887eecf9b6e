"""What an administrator hears of snapshots is true."""

from __future__ import annotations

import asyncio

import pytest

import copycat
from copycat.errors import CommandFailed, CopycatError


class Vault(copycat.StateMachine):
    """A machine with a state that may be unsound, and a body that may raise."""

    def __init__(self) -> None:
        self.inside: object = None

    @copycat.command
    def lose(self) -> None:
        self.inside = object()

    @copycat.command
    def open(self, number: int) -> int:
        return {1: 10}[number]


def test_a_snapshot_that_cannot_be_made_is_an_error() -> None:
    """It names the machine, the path and what cannot be encoded; a sound one is durable."""

    async def main() -> None:
        async with copycat.local_cluster(1, machines=[Vault]) as cluster:
            cc = cluster.client
            vault = cc.machine("/v", Vault)
            with pytest.raises(CommandFailed):
                await vault.open(2)
            index = await cc.cluster.snapshot()
            (member,) = cluster.members.values()
            assert member.status()["snapshot_index"] == index > 0
            await vault.lose()
            while True:
                with pytest.raises(CopycatError) as caught:
                    await cc.cluster.snapshot()
                if not isinstance(caught.value, copycat.OverloadedError):
                    break  # (they may be asked for once a second)
                await asyncio.sleep(0.2)
            assert "no snapshot" in str(caught.value)
            assert "Vault at /v" in str(caught.value) and "object" in str(caught.value)

    asyncio.run(main())


def test_a_failing_command_can_be_found(caplog: pytest.LogCaptureFixture) -> None:
    """The error names operation and path; the first traceback of a kind is in the members' logs."""

    async def main() -> None:
        async with copycat.local_cluster(1, machines=[Vault]) as cluster:
            vault = cluster.client.machine("/v", Vault)
            for _ in range(3):
                with pytest.raises(CommandFailed, match=r"Vault\.open at /v raised KeyError: 2"):
                    await vault.open(2)

    asyncio.run(main())
    told = [record for record in caplog.records if record.name == "copycat.machines"]
    assert len(told) == 1
    assert told[0].exc_info is not None and told[0].exc_info[0] is KeyError
