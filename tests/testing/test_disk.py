"""The simulated disk loses what a real one may lose, nothing else, and repeatably."""

from __future__ import annotations

import random

import pytest

from copycat.errors import DataDirectoryInUse, DiskFullError, StorageError
from copycat.testing.disk import SECTOR_BYTES, Crashed, Mount, SimulatedDisk

KB = 1024


def written(disk: Mount, name: str, data: bytes, *, sync: bool = True) -> None:
    """A file with that content, durable with its name if asked for."""
    file = disk.open(name, create=True)
    file.pwrite(data, 0)
    if sync:
        file.sync()
        disk.sync_directory(name.rpartition("/")[0])
    file.close()


def content(disk: Mount, name: str) -> bytes:
    """All of a file."""
    file = disk.open(name)
    try:
        return file.pread(file.size(), 0)
    finally:
        file.close()


def everything(disk: Mount) -> dict[str, bytes]:
    """All that readers see."""
    names = [*disk.listdir(""), *(f"d/{name}" for name in disk.listdir("d"))]
    return {name: content(disk, name) for name in names}


# -- deaths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100))
def test_a_power_cut_takes_whole_sectors_and_only_unsynced_ones(seed: int) -> None:
    """After a power cut each sector holds its synced content or a later one, and nothing else."""
    chance = random.Random(seed)
    disk = SimulatedDisk(random=chance)
    sectors = 12
    written(disk, "d/f", bytes(sectors * SECTOR_BYTES))
    for _ in range(6):
        possible = [{content(disk, "d/f")[i * 512 : i * 512 + 512]} for i in range(sectors)]
        file = disk.open("d/f")
        for _ in range(chance.randrange(8)):
            start = chance.randrange(sectors * 512 - 1)
            size = chance.randint(1, sectors * 512 - start)
            file.pwrite(bytes([chance.randrange(256)]) * size, start)
            if chance.random() < 0.2:
                file.sync()
                possible = [set() for _ in range(sectors)]
            now = file.pread(1 << 20, 0)
            for i in range(sectors):
                possible[i].add(now[i * 512 : i * 512 + 512])
        disk.power_cut(chance)
        now = content(disk, "d/f")
        assert len(now) == sectors * 512
        assert all(now[i * 512 : i * 512 + 512] in possible[i] for i in range(sectors))


def test_anything_between_nothing_and_all_of_a_write_may_survive() -> None:
    """Over many power cuts an unsynced write is lost, kept, torn, and survives out of order."""
    kinds = set()
    for seed in range(150):
        chance = random.Random(seed)
        disk = SimulatedDisk(random=chance)
        written(disk, "f", b"o" * 4 * KB)
        disk.open("f").pwrite(b"n" * 4 * KB, 0)
        disk.power_cut(chance)
        now = content(disk, "f")[::512].decode()
        kinds.add("none" if "n" not in now else "all" if "o" not in now else "torn")
        kinds.add("reordered" if "on" in now else "in order")
    assert kinds == {"none", "all", "torn", "reordered", "in order"}


def test_what_grew_unsynced_may_be_shorter_or_have_holes() -> None:
    """A file that grew without a sync survives at any length up to its own, with zeros in it."""
    lengths, holes = set(), 0
    for seed in range(200):
        chance = random.Random(seed)
        disk = SimulatedDisk(random=chance)
        written(disk, "f", b"o" * 700)
        disk.open("f").pwrite(b"n" * 3300, 700)
        disk.power_cut(chance)
        now = content(disk, "f")
        assert now[:512] == b"o" * 512 and now[512:700] == b"o" * 188
        assert set(now[700:]) <= set(b"n\0") and 700 <= len(now) <= 4000
        lengths.add(len(now))
        holes += b"\0n" in now
    assert {700, 4000} < lengths and holes > 10


@pytest.mark.parametrize("seed", range(50))
def test_a_kill_loses_nothing_but_makes_nothing_durable(seed: int) -> None:
    """What a killed process wrote is all seen, and a power cut may still take it."""
    chance = random.Random(seed)
    disk = SimulatedDisk(random=chance)
    written(disk, "d/a", b"1" * 5000)
    written(disk, "d/b", chance.randbytes(5000), sync=False)
    disk.open("d/a").pwrite(chance.randbytes(3000), 100)
    disk.rename("d/b", "d/c")
    before = everything(disk)
    disk.kill()
    assert everything(disk) == before
    disk.power_cut(chance)
    after = everything(disk)
    assert set(after) <= {"d/a", "d/b", "d/c"} and len(after["d/a"]) == 5000
    disk.power_cut(chance)
    assert everything(disk) == after


def test_a_kill_is_not_a_sync() -> None:
    """Some power cut after a kill does lose what was not synced."""
    lost = 0
    for seed in range(50):
        disk = SimulatedDisk(random=random.Random(seed))
        written(disk, "f", b"x" * KB, sync=False)
        disk.kill()
        disk.power_cut()
        lost += not disk.exists("f") or content(disk, "f") != b"x" * KB
    assert 10 < lost < 50


@pytest.mark.parametrize("seed", range(60))
def test_names_change_in_order_and_renames_in_one_step(seed: int) -> None:
    """After a power cut a directory is as it was after some of its changes, all of those synced."""
    chance = random.Random(seed)
    disk = SimulatedDisk(random=chance)
    states = [{"d": [], "e": []}]  # type: ignore[var-annotated]
    synced = {"d": 0, "e": 0}
    for step in range(30):
        folder = chance.choice("de")
        names = disk.listdir(folder)
        action = chance.random()
        if action < 0.4 or not names:
            disk.open(f"{folder}/{step}", create=True).close()
        elif action < 0.7:
            disk.rename(f"{folder}/{chance.choice(names)}", f"{folder}/r{step % 3}")
        elif action < 0.9:
            disk.unlink(f"{folder}/{chance.choice(names)}")
        else:
            disk.sync_directory(folder)
            synced[folder] = len(states) - 1
        states.append({each: disk.listdir(each) for each in "de"})
    disk.power_cut(chance)
    for folder in "de":
        assert disk.listdir(folder) in [state[folder] for state in states[synced[folder] :]]


def test_a_rename_over_a_file_leaves_the_old_or_the_new_one() -> None:
    """Whether the directory's change survives is open, but there is never half of either file."""
    found = set()
    for seed in range(40):
        chance = random.Random(seed)
        disk = SimulatedDisk(random=chance)
        written(disk, "f", b"old" * 1000)
        written(disk, "f.tmp", b"new" * 1000)
        disk.rename("f.tmp", "f")
        if seed % 4 == 0:
            disk.sync_directory("")
        disk.power_cut(chance)
        now = content(disk, "f")
        assert now in (b"old" * 1000, b"new" * 1000)
        assert disk.exists("f.tmp") == (now[:3] == b"old")
        assert seed % 4 or now[:3] == b"new"
        found.add(now)
    assert len(found) == 2


# -- crash points ----------------------------------------------------------------------------------


def publish(disk: Mount) -> None:
    """A job with a clean-up, of nine primitives."""
    file = disk.open("d/new.tmp", create=True)
    try:
        file.allocate(3 * KB)
        file.pwrite(b"n" * 2 * KB, 0)
        file.sync()
        disk.rename("d/new.tmp", "d/f")
        disk.sync_directory("d")
        disk.unlink("d/old")
        disk.sync_directory("d")
    except BaseException:
        file.close()
        disk.unlink("d/f")  # what no dead process can do
        raise


@pytest.mark.parametrize("kill", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_dead_process_has_no_effect_any_more(kill: bool, at_once: bool) -> None:
    """From any crash point on, neither the job nor its clean-up changes the disk, even if the next
    life begins before they end; and every step is such a point."""
    primitives = 0
    while dies_within_publish(primitives, kill, at_once):
        primitives += 1
    assert primitives == 9


def dies_within_publish(step: int, kill: bool, at_once: bool) -> bool:
    """Whether `publish` has that many primitives before one in which to die; then it does."""
    disk = SimulatedDisk(random=random.Random(step))
    written(disk, "d/f", b"o" * 4 * KB)
    written(disk, "d/old", b"")
    seen: list[dict[str, bytes]] = []

    def end() -> None:
        disk.kill() if kill else disk.power_cut()
        seen.append(everything(disk))

    disk.on_crash = end if at_once else None
    disk.crash_after = step
    door = disk.mount()
    file = door.open("d/f")
    try:
        publish(door)
    except Crashed:
        attempts = (file.sync, file.size, file.view, door.lock, lambda: door.exists("d/f"))
    else:
        return False
    for attempt in attempts:
        with pytest.raises(Crashed):
            attempt()
    with pytest.raises(Crashed):
        door.submit("log", lambda: None, lambda result, error: None)
    file.close()
    door.close()
    if not at_once:
        assert disk.dead
        with pytest.raises(Crashed):
            disk.open("d/f")
        end()
    assert everything(disk) == seen[0]
    assert set(seen[0]) - {"d/old", "d/new.tmp"} == {"d/f"}
    new = seen[0]["d/f"]
    assert new in (b"o" * 4 * KB, b"n" * 2 * KB + bytes(KB))
    assert "d/old" in seen[0] or new[:1] == b"n"
    return True


def test_the_write_under_way_is_torn() -> None:
    """A crash within a write leaves any number of its sectors, a first part, to a killed process's
    successor."""
    lengths = set()
    for seed in range(100):
        disk = SimulatedDisk(random=random.Random(seed))
        written(disk, "f", b"o" * 4 * KB)
        disk.crash_after = 0
        with pytest.raises(Crashed):
            disk.open("f").pwrite(b"n" * 2 * KB, 300)
        disk.kill()
        now = content(disk, "f")
        new = now.count(b"n")
        assert now == b"o" * 300 + b"n" * new + b"o" * (4 * KB - 300 - new)
        assert new in (0, 2 * KB) or (300 + new) % 512 == 0
        lengths.add(new)
    assert {0, 2 * KB} < lengths and len(lengths) >= 4


def test_a_crash_within_an_allocation_leaves_a_part_of_it() -> None:
    """The file may be missing, short or whole, and is zero as far as it goes."""
    sizes = set()
    for seed in range(100):
        disk = SimulatedDisk(random=random.Random(seed))
        file = disk.open("d/f", create=True)
        disk.crash_after = seed % 2
        with pytest.raises(Crashed):
            file.allocate(8 * KB)
        disk.power_cut() if seed % 3 else disk.kill()
        if not disk.exists("d/f"):
            sizes.add(-1)
            continue
        now = content(disk, "d/f")
        assert not any(now)
        sizes.add(len(now))
    assert {-1, 0, 8 * KB} < sizes


# -- handles and the lock --------------------------------------------------------------------------


def test_closed_files_are_closed() -> None:
    """Whatever is done after `close` is an error; another handle goes on and sees the same."""
    disk = SimulatedDisk()
    written(disk, "f", b"abc")
    one, two = disk.open("f"), disk.open("f")
    view = one.view()
    one.close()
    one.close()
    for attempt in (
        lambda: one.pwrite(b"x", 0), lambda: one.pread(1, 0), one.sync, one.size, one.view,
        lambda: one.allocate(1),
    ):  # fmt: skip
        with pytest.raises(StorageError, match="closed"):
            attempt()
    two.pwrite(b"X", 1)
    assert bytes(view) == b"aXc" and view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    with pytest.raises(StorageError) as caught:
        disk.open("g")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_one_living_holder_has_the_lock() -> None:
    """A second one is refused until the first closes, or dies."""
    disk = SimulatedDisk()
    one, two = disk.mount(), disk.mount()
    one.lock()
    one.lock()
    with pytest.raises(DataDirectoryInUse):
        two.lock()
    one.close()
    two.lock()
    with pytest.raises(DataDirectoryInUse):
        disk.mount().lock()
    disk.kill()
    three = disk.mount()
    three.lock()
    with pytest.raises(Crashed):
        two.lock()
    two.close()  # of a former life: it releases nothing
    with pytest.raises(DataDirectoryInUse):
        disk.mount().lock()


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [True, False])
def test_a_failed_sync_proves_nothing(kill: bool) -> None:
    """Its handle never syncs again; another one's success does not save what it lost; but what is
    written anew and synced is durable (H60)."""
    outcomes = set()
    for seed in range(60):
        disk = SimulatedDisk(random=random.Random(seed))
        written(disk, "f", b"o" * 4 * KB)
        file = disk.open("f")
        file.pwrite(b"n" * 4 * KB, 0)
        disk.rates["sync"] = 1.0
        with pytest.raises(StorageError):
            file.sync()
        disk.rates.clear()
        with pytest.raises(StorageError, match="earlier"):
            file.sync()
        assert content(disk, "f") == b"n" * 4 * KB
        other = disk.open("f")
        other.pwrite(b"N" * 512, 0)
        other.sync()
        disk.kill() if kill else disk.power_cut()
        now = content(disk, "f")
        assert now[:512] == b"N" * 512 and set(now[512:]) <= set(b"on")
        outcomes.add(now[512::512])
    assert {b"o" * 7, b"n" * 7} < outcomes
    assert disk.counts["failed sync"] == 1


def test_faults_come_at_their_rate() -> None:
    """An injected rate fails that share of the operations, counts them, and changes nothing."""
    disk = SimulatedDisk(random=random.Random(3))
    written(disk, "f", b"abc")
    disk.rates["pread"] = 0.1
    failed = 0
    for _ in range(1000):
        try:
            assert content(disk, "f") == b"abc"
        except StorageError:
            failed += 1
    assert 60 < failed < 140
    assert disk.counts["failed pread"] == failed and disk.counts["pread"] == 1000


def test_a_full_disk_says_so_and_recovers() -> None:
    """Capacity counts the lengths of all files; deleting and more capacity make room."""
    disk = SimulatedDisk(capacity_bytes=10 * KB)
    file = disk.open("a", create=True)
    file.allocate(8 * KB)
    other = disk.open("b", create=True)
    with pytest.raises(DiskFullError):
        other.allocate(3 * KB)
    assert other.size() == 0 and disk.free_bytes() == 2 * KB
    with pytest.raises(DiskFullError):
        other.pwrite(b"x" * 3 * KB, 0)
    assert other.size() <= 2 * KB and disk.free_bytes() == 2 * KB - other.size()
    file.pwrite(b"y" * 8 * KB, 0)  # what is allocated can be written
    disk.capacity_bytes = 12 * KB
    other.pwrite(b"x" * 3 * KB, 0)
    disk.unlink("a")
    assert disk.free_bytes() == KB, "an open file keeps its space"
    file.close()
    assert disk.free_bytes() == 9 * KB
    disk.rename("b", "c")
    assert disk.free_bytes() == 9 * KB
    assert disk.counts["disk full"] == 2


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_one_bit_of_synced_data(seed: int) -> None:
    """Exactly one bit changes, where it says, never in what is unsynced, and it stays."""
    chance = random.Random(seed)
    disk = SimulatedDisk(random=chance)
    assert disk.flip_bit(chance) is None
    written(disk, "d/a", chance.randbytes(3000))
    written(disk, "d/b", chance.randbytes(3000), sync=False)
    disk.open("d/a").pwrite(bytes(512), 1024)
    before = everything(disk)
    flip = disk.flip_bit(chance, "d/a" if seed % 2 else None)
    assert flip is not None and flip.path == "d/a" and not 1024 <= flip.offset < 1536
    changed = bytearray(before["d/a"])
    changed[flip.offset] ^= 1 << flip.bit
    assert everything(disk) == {**before, "d/a": bytes(changed)}
    disk.power_cut(chance)
    assert content(disk, "d/a")[flip.offset] == changed[flip.offset]
