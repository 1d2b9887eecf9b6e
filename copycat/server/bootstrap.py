"""Founding a cluster: from data directories that are all empty to one cluster that all know.

It runs once in the life of a member, before Raft exists, and decides nothing else. Every member
without a cluster asks all the listed ones who they are and stays connected; a reply comes at once
and once more when the asked member becomes founded.

The rules
    1. A member saves its identity (a fresh uuid, no cluster) before it says a word.
    2. Only the *coordinator*, the lowest name of the list, decides; and only while **every** other
       listed member is connected to it, has the very same list and says that it is empty.
    3. To decide is one write: the coordinator saves the cluster's id together with the uuid of each
       founder. Nobody is told before that write is durable.
    4. A member that belongs to no cluster adopts one from any founded member, if its own uuid is
       among the founders; if its name is there with another uuid, its data was lost: it stops.
    5. The coordinator never adopts. Its decision was on its own disk before anybody could know of
       it; if others know and it does not, that disk has lost something.
    6. A member that told a coordinator that it is empty takes no decision directly from another
       incarnation of that coordinator: such a reply is a leftover. It also hangs up on the
       incarnation that asked before; one that is alive asks again.
    7. What somebody *asks* changes nothing but rule 6: only answers on connections that this member
       made itself, to the listed addresses, found a cluster or end the attempt. Uuids are told only
       to who asks in the name of another listed member and has the very same list; whoever has
       another list is told the list and no more, so that the mistake can be seen.

Why that is safe
    *Crashes.* Before the write of rule 3 nothing has happened: everybody restarts with the uuid it
    had, and the coordinator may decide anew, under another id. After it the cluster exists, and a
    restarted member asks until it finds a founded one. There is no third state, since a rename
    either happened or not.

    *No second cluster.* Two clusters with a common member need two decisions. The list names one
    coordinator, and all that answer it have the same list. A coordinator that kept its disk knows
    its decision. One that was wiped has to hear "empty" from everybody first. Whoever adopted the
    older decision before it was asked says so, and the wiped one stops. Whoever is asked first
    cannot adopt the older decision afterwards: not from the wiped coordinator's leftovers (rule 6),
    and not from a third member, because the first of those had to adopt before it was asked. If
    nobody had adopted the older decision, it only ever existed on the disk that was lost, without
    the quorum that a first entry needs.

    *No wiped member is counted.* Founders are bound by uuid, and every handshake between members
    compares it. Two wiped members of three find the third one founded, or wait for it for ever.

    *Strangers.* Without TLS nobody can prove who he is. A stranger who does not know the whole list
    learns no uuid and stops nothing; his asks are counted, and logged now and then. One who knows
    it can learn uuids, and by asking as the coordinator delay the founding for as long as he goes
    on (rule 6); he cannot make it unsafe, since nothing is decided or adopted upon an ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .._core.codec import PROTOCOL_VERSION, Frame
from .._core.layout import FormatError
from ..connection import HANDSHAKE_FRAME_LIMIT, Complaints, FrameProtocol
from ..errors import ConfigurationError, CopycatError, MembershipError, StorageError
from ..handshake import Fields, pack_control
from ..ports import Disk, Network, Random
from ..types import Address
from .identity import NO_CLUSTER, Identity, parse_founders, save_identity

BACKOFF_MIN = 0.05
BACKOFF_MAX = 1.0
"""Seconds between two attempts to reach a member; jittered down to half."""
LINGER = 1.0
"""Seconds for which a member that found out about differing lists stays up, to be asked too: both
sides should say so."""
FIRST_NOTICE = 1.0
NOTICE_INTERVAL = 30.0
"""Seconds after which it is said for whom we wait, first and then again."""

log = logging.getLogger("copycat.bootstrap")


@dataclass(frozen=True, slots=True)
class Statement:
    """What a member says about itself: the payload of FOUND_ASK and FOUND_REPLY."""

    identity: Identity
    members: Mapping[str, str]  # the list it was given: name -> "host:port"

    def frame(self, type_: Frame) -> bytes:
        """This as one frame."""
        me = self.identity
        founders = {name: [str(address), uuid] for name, (address, uuid) in me.founders.items()}
        fields = {
            "protocol": PROTOCOL_VERSION,
            "name": me.name,
            "uuid": me.uuid,
            "cluster": me.cluster,
            "founders": founders,
            "members": dict(self.members),
        }
        return pack_control(type_, fields)

    @classmethod
    def parse(cls, payload: bytes) -> Statement:
        """Read a payload; raises `FormatError`."""
        fields = Fields(payload)
        if fields.integer("protocol") != PROTOCOL_VERSION:
            raise FormatError(f"protocol {fields.integer('protocol')}, not {PROTOCOL_VERSION}")
        identity = Identity(
            fields.text("name"),
            fields.id("uuid"),
            fields.id("cluster"),
            parse_founders(fields, "founders"),
        )
        return cls(identity, fields.addresses("members"))


class Bootstrap:
    """Finds or founds the cluster of one member.

    Args:
        identity: what `load_identity` gave.
        members: all founding members' names and addresses, this one's included.
        disk: where the identity is saved; blocks for a moment when it is.
        network: the Network door.
        random: for the cluster's id and the jitter.
    """

    def __init__(
        self,
        identity: Identity,
        members: Mapping[str, Address],
        disk: Disk,
        network: Network,
        random: Random,
    ) -> None:
        self.identity = identity
        self._members = members
        self._list = {name: str(address) for name, address in sorted(members.items())}
        self._coordinator = min(members)
        self._disk = disk
        self._network = network
        self._random = random
        self._empty: dict[str, bytes] = {}  # name -> uuid of those connected that say "empty"
        self._promised: bytes | None = None  # uuid of the coordinator we told that we are empty
        self._watchers: list[FrameProtocol] = []
        self._coordinator_link: FrameProtocol | None = None  # on which that promise was asked for
        self.complaints = Complaints()  # asks of strangers
        self._problems: dict[str, str] = {}
        self._nudges: dict[str, asyncio.Event] = {}
        self._ended: asyncio.Future[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None

    async def run(self) -> Identity:
        """Return the identity of a founded member, however long that takes.

        Raises:
            ConfigurationError: the members were given different lists, or an address is another's.
            MembershipError: the cluster exists and knows another incarnation of this member.
            StorageError: the identity could not be saved.
        """
        if self.identity.founded:
            return self.identity
        if len(self._members) == 1:
            self._decide()
            return self.identity
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        peers = [name for name in self._list if name != self.identity.name]
        self._problems = dict.fromkeys(peers, "no answer yet")
        self._nudges = {peer: asyncio.Event() for peer in peers}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(peer)) for peer in peers]
            tasks.append(group.create_task(self._notices()))
            try:
                await self._ended
            except CopycatError as problem:
                failure: CopycatError | None = problem
            else:
                failure = None
            finally:
                for task in tasks:
                    task.cancel()
                if self._lingering is not None:
                    self._lingering.cancel()
        if failure is not None:
            raise failure
        return self.identity

    def on_ask(self, connection: FrameProtocol, payload: bytes) -> None:
        """A member without a cluster asks (FOUND_ASK); also after our cluster was founded.

        Raises `FormatError` for what is no statement.
        """
        asker = Statement.parse(payload)
        name = asker.identity.name
        if asker.members != self._list or name == self.identity.name or name not in self._list:
            self._foreign(connection, asker)
            return
        connection.write(self._statement().frame(Frame.FOUND_REPLY))
        if self.identity.founded:
            connection.close()
            return
        if name == self._coordinator:
            before = self._coordinator_link
            if before is not None and self._promised != asker.identity.uuid:
                before.close()
            self._promised, self._coordinator_link = asker.identity.uuid, connection
        self._watchers = [each for each in self._watchers if each.open] + [connection]
        self._nudge(name)

    def _foreign(self, connection: FrameProtocol, asker: Statement) -> None:
        """Whoever asks is not one of us, or was given another list: say which list we have."""
        name = asker.identity.name
        self.complaints.add(
            asyncio.get_running_loop().time(),
            f"{self.identity.name}: {connection.peer} asks as {name!r} with another list of "
            f"members: {_names(asker.members)}",
        )
        if asker.members != self._list:
            nobody = Identity(self.identity.name, bytes(16))
            connection.write(Statement(nobody, self._list).frame(Frame.FOUND_REPLY))
            self._nudge(name)  # if we list it, we shall hear of its list ourselves
        connection.close()

    def _nudge(self, name: str) -> None:
        if name in self._nudges:
            self._nudges[name].set()

    # -- asking --------------------------------------------------------------------------------

    async def _ask(self, peer: str) -> None:
        """Stay connected to ``peer`` and listen to what it says, until we are cancelled."""
        delay = BACKOFF_MIN
        while True:
            lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            answered = await self._listen_to(peer, lost)
            self._empty.pop(peer, None)
            delay = BACKOFF_MIN if answered else delay
            self._nudges[peer].clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay * self._random.uniform(0.5, 1.0)):
                    await self._nudges[peer].wait()
            delay = min(2 * delay, BACKOFF_MAX)

    async def _listen_to(self, peer: str, lost: asyncio.Future[None]) -> bool:
        """One connection, until it is lost; whether ``peer`` said anything on it."""
        answered = False

        def on_frame(type_: int, payload: bytes) -> None:
            nonlocal answered
            if type_ != Frame.FOUND_REPLY:
                raise FormatError(f"a frame of type {type_} instead of a statement")
            statement = Statement.parse(payload)
            protocol.established(HANDSHAKE_FRAME_LIMIT)
            answered = True
            self._problems.pop(peer, None)
            self._heard(peer, statement)

        def on_lost(error: BaseException | None) -> None:
            # At once, not when the task runs: a decision may only count on those still connected.
            self._empty.pop(peer, None)
            self._problems[peer] = "connection lost"
            if not lost.done():
                lost.set_result(None)

        protocol = FrameProtocol(on_frame, on_lost)
        try:
            await self._network.connect(self._members[peer], lambda: protocol)
            protocol.write(self._statement().frame(Frame.FOUND_ASK))
            await lost
        except OSError as problem:
            self._problems[peer] = problem.strerror or str(problem)
        finally:
            protocol.abort()
        return answered

    def _heard(self, peer: str, statement: Statement) -> None:
        """``peer`` said who it is: adopt its cluster, or count it among the empty ones."""
        if self.identity.founded or self._ended is None or self._ended.done():
            return
        other = statement.identity
        if other.name != peer:
            self._end(
                ConfigurationError(
                    f"{self._list[peer]} is listed as {peer}, but {other.name} answers there",
                    hint="check the names and addresses; use the same list on every host",
                )
            )
        elif statement.members != self._list:
            if self._lingering is None:
                loop, problem = asyncio.get_running_loop(), self._different_lists(statement)
                self._lingering = loop.call_later(LINGER, self._end, problem)
        elif other.founded:
            self._adopt(other)
        else:
            self._empty[peer] = other.uuid
            if self.identity.name == self._coordinator and len(self._empty) == len(self._list) - 1:
                self._decide()

    # -- deciding and adopting -----------------------------------------------------------------

    def _decide(self) -> None:
        """All are empty, and we are the coordinator: found the cluster."""
        uuids = {**self._empty, self.identity.name: self.identity.uuid}
        cluster = NO_CLUSTER
        while cluster == NO_CLUSTER:
            cluster = self._random.randbytes(16)
        founders = {name: (self._members[name], uuids[name]) for name in self._list}
        self._become(replace(self.identity, cluster=cluster, founders=founders))
        log.info("%s founded cluster %s", self.identity.name, cluster.hex()[:8])

    def _adopt(self, other: Identity) -> None:
        """``other`` is founded: its cluster is ours if it knows this incarnation of us."""
        me = self.identity
        if other.name == self._coordinator and self._promised not in (None, other.uuid):
            return  # rule 6
        own = other.founders.get(me.name)
        if own is None or sorted(other.founders) != sorted(self._list):
            self._end(
                ConfigurationError(
                    f"{other.name} belongs to cluster {other.cluster.hex()[:8]}, founded by "
                    f"{_names(other.founders)}; {me.name} lists {_names(self._list)}",
                    hint="use the same list on every host, or other data directories",
                )
            )
        elif own[1] != me.uuid:
            self._end(
                MembershipError(
                    f"{me.name} has an empty data directory, but cluster {other.cluster.hex()[:8]} "
                    f"was founded with another incarnation of {me.name}: its data was lost or "
                    f"moved. It takes no part and casts no vote",
                    hint="bring back the old data directory, or let it come back as another "
                    "incarnation: open it with join=[...] instead of members",
                )
            )
        elif me.name == self._coordinator:
            self._end(
                StorageError(
                    f"{other.name} belongs to cluster {other.cluster.hex()[:8]}, which {me.name} "
                    f"founded, but the data directory of {me.name} does not know it: it is a copy "
                    "from before the founding, or its disk lost a write",
                    hint="bring back the real data directory",
                )
            )
        else:
            self._become(replace(me, cluster=other.cluster, founders=dict(other.founders)))
            log.info("%s joined the founding of cluster %s", me.name, other.cluster.hex()[:8])

    def _become(self, identity: Identity) -> None:
        """Save it first, then say it."""
        try:
            save_identity(self._disk, identity)
        except CopycatError as problem:
            if self._ended is None:
                raise
            self._end(problem)
            return
        self.identity = identity
        frame = self._statement().frame(Frame.FOUND_REPLY)
        for connection in self._watchers:
            connection.write(frame)
            connection.close()
        self._watchers.clear()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    # -- helpers -------------------------------------------------------------------------------

    def _statement(self) -> Statement:
        return Statement(self.identity, self._list)

    def _end(self, problem: CopycatError) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(problem)

    def _different_lists(self, other: Statement) -> ConfigurationError:
        me, name = self.identity.name, other.identity.name
        if set(other.members) != set(self._list):
            text = f"{me} lists {_names(self._list)}, {name} lists {_names(other.members)}"
        else:
            differing = [each for each in self._list if other.members[each] != self._list[each]]
            text = "; ".join(
                f"{me} lists {each} at {self._list[each]}, {name} lists it at {other.members[each]}"
                for each in differing
            )
        return ConfigurationError(
            text, hint="use the same list on every host (it includes the host itself)"
        )

    async def _notices(self) -> None:
        """Say for whom we wait: soon, then every half minute."""
        await asyncio.sleep(FIRST_NOTICE)
        while True:
            waiting = [
                f"{peer} ({self._list[peer]}: {why})" for peer, why in self._problems.items()
            ]
            whom = ", ".join(waiting) or f"{self._coordinator} to found the cluster"
            log.warning(
                "%s waits for %s. A cluster is founded once every listed member is up and empty",
                self.identity.name,
                whom,
            )
            await asyncio.sleep(NOTICE_INTERVAL)


def _names(members: Mapping[str, object]) -> str:
    return "{" + ", ".join(sorted(members)) + "}"
