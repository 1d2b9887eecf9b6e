"""What a restored member and a leader of a later term must know, and what they must have forgotten.

Each test stands for a line whose removal nothing else noticed.
"""

from __future__ import annotations

import random

import pytest

from copycat._core import codec
from copycat._core.codec import Frame
from copycat._core.kernel import decode_results
from copycat.serializer import Serializer
from copycat.server import sessions as sessions_module
from copycat.server.applier import Applier
from copycat.server.desk import Desk

from .images import SECRET, commands, keep_alive, tick, unpack
from .test_applier import Tally
from .test_applier import World as State
from .test_desk import World


def restored(world: World) -> None:
    """The world's member is replaced by one that knows the snapshot alone; 7 is its client."""
    image = world.applier.image()
    world.applier = Applier({"Tally": Tally}, Serializer())
    world.applier.restore(image)
    world.desk = Desk(world.applier, world.host)
    world.desk.began_serving()
    world.attach(7)


def answers(world: World, connection: int) -> list[tuple[int, object]]:
    """(sequence, value) of every result that left for a connection."""
    found: list[tuple[int, object]] = []
    for type_, payload in world.commit().get(connection, []):
        assert type_ == Frame.RESULTS
        _, first, _, count = codec.RESULTS_HEAD.unpack_from(payload)
        results = decode_results(payload, codec.RESULTS_HEAD.size, count)
        found += [(first + n, unpack(result[1:])) for n, result in enumerate(results)]
    return found


def test_a_duplicate_is_answered_from_a_restored_cache() -> None:
    """Results travel in snapshots: what was applied before is answered, not applied again (H36)."""
    world = World()
    world.run(world.adds(2, 4, acknowledged=1))
    world.commit()
    restored(world)
    world.run(world.adds(2, 4), connection=7)
    assert world.admitted() == []
    assert answers(world, 7) == [(2, 1), (3, 2), (4, 3), (5, 4)]
    world.run(world.adds(4, 3, acknowledged=3), connection=7)
    assert world.admitted() == [(6, 1)]
    assert answers(world, 7) == [(4, 3), (5, 4), (6, 5)]


def test_a_doomed_session_stays_doomed_after_a_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that comes from a snapshot refreshes it no more than the others: it ends alike."""
    state = State()
    listen = (0, 6, [state.resource, "moved"])
    state.sequence += 1
    state.apply(commands(state.session, state.sequence, listen))
    monkeypatch.setattr(sessions_module, "EVENT_BYTES_MAX", 10)
    for _ in range(8):
        state.call(state.add, 1)
        session = state.applier.sessions.get(state.session)
        assert session is not None
        if session.doomed:
            break
    assert session.doomed and not session.events
    other = state.fresh()
    other.restore(state.applier.image())
    fed = len(state.images)
    state.apply(keep_alive(state.session), seconds=3)
    state.apply(commands(state.session, state.sequence + 1, (state.resource, state.add, [1])))
    state.apply(tick(), seconds=2.5)
    for image in state.images[fed:]:
        other.apply(image)
    assert state.applier.sessions.get(state.session) is None
    assert other.sessions.get(state.session) is None
    assert other.image() == state.applier.image()


def test_a_desk_that_leads_again_starts_from_what_was_applied() -> None:
    """What the first leadership admitted or logged in vain is neither skipped nor logged late."""
    world = World()
    world.run(world.adds(2, 2))
    world.append()  # logged, and never committed: the next leader overwrites it
    world.staged.clear()
    world.run(world.adds(4, 1))  # admitted, and never logged
    world.log.next_index = world.applier.index + 1
    world.host.leading = world.host.serving = False
    world.desk.deposed()
    assert world.desk.runs == [] and world.desk.run_bytes == 0
    world.applier.apply(world.log.batch(world.adds(2, 1)))  # under the other leader
    world.applier.take()
    world.host.leading = world.host.serving = True
    world.desk.began_serving()
    world.frames()
    world.attach(7)
    world.run(world.adds(3, 3), connection=7)
    assert world.admitted() == [(3, 3)]
    assert answers(world, 7) == [(3, 2), (4, 3), (5, 4)]


@pytest.mark.parametrize("seed", range(20))
def test_any_number_of_leaderships_applies_each_command_once(seed: int) -> None:
    """However often leaders change and logs are cut, each sequence is applied once, in order."""
    chance = random.Random(seed)
    world = World()
    sent = 1
    for _ in range(40):
        for _ in range(chance.randint(0, 4)):
            first = chance.randint(max(2, sent - 3), sent + 1)
            count = chance.randint(1, 4)
            world.desk.frame(1, Frame.ATTACH, codec.ATTACH_HEAD.pack(world.session, 0, SECRET))
            world.run(world.adds(first, count))
            sent = max(sent, first + count - 1)
            if chance.random() < 0.4:
                world.append()
            if chance.random() < 0.3:
                world.commit()
        if chance.random() < 0.4:
            world.staged.clear()
            world.log.next_index = world.applier.index + 1
            world.host.leading = world.host.serving = False
            world.desk.deposed()
            world.host.leading = world.host.serving = True
            world.desk.began_serving()
            session = world.applier.sessions.get(world.session)
            assert session is not None
            sent = session.last_sequence
    world.commit()
    session = world.applier.sessions.get(world.session)
    assert session is not None and session.last_sequence == sent
    value = world.applier.executor.query(world.resource, world.get, b"\x90")
    assert unpack(value[1:]) == sent - 1
