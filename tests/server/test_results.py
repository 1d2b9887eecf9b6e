"""What commands answer is bounded while it comes about, while it is kept, and while it leaves."""

from __future__ import annotations

import asyncio
import random

import pytest

from copycat._core.kernel import encode_results
from copycat._core.layout import Status
from copycat.server import applier as applier_module
from copycat.server import desk as desk_module
from copycat.server import pieces as pieces_module
from copycat.server.pieces import pieces
from copycat.server.sessions import SessionTable

from ..client.fake_server import cluster_and_client
from .images import commands, results_of, unpack
from .loops import run
from .test_applier import World as State
from .world import Client
from .world import World as Members


def test_commands_without_room_for_their_results_are_refused_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They change nothing, on no member, and are not run later; read results make room (H36, H85).

    One frame of small commands could ask for gigabytes, at each start again.
    """
    monkeypatch.setattr(applier_module, "RESULT_BYTES_MAX", 60)
    state = State()
    adds = [(state.resource, state.add, [1])] * 30
    state.apply(commands(state.session, 2, *adds))
    results = results_of(state.applier.take().answers[-1])
    done = state.value
    assert 0 < done < 30
    assert [result[0] for result in results] == [Status.OK] * done + [Status.OVERLOADED] * (
        30 - done
    )
    assert "Not applied" in unpack(results[-1][1:])[0]
    state.apply(commands(state.session, 32, adds[0]))
    assert results_of(state.applier.take().answers[-1])[0][0] == Status.OVERLOADED
    state.apply(commands(state.session, 2, *adds))  # again: answered from what is kept, if at all
    assert state.value == done
    state.apply(commands(state.session, 33, adds[0], acknowledged=32))
    assert results_of(state.applier.take().answers[-1])[0][0] == Status.OK
    assert state.value == done + 1
    other = state.fresh()
    for image in state.images:
        other.apply(image)
    assert other.image() == state.applier.image()


@pytest.mark.parametrize("seed", range(20))
def test_pieces_are_the_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut anywhere between results, in order, none lost; only a single result is too long."""
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 200)
    chance = random.Random(seed)
    results = [bytes(chance.choice((1, 5, 90, 300))) for _ in range(chance.randint(1, 60))]
    encoded = encode_results(results)
    room = chance.choice((1, 150, 1000, 1 << 20))
    cut = list(pieces(encoded, len(results), room))
    taken = sum(number for number, _ in cut)
    assert b"".join(piece for _, piece in cut) == encode_results(results[:taken])
    at = 0
    for number, piece in cut:
        assert piece == encode_results(results[at : at + number])
        assert number == 1 or len(encode_results(results[at : at + number - 1])) < 200
        at += number
    left = len(encode_results(results[: taken - cut[-1][0]]))
    assert left < room and (taken == len(results) or left + len(cut[-1][1]) >= room)


def test_a_client_gets_more_than_fits_into_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks again for what did not come, each is right, and nothing is done twice (H76)."""
    monkeypatch.setattr(desk_module, "RESULTS_BYTES_MAX", 30_000)
    monkeypatch.setattr(desk_module, "RESULTS_FEW", 100)
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 10_000)

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            things = cc.map("/things")
            values = {f"k{n}": chr(97 + n % 26) * (2000 + n) for n in range(60)}
            await asyncio.gather(*(things.put(key, value) for key, value in values.items()))
            got = await asyncio.gather(*(things.remove(key) for key in values))
            assert got == list(values.values())
            assert await things.size() == 0
            assert await things.put_if_absent("k", 1) is None
            assert cc.session.id and len(list(cluster.applier.sessions)) == 1

    run(main())


def test_ended_sessions_leave_nothing_that_grows() -> None:
    """However many come and go beside one that stays, the queue of deadlines stays small (H85)."""
    table = SessionTable()
    table.register(1, b"x" * 16, b"p" * 16, "keeper", 5_000_000, 0)
    alive: list[int] = []
    chance = random.Random(4)
    for index in range(2, 5000):
        now = index * 200
        keeper = table.get(1)
        assert keeper is not None
        keeper.seen_us = now
        table.register(index, index.to_bytes(16, "big"), b"p" * 16, "s", 3_600_000_000, now)
        alive.append(index)
        while len(alive) > 20:
            table.remove(alive.pop(chance.randrange(len(alive))))
        table.next_deadline_us()
        assert len(table._due) < 200
    ended = table.expired(1 << 60)
    assert [session.id for session in ended] == [1, *sorted(alive)]


def _hanging(world: Members) -> str:
    """The leader, whose next write never ends."""
    assert world.run(10, lambda: world.leader() is not None)
    leader = world.leader()
    assert leader is not None
    world.nodes[leader].lane_free["log"] = 1e12
    return leader


def test_a_leader_gives_way_when_its_disk_does_not_answer() -> None:
    """The others commit without it, but it hands over soon, and clients go on (H69)."""
    world = Members(3)
    leader = _hanging(world)
    client = Client(world)
    client.want(50)
    before = world.now
    assert world.run(20, lambda: world.leader() not in (None, leader))
    assert world.now - before < 5
    client.want(50)
    assert world.run(30, lambda: client.done)


def test_what_is_not_durable_counts_as_backlog() -> None:
    """A leader with nobody to hand over to refuses rather than keeps what it cannot write (H85)."""
    world = Members(3)
    leader = _hanging(world)
    member = world.nodes[leader].member
    assert member is not None
    member._shortage.handover_is_due(1e12)  # it does not look for another leader
    member._leading._backlog_bytes_max = 64 << 10
    log = member._store.log
    log._recent_max = 64 << 10
    client = Client(world)
    client.want(10)
    assert world.run(20, lambda: client.done)
    refused = False
    for _ in range(40):
        client.want(2000)
        world.run(1, lambda: client.done)
        refused = refused or member.overloaded()
    assert refused
    assert log._recent_bytes < 1 << 20
