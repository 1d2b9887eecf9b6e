"""Leases: reads without a round, for as long as nobody else can have been elected (thesis 6.4.1).

While lease reads are in use, requests ask for a *promise*: whoever accepts one lets nobody be
elected for an election timeout by its own clock (`Standing.promise`, kept by ``election`` and
``following``). When a majority has promised at a round's request, no other leader can be until the
first of these promises runs out, so a leader's own state is the newest there is. Three things
make that true, and each is H29 if it is missing: the leader counts from before it *sent* the round,
it counts shorter than they do by what clocks may drift, and whoever may have promised and forgotten
it waits after its restart.

A transfer of leadership goes around promises on purpose, so with the first bid of a term its lease
is over for good. This file is the leader's half; it reads no clock and sends nothing.
"""

from __future__ import annotations

from collections import deque

from .options import RaftOptions

LONG_AGO = float("-inf")
USE_TIMEOUTS = 2
"""Election timeouts for which promises are asked for after the last read that wanted a lease."""


class Lease:
    """What the leader of one term may rely on.

    Attributes:
        asked_us: the promise that requests ask for now, in microseconds; 0 while nobody reads so.
        until: the lease holds before this local time, in seconds.
    """

    __slots__ = ("_begun", "_is_void", "_options", "_span", "_wanted_until", "asked_us", "until")

    def __init__(self, options: RaftOptions) -> None:
        self._options = options
        drift = options.clock_drift
        # Their clocks may be too fast and count the timeout early, ours too slow and count it late.
        self._span = options.election_timeout * (1.0 - drift) / (1.0 + drift)
        self.begin_term()

    def begin_term(self) -> None:
        """A new leadership: nothing is promised to it, and it asks for nothing yet."""
        self._is_void = False
        self._wanted_until = LONG_AGO
        self.asked_us = 0
        self.lapse()

    def want(self, now: float) -> None:
        """A read wants a lease: requests ask for it from now on."""
        if not self._is_void:
            self._wanted_until = now + USE_TIMEOUTS * self._options.election_timeout
            self.asked_us = self._options.election_timeout_us

    def review(self, now: float) -> None:
        """Ask no more if nobody reads so any more; the last promises run out by themselves."""
        if now >= self._wanted_until:
            self.asked_us = 0

    def began(self, round_: int, now: float) -> None:
        """``round_`` begins, which asks for promises; nothing of it has been sent yet."""
        begun = self._begun
        while begun and begun[0][1] + self._span <= now:
            begun.popleft()  # a lease from then would be over; perhaps nobody promises anything
        begun.append((round_, now))

    def promised(self, round_: int) -> None:
        """A majority gave its promise when it accepted ``round_`` or a later one."""
        begun = self._begun
        while begun and begun[0][0] <= round_:
            self.until = begun.popleft()[1] + self._span

    def lapse(self) -> None:
        """What was promised so far does not count, nor what will be for the rounds under way."""
        self.until = LONG_AGO
        self._begun: deque[tuple[int, float]] = deque()  # (round, local time in s), ascending

    def forsake(self) -> None:
        """Somebody is bidden to stand, whom no promise stops: no lease any more in this term."""
        self._is_void = True
        self.asked_us = 0
        self.lapse()
