"""Regressions of a hostile review: what a killed process left unsynced, and what a client can send.

A process that is killed leaves its writes in the page cache. Whoever starts after it reads them,
and must not promise anything that rests on them before they are durable.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from copycat._core.codec import Frame
from copycat._core.kernel import encode_run
from copycat._core.layout import RUN_HEADER_SIZE, Kind, Status
from copycat.errors import StorageError
from copycat.machine import StateMachine, command
from copycat.raft.ready import HardState
from copycat.resources import MapMachine
from copycat.serializer import Serializer
from copycat.server.applier import Applier
from copycat.server.hardstate import SLOT_OFFSETS, HardStateFile, _encode
from copycat.server.snapshots import Snapshots
from copycat.system import SystemOperation
from copycat.testing.disk import SimulatedDisk

from ..core.test_log import World as LogWorld
from .images import LogWriter, commands, initialize, open_call, pack, register, results_of, unpack
from .test_desk import World as DeskWorld
from .world import Client, World


def everything_unsynced_is_lost(disk: SimulatedDisk) -> None:
    """A power cut that keeps nothing that was not synced."""

    class Unlucky(random.Random):
        def randint(self, a: int, b: int) -> int:
            return a

        def choice(self, seq):  # type: ignore[no-untyped-def]
            return seq[0]

    disk.crash(Unlucky())


def test_a_vote_read_back_after_a_kill_survives_a_power_cut() -> None:
    """The vote a restarted member finds is durable before it answers anybody (H1)."""
    disk = SimulatedDisk()
    HardStateFile.found(disk).save(HardState(1, "a"))
    for offset in SLOT_OFFSETS[:1]:  # killed between the write of the first slot and its sync
        disk.open("hardstate").pwrite(_encode(9, HardState(2, "b")), offset)
    assert HardStateFile(disk).state == HardState(2, "b")
    everything_unsynced_is_lost(disk)
    assert HardStateFile(disk).state == HardState(2, "b")


def test_a_snapshot_read_back_after_a_kill_survives_a_power_cut() -> None:
    """The snapshot a restarted member stands on has a durable name before the log is dropped."""
    disk = SimulatedDisk()
    snapshots = Snapshots(disk, b"c" * 16)
    snapshots.save(10, 1, b"old")
    disk.fail = lambda operation, path: OSError() if operation == "sync_directory" else None
    with pytest.raises(StorageError):
        snapshots.save(20, 1, b"new")
    disk.fail = lambda operation, path: None
    again = Snapshots(disk, b"c" * 16)
    found = again.newest()
    assert found is not None and b"".join(again.state(found)) == b"new"
    everything_unsynced_is_lost(disk)
    again = Snapshots(disk, b"c" * 16)
    assert again.newest() == found and b"".join(again.state(found)) == b"new"



@pytest.mark.parametrize("batches", [1, 3, 40])
def test_entries_read_back_after_a_kill_survive_a_power_cut(batches: int) -> None:
    """Entries that were written and not synced are durable once a restarted member has them."""
    world = LogWorld()
    world.append(2, 1)
    world.flush()
    for _ in range(batches):
        world.append(1, 1, 400)
    world.write(world.log.take_writes(), sync=False)
    again = world.reopened()
    assert again.log.last_index == 2 + batches
    images = again.all_images()
    everything_unsynced_is_lost(world.disk)
    assert again.reopened().all_images() == images


class Tallies(StateMachine):
    """A machine whose state msgpack does not know."""

    def __init__(self) -> None:
        self.tallies: Counter[str] = Counter()


class Brittle(StateMachine):
    """A machine whose exceptions carry more than text."""

    def __init__(self) -> None:
        self.d: dict[int, int] = {}

    @command
    def huge(self) -> int:
        return self.d[10**5000]

    @command
    def unordered(self) -> int:
        raise KeyError(frozenset("abc"))


def opened(
    cls: type[StateMachine], name: str, *operations: str
) -> tuple[Applier, LogWriter, bytes]:
    """An applier with one session that asked to open a machine, and the answer."""
    applier, log = Applier({name: cls}, Serializer()), LogWriter()
    applier.apply(log.batch(initialize(name)))
    applier.apply(log.batch(register(b"a" * 16)))
    applier.apply(log.batch(commands(2, 1, open_call("/x", name, *operations))))
    return applier, log, results_of(applier.take().answers[-1])[0]


def test_a_machine_that_no_snapshot_could_hold_cannot_be_opened() -> None:
    """Its author hears of it at once, and no member stumbles over it later."""
    applier, _, answer = opened(Tallies, "Tallies")
    assert answer[0] == Status.FAILED
    assert unpack(answer[1:])[0] == "SerializationError"
    assert "Counter" in unpack(answer[1:])[1]
    assert applier.image()


def test_results_of_exceptions_hold_no_representations() -> None:
    """What is not text could differ between members, or raise when it is made one (H46, H50)."""
    applier, log, answer = opened(Brittle, "Brittle", "huge", "unordered")
    resource, ids = unpack(answer[1:])
    applier.apply(log.batch(commands(2, 2, *((resource, id_, []) for id_ in ids))))
    for result in results_of(applier.take().answers[-1]):
        assert result[0] == Status.FAILED
        assert unpack(result[1:])[:2] == ["KeyError", ""]


def test_values_as_deep_as_allowed_fit_into_a_snapshot() -> None:
    """Whatever a client may put into a map, a snapshot of the map can hold."""
    applier, log, answer = opened(MapMachine, "copycat.map", "put")
    resource, (put,) = unpack(answer[1:])
    value: object = 1
    for _ in range(30):
        value = [value]
    applier.apply(log.batch(commands(2, 2, (resource, put, ["k", value]))))
    assert results_of(applier.take().answers[-1])[0][0] == Status.OK
    again = Applier({"copycat.map": MapMachine}, Serializer())
    again.restore(applier.image())
    assert again.image() == applier.image()


def test_a_nonsense_watch_is_refused_and_harms_nobody() -> None:
    """A watch that could not be matched later is rejected when it is made (H48)."""
    applier, log, answer = opened(MapMachine, "copycat.map", "put", "watch")
    resource, (put, watch) = unpack(answer[1:])
    bad = [(resource, watch, args) for args in ([b"i", 5, None], [b"i", [], 7], [1, [], None])]
    applier.apply(log.batch(commands(2, 2, *bad, (resource, put, ["k", 1]))))
    results = results_of(applier.take().answers[-1])
    assert [result[0] for result in results] == [Status.REJECTED] * 3 + [Status.OK]


def test_a_set_of_arguments_is_refused() -> None:
    """Members iterate over it in different orders: as arguments, or as names of operations."""
    applier, log, answer = opened(MapMachine, "copycat.map", "put", "get")
    resource, (put, get) = unpack(answer[1:])
    arguments: list[Any] = [{"key", "value"}, frozenset(("key", "value"))]
    bad = [(resource, put, each) for each in arguments] + [(0, SystemOperation.CREATE, {"/x"})]
    bad.append((0, SystemOperation.OPEN, ["/y", "copycat.map", 1, {"a", "b"}]))
    applier.apply(log.batch(commands(2, 2, *bad)))
    results = results_of(applier.take().answers[-1])
    assert [result[0] for result in results] == [Status.REJECTED] * 3 + [Status.FAILED]
    for each in arguments:
        asked = encode_run(Kind.COMMAND, 0, 0, 0, [(resource, get, pack(each))])
        (found,) = applier.query(asked, RUN_HEADER_SIZE, 1)
        assert found[0] == Status.REJECTED
    assert applier.executor.instance(resource).machine.table.serials == {}


def test_malformed_frames_that_were_held_close_their_connection() -> None:
    """A frame held before anybody looked at it cannot stop the member when it steps down (H79)."""
    world = DeskWorld()
    world.host.serving = False
    world.desk.frame(7, Frame.RUN, b"rubbish")
    world.host.leading = False
    world.desk.deposed()
    world.frames()
    assert world.closed == [7]


def test_what_is_gathered_counts_as_backlog() -> None:
    """While nothing commits, a leader refuses more than it may hold (H76, H101)."""
    world = World(1)
    client = Client(world)
    client.want(10)
    assert world.run(10, lambda: client.done)
    leader = world.nodes[str(world.leader())].member
    assert leader is not None and not leader.overloaded()
    world.run(1)
    assert leader._leading._backlog_bytes == 0
    leader._desk._admit(bytes(leader._options.backlog_bytes + 1))
    assert leader.overloaded()
