"""The member: one synchronous turn that runs Raft, the log, the applier and the clients' desk.

`Member.turn(now, inputs) -> Effects` is an ordinary call. Messages and disk completions come in,
frames and disk jobs go out; the shell (`pump`) carries them out. It never awaits, reads no clock,
opens no file, so the simulator runs exactly this code.

The order inside a turn: inputs, Raft's decisions, the new batch of a leader, apply what is
committed, answer, start disk jobs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .._core import layout
from .._core.layout import FormatError
from .._core.log import Log
from ..errors import MembershipError
from ..ports import Random
from ..raft import Raft, RaftOptions, Role, Trail
from ..raft.inputs import (
    Campaign,
    Durable,
    Input,
    Installed,
    PeerLost,
    PeerRefused,
    Read,
    Receive,
    Saved,
    Transfer,
    Yield,
)
from ..raft.messages import ANSWERS, BALLOTS, AppendRequest, Message
from ..raft.progress import ProgressState
from ..raft.ready import HardState
from .administration import Administration
from .applier import Applier
from .compaction import Compaction
from .desk import Desk
from .effects import (
    ClientFrame,
    ClientGone,
    Effects,
    Job,
    JobDone,
    MemberInput,
    PeerDown,
    PeerFrame,
    PeerUp,
    RosterHeard,
    Slept,
)
from .leading import Leading
from .peerwire import acknowledges, decode_message, encode_message
from .preference import Preference
from .report import status_of
from .roster import PlacedRoster, Rosters, Seat, newer
from .shortage import Shortage
from .snapshots import SnapshotInfo
from .store import Store
from .transfer import Receiver, Sender

log = logging.getLogger("copycat.member")


APPLY_DELAY_S = 0.005
"""Seconds by which a follower may put off applying what is committed, for which nobody waits."""
APPLY_LAG = 512
"""Commands that may wait like that."""


@dataclass(frozen=True, slots=True)
class MemberOptions:
    """Limits of one member, in bytes, and its rank."""

    raft: RaftOptions
    pipeline_batches: int = 4  # proposed and not committed; what comes meanwhile is gathered
    batch_bytes: int = 256 << 10  # a batch is cut here (PERFORMANCE.md: groups near 256 KiB)
    backlog_bytes: int = 64 << 20  # logged and not applied: beyond it new commands are refused
    apply_bytes: int = 4 << 20  # applied in one turn at most, so that heartbeats are not starved
    snapshot_bytes: int = 64 << 20  # of log applied since the last snapshot: time for a new one
    retain_bytes: int = 256 << 20  # of log kept beyond the snapshot for followers that lag
    priority: int = 1  # of several members that could lead, the highest should


class Member:
    """One member of a cluster, from its recovered store to its clients' answers."""

    def __init__(
        self,
        name: str,
        told: PlacedRoster,
        store: Store,
        applier: Applier,
        *,
        options: MemberOptions,
        random: Random,
        now: float,
        wall_us: int,
    ) -> None:
        self.name = name
        self._store = store
        self._applier = applier
        applier.agreement.member = name
        self._options = options
        self._random = random
        self._now = now
        log_ = store.log
        rosters = Rosters.recovered(
            told if store.snapshot is None else newer(told, store.snapshot.configuration),
            [log_.images(index, index)[0] for index in log_.configurations],
        )
        configuration, *configurations = rosters.memberships()
        self._raft = Raft(
            name, configuration, store.hard_state, _trail(log_), log_, options.raft, random, now,
            commit_index=applier.index, configurations=configurations,
        )  # fmt: skip
        self._administration = Administration(self._raft, rosters, told[1].seats[name], self)
        self._desk = Desk(applier, self)
        self._sender = Sender(store.snapshots, self)
        self._receiver = Receiver(store.snapshots, self)
        self._effects = Effects()
        self._inputs: list[Input] = []  # for Raft's next step
        self._entry_bytes = 0  # received, in `_inputs`...
        self._may_replace = False  # ...and whether others may have to go for them
        self._unsaved: HardState | None = None
        self._held: list[tuple[str, bytes]] = []  # frames that wait for the hard state
        self._jobs: list[Job] = []
        self._compaction = Compaction(
            store, applier, self._raft, self._sender, self._administration,
            snapshot_bytes=options.snapshot_bytes, retain_bytes=options.retain_bytes, host=self,
        )  # fmt: skip
        self._leading = Leading(
            name, self._raft, store, applier, self._desk, self._administration,
            pipeline_batches=options.pipeline_batches, batch_bytes=options.batch_bytes,
            backlog_bytes=options.backlog_bytes, wall_us=wall_us, now=now,
        )  # fmt: skip
        self._serving = False
        self._raft_wake_at = now  # when Raft has to be stepped at the latest
        self.peers_up: set[str] = set()
        self._alone = len(self._raft.membership.electors) == 1
        self._leadership: tuple[int, str | None] | None = None  # as the shell knows it
        self._apply_at = math.inf  # local time at which what is committed is applied at the latest
        self._last_append: tuple[AppendRequest | None, bytes] = (None, b"")
        self._shortage = Shortage(store, options.raft.election_timeout / 2)
        self._preference = Preference(options.priority, options.raft.election_timeout)
        self._is_out = False  # removed from the cluster

    # -- one turn ------------------------------------------------------------------------------

    def turn(self, now: float, inputs: list[MemberInput]) -> Effects:
        """Take ``inputs`` in at local time ``now`` (s); return what the shell has to do."""
        self._now = now
        effects = self._effects = Effects()
        for input_ in inputs:
            if not self._take_in(input_):
                return effects
        if self._store.full is not None and self._store.is_short(self._desk.run_bytes):
            self._mind_shortage()
        if self._raft.is_leader and self._shortage.is_stuck(now):
            self._give_way("its disk does not answer")
        if not self._desk.is_idle:
            read = self._desk.take_read()
            if read is not None:
                self._inputs.append(Read(read))
        heir = self._preference.heir(self._raft, self.peers_up, now)
        if heir is not None:
            log.info("%s hands over to %s, whose priority is higher", self.name, heir)
            self._inputs.append(Transfer(heir))
        if self._inputs or now >= self._raft_wake_at:
            self._step()
        if self._serving and self._leading.propose(now):
            self._step()
        if self._apply() and self._leading.propose(now):
            self._step()  # those who waited until it serves come first
        if not self._desk.is_idle:
            self._desk.answer_queries()
        self._compaction.when_due()
        if not self._desk.is_idle:
            effects.client_frames, effects.close = self._desk.take_frames()
            effects.complaints = self._desk.take_complaints()
        if not self._store.writing:
            self._shortage.wrote(now)  # what may begin now
        effects.jobs = self._store.next_jobs()
        if self._jobs:
            effects.jobs = self._jobs + effects.jobs
            self._jobs = []
        self._mind_members()
        # A follower's leader, or a lone member's client, waits for what these jobs make durable.
        effects.prompt = not self._raft.is_leader or self._alone
        effects.wake_at = min(self._wake_at(), self._desk.wake_at)
        return effects

    def _take_in(self, input_: MemberInput) -> bool:
        """Sort one input; False if the member has to stop."""
        if isinstance(input_, ClientFrame):
            self._desk.frame(input_.connection, input_.type, input_.payload)
        elif isinstance(input_, PeerFrame):
            try:
                message = decode_message(input_.type, input_.payload, input_.peer, self.name)
            except FormatError as problem:
                log.warning("%s: %s sent a malformed message: %s", self.name, input_.peer, problem)
            else:
                self._inputs.append(Receive(message))
                self._entry_bytes += len(input_.payload)
                if (
                    isinstance(message, AppendRequest)
                    and message.prev_index < self._store.log.last_index
                ):
                    self._may_replace = True
        elif isinstance(input_, JobDone):
            if input_.error is not None:
                if input_.job.failed is None:
                    # A failed write or sync is not retried: nobody knows what is on disk (H60).
                    self._effects.fatal = input_.error
                    return False
                input_.job.failed(input_.error)
            else:
                input_.job.then(input_.result)
        elif isinstance(input_, ClientGone):
            self._desk.gone(input_.connection)
        elif isinstance(input_, PeerDown):
            self.peers_up.discard(input_.peer)
            self._inputs.append(PeerLost(input_.peer))
            if input_.refused:
                self._inputs.append(PeerRefused(input_.peer))
        elif isinstance(input_, PeerUp):
            self._preference.heard(input_.peer, input_.priority)
            self._peer_up(input_.peer)
        elif isinstance(input_, RosterHeard):
            self._administration.heard(input_.index, input_.roster)
        elif isinstance(input_, Slept):
            self._raft.slept()
        return True

    def _peer_up(self, peer: str) -> None:
        self.peers_up.add(peer)
        voters = self._raft.membership.voters
        if self._raft.term == 0 and self.name == voters[0]:
            # Freshly founded: the first of the list need not wait for a timeout to ask.
            connected = sum(voter in self.peers_up for voter in voters)
            if connected + 1 > len(voters) // 2:
                self._inputs.append(Campaign())

    # -- Raft ----------------------------------------------------------------------------------

    def _step(self) -> None:
        """Let Raft take what came in, and do what it asks for, in the order of `Ready`."""
        inputs, self._inputs = self._inputs, []
        # Framed, entries take at most twice their bytes: as a rule they surely find room.
        if self._may_replace or 2 * self._entry_bytes > self._store.log.tail_bytes:
            inputs = self._shortage.fitting(inputs, self._raft.commit_index)
        self._entry_bytes, self._may_replace = 0, False
        ready = self._raft.step(self._now, inputs)
        self._raft_wake_at = ready.wake_at
        store = self._store
        leadership = (self._raft.term, self._raft.leader)
        if leadership != self._leadership:
            self._leadership = self._effects.leadership = leadership
        if ready.hard_state is not None:
            if self._unsaved is not None and self._unsaved.term < ready.hard_state.term:
                # What an earlier leader is told may be truncated by the time that it would leave.
                self._held = [each for each in self._held if not acknowledges(each[1])]
            self._unsaved = ready.hard_state
            store.save_hard_state(ready.hard_state)
        if ready.truncate_from is not None:
            store.truncate(ready.truncate_from)
            self._administration.truncated(ready.truncate_from)
        for image in ready.append:
            store.log.append(image)
            if image[layout.BATCH_FLAGS_OFFSET]:
                self._administration.appended_image(image)
        for message in ready.messages:
            self.send(message)
        if ready.deposed:
            self._serving = False
            self._leading.deposed()
            self._desk.deposed()
        if ready.reads or ready.reads_failed:
            self._desk.reads_settled(ready.reads, ready.reads_failed)
        for peer in ready.install:
            self._sender.begin(peer)
        for answer in ready.snapshot_answers:
            self._sender.answered(answer)
        for chunk in ready.chunks:
            self._receiver.chunk(chunk)
        if ready.elected:
            if not self._leading.begin_term(self._now):
                self._inputs.append(Yield(2 * self._options.raft.election_timeout))
            self._step()  # which sends it
        elif ready.configure is not None and self._leading.configure(ready.configure, self._now):
            self._step()
        self._administration.stepped()

    def send(self, message: Message) -> None:
        """Send a message of Raft, or hold it until the hard state it may depend on is durable."""
        if not (isinstance(message, ANSWERS) or self._administration.may_ask(message.to)):
            return
        if isinstance(message, BALLOTS) and self._administration.is_out:
            return  # heard in this very turn, the last one
        if isinstance(message, AppendRequest) and message.last_index > message.prev_index:
            frame = self._append_frame(message)
        else:
            frame = encode_message(message)
        held = self._effects.peer_frames if self._unsaved is None else self._held
        held.append((message.to, frame))

    def _append_frame(self, request: AppendRequest) -> bytes:
        """The frame of a request with entries: mostly one and the same for all peers."""
        last, frame = self._last_append
        if last is None or not request.says_the_same(last):
            images = self._store.log.images(request.prev_index + 1, request.last_index)
            frame = encode_message(request, images)
            self._last_append = (request, frame)
        return frame

    def hard_state_saved(self, state: HardState) -> None:
        """The store made ``state`` durable."""
        self._inputs.append(Saved(state.term, state.vote))
        if state == self._unsaved:
            self._unsaved = None
            self._effects.peer_frames += self._administration.still_meant(self._held)
            self._held = []

    def log_durable(self, index: int) -> None:
        """The store made the log durable up to ``index``."""
        self._inputs.append(Durable(index))

    @property
    def hard_state_is_durable(self) -> bool:
        """Whether everything Raft has promised so far is on disk."""
        return self._unsaved is None

    def tell(self, fact: Input) -> None:
        """Give Raft a fact in its next step."""
        self._inputs.append(fact)

    def start(self, job: Job) -> None:
        """Have the shell run a job after this turn."""
        self._jobs.append(job)

    # -- applying ------------------------------------------------------------------------------

    def _apply(self) -> bool:
        """Apply what is committed and answer; True when the member has just begun to serve."""
        applier, log_ = self._applier, self._store.log
        commit = self._raft.commit_index
        if applier.index < commit and self._should_apply(commit):
            self._apply_at = math.inf
            budget = self._options.apply_bytes
            while applier.index < commit and budget > 0:
                first = applier.index + 1
                last, _ = log_.window_end(first, min(budget, 1 << 20))
                size = 0
                for image in log_.images(first, min(last, commit)):
                    applier.apply(image)
                    size += len(image)
                self._leading.applied(first, size)
                budget -= size
                self._compaction.applied(size)
            out = applier.take()
            if self._serving:
                self._desk.answer(out)
        if self._serving or not self._raft.ready_to_serve:
            return False
        if applier.index < self._leading.term_start:
            return False
        self._serving = True
        self._leading.began_serving(self._now)
        self._desk.began_serving()
        return True

    def _should_apply(self, commit: int) -> bool:
        """A leader applies at once; a follower for whom nobody waits gathers a little.

        Its acknowledgement is then not delayed by applying, and the price per batch is shared.
        """
        if self._raft.is_leader or self._desk.waits or commit - self._applier.index > APPLY_LAG:
            return True
        if self._apply_at == math.inf:
            self._apply_at = self._now + APPLY_DELAY_S
        return self._now >= self._apply_at

    def overloaded(self, size: int = 0) -> bool:
        """Whether too much of what this leader logged is not applied yet, or its disk is full."""
        return self._leading.overloaded(size)

    # -- a full disk ---------------------------------------------------------------------------

    def _mind_shortage(self) -> None:
        """The disk is full: cut the log if that can be, and let another member lead."""
        if self._serving:
            self._leading.stop_log_time(self._now)
        if self._shortage.attempt_is_due(self._now):
            self._compaction.take()
            self._shortage.report(self.name)
        if self._raft.is_leader:
            self._give_way("its disk is full")

    def _give_way(self, why: str) -> None:
        """Let another member lead, if one can and if that was not tried a moment ago."""
        if not self._shortage.handover_is_due(self._now):
            return
        heirs = self._shortage.heirs(self._raft, self.peers_up)
        if heirs:  # any of them: always the same one might be no better off
            heir = self._random.choice(heirs)
            log.warning("%s hands over to %s: %s", self.name, heir, why)
            self._inputs.append(Transfer(heir))

    # -- who takes part ------------------------------------------------------------------------

    def _mind_members(self) -> None:
        """Tell the shell whom to speak with, and stop when this member is none any more."""
        seats = self._administration.take_news()
        if seats is not None:
            self._effects.seats = seats
            self._effects.committed = self._administration.committed
            self._alone = len(self._raft.membership.electors) == 1
            self._is_out = self._administration.is_out
        if self._is_out and not self._raft.is_leader:
            self._effects.fatal = MembershipError(
                f"{self.name} was removed from the cluster",
                hint="to bring it back, remove its data directory and open it with join=[...]",
            )

    # -- snapshots -----------------------------------------------------------------------------

    @property
    def snapshot(self) -> SnapshotInfo | None:
        """The newest durable snapshot."""
        return self._store.snapshot

    def awaiting_snapshots(self) -> set[str]:
        """The peers that are being sent one."""
        peers = self._raft.progress_of()
        return {peer.name for peer in peers if peer.state is ProgressState.SNAPSHOT}

    def log_follows(self, index: int) -> bool:
        """Whether the log still has what comes right behind ``index``."""
        return self._store.log.base_index <= index

    def install(self, info: SnapshotInfo, state: Iterable[bytes]) -> None:
        """A snapshot from the leader is durable: it replaces state and, unless it matches, log."""
        if info.index <= self._applier.index:
            return
        self._applier.restore(state)
        self._store.snapshot = info
        self._compaction.installed()
        placed = newer(self._administration.rosters.base, info.configuration)
        if self._raft.snapshot_replaces_log(info.index, info.term):
            self._store.reset(info.index, info.term)
            self._administration.replaced(placed)
        configuration = (placed[0], placed[1].membership)
        self._inputs.append(Installed(info.index, info.term, configuration))

    # -- what others see -----------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Local time of this turn, in seconds."""
        return self._now

    @property
    def term(self) -> int:
        """The current term."""
        return self._raft.term

    @property
    def leading(self) -> bool:
        """Whether this member is the leader of its term."""
        return self._raft.is_leader

    @property
    def serving(self) -> bool:
        """Whether it leads and has applied everything from before its term."""
        return self._serving

    def lease_index(self) -> int | None:
        """An index at which a read may be served by this turn's lease; None without one."""
        self._effects.sleep_matters = True
        return self._raft.lease_index(self._now) if self._serving else None

    @property
    def seats(self) -> Mapping[str, Seat]:
        """Who takes part, and where, by the newest configuration in its log."""
        return self._administration.rosters.current.seats

    @property
    def last_index(self) -> int:
        """Of the last entry in its log."""
        return self._raft.last_index

    @property
    def leadership(self) -> tuple[int, str | None]:
        """(term, leader's name or None): clients are told when it changes."""
        return self._raft.term, self._raft.leader

    def admin(self, name: str, arguments: list[object]) -> object:
        """Answer an administrator's request; raises ``LookupError`` for an unknown one."""
        return self._administration.request(name, arguments)

    def take_snapshot(self) -> int:
        """Begin to save the state; returns the index it stands for.

        Raises ``ValueError`` if it cannot be encoded.
        """
        return self._compaction.take(asked=True)

    def status(self) -> dict[str, object]:
        """Where this member stands."""
        return status_of(self.name, self._raft, self._store, self._applier, self.peers_up)

    def _wake_at(self) -> float:
        if self._inputs or (not self._desk.is_idle and self._desk.unfinished):
            return self._now
        if self._applier.index < self._raft.commit_index:
            put_off = self._apply_at != math.inf
            return min(self._raft_wake_at, self._apply_at) if put_off else self._now
        if not self._serving or self._raft.handing_over:
            return self._raft_wake_at
        return min(self._raft_wake_at, self._leading.wake_at(self._now))


def _trail(log_: Log) -> Trail:
    return Trail(log_.base_index, log_.base_term, log_.term_runs, log_.last_index)


__all__ = ["Member", "MemberOptions", "Role"]
