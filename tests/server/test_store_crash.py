"""Whatever is acknowledged is durable, and what was cut stays cut, at every crash point of a store.

Real stores live and die on the simulated disk, driven as a member drives them, with a seed for all
that happens: appends, votes, truncations, snapshots made and installed, a death inside or between
jobs. A model says what each next life may and must find.
"""

from __future__ import annotations

import contextlib
import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from copycat.errors import CorruptLogError, StorageError
from copycat.raft.ready import HardState
from copycat.server.effects import Job, JobDone
from copycat.server.hardstate import HardStateFile
from copycat.server.snapshots import SnapshotInfo, Snapshots
from copycat.server.store import Store
from copycat.testing.disk import FAST, STALLING, Crashed, SimulatedDisk

from ..core.test_log import make_image

CLUSTER, MEMBER = b"c" * 16, b"m" * 16
SEGMENT_BYTES = 8192
TURNS = 60

Entries = dict[int, bytes]
"""First index of a batch -> its image."""


def count_of(image: bytes) -> int:
    """How many entries a batch has."""
    return int.from_bytes(image[40:44], "little")


@dataclass
class Model:
    """What a store was told, and what it acknowledged."""

    # What the log was like, from the newest state known to be durable on. A recovered log is the
    # beginning of one of them: jobs work in order, and each of their steps leaves such a beginning.
    logs: list[Entries] = field(default_factory=lambda: [{}])
    floor: int = 0  # up to here nothing may be missing
    states: list[HardState] = field(
        default_factory=lambda: [HardState()]
    )  # from the durable one on
    bodies: dict[int, set[bytes]] = field(default_factory=dict)  # of snapshots, by index
    snapshot: int = 0  # the newest one acknowledged
    installed: set[int] = field(default_factory=set)  # snapshots that came from elsewhere
    lost: Entries = field(default_factory=dict)  # what a death took from the end of the log

    def check(self, store: Store, body: bytes | None) -> None:
        """What a new life found must be there and nothing else; then only that is the case."""
        log, info = store.log, store.snapshot
        index = info.index if info is not None else 0
        assert store.hard_state in self.states, f"vote: {store.hard_state}, not {self.states}"
        assert index >= self.snapshot, f"snapshot {index} instead of {self.snapshot}"
        assert index == 0 or body in self.bodies[index]
        assert log.base_index <= index
        base, last = log.base_index, log.last_index
        found = log.images(base + 1, last) if last > base else []
        assert last >= self.floor or (base == last == index and index in self.installed), (
            f"the log ends at {last}, {self.floor} was acknowledged"
        )
        assert any(begins_with(each, base, found) for each in self.logs), (
            f"entries {base + 1} to {last} are none of the possible logs"
        )
        entries, at = {}, base + 1
        for image in found:
            entries[at] = image
            at += count_of(image)
        newest = self.logs[-1]
        self.lost = {}
        if begins_with(newest, base, found):
            self.lost = {at: image for at, image in newest.items() if at > last}
        self.logs, self.floor = [entries], last
        self.states, self.snapshot = [store.hard_state], index


def begins_with(log: Entries, base: int, images: list[bytes]) -> bool:
    """Whether ``images`` are the first ones of ``log`` behind ``base``."""
    if not images:
        return True
    whole = [log[at] for at in sorted(log) if at > base]
    return min(at for at in (*log, 1 << 60) if at > base) == base + 1 and (
        whole[: len(images)] == images
    )


class Story:
    """The lives of one data directory."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.disk = SimulatedDisk(
            random=random.Random(seed + 1), latency=chance.choice((FAST, STALLING))
        )
        HardStateFile.found(self.disk).close()
        self.model = Model()
        self.term = 1
        self.salt = 0
        self.failing_syncs = chance.choice((0.0, 0.0, 0.0, 0.005, 0.03))
        self.short_of_space = chance.random() < 0.2
        self.lifespans = chance.choice(((20, 200), (6, 20)))  # operations on the disk
        # How many frames can stand behind one another in a file.
        self.segment_bytes = chance.choice((SEGMENT_BYTES, 5 * SEGMENT_BYTES))
        self.haste = chance.choice((0.05, 0.5))  # to die in the midst of something
        self.endings = Counter[str]()

    def run(self, lives: int) -> None:
        """Live that often, then once more in peace."""
        for _ in range(lives):
            self.live()
        self.disk.rates.clear()
        self.disk.crash_after = None
        Life(self).begin()

    def live(self) -> None:
        """From a start to a death of either kind, or to an orderly end."""
        chance, disk = self.chance, self.disk
        disk.crash_after = chance.randrange(40) if chance.random() < 0.3 else None
        disk.rates["sync"] = self.failing_syncs
        if self.short_of_space:
            disk.capacity_bytes += chance.randrange(100_000) - disk.free_bytes()
        life = Life(self)
        try:
            life.begin()
            if chance.random() < 0.8:
                disk.crash_after = chance.randrange(chance.choice(self.lifespans))
            life.run(chance.choice((0.02, 0.1, 20.0)))
            if chance.random() < 0.2:
                life.end()
        except Crashed:
            self.endings["crashed"] += 1
        except StorageError as problem:  # a failed sync is fatal (H60)
            if "sync of" not in str(problem):
                raise
            self.endings["failed sync"] += 1
        if chance.random() < 0.5:
            disk.kill()
        if disk.life == life.number or chance.random() < 0.2:
            disk.power_cut(chance)

    def saved(self, state: HardState) -> None:
        """The store says that ``state`` is durable."""
        states = self.model.states
        del states[: states.index(state)]

    def durable(self, index: int) -> None:
        """The store says that the log is durable up to there."""
        assert index >= self.model.floor
        self.model.floor = index


class Life:
    """What a member does with its store between two deaths, on virtual time."""

    def __init__(self, story: Story) -> None:
        self.story, self.chance, self.model = story, story.chance, story.model
        self.number = story.disk.life
        self.door = story.disk.mount(self.schedule)
        self.now, self.nth, self.turns = 0.0, 0, TURNS
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.inbox: list[JobDone] = []
        self.jobs: list[Job] = []
        self.snapshotting = self.installing = False

    def begin(self) -> None:
        """Read everything back, as the model says it must be."""
        self.store = Store(
            self.door, CLUSTER, MEMBER, segment_bytes=self.story.segment_bytes,
            on_saved=self.story.saved, on_durable=self.story.durable,
        )  # fmt: skip
        state = self.store.recover()
        self.model.check(self.store, None if state is None else b"".join(state))
        self.committed = self.model.snapshot
        self.repeats = self.chance.random() < 0.5

    def schedule(self, delay: float, callback: Callable[[], None]) -> None:
        self.nth += 1
        heapq.heappush(self.events, (self.now + delay, self.nth, callback))

    def run(self, end: float) -> None:
        """Let time pass."""
        self.schedule(0.0, self.turn)
        while self.events and self.events[0][0] <= end and not self.story.disk.dead:
            self.now, _, callback = heapq.heappop(self.events)
            callback()

    def end(self) -> None:
        """Jobs that were begun end; nobody hears of it."""
        self.door.close()
        self.store.close()

    # -- turns ---------------------------------------------------------------------------------

    def turn(self) -> None:
        """As a member's: take in what is done, decide something, start jobs."""
        self.take_in()
        if self.turns:
            self.turns -= 1
            for _ in range(self.chance.choice((1, 1, 1, 4))):
                action = self.chance.choices(
                    (self.append, self.vote, self.truncate, self.commit, self.save, self.install),
                    (10, 2, 2, 4, 1.5, 0.5),
                )[0]
                action()
            self.schedule(self.chance.expovariate(1000), self.turn)
        self.start_jobs()

    def take_in(self) -> None:
        inbox, self.inbox = self.inbox, []
        for done in inbox:
            if done.error is None:
                done.job.then(done.result)
            elif done.job.failed is not None:
                done.job.failed(done.error)
            else:
                raise done.error

    def start_jobs(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs + self.store.next_jobs():
            if job.lane == "log":
                self.watch(job)
            self.door.submit(job.lane, job.run, self.done(job), size=job.size)

    def watch(self, job: Job) -> None:
        """When this job is done, what the log was like before it is gone for good."""
        state, then = self.model.logs[-1], job.then

        def and_forget(result: object) -> None:
            then(result)
            logs = self.model.logs
            del logs[: next(i for i, each in enumerate(logs) if each is state)]

        job.then = and_forget

    def done(self, job: Job) -> Callable[[object, BaseException | None], None]:
        def done(result: object, error: BaseException | None) -> None:
            self.inbox.append(JobDone(job, result, error))
            self.schedule(0.0, self.react)

        return done

    def react(self) -> None:
        if self.inbox:
            self.take_in()
            self.start_jobs()

    def die_soon(self) -> None:
        """Sometimes the end comes in the midst of what was just begun."""
        if self.chance.random() < self.story.haste:
            self.story.disk.crash_after = self.chance.randrange(12)

    # -- decisions -----------------------------------------------------------------------------

    def append(self) -> None:
        """One to four batches, sometimes one that needs a segment of its own.

        In some lives the leader is still the same, and repeats what the last death took.
        """
        for _ in range(self.chance.randint(1, 4)):
            base = self.store.log.last_index + 1
            image = self.model.lost.pop(base, b"") if self.repeats else b""
            if not image:
                self.model.lost.clear()
                self.story.salt += 1
                size = self.chance.choice((8, 60, 900, 900, 2500, 9000))
                image = make_image(
                    base, self.chance.randint(1, 3), self.story.term, size, self.story.salt
                )
            if not self.store.make_room([len(image)]):
                return
            self.store.log.append(image)
            self.model.logs.append({**self.model.logs[-1], base: image})

    def vote(self) -> None:
        """A new term."""
        self.story.term += 1
        state = HardState(self.story.term, self.chance.choice((None, "n1", "n2")))
        self.store.save_hard_state(state)
        self.model.states.append(state)

    def truncate(self) -> None:
        """Another leader: what is not committed gives way to something else."""
        log = self.store.log
        lowest = max(self.committed, log.base_index)
        starts = [at for at in self.model.logs[-1] if lowest < at <= log.last_index]
        if not starts or self.installing:
            return
        cut = self.chance.choice(starts)
        self.store.truncate(cut)
        self.model.lost.clear()
        self.story.term += 1
        kept = {at: image for at, image in self.model.logs[-1].items() if at < cut}
        self.model.logs.append(kept)
        self.model.floor = min(self.model.floor, cut - 1)
        self.die_soon()
        if self.chance.random() < 0.8:
            self.append()

    def commit(self) -> None:
        """The cluster has more; not necessarily this disk."""
        log = self.store.log
        ends = [at - 1 for at in self.model.logs[-1] if self.committed < at - 1 <= log.last_index]
        if ends and not self.installing:
            self.committed = self.chance.choice(ends)

    def save(self) -> None:
        """A snapshot at the committed index; the log is cut when it is durable."""
        index, store = self.committed, self.store
        term = store.log.term_at(index)
        newest = store.snapshot.index if store.snapshot is not None else 0
        if self.snapshotting or self.installing or term is None or index <= newest:
            return
        body = self.chance.randbytes(self.chance.choice((10, 3000, 20_000)))
        self.model.bodies.setdefault(index, set()).add(body)
        self.snapshotting = True

        def then(info: SnapshotInfo) -> None:
            self.snapshotting = False
            current = store.snapshot
            if current is None or current.index < info.index:
                self.model.snapshot = index
                store.snapshot = info
                store.cut_before(min(info.index, store.log.durable_index))

        def failed(error: BaseException) -> None:
            self.snapshotting = False

        save = store.snapshots.save
        self.jobs.append(Job("background", lambda: save(index, term, body), then, failed))
        self.die_soon()

    def install(self) -> None:
        """A snapshot of the leader, in pieces; it replaces the log unless that has its end."""
        store = self.store
        if self.installing:
            return
        last = store.log.last_index
        index = self.chance.randint(self.committed + 1, max(last, self.committed) + 20)
        term = self.story.term = self.story.term + 1
        body = self.chance.randbytes(self.chance.choice((10, 5000)))
        self.model.bodies.setdefault(index, set()).add(body)
        self.model.installed.add(index)
        self.installing = True
        elsewhere = SimulatedDisk()
        source = Snapshots(elsewhere, CLUSTER)
        info = source.save(index, term, body)
        piece = 2000
        for offset in range(0, info.size, piece):
            data = source.read(info, offset, piece) or b""
            receive = self.receive(offset, data, info.size)
            self.jobs.append(Job("background", receive, failed=lambda error: None))

        def then(accepted: tuple[SnapshotInfo, list[bytes]]) -> None:
            self.installing = False
            assert accepted[0] == info and b"".join(accepted[1]) == body
            self.committed = index
            self.model.snapshot = index
            store.snapshot = accepted[0]
            store.reset(index, term)
            self.model.lost.clear()
            self.model.logs.append({})
            self.model.floor = index
            self.die_soon()

        def failed(error: BaseException) -> None:
            self.installing = False

        self.jobs.append(Job("background", store.snapshots.accept, then, failed))

    def receive(self, offset: int, data: bytes, total: int) -> Callable[[], None]:
        return lambda: self.store.snapshots.receive(offset, data, total)


@pytest.mark.parametrize("seed", range(150))
def test_a_store_keeps_what_it_promised(seed: int) -> None:
    """In each of some lives, all that was acknowledged in the ones before is found and equal, and
    nothing whose removal was acknowledged."""
    Story(seed).run(6)


@pytest.mark.parametrize("seed", range(80))
def test_a_rotten_bit_never_becomes_data(seed: int) -> None:
    """After a bit flips, a store refuses to start, or finds what was there.

    (A frame that no later one proves durable is cut like the torn tail it may be.)
    """
    story = Story(seed)
    story.run(2)
    story.disk.power_cut()
    story.disk.flip_bit(story.chance)
    story.model.floor = 0
    with contextlib.suppress(CorruptLogError):
        Life(story).begin()


# -- regressions found by the property above -------------------------------------------------------


class Workshop:
    """A store whose jobs start and end when the test says so."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.store = Store(
            disk, CLUSTER, MEMBER, segment_bytes=SEGMENT_BYTES,
            on_saved=lambda state: None, on_durable=lambda index: None,
        )  # fmt: skip
        self.store.recover()
        self.waiting: list[Job] = []

    def append(self, count: int, term: int) -> None:
        """Batches of which a segment holds one."""
        for _ in range(count):
            self.store.log.append(make_image(self.store.log.last_index + 1, 1, term, 3000))

    def work(self, *lanes: str) -> None:
        """Carry out the jobs of these lanes until there are none; those of others wait."""
        self.waiting += self.store.next_jobs()
        while due := [job for job in self.waiting if job.lane in lanes]:
            self.waiting.remove(due[0])
            due[0].then(due[0].run())
            self.waiting += self.store.next_jobs()


def founded() -> SimulatedDisk:
    """The disk of a member that has not voted yet."""
    disk = SimulatedDisk()
    HardStateFile.found(disk).close()
    return disk


def test_a_segment_that_a_truncation_writes_to_is_not_deleted_before() -> None:
    """A log that is cut at the front while a truncation waits goes on, in whatever order the lanes
    get to it."""
    disk = founded()
    shop = Workshop(disk)
    shop.append(4, 1)
    shop.store.log.append(make_image(5, 1, 1, 100))
    shop.work("log", "background")
    shop.store.truncate(5)
    shop.append(1, 2)
    assert shop.store.log.segment_count == 5
    shop.store.cut_before(4)
    shop.work("background")
    shop.work("log")
    shop.work("background")
    shop.store.snapshots.save(4, 1, b"")
    disk.kill()
    log = Workshop(disk).store.log
    assert (log.base_index, log.last_index, log.term_at(5)) == (4, 5, 2)


def test_what_a_cut_left_is_gone_before_a_reset_log_grows() -> None:
    """An installed snapshot, while segments below another one still wait for their deletion, never
    leaves a log that seems to have a hole."""
    disk = founded()
    shop = Workshop(disk)
    shop.append(5, 1)
    shop.work("log", "background")
    shop.store.snapshot = shop.store.snapshots.save(3, 1, b"ours")
    shop.store.cut_before(3)
    shop.work("log")  # the deletion was begun and takes its time
    shop.store.snapshot = shop.store.snapshots.save(9, 2, b"the leader's")
    shop.store.reset(9, 2)
    shop.append(3, 2)
    shop.work("log")
    shop.work("background")
    shop.work("log")
    disk.kill()
    log = Workshop(disk).store.log
    assert (log.base_index, log.last_index) == (9, 12)


@pytest.mark.parametrize("staged", [True, False])
def test_a_crash_before_such_a_deletion_leaves_a_log_that_can_be_read(staged: bool) -> None:
    """The member starts again wherever that life ended."""
    disk = founded()
    shop = Workshop(disk)
    shop.append(5, 1)
    shop.work("log", "background")
    shop.store.snapshot = shop.store.snapshots.save(3, 1, b"ours")
    shop.store.cut_before(3)
    if not staged:
        shop.work("log")
    shop.store.snapshot = shop.store.snapshots.save(9, 2, b"the leader's")
    shop.store.reset(9, 2)
    shop.append(3, 2)
    shop.work("log")
    disk.kill()
    log = Workshop(disk).store.log
    assert (log.base_index, log.last_index) in ((9, 12), (9, 9))


def test_an_older_cut_at_the_end_of_the_log_does_not_outdate_what_comes_next() -> None:
    """Frames that end exactly where an earlier truncation left its marker are followed by others
    that every later start finds."""
    disk = founded()
    shop = Workshop(disk)

    def append(index: int, term: int) -> None:
        shop.store.log.append(make_image(index, 1, term, 100))
        shop.work("log", "background")

    for index in (1, 2, 3):
        append(index, 1)
    shop.store.truncate(3)
    shop.work("log")
    for term in (2, 3):
        shop.store.truncate(2)
        append(2, term)
    disk.kill()
    shop = Workshop(disk)
    append(3, 4)
    assert shop.store.log.durable_index == 3
    disk.kill()
    log = Workshop(disk).store.log
    assert [log.term_at(index) for index in (1, 2, 3)] == [1, 3, 4]
