"""The log keeps what was durable, loses nothing but a torn tail, and says so when it cannot."""

from __future__ import annotations

import random

import pytest

from copycat._core.kernel import crc32, encode_run, seal_batch
from copycat._core.layout import FRAME_HEADER_SIZE, Kind
from copycat._core.log import Log, Truncation, Write
from copycat._core.recovery import recover
from copycat.errors import CorruptLogError, InvariantViolated, StorageError, WrongClusterError
from copycat.testing.disk import SimulatedDisk, SimulatedFile

CLUSTER, MEMBER = b"c" * 16, b"m" * 16
SEGMENT_BYTES = 8192


def make_image(base: int, count: int, term: int, size: int = 8, salt: int = 0) -> bytes:
    """A batch of ``count`` commands with ``size`` bytes of arguments each."""
    arguments = (b"%d" % (base + salt)).ljust(size, b".")
    run = encode_run(Kind.COMMAND, 7, base, 0, [(1, 64, arguments)] * count)
    return seal_batch([run], base, term, base * 1000)


class World:
    """A log on a simulated disk, driven the way the store drives it."""

    def __init__(self, disk: SimulatedDisk | None = None, base: int = 0) -> None:
        self.disk = disk or SimulatedDisk()
        self.log = Log(CLUSTER, MEMBER, SEGMENT_BYTES, self.prepare, index_stride=256,
                       recent_bytes=2000)  # fmt: skip
        names = [name for name in self.disk.listdir("log") if name.endswith(".seg")]
        files = [(int(name[:-4]), self.disk.open(f"log/{name}")) for name in names]
        repair = recover(self.log, files, CLUSTER, MEMBER, 256, base)  # type: ignore[arg-type]
        self.carry_out(Truncation(repair.writes, repair.segments))
        for file, offset, data in repair.rewrites:
            file.pwrite(data, offset)
        for segment in self.log._segments:
            segment.file.sync()
        self.disk.sync_directory("log")

    def prepare(self, id_: int, size: int) -> SimulatedFile:
        file = self.disk.open(f"log/{id_:08d}.seg", create=True)
        file.allocate(size)
        return file

    def append(self, count: int, term: int, size: int = 8, salt: int = 0) -> bytes:
        image = make_image(self.log.last_index + 1, count, term, size, salt)
        self.log.append(image)
        return image

    def write(self, write: Write | None, *, sync: bool = True) -> None:
        if write is None:
            return
        for file, offset, data in write.pieces:
            file.pwrite(data, offset)  # type: ignore[attr-defined]
        if sync:
            for file in write.files:
                file.sync()  # type: ignore[attr-defined]
            self.log.completed(write)

    def flush(self) -> None:
        self.write(self.log.take_writes())

    def carry_out(self, truncation: Truncation) -> None:
        for id_, _ in reversed(truncation.segments):
            self.disk.unlink(f"log/{id_:08d}.seg")
            self.disk.sync_directory("log")
        for file, offset, data in truncation.writes:
            file.pwrite(data, offset)  # type: ignore[attr-defined]
            file.sync()  # type: ignore[attr-defined]

    def reopened(self) -> World:
        """The same disk after a restart; a snapshot stands for what was compacted."""
        return World(self.disk, self.log.base_index)

    def all_images(self) -> list[bytes]:
        if self.log.last_index == self.log.base_index:
            return []
        return self.log.images(self.log.base_index + 1, self.log.last_index)


def test_what_is_durable_is_read_back_across_rolls() -> None:
    """Images, terms and indexes survive a restart, over many segments."""
    world = World()
    images = [world.append(1 + i % 3, 1 + i // 20, 100) for i in range(100)]
    world.flush()
    assert world.log.segment_count > 3
    assert world.log.durable_index == world.log.last_index
    again = world.reopened()
    assert again.all_images() == images
    assert again.log.term_runs == world.log.term_runs
    assert again.log.last_time_us == world.log.last_time_us
    assert again.log.term_at(1) == 1 and again.log.term_at(again.log.last_index) == 5
    assert again.log.term_at(again.log.last_index + 1) is None


def test_windows_hold_whole_batches_within_the_budget() -> None:
    """A window ends at a batch's end, holds at least one batch, and no more bytes than allowed."""
    world = World()
    images = [world.append(1 + i % 4, 1, 50) for i in range(60)]
    world.flush()
    ends, last = [], 0
    for image in images:
        last += int.from_bytes(image[40:44], "little")
        ends.append(last)
    first = 1
    for position, end in enumerate(ends):
        for budget in (1, 1000, 1 << 20):
            got_end, got_bytes = world.log.window_end(first, budget)
            chosen = images[position : ends.index(got_end) + 1]
            assert world.log.images(first, got_end) == chosen
            assert sum(map(len, chosen)) == got_bytes
            assert got_bytes <= budget or len(chosen) == 1
            following = position + len(chosen)
            assert following == len(images) or got_bytes + len(images[following]) > budget
        first = end + 1
    assert world.log.window_end(first, 1000) == (first - 1, 0)


def test_a_torn_tail_is_cut_at_every_length() -> None:
    """However much of the last write reached the disk, exactly the whole frames remain (H56)."""
    world = World()
    kept = [world.append(2, 1), world.append(1, 1)]
    world.flush()
    start = world.log._segments[-1].end
    torn = world.append(3, 1, 30)
    write = world.log.take_writes()
    assert write is not None
    ((file, offset, data),) = write.pieces
    assert offset == start
    for length in range(len(data) + 1):
        file.pwrite(data[:length].ljust(len(data), b"\0"), offset)  # type: ignore[attr-defined]
        again = world.reopened()
        whole = data[:length].ljust(len(data), b"\0") == data
        assert again.all_images() == ([*kept, torn] if whole else kept)


@pytest.mark.parametrize("damaged", [0, 3, 9])
def test_damage_before_the_durable_end_is_an_error(damaged: int) -> None:
    """A flipped bit in an entry that later frames prove durable is named, never cut (H57)."""
    world = World()
    for _ in range(12):
        world.append(1, 1, 40)
        world.flush()
    image, length, base, _ = list(world.log._segments[0].frames(1))[damaged]
    file = world.disk.open("log/00000001.seg")
    for at in (image - FRAME_HEADER_SIZE, image - 10, image, image + 20, image + length - 1):
        byte = file.pread(1, at)
        file.pwrite(bytes([byte[0] ^ 1]), at)
        with pytest.raises(CorruptLogError) as caught:
            world.reopened()
        assert caught.value.segment == "log/00000001.seg"
        assert caught.value.offset == image - FRAME_HEADER_SIZE
        file.pwrite(byte, at)
    assert world.reopened().log.last_index == 12
    assert base == damaged + 1


def test_a_lost_segment_in_the_middle_is_an_error() -> None:
    """A hole between segments is damage, whichever file is missing."""
    world = World()
    for _ in range(60):
        world.append(1, 1, 400)
        world.flush()
    assert world.log.segment_count >= 4
    world.disk.unlink("log/00000002.seg")
    with pytest.raises(CorruptLogError, match="entry"):
        world.reopened()


def test_foreign_and_newer_files_are_refused() -> None:
    """A segment of another member, cluster or format is never taken in (H67)."""
    world = World()
    world.append(1, 1)
    world.flush()
    files = [(1, world.disk.open("log/00000001.seg"))]
    for cluster, member in ((b"x" * 16, MEMBER), (CLUSTER, b"x" * 16)):
        with pytest.raises(WrongClusterError):
            recover(Log(cluster, member, 1, world.prepare), files, cluster, member)  # type: ignore[arg-type]
    header = files[0][1].pread(100, 0)
    newer = b"CCATSEG2" + header[8:96]
    files[0][1].pwrite(newer + crc32(newer).to_bytes(4, "little"), 0)
    with pytest.raises(StorageError, match="does not read"):
        world.reopened()
    files[0][1].pwrite(header, 0)
    renamed = [(4, files[0][1])]
    with pytest.raises(CorruptLogError, match="segment 1"):
        recover(Log(CLUSTER, MEMBER, 1, world.prepare), renamed, CLUSTER, MEMBER)  # type: ignore[arg-type]


def test_a_rotten_digit_of_the_version_is_damage() -> None:
    """One bit of the magic is no reason to send anybody for another version of Copycat."""
    world = World()
    for _ in range(3):
        world.append(1, 1)
        world.flush()
    for bit in range(8):
        world.disk.open("log/00000001.seg").pwrite(bytes([b"1"[0] ^ 1 << bit]), 7)
        with pytest.raises(CorruptLogError, match="entry 1 was durable"):
            world.reopened()


def test_a_truncation_cuts_at_a_batch_only() -> None:
    """Logs diverge at batch boundaries, so a cut anywhere else is a bug of ours."""
    world = World()
    world.append(3, 1)
    world.append(3, 1)
    with pytest.raises(InvariantViolated):
        world.log.truncate(5)
    world = World()
    world.append(3, 1, 3000)
    world.flush()
    world.append(3, 1)
    world.flush()
    world = world.reopened()
    with pytest.raises(InvariantViolated):
        world.log.truncate(2)


def test_acknowledgements_of_truncated_writes_are_void() -> None:
    """A write from before a truncation says nothing about what replaced it (H17)."""
    world = World()
    world.append(2, 1)
    world.flush()
    world.append(2, 1)
    old = world.log.take_writes()
    assert old is not None
    truncation = world.log.truncate(3)
    world.append(2, 2)
    world.write(old)
    assert world.log.durable_index == 2
    world.carry_out(truncation)
    world.flush()
    assert world.log.durable_index == 4
    assert world.reopened().log.term_runs == [(1, 1), (3, 2)]


def test_cutting_the_front_keeps_the_boundary() -> None:
    """After compaction the term before the first entry is still known (H21)."""
    world = World()
    for i in range(40):
        world.append(1, 1 + i // 10, 600)
        world.flush()
    count = world.log.segment_count
    dropped = world.log.cut_before(25)
    for id_, _ in dropped:
        world.disk.unlink(f"log/{id_:08d}.seg")
    world.disk.sync_directory("log")
    assert 0 < len(dropped) < count
    base = world.log.base_index
    assert 0 < base <= 25
    assert world.log.base_term == 1 + (base - 1) // 10
    again = world.reopened()
    assert (again.log.base_index, again.log.base_term) == (base, world.log.base_term)
    assert again.log.last_index == 40
    assert again.log.cut_before(40) and again.log.segment_count == 1


def test_a_reset_log_begins_behind_the_snapshot() -> None:
    """After an installed snapshot the log goes on right behind it, also after a restart."""
    world = World()
    for _ in range(5):
        world.append(1, 1)
    world.flush()
    dropped = world.log.reset(100, 7)
    world.carry_out(Truncation([], dropped))
    image = world.append(2, 8)
    world.flush()
    assert (world.log.base_index, world.log.term_at(100), world.log.last_index) == (100, 7, 102)
    again = world.reopened()
    assert again.all_images() == [image]
    assert again.log.base_term == 7


def test_spares_are_used_in_order_and_survive_a_restart() -> None:
    """A prepared file is taken by the next roll and recognised as unused after a restart."""
    world = World()
    assert world.log.needs_segment()
    id_ = world.log.take_segment_id()
    world.log.add_spare(id_, world.prepare(id_, SEGMENT_BYTES))  # type: ignore[arg-type]
    assert not world.log.needs_segment()
    world = world.reopened()
    assert not world.log.needs_segment()
    world.append(1, 1)
    world.flush()
    assert world.disk.listdir("log") == ["00000001.seg"]
    big = world.append(1, 1, 3 * SEGMENT_BYTES)
    world.flush()
    assert world.reopened().log.images(2, 2) == [big]


@pytest.mark.parametrize("seed", range(150))
def test_any_life_keeps_what_was_durable(seed: int) -> None:
    """Through random appends, truncations, resets, cuts and power failures, nothing durable is
    lost, nothing replaced comes back, and what remains is a prefix of what was appended."""
    chance = random.Random(seed)
    world = World()
    model: dict[int, bytes] = {}  # base index -> image
    durable = 0
    term = 1
    for step in range(120):
        action = chance.random()
        log = world.log
        if action < 0.55:
            for _ in range(chance.randint(1, 4)):
                base = log.last_index + 1
                model[base] = world.append(
                    chance.randint(1, 4), term, chance.choice((8, 60, 900)), salt=step
                )
        elif action < 0.75:
            world.flush()
            durable = log.durable_index
            assert durable == log.last_index
        elif action < 0.85 and log.last_index > log.base_index:
            candidates = [base for base in model if base > log.base_index]
            cut = chance.choice(candidates)
            in_flight = log.take_writes() if chance.random() < 0.5 else None
            truncation = log.truncate(cut)
            world.write(in_flight)
            world.carry_out(truncation)
            model = {base: image for base, image in model.items() if base < cut}
            durable = log.durable_index
            assert durable < cut
            term += 1
        elif action < 0.9 and log.durable_index == log.last_index > log.base_index:
            # (What a cut leaves must say where it begins; beyond that a snapshot says it.)
            index = chance.randint(log.base_index, log.durable_index)
            for id_, _ in log.cut_before(index):
                world.disk.unlink(f"log/{id_:08d}.seg")
                world.disk.sync_directory("log")
            model = {base: image for base, image in model.items() if base > log.base_index}
        else:
            write = log.take_writes()
            if write is not None and chance.random() < 0.7:
                world.write(write, sync=False)
            world.disk.crash(chance)
            world = world.reopened()
            assert world.log.last_index >= durable
            found = world.all_images()
            expected = [model[base] for base in sorted(model)]
            assert found == expected[: len(found)]
            model = {base: model[base] for base in sorted(model)[: len(found)]}
            # What was found may be promised now, so it counts as durable from here on.
            durable = world.log.last_index
            term += 1
        expected = [model[base] for base in sorted(model)]
        assert world.all_images() == expected


@pytest.mark.parametrize("seed", range(30))
def test_what_has_room_needs_no_new_file(seed: int) -> None:
    """`has_room` says exactly whether an append would have to prepare a file first (H61)."""
    chance = random.Random(seed)
    world = World()
    world.append(1, 1)
    for _ in range(chance.randrange(3)):
        id_ = world.log.take_segment_id()
        size = chance.choice((SEGMENT_BYTES // 2, SEGMENT_BYTES, 3 * SEGMENT_BYTES))
        world.log.add_spare(id_, world.prepare(id_, size))  # type: ignore[arg-type]
    for _ in range(40):
        sizes = [chance.choice((8, 900, 4000, 9000)) for _ in range(chance.randint(1, 4))]
        lengths = [len(make_image(1, 1, 1, size)) for size in sizes]
        files = len(world.disk.listdir("log"))
        room = world.log.has_room(lengths)
        for size in sizes:
            world.append(1, 1, size)
        assert room == (len(world.disk.listdir("log")) == files)


def test_after_a_cut_only_spares_count() -> None:
    """How much a truncation will leave is not known before, so the segment is not counted upon."""
    world = World()
    length = len(world.append(1, 1))
    assert world.log.has_room([length]) and not world.log.has_room([length], after_cut=True)
    id_ = world.log.take_segment_id()
    world.log.add_spare(id_, world.prepare(id_, SEGMENT_BYTES))  # type: ignore[arg-type]
    assert world.log.has_room([length], after_cut=True)


def test_a_spare_that_was_overtaken_is_given_back() -> None:
    """Ids rise along the log, so a file whose preparation took too long is of no use."""
    world = World()
    late = world.log.take_segment_id()
    world.append(1, 1)
    file = world.prepare(late, SEGMENT_BYTES)
    world.log.add_spare(late, file)  # type: ignore[arg-type]
    assert world.log.discarded == [(late, file)] and world.log.needs_segment()
