"""The session: a client's identity in the cluster, across connections and leaders.

Commands get contiguous sequence numbers when a frame is flushed, once per turn of the loop, and
are sent again under the same numbers until they are answered, so each is applied exactly once.
Results and events arrive in order. When the cluster has ended the session, what was sent and not
answered fails as unknown and everything else goes on under a new session. No task and no timer is
made per operation. It serves the handles of resources; it knows nothing of machines.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

from ._core.calls import Intake, packer
from ._core.codec import (
    ATTACH_HEAD,
    ATTACHED_HEAD,
    EVENTS_HEAD,
    KEPT_HEAD,
    REGISTERED_HEAD,
    REJECT_HEAD,
    RESULTS_HEAD,
    U64,
    Frame,
    Reason,
    pack_frame,
)
from ._core.kernel import encode_run
from ._core.layout import FormatError, Kind
from .client import Link, Route
from .credentials import Credentials
from .errors import (
    Applied,
    CopycatError,
    OutcomeUnknownError,
    OverloadedError,
    SecurityError,
    SerializationError,
    SessionExpiredError,
    WrongLoopError,
)
from .lifetime import Lifetime, SessionOptions
from .listeners import Callback, Listeners, Registration
from .outcomes import too_late
from .pipeline import Call, Commands, OnUnknown, Queries, Requests, fail, retrieved
from .ports import Clock, Random
from .pulse import Deadlines, Pulse
from .serializer import Serializer
from .system import SYSTEM_RESOURCE, SystemOperation
from .types import Consistency, SessionState

log = logging.getLogger("copycat.session")

ARGUMENTS_MAX = 1 << 20
QUEUED_MAX = 200_000
FLUSH_AT = 128
"""Operations of one loop turn that are sent without waiting for its end (measured: 64 to 128 best
at 256 in flight; smaller frames cost the members more than the overlap gains)."""
EVENT_BYTES_UNCONFIRMED = 512 << 10
CLOSE_TIMEOUT = 1.0
REORDER_PAUSE = 0.002



class Session:
    """Commands, queries and events of one client; see ``state``, ``id`` and ``watch()``."""

    def __init__(
        self,
        route: Route,
        serializer: Serializer,
        clock: Clock,
        random: Random,
        options: SessionOptions,
        name: str,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._route = route
        self._serializer = serializer
        self._clock = clock
        self._random = random
        self._options = options
        self._name = name
        self._link: Link | None = None  # to the leader
        self._credentials = Credentials(random, options.session_timeout / 2)
        self._commands = Commands(serializer, options.in_flight)
        self._queries = Queries(serializer)
        self._requests = Requests(serializer)
        self._event = 0  # index of the last event received
        self._event_kept = 0  # up to which the cluster was told so
        self._event_bytes = 0
        self._pulse = Pulse(options.beat)
        self._deadlines = Deadlines(self._sweep)
        self._listeners = Listeners()
        self._intake = Intake(
            self._loop, asyncio.get_running_loop, packer(serializer.pack), options.timeout,
            self._deadlines, QUEUED_MAX, ARGUMENTS_MAX, FLUSH_AT, self._flush_early, self._flush,
        )  # fmt: skip
        self._stalled: asyncio.TimerHandle | None = None
        self._attaching = False
        self._closing = False
        self._ticker: asyncio.TimerHandle | None = None
        self._registered = asyncio.Event()
        self.lifetime = Lifetime(clock, options.session_timeout)

    # -- for users -----------------------------------------------------------------------------

    @property
    def id(self) -> int:
        """The log index of the session's registration; 0 while there is none."""
        return self.lifetime.id

    @property
    def state(self) -> SessionState:
        """What can be relied on; see `SessionState`."""
        return self.lifetime.state

    @property
    def index(self) -> int:
        """The highest log index of which this client has seen the effects."""
        return max(self._commands.applied_index, self._queries.applied_index)

    def watch(self) -> AsyncIterator[SessionState]:
        """The present state and then every change."""
        return self.lifetime.watch()

    def __repr__(self) -> str:
        waiting = len(self._commands.queued) + len(self._commands.unanswered)
        return f"<Session {self.id} {self.state.value} waiting={waiting}>"

    # -- for handles ---------------------------------------------------------------------------

    @property
    def timeout(self) -> float:
        """The default deadline of an operation, in seconds."""
        return self._options.timeout

    @property
    def entrance(self) -> tuple[Callable[..., Any], deque[Call]]:
        """`Intake.enter` and its queue for commands: what `command` does, without the calls."""
        return self._intake.enter, self._commands.queued

    def command(
        self, resource: int, operation: int, arguments: list[Any], timeout: float | None = None
    ) -> asyncio.Future[Any]:
        """Submit a command; the future has its decoded result. ``timeout`` is in seconds."""
        queue = self._commands.queued
        enter = self._intake.enter
        future: asyncio.Future[Any] | None = enter(queue, resource, operation, arguments, timeout)
        return self._refused(queue, arguments) if future is None else future

    def query(
        self,
        resource: int,
        operation: int,
        arguments: list[Any],
        consistency: Consistency,
        timeout: float | None = None,
    ) -> asyncio.Future[Any]:
        """Ask; the future has the decoded answer. ``timeout`` is in seconds."""
        queue = self._queries.queued[consistency]
        enter = self._intake.enter
        future: asyncio.Future[Any] | None = enter(queue, resource, operation, arguments, timeout)
        return self._refused(queue, arguments) if future is None else future

    def admin(self, name: str, arguments: list[object]) -> asyncio.Future[Any]:
        """Ask the leader, or any member that answers while there is none."""
        link = self._route.any_link
        future: asyncio.Future[Any] = self._loop.create_future()
        if link is None:
            future.set_exception(self._route.unavailable(0.0, "no"))
            return future
        link.send(self._requests.ask(link, name, arguments, future))
        return future

    def listen(
        self,
        resource: int,
        event: str,
        callback: Callback,
        *,
        shared: bool = True,
        on_gap: Callable[[CopycatError], None] | None = None,
    ) -> tuple[Registration, asyncio.Future[Any] | None]:
        """Call ``callback(value, index)`` for each event, in log order.

        Returns the registration and, if the cluster has to be told (``shared``), the future of
        the index from which on none is missing: what comes from before it was for an earlier
        listener. Events that a machine publishes to this very session need no ``shared`` listening.
        """
        registration = Registration(resource, event, callback, on_gap, shared=shared)
        if self._listeners.add(registration):
            self._listeners.asked(registration, self._tell(SystemOperation.LISTEN, resource, event))
        return registration, self._listeners.answer_due(registration)

    def when_unknown(
        self, told: OnUnknown, deleted: Callable[[int], None], name_of: Callable[[int], str]
    ) -> None:
        """Who hears that a resource is not there, or is being deleted, and who can name it."""
        self._commands.on_unknown = self._queries.on_unknown = told
        self._listeners.on_deleted, self._listeners.name_of = deleted, name_of

    def unlisten(self, registration: Registration) -> None:
        """Undo `listen`; the cluster is told in the background."""
        if self._listeners.remove(registration) and self.state is not SessionState.CLOSED:
            told = self._tell(SystemOperation.UNLISTEN, registration.resource, registration.event)
            told.add_done_callback(retrieved)

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look for the leader and to register."""
        self._route.start(self)
        self._tick()

    async def opened(self, timeout: float) -> None:
        """Wait until a session is registered; raises an `UnavailableError` that says why not."""
        try:
            async with asyncio.timeout(timeout):
                await self._registered.wait()
        except TimeoutError:
            refused = self._credentials.refused()
            raise refused or self._route.unavailable(timeout, "no") from None

    async def close(self) -> None:
        """Say goodbye, so that what the session owns is free at once; then hang up."""
        if self.state is SessionState.CLOSED:
            return
        try:
            if self.id and self._link is not None and self._stalled is None:
                await self._say_goodbye()
        finally:
            self._end(SessionState.CLOSED, "the client was closed")
            self._deadlines.cancel()
            for timer in (self._ticker, self._stalled):
                if timer is not None:
                    timer.cancel()
            self._link = None
            await self._route.close()

    async def _say_goodbye(self) -> None:
        self._flush()
        closed = asyncio.Event()
        self.lifetime.on_loss(lambda _: closed.set())
        self._closing = True
        self._send_run(Kind.UNREGISTER, 0, b"\x90")
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await closed.wait()
        except TimeoutError:
            log.info("no answer to the goodbye of session %d: it will expire", self.id)

    def _expire(self, reason: str) -> None:
        """The cluster has ended the session: fail what is in doubt, register anew."""
        if self._closing:  # as it wished
            self._end(SessionState.CLOSED, "the client was closed")
            return
        log.warning("session %d is over: %s", self.id, reason)
        self._end(SessionState.EXPIRED, reason)
        self._registered.clear()
        self.lifetime.connecting()
        self._credentials.renew()
        self._register()

    def _end(self, state: SessionState, reason: str) -> None:
        id_ = self.id
        self._event = self._event_kept = self._event_bytes = 0
        self._pulse.forget()
        self._attaching = False
        for call in self._commands.restart():
            fail(
                call,
                OutcomeUnknownError(
                    f"session {id_} ended ({reason}) between sending the command and its answer"
                ),
            )
        if state is SessionState.CLOSED:
            self._intake.closed = True
            for call in [*self._commands.queued, *self._queries.drain()]:
                fail(call, SessionExpiredError(f"{reason}. Not applied."))
            self._commands.queued.clear()
            self._requests.lost(None, SessionExpiredError(reason))
        self.lifetime.ended(state, reason)
        self._listeners.gap(f"session {id_} ended: {reason}")

    # -- from the route ------------------------------------------------------------------------

    def leader_found(self, link: Link, term: int) -> None:
        """The leader of ``term`` is at the other end of ``link``."""
        if self.state is SessionState.CLOSED:
            return
        self._link = link
        self._pulse.heard()
        self._unstall()
        if self.id:
            self._attach(resend=True)
            if self._closing:
                self._send_run(Kind.UNREGISTER, 0, b"\x90")
        else:
            self._register()
        self._flush()

    def member_found(self, link: Link) -> None:
        """A member answers while there is no leader: it can be asked what any member knows."""
        if self._queries.waiting:
            self._flush_soon()

    def leader_gone(self, link: Link) -> None:
        """Nothing more will be answered on ``link``."""
        if link is self._link:
            self._link = None
        self._queries.lost(link)
        self._flush_soon()
        if self._requests.asked(link):
            self._requests.lost(link, self._route.unavailable(0.0, "unknown"))

    def frame(self, link: Link, type_: int, payload: bytes) -> None:
        """A frame arrived."""
        if type_ == Frame.RESULTS:
            self._on_results(payload)
        elif type_ == Frame.ANSWERS:
            self._heard()
            self._queries.answers(payload)
            if self._queries.waiting:
                self._flush_soon()
        elif type_ == Frame.EVENTS:
            self._on_events(payload)
        elif type_ == Frame.KEPT:
            self._on_kept(*KEPT_HEAD.unpack(payload))
        elif type_ == Frame.REJECT:
            self._on_reject(link, payload)
        elif type_ == Frame.REGISTERED:
            self._on_registered(*REGISTERED_HEAD.unpack(payload))
        elif type_ == Frame.ATTACHED:
            session, _, known = ATTACHED_HEAD.unpack(payload)
            if session == self.id and session:
                self._attaching = False
                self._heard()
                if known:
                    self._flush_soon()
                else:
                    self._expire("the cluster does not know it any more")
        elif type_ == Frame.CLOSED:
            if U64.unpack(payload)[0] == self.id and self.id:
                self._expire("the cluster ended it")
        elif type_ == Frame.ADMIN_REPLY:
            self._heard()
            self._requests.reply(payload)
        else:
            raise FormatError(f"members do not send frames of type {type_}")

    # -- sending -------------------------------------------------------------------------------

    def _refused(self, queue: deque[Call], arguments: list[Any]) -> NoReturn:
        """Say why an operation could not enter."""
        if self.lifetime.state is SessionState.CLOSED:
            raise SessionExpiredError("the client is closed", hint="open another one")
        if len(queue) >= QUEUED_MAX:
            raise OverloadedError(f"{QUEUED_MAX} operations wait to be sent. Not applied.")
        size = len(self._serializer.pack(arguments))
        if size > ARGUMENTS_MAX:
            raise SerializationError(
                f"the arguments have {size} bytes, {ARGUMENTS_MAX} are allowed",
                hint="split the value, or keep it elsewhere and replicate a reference",
            )
        raise WrongLoopError("the client belongs to another event loop")

    def _flush_early(self) -> None:
        """Send before the loop's turn ends, so that the leader works while more is prepared."""
        self._flush()
        self._intake.flush_due = True  # whatever enters until then goes out at the turn's end

    def _flush_soon(self) -> None:
        if not self._intake.flush_due:
            self._intake.flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._intake.flush_due = False
        if self._stalled is not None:
            return
        link = self._link
        data = b""
        # New commands wait until the cluster knows the session: should it be over, they are not
        # in doubt and can go on under the next one.
        if link is not None and self._commands.queued and self.lifetime.id and not self._attaching:
            self._pulse.last_sent = now = self._clock.suspended_too()
            data = self._commands.flush(self.lifetime.id, now)
        if self._queries.waiting:
            where = link or self._route.any_link
            if where is not None:
                asked = self._queries.flush(where, self.index)  # it knows a leader, or refuses
                if link is None:
                    where.send(asked)
                else:
                    data += asked
        if data and link is not None:
            self._pulse.owed()
            link.send(data)

    def _send_run(self, kind: Kind, nonce: int, arguments: bytes) -> None:
        if self._link is not None:
            run = encode_run(kind, self.id, nonce, self._acknowledged, [(0, 0, arguments)])
            self._pulse.owed()
            self._link.send(pack_frame(Frame.RUN, run))

    @property
    def _acknowledged(self) -> int:
        return self._commands.sequence - len(self._commands.unanswered)

    def _register(self) -> None:
        if self._link is None:
            return
        uuid, secret = self._credentials.attempt(self._clock.suspended_too())
        timeout_ms = int(self._options.session_timeout * 1000)
        request = self._serializer.pack([uuid, timeout_ms, self._name, secret])
        self._pulse.owed()
        self._link.send(pack_frame(Frame.REGISTER, request))

    def _attach(self, *, resend: bool) -> None:
        """Have results and events sent here from now on; send what may have been lost."""
        if self._link is None:
            return
        self._attaching = True
        head = ATTACH_HEAD.pack(self.id, self._event, self._credentials.secret)
        data = pack_frame(Frame.ATTACH, head)
        if resend:
            data += self._commands.resend(self.id)
        self._pulse.owed()
        self._link.send(data)
        self._keep_alive()

    def _keep_alive(self) -> None:
        nonce = self._pulse.beat(self._clock.suspended_too())
        self._event_kept, self._event_bytes = self._event, 0
        self._send_run(Kind.KEEP_ALIVE, nonce, self._serializer.pack([self._event]))

    def _tell(self, operation: SystemOperation, resource: int, event: str) -> asyncio.Future[Any]:
        return self.command(SYSTEM_RESOURCE, operation, [resource, event])

    # -- receiving -----------------------------------------------------------------------------

    def _heard(self) -> None:
        if self._pulse.heard():
            self._route.trust()

    def _on_results(self, payload: bytes) -> None:
        if RESULTS_HEAD.unpack_from(payload)[0] != self.lifetime.id:
            return
        self._heard()
        sent = self._commands.results(payload)
        if sent is None:
            self._pause(REORDER_PAUSE)
        elif sent:
            self.lifetime.confirm(sent)
        if self._commands.unanswered:
            self._pulse.owed()
        if self._commands.queued:
            self._flush_soon()

    def _on_kept(self, session: int, nonce: int) -> None:
        if session != self.id:
            return
        self._heard()
        sent = self._pulse.kept(nonce)
        if sent is not None:
            self.lifetime.confirm(sent)

    def _on_events(self, payload: bytes) -> None:
        session, index, previous = EVENTS_HEAD.unpack_from(payload)
        if session != self.id or index <= self._event:
            return
        if previous != self._event:
            if not self._attaching:
                self._attach(resend=False)
            return
        self._event = index
        self._commands.applied_index = max(self._commands.applied_index, index)  # seen as well
        self._event_bytes += len(payload)
        events = self._serializer.unpack(memoryview(payload)[EVENTS_HEAD.size :])
        for resource, event, value in events:
            self._listeners.dispatch(resource, event, value, index, self._serializer)
        if self._event_bytes > EVENT_BYTES_UNCONFIRMED and self.id == session:
            self._keep_alive()

    def _on_registered(self, session: int, uuid: bytes) -> None:
        sent = None if self.id else self._credentials.accepted(uuid)
        if sent is None:
            return
        self._heard()
        self.lifetime.began(session, sent)
        self._registered.set()
        self._keep_alive()  # its answer confirms a later time than the registration's
        self._flush_soon()

    def _on_reject(self, link: Link, payload: bytes) -> None:
        reason, type_, _, _, first, detail = REJECT_HEAD.unpack_from(payload)
        if type_ == Frame.QUERIES:
            self._queries.again(first)
        if reason == Reason.NOT_LEADER:
            self._route.demote(link)
            if self._link is link:
                self._link = None
            if type_ == Frame.QUERIES and self._link is not None:
                self._flush_soon()
        elif reason == Reason.UNKNOWN_SESSION:
            if detail == self.id and self.id:
                self._expire("the cluster does not know it any more")
        elif reason == Reason.OVERLOADED:
            if type_ == Frame.REGISTER:
                (self._credentials.refusal,) = self._serializer.unpack(payload[REJECT_HEAD.size :])
            self._pause(detail / 1000 * (1 + self._random.random()))
        elif reason == Reason.OUT_OF_ORDER:
            self._pause(REORDER_PAUSE)
        elif reason == Reason.FORBIDDEN:
            self._on_forbidden(link, type_, detail, payload)
        else:
            (message,) = self._serializer.unpack(payload[REJECT_HEAD.size :])
            log.error("%s refused a frame as malformed: %s", link.name, message)
            if self.id and type_ == Frame.RUN:
                self._expire(f"the leader could not read a command: {message}")

    def _on_forbidden(self, link: Link, type_: int, session: int, payload: bytes) -> None:
        """A member does not believe that the session is ours."""
        if session != self.id:
            return
        if session and type_ == Frame.RUN:
            # It has not seen the secret: an attach was refused for another reason. Show it again.
            self._attaching = True
            self._pause(REORDER_PAUSE)
            return
        (message,) = self._serializer.unpack(payload[REJECT_HEAD.size :])
        log.error("%s: %s: %s", SecurityError.code, link.name, message)
        if session:
            for call in self._commands.restart():
                fail(call, SecurityError(message, applied="unknown"))
            self._expire(message)
        else:  # somebody took our uuid
            self._credentials.renew()
            self._pause(REORDER_PAUSE)

    def _pause(self, delay: float) -> None:
        """Send nothing for ``delay`` seconds, then everything that is not answered."""
        if self._stalled is None:
            self._stalled = self._loop.call_later(delay, self._go_on)

    def _go_on(self) -> None:
        self._stalled = None
        link = self._link
        if link is not None:
            if not self.id:
                self._register()
            elif self._attaching:
                self._attach(resend=True)
            else:
                link.send(self._commands.resend(self.id))
        self._flush()

    def _unstall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    # -- time ----------------------------------------------------------------------------------

    def _tick(self) -> None:
        """A few times per keep-alive interval: show life, and notice silence."""
        interval = self._pulse.interval
        self._ticker = self._loop.call_later(interval / 4, self._tick)
        if self.id and self._link is not None:
            idle = self._clock.suspended_too() - self._pulse.last_sent
            news = self._event > self._event_kept
            if idle >= interval * 0.75 or (news and idle >= interval / 4):
                self._keep_alive()
        if self._pulse.silence > interval / 2:
            if not self.id and self._stalled is None:
                self._register()  # a connection that is dead shows it only when it is used
            self._route.suspect(hang_up=self._pulse.silence > self._options.session_timeout)

    def _sweep(self, now: float) -> float:
        """Fail what is overdue; the next deadline."""
        return min(
            self._commands.sweep(now, lambda call, sent: self._late(call, sent, False)),
            self._queries.sweep(now, lambda call, sent: self._late(call, sent, True)),
        )

    def _late(self, call: Call, sent: bool, is_query: bool) -> None:
        link, seconds = self._link, call[2]
        if link is None:
            applied: Applied = "unknown" if sent and not is_query else "no"
            fail(call, self._route.unavailable(seconds, applied))
        else:
            name = link.name if sent else None
            fail(call, too_late(sent_to=name, seconds=seconds, is_query=is_query))
