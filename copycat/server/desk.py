"""The desk: where clients' frames are checked, admitted, held, and answered.

It belongs to the member's turn and is as synchronous and pure as that. A leader's admission keeps
per-session continuity: a run is logged only if it continues the last one logged, so replicated
state never has to wait for a hole (H38). What the desk keeps is volatile: after a change of leader
clients attach to the new one and send again what was not answered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .._core.codec import (
    ANSWERS_HEAD,
    ATTACH_HEAD,
    ATTACHED_HEAD,
    EVENTS_HEAD,
    KEPT_HEAD,
    QUERY_HEAD,
    REGISTERED_HEAD,
    REJECT_HEAD,
    RESULTS_HEAD,
    U64,
    Frame,
    Reason,
    pack_frame,
)
from .._core.kernel import check_run, decode_commands, encode_results, encode_run, slice_run
from .._core.layout import FormatError, Kind
from ..errors import SerializationError
from ..serializer import Serializer
from ..types import Consistency
from .applier import Applied, Applier
from .pieces import pieces
from .reads import Reads
from .sessions import FULL, Session, proof_of

ARGUMENTS_MAX = 1 << 20
IN_FLIGHT_MAX = 8192
HELD_BYTES_MAX = 8 << 20
ANSWER_BYTES_MAX = 16 << 20
"""Answers to queries in one turn: the others wait for the next, while these leave."""
RESULTS_BYTES_MAX = 8 << 20
"""Results of commands in one turn, a single one and those of a few bytes aside."""
RESULTS_FEW = 64 << 10
ADMIN_INTERVALS_S = {"snapshot": 1.0, "transfer": 5.0}
SESSION_TIMEOUT_MS = (100, 3_600_000)
RETRY_MS = 20
FULL_RETRY_MS = 1000


class Host(Protocol):
    """What the desk asks of its member."""

    @property
    def leading(self) -> bool:
        """Leader, though perhaps not ready to serve yet."""

    @property
    def serving(self) -> bool:
        """Leader, and everything logged before its term is applied."""

    def lease_index(self) -> int | None:
        """Where a read may be served without asking anybody; None if Raft has to find an index."""

    @property
    def last_index(self) -> int:
        """Of the last entry in this member's log."""

    @property
    def now(self) -> float:
        """Local time of this turn, in seconds."""

    def overloaded(self, size: int = 0) -> bool:
        """Too much is logged and not applied yet, or there is no room for ``size`` bytes."""

    def admin(self, name: str, arguments: list[object]) -> object:
        """Answer an administrator; raises `CopycatError`."""


class Desk:
    """Admission and answers for the client connections of one member."""

    def __init__(self, applier: Applier, host: Host) -> None:
        self._applier = applier
        self._host = host
        self._serializer = Serializer(opaque=True)
        self._out: dict[int, list[bytes]] = {}
        self._close: list[int] = []
        self._proven: dict[int, set[int]] = {}  # connection -> sessions whose secret it showed
        self._attached: dict[int, int] = {}  # session -> the one of them that gets its results
        self._appended: dict[int, int] = {}  # session -> last sequence in the log
        self._registering: dict[tuple[bytes, bytes], int] = {}  # uuid, proof -> connection
        self._held: list[tuple[int, int, bytes]] = []
        self._held_bytes = 0
        self._results_room = RESULTS_BYTES_MAX  # in this turn
        self._reads = Reads()
        self._admin_at: dict[str, float] = {}  # when an administrator asked for what, in s
        self._complaints: list[tuple[int, str]] = []
        self.runs: list[bytes] = []  # admitted, to be logged
        self.run_bytes = 0
        self._handlers: dict[int, Callable[[int, bytes], None]] = {
            Frame.RUN: self._run,
            Frame.REGISTER: self._register,
            Frame.ATTACH: self._attach,
        }

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to ask, to answer, to send or to complain of."""
        return not (self._out or self._close or self._complaints or self._reads.frames)

    @property
    def waits(self) -> bool:
        """Whether queries wait for an index to be applied, or to be answered at all."""
        return self._reads.waits

    @property
    def wake_at(self) -> float:
        """Local time (s) at which somebody may have waited for too long."""
        return self._reads.sweep_at

    @property
    def unfinished(self) -> bool:
        """Whether queries could be answered at once, for which the last turn had no room."""
        return self._reads.ready(self._applier.index)

    # -- in ------------------------------------------------------------------------------------

    def frame(self, connection: int, type_: int, payload: bytes) -> None:
        """A client sent a frame."""
        try:
            if type_ == Frame.QUERIES:
                self._queries(connection, payload)
            elif type_ == Frame.ADMIN:
                self._admin(connection, payload)
            elif type_ not in self._handlers:
                raise FormatError(f"clients do not send frames of type {type_}")
            elif self.run_bytes > HELD_BYTES_MAX and self._host.overloaded():
                self._reject_frame(connection, type_, payload, Reason.OVERLOADED, RETRY_MS)
            elif self._host.serving:
                self._handlers[type_](connection, payload)
            elif not self._host.leading:
                self._reject_frame(connection, type_, payload, Reason.NOT_LEADER, 0)
            elif self._held_bytes + len(payload) > HELD_BYTES_MAX:
                self._reject_frame(connection, type_, payload, Reason.OVERLOADED, RETRY_MS)
            else:
                self._held.append((connection, type_, payload))
                self._held_bytes += len(payload)
        except (FormatError, SerializationError, ValueError, TypeError) as problem:
            self._malformed(connection, type_, problem)

    def gone(self, connection: int) -> None:
        """A client's connection is closed."""
        for session in [s for s, c in self._attached.items() if c == connection]:
            del self._attached[session]
        self._proven.pop(connection, None)
        for key in [k for k, c in self._registering.items() if c == connection]:
            del self._registering[key]
        self._reads.gone(connection)
        self._held = [held for held in self._held if held[0] != connection]
        self._held_bytes = sum(len(held[2]) for held in self._held)

    def began_serving(self) -> None:
        """The member can serve as leader from now on: what was held is looked at."""
        self._appended.clear()  # what an earlier leadership logged may not have been committed
        held, self._held, self._held_bytes = self._held, [], 0
        for connection, type_, payload in held:
            self.frame(connection, type_, payload)

    def deposed(self) -> None:
        """The member does not lead any more: nothing can be promised."""
        held, self._held, self._held_bytes = self._held, [], 0
        for connection, type_, payload in held:
            try:
                self._reject_frame(connection, type_, payload, Reason.NOT_LEADER, 0)
            except FormatError as problem:  # it was held before anybody looked at it
                self._malformed(connection, type_, problem)
        self.runs.clear()
        self.run_bytes = 0
        self._attached.clear()
        self._registering.clear()

    # -- reads ---------------------------------------------------------------------------------

    def take_read(self) -> int | None:
        """An id for all linearizable queries of this turn, for which Raft shall find an index."""
        return self._reads.take_fresh()

    def reads_settled(self, confirmed: Sequence[tuple[int, int]], failed: Sequence[int]) -> None:
        """What has become of reads: ids with the indexes to be applied first, and lost ones."""
        for id_, index in confirmed:
            self._reads.confirmed(id_, index)
        for id_ in failed:
            for connection, payload in self._reads.failed(id_):
                self._reject_frame(connection, Frame.QUERIES, payload, Reason.NOT_LEADER, 0)

    def answer_queries(self) -> None:
        """Answer the waiting queries whose index is applied, as far as a turn has room."""
        applied = self._applier.index
        room = ANSWER_BYTES_MAX
        for connection, payload in self._reads.take_ready(applied):
            first, _, count, _ = QUERY_HEAD.unpack_from(payload)
            try:
                results = self._applier.query(payload, QUERY_HEAD.size, count)
            except FormatError as problem:
                self._reject(connection, Reason.MALFORMED, Frame.QUERIES, 0, 0, 0, str(problem))
                self._close.append(connection)
                continue
            head = ANSWERS_HEAD.pack(first, applied, count)
            answers = encode_results(results)
            self._send(connection, Frame.ANSWERS, head, answers)
            room -= len(answers)
            if room <= 0:
                break
        for connection, payload in self._reads.overdue(self._host.now):
            self._reject_frame(connection, Frame.QUERIES, payload, Reason.OVERLOADED, RETRY_MS)

    # -- out -----------------------------------------------------------------------------------

    def answer(self, out: Applied) -> None:
        """Tell clients what applying brought about; the leader calls it."""
        attached = self._attached
        for session, index, previous, payload in out.events:
            self._send_event(attached.get(session), session, index, previous, payload)
        applied = self._applier.index
        for session, first, count, results in out.answers:
            connection = attached.get(session)
            if connection is not None:
                if len(results) <= RESULTS_FEW:
                    head = RESULTS_HEAD.pack(session, first, applied, count)
                    self._send(connection, Frame.RESULTS, head, results)
                else:
                    self._send_many(connection, session, first, count, results)
        for uuid, proof, session in out.registered:
            connection = self._registering.pop((uuid, proof), None)
            if connection is not None:
                self._registered(connection, uuid, session)
        for session, nonce in out.kept:
            connection = attached.get(session)
            if connection is not None:
                self._send(connection, Frame.KEPT, KEPT_HEAD.pack(session, nonce))
        for session in [id_ for id_, _ in out.unknown] + out.ended:
            self._appended.pop(session, None)
            connection = attached.pop(session, None)
            if connection is not None:
                self._proven[connection].discard(session)
                self._send(connection, Frame.CLOSED, U64.pack(session))

    def take_frames(self) -> tuple[list[tuple[int, bytes]], list[int]]:
        """What to send now, one piece of bytes a connection, and what to close after that."""
        if not self._out:
            return [], []
        frames = [(connection, b"".join(parts)) for connection, parts in self._out.items()]
        close = self._close
        self._out, self._close = {}, []
        self._results_room = RESULTS_BYTES_MAX
        return frames, close

    def take_complaints(self) -> list[tuple[int, str]]:
        """Connections that did what they may not, and what it was."""
        found, self._complaints = self._complaints, []
        return found

    # -- frames of clients ---------------------------------------------------------------------

    def _run(self, connection: int, payload: bytes) -> None:
        kind, id_, first, acknowledged, count, end = check_run(
            payload, 0, len(payload), ARGUMENTS_MAX
        )
        if end != len(payload):
            raise FormatError("a run does not fill its frame")
        session = self._applier.sessions.get(id_)
        if session is None or session.doomed:
            self._reject(connection, Reason.UNKNOWN_SESSION, Frame.RUN, count, first, id_)
            return
        if self._attached.get(id_) != connection and not self._reattached(id_, connection):
            self._forbid(connection, Frame.RUN, id_, count, first)
            return
        if kind == Kind.COMMAND:
            self._commands(connection, payload, session, first, acknowledged, count)
        elif kind == Kind.KEEP_ALIVE and count == 1:
            (event_index,) = self._single(payload)
            if not isinstance(event_index, int):
                raise FormatError("a keep-alive names the last event received")
            self._admit(payload)
        elif kind == Kind.UNREGISTER and count == 1:
            self._admit(payload)
        else:
            raise FormatError(f"clients do not send runs of kind {kind}")

    def _commands(
        self,
        connection: int,
        payload: bytes,
        session: Session,
        first: int,
        acknowledged: int,
        count: int,
    ) -> None:
        id_ = session.id
        last = self._appended.get(id_, session.last_sequence)
        if first > last + 1 or first == 0:
            self._reject(connection, Reason.OUT_OF_ORDER, Frame.RUN, count, first, last + 1)
            return
        skip = last + 1 - first
        # Sent again after a reconnect? What is applied is answered from the cache; what is logged
        # and not applied yet will be answered when it is.
        if skip and (
            not self._answer_from_cache(connection, session, first, count) or skip >= count
        ):
            return
        if self._host.overloaded(len(payload)) or first + count - 1 - acknowledged > IN_FLIGHT_MAX:
            self._reject(
                connection, Reason.OVERLOADED, Frame.RUN, count - skip, first + skip, RETRY_MS
            )
            return
        self._appended[id_] = first + count - 1
        self._admit(slice_run(payload, 0, skip) if skip else payload)

    def _answer_from_cache(self, connection: int, session: Session, first: int, count: int) -> bool:
        """False if the client has to ask again, for what is left and what comes after it."""
        begin = max(first, session.acknowledged + 1)
        number = min(first + count - 1, session.last_sequence) - begin + 1
        if number <= 0:
            return True
        cached = session.cached(begin, number, self._results_room)
        return cached is None or self._send_many(connection, session.id, begin, number, cached)

    def _send_many(
        self, connection: int, session: int, first: int, count: int, results: bytes
    ) -> bool:
        """Send what this turn has room for of ``count`` results; the client asks for the others.

        So no connection has to take more than it may be given, and no turn takes long.
        """
        applied = self._applier.index
        for number, piece in pieces(results, count, self._results_room):
            head = RESULTS_HEAD.pack(session, first, applied, number)
            self._send(connection, Frame.RESULTS, head, piece)
            self._results_room -= len(piece)
            first += number
            count -= number
        if count:
            self._reject(connection, Reason.OVERLOADED, Frame.RUN, count, first, RETRY_MS)
        return count == 0

    def _register(self, connection: int, payload: bytes) -> None:
        fields = self._serializer.unpack(payload)
        if not (isinstance(fields, list) and len(fields) == 4):
            raise FormatError("a registration has four fields")
        uuid, timeout_ms, name, secret = fields
        low, high = SESSION_TIMEOUT_MS
        if (
            not all(isinstance(each, bytes) and len(each) == 16 for each in (uuid, secret))
            or not (isinstance(timeout_ms, int) and low <= timeout_ms <= high)
            or not (isinstance(name, str) and len(name) <= 256)
        ):
            raise FormatError("a registration needs a uuid, a timeout in ms, a name and a secret")
        if self._applier.sessions.is_full(uuid, len(self._registering)):
            self._refuse_session(connection)
            return
        proof = proof_of(secret)  # the secret itself goes no further: not into any log or snapshot
        self._registering[uuid, proof] = connection
        arguments = self._serializer.pack([uuid, timeout_ms, name, proof])
        self._admit(encode_run(Kind.REGISTER, 0, 0, 0, [(0, 0, arguments)]))

    def _refuse_session(self, connection: int) -> None:
        text = f"the cluster has {len(self._applier.sessions)} sessions, its limit"
        self._reject(connection, Reason.OVERLOADED, Frame.REGISTER, 0, 0, FULL_RETRY_MS, text)

    def _registered(self, connection: int, uuid: bytes, session: int) -> None:
        if session == FULL:
            self._refuse_session(connection)
        elif session:
            self._attach_to(connection, session)
            self._send(connection, Frame.REGISTERED, REGISTERED_HEAD.pack(session, uuid))
        else:
            self._forbid(connection, Frame.REGISTER, 0)

    def _attach(self, connection: int, payload: bytes) -> None:
        if len(payload) != ATTACH_HEAD.size:
            raise FormatError("an attach frame has the wrong length")
        id_, last_event, secret = ATTACH_HEAD.unpack(payload)
        session = self._applier.sessions.get(id_)
        if session is None or session.doomed:
            self._send(connection, Frame.ATTACHED, ATTACHED_HEAD.pack(id_, 0, 0))
            return
        if not session.is_proven_by(secret):
            self._forbid(connection, Frame.ATTACH, id_)
            return
        self._attach_to(connection, id_)
        self._send(connection, Frame.ATTACHED, ATTACHED_HEAD.pack(id_, session.last_sequence, 1))
        for index, previous, event in session.events:
            if index > last_event:
                self._send_event(connection, id_, index, previous, event)

    def _queries(self, connection: int, payload: bytes) -> None:
        if len(payload) < QUERY_HEAD.size:
            raise FormatError("a query frame ends inside its head")
        _, min_index, _, level = QUERY_HEAD.unpack_from(payload)
        index: int | None = None  # Raft has to find one, here or at the leader
        ahead = False
        if level == Consistency.SERIALIZABLE:
            index = 0
        elif level == Consistency.SEQUENTIAL:
            index = min_index
            ahead = min_index > self._host.last_index
            if ahead and self._host.leading:
                # A leader has all that anybody can have seen. So it is none any more and does not
                # know it yet, or the client makes that up: nothing to wait for in either case.
                self._reject_frame(connection, Frame.QUERIES, payload, Reason.NOT_LEADER, 0)
                return
        elif level == Consistency.LINEARIZABLE_LEASE and self._host.leading:
            index = self._host.lease_index()
        if not self._reads.add(connection, payload, self._host.now, index, ahead=ahead):
            self._reject_frame(connection, Frame.QUERIES, payload, Reason.OVERLOADED, RETRY_MS)

    def _admin(self, connection: int, payload: bytes) -> None:
        fields: Any = self._serializer.unpack(payload)
        if not (isinstance(fields, list) and len(fields) == 3 and isinstance(fields[2], list)):
            raise FormatError("an admin request has an id, a name and a list of arguments")
        request, name, arguments = fields
        now = self._host.now
        interval = ADMIN_INTERVALS_S.get(name, 0.0) if isinstance(name, str) else 0.0
        if interval and now < self._admin_at.get(name, -math.inf) + interval:
            refusal = [f"a {name} was asked for less than {interval:g} s ago", int(interval * 1e3)]
            self._send(
                connection, Frame.ADMIN_REPLY, self._serializer.pack([request, refusal, None])
            )
            return
        if interval:
            self._admin_at[name] = now
        try:
            reply = [request, None, self._host.admin(str(name), arguments)]
        except (LookupError, ValueError) as problem:
            reply = [request, str(problem), None]
        self._send(connection, Frame.ADMIN_REPLY, self._serializer.pack(reply))

    # -- who speaks ----------------------------------------------------------------------------

    def _attach_to(self, connection: int, session: int) -> None:
        """``connection`` has shown the session's secret: it may speak for it while it stands."""
        self._proven.setdefault(connection, set()).add(session)
        self._attached[session] = connection

    def _reattached(self, session: int, connection: int) -> bool:
        """Whether ``connection`` has shown the secret some time ago; if so it gets the results."""
        if session not in self._proven.get(connection, ()):
            return False
        self._attached[session] = connection
        return True

    def _forbid(
        self, connection: int, type_: Frame, session: int, count: int = 0, first: int = 0
    ) -> None:
        """Refuse what only the owner of a session may do; the session itself is unharmed (H97)."""
        what = "another client has registered with this uuid"
        if type_ == Frame.ATTACH:
            what = f"the secret is not that of session {session}"
        elif type_ == Frame.RUN:
            what = f"the secret of session {session} was not shown on this connection"
        self._complaints.append((connection, f"{type_.name} refused: {what}"))
        self._reject(connection, Reason.FORBIDDEN, type_, count, first, session, what)

    # -- helpers -------------------------------------------------------------------------------

    def _malformed(self, connection: int, type_: int, problem: Exception) -> None:
        self._reject(connection, Reason.MALFORMED, type_ & 0xFF, 0, 0, 0, str(problem))
        self._close.append(connection)

    def _admit(self, run: bytes) -> None:
        self.runs.append(run)
        self.run_bytes += len(run)

    def _single(self, payload: bytes) -> list[object]:
        """The arguments of a run's only command."""
        arguments = self._serializer.unpack(decode_commands(payload, 40, 1)[0][2])
        if not (isinstance(arguments, list) and len(arguments) == 1):
            raise FormatError("one argument is expected")
        return arguments

    def _send(self, connection: int, type_: Frame, *parts: bytes) -> None:
        self._out.setdefault(connection, []).append(pack_frame(type_, *parts))

    def _send_event(
        self, connection: int | None, session: int, index: int, previous: int, payload: bytes
    ) -> None:
        if connection is not None:
            head = EVENTS_HEAD.pack(session, index, previous)
            self._send(connection, Frame.EVENTS, head, payload)

    def _reject_frame(
        self, connection: int, type_: int, payload: bytes, reason: Reason, detail: int
    ) -> None:
        count = first = 0
        if type_ == Frame.RUN:
            _, _, first, _, count, _ = check_run(payload, 0, len(payload), ARGUMENTS_MAX)
        elif type_ == Frame.QUERIES:
            first, _, count, _ = QUERY_HEAD.unpack_from(payload)
        self._reject(connection, reason, type_, count, first, detail)

    def _reject(
        self,
        connection: int,
        reason: Reason,
        type_: int,
        count: int,
        first: int,
        detail: int,
        message: str = "",
    ) -> None:
        head = REJECT_HEAD.pack(reason, type_, 0, count, first, detail)
        self._send(connection, Frame.REJECT, head, self._serializer.pack([message]))
