"""A snapshot is there whole or not at all, and a damaged one is never used."""

from __future__ import annotations

import random

import pytest

from copycat.errors import CorruptLogError, WrongClusterError
from copycat.server import snapshot_file
from copycat.server.snapshots import SnapshotInfo, Snapshots
from copycat.testing.disk import SimulatedDisk

CLUSTER = b"c" * 16


def newest(disk: SimulatedDisk, cluster: bytes = CLUSTER) -> tuple[SnapshotInfo, bytes] | None:
    """The newest snapshot and its whole state."""
    snapshots = Snapshots(disk, cluster)
    found = snapshots.newest()
    return None if found is None else (found, b"".join(snapshots.state(found)))


def test_the_newest_is_found_and_older_ones_go() -> None:
    """Only the newest snapshot stays on disk, with its index, term and body."""
    disk = SimulatedDisk()
    snapshots = Snapshots(disk, CLUSTER)
    assert snapshots.newest() is None
    snapshots.save(10, 1, b"ten")
    info = snapshots.save(20, 2, b"twenty")
    assert newest(disk) == (info, b"twenty")
    assert len(disk.listdir("snapshots")) == 1


@pytest.mark.parametrize("seed", range(100))
def test_a_crash_while_saving_leaves_a_whole_snapshot(seed: int) -> None:
    """At whatever step the power fails, the old or the new snapshot is found whole (H65)."""
    chance = random.Random(seed)
    disk = SimulatedDisk()
    snapshots = Snapshots(disk, CLUSTER)
    old = snapshots.save(10, 1, bytes(chance.randbytes(3000)))
    steps = chance.randrange(8)

    def fail(operation: str, path: str) -> OSError | None:
        nonlocal steps
        steps -= 1
        return OSError("power") if steps < 0 else None

    disk.fail = fail
    try:
        snapshots.save(20, 1, b"new" * 1000)
        finished = True
    except OSError:
        finished = False
    disk.fail = lambda operation, path: None
    disk.crash(chance)
    found = newest(disk)
    assert found is not None
    assert found[0].index == 20 if finished else found[0].index in (10, 20)
    assert found[0] == old or found[1] == b"new" * 1000
    assert not [name for name in disk.listdir("snapshots") if name.endswith(".tmp")]


def test_damage_and_foreign_files_are_refused() -> None:
    """A flipped bit anywhere, or another cluster's file, is an error that names the file."""
    disk = SimulatedDisk()
    info = Snapshots(disk, CLUSTER).save(10, 1, b"body" * 10)
    with pytest.raises(WrongClusterError):
        newest(disk, b"d" * 16)
    for at in range(info.size):
        file = disk.open(info.name)
        byte = file.pread(1, at)
        file.pwrite(bytes([byte[0] ^ 4]), at)
        with pytest.raises(CorruptLogError, match=r"0010.*snap"):
            newest(disk)
        file.pwrite(byte, at)
    assert newest(disk) is not None


def test_pieces_received_in_order_become_the_same_snapshot() -> None:
    """What a leader sends in pieces is verified and kept byte for byte (H71)."""
    ours, theirs = SimulatedDisk(), SimulatedDisk()
    source = Snapshots(ours, CLUSTER)
    info = source.save(10, 3, bytes(range(256)) * 20)
    target = Snapshots(theirs, CLUSTER)
    target.receive(0, b"an earlier attempt that was longer" * 500, 20_000)
    for offset in range(0, info.size, 1000):
        target.receive(offset, source.read(info, offset, 1000) or b"", info.size)
    accepted, state = target.accept()
    assert accepted == info and b"".join(state) == bytes(range(256)) * 20
    target.receive(0, b"rubbish", 7)
    with pytest.raises(CorruptLogError):
        target.accept()
    assert newest(theirs) == (info, bytes(range(256)) * 20)


@pytest.mark.parametrize("version", [b"02", b"06"])
def test_another_format_is_refused_by_its_name(
    version: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that an older or newer Copycat wrote is no damage, and the error says so."""
    disk = SimulatedDisk()
    with monkeypatch.context() as another:
        another.setattr(snapshot_file, "_MAGIC", b"CCSNAP" + version)
        Snapshots(disk, CLUSTER).save(10, 1, b"body")
    with pytest.raises(CorruptLogError, match=f"format {version.decode()}.* reads only 05"):
        newest(disk)


@pytest.mark.parametrize("seed", range(40))
def test_an_accepted_snapshot_survives_a_power_cut(seed: int) -> None:
    """Once it counts as received it is durable, name and bytes, since the log goes after it."""
    chance = random.Random(seed)
    source, disk = Snapshots(SimulatedDisk(), CLUSTER), SimulatedDisk()
    info = source.save(10, 3, chance.randbytes(5000))
    target = Snapshots(disk, CLUSTER)
    for offset in range(0, info.size, 1000):
        target.receive(offset, source.read(info, offset, 1000) or b"", info.size)
    accepted, state = target.accept()
    disk.crash(chance)
    assert newest(disk) == (accepted, b"".join(state))


def test_a_snapshot_carries_its_configuration() -> None:
    """The configuration in force is read back, after a restart and on the receiving side."""
    disk, other = SimulatedDisk(), SimulatedDisk()
    roster = b"who takes part"
    info = Snapshots(disk, CLUSTER).save(10, 3, b"body", (7, roster))
    assert info.configuration == (7, roster)
    assert newest(disk) == (info, b"body")
    target = Snapshots(other, CLUSTER)
    data = Snapshots(disk, CLUSTER).read(info, 0, info.size)
    assert data is not None
    target.receive(0, data, len(data))
    assert target.accept() == (info, [b"body"])


def test_one_that_is_damaged_is_passed_over_for_who_can_do_without() -> None:
    """Its name is told, nothing is removed, and an older one that is still there is taken."""
    disk = SimulatedDisk()
    snapshots = Snapshots(disk, CLUSTER)
    old = snapshots.save(10, 1, b"old")
    snapshots.keep([old.name])
    new = snapshots.save(20, 1, b"new")
    disk.open(new.name).pwrite(b"?", new.size - 1)
    damaged: list[str] = []
    assert Snapshots(disk, CLUSTER).newest(damaged) == old and damaged == [new.name]
    assert disk.exists(new.name)
    with pytest.raises(CorruptLogError):
        Snapshots(disk, CLUSTER).newest()
