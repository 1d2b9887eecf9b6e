"""Linearizable reads at a member that does not lead: the leader is asked for an index (thesis 6.4).

All reads of a step share one request, and no request is ever repeated: whoever still wants to know
asks anew, under a new number. An answer counts only for the request that it names, in the term in
which that was made and in this life of the process; so what is late, doubled, or meant for the
process that was here before settles nothing (H28). Whatever makes an answer unlikely fails the
reads: another term, a leader lost from sight, a broken connection to it, or time (H26).
"""

from __future__ import annotations

from ..ports import Random
from .messages import ReadIndexRequest, ReadIndexResponse
from .standing import Standing

LIFE_BITS = 64


class Asking:
    """The reads of one member that wait for its leader; ``patience`` is in seconds."""

    __slots__ = ("_life", "_me", "_number", "_patience", "_under_way", "_waiting")

    def __init__(self, standing: Standing, random: Random, patience: float) -> None:
        self._me = standing
        self._patience = patience
        self._life = random.getrandbits(LIFE_BITS)
        self._number = 0
        self._waiting: list[int] = []  # of this step
        self._under_way: dict[int, tuple[float, list[int]]] = {}  # number -> asked at (s), reads

    def add(self, id_: int) -> None:
        """A read wants an index; without a leader in sight it fails at once."""
        if self._me.leader is None:
            self._me.ready.reads_failed += (id_,)
        else:
            self._waiting.append(id_)

    def flush(self) -> None:
        """Ask the leader about the reads of this step, and give up those that nobody answers."""
        me = self._me
        if not self._waiting and not self._under_way:
            return
        if me.leader is None:
            self.fail()
            return
        while self._under_way:
            number = next(iter(self._under_way))  # the oldest
            asked_at, ids = self._under_way[number]
            if me.now - asked_at < self._patience:
                break
            del self._under_way[number]
            me.ready.reads_failed += tuple(ids)
        if self._waiting:
            self._number += 1
            self._under_way[self._number] = (me.now, self._waiting)
            self._waiting = []
            me.send(ReadIndexRequest(me.term, me.name, me.leader, self._life, self._number))

    def take(self, answer: ReadIndexResponse) -> None:
        """The leader of the current term has answered; a request is settled once."""
        if answer.life != self._life:
            return
        _, ids = self._under_way.pop(answer.number, (0.0, []))
        ready = self._me.ready
        if answer.index is None:
            ready.reads_failed += tuple(ids)
        else:
            ready.reads = (*ready.reads, *((id_, answer.index) for id_ in ids))

    def fail(self) -> None:
        """Give all of them up: no answer to what was asked so far may count any more."""
        for _, ids in self._under_way.values():
            self._me.ready.reads_failed += tuple(ids)
        self._me.ready.reads_failed += tuple(self._waiting)
        self._under_way.clear()
        self._waiting = []
