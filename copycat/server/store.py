"""The store: marries Raft's decisions (indexes, terms, votes) to bytes on the disk.

It owns the log, the hard state and the snapshot files of one member. Changes in memory are made at
once and staged; `next_jobs` gives the one job that may be under way on the log lane, which makes
everything staged so far durable in the order that safety needs: votes, truncations, then entries
(group commit without a timer: whatever gathers while the disk is busy forms the next group). It
decides nothing about consensus and reads no clock.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

from .._core.layout import SEGMENT_DATA_OFFSET
from .._core.log import Log, Truncation
from .._core.recovery import Repair, recover
from .._core.segment import framed_size
from ..errors import CopycatError, CorruptLogError, DiskFullError
from ..ports import Disk, File
from ..raft.ready import HardState
from . import aside
from .aside import Aside
from .effects import Job
from .hardstate import HardStateFile
from .snapshots import SnapshotInfo, Snapshots

DIRECTORY = "log"
PREPARE_REST = 50
"""Turns between two attempts to prepare a segment on a disk that is full."""
RESERVE_MAX = 1 << 20
"""Bytes of the log that a full disk leaves to what keeps a cluster alive: first entries of terms,
ticks, keep-alives. Commands of clients get what is beyond them."""

Healer = Callable[[list[bytes], tuple[int, bytes] | None], bool]

log = logging.getLogger("copycat.store")


class Store:
    """One member's durable memory. Opening it blocks (recovery); afterwards only jobs do."""

    def __init__(
        self,
        disk: Disk,
        cluster_id: bytes,
        member_uuid: bytes,
        *,
        segment_bytes: int,
        on_saved: Callable[[HardState], None],
        on_durable: Callable[[int], None],
    ) -> None:
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._hard_state_file = HardStateFile(disk)
        self.hard_state = self._hard_state_file.state
        self.snapshots = Snapshots(disk, cluster_id)
        self.snapshot: SnapshotInfo | None = None
        self._cluster_id = cluster_id
        self._member_uuid = member_uuid
        self.log = self._new_log()
        self.damage: CorruptLogError | None = None  # what this member goes on without
        self._aside = Aside(disk)
        self._on_saved = on_saved
        self._on_durable = on_durable
        self._busy = False
        self._preparing = False
        self._rest = 0  # turns until a failed preparation is tried again
        self.full: BaseException | None = None  # why no segment could be prepared the last time
        self._reserve = min(RESERVE_MAX, segment_bytes // 8)
        self._staged_hard_state: HardState | None = None
        self._truncations: list[Truncation] = []
        self._obsolete: list[tuple[int, File]] = []
        self._cutting = False  # the job under way carries out truncations
        self._resetting = False  # a reset is staged
        self._deletions = 0  # jobs under way
        self._healed = False  # since the last jobs

    def _new_log(self) -> Log:
        return Log(self._cluster_id, self._member_uuid, self._segment_bytes, self._prepare)

    def recover(self, heal: Healer | None = None) -> Iterator[bytes] | None:
        """Read everything back; returns the newest snapshot's state, piece by piece. Blocks.

        A torn tail is cut silently. What is damaged raises `CorruptLogError`, unless ``heal`` says
        of the configurations that are left (in the log, and with the snapshot) that others have
        it: then it is put aside, and this member abstains until it has it again. Raises
        `WrongClusterError`.
        """
        try:
            return self._recover(None)
        except CorruptLogError as problem:
            if heal is None:
                raise
            self.damage = problem
        self.log.close()
        self.log = self._new_log()
        return self._recover(heal)

    def _recover(self, heal: Healer | None) -> Iterator[bytes] | None:
        damaged: list[str] = []
        self.snapshot = self.snapshots.newest(None if heal is None else damaged)
        self._disk.makedirs(DIRECTORY)
        files = self._segment_files()
        try:
            repair = recover(
                self.log, files, self._cluster_id, self._member_uuid,
                base_index=self.snapshot.index if self.snapshot else 0,
                bear_damage=heal is not None,
            )  # fmt: skip
            if heal is None:
                self._match_snapshot_and_log(lambda: self._cut(repair, files))
            else:
                self._heal(heal, repair, files, damaged)
        except BaseException:
            for _, file in files:
                file.close()
            raise
        if self.log.needs_segment():
            # Before anybody waits for us: the first batch must not have to wait for a file.
            with contextlib.suppress(DiskFullError):  # then it starts, votes, and waits for room
                self._add_segment(self._segment_bytes)
        if not self.hard_state.owes:
            self._aside.clear()
        return None if self.snapshot is None else self.snapshots.state(self.snapshot)

    def _segment_files(self) -> list[tuple[int, File]]:
        files: list[tuple[int, File]] = []
        for name in sorted(self._disk.listdir(DIRECTORY)):
            if name.endswith(".seg"):
                file = self._disk.open(f"{DIRECTORY}/{name}")
                if file.size() < self._segment_bytes and not any(file.pread(4096, 0)):
                    # A crash during its preparation: nothing was ever written to it.
                    file.close()
                    self._disk.unlink(f"{DIRECTORY}/{name}")
                else:
                    files.append((int(name.removesuffix(".seg")), file))
        return files

    def _cut(self, repair: Repair, files: list[tuple[int, File]]) -> None:
        """Carry out what the recovery asks for; from here on all of the log is durable."""
        self._truncate(Truncation(repair.writes, repair.segments))
        for file, offset, data in repair.rewrites:
            file.pwrite(data, offset)
        for segment_id, file in files:
            if (segment_id, file) not in repair.segments:
                file.sync()
        self._disk.sync_directory(DIRECTORY)

    def _heal(
        self, heal: Healer, repair: Repair, files: list[tuple[int, File]], damaged: list[str]
    ) -> None:
        """Go on without what is damaged, if the others have it.

        First it is on disk that this member abstains, in a term that nobody has been in: who leads
        now counts on what it acknowledged, and has to be elected anew. Then copies of everything
        that is about to be cut are made, and only then it is.
        """
        log_ = self.log
        known = [log_.images(index, index)[0] for index in log_.configurations]
        placed = None if self.snapshot is None else self.snapshot.configuration
        if self.damage is not None and not heal(known, placed):
            raise self.damage
        term = self.hard_state.term + 1
        self.hard_state = HardState(term, None, self.hard_state.promise_us, owes=term)
        self._hard_state_file.save(self.hard_state)
        self._aside.put([file for _, file in repair.touched], damaged)
        self._cut(repair, files)
        index = self.snapshot.index if self.snapshot is not None else 0
        if log_.base_index > index or (self.snapshot is None and log_.base_index):
            self._delete(list(reversed(log_.reset(0, 0))))
        self._match_snapshot_and_log(lambda: None)
        log.error(
            "%s. The others have it: this member takes part without a vote until it has all of it "
            "again. What was damaged is kept in %s/ until then", self.damage, aside.DIRECTORY,
        )  # fmt: skip

    def _match_snapshot_and_log(self, cut: Callable[[], None]) -> None:
        snapshot, log = self.snapshot, self.log
        index = snapshot.index if snapshot is not None else 0
        if log.base_index > index:
            raise CorruptLogError(
                f"the log begins after index {log.base_index}, but the newest snapshot ends at "
                f"{index}: what lies between is missing",
                segment=DIRECTORY,
                hint="restore the missing files, or remove this member's data directory and let "
                "it rejoin empty",
            )
        cut()
        if snapshot is not None and log.term_at(index) != snapshot.term:
            # The crash came between publishing an installed snapshot and dropping the old log.
            self._delete(list(reversed(log.reset(index, snapshot.term))))

    # -- staging -------------------------------------------------------------------------------

    def save_hard_state(self, state: HardState) -> None:
        """Stage a term and vote; they are durable when the job that takes them is done."""
        self._staged_hard_state = state

    def truncate(self, from_index: int) -> None:
        """Drop the log from ``from_index`` on."""
        self._truncations.append(self.log.truncate(from_index))

    def reset(self, index: int, term: int) -> None:
        """The log now begins after ``index``: an installed snapshot, durable already, rules."""
        obsolete, self._obsolete = self._obsolete, []
        self._truncations.append(Truncation([], obsolete + self.log.reset(index, term)))
        self._resetting = True

    def cut_before(self, index: int) -> None:
        """Drop whole segments that hold nothing above ``index``."""
        self._obsolete += self.log.cut_before(index)

    # -- room ----------------------------------------------------------------------------------

    def is_short(self, size: int = 0) -> bool:
        """Whether the disk is full and ``size`` more bytes of commands do not fit into the log.

        The end of the last segment is kept for what is small and keeps sessions and terms alive.
        """
        return self.full is not None and self.log.room_bytes < self._reserve + size

    @property
    def writing(self) -> bool:
        """Whether a write of the log, or of the hard state, is under way."""
        return self._busy

    def make_room(self, lengths: Sequence[int], *, after_cut: bool = False) -> bool:
        """See to it that images of these lengths, in bytes, can be appended; False: disk full.

        Blocks while it prepares a file, which happens when a burst outruns the preparation in the
        background. What is refused here must not be appended.
        """
        log_ = self.log
        while not log_.has_room(lengths, after_cut=after_cut):
            if self._rest:
                return False  # it was tried a moment ago
            needed = SEGMENT_DATA_OFFSET + framed_size(max(lengths))
            try:
                self._add_segment(max(needed, self._segment_bytes))
            except DiskFullError:
                return False
        return True

    def _add_segment(self, size: int) -> None:
        segment_id = self.log.take_segment_id()
        try:
            file = self._prepare(segment_id, size)
        except DiskFullError as problem:
            self._unprepared(problem)
            raise
        self._prepared(segment_id, file)

    # -- jobs ----------------------------------------------------------------------------------

    def next_jobs(self) -> list[Job]:
        """What should start now: at most one log job, a segment's preparation, deletions."""
        jobs: list[Job] = []
        # Were a part of the old log left when the new one has entries, there would seem to be a
        # hole between them.
        if not self._busy and not (self._resetting and self._deletions):
            job = self._log_job()
            if job is not None:
                self._busy = True
                jobs.append(job)
        if self._rest:
            self._rest -= 1
        elif not self._preparing and self.log.needs_segment():
            self._preparing = True
            jobs.append(self._preparation(self.log.take_segment_id()))
        if self._healed:
            self._healed = False
            log.warning("everything that was damaged is here again; this member votes again")
            jobs.append(Job("background", self._aside.clear))
        # A truncation may have to write to a segment that was cut off since.
        if (self._obsolete or self.log.discarded) and not (self._truncations or self._cutting):
            obsolete = self._obsolete + self.log.discarded
            self._obsolete, self.log.discarded = [], []
            self._deletions += 1
            jobs.append(Job("background", lambda: self._delete(obsolete), self._deleted))
        return jobs

    def _log_job(self) -> Job | None:
        write = self.log.take_writes()
        if write is None and self._staged_hard_state is None and not self._truncations:
            return None
        hard_state, self._staged_hard_state = self._staged_hard_state, None
        truncations, self._truncations = self._truncations, []
        self._cutting, self._resetting = bool(truncations), False

        def run() -> None:
            if hard_state is not None:
                self._hard_state_file.save(hard_state)
            for truncation in truncations:
                self._truncate(truncation)
            if write is not None:
                for file, offset, data in write.pieces:
                    file.pwrite(data, offset)
                for file in write.files:
                    file.sync()

        def then(_: object) -> None:
            self._busy = self._cutting = False
            if hard_state is not None:
                healed = self.hard_state.owes and not hard_state.owes
                self.hard_state = hard_state
                if healed:
                    self._healed = True
                self._on_saved(hard_state)
            if write is not None:
                self._on_durable(self.log.completed(write))

        size = 0 if write is None else write.size
        return Job("log", run, then, size=size + (1 << 20) * len(truncations))

    def _truncate(self, truncation: Truncation) -> None:
        """Later segments from back to front, each step durable (H23), then the cut itself.

        A crash in between leaves a longer, but whole, old log.
        """
        self._delete(list(reversed(truncation.segments)))
        for file, offset, data in truncation.writes:
            file.pwrite(data, offset)
            file.sync()

    def _prepare(self, segment_id: int, size: int) -> File:
        """A new segment file, allocated and zero-filled, durable with its name."""
        file = self._disk.open(_segment_name(segment_id), create=True)
        try:
            file.allocate(size)
        except BaseException:
            file.close()
            with contextlib.suppress(CopycatError, OSError):  # a full disk fills up with names too
                self._disk.unlink(_segment_name(segment_id))
            raise
        return file

    def _preparation(self, segment_id: int) -> Job:
        """The job that prepares a spare."""

        def then(file: File) -> None:
            self._preparing = False
            self._prepared(segment_id, file)

        def failed(error: BaseException) -> None:
            self._preparing = False
            self._unprepared(error)

        prepare = lambda: self._prepare(segment_id, self._segment_bytes)  # noqa: E731
        return Job("background", prepare, then, failed)

    def _prepared(self, segment_id: int, file: File) -> None:
        self.log.add_spare(segment_id, file)
        self._rest = 0
        if self.full is not None:
            self.full = None
            log.warning("there is space for the log again: everything goes on")

    def _unprepared(self, error: BaseException) -> None:
        """No spare segment: go on in the current one, and try again after a while."""
        if self.full is None:
            log.error(
                "no log segment of %d KiB could be prepared: %s. The current one has room for "
                "%d KiB; then commands are refused until there is space, and it resumes by itself",
                self._segment_bytes >> 10, error, self.log.room_bytes >> 10,
            )  # fmt: skip
        self.full = error
        self._rest = PREPARE_REST

    def _delete(self, segments: list[tuple[int, File]]) -> None:
        """Remove segments in the order given, each step durable, so that no hole can appear."""
        for segment_id, file in segments:
            file.close()
            self._disk.unlink(_segment_name(segment_id))
            self._disk.sync_directory(DIRECTORY)

    def _deleted(self, _: object) -> None:
        self._deletions -= 1

    def close(self) -> None:
        """Close every file; no job may be under way."""
        self._hard_state_file.close()
        self.log.close()


def _segment_name(segment_id: int) -> str:
    return f"{DIRECTORY}/{segment_id:020d}.seg"
