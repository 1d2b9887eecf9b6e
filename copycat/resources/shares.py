"""Shares: who holds something, alone or beside others, and the line behind them. Pure.

Who may hold beside whom is said by a subclass, in `_admits`; the first in line is never overtaken,
whatever those behind it ask for. It serves locks, elections, semaphores and read-write locks, whose
client half is `turns.Turns`.
"""

from __future__ import annotations

from typing import Any, cast

from ..errors import ConflictError
from ..machine import command, query
from .line import LineMachine, check_claim


class SharesMachine(LineMachine):
    """Holders and line.

    A token is the log index of its grant; tokens rise strictly. ``terms`` are what a claim asks
    for: None, or what the subclass makes of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.holders: dict[bytes, list[Any]] = {}  # claim -> [name, session, token, terms]
        self.last_token = 0

    @command
    def acquire(self, claim: bytes, name: str, wait: bool, terms: Any = None) -> int:
        """The token if the claim may hold; 0 if it has to wait, or may not wait and left."""
        check_claim(claim, name)
        held = self.holders.get(claim)
        if held is not None:
            return cast(int, held[2])
        self._agree(terms)
        if not self.waiting and self._admits(terms):
            return self._grant(claim, name, self.commit.session, terms)
        if wait:
            self._line_up(claim, name, terms)
        return 0

    @command
    def release(self, claim: bytes) -> bool:
        """Give back what the claim holds or leave the line; whether it was held."""
        held = self.holders.pop(claim, None)
        if held is not None or self.waiting.pop(claim, None) is not None:
            self._pass_on()
        return held is not None

    @query
    def held(self) -> list[Any]:
        """[name, session, token] of those who hold, in the order of their tokens."""
        return [holder[:3] for holder in self.holders.values()]

    @query
    def expect(self, token: int) -> None:
        """Raise `ConflictError` unless something is held under this token."""
        tokens = [holder[2] for holder in self.holders.values()]
        if token not in tokens:
            raise ConflictError(f"nobody holds it under token {token}", current=tokens)

    def on_close(self, session: int) -> None:
        """An ended session holds nothing and waits for nothing."""
        before = len(self.waiting)
        super().on_close(session)
        gone = [c for c, holder in self.holders.items() if holder[1] == session]
        for claim in gone:
            del self.holders[claim]
        if gone or len(self.waiting) < before:
            self._pass_on()

    def on_delete(self, session: int) -> None:
        """Holders and line are told.

        An administrator's act: a holder hears of it as soon as its connection stands, and until
        then it does not know. Tokens keep it safe: an index rises also over a deletion.
        """
        involved = [*self.holders.values(), *self.waiting.values()]
        self.commit.dismiss(each[1] for each in involved)

    def _agree(self, terms: Any) -> None:
        """Raise unless the terms make sense; what they settle for everybody is noted here."""

    def _admits(self, terms: Any) -> bool:
        """Whether a claim with these terms may hold beside those who do."""
        raise NotImplementedError

    def _pass_on(self) -> None:
        """Grant to all at the front of the line who may hold now."""
        while self.waiting:
            claim = next(iter(self.waiting))
            name, session, terms = self.waiting[claim]
            if not self._admits(terms):
                return
            del self.waiting[claim]
            self.granted.publish([claim, self._grant(claim, name, session, terms)], to=session)

    def _grant(self, claim: bytes, name: str, session: int, terms: Any) -> int:
        # Several grants can fall on one index, when sessions end there.
        self.last_token = max(self.commit.index, self.last_token + 1)
        self.holders[claim] = [name, session, self.last_token, terms]
        return self.last_token
