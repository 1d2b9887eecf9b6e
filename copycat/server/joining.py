"""Joining a running cluster: from an empty data directory to a learner that all have heard of.

It runs once in the life of a member, before Raft exists. It asks whoever leads to be added, again
and again, until the answer tells the configuration that has it, which is committed by then; that is
saved together with the cluster's id before the member takes part. A crash on the way changes
nothing: the same uuid asks again. That it becomes a voter when it has caught up is the leader's
business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .._core.codec import PEER_FRAME_LIMIT, Frame
from .._core.layout import FormatError
from ..config import parse_address
from ..connection import FrameProtocol
from ..errors import CopycatError, MembershipError, WrongClusterError
from ..handshake import CLIENT, Hello, Refusal, Welcome, pack_control, unpack_control
from ..ports import Disk, Network, Random
from ..types import Address
from .administration import DONE, REFUSED, WAIT
from .identity import NO_CLUSTER, Identity, save_identity
from .roster import PlacedRoster, Roster

PAUSE_S = 0.05
PAUSE_MAX_S = 1.0
PAUSE_ANSWERED_MAX_S = 0.25
"""Between two rounds of questions; jittered down to half."""
ANSWER_S = 2.0
"""Seconds that a member has for its answer."""
REFUSED_FOR_S = 3.0
"""Seconds of refusals after which it is believed: who was just wiped may seem to be alive still."""
NOTICE_INTERVAL = 30.0

log = logging.getLogger("copycat.joining")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a member said; ``told`` if we belong to the cluster now."""

    word: str
    why: str
    told: PlacedRoster | None = None


class Joining:
    """Makes one member join.

    Args:
        identity: what `load_identity` gave; not founded.
        here: the address under which the others reach this member.
        seeds: addresses of some members of the cluster.
        disk: where the identity is saved; blocks for a moment when it is.
        network: the Network door.
        random: for the jitter.
    """

    def __init__(
        self,
        identity: Identity,
        here: Address,
        seeds: Iterable[Address],
        disk: Disk,
        network: Network,
        random: Random,
    ) -> None:
        self.identity = identity
        self._here = here
        self._seeds = list(seeds)
        self._disk = disk
        self._network = network
        self._random = random
        self._cluster: bytes | None = None
        self._leaders: list[Address] = []  # who is said to lead, the newest word first
        self._members: dict[str, Address] = {}
        self._problems: dict[Address, str] = {}

    async def run(self) -> Identity:
        """Return the identity of a member, however long that takes.

        Raises:
            MembershipError: the cluster does not want this member, and why.
            WrongClusterError: the addresses belong to different clusters.
            StorageError: the identity could not be saved.
        """
        loop = asyncio.get_running_loop()
        pause, refused_since = PAUSE_S, 0.0
        notice_at = loop.time() + 1.0
        while True:
            answer = await self._ask_all()
            if answer is not None and answer.told is not None:
                return self._joined(answer.told)
            if answer is not None and answer.word == REFUSED:
                refused_since = refused_since or loop.time()
                if loop.time() - refused_since >= REFUSED_FOR_S:
                    raise MembershipError(f"{self.identity.name} cannot join: {answer.why}")
            else:
                refused_since = 0.0
            if loop.time() >= notice_at:
                notice_at = loop.time() + NOTICE_INTERVAL
                log.warning("%s waits to join: %s", self.identity.name, self._why(answer))
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(2 * pause, PAUSE_MAX_S if answer is None else PAUSE_ANSWERED_MAX_S)

    async def _ask_all(self) -> Answer | None:
        """Ask until the leader answers: whoever is said to lead first, then everybody known."""
        asked = {self._here}
        while True:
            known = [*self._leaders, *self._members.values(), *self._seeds]
            address = next((each for each in known if each not in asked), None)
            if address is None:
                self._leaders.clear()
                return None
            asked.add(address)
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await self._ask(address)
            except TimeoutError:
                self._problems[address] = f"no answer for {ANSWER_S:g} s"
            except OSError as problem:
                self._problems[address] = str(problem.strerror or problem)
            else:
                self._problems.pop(address, None)
                if answer.word in (DONE, REFUSED, WAIT):
                    self._leaders = [address]
                    return answer

    async def _ask(self, address: Address) -> Answer:
        """One connection, one question, one answer."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        me = self.identity

        def on_frame(type_: int, payload: bytes) -> None:
            if answered.done():
                return
            if type_ == Frame.WELCOME:
                protocol.established(PEER_FRAME_LIMIT)
                problem = self._welcomed(address, Welcome.parse(payload))
                if problem is not None:
                    answered.set_exception(problem)
                    return
                question = [1, "join", [me.name, str(self._here), me.uuid]]
                protocol.write(pack_control(Frame.ADMIN, question))
            elif type_ == Frame.REFUSE:
                answered.set_exception(ConnectionError(Refusal.parse(payload).message))
            elif type_ == Frame.ADMIN_REPLY:
                answered.set_result(_answer_in(payload))

        def on_lost(error: BaseException | None) -> None:
            if not answered.done():
                answered.set_exception(ConnectionResetError(str(error or "connection lost")))

        protocol = FrameProtocol(on_frame, on_lost)
        try:
            await self._network.connect(address, lambda: protocol)
            protocol.write(Hello(CLIENT, self._cluster, me.name, me.uuid).frame())
            return await answered
        finally:
            protocol.abort()
            if not answered.cancel() and not answered.cancelled():
                answered.exception()  # seen, whichever way this ends

    def _welcomed(self, address: Address, welcome: Welcome) -> CopycatError | None:
        if self._cluster not in (None, welcome.cluster):
            return WrongClusterError(f"{address} belongs to another cluster than the others")
        self._cluster = welcome.cluster
        # Somebody may have been away for long: what others said is not forgotten.
        self._members |= {name: parse_address(text) for name, text in welcome.members.items()}
        leader = self._members.get(welcome.leader or "")
        if leader is not None:
            self._leaders.insert(0, leader)
        return None

    def _joined(self, told: PlacedRoster) -> Identity:
        """Save it first, then take part."""
        cluster = self._cluster or NO_CLUSTER
        identity = replace(self.identity, cluster=cluster, joined=told)
        save_identity(self._disk, identity)
        log.info("%s joined cluster %s", identity.name, cluster.hex()[:8])
        return identity

    def _why(self, answer: Answer | None) -> str:
        if answer is not None:
            return answer.why
        problems = [f"{address}: {why}" for address, why in self._problems.items()]
        return ", ".join(problems) or "no member leads"


def _answer_in(payload: bytes) -> Answer:
    """The answer in an ADMIN_REPLY; raises `FormatError`."""
    fields = unpack_control(payload)
    if not (isinstance(fields, list) and len(fields) == 3):
        raise FormatError("a reply has three fields")
    _, error, answer = fields
    if error is not None:
        return Answer(REFUSED, str(error))
    if not (isinstance(answer, list) and len(answer) >= 2):
        raise FormatError("an answer to who joins has a word and an explanation")
    word, why, *rest = answer
    if word != DONE:
        return Answer(str(word), str(why))
    told = rest[0] if rest else None
    if not (isinstance(told, list) and len(told) == 2 and isinstance(told[0], int)):
        raise FormatError("who joins is told an index and a configuration")
    index, encoded = told
    if not isinstance(encoded, bytes):
        raise FormatError("who joins is told an index and a configuration")
    return Answer(DONE, str(why), (index, Roster.decode(encoded)))
