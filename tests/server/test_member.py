"""Whole members on virtual time: what was acknowledged stays, and is applied exactly once."""

from __future__ import annotations

import pytest

from .world import Client, World


def test_a_cluster_elects_and_answers() -> None:
    """Three fresh members elect a leader and answer commands in order."""
    world = World(1)
    assert world.run(5, lambda: world.leader() is not None)
    client = Client(world)
    client.want(500)
    assert world.run(10, lambda: client.done)
    assert client.values == list(range(1, 501))
    assert world.run(5, world.settled)
    assert len(world.states()) == 1


def test_a_single_member_serves_alone() -> None:
    """One member is its own majority and survives a power failure."""
    world = World(2, ("n1",))
    client = Client(world)
    client.want(100)
    assert world.run(10, lambda: client.done)
    world.crash("n1")
    world.start("n1")
    client.want(100)
    assert world.run(10, lambda: client.done)
    assert client.values == list(range(1, 201))


def test_failover_is_fast_when_the_leader_is_refused() -> None:
    """A killed leader is replaced well before an election timeout passes."""
    world = World(3)
    assert world.run(5, lambda: world.leader() is not None)
    leader = world.leader()
    assert leader is not None
    killed_at = world.now
    world.crash(leader)
    assert world.run(5, lambda: world.leader() is not None)
    assert world.now - killed_at < 0.2


def test_no_majority_means_no_answers() -> None:
    """A leader cut off from both followers acknowledges nothing and steps down."""
    world = World(4)
    client = Client(world)
    client.want(10)
    assert world.run(10, lambda: client.done)
    leader = world.leader()
    assert leader is not None
    others = [name for name in world.nodes if name != leader]
    world.cut = {(leader, o) for o in others} | {(o, leader) for o in others}
    client.member = leader
    client.want(10)
    world.run(3)
    assert world.nodes[leader].member is not None
    assert not world.nodes[leader].member.leading
    world.cut = set()
    assert world.run(10, lambda: client.done)
    assert client.values == list(range(1, 21))


def test_a_member_that_was_away_is_brought_up_by_a_snapshot() -> None:
    """When the log has been cut below what a member needs, it gets the state instead."""
    world = World(5, snapshot_bytes=20_000, segment_bytes=8192)
    client = Client(world)
    client.want(50)
    assert world.run(10, lambda: client.done)
    leader = world.leader()
    away = next(name for name in world.nodes if name != leader)
    world.crash(away)
    client.want(3000)
    assert world.run(60, lambda: client.done)
    others = [n.member.status() for n in world.nodes.values() if n.member is not None]
    assert all(status["first_index"] > 60 for status in others)
    world.start(away)
    assert world.run(20, world.settled)
    assert len(world.states()) == 1
    member = world.nodes[away].member
    assert member is not None and member.status()["snapshot_index"] > 60
    world.crash(away)
    world.start(away)
    assert world.run(20, world.settled)


@pytest.mark.parametrize("seed", range(60))
def test_hostile_lives(seed: int) -> None:
    """Crashes with torn writes, lost messages, cuts and restarts: every increment that was
    acknowledged counts once, none counts twice, and the members end identical."""
    world = World(
        seed, snapshot_bytes=4000 if seed % 2 else 1 << 20, segment_bytes=8192,
        loss=0.02 if seed % 3 == 0 else 0.0,
    )  # fmt: skip
    chance = world.chance
    clients = [Client(world) for _ in range(3)]
    for _ in range(12):
        for client in clients:
            client.want(chance.randint(0, 60))
        world.run(chance.uniform(0.05, 2.0))
        action = chance.random()
        alive = [name for name, node in world.nodes.items() if node.member is not None]
        dead = [name for name, node in world.nodes.items() if node.member is None]
        if dead and action < 0.4:
            world.start(chance.choice(dead))
        elif action < 0.7 and len(alive) > 1:
            leader = world.leader() if action < 0.55 else None
            world.crash(leader or chance.choice(alive))
        elif action < 0.8:
            one = chance.choice(sorted(world.nodes))
            world.cut = {(one, other) for other in world.nodes if chance.random() < 0.7}
        elif action < 0.85:
            for name in alive:
                world.crash(name)
        else:
            world.cut = set()
    world.cut, world.loss = set(), 0.0
    for name, node in world.nodes.items():
        if node.member is None:
            world.start(name)
    assert world.run(60, lambda: all(client.done or client.ended for client in clients))
    assert world.run(20, world.settled)
    assert len(world.states()) == 1
    applier = world.nodes["n1"].applier
    assert applier is not None
    acknowledged = sorted(value for client in clients for value in client.values)
    assert len(acknowledged) == len(set(acknowledged)), "an increment was answered twice"
    sent = sum(max(0, client.sequence - 1) for client in clients)
    resource = next((client.resource for client in clients if client.opened), 0)
    if resource:
        instance = applier.executor.instance(resource)
        assert instance is not None
        total = instance.machine.value  # type: ignore[attr-defined]
        assert len(acknowledged) <= total <= sent
        if not any(client.ended for client in clients):
            assert acknowledged == list(range(1, total + 1))
            assert total == sum(client.wanted for client in clients)


def test_followers_apply_together_what_nobody_waits_for() -> None:
    """A follower applies a stream of batches in fewer and larger steps, and not late by much."""
    world = World(6)
    client = Client(world)
    client.want(1)
    assert world.run(10, lambda: client.done)
    leader = world.leader()
    applied: dict[str, set[int]] = {name: set() for name in world.nodes}
    for _ in range(100):
        client.want(1)
        assert world.run(10, lambda: client.done)
        for node in world.nodes.values():
            assert node.applier is not None
            applied[node.name].add(node.applier.index)
    for name, indexes in applied.items():
        if name == leader:
            assert len(indexes) == 100
        else:
            assert len(indexes) < 60
    assert world.run(1, world.settled)
