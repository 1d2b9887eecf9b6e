"""Lines: those who wait for something, first come first served, and what they wait for is granted.

Whoever waits does so under a *claim*, an id made by the client for one acquisition, not under its
session: two tasks of one process contend like strangers. Pure; nothing here says what is granted.
It serves the machines of locks, elections, semaphores, barriers and queues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import OverloadedError, Rejected
from ..machine import StateMachine, command, event, query

GRANTED = "granted"
LINE_MAX = 10_000
"""Claims that may wait for one resource."""
CLAIM_BYTES_MAX = 64
NAME_MAX = 1024


class LineMachine(StateMachine):
    """The line. A subclass has the command ``acquire``, which grants or lines up."""

    granted = event(list[Any])  # [claim, what it gets], to the session that made the claim

    def __init__(self) -> None:
        self.waiting: dict[bytes, list[Any]] = {}  # claim -> [name, session, terms]

    @command
    def release(self, claim: bytes) -> bool:
        """Leave the line, or give back what was granted; whether there was something to give."""
        self.waiting.pop(claim, None)
        return False

    @query
    def line(self) -> list[Any]:
        """[name, session] of those who wait, the next one first."""
        return [waiter[:2] for waiter in self.waiting.values()]

    def on_close(self, session: int) -> None:
        """An ended session waits for nothing."""
        for claim in [c for c, waiter in self.waiting.items() if waiter[1] == session]:
            del self.waiting[claim]

    def on_delete(self, session: int) -> None:
        """Nobody's turn comes any more."""
        self.commit.dismiss(waiter[1] for waiter in self.waiting.values())

    def _line_up(self, claim: bytes, name: str, terms: Any) -> None:
        """Let ``claim`` wait at the end, unless it waits already."""
        if claim in self.waiting:
            return
        if len(self.waiting) >= LINE_MAX:
            raise OverloadedError(f"{LINE_MAX} wait in line already")
        self.waiting[claim] = [name, self.commit.session, terms]


def check_claim(claim: object, name: object) -> None:
    """Raise `Rejected` unless they can stand in a line: others' memory pays for them."""
    if type(claim) is not bytes or len(claim) > CLAIM_BYTES_MAX:
        raise Rejected(f"a claim is an id of at most {CLAIM_BYTES_MAX} bytes")
    if type(name) is not str or len(name) > NAME_MAX:
        raise Rejected(f"a client's name has at most {NAME_MAX} characters")


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds or waits: the client's name, its session, and the token (0 while waiting)."""

    name: str
    session: int
    token: int = 0
