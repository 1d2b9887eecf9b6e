"""The applier: turns committed batches into state, the same on every member.

It is the replicated state of a member: sessions, path tree, resources with their machines, timers.
It sees only images and log time: no clock, no connection, no leader. Recovery has no code of its
own; entries replay through here. What the outside has to hear is collected in `Applied`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from .._core.calls import run_commands
from .._core.kernel import batch_runs, crc32, decode_commands
from .._core.layout import BATCH_HEADER, Kind, Status
from ..errors import invariant
from ..machine import StateMachine
from ..serializer import Serializer
from ..system import SYSTEM_RESOURCE
from .agreement import Agreement
from .executor import RETRY_MS, Executor, failure
from .levelling import level_for
from .sessions import FULL, RESULT_BYTES_MAX, Session, SessionTable
from .system import System

ANSWER_BYTES_MAX = 16 << 20
"""Answers to the queries of one frame; a frame of a few kilobytes could ask for gigabytes."""

_TOO_MUCH = failure(
    Status.OVERLOADED,
    f"the answers to queries that were sent together exceed {ANSWER_BYTES_MAX >> 20} MiB",
    RETRY_MS,
)
_UNREAD = failure(
    Status.OVERLOADED,
    f"this session has {RESULT_BYTES_MAX >> 20} MiB of results that its client has not read yet. "
    "Not applied.",
    RETRY_MS,
)
_TOO_LONG = failure(
    Status.FAILED,
    "SerializationError",
    f"the result has more than {ANSWER_BYTES_MAX >> 20} MiB (what a command changed is changed)",
    "the operation",
)


@dataclass(slots=True)
class Applied:
    """What applying brought about and a leader has to tell its clients."""

    # Session, first sequence, how many, the results encoded.
    answers: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    events: list[tuple[int, int, int, bytes]] = field(default_factory=list)  # session, index, prev
    registered: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    """Client uuid, proof, session (0: there is one with another proof; `FULL`: no room)."""
    kept: list[tuple[int, int]] = field(default_factory=list)  # session, nonce
    unknown: list[tuple[int, int]] = field(default_factory=list)  # session, first sequence
    ended: list[int] = field(default_factory=list)  # sessions


class Applier:
    """Applies images in index order; ``index`` and ``time_us`` are those of the last one."""

    def __init__(self, machines: Mapping[str, type[StateMachine]], serializer: Serializer) -> None:
        self.index = 0
        self.time_us = 0
        self.sessions = SessionTable()
        self.timers: list[tuple[int, int, int, str, bytes]] = []  # due_us, nth, resource, op, args
        self._timers_made = 0
        self._timers_of: dict[int, int] = {}  # resource -> how many of them
        self._events: dict[int, list[list[object]]] = {}  # session -> [[resource, event, value]]
        self._out = Applied()
        self._pack = Serializer(opaque=True).pack
        self._unpack = Serializer(opaque=True).unpack
        self._unpack_each = Serializer(opaque=True).unpack_each
        self.executor = Executor(machines, serializer, self)
        self.executor.level = level_for(machines)
        self.system = System(self.executor, self)
        self.agreement = Agreement(self.executor)
        self._said = 0  # checksum of results and events since the last check
        self._handlers: dict[int, Callable[..., None]] = {
            Kind.COMMAND: self._commands,
            Kind.REGISTER: self._register,
            Kind.KEEP_ALIVE: self._keep_alive,
            Kind.UNREGISTER: self._unregister,
            Kind.INITIALIZE: self._initialize,
            Kind.TICK: self._tick,
            Kind.CONFIGURATION: self._nothing,
        }

    # -- applying ------------------------------------------------------------------------------

    def apply(self, image: bytes) -> None:
        """Apply one verified image; it must begin right after ``index``."""
        level = self.executor.level
        if level is None:
            self._apply(image)
        else:
            with level:
                self._apply(image)

    def _apply(self, image: bytes) -> None:
        header = BATCH_HEADER.unpack_from(image)
        base, time_us, count = header[4], header[6], header[7]
        invariant(base == self.index + 1, "applied {}, then a batch from {}", self.index, base)
        invariant(time_us >= self.time_us, "log time went back at index {}", base)
        self.time_us = time_us
        self.index = base
        runs = batch_runs(image)
        if runs[0][0] == Kind.INITIALIZE:
            # Before anything is found to be overdue: no one could be heard without a leader.
            self.sessions.touch_all(time_us)
        self._advance(base)
        for kind, session, first, acknowledged, length, offset in runs:
            self._handlers[kind](image, base, session, first, acknowledged, length, offset)
            base += length
        if self._events:
            self._flush_events(self.index)
        self.index = header[4] + count - 1

    def take(self) -> Applied:
        """What came about since the last call."""
        out, self._out = self._out, Applied()
        return out

    def query(self, buffer: bytes, offset: int, count: int) -> list[bytes]:
        """The results of ``count`` queries on the state as it is; changes nothing.

        They share `ANSWER_BYTES_MAX`: what comes behind it is refused, each query by itself.
        """
        answer = self.executor.query
        results: list[bytes] = []
        size = 0
        for resource, operation, arguments in decode_commands(buffer, offset, count):
            if size > ANSWER_BYTES_MAX:
                result = _TOO_MUCH
            elif resource == SYSTEM_RESOURCE:
                result = self.system.query(operation, arguments)
            else:
                result = answer(resource, operation, arguments, self.index, self.time_us)
            if len(result) > ANSWER_BYTES_MAX:
                result = _TOO_LONG
            size += len(result)
            results.append(result)
        return results

    def next_deadline_us(self) -> int | None:
        """The log time at which a session expires or a timer is due; None if neither."""
        expiry = self.sessions.next_deadline_us()
        if not self.timers:
            return expiry
        return self.timers[0][0] if expiry is None else min(expiry, self.timers[0][0])

    # -- runtime for machines ------------------------------------------------------------------

    def publish(self, resource: int, event: str, value: bytes, to: int | None) -> int:
        """Queue an event for one session, or for every session that listens; for how many."""
        told = [resource, event, value]
        count = 0
        for id_ in self.system.listeners(resource, event) if to is None else (to,):
            session = self.sessions.get(id_)
            if session is not None and not session.doomed:
                self._events.setdefault(id_, []).append(told)
                count += 1
        return count

    def schedule(self, resource: int, delay_us: int, operation: str, arguments: bytes) -> None:
        """Run a command of ``resource`` once log time has advanced by ``delay_us``."""
        self._timers_made += 1
        # Never at once: a machine that schedules itself without a delay would go on for ever.
        due = self.time_us + max(1, delay_us)
        timer = (due, self._timers_made, resource, operation, arguments)
        heapq.heappush(self.timers, timer)
        self._timers_of[resource] = self._timers_of.get(resource, 0) + 1

    def retire(self, resources: Iterable[int]) -> None:
        """These were deleted: what they have scheduled will not be run."""
        gone = {resource for resource in resources if self._timers_of.pop(resource, 0)}
        if gone:
            self.timers = [timer for timer in self.timers if timer[2] not in gone]
            heapq.heapify(self.timers)

    def retract(self, resource: int) -> None:
        """Take back what ``resource`` published and did not send yet, and all that it scheduled."""
        for session, events in list(self._events.items()):
            kept = [event for event in events if event[0] != resource]
            if kept:
                self._events[session] = kept
            else:
                del self._events[session]
        self.retire([resource])
        # How many were made on the way down is not certain to be the same; their order is all that
        # the numbers are for.
        self._timers_made = max((timer[1] for timer in self.timers), default=0)

    # -- kinds of runs -------------------------------------------------------------------------

    def _commands(
        self, image: bytes, base: int, id_: int, first: int, acknowledged: int, count: int, at: int
    ) -> None:
        session = self.sessions.get(id_)
        if session is None or session.doomed:
            self._out.unknown.append((id_, first))
            return
        session.seen_us = self.time_us
        session.acknowledge(acknowledged)
        # The first ``skip`` commands were applied before: an old leader had logged them already.
        skip = session.last_sequence + 1 - first
        invariant(skip >= 0, "session {} skipped from {} to {}", id_, session.last_sequence, first)
        if skip < count:
            results = run_commands(
                image, at, count, skip, base + skip, self.time_us, id_,
                self.executor.table, self._slow, self._events, self._flush_events,
                RESULT_BYTES_MAX - session.result_bytes, ANSWER_BYTES_MAX, _UNREAD, _TOO_LONG,
            )  # fmt: skip
            self._said = crc32(results, self._said)
            session.answered(count - skip, results)
            self._out.answers.append((id_, first + skip, count - skip, results))

    def _slow(
        self, resource: int, operation: int, arguments: bytes, index: int, session: int
    ) -> bytes:
        self.index = index
        if resource == SYSTEM_RESOURCE:
            return self.system.command(operation, arguments, session)
        return self.executor.command(resource, operation, arguments, index, self.time_us, session)

    def _register(
        self, image: bytes, base: int, _: int, __: int, ___: int, count: int, at: int
    ) -> None:
        for index, (_r, _o, arguments) in enumerate(decode_commands(image, at, count), base):
            self.index = index
            uuid, timeout_ms, name, proof = self._unpack(arguments)
            session = self.sessions.register(
                index, uuid, proof, name, timeout_ms * 1000, self.time_us
            )
            refused = FULL if self.sessions.is_full(uuid) else 0
            self._out.registered.append((uuid, proof, session.id if session else refused))
            if session is not None and session.id == index:
                for instance in self.executor.instances():
                    self.executor.hook(instance, "on_register", index, self.time_us, session.id)
            if self._events:
                self._flush_events(index)

    def _keep_alive(
        self, image: bytes, base: int, id_: int, nonce: int, acknowledged: int, count: int, at: int
    ) -> None:
        session = self.sessions.get(id_)
        if session is None or session.doomed:
            self._out.unknown.append((id_, 0))
            return
        session.seen_us = self.time_us
        session.acknowledge(acknowledged)
        session.acknowledge_events(self._unpack(decode_commands(image, at, 1)[0][2])[0])
        self._out.kept.append((id_, nonce))

    def _unregister(
        self, image: bytes, base: int, id_: int, _: int, __: int, ___: int, at: int
    ) -> None:
        session = self.sessions.remove(id_)
        if session is not None:
            self.index = base
            self._end(session, base, expired=False)
            if self._events:
                self._flush_events(base)

    def _initialize(
        self, image: bytes, base: int, _: int, __: int, ___: int, count: int, at: int
    ) -> None:
        leader, types = self._unpack(decode_commands(image, at, 1)[0][2])
        self.system.allow(leader, types)

    def _tick(
        self, image: bytes, base: int, _: int, __: int, ___: int, count: int, at: int
    ) -> None:
        """Only carries log time, or else a check (see `Agreement`)."""
        arguments = self._unpack(decode_commands(image, at, 1)[0][2])
        if arguments:
            self.agreement.check(base, self._said, *arguments)
            self._said = 0

    def _nothing(self, *_: object) -> None:
        """A configuration speaks to Raft alone."""

    # -- log time ------------------------------------------------------------------------------

    def _advance(self, index: int) -> None:
        """Timers that are due, then sessions that are overdue, each in deterministic order."""
        while self.timers and self.timers[0][0] <= self.time_us:
            _, _, resource, operation, arguments = heapq.heappop(self.timers)
            self._timers_of[resource] -= 1
            if not self._timers_of[resource]:
                del self._timers_of[resource]
            self.executor.timer(resource, operation, arguments, index, self.time_us)
        for session in self.sessions.expired(self.time_us):
            self._end(session, index, expired=True)

    def _end(self, session: Session, index: int, *, expired: bool) -> None:
        self._out.ended.append(session.id)
        self._events.pop(session.id, None)
        self.system.end(session.id)
        for instance in self.executor.instances():
            if expired:
                self.executor.hook(instance, "on_expire", index, self.time_us, session.id)
            self.executor.hook(instance, "on_close", index, self.time_us, session.id)

    def _flush_events(self, index: int) -> None:
        packed: dict[tuple[int, ...], bytes] = {}  # those who are told the same share its bytes
        for id_, events in self._events.items():
            session = self.sessions.get(id_)
            if session is not None and not session.doomed:
                same = tuple(map(id, events))
                payload = packed.get(same) or packed.setdefault(same, self._pack(events))
                self._said = crc32(payload, self._said)
                self._out.events.append((id_, index, session.add_event(index, payload), payload))
        self._events.clear()

    # -- snapshots -----------------------------------------------------------------------------

    def freeze(self) -> Iterator[bytes]:
        """The whole state at ``index``, in one deterministic encoding; only between batches.

        What does not come in pieces of its own (`StateMachine.snapshot`) is encoded now, the rest
        while the pieces are taken, whatever is applied meanwhile. Raises `SerializationError` now
        or while they are taken.
        """
        head = self._pack(
            [
                self.index,
                self.time_us,
                self._timers_made,
                [list(timer) for timer in sorted(self.timers)],
                [session.image() for session in self.sessions],
                self.system.image(),
            ]
        )
        return chain((head,), self.executor.freeze())

    def image(self) -> bytes:
        """The whole state at ``index`` at once."""
        return b"".join(self.freeze())

    def restore(self, state: bytes | Iterable[bytes]) -> None:
        """Become the state that `freeze` gave, at once or in whatever pieces it comes."""
        values = self._unpack_each((state,) if isinstance(state, bytes) else state)
        index, time_us, timers_made, timers, sessions, system = next(values)
        self.index, self.time_us, self._timers_made = index, time_us, timers_made
        self.timers = [tuple(timer) for timer in timers]  # sorted, hence a heap
        self._timers_of = dict(Counter(timer[2] for timer in self.timers))
        self.sessions = SessionTable(map(Session.from_image, sessions))
        self._events.clear()
        self._out = Applied()
        self.executor.restore(values)
        self.system.restore(system)
        self.agreement.restored()
        self._said = 0
