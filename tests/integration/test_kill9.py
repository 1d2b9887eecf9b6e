"""Recovery after ``kill -9``: real processes, real logs with fsync, random moments by a seed.

What a client was told stays true: every acknowledged write is there, every increment counted
exactly once, and the members agree to the byte.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from copycat.demo.servers import Servers

from .cluster import (
    Load,
    client,
    digests,
    kill,
    leader,
    missing,
    restart,
    servers,
    statuses,
)

ROUNDS = 20
ALL_EVERY = 4  # in every fourth round nobody is left


def victims_of(chance: random.Random, round_: int, names: list[str], leads: str) -> list[str]:
    """Whom this round kills: everybody, the leader, or anyone."""
    if round_ % ALL_EVERY == ALL_EVERY - 1:
        return chance.sample(names, len(names))
    return [leads if chance.random() < 0.5 else chance.choice(names)]


async def restart_in_spite(running: Servers, chance: random.Random, victims: list[str]) -> None:
    """Start the victims again; some are killed once more while they recover."""
    for name in victims:
        if chance.random() < 0.3:
            await running.start(name)
            await asyncio.sleep(chance.uniform(0.2, 0.5))  # a random moment of its start
            await running.kill(name)
    await restart(running, victims)


@pytest.mark.parametrize("seed", [20261123])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, seed: int) -> None:
    """After many kills in mid-write, no acknowledged write is lost or applied twice (H7, H36)."""
    asyncio.run(rounds(tmp_path, seed))


async def rounds(folder: Path, seed: int) -> None:
    """Kill, restart, go on; then compare."""
    chance = random.Random(seed)
    async with servers(folder) as running, client(running, "load") as cc:
        names = list(running.addresses)
        async with Load(cc, seed, writers=6, counters=2) as load:
            for round_ in range(ROUNDS):
                victims = victims_of(chance, round_, names, await leader(running))
                await load.progress(50)
                await asyncio.sleep(chance.uniform(0, 0.05))  # the random moment
                await kill(running, victims)
                if len(victims) == 1:
                    await load.progress(20)  # the two that are left go on without it
                await restart_in_spite(running, chance, victims)
        told = f"seed {seed}, {len(load.written)} writes, {len(load.counted)} increments"
        assert not await missing(cc, load.written), told
        assert sorted(load.counted) == list(range(1, len(load.counted) + 1)), told
        assert await cc.long("/counted").get() == len(load.counted), told
        found = await digests(running, cc)
        assert len(set(found.values())) == 1, f"{told}: {found}"
        # The rounds were worth something only if recovery had to go through snapshots, too.
        assert all(each["snapshot_index"] > 0 for each in await statuses(running)), told
