"""What one simulated life consists of: drawn from its seed, and small enough to be shrunk.

A plan is a plain value. Two lives with the same plan are the same; a smaller plan that still fails
is a better bug report.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..ports import Random

MEMBER_FAULTS = (
    "add member",  # a new one joins, or is added first, or comes back to a place it once had
    "add learner",  # one that stays a learner
    "remove member",  # the leader as well, and who is down
    "replace",  # removed, and back under its name with an empty disk
    "away",  # a member is down for so long that the others may all be other ones by then
    "wipe",  # a member loses its disk for good and has to join again
    "promote",
    "demote",
    "resize",  # from now on there shall be one voter, three or five
    "struck",  # somebody dies or is cut off while a configuration is under way
    "transfer to",  # a member that is named: perhaps down, a learner, or unknown
)
"""Every kind of change of the members, by the name under which it is counted."""

DISK_FAULTS = (
    "bit flip",  # in synced data of any kind, where a sound majority is left
    "read error",  # for a while some reads fail
    "lost file",  # is not there at the next start
    "lost directory",
)
"""Every kind of disk that lies, by the name under which it is counted."""

FAULTS = (
    "kill",  # a member's process; its page cache survives
    "power cut",  # of what was not synced, a random part survives
    "crash point",  # the process dies within an operation of its disk
    "everybody dies",
    "partition",  # two halves
    "one way",  # a link carries nothing in one direction
    "isolation",  # of the leader
    "clogged",
    "resets",
    "frames",  # between members frames are lost, doubled and overtake each other
    "pause",  # a member does nothing for a while
    "suspend",  # and its clock stands still
    "slow disk",
    "sync error",
    "full disk",
    "transfer",
    "snapshot",
    "calendar",  # a wall clock jumps
    "client pause",
    "client death",
    "cut off",  # a client reaches no member, often for longer than its session lasts
    "client unheard",  # it hears nothing for a moment, and then late answers, but nobody hears it
    *MEMBER_FAULTS,
    *DISK_FAULTS,
)
"""Every kind of fault, by the name under which it is counted."""


UNLIMITED = 1 << 30


@dataclass(frozen=True, slots=True)
class Plan:
    """One life.

    Attributes:
        seed: of everything that is left to chance.
        members, clients: how many.
        seconds: how long faults happen, in virtual time.
        faults: the kinds that happen in this life.
        fault_every: seconds between two of them, on average.
        fault_limit: after so many there are no more.
        think_s: what a client waits between two operations, on average.
        operation_limit: after so many a client's task stops.
        stay_s: what a client stays connected before it ends its session, on average.
        session_s: so long the cluster keeps the session of a client that it does not hear.
        value_bytes: values of the map are padded to this size.
        skew: clocks run up to this fraction too fast or too slow.
        leased: the share of linearizable reads that are content with a lease.
        snapshot_bytes, segment_bytes: of the members' storage.
        roamers: clients that use the whole API, beside the others.
        strangers_every: seconds between two hostile connections, on average; 0: none.
        founding_s: members are first started within so many seconds, under faults.
        preferred: the number of the member that should lead, by its priority; 0: none.
    """

    seed: int
    members: int = 3
    clients: int = 4
    seconds: float = 60.0
    faults: tuple[str, ...] = FAULTS
    fault_every: float = 2.0
    fault_limit: int = UNLIMITED
    think_s: float = 0.5
    operation_limit: int = UNLIMITED
    stay_s: float = 30.0
    session_s: float = 5.0
    value_bytes: int = 0
    skew: float = 0.0
    leased: float = 0.0
    snapshot_bytes: int = 1 << 20
    segment_bytes: int = 64 << 10
    roamers: int = 0
    strangers_every: float = 0.0
    founding_s: float = 0.0
    preferred: int = 0

    def smaller(self) -> list[Plan]:
        """Plans that leave something out, the boldest first."""
        found = []
        if len(self.faults) > 1:
            half = len(self.faults) // 2
            found.append(replace(self, faults=self.faults[:half]))
            found.append(replace(self, faults=self.faults[half:]))
            found += [
                replace(self, faults=tuple(kind for kind in self.faults if kind != one))
                for one in self.faults
            ]
        if self.clients > 1:
            found.append(replace(self, clients=self.clients // 2))
        if self.members > 3:
            found.append(replace(self, members=3))
        if self.value_bytes:
            found.append(replace(self, value_bytes=0))
        if self.skew:
            found.append(replace(self, skew=0.0))
        if self.roamers:
            found.append(replace(self, roamers=0))
        if self.strangers_every:
            found.append(replace(self, strangers_every=0.0))
        if self.founding_s:
            found.append(replace(self, founding_s=0.0))
        if self.preferred:
            found.append(replace(self, preferred=0))
        if self.session_s != 5.0:
            found.append(replace(self, session_s=5.0))
        if self.leased:
            found.append(replace(self, leased=0.0))
        return found


@dataclass(slots=True)
class Report:
    """What came of a life that broke no law."""

    trace: str = ""
    virtual_s: float = 0.0
    events: int = 0
    operations: int = 0
    acknowledged: int = 0
    elections: int = 0
    faults: dict[str, int] = field(default_factory=dict)


def draw(seed: int, *, seconds: float = 60.0) -> Plan:
    """The plan of a seed."""
    random = Random(seed)
    kinds = tuple(kind for kind in FAULTS if random.random() < random.choice((0.2, 0.5, 0.9)))
    return Plan(
        seed,
        members=random.choice((3, 3, 3, 5, 1)),
        clients=random.randint(2, 6),
        seconds=seconds,
        faults=kinds or FAULTS,
        fault_every=random.choice((0.5, 1.0, 2.0, 5.0)),
        think_s=random.choice((0.5, 1.0, 2.0, 4.0)),
        stay_s=random.choice((5.0, 30.0, 1e9)),
        value_bytes=random.choice((0, 0, 500, 500, 4000, 4000, 150_000)),
        skew=random.choice((0.0, 0.01, 0.03)),
        leased=random.choice((0.0, 0.5, 1.0)),
        snapshot_bytes=random.choice((64 << 10, 256 << 10, 1 << 20)),
        segment_bytes=random.choice((64 << 10, 256 << 10)),
        roamers=random.choice((0, 0, 1, 2)),
        strangers_every=random.choice((0.0, 0.0, 1.0, 4.0)),
        founding_s=random.choice((0.0, 0.0, 5.0, 40.0)),
        preferred=random.choice((0, 0, 1, 3)),
        session_s=random.choice((5.0, 5.0, 2.0)),
    )
