"""The log over either kernel writes the same files, and reads those of the other."""

from __future__ import annotations

import random
from typing import Any

import pytest

from copycat.errors import CorruptLogError
from copycat.testing.disk import SimulatedDisk
from copycat.testing.twins import bodies

from .bodies import count_of, image

LOGS = bodies("log")
RECOVERIES = bodies("recovery")
CLUSTER, MEMBER = b"c" * 16, b"m" * 16
SEGMENT_BYTES = 16_384


class Mode:
    """A log of one mode on a disk, driven the way the store drives it."""

    def __init__(self, mode: str, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.log = LOGS[mode].Log(
            CLUSTER, MEMBER, SEGMENT_BYTES, self.prepare, index_stride=256, recent_bytes=1000
        )
        names = [name for name in disk.listdir("log") if name.endswith(".seg")]
        files = [(int(name[:-4]), disk.open(f"log/{name}")) for name in names]
        repair = RECOVERIES[mode].recover(self.log, files, CLUSTER, MEMBER, 256)
        self.carry_out(repair.segments, repair.writes)

    def prepare(self, id_: int, size: int) -> Any:
        file = self.disk.open(f"log/{id_:08d}.seg", create=True)
        file.allocate(size)
        return file

    def flush(self) -> None:
        write = self.log.take_writes()
        if write is not None:
            for file, offset, data in write.pieces:
                file.pwrite(data, offset)
            for file in write.files:
                file.sync()
            self.log.completed(write)

    def carry_out(self, segments: Any, writes: Any) -> None:
        for id_, _ in reversed(segments):
            self.disk.unlink(f"log/{id_:08d}.seg")
            self.disk.sync_directory("log")
        for file, offset, data in writes:
            file.pwrite(data, offset)
            file.sync()

    def files(self) -> dict[str, bytes]:
        names = self.disk.listdir("log")
        return {name: bytes(self.disk.open(f"log/{name}").view()) for name in names}

    def images(self) -> list[bytes]:
        log = self.log
        if log.last_index == log.base_index:
            return []
        return list(log.images(log.base_index + 1, log.last_index))


@pytest.mark.parametrize("seed", range(10))
def test_one_life_leaves_the_same_files_in_every_mode(seed: int) -> None:
    """The same appends, truncations and restarts give the same bytes, whoever carries them out.

    At each restart the modes exchange their disks: each recovers what the other one wrote.
    """
    chance = random.Random(seed)
    disks = [SimulatedDisk() for _ in range(2)]
    modes = [*LOGS, *LOGS][:2]
    worlds = [Mode(mode, disk) for mode, disk in zip(modes, disks, strict=True)]
    bases: list[int] = []
    term = 1
    for _ in range(60):
        action = chance.random()
        last = worlds[0].log.last_index
        if action < 0.6:
            batch = image(chance, last + 1, term)
            bases.append(last + 1)
            for world in worlds:
                world.log.append(batch)
            assert worlds[0].log.last_index == last + count_of(batch)
        elif action < 0.8:
            for world in worlds:
                world.flush()
        elif action < 0.9 and bases:
            cut = chance.choice(bases[-5:])
            bases = [base for base in bases if base < cut]
            term += 1
            for world in worlds:
                truncation = world.log.truncate(cut)
                world.carry_out(truncation.segments, truncation.writes)
        else:
            for world in worlds:
                world.flush()
            disks.reverse()
            worlds = [Mode(mode, disk) for mode, disk in zip(modes, disks, strict=True)]
        first, second = worlds
        assert first.log.term_runs == second.log.term_runs
        assert first.log.durable_index == second.log.durable_index
        assert first.images() == second.images()
        assert first.files() == second.files()
    assert len(worlds[0].files()) >= 1


def test_both_modes_name_the_same_damage() -> None:
    """A flipped bit in the middle is found at the same offset of the same file by each mode."""
    chance = random.Random(5)
    world = Mode("pure", SimulatedDisk())
    for _ in range(12):
        world.log.append(image(chance, world.log.last_index + 1))
        world.flush()
    (name, *_) = world.disk.listdir("log")
    file = world.disk.open(f"log/{name}")
    for _ in range(20):
        at = chance.randrange(4096, 4096 + 3000)
        byte = file.pread(1, at)
        file.pwrite(bytes((byte[0] ^ 1 << chance.randrange(8),)), at)
        named: list[list[Any]] = []
        for mode in LOGS:
            try:
                named.append([*Mode(mode, world.disk).images()])
            except CorruptLogError as problem:
                named.append([problem.segment, problem.offset])
        assert all(each == named[0] for each in named)
        assert len(named[0]) == 2
        file.pwrite(byte, at)
