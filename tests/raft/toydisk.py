"""A toy log and a toy disk: batches in a list, in memory and as far as they were synced."""

from __future__ import annotations

from dataclasses import dataclass, field

from copycat.raft import HardState, Trail
from copycat.raft.configurations import Placed
from copycat.raft.messages import Span

Batch = tuple[Span, bytes]


class ToyLog:
    """Batches after a base, as the member would read them from memory; serves Raft's `LogView`."""

    def __init__(self, base_index: int = 0, base_term: int = 0, batches: list[Batch] | None = None):
        self.base_index = base_index
        self.base_term = base_term
        self.batches: list[Batch] = list(batches or ())
        self.generation = 0  # rises whenever something written is taken back (H17)

    @property
    def last_index(self) -> int:
        """Of the last entry."""
        return self.batches[-1][0].last_index if self.batches else self.base_index

    @property
    def last_term(self) -> int:
        """Of the last entry."""
        return self.batches[-1][0].term if self.batches else self.base_term

    def append(self, span: Span, image: bytes) -> None:
        """Add a batch."""
        assert span.base_index == self.last_index + 1, f"a hole before {span}"
        self.batches.append((span, image))

    def truncate(self, from_index: int) -> None:
        """Drop whole batches from ``from_index`` on."""
        assert self.base_index < from_index <= self.last_index, "nothing to truncate"
        while self.batches and self.batches[-1][0].base_index >= from_index:
            self.batches.pop()
        assert self.last_index == from_index - 1, f"{from_index} is not the boundary of a batch"
        self.generation += 1

    def cut_before(self, index: int) -> None:
        """Drop the batches up to ``index``, which ends one."""
        while self.batches and self.batches[0][0].last_index <= index:
            span, _ = self.batches.pop(0)
            self.base_index, self.base_term = span.last_index, span.term
        assert self.base_index == index, f"{index} is not the end of a batch"

    def reset(self, index: int, term: int) -> None:
        """Begin anew behind ``index``."""
        self.base_index, self.base_term = index, term
        self.batches.clear()
        self.generation += 1

    def between(self, first_index: int, last_index: int) -> list[Batch]:
        """The batches that cover exactly these indexes."""
        found = [
            batch
            for batch in self.batches
            if first_index <= batch[0].base_index and batch[0].last_index <= last_index
        ]
        covered = sum(span.last_index - span.base_index + 1 for span, _ in found)
        assert covered == last_index - first_index + 1, "a window must be made of whole batches"
        return found

    def window_end(self, first_index: int, max_bytes: int) -> tuple[int, int]:
        """As `LogView` says."""
        starts = {span.base_index for span, _ in self.batches}
        assert first_index in starts or first_index > self.last_index, "in the middle of a batch"
        last, size = first_index - 1, 0
        for span, image in self.batches:
            if span.base_index >= first_index:
                if size and size + len(image) > max_bytes:
                    break
                last, size = span.last_index, size + len(image)
        return last, size

    def batch_start(self, index: int) -> int:
        """As `LogView` says."""
        return next(span.base_index for span, _ in self.batches if span.last_index >= index)

    def configurations(self) -> list[Placed]:
        """Those in the entries."""
        return [(s.base_index, s.membership) for s, _ in self.batches if s.membership is not None]

    def trail(self) -> Trail:
        """The terms of all entries."""
        runs: list[tuple[int, int]] = []
        for span, _ in self.batches:
            if not runs or runs[-1][1] != span.term:
                runs.append((span.base_index, span.term))
        return Trail(self.base_index, self.base_term, runs, self.last_index)


@dataclass
class Sync:
    """A sync under way: what was staged when it began."""

    hard_state: HardState | None
    base: tuple[int, int]
    batches: list[Batch]
    generation: int
    snapshot: tuple[int, int] | None
    configuration: Placed | None  # of the snapshot

    @property
    def last_index(self) -> int:
        """What the log will be durable up to."""
        return self.batches[-1][0].last_index if self.batches else self.base[0]


@dataclass
class ToyDisk:
    """What survives a crash."""

    hard_state: HardState = field(default_factory=HardState)
    base: tuple[int, int] = (0, 0)
    batches: list[Batch] = field(default_factory=list)
    snapshot: tuple[int, int] = (0, 0)
    configuration: Placed | None = None  # of the snapshot

    @property
    def last_index(self) -> int:
        """Of the durable log."""
        return self.batches[-1][0].last_index if self.batches else self.base[0]

    def write(self, sync: Sync) -> None:
        """All of a sync has happened."""
        if sync.hard_state is not None:
            self.hard_state = sync.hard_state
        if sync.snapshot is not None:
            self._install(sync)
        self.base, self.batches = sync.base, list(sync.batches)

    def _install(self, sync: Sync) -> None:
        """The snapshot is in place, unless there is a newer one (H19)."""
        if sync.snapshot is not None and sync.snapshot[0] > self.snapshot[0]:
            self.snapshot, self.configuration = sync.snapshot, sync.configuration

    def write_torn(self, sync: Sync, steps: int) -> None:
        """The first ``steps`` actions of a sync have happened, in the order safety needs."""
        actions = 0
        if sync.hard_state is not None and (actions := actions + 1) <= steps:
            self.hard_state = sync.hard_state
        if sync.snapshot is not None and (actions := actions + 1) <= steps:
            self._install(sync)
        if actions >= steps:
            return
        assert self.base == sync.base, "compaction and installation change both at once"
        shared = 0
        for mine, theirs in zip(self.batches, sync.batches, strict=False):
            if mine != theirs:
                break
            shared += 1
        # The truncation comes first, then batch after batch.
        self.batches = list(sync.batches[: shared + steps - actions - 1])

    def read(self) -> ToyLog:
        """Recovery: the log, or what a newer snapshot leaves of it."""
        log = ToyLog(*self.base, self.batches)
        index, term = self.snapshot
        if log.base_index < index and not log.trail().holds(index, term):
            self.base, self.batches = self.snapshot, []
            log.reset(index, term)
        return log
