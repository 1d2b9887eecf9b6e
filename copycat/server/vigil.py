"""The vigil: says, in the log, that there has been no leader for a while, and who is missing.

Without a leader nothing fails by itself: locks and elections go on waiting, as they should. Whoever
looks after the cluster must still hear of it. It only looks and speaks, ever more rarely; it serves
a running member.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from ..ports import Clock

LOOK_S = 1.0
FIRST_S = 5.0
"""Seconds without a leader after which that is said for the first time..."""
REST_MAX_S = 60.0
"""...and the longest time until it is said again."""

log = logging.getLogger("copycat.node")


class Vigil:
    """Watches over one member.

    Args:
        name: of the member.
        leader: gives the leader it knows, or None.
        problems: gives the peers that it does not reach, and why.
        clock: for how long there has been none.
        loop: on which it looks.
    """

    def __init__(
        self,
        name: str,
        leader: Callable[[], str | None],
        problems: Callable[[], Mapping[str, str]],
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._name = name
        self._leader = leader
        self._problems = problems
        self._clock = clock
        self._loop = loop
        self._since: float | None = None  # clock time at which the leader was missed first
        self._rest = FIRST_S
        self._said = False
        self._timer = loop.call_later(LOOK_S, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        now = self._clock.now()
        leader = self._leader()
        if leader is not None:
            if self._said:
                log.warning("%s has a leader again: %s", self._name, leader)
            self._since, self._rest, self._said = None, FIRST_S, False
        elif self._since is None:
            self._since = now
        elif now - self._since >= self._rest:
            self._say(now - self._since)

    def _say(self, seconds: float) -> None:
        missing = [f"{name} ({problem})" for name, problem in sorted(self._problems().items())]
        log.warning(
            "%s has had no leader for %.0f s: nothing can be written or locked. %s", self._name,
            seconds, f"Not reached: {', '.join(missing)}" if missing else "All members are reached",
        )  # fmt: skip
        self._said = True
        self._rest = seconds + min(seconds, REST_MAX_S)
