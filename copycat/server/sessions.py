"""Sessions as replicated state: who may command, what was answered, which events are waiting.

Everything here changes only through applied entries and log time, so that all members agree
(H36, H39). No connection, no clock, no leader is known here.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
from collections import deque
from collections.abc import Iterable, Iterator

from .._core.kernel import decode_results, encode_results

RESULT_BYTES_MAX = 64 << 20
"""Results of one session that it has not acknowledged; beyond it its commands are refused."""
EVENT_BYTES_MAX = 8 << 20
"""Unacknowledged events of one session beyond this many bytes end the session (H44)."""


SESSIONS_MAX = 100_000
"""Sessions of a cluster; the same on every member, since it decides what is registered."""
_DUE_SPARE = 64  # deadlines of sessions that ended early, beside one for each that is there
FULL = -1
"""Stands for the id of a session that could not be registered because there are too many."""


def proof_of(secret: bytes) -> bytes:
    """What is kept of a session's secret. The secret has 128 bits of chance, so one hash does."""
    return hashlib.blake2b(secret, digest_size=16).digest()


class Session:
    """One client's identity: its answered commands and its undelivered events."""

    __slots__ = (
        "acknowledged",
        "doomed",
        "event_bytes",
        "events",
        "id",
        "last_event",
        "last_sequence",
        "name",
        "proof",
        "result_bytes",
        "results",
        "seen_us",
        "timeout_us",
        "uuid",
    )

    def __init__(
        self, id_: int, uuid: bytes, proof: bytes, name: str, timeout_us: int, seen_us: int
    ) -> None:
        self.id = id_
        self.uuid = uuid
        self.proof = proof
        self.name = name
        self.timeout_us = timeout_us
        self.seen_us = seen_us
        self.last_sequence = 0
        self.acknowledged = 0
        # A run's results stay as they were encoded, and go when the last of them is acknowledged.
        self.results: deque[tuple[int, int, bytes]] = deque()  # first sequence, last, results
        self.result_bytes = 0
        self.events: deque[tuple[int, int, bytes]] = deque()  # (index, index before, payload)
        self.event_bytes = 0
        self.last_event = 0
        self.doomed = False  # ended early: nothing refreshes it, its deadline does the rest

    def is_proven_by(self, secret: bytes) -> bool:
        """Whether ``secret`` is the one it was registered with; takes the same time always."""
        return hmac.compare_digest(self.proof, proof_of(secret))

    @property
    def deadline_us(self) -> int:
        """The log time at which it expires unless something is heard from it."""
        return self.seen_us + self.timeout_us

    def acknowledge(self, sequence: int) -> None:
        """Forget the results up to ``sequence``: the client has them."""
        sequence = min(sequence, self.last_sequence)
        if sequence > self.acknowledged:
            self.acknowledged = sequence
            results = self.results
            while results and results[0][1] <= sequence:
                self.result_bytes -= len(results.popleft()[2])

    def answered(self, count: int, results: bytes) -> None:
        """Keep the encoded results of the ``count`` commands after ``last_sequence``."""
        first = self.last_sequence + 1
        self.last_sequence += count
        self.results.append((first, self.last_sequence, results))
        self.result_bytes += len(results)

    def _doom(self) -> None:
        """End it early: what it owns may only be given away when its client has surely given up,
        which is at the deadline, so it is not removed, only never refreshed again."""
        self.doomed = True
        self.events.clear()
        self.event_bytes = 0
        self.acknowledged = self.last_sequence
        self.results.clear()
        self.result_bytes = 0

    def cached(self, first: int, count: int, room: int = 1 << 62) -> bytes | None:
        """The results of ``count`` sequences from ``first``, encoded; None if one is forgotten.

        They are fewer, by whole runs, if there are more than ``room`` bytes before the last.
        """
        if first <= self.acknowledged or first + count - 1 > self.last_sequence:
            return None
        found: list[bytes] = []
        size = 0
        for begin, last, results in self.results:
            if last >= first and begin < first + count and size <= room:
                listed = decode_results(results, 0, last - begin + 1)
                found += listed[max(0, first - begin) : first + count - begin]
                size += len(results)
        return encode_results(found)

    def add_event(self, index: int, payload: bytes) -> int:
        """Queue an event; returns the index of the event before it."""
        previous = self.last_event
        self.events.append((index, previous, payload))
        self.event_bytes += len(payload)
        self.last_event = index
        if self.event_bytes > EVENT_BYTES_MAX:
            self._doom()
        return previous

    def acknowledge_events(self, index: int) -> None:
        """Forget the events up to ``index``: the client has them."""
        while self.events and self.events[0][0] <= index:
            self.event_bytes -= len(self.events.popleft()[2])

    def image(self) -> list[object]:
        """Everything about it, for a snapshot."""
        return [
            self.id, self.uuid, self.proof, self.name, self.timeout_us, self.seen_us,
            self.last_sequence, self.acknowledged, [list(run) for run in self.results],
            [list(event) for event in self.events], self.last_event, self.doomed,
        ]  # fmt: skip

    @classmethod
    def from_image(cls, image: list) -> Session:  # type: ignore[type-arg]
        """The session that made ``image``."""
        session = cls(*image[:6])
        session.last_sequence, session.acknowledged = image[6], image[7]
        session.results.extend((first, last, results) for first, last, results in image[8])
        session.result_bytes = sum(len(run[2]) for run in session.results)
        session.events.extend((index, before, payload) for index, before, payload in image[9])
        session.event_bytes = sum(len(event[2]) for event in session.events)
        session.last_event, session.doomed = image[10], image[11]
        return session


class SessionTable:
    """All sessions, and which of them is due to expire next."""

    def __init__(self, sessions: Iterable[Session] = ()) -> None:
        self._sessions: dict[int, Session] = {session.id: session for session in sessions}
        self._by_uuid = {session.uuid: session.id for session in self._sessions.values()}
        # One entry a session; a session seen since is pushed back when it comes up. Those of the
        # ended stay until they come up as well, or are more than the others.
        self._due = [(session.deadline_us, session.id) for session in self._sessions.values()]
        heapq.heapify(self._due)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(self, id_: int) -> Session | None:
        """The session, or None if it ended or never was."""
        return self._sessions.get(id_)

    def is_full(self, uuid: bytes, coming: int = 0) -> bool:
        """Whether there is no room for a session of ``uuid`` besides ``coming`` others."""
        return len(self._sessions) + coming >= SESSIONS_MAX and uuid not in self._by_uuid

    def register(
        self, index: int, uuid: bytes, proof: bytes, name: str, timeout_us: int, now_us: int
    ) -> Session | None:
        """A new session with id ``index``, or the living one of the same client uuid.

        A client whose registration was answered by a leader that died asks again with the same
        uuid, and must not leave a second session behind. None if the living one has another
        ``proof``: whoever saw a uuid somewhere shall get nothing for it (H97); and None if there
        is no living one and too many others (`is_full`).
        """
        known = self._by_uuid.get(uuid)
        if known is not None:
            session = self._sessions[known]
            if not hmac.compare_digest(session.proof, proof):
                return None
            if not session.doomed:
                session.seen_us = now_us
            return session
        if len(self._sessions) >= SESSIONS_MAX:
            return None
        session = Session(index, uuid, proof, name, timeout_us, now_us)
        self._sessions[index] = session
        self._by_uuid[uuid] = index
        heapq.heappush(self._due, (session.deadline_us, index))
        return session

    def remove(self, id_: int) -> Session | None:
        """End a session."""
        session = self._sessions.pop(id_, None)
        if session is not None:
            del self._by_uuid[session.uuid]
            if len(self._due) > 2 * len(self._sessions) + _DUE_SPARE:
                self._due = [(each.deadline_us, each.id) for each in self]
                heapq.heapify(self._due)
        return session

    def touch_all(self, now_us: int) -> None:
        """A new leader's first entry: nobody could be heard meanwhile, so all start anew (H39)."""
        for session in self._sessions.values():
            if not session.doomed:
                session.seen_us = now_us

    def next_deadline_us(self) -> int | None:
        """The log time at which the first session expires; None if there is none."""
        due = self._due
        while due:
            deadline, id_ = due[0]
            session = self._sessions.get(id_)
            if session is None:
                heapq.heappop(due)
            elif session.deadline_us > deadline:
                heapq.heapreplace(due, (session.deadline_us, id_))
            else:
                return deadline
        return None

    def expired(self, now_us: int) -> list[Session]:
        """Take out the sessions whose deadline lies before ``now_us``, the earliest first."""
        found: list[Session] = []
        while True:
            deadline = self.next_deadline_us()
            if deadline is None or deadline >= now_us:
                return found
            session = self.remove(self._due[0][1])
            if session is not None:
                found.append(session)
