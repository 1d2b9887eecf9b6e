"""The member's two-way contract with its shell: what comes in, and what a turn asks for.

`Member.turn(now, inputs)` is one ordinary call; the pump carries out the `Effects` it returns and
feeds completions back as inputs of a later turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .roster import Roster, Seat


@dataclass(slots=True)
class PeerFrame:
    """A frame arrived from another member."""

    peer: str
    type: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class PeerUp:
    """Our connection to ``peer`` stands: frames to it will leave. The higher its ``priority``, the
    more it should lead."""

    peer: str
    priority: int = 1


@dataclass(frozen=True, slots=True)
class PeerDown:
    """Our connection to ``peer`` broke; ``refused``: and its address refuses a new one."""

    peer: str
    refused: bool


@dataclass(slots=True)
class ClientFrame:
    """A frame arrived on client connection number ``connection``."""

    connection: int
    type: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ClientGone:
    """The client connection is closed."""

    connection: int


@dataclass(slots=True)
class Job:
    """Work for a disk lane: ``run`` blocks and uses only the Disk door; no member state is touched.

    ``size`` is the number of bytes it writes (small ones may run inline). ``then`` is called with
    the result by the member, inside the turn that gets the `JobDone`; never by the shell.
    """

    lane: str  # "log" | "background"
    run: Callable[[], Any]
    then: Callable[[Any], None] = lambda result: None
    failed: Callable[[BaseException], None] | None = None
    size: int = 0


@dataclass(slots=True)
class JobDone:
    """A job ended, with its result or its error."""

    job: Job
    result: object
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class RosterHeard:
    """Another member showed a configuration that is committed at ``index``, newer than ours.

    It has a member that we do not know, or not this incarnation of it; or it has not us.
    """

    index: int
    roster: Roster


@dataclass(frozen=True, slots=True)
class Slept:
    """The machine slept since the turn before, and the clock of the turns counted nothing of it."""


MemberInput = (
    RosterHeard | PeerFrame | PeerUp | PeerDown | ClientFrame | ClientGone | JobDone | Slept
)


@dataclass(slots=True)
class Effects:
    """What the shell has to do after a turn, in this order: send, then start the jobs."""

    peer_frames: list[tuple[str, bytes]] = field(default_factory=list)  # (peer, whole frames)
    client_frames: Sequence[tuple[int, bytes]] = ()  # (connection, frames)
    close: Sequence[int] = ()  # client connections, after their frames
    complaints: Sequence[tuple[int, str]] = ()  # (connection, what it did)
    jobs: Sequence[Job] = ()
    prompt: bool = False  # others wait for these jobs: take their completion in at once
    wake_at: float = 0.0  # call turn again at this clock time at the latest
    sleep_matters: bool = False  # from now on: begin a turn after a sleep with `Slept`
    leadership: tuple[int, str | None] | None = None  # (term, leader), if that changed
    seats: Mapping[str, Seat] | None = None  # everybody to speak with, if that changed
    committed: tuple[int, bytes] = (0, b"")  # with it: the committed configuration and its index
    fatal: BaseException | None = None  # the member must stop now: nothing else may be carried out
