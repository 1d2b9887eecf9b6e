"""What ends by itself: entries of a `Table` with a time to live, and those of one session.

It knows when and with whom, in log time and session numbers; a machine asks it what has ended and
removes that. All of it follows from the table, but for the timers that are under way: those alone
are in snapshots.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import timedelta

from ..errors import ConfigurationError, Rejected
from ..machine import Commit
from ..types import Mode
from .table import Table, Terms

TTL_MAX_S = 100 * 366 * 86_400
"""Seconds, a hundred years."""
_SPARE = 64
_EXACT = 8


class Endings:
    """The entries of ``table`` that have terms.

    Attributes:
        count: how many there are.
        timers: when the machine's timers fire, the next one last.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._due: list[tuple[int, int]] = []  # (log time, serial); some are void
        self._timed = 0  # how many are not
        self._owned: dict[int, dict[int, None]] = {}  # session -> serials
        self.count = 0
        self.timers: list[int] = []

    def restored(self, timers: list[int], terms: Iterable[tuple[int, Terms]]) -> None:
        """The table came from a snapshot, and these timers were under way."""
        self.clear()
        self.timers = timers
        for serial, each in terms:
            self.begin(serial, each)

    def clear(self) -> None:
        """There is no entry left."""
        self._due.clear()
        self._owned.clear()
        self._timed = self.count = 0

    def begin(self, serial: int, terms: Terms) -> None:
        """An entry that has ``terms`` was written."""
        self.count += 1
        due_us, session = terms
        if due_us:
            heapq.heappush(self._due, (due_us, serial))
            self._timed += 1
        if session:
            self._owned.setdefault(session, {})[serial] = None

    def forget(self, serial: int | None) -> None:
        """The entry of ``serial`` is about to be overwritten or removed: its place becomes void."""
        terms = None if serial is None else self._table.terms(serial)
        if serial is None or terms is None:
            return
        self.count -= 1
        due_us, session = terms
        if due_us:
            self._timed -= 1
            if len(self._due) > 2 * self._timed + _SPARE:
                # Writes at one moment with one time to live leave equals: one of each is enough.
                self._due = [each for each in dict.fromkeys(self._due) if self._is_timed(*each)]
                heapq.heapify(self._due)
        if session:
            owned = self._owned[session]
            del owned[serial]
            if not owned:
                del self._owned[session]

    def due(self, now_us: int) -> list[int]:
        """The serials whose time has come, in the order of their times."""
        found: list[int] = []
        while self._due and self._due[0][0] <= now_us:
            due_us, serial = heapq.heappop(self._due)
            if self._is_timed(due_us, serial) and found[-1:] != [serial]:
                found.append(serial)
        return found

    def of(self, session: int) -> list[int]:
        """The serials that end with ``session``, in order."""
        return sorted(self._owned.get(session, ()))

    def schedule(self, commit: Commit, operation: str) -> None:
        """See to it that the machine's ``operation`` runs when the next entry is due.

        A timer cannot be taken back, so those under way are counted on. With many of them the next
        one comes too early rather than being one more: after the greatest power of two (us) that
        fits. Each such power is smaller than the one before, so there are never more than about
        60 timers, whatever is written.
        """
        now_us, timers = commit.time_us, self.timers
        while timers and timers[-1] <= now_us:
            timers.pop()
        while self._due and not self._is_timed(*self._due[0]):
            heapq.heappop(self._due)
        if not self._due or (timers and timers[-1] <= self._due[0][0]):
            return
        delay_us = max(1, self._due[0][0] - now_us)
        if len(timers) >= _EXACT:
            delay_us = 1 << (delay_us.bit_length() - 1)
        timers.append(now_us + delay_us)
        commit.schedule(delay_us / 1e6, operation)

    def _is_timed(self, due_us: int, serial: int) -> bool:
        terms = self._table.terms(serial)
        return terms is not None and terms[0] == due_us


def terms_of(commit: Commit, ttl_us: int, ephemeral: bool) -> Terms | None:
    """The terms of what the running command writes. Raises `Rejected` if it asks for nonsense."""
    if not (ttl_us or ephemeral):
        return None
    if type(ttl_us) is not int or not 0 <= ttl_us <= TTL_MAX_S * 1_000_000:
        raise Rejected("a time to live is a number of microseconds from 1 to a hundred years")
    if ephemeral and not commit.session:
        raise Rejected("what belongs to no session cannot end with one")
    return [commit.time_us + ttl_us if ttl_us else 0, commit.session if ephemeral else 0]


def wire_terms(ttl: float | timedelta | None, mode: Mode) -> list[object]:
    """What a handle sends for ``ttl`` (s) and ``mode``; raises `ConfigurationError`."""
    if ttl is None and mode is Mode.PERSISTENT:
        return []
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if seconds is not None and not (
        isinstance(seconds, (int, float)) and 0 < seconds <= TTL_MAX_S
    ):
        raise ConfigurationError(
            f"ttl is a number of seconds above 0, or a timedelta, not {ttl!r}",
            hint="leave it out for what should stay",
        )
    if not isinstance(mode, Mode):
        raise ConfigurationError(f"mode is Mode.PERSISTENT or Mode.EPHEMERAL, not {mode!r}")
    ttl_us = 0 if seconds is None else max(1, round(seconds * 1e6))
    return [ttl_us, mode is Mode.EPHEMERAL]
