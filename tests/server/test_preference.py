"""Of several members that could lead, the one of the highest priority comes to lead, and stays."""

from __future__ import annotations

import pytest

from copycat.server.preference import REST_TIMEOUTS_MAX, RETURN_TIMEOUTS, Preference

from .world import Client, World

NAMES = ("n1", "n2", "n3", "n4", "n5")


@pytest.mark.parametrize("seed", range(6))
def test_the_preferred_member_comes_to_lead_whenever_it_can(seed: int) -> None:
    """It leads soon after the start and each return, others lead meanwhile, nothing is lost."""
    world = World(seed, priorities={"n2": 5, "n3": 9})
    client = Client(world)
    client.want(50)
    assert world.run(30, lambda: client.done and world.leader() == "n3")
    client.want(200)
    world.run(0.02)
    world.crash("n3")
    assert world.run(30, lambda: client.done and world.leader() == "n2")
    world.start("n3")
    client.want(500)
    assert world.run(200, lambda: client.done and world.leader() == "n3")
    term = world.nodes["n3"].member.term  # type: ignore[union-attr]
    world.run(30)
    assert (world.leader(), world.nodes["n3"].member.term) == ("n3", term)  # type: ignore[union-attr]
    assert client.values == list(range(1, client.wanted + 1))


@pytest.mark.parametrize("seed", range(4))
def test_equal_priorities_move_nothing(seed: int) -> None:
    """Whoever was elected stays: a term of its own is not given up without a reason."""
    world = World(seed, NAMES, priorities=dict.fromkeys(NAMES, 7))
    assert world.run(10, lambda: world.leader() is not None)
    leader = world.leader()
    world.run(60)
    assert world.leader() == leader
    assert {n.member.term for n in world.nodes.values() if n.member} == {1}


@pytest.mark.parametrize("seed", range(3))
def test_nobody_waits_for_a_preferred_member_that_lags(seed: int) -> None:
    """A member that is cut off, or has not caught up, is not handed anything."""
    world = World(seed, priorities={"n3": 9})
    assert world.run(20, lambda: world.leader() == "n3")
    for other in ("n1", "n2"):
        world.cut |= {("n3", other), (other, "n3")}
    client = Client(world)
    client.want(300)
    assert world.run(60, lambda: client.done and world.leader() in ("n1", "n2"))
    world.run(20)
    assert world.leader() in ("n1", "n2")
    world.cut.clear()
    assert world.run(60, lambda: world.leader() == "n3")


class Leadership:
    """As much of a `Raft` as the preference looks at."""

    def __init__(self) -> None:
        self.ready_to_serve = True
        self.handing_over = False
        self.commit_index = 10
        self.membership = self
        self.voters = ("n1", "n2", "n3")
        self.match = {"n2": 10, "n3": 10}

    def progress_of(self) -> list[Leadership]:
        return [Peer(name, index) for name, index in self.match.items()]  # type: ignore[misc]


class Peer:
    def __init__(self, name: str, match_index: int) -> None:
        self.name, self.match_index = name, match_index


def attempts(preference: Preference, raft: Leadership, begin: float, seconds: float) -> list[float]:
    """When within the given time (s) it hands over."""
    up = {"n2", "n3"}
    moments = [begin + step / 10 for step in range(int(seconds * 10))]
    return [at for at in moments if preference.heir(raft, up, at)]  # type: ignore[arg-type]


def test_the_highest_that_is_level_and_connected_is_chosen() -> None:
    """Priority first; who lags, is away, or has no vote is passed over."""
    preference, raft = Preference(1, 1.0), Leadership()
    assert attempts(preference, raft, 0.0, 5.0) == []
    preference.heard("n2", 5)
    preference.heard("n3", 9)
    preference.heard("n4", 99)  # no voter
    up = {"n2", "n3", "n4"}
    assert preference.heir(raft, up, 10.0) is None  # type: ignore[arg-type]
    assert preference.heir(raft, up, 13.0) == "n3"  # type: ignore[arg-type]
    raft.match["n3"] = 9
    assert preference.heir(raft, up, 16.0) == "n2"  # type: ignore[arg-type]
    assert preference.heir(raft, {"n3"}, 19.0) is None  # type: ignore[arg-type]
    preference.heard("n2", 1)
    preference.heard("n3", 0)
    assert attempts(preference, raft, 20.0, 100.0) == []


def test_leadership_that_keeps_coming_back_is_handed_over_ever_more_rarely() -> None:
    """Each return doubles the rest, up to a bound; a long calm forgets it."""
    preference, raft = Preference(1, 1.0), Leadership()
    preference.heard("n2", 5)
    now, rests = 0.0, []
    for _ in range(12):
        begin = now
        while preference.heir(raft, {"n2"}, now) is None:  # type: ignore[arg-type]
            now += 0.5
        rests.append(now - begin)
        raft.ready_to_serve = False
        assert preference.heir(raft, {"n2"}, now) is None  # type: ignore[arg-type]
        raft.ready_to_serve = True
        now += 1.0
    assert rests[:4] == [2.0, 4.0, 8.0, 16.0]
    assert max(rests) == rests[-1] == REST_TIMEOUTS_MAX
    raft.ready_to_serve = False
    preference.heir(raft, {"n2"}, now)  # type: ignore[arg-type]
    raft.ready_to_serve = True
    now += 2 * REST_TIMEOUTS_MAX + RETURN_TIMEOUTS
    assert attempts(preference, raft, now, 3.0)[0] - now == pytest.approx(2.0)
