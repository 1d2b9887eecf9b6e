"""Whether members still agree: digests of what they said and of their machines, through the log.

Every few seconds the leader adds a *check* to a batch that leaves anyway: a TICK with arguments.
All members reach it at the same index, and note there what they answered since the check before (a
checksum that runs along, over bytes that are encoded in any case) and a checksum of one user's
machine, in turn. The next check brings what the leader had noted. Whoever noted something else has
another state than its leader. It cannot know who is right, so it goes on, and says so in its log
and in its status. Nothing here is part of the replicated state.

A check's arguments are ``[resource, told]``; ``told`` is empty or the five values of a `Note`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from .._core.kernel import crc32
from ..errors import SerializationError
from .executor import Executor, Instance, is_built_in

log = logging.getLogger("copycat.member")

STATE_BYTES_MAX = 1 << 20
"""Machines that were larger when they were last encoded are not checked: it would be a pause."""
NOTES_KEPT = 8
_HINT = (
    "look for clocks, chance or the order of sets in it (copycat.testing.Simulation finds them), "
    "and for members with other code of the same version. A member takes over the leader's state "
    "when its data directory is removed and it joins again"
)


@dataclass(frozen=True, slots=True)
class Note:
    """What a member found at a check: None stands for what it could not know."""

    index: int
    resource: int
    version: int  # of the machine's class: other versions may have other states
    state: int | None
    said: int | None


class Agreement:
    """Notes and comparisons of one member.

    Attributes:
        member: its name, for the log.
        differences: what was not as the leader had it, and at which index first.
    """

    def __init__(self, executor: Executor) -> None:
        self.member = ""
        self.differences: dict[str, int] = {}
        self._executor = executor
        self._notes: dict[int, Note] = {}
        self._heard_all = True  # since the last check
        self._last = 0  # the resource that was looked at last

    def restored(self) -> None:
        """The state came from a snapshot: what was said before is not known."""
        self._notes.clear()
        self._heard_all = False

    def check(self, index: int, said: int, resource: int, told: Sequence[Any], *_: object) -> None:
        """A check at ``index`` is applied; ``said`` is the checksum since the one before."""
        if told:
            self._compare(Note(*told[:5]))
        version, state = self._look_at(self._executor.instance(resource))
        self._notes[index] = Note(
            index, resource, version, state, said if self._heard_all else None
        )
        self._heard_all, self._last = True, resource
        while len(self._notes) > NOTES_KEPT:
            del self._notes[next(iter(self._notes))]

    def next_check(self) -> list[object]:
        """The arguments of a leader's next check."""
        turns = [i.id for i in self._executor.instances() if self._is_worth_it(i)]
        resource = next((id_ for id_ in turns if id_ > self._last), turns[0] if turns else 0)
        note = next(reversed(self._notes.values()), None)
        return [resource, [] if note is None else list(astuple(note))]

    @staticmethod
    def _is_worth_it(instance: Instance) -> bool:
        return not is_built_in(instance.type_name) and instance.state_size <= STATE_BYTES_MAX

    def _look_at(self, instance: Instance | None) -> tuple[int, int | None]:
        if instance is None:
            return 0, None
        state = 0
        try:
            for piece in instance.freeze()[1]:
                state = crc32(piece, state)
        except SerializationError:
            return 0, None
        return type(instance.machine).version, state

    def _compare(self, told: Note) -> None:
        mine = self._notes.get(told.index)
        if mine is None:
            return
        if None not in (mine.said, told.said) and mine.said != told.said:
            self._report("what commands answered or published", told.index)
        if (
            (mine.resource, mine.version) == (told.resource, told.version)
            and None not in (mine.state, told.state)
            and mine.state != told.state
        ):
            instance = self._executor.instance(mine.resource)
            what = "a deleted resource" if instance is None else str(instance)
            self._report(f"the state of {what}", told.index)

    def _report(self, what: str, index: int) -> None:
        if what not in self.differences:
            self.differences[what] = index
            log.error(
                "%s: %s differs from the leader's at index %d. The machine is not deterministic, "
                "or one of the two has failed. hint: %s", self.member, what, index, _HINT,
            )  # fmt: skip
