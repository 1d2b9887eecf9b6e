"""What a member does while it leads: it cuts batches, stamps them with log time, and counts them.

Raft says at which index; the images are sealed here and staged in the store, and the member's next
step sends them. It decides nothing about terms and elections, applies nothing, and is as
synchronous and pure as the `Member` that it serves.
"""

from __future__ import annotations

import logging
import math
from collections import deque

from .._core import layout
from .._core.kernel import encode_run, seal_batch
from .._core.layout import BATCH_HEADER_SIZE, Kind
from ..errors import CopycatError
from ..raft import Membership, Raft
from ..serializer import Serializer
from .administration import Administration
from .applier import Applier
from .desk import Desk
from .store import Store

log = logging.getLogger("copycat.member")

CHECK_S = 10.0
"""Seconds between two checks whether members agree; each goes with a batch that leaves anyway."""


class Leading:
    """The log as its leader writes it.

    Args:
        name: this member.
        pipeline_batches: proposed and not committed; what comes meanwhile is gathered.
        batch_bytes: a batch is cut here.
        backlog_bytes: logged and not applied; beyond it new commands are refused.
        wall_us: the calendar, in microseconds; only the very first leader of a cluster looks at it.
        now: local time in seconds.

    Attributes:
        term_start: index of the first entry of the term.
        tick_at: local time (s) at which log time has to advance at the latest.
    """

    def __init__(
        self,
        name: str,
        raft: Raft,
        store: Store,
        applier: Applier,
        desk: Desk,
        administration: Administration,
        *,
        pipeline_batches: int,
        batch_bytes: int,
        backlog_bytes: int,
        wall_us: int,
        now: float,
    ) -> None:
        self._name = name
        self._raft = raft
        self._store = store
        self._applier = applier
        self._desk = desk
        self._administration = administration
        self._pipeline_batches = pipeline_batches
        self._batch_bytes = batch_bytes
        self._backlog_bytes_max = backlog_bytes
        self._wall_us = wall_us
        self._now = now
        self._serializer = Serializer(opaque=True)
        self._clock_base = (0, 0.0)  # log time in us at a local time in s
        self._under_way: deque[int] = deque()  # last indexes of batches that may not be committed
        self._backlog_bytes = 0
        self._check_at = math.inf  # local time, in s
        self.term_start = 0
        self.tick_at = math.inf

    # -- from the election to the end ----------------------------------------------------------

    def begin_term(self, now: float) -> bool:
        """Elected: the first entry of the term carries old entries to commitment (H11).

        False if the disk has no room even for that one.
        """
        self._now = now
        last_us = max(self._store.log.last_time_us, self._applier.time_us)
        # Log time goes on where it stopped, by this member's monotonic clock alone (H40); only
        # the very first leader of a cluster looks at the calendar.
        self._clock_base = (last_us or self._wall_us, now)
        types = sorted(self._applier.executor.machines)
        arguments = self._serializer.pack([self._name, types])
        run = encode_run(Kind.INITIALIZE, 0, 0, 0, [(0, 0, arguments)])
        if not self._store.make_room([BATCH_HEADER_SIZE + len(run)]):
            return False
        self.term_start = self._log([run])
        return True

    def began_serving(self, now: float) -> None:
        """Everything from before the term is applied: nothing of it counts as backlog."""
        self._backlog_bytes = 0
        self.tick_at = now
        self._check_at = now + CHECK_S

    def deposed(self) -> None:
        """Whether what is under way will be committed is another leader's business."""
        self._under_way.clear()

    def applied(self, first_index: int, size: int) -> None:
        """Batches from ``first_index`` on, of ``size`` bytes, are applied."""
        if first_index >= self.term_start:
            self._backlog_bytes -= size

    def overloaded(self, size: int = 0) -> bool:
        """Whether too much of what this leader logged is not applied or not durable here, or its
        disk has no room for ``size`` more bytes."""
        queued = self._desk.run_bytes
        waiting = max(self._backlog_bytes, self._store.log.excess_bytes)
        return waiting + queued > self._backlog_bytes_max or self._store.is_short(queued + size)

    # -- batches -------------------------------------------------------------------------------

    def propose(self, now: float) -> bool:
        """Log what the desk admitted, cut into batches, or a tick if log time has to advance."""
        self._now = now
        runs = self._desk.runs
        ticking = not runs
        under_way = self._under_way
        while under_way and under_way[0] <= self._raft.commit_index:
            under_way.popleft()
        if self._raft.handing_over:
            return False
        if runs:
            if len(under_way) >= self._pipeline_batches:
                return False  # they form a larger batch with whatever comes until one commits
            self._desk.runs = []
            self._desk.run_bytes = 0
        else:
            if now < self.tick_at or not self._tick_is_due():
                return False
            runs = [encode_run(Kind.TICK, 0, 0, 0, [(0, 0, b"\x90")])]
        if now >= self._check_at:
            self._check_at = now + CHECK_S
            check = self._serializer.pack(self._applier.agreement.next_check())
            runs.append(encode_run(Kind.TICK, 0, 0, 0, [(0, 0, check)]))
        logged = 0
        while logged < len(runs):
            end, size = logged + 1, len(runs[logged])
            while end < len(runs) and size + len(runs[end]) <= self._batch_bytes:
                size += len(runs[end])
                end += 1
            if not self._store.make_room((BATCH_HEADER_SIZE + size,)):
                return (not ticking and self._wait_for_room(runs[logged:])) or logged > 0
            self._log(runs[logged:end])
            logged = end
        return logged > 0

    def _wait_for_room(self, runs: list[bytes]) -> bool:
        """Let ``runs`` wait for space or for another leader; only signs of life go past them.

        They promise nothing about what they overtake. Returns whether something was logged.
        """
        signs = [run for run in runs if run[0] == Kind.KEEP_ALIVE]
        size = BATCH_HEADER_SIZE + sum(map(len, signs))
        passing = 0 < len(signs) < len(runs) and self._store.make_room((size,))
        if passing:
            self._log(signs)
            runs = [run for run in runs if run[0] != Kind.KEEP_ALIVE]
        self._desk.runs = runs
        self._desk.run_bytes = sum(map(len, runs))
        return passing

    def configure(self, membership: Membership, now: float) -> bool:
        """Log the configuration that Raft wants; False if the disk has no room for it now."""
        self._now = now
        roster = self._administration.next_roster(membership)
        run = roster.run()
        if not self._store.make_room([BATCH_HEADER_SIZE + len(run)]):
            return False
        index = self._raft.propose_configuration(membership)
        if index is None:
            return False
        self._stage([run], index, 1, layout.CONFIGURATION_FLAG)
        self._administration.appended(index, roster)
        log.info("%s: members at index %d: %s", self._name, index, membership)
        return True

    def _log(self, runs: list[bytes]) -> int:
        """Give runs the next indexes, seal them into one image, stage it; the first index."""
        count = sum(int.from_bytes(run[4:8], "little") for run in runs)
        base = self._raft.propose(count)
        if base is None:
            raise CopycatError("a batch was cut by a member that does not lead")
        self._stage(runs, base, count)
        return base

    def _stage(self, runs: list[bytes], base: int, count: int, flags: int = 0) -> None:
        image = seal_batch(runs, base, self._raft.term, self._log_time_us(), flags)
        self._store.log.append(image)
        self._under_way.append(base + count - 1)
        self._backlog_bytes += len(image)

    # -- log time ------------------------------------------------------------------------------

    def stop_log_time(self, now: float) -> None:
        """Commands are refused, so log time stands still, as without a leader: no session expires
        for what it could not say."""
        self._clock_base = (self._store.log.last_time_us, now)

    def wake_at(self, now: float) -> float:
        """Local time (s) at which log time has to advance by a tick; infinite if never."""
        deadline = self._applier.next_deadline_us()
        if deadline is None or self._store.log.last_time_us > deadline:
            self.tick_at = math.inf  # what is logged says so already, once it is applied
        else:
            base_us, since = self._clock_base
            self.tick_at = since + (deadline - base_us) / 1e6 + 0.001
        if self.tick_at <= now:  # it waits for a batch to commit, or for space on the disk
            self.tick_at = now + (0.001 if self._store.full is None else 0.1)
        return self.tick_at

    def _log_time_us(self) -> int:
        base_us, since = self._clock_base
        elapsed = int((self._now - since) * 1e6)
        return max(base_us + elapsed, self._store.log.last_time_us)

    def _tick_is_due(self) -> bool:
        """A session or timer is overdue and nothing logged so far says so."""
        deadline = self._applier.next_deadline_us()
        return (
            deadline is not None and self._store.log.last_time_us <= deadline < self._log_time_us()
        )
