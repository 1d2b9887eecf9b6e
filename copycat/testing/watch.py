"""The laws of a cluster, checked after every turn of every member, from outside of all of them.

It sees what no member can: all logs, commitments, votes and states at once, and what each member
had promised before it died. It changes nothing; what it looks at are the production objects.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from .._core.codec import HEADER, HEADER_SIZE, Frame
from .._core.layout import BATCH_HEADER
from ..node import RunningMember
from ..raft.messages import AppendResponse, VoteRequest, VoteResponse
from ..server.effects import Slept
from ..server.peerwire import decode_message
from .checkers import CheckFailed
from .explanations import difference_of_images
from .watch_members import MembersWatch, incarnation

DIGEST_EVERY = 64
IMAGES_KEPT = 8
"""States of so many indexes are kept, to say what differs; larger ones are not."""
IMAGE_BYTES_MAX = 1 << 20
_CAUSES = (
    "Usual causes: a @query that changes an attribute (it runs on one member only), state that is "
    "kept outside of the machine, a clock or chance in a command"
)
LOG_TIME_SLACK_S = 1.0
_TERM, _TIME = 5, 6  # in a batch's header
_WATCHED = (Frame.APPEND_REPLY, Frame.VOTE, Frame.VOTE_REPLY)


@dataclass(slots=True)
class _Seen:
    """What is known of one member; ``promised_*`` survives its death."""

    term: int = 0
    commit_index: int = 0
    last_index: int = 0
    generation: int = 0
    was_leader: bool = False
    applied_index: int = 0
    saved: list[tuple[int, bytes]] = field(default_factory=list)  # snapshots: (index, state)
    promised_term: int = 0
    promised_index: int = 0  # acknowledged as durable...
    promised_index_term: int = 0  # ...with an entry of this term
    lost_index: int = 0  # up to where it had acknowledged what it has lost since


class Watch:
    """Raises `CheckFailed` at the first broken law.

    Attributes:
        elections: how many leaders there were.
        commit_index: the highest that any member has known.
        members: the laws of who takes part.
        leases: how many turns began with one.
        sessions: of the clients, which are to know when one is over; by whatever key.
        note: hears what a story should tell.
        damaged: says whether the disk of a member was, so that it may miss what it had.

    Args:
        now: tells true time, in seconds.
        skew: clocks of members run up to this fraction too fast.
    """

    def __init__(self, now: Callable[[], float], skew: float = 0.0) -> None:
        self._now = now
        self._rate_max = 1.0 + skew
        self._first: tuple[int, float] | None = None  # log time (us) and true time of a first batch
        self._began_us: dict[int, tuple[int, int]] = {}  # term -> its first batch and its log time
        self.elections = 0
        self.commit_index = 0
        self.note: Callable[[str], None] = lambda text: None
        self.members = MembersWatch(self._fail)
        self.members.note = lambda text: self.note(text)
        self.damaged: Callable[[str], bool] = lambda name: False
        self.leases = 0
        self.sessions: dict[str, Any] = {}
        self._seen: dict[str, _Seen] = {}
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._batches: dict[tuple[int, int], int] = {}  # (base index, term) -> checksum
        self._committed: dict[int, tuple[int, int]] = {}  # base index -> (term, checksum)
        self._bases: list[int] = []  # of what is committed, in order
        self._commit_terms: dict[int, int] = {}  # term in which -> the last base it committed
        self._digests: dict[int, tuple[int, str]] = {}
        self._images: dict[int, bytes] = {}

    # -- a member begins -----------------------------------------------------------------------

    def adopt(self, running: RunningMember) -> None:
        """A member has recovered and begins: it must remember what it promised.

        A wiped one is somebody else: it is called by its name and a part of its uuid.
        """
        member: Any = running.member
        identity = running.identity
        name = incarnation(running.name, identity.uuid if identity is not None else b"")
        seen = self._seen.setdefault(name, _Seen())
        log, state = member._store.log, member._store.hard_state
        if state.term < seen.promised_term:
            self._fail("promises", f"{name} spoke in term {seen.promised_term}, recovered {state}")
        vote = self._votes.get((name, state.term))
        if vote is not None and state.vote != vote:
            self._fail("promises", f"{name} voted for {vote} in its term, recovered {state}")
        term = log.term_at(seen.promised_index)
        if seen.promised_index > log.last_index or (
            seen.promised_index > log.base_index and term != seen.promised_index_term
        ):
            if not (state.owes and self.damaged(running.name)):
                self._fail(
                    "promises",
                    f"{name} had acknowledged {seen.promised_index} of term "
                    f"{seen.promised_index_term}; its log goes from {log.base_index} to "
                    f"{log.last_index}, with term {term} there",
                )
            seen.lost_index = max(seen.lost_index, seen.promised_index)
            self._promise(seen, log.durable_index, log)
        seen.term, seen.commit_index, seen.last_index = state.term, 0, log.base_index
        seen.generation = log.generation
        seen.was_leader, seen.applied_index = False, 0
        seen.saved.clear()
        turn = member.turn

        def watched(now: float, inputs: Any) -> Any:
            if Slept() not in inputs[:1]:
                self._check_lease(name, member._raft, now)
            effects = turn(now, inputs)
            self._look(name, member, seen, effects)
            return effects

        member.turn = watched
        _overhear(member._store.snapshots, seen)
        self._mind_ends(name, member._applier, log)

    def _mind_ends(self, name: str, applier: Any, log: Any) -> None:
        """Look at each session that expires."""
        end = applier._end

        def ending(session: Any, index: int, *, expired: bool) -> None:
            if expired and not session.doomed:
                self._check_expiry(name, session, log.term_at(index), applier.time_us)
            end(session, index, expired=expired)

        applier._end = ending

    # -- after a turn --------------------------------------------------------------------------

    def _look(self, name: str, member: Any, seen: _Seen, effects: Any) -> None:
        raft, log = member._raft, member._store.log
        if raft.term < seen.term or raft.commit_index < seen.commit_index:
            self._fail("monotony", f"{name}: term {seen.term} to {raft.term}, commit index "
                       f"{seen.commit_index} to {raft.commit_index}")  # fmt: skip
        seen.term = raft.term
        if raft.is_leader:
            if self._leaders.setdefault(raft.term, name) != name:
                self._fail("election safety", f"{name} and {self._leaders[raft.term]} both lead "
                           f"term {raft.term}")  # fmt: skip
            if not seen.was_leader:
                self.elections += 1
                self.note(f"{member.name} leads term {raft.term}")
                self._check_completeness(name, raft.term, log)
                term, candidate = raft.term, member.name
                voted = self._votes.get
                self.members.elected(name, member, lambda each: voted((each, term)) == candidate)
        elif seen.was_leader:
            self.note(f"{member.name} leads no more, in term {raft.term}")
        seen.was_leader = raft.is_leader
        if log.generation != seen.generation:
            seen.generation = log.generation
            seen.last_index = min(seen.last_index, raft.commit_index, log.last_index)
            if seen.promised_index > log.durable_index:
                if self._term_committed_at(seen.promised_index) == seen.promised_index_term:
                    self._fail("promises", f"{name} drops {seen.promised_index}, which it had "
                               "acknowledged and which is committed")  # fmt: skip
                self._promise(seen, log.durable_index, log)
        if log.base_index > log.durable_index:
            self._fail("durability", f"{name} cut its log up to {log.base_index}, durable is "
                       f"{log.durable_index}")  # fmt: skip
        before = seen.last_index
        if log.last_index > max(seen.last_index, log.base_index):
            self._check_matching(name, log, max(seen.last_index, log.base_index))
            seen.last_index = log.last_index
        if raft.commit_index > seen.commit_index:
            self._check_commitment(name, raft, log, max(seen.commit_index, log.base_index))
            seen.commit_index = raft.commit_index
            if raft.is_leader:
                self._check_majority(name, member, log, before)
        self.members.look(name, member, self.commit_index)
        for peer, frames in effects.peer_frames:
            self._hear(name, peer, seen, member, frames)
        self._check_state(name, member._applier)

    def _check_lease(self, name: str, raft: Any, now: float) -> None:
        """Who could answer by a lease knows of all that anybody knows to be committed (H29)."""
        lease = raft._replication._lease
        if now < lease.until and raft.ready_to_serve and not raft.is_late(now):
            self.leases += 1
            if raft.commit_index < self.commit_index:
                self._fail("lease", f"{name} has a lease and knows of {raft.commit_index}; "
                           f"{self.commit_index} is committed")  # fmt: skip

    def _check_completeness(self, name: str, term: int, log: Any) -> None:
        """A leader has what was committed in earlier terms: by log matching the last one shows."""
        base = max((b for t, b in self._commit_terms.items() if t < term), default=0)
        if base > log.base_index and log.term_at(base) != self._committed[base][0]:
            self._fail("leader completeness", f"{name} leads term {term} without the committed "
                       f"batch {base} of term {self._committed[base][0]}")  # fmt: skip

    def _check_matching(self, name: str, log: Any, after: int) -> None:
        """One (index, term) means one batch, made no earlier than its log time says."""
        for image in log.images(after + 1, log.last_index):
            base, term, checksum = _identity(image)
            known = self._batches.setdefault((base, term), checksum)
            if known != checksum:
                self._fail("log matching", f"{name} has another batch {base} of term {term}")
            self._check_log_time(name, base, image)

    def _check_log_time(self, name: str, base: int, image: bytes) -> None:
        """Log time runs no faster than true time, whoever led meanwhile (H40).

        Then nothing expires early: not by a calendar that jumps, nor by time that passes while
        nobody leads.
        """
        term, log_us = BATCH_HEADER.unpack_from(image)[_TERM : _TIME + 1]
        now = self._now()
        self._began_us[term] = min(self._began_us.get(term, (base, log_us)), (base, log_us))
        if self._first is None:
            self._first = (log_us, now)
        first_us, since = self._first
        if (log_us - first_us) / 1e6 > (now - since) * self._rate_max + LOG_TIME_SLACK_S:
            self._fail("log time", f"batch {base} of {name} is {(log_us - first_us) / 1e6:.3f} s "
                       f"after the first batch, which is {now - since:.3f} s old")  # fmt: skip

    def _check_commitment(self, name: str, raft: Any, log: Any, after: int) -> None:
        """What is committed anywhere is the same everywhere, for ever."""
        index = min(raft.commit_index, log.last_index)
        if index <= after:
            return
        for image in log.images(after + 1, index):
            base, term, checksum = _identity(image)
            if base not in self._committed:
                self._bases.append(base)
            known = self._committed.setdefault(base, (term, checksum))
            if known != (term, checksum):
                self._fail("state machine safety", f"{name} commits another batch {base}: term "
                           f"{term}, elsewhere {known[0]}")  # fmt: skip
            if raft.commit_index > self.commit_index:
                self._commit_terms[raft.term] = base
        self.commit_index = max(self.commit_index, raft.commit_index)

    def _check_majority(self, name: str, member: Any, log: Any, before: int) -> None:
        """What a leader commits is durable at a majority of those who vote by its own log.

        By the log as it was when the turn began: up to ``before``.
        """
        index = member._raft.commit_index

        def holds(who: str) -> bool:
            if who == name:
                return bool(log.durable_index >= index)
            return who in self._seen and self._seen[who].promised_index >= index

        self.members.commits(name, member, before, holds)

    def _hear(self, name: str, peer: str, seen: _Seen, member: Any, frames: bytes) -> None:
        """What leaves is a promise."""
        at, log = 0, member._store.log
        while at < len(frames):
            length, type_, _, _ = HEADER.unpack_from(frames, at)
            payload = frames[at + HEADER_SIZE : at + HEADER_SIZE + length]
            at += HEADER_SIZE + length
            if type_ not in _WATCHED:
                continue
            message = decode_message(type_, payload, member.name, peer)
            self._check_held(name, member, message)
            if isinstance(message, VoteRequest):
                self.members.speaks(name, member)
            if isinstance(message, VoteRequest) or getattr(message, "granted", False):
                self._check_memory(name, seen, log)
            if isinstance(message, VoteRequest) and not message.pre:
                self._vote(name, message.term, member.name)
            elif isinstance(message, VoteResponse) and message.granted and not message.pre:
                self._vote(name, message.term, peer)
            elif isinstance(message, AppendResponse):
                seen.promised_term = max(seen.promised_term, message.term)
                if message.term < member._raft.term:
                    continue  # it left before the later term's entries were taken in this turn
                if message.match_index > log.durable_index:
                    self._fail("durability", f"{name} acknowledges {message.match_index}, durable "
                               f"is {log.durable_index}")  # fmt: skip
                if message.match_index > seen.promised_index:
                    self._promise(seen, message.match_index, log)

    def _check_memory(self, name: str, seen: _Seen, log: Any) -> None:
        """Who lost what it had acknowledged takes part in no election before it has it again."""
        if not seen.lost_index:
            return
        at = bisect_left(self._bases, seen.lost_index + 1) - 1
        base = self._bases[at] if at >= 0 else 0
        if log.durable_index < base or (
            base > log.base_index and log.term_at(base) != self._committed[base][0]
        ):
            self._fail("memory", f"{name} takes part in an election without {base}, which is "
                       f"committed; it had acknowledged {seen.lost_index}")  # fmt: skip

    def _check_held(self, name: str, member: Any, message: Any) -> None:
        """Nothing is said in a term, and no vote given, before that is on disk."""
        durable = member._store.hard_state
        if getattr(message, "pre", False) or durable.term >= message.term:
            return
        self._fail("promises", f"{name} says {message}, durable is {durable}")

    def _term_committed_at(self, index: int) -> int:
        """Of the committed batch that has ``index``; 0 if nobody has committed one."""
        if index > self.commit_index or not self._bases or index < self._bases[0]:
            return 0
        return self._committed[self._bases[bisect_left(self._bases, index + 1) - 1]][0]

    def _vote(self, name: str, term: int, candidate: str) -> None:
        known = self._votes.setdefault((name, term), candidate)
        if known != candidate:
            self._fail("one vote", f"{name} votes for {candidate} and {known} in term {term}")
        seen = self._seen[name]
        seen.promised_term = max(seen.promised_term, term)

    def _promise(self, seen: _Seen, index: int, log: Any) -> None:
        seen.promised_index = index
        seen.promised_index_term = log.term_at(index) or 0

    # -- states --------------------------------------------------------------------------------

    def _check_state(self, name: str, applier: Any) -> None:
        """The same applied index means the same state (H24); sampled, it costs the whole state.

        Snapshots are compared as they are saved, and with whoever comes to the same index.
        """
        index, seen = applier.index, self._seen[name]
        if index < seen.applied_index:
            self._fail("monotony", f"{name} had applied {seen.applied_index}, now {index}")
        while seen.saved:
            self._compare(name, *seen.saved.pop())
        if index == seen.applied_index:
            return
        seen.applied_index = index
        self._check_sessions(name, applier)
        if index in self._digests or zlib.crc32(index.to_bytes(8, "little")) % DIGEST_EVERY == 0:
            self.compare(name, applier)

    def _check_sessions(self, name: str, applier: Any) -> None:
        """Nobody holds a session for alive that the cluster has ended.

        A client counts from when it asked, by its own clock: that deadline comes first.
        """
        for session in self.sessions.values():
            lifetime = session.lifetime
            if (
                0 < lifetime.id <= applier.index
                and applier.sessions.get(lifetime.id) is None
                and lifetime.reliable
                and not session._closing
            ):
                self._fail("sessions", f"{name} ended session {lifetime.id}, which its client may "
                           f"hold for alive for {lifetime.remaining():.3f} s more")  # fmt: skip

    def _check_expiry(self, name: str, session: Any, term: int | None, now_us: int) -> None:
        """Nobody is taken for dead in the first timeout of a leadership (H39).

        While nobody led, nobody could be heard.
        """
        _, began_us = self._began_us.get(term or 0, (0, 0))
        if now_us - began_us < session.timeout_us:
            self._fail("sessions", f"{name} ends session {session.id} {(now_us - began_us) / 1e6} "
                       f"s after term {term} began, of {session.timeout_us / 1e6} s")  # fmt: skip

    def compare(self, name: str, applier: Any) -> None:
        """Compare a member's state with that of whoever was at the same index."""
        self._compare(name, applier.index, applier.image())

    def _compare(self, name: str, index: int, image: bytes) -> None:
        digest = zlib.crc32(image)
        known, whose = self._digests.setdefault(index, (digest, name))
        if known == digest:
            self._keep(index, image)
            return
        text, other = f"{whose} and {name} differ at index {index}", self._images.get(index)
        if other is not None:
            found = difference_of_images(other, image)
            text += f": {found.type_name} at {found.path}: {found.text}"
        self._fail("same state", f"{text}. {_CAUSES}")

    def _keep(self, index: int, image: bytes) -> None:
        if len(image) <= IMAGE_BYTES_MAX:
            self._images[index] = image
            if len(self._images) > IMAGES_KEPT:
                del self._images[next(iter(self._images))]

    def _fail(self, law: str, text: str) -> NoReturn:
        raise CheckFailed(law, text)


def _overhear(snapshots: Any, seen: _Seen) -> None:
    """Note what is saved, once all of it was written."""
    begin = snapshots.begin

    def beginning(index: int, *more: Any) -> Any:
        saving, pieces = begin(index, *more), []
        add, finish = saving.add, saving.finish

        def adding(piece: bytes) -> None:
            pieces.append(piece)
            add(piece)

        def finishing() -> Any:
            seen.saved.append((index, b"".join(pieces)))
            return finish()

        saving.add, saving.finish = adding, finishing
        return saving

    snapshots.begin = beginning


def _identity(image: bytes) -> tuple[int, int, int]:
    """(base index, term, checksum) of a batch."""
    _, checksum, _, _, base, term, _, _, _ = BATCH_HEADER.unpack_from(image)
    return base, term, checksum
