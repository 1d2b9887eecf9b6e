"""Members come and go while the cluster works: production members in virtual time."""

from __future__ import annotations

import random

import pytest

from copycat._core.codec import HEADER_SIZE
from copycat._core.kernel import encode_run, seal_batch
from copycat._core.layout import CONFIGURATION_FLAG, FormatError, Kind
from copycat.errors import MembershipError
from copycat.handshake import Refusal, pack_msgpack
from copycat.raft import Membership
from copycat.raft.messages import VoteRequest, VoteResponse
from copycat.server.effects import RosterHeard
from copycat.server.peerwire import encode_message
from copycat.server.roster import NOBODY, Roster, Rosters, Seat, roster_in
from copycat.types import Address

from .world import Client, World, seat_of


def roster(*voters: str, learners: tuple[str, ...] = (), joining: tuple[str, ...] = ()) -> Roster:
    """A roster of these members."""
    seats = {name: Seat(Address(name, 7400), name.encode().ljust(16)) for name in voters + learners}
    return Roster(Membership(voters, learners, (), joining), seats)


def working(world: World) -> Client:
    """A client that has done something."""
    client = Client(world)
    client.want(200)
    assert world.run(60, lambda: client.done)
    return client


def judge(world: World, client: Client) -> None:
    """Every increment was counted once, and all members end in the same state."""
    assert world.run(60, lambda: client.done)
    assert client.values == list(range(1, client.wanted + 1))
    assert world.run(60, world.settled)
    world.run(1.0)  # followers apply at their leisure
    assert world.run(60, world.settled)
    assert len(world.states()) == 1


# -- rosters -----------------------------------------------------------------------------------


def test_a_roster_survives_its_encoding() -> None:
    """What a configuration's image says is what was put into it; a place may be kept."""
    first = roster("n1", "n2", learners=("n3",), joining=("n3",))
    kept = first.with_membership(
        Membership(("n1", "n2"), ("n3", "n4")), {"n4": Seat(Address("h", 1), NOBODY)}
    )
    for each in (first, kept):
        image = seal_batch([each.run()], 9, 2, 1, CONFIGURATION_FLAG)
        assert roster_in(image) == each
    command = encode_run(Kind.COMMAND, 1, 1, 0, [(0, 0, first.encode())])
    for runs in ([first.run(), first.run()], [command]):
        with pytest.raises(FormatError):
            roster_in(seal_batch(runs, 9, 2, 1, CONFIGURATION_FLAG))


def test_nothing_malformed_becomes_a_roster() -> None:
    """Damaged bytes raise `FormatError` and nothing else."""
    chance = random.Random(5)
    good = roster("n1", learners=("n2",)).encode()
    outcomes = set()
    for _ in range(2000):
        data = bytearray(good[: chance.randrange(len(good) + 1)] if chance.random() < 0.3 else good)
        for _ in range(chance.randrange(3)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            Roster.decode(bytes(data))
            outcomes.add("roster")
        except FormatError:
            outcomes.add("error")
    assert outcomes == {"roster", "error"}


def test_rosters_follow_the_log() -> None:
    """In force from the append on, gone with a truncation, the base after a compaction."""
    rosters = Rosters((0, roster("n1")))
    rosters.append(5, roster("n1", learners=("n2",)))
    rosters.append(9, roster("n1", "n2"))
    assert (rosters.at(4)[0], rosters.at(5)[0], rosters.at(8)[0], rosters.at(99)[0]) == (0, 5, 5, 9)
    assert rosters.current == roster("n1", "n2")
    rosters.truncate(9)
    assert rosters.last_index == 5
    rosters.compact(7)
    assert rosters.base[0] == 5 and rosters.at(1)[0] == 5
    rosters.append(12, roster("n1"))
    assert sorted(rosters.seats_since(11)) == ["n1", "n2"]
    assert sorted(rosters.seats_since(12)) == ["n1"]
    rosters.reset((20, roster("n3")))
    assert rosters.current == roster("n3")
    rosters.append(20, roster("n1"))
    assert rosters.current == roster("n3")


# -- whole members -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_one_grows_to_three_and_shrinks_again(seed: int) -> None:
    """A lone member takes in two more under load, which become voters, and may then leave."""
    world = World(seed, ("n1",))
    client = working(world)
    for name in ("n2", "n3"):
        client.want(300)
        world.join(name)
        assert world.run(30, lambda name=name: world.leader() and name in world.members()[0])
    assert world.members() == (("n1", "n2", "n3"), ())
    client.want(300)
    assert world.run(60, lambda: client.done)
    assert world.wish("remove", "n1")[0] == "done"  # the leader itself
    assert world.run(30, lambda: world.nodes["n1"].is_out)
    assert world.run(30, lambda: world.leader() is not None)
    client.want(300)
    assert world.run(60, lambda: client.done)
    other = "n2" if world.leader() == "n3" else "n3"
    assert world.wish("remove", other)[0] == "done"
    assert world.members() == ((world.leader(),), ())
    client.want(100)
    world.nodes[other].is_out = True  # nobody tells it: it learns it from refusals
    world.nodes[other].applier = None
    world.crash(other)
    judge(world, client)


def test_a_restart_and_a_snapshot_remember_the_members() -> None:
    """Members restart with what their logs and snapshots say; a newcomer gets a snapshot."""
    world = World(7, ("n1",), snapshot_bytes=20_000, segment_bytes=16 << 10)
    client = working(world)
    client.want(2000)
    assert world.run(60, lambda: client.done)
    world.join("n2")
    world.join("n3")
    assert world.run(30, lambda: world.leader() and world.members()[0] == ("n1", "n2", "n3"))
    client.want(2000)
    assert world.run(60, lambda: client.done)
    for name in ("n1", "n2", "n3"):
        world.crash(name)
    for name in ("n1", "n2", "n3"):
        world.start(name)
    assert world.run(30, lambda: world.leader() is not None)
    assert world.members() == (("n1", "n2", "n3"), ())
    member = world.nodes["n1"].member
    assert member is not None and member.status()["first_index"] > 1
    client.want(300)
    judge(world, client)


def test_what_would_be_unsafe_is_refused() -> None:
    """The last voter stays, strangers cannot be promoted, a live name is not taken over."""
    world = World(8, ("n1", "n2", "n3"))
    client = working(world)
    assert world.wish("promote", "n9")[0] == "refused"
    assert world.wish("demote", "n9")[0] == "refused"
    reply = world.wish("join", "n2", "n2:7400", b"2" * 16)
    assert reply[0] == "refused" and "alive" in reply[1]
    reply = world.wish("add", "n9", "n2:7400")
    assert reply[0] == "refused" and "n2 listens" in reply[1]
    world.crash("n2")
    world.run(3.0)
    survivor = next(name for name in ("n1", "n3") if name != world.leader())
    reply = world.wish("remove", survivor)
    assert reply[0] == "refused" and "majority" in reply[1]
    world.start("n2")
    judge(world, client)
    lone = World(9, ("n1",))
    working(lone)
    reply = lone.wish("remove", "n1")
    assert reply[0] == "refused" and "at least one voter" in reply[1]


def test_a_voter_is_demoted_and_promoted() -> None:
    """A demoted member follows on; promoted, it votes again."""
    world = World(10, ("n1", "n2", "n3"))
    client = working(world)
    name = next(each for each in world.nodes if each != world.leader())
    assert world.wish("demote", name)[0] == "done"
    assert world.members()[1] == (name,)
    client.want(100)
    assert world.wish("promote", name)[0] == "done"
    assert sorted(world.members()[0]) == ["n1", "n2", "n3"]
    judge(world, client)


def test_a_wiped_member_comes_back_as_another_incarnation() -> None:
    """Its place is taken away and given anew; it is a learner until it has caught up."""
    world = World(11, ("n1", "n2", "n3"))
    client = working(world)
    name = next(each for each in world.nodes if each != world.leader())
    world.crash(name)
    world.run(1.0)
    client.want(100)
    uuid = b"another one".ljust(16)
    reply = world.wish("join", name, f"{name}:7400", uuid)
    assert reply[0] == "done"
    told = Roster.decode(reply[2][1])
    assert told.seats[name].uuid == uuid and name in told.membership.joining
    world.join_as(name, (reply[2][0], told), uuid)
    assert world.run(30, lambda: world.leader() and name in world.members()[0])
    judge(world, client)


@pytest.mark.parametrize("seed", range(6))
def test_changes_survive_crashes(seed: int) -> None:
    """Members come and go while members crash: every change ends, and nothing is lost."""
    world = World(100 + seed, ("n1",), snapshot_bytes=30_000, segment_bytes=16 << 10)
    client = working(world)
    chance = random.Random(seed)
    for name in ("n2", "n3"):
        world.join(name)
    assert world.run(30, lambda: world.leader() and len(world.members()[0]) == 3)
    for round_ in range(4):
        client.want(200)
        name = f"m{round_}"

        def restart(victim: str) -> None:
            if not world.nodes[victim].is_out:
                world.start(victim)

        def crash_one() -> None:
            victim = chance.choice([n.name for n in world.nodes.values() if n.member is not None])
            world.crash(victim)
            world.at(chance.uniform(0.1, 3.0), lambda: restart(victim))

        world.at(chance.uniform(0.0, 0.1), crash_one)
        world.join(name)
        assert world.run(60, lambda name=name: world.leader() and name in world.members()[0])
        leaver = chance.choice(world.members()[0])
        assert world.wish("remove", leaver, seconds=60)[0] == "done"
        node = world.nodes[leaver]
        if not node.is_out:
            world.crash(leaver)
        node.is_out, node.applier = True, None
        world.run(1.0)
    judge(world, client)
    assert len(world.members()[0]) == 3


def test_who_was_away_finds_a_cluster_of_strangers() -> None:
    """All the members that it knew were replaced meanwhile: the leader makes itself known."""
    world = World(12, ("n1", "n2", "n3"))
    client = working(world)
    away = next(each for each in world.nodes if each != world.leader())
    world.crash(away)
    for name in ("m1", "m2"):
        world.join(name)
        assert world.run(30, lambda name=name: world.leader() and name in world.members()[0])
    for name in ("n1", "n2", "n3"):
        if name != away:
            assert world.wish("remove", name)[0] == "done"
            world.nodes[name].is_out, world.nodes[name].applier = True, None
            if world.nodes[name].member is not None:
                world.crash(name)
    client.want(200)
    world.start(away)
    assert world.run(30, lambda: client.done)
    judge(world, client)
    assert sorted(world.members()[0]) == sorted(["m1", "m2", away])


def test_another_incarnation_gets_answers_only() -> None:
    """What our configuration says about a name is not asked of whoever has that name now; nor is
    what was held for it. As soon as our log knows that one as well, it is a peer like any other."""
    world = World(13, ("n1", "n2", "n3"))
    working(world)
    assert world.run(10, world.settled)
    member = world.nodes["n1"].member
    assert member is not None
    index, encoded = member._administration.committed
    other = {name: Seat(*seat_of(name)) for name in ("n1", "n2", "n3")}
    other["n2"] = Seat(other["n2"].address, b"another one".ljust(16))
    shown = Roster(Roster.decode(encoded).membership, other)
    now = world.now + 60.0  # so it asks for votes
    effects = member.turn(now, [RosterHeard(index + 1000, shown)])
    assert effects.seats is not None and effects.seats["n2"].uuid == other["n2"].uuid
    sent: list[tuple[str, bytes]] = []  # (what the first turn sent left before, on the old link)
    for second in range(1, 9):
        sent += member.turn(now + second, []).peer_frames
    assert {to for to, _ in sent} == {"n3"}
    request = VoteRequest(9, "n1", "n2", 1, 1, True)
    answer = VoteResponse(9, "n1", "n2", True, True)
    held = [("n2", encode_message(request)), ("n2", encode_message(answer))]
    still_meant = member._administration.still_meant
    assert still_meant(held) == held[1:]
    member.send(answer)
    assert member._effects.peer_frames[-1] == held[1]
    member._administration.appended(index + 1000, shown)
    member.turn(now + 20, [])
    assert still_meant(held) == held


def test_who_is_shown_a_configuration_without_it_is_out() -> None:
    """A newer committed configuration proves the removal; one as old as its own proves nothing."""
    world = World(14, ("n1", "n2", "n3"))
    working(world)
    name = next(each for each in world.nodes if each != world.leader())
    member = world.nodes[name].member
    assert member is not None
    index, _ = member._administration.committed
    without = roster(*[other for other in world.nodes if other != name])
    assert member.turn(world.now, [RosterHeard(index, without)]).fatal is None
    fatal = member.turn(world.now, [RosterHeard(index + 1, without)]).fatal
    assert isinstance(fatal, MembershipError)


def test_who_hears_that_it_is_out_takes_part_in_no_election() -> None:
    """Not even in the turn in which it hears that, long after its patience has ended; found by the
    simulated life 200106."""
    for is_out in (False, True):
        world = World(14, ("n1", "n2", "n3"))
        working(world)
        name = next(each for each in world.nodes if each != world.leader())
        member = world.nodes[name].member
        assert member is not None
        index, _ = member._administration.committed
        without = roster(*[other for other in world.nodes if other != name])
        heard = [RosterHeard(index + 1, without)] if is_out else []
        due = member.turn(world.now + 100, []).wake_at + 0.001
        assert bool(member.turn(due, heard).peer_frames) is not is_out


def test_who_has_its_removal_in_its_log_learns_that_it_is_committed() -> None:
    """A member that never heard of the commitment, and whom nobody speaks with any more, is told
    by the refusal alone; found by the simulated life 30847."""
    world = World(15, ("n1", "n2", "n3"))
    working(world)
    name = next(each for each in world.nodes if each != world.leader())
    member = world.nodes[name].member
    assert member is not None
    index, _ = member._administration.committed
    without = roster(*[other for other in world.nodes if other != name])
    member._administration.appended(index + 1000, without)
    assert member.turn(world.now, []).fatal is None
    fatal = member.turn(world.now, [RosterHeard(index + 1000, without)]).fatal
    assert isinstance(fatal, MembershipError)


def test_a_refusal_shows_the_committed_configuration() -> None:
    """It survives the frame, and one without it is as short as ever."""
    for refusal in (Refusal("CC-X", "why", (7, roster("n1").encode())), Refusal("CC-X", "why")):
        assert Refusal.parse(refusal.frame()[HEADER_SIZE:]) == refusal
    for wrong in (["x"], ["x", "y", [1]], ["x", "y", [-1, b""]], ["x", "y", [1, b""], 2]):
        with pytest.raises(FormatError):
            Refusal.parse(pack_msgpack(wrong))
