"""What a simulated administrator does: one wish in a process of its own, as a command line would.

It uses the public ``cc.cluster`` and writes down how the wish ended. It decides nothing; which
wishes there are is fate's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cluster import Cluster
from ..errors import DeadlineError, MembershipError, UnavailableError

if TYPE_CHECKING:
    from .hosting import Hosting

DONE, REFUSED, LATE = "done", "refused", "late"
LIMIT_S = 15.0
"""Seconds that a wish has: also to find somebody who hears it."""
SLACK_S = 5.0

Deed = Callable[[Cluster, float], Awaitable[object]]


@dataclass(slots=True, eq=False)
class Wish:
    """Something that an administrator wants.

    Attributes:
        outcome: "" while it is under way, then done, refused, or late: not known.
    """

    kind: str
    name: str
    begun: float
    outcome: str = ""
    why: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}, wished at {self.begun:.3f} s: {self.outcome} ({self.why})"


class Consoles:
    """All administrators of a cluster.

    Args:
        hosting: the cluster.

    Attributes:
        wishes: all there were.
    """

    def __init__(self, hosting: Hosting) -> None:
        self.wishes: list[Wish] = []
        self._hosting = hosting

    def wish(
        self, kind: str, name: str, deed: Deed, then: Callable[[Wish], None] | None = None
    ) -> Wish:
        """Have ``deed(cluster, timeout)`` done; ``then`` hears of its end."""
        hosting = self._hosting
        wish = Wish(kind, name, hosting.timeline.now)
        self.wishes.append(wish)
        hosting.timeline.trace(f"wish: {kind} {name}")
        console = f"admin{len(self.wishes)}"
        process = hosting.console_process(console)

        async def work() -> None:
            try:
                async with hosting.connect(process, timeout=LIMIT_S) as cc:
                    await deed(cc.cluster, LIMIT_S)
                wish.outcome = DONE
            except MembershipError as problem:
                wish.outcome, wish.why = REFUSED, str(problem)
            except (DeadlineError, UnavailableError) as problem:
                wish.outcome, wish.why = LATE, str(problem)
            hosting.timeline.after(0.0, end)

        def end() -> None:
            hosting.timeline.trace(f"wish: {kind} {name} is {wish.outcome} {wish.why}")
            hosting.console_ended(console)
            if then is not None:
                then(wish)

        process.spawn(work())
        return wish

    def overdue(self) -> Wish | None:
        """A wish that should have ended long ago."""
        limit = self._hosting.timeline.now - 2 * LIMIT_S - SLACK_S
        return next((each for each in self.wishes if not each.outcome and each.begun < limit), None)

    @property
    def busy(self) -> int:
        """How many wishes are under way."""
        return sum(not wish.outcome for wish in self.wishes)
