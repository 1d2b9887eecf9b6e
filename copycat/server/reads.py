"""Queries that wait: for Raft to confirm the leadership, for their index to be applied, for room.

Every connection has its share in frames and bytes, so that nobody can take the room of all others,
and nothing waits longer than `WAIT_S`: what cannot be answered by then is given back to the client
(H85, H101). Nothing here answers a query. It serves the `Desk`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

WAITING_MAX = 65_536
"""Frames of queries that may wait at a member."""
WAITING_BYTES_MAX = 256 << 20
AHEAD_MAX = WAITING_MAX // 4
AHEAD_BYTES_MAX = WAITING_BYTES_MAX // 4
"""Of them, those for an index that this member's log has not reached: it may be made up."""
SHARE_MAX = 4096
"""Frames of queries of one connection that may wait."""
SHARE_BYTES_MAX = 8 << 20
WAIT_S = 10.0
"""Seconds; twice the default deadline of an operation: mostly nobody waits any more by then."""
SWEEP_S = 1.0

Query = tuple[int, int, int, bytes, float]
"""Index to reach, number in order of arrival, connection, frame, time (s) since which it waits."""


class Reads:
    """The waiting query frames of one member."""

    def __init__(self) -> None:
        self._fresh: list[Query] = []  # linearizable, and not yet asked about
        self._confirming: dict[int, list[Query]] = {}  # by Raft's read id
        self._waiting: list[Query] = []  # a heap: the lowest index first
        self._shares: dict[int, list[int]] = {}  # connection -> its frames, their bytes
        self._ahead: set[int] = set()  # numbers of those beyond the log when they came
        self.frames = self._bytes = self._ahead_bytes = 0
        self._arrived = self._read_ids = 0
        self._swept_at = -math.inf

    def __len__(self) -> int:
        return self.frames

    @property
    def waits(self) -> bool:
        """Whether a query waits for an index to be applied, or to be answered at all."""
        return bool(self._waiting)

    @property
    def sweep_at(self) -> float:
        """When `overdue` has to be asked at the latest, in s; never, if nobody waits."""
        return self._swept_at + SWEEP_S if self.frames else math.inf

    def ready(self, applied: int) -> bool:
        """Whether a query can be answered on the state at index ``applied``."""
        return bool(self._waiting) and self._waiting[0][0] <= applied

    def add(
        self, connection: int, frame: bytes, now: float, index: int | None, *, ahead: bool = False
    ) -> bool:
        """Let a frame wait for ``index``, or for Raft to give one (None); False: no room.

        ``ahead``: the index lies beyond the log of this member.
        """
        size = len(frame)
        share = self._shares.get(connection)
        if share is None:
            share = self._shares[connection] = [0, 0]
        if (
            share[0] >= SHARE_MAX
            or share[1] + size > SHARE_BYTES_MAX
            or self.frames >= WAITING_MAX
            or self._bytes + size > WAITING_BYTES_MAX
        ):
            return False
        if ahead:
            if len(self._ahead) >= AHEAD_MAX or self._ahead_bytes + size > AHEAD_BYTES_MAX:
                return False
            self._ahead.add(self._arrived + 1)
            self._ahead_bytes += size
        share[0] += 1
        share[1] += size
        self.frames += 1
        self._bytes += size
        self._arrived += 1
        if index is None:
            self._fresh.append((0, self._arrived, connection, frame, now))
        else:
            heapq.heappush(self._waiting, (index, self._arrived, connection, frame, now))
        return True

    def take_fresh(self) -> int | None:
        """An id for all linearizable queries of this turn, for which Raft shall find an index."""
        if not self._fresh:
            return None
        self._read_ids += 1
        self._confirming[self._read_ids] = self._fresh
        self._fresh = []
        return self._read_ids

    def confirmed(self, id_: int, index: int) -> None:
        """The queries behind ``id_`` may be answered once ``index`` is applied."""
        for _, nth, connection, frame, since in self._confirming.pop(id_, ()):
            heapq.heappush(self._waiting, (index, nth, connection, frame, since))

    def failed(self, id_: int) -> list[tuple[int, bytes]]:
        """Take out the queries behind ``id_``: (connection, frame)."""
        return self._released(self._confirming.pop(id_, []))

    def take_ready(self, applied: int) -> Iterator[tuple[int, bytes]]:
        """Take out, one by one, what can be answered at index ``applied``: (connection, frame)."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= applied:
            yield from self._released([heapq.heappop(waiting)])

    def overdue(self, now: float) -> list[tuple[int, bytes]]:
        """Take out what has waited for too long: (connection, frame)."""
        if now < self._swept_at + SWEEP_S:
            return []
        self._swept_at = now
        late: list[Query] = []
        self._waiting = _in_time(self._waiting, now, late)
        if late:
            heapq.heapify(self._waiting)
        for id_, queries in self._confirming.items():
            self._confirming[id_] = _in_time(queries, now, late)
        return self._released(sorted(late, key=lambda query: query[1]))

    def gone(self, connection: int) -> None:
        """A client's connection is closed: nobody waits for its answers."""
        if self._shares.get(connection, [0])[0] == 0:
            self._shares.pop(connection, None)
            return
        mine = [
            query
            for queries in (self._fresh, self._waiting, *self._confirming.values())
            for query in queries
            if query[2] == connection
        ]
        self._fresh = [query for query in self._fresh if query[2] != connection]
        self._waiting = [query for query in self._waiting if query[2] != connection]
        heapq.heapify(self._waiting)
        for id_, queries in self._confirming.items():
            self._confirming[id_] = [query for query in queries if query[2] != connection]
        self._released(mine)
        del self._shares[connection]

    def _released(self, queries: list[Query]) -> list[tuple[int, bytes]]:
        for _, nth, connection, frame, _ in queries:
            if nth in self._ahead:
                self._ahead.remove(nth)
                self._ahead_bytes -= len(frame)
            share = self._shares[connection]
            share[0] -= 1
            share[1] -= len(frame)
            self.frames -= 1
            self._bytes -= len(frame)
        return [(query[2], query[3]) for query in queries]


def _in_time(queries: list[Query], now: float, late: list[Query]) -> list[Query]:
    """The queries that may wait on; the others are put into ``late``."""
    late += [query for query in queries if now - query[4] > WAIT_S]
    return [query for query in queries if now - query[4] <= WAIT_S]
