"""The store's order on disk: whatever step a power cut falls on, nothing promised is undone.

A step is one operation of the Disk door that changes something; behind it, a random part of what
was not synced survives.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from copycat._core.kernel import encode_run, seal_batch
from copycat._core.layout import Kind
from copycat.errors import DiskFullError, StorageError
from copycat.raft.ready import HardState
from copycat.server.effects import Job
from copycat.server.hardstate import HardStateFile
from copycat.server.store import Store
from copycat.testing.disk import SimulatedDisk

from .world import Client, World

SEGMENT_BYTES = 8192
CHANGES = ("pwrite", "sync", "rename", "unlink", "sync_directory")


def image(base: int, term: int, size: int) -> bytes:
    """A batch of one command."""
    arguments = (b"%d %d" % (base, term)).ljust(size, b".")
    return seal_batch([encode_run(Kind.COMMAND, 7, base, 0, [(1, 64, arguments)])], base, term, 1)


class Life:
    """A store whose jobs run when the test says so, and what it was told."""

    def __init__(self, disk: SimulatedDisk | None = None) -> None:
        if disk is None:
            disk = SimulatedDisk()
            HardStateFile.found(disk).close()
        self.disk = disk
        self.saved: list[HardState] = []
        self.durable: list[int] = []
        self.store = Store(
            disk, b"c" * 16, b"m" * 16, segment_bytes=SEGMENT_BYTES,
            on_saved=self.saved.append, on_durable=self.durable.append,
        )  # fmt: skip
        self.store.recover()

    def append(self, term: int, size: int = 8) -> bytes:
        data = image(self.store.log.last_index + 1, term, size)
        self.store.log.append(data)
        return data

    def work(self) -> None:
        """Run all jobs there are, one after the other, as the lanes would."""
        while jobs := self.store.next_jobs():
            for job in jobs:
                run(job)

    def images(self) -> list[bytes]:
        log = self.store.log
        return log.images(1, log.last_index) if log.last_index else []

    def die_at(self, step: int) -> None:
        """From change number ``step`` on the disk does nothing any more."""

        def fail(operation: str, path: str) -> OSError | None:
            nonlocal step
            step -= operation in CHANGES
            return OSError("power") if step < 0 and operation in CHANGES else None

        self.disk.fail = fail

    def reborn(self, chance: random.Random) -> Life:
        """What a restart after the power cut finds."""
        self.disk.fail = lambda operation, path: None
        self.disk.crash(chance)
        return Life(self.disk)


def run(job: Job) -> None:
    """One job, to its end."""
    try:
        result = job.run()
    except StorageError as problem:
        if job.failed is None or not isinstance(problem, DiskFullError):
            raise
        job.failed(problem)
    else:
        job.then(result)


def interrupted(action: Callable[[], None]) -> bool:
    """Whether the power failed before the action was done."""
    try:
        action()
    except StorageError:
        return True
    return False


@pytest.mark.parametrize("segments", [1, 4])
@pytest.mark.parametrize("step", range(26))
def test_a_truncation_can_be_cut_off_anywhere(step: int, segments: int) -> None:
    """A new leader's entries replace old ones, one disk job: after a power cut at any step there
    is a whole log without a hole, the old one or the new, and no term that was not saved (H1,
    H23)."""
    for seed in range(24 if segments == 1 else 8):
        chance = random.Random(f"{step} {segments} {seed}")
        life = Life()
        size = 100 if segments == 1 else 900
        life.store.save_hard_state(HardState(1, "a"))
        while life.store.log.segment_count < segments or life.store.log.last_index < 12:
            life.append(1, size)
            life.work()  # each is durable before the next, which says so: a hole would be damage
        old = life.images()
        cut = chance.randint(2, 4)
        life.store.save_hard_state(HardState(2, "b"))
        life.store.truncate(cut)
        new = old[: cut - 1] + [life.append(2, chance.choice((8, size))) for _ in range(3)]
        life.die_at(step)
        died = interrupted(life.work)
        again = life.reborn(chance)
        found, state = again.images(), again.store.hard_state
        assert found in ([*old[:end]] for end in range(cut - 1, len(old) + 1)) or (
            found == new[: len(found)] and len(found) >= cut - 1
        )
        runs = again.store.log.term_runs
        assert (runs[-1][1] if runs else 0) <= state.term, "an entry of a term nobody entered"
        assert state in (HardState(1, "a"), HardState(2, "b"))
        if not died:
            assert (found, state) == (new, HardState(2, "b"))
        if life.durable[-1] == len(new) and life.saved[-1] == HardState(2, "b"):
            assert found == new
        again.append(3)
        again.store.save_hard_state(HardState(3, "c"))
        again.work()
        assert again.reborn(chance).images() == again.images()


@pytest.mark.parametrize("step", range(14))
def test_no_entry_of_a_term_is_durable_before_the_term(step: int) -> None:
    """The vote and the first entries of its term, one disk job: a power cut never keeps the
    entries and forgets the vote (H1)."""
    for seed in range(12):
        chance = random.Random(f"{step} {seed}")
        life = Life()
        life.work()
        life.store.save_hard_state(HardState(5, "x"))
        life.append(5)
        life.die_at(step)
        interrupted(life.work)
        again = life.reborn(chance)
        assert again.store.log.last_index == 0 or again.store.hard_state == HardState(5, "x")
        if life.saved:
            assert again.store.hard_state == HardState(5, "x")


def test_segments_go_from_back_to_front() -> None:
    """Every name that goes is durable before the next one, so that no hole can appear (H23)."""
    life = Life()
    life.store.save_hard_state(HardState(1))
    for _ in range(24):
        life.append(1, 1500)
        life.work()
    before = life.disk.listdir("log")
    gone: list[str] = []

    def watch(operation: str, path: str) -> None:
        if operation == "unlink":
            gone.append(path.rpartition("/")[2])
        elif operation == "sync_directory" and gone and gone[-1] != "synced":
            gone.append("synced")

    life.disk.fail = watch
    life.store.truncate(2)
    life.work()
    names = [name for name in gone if name != "synced"]
    assert len(names) >= 3 and names == sorted(names, reverse=True)
    assert gone == [part for name in names for part in (name, "synced")]
    assert set(names) < set(before)


@pytest.mark.parametrize("names", [("n1",), ("n1", "n2", "n3")])
@pytest.mark.parametrize("step", range(9))
def test_the_log_is_cut_only_when_its_snapshot_is_durable(
    step: int, names: tuple[str, ...]
) -> None:
    """Whatever goes wrong with a snapshot, the log that it would have replaced is still there
    (H21, H65)."""
    world = World(step, names, snapshot_bytes=3000, segment_bytes=2048)
    client = Client(world)
    assert world.run(5, lambda: client.opened)
    for node in world.nodes.values():
        node.disk.fail = snapshots_fail_at(step)
    client.want(600)
    assert world.run(60, lambda: client.done)
    world.run(1)
    for node in world.nodes.values():
        member = node.member
        assert member is not None
        index = member.snapshot.index if member.snapshot else 0
        first = member.status()["first_index"]
        assert isinstance(first, int) and first <= index + 1
        assert step > 1 or first == 1
    for name in names:
        world.crash(name)
    for name, node in world.nodes.items():
        node.disk.fail = lambda operation, path: None
        world.start(name)
    client.want(50)
    assert world.run(60, lambda: client.done)
    assert client.values == list(range(1, 651))


def snapshots_fail_at(step: int) -> Callable[[str, str], OSError | None]:
    """Changes below ``snapshots`` fail from number ``step`` on."""
    left = step

    def fail(operation: str, path: str) -> OSError | None:
        nonlocal left
        if operation not in CHANGES or not path.startswith("snapshots"):
            return None
        left -= 1
        return OSError("broken") if left < 0 else None

    return fail
