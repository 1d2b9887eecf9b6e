"""Whose session it is: who knows an id but not the secret gets nothing and harms nothing (H97)."""

from __future__ import annotations

import random

import pytest

from copycat._core import codec
from copycat._core.codec import Frame, Reason
from copycat.serializer import Serializer
from copycat.server.applier import Applier
from copycat.server.sessions import proof_of

from .images import SECRET, commands, keep_alive, pack, register, unregister
from .test_applier import Tally
from .test_desk import World, rejection

STRANGER = 9
UUID = b"u" * 16


@pytest.fixture
def world() -> World:
    return World()


def registration(uuid: bytes, secret: bytes) -> bytes:
    """A client's REGISTER frame."""
    return pack([uuid, 5000, "test", secret])


def attach(world: World, connection: int, secret: bytes, session: int | None = None) -> None:
    """Try to attach."""
    id_ = world.session if session is None else session
    world.desk.frame(connection, Frame.ATTACH, codec.ATTACH_HEAD.pack(id_, 0, secret))


def theft(world: World) -> dict[str, bytes]:
    """Every run that somebody could send in the name of the world's session."""
    return {
        "commands": world.adds(2, 3),
        "keep-alive": keep_alive(world.session, acknowledged=1),
        "goodbye": unregister(world.session),
    }


@pytest.mark.parametrize("what", ["commands", "keep-alive", "goodbye"])
def test_a_stranger_cannot_run_anything(world: World, what: str) -> None:
    """Knowing the id is not enough: nothing is logged, and the owner does not notice anything."""
    before = world.applier.image()
    world.run(theft(world)[what], connection=STRANGER)
    assert world.desk.runs == []
    assert rejection(world.frames(), STRANGER) == (Reason.FORBIDDEN, world.session)
    assert world.applier.image() == before
    assert [c for c, _ in world.desk.take_complaints()] == [STRANGER]
    world.run(world.adds(2, 1))
    assert set(world.commit()) == {1}, "the answers go to the owner alone"


@pytest.mark.parametrize("bit", range(128))
def test_a_secret_is_right_in_every_bit(world: World, bit: int) -> None:
    """A secret that differs in any one bit attaches to nothing and gets no events."""
    wrong = (int.from_bytes(SECRET, "big") ^ (1 << bit)).to_bytes(16, "big")
    world.run(commands(world.session, 2, (0, 6, [world.resource, "moved"])))
    world.run(world.adds(3, 1))
    world.commit()
    attach(world, STRANGER, wrong)
    assert rejection(world.frames(), STRANGER) == (Reason.FORBIDDEN, world.session)
    world.run(world.adds(4, 1), connection=STRANGER)
    assert world.desk.runs == []


def test_what_is_kept_of_a_secret_is_not_a_secret(world: World) -> None:
    """Who has read a member's files knows the hash, and cannot attach with it."""
    attach(world, STRANGER, proof_of(SECRET))
    assert rejection(world.frames(), STRANGER)[0] == Reason.FORBIDDEN


def test_the_secret_is_neither_logged_nor_in_the_state(world: World) -> None:
    """What a leader logs and a snapshot holds is a hash of the secret."""
    secret = bytes(range(100, 116))
    world.desk.frame(2, Frame.REGISTER, registration(b"v" * 16, secret))
    (run,) = world.desk.runs
    assert secret not in run and proof_of(secret) in run
    world.commit()
    assert secret not in world.applier.image()
    assert proof_of(secret) in world.applier.image()


def test_the_secret_is_shown_once_a_connection(world: World) -> None:
    """After one attach the connection speaks for the session, also when another does too."""
    attach(world, 2, SECRET)
    world.run(world.adds(2, 1), connection=2)
    assert set(world.commit()) == {2}
    world.run(world.adds(3, 1), connection=1)
    assert set(world.commit()) == {1}
    world.run(world.adds(4, 1), connection=2)
    assert set(world.commit()) == {2}


def test_a_secret_opens_one_session_for_one_connection(world: World) -> None:
    """A proven connection speaks for no other session, and its end ends what it may."""
    world.desk.frame(2, Frame.REGISTER, registration(b"v" * 16, b"another secret.."))
    ((_, payload),) = world.commit()[2]
    other, uuid = codec.REGISTERED_HEAD.unpack(payload)
    assert uuid == b"v" * 16 and other != world.session
    world.run(world.adds(2, 1), connection=2)
    assert rejection(world.frames(), 2) == (Reason.FORBIDDEN, world.session)
    attach(world, 2, b"another secret..")
    assert rejection(world.frames(), 2) == (Reason.FORBIDDEN, world.session)
    world.desk.gone(1)
    world.run(world.adds(2, 1), connection=1)
    assert rejection(world.frames(), 1) == (Reason.FORBIDDEN, world.session)


def test_a_proof_outlives_a_leadership_but_not_its_session(world: World) -> None:
    """The connection stays when the member is deposed and elected again; sessions end."""
    world.desk.deposed()
    world.desk.began_serving()
    world.run(world.adds(2, 1))
    assert len(world.commit()[1]) == 1
    world.run(unregister(world.session))
    assert [type_ for type_, _ in world.commit()[1]] == [Frame.CLOSED]
    world.run(world.adds(3, 1))
    assert rejection(world.frames())[0] == Reason.UNKNOWN_SESSION
    assert not any(world.desk._proven.values())


def test_a_registration_is_repeated_with_its_secret_only(world: World) -> None:
    """A lost answer is asked for again and names the same session; a stranger gets none."""
    world.desk.frame(2, Frame.REGISTER, registration(UUID, SECRET))
    ((type_, payload),) = world.commit()[2]
    assert type_ == Frame.REGISTERED
    assert codec.REGISTERED_HEAD.unpack(payload) == (world.session, UUID)
    session = world.applier.sessions.get(world.session)
    assert session is not None
    seen = session.seen_us
    world.log.time_us += 1000
    world.desk.frame(STRANGER, Frame.REGISTER, registration(UUID, b"guessed guessed!"))
    assert rejection(world.commit(), STRANGER) == (Reason.FORBIDDEN, 0)
    assert session.seen_us == seen, "a stranger cannot keep a session alive"
    assert len(world.applier.sessions) == 1
    world.run(world.adds(2, 1), connection=STRANGER)
    assert rejection(world.frames(), STRANGER)[0] == Reason.FORBIDDEN


def test_registrations_of_one_uuid_under_way_are_told_apart(world: World) -> None:
    """Of two clients with one uuid the first gets the session; each hears its own answer."""
    uuid = b"w" * 16
    for connection, secret in ((3, b"first" + bytes(11)), (STRANGER, b"second" + bytes(10))):
        world.desk.frame(connection, Frame.REGISTER, registration(uuid, secret))
    frames = world.commit()
    assert [type_ for type_, _ in frames[3]] == [Frame.REGISTERED]
    assert rejection(frames, STRANGER) == (Reason.FORBIDDEN, 0)


def test_secrets_survive_a_snapshot() -> None:
    """A member that starts from a snapshot knows who is who, and says the same as the others."""
    world = World()
    again = Applier({"Tally": Tally}, Serializer())
    again.restore(world.applier.image())
    session = again.sessions.get(world.session)
    assert session is not None and session.is_proven_by(SECRET)
    assert not session.is_proven_by(b"x" * 16) and not session.is_proven_by(b"")
    image = world.log.batch(register(UUID, secret=b"y" * 16), register(UUID))
    for applier in (world.applier, again):
        applier.take()
        applier.apply(image)
    assert world.applier.take().registered == again.take().registered
    assert world.applier.image() == again.image()


@pytest.mark.parametrize("seed", range(30))
def test_no_mixture_of_strangers_frames_touches_a_session(seed: int) -> None:
    """Whatever is sent without the secret, in any order, leaves the owner's commands exact."""
    chance = random.Random(seed)
    world = World()
    session = world.applier.sessions.get(world.session)
    assert session is not None
    sent = 1
    for _ in range(60):
        what = chance.randrange(6)
        if what < 3:
            world.run(chance.choice(list(theft(world).values())), connection=STRANGER)
        elif what == 3:
            attach(world, STRANGER, chance.choice((chance.randbytes(16), session.proof, UUID)))
        elif what == 4:
            request = registration(UUID, chance.randbytes(16))
            world.desk.frame(STRANGER, Frame.REGISTER, request)
        else:
            sent += 1
            world.run(world.adds(sent, 1))
        for connection, frames in world.commit().items():
            types = {type_ for type_, _ in frames}
            assert types == {Frame.REJECT if connection == STRANGER else Frame.RESULTS}
    assert session.last_sequence == sent and len(world.applier.sessions) == 1


def test_a_follower_tells_nobody_whether_a_secret_is_right(world: World) -> None:
    """Only the leader attaches; elsewhere right and wrong secrets get the same answer."""
    world.host.leading = world.host.serving = False
    for secret in (SECRET, b"x" * 16):
        attach(world, STRANGER, secret)
        assert rejection(world.frames(), STRANGER) == (Reason.NOT_LEADER, 0)
