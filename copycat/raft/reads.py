"""Linearizable reads without a log entry: ReadIndex (thesis 6.4).

A read may be served from the state at the commit index it found when it arrived, once a quorum has
answered a round that began afterwards: then nobody else can have led, and committed more, before
the read arrived. That holds wherever it is served: other members ask for an index just as well, see
``asking``. Whom to ask for the round is ``replication``'s business.
"""

from __future__ import annotations

from collections import deque

from .messages import ReadIndexRequest, ReadIndexResponse
from .standing import Standing

Reader = int | ReadIndexRequest
"""The id of a read of this member, or the request of another one."""


class Reads:
    """The reads of one leadership that have not been confirmed yet."""

    __slots__ = ("_me", "asked", "waiting")

    def __init__(self, standing: Standing) -> None:
        self._me = standing
        self.waiting: list[Reader] = []  # not in a round yet
        self.asked: deque[tuple[int, int, list[Reader]]] = deque()  # (round, index, readers)

    def begin(self, round_: int, index: int) -> None:
        """All waiting reads share ``round_``, which nobody has been asked yet (H27, H28)."""
        self.asked.append((round_, index, self.waiting))
        self.waiting = []

    def confirmed(self, round_: int) -> None:
        """A quorum answered ``round_`` or a later one: answer the reads that this settles."""
        own: list[tuple[int, int]] = []
        while self.asked and self.asked[0][0] <= round_:
            _, index, readers = self.asked.popleft()
            for reader in readers:
                if isinstance(reader, int):
                    own.append((reader, index))
                else:
                    self._me.send(_answer(self._me, reader, index))
        if own:
            self._me.ready.reads = own

    def fail(self) -> None:
        """Give up, in the order of their arrival; to be called while still in the same term."""
        readers = [each for _, _, readers in self.asked for each in readers] + self.waiting
        self.asked.clear()
        self.waiting = []
        for reader in readers:
            if isinstance(reader, int):
                self._me.ready.reads_failed += (reader,)
            else:
                self.refuse(reader)

    def refuse(self, request: ReadIndexRequest) -> None:
        """Tell another member that nobody here can give it an index."""
        self._me.send(_answer(self._me, request, None))


def _answer(me: Standing, request: ReadIndexRequest, index: int | None) -> ReadIndexResponse:
    return ReadIndexResponse(me.term, me.name, request.sender, request.life, request.number, index)
