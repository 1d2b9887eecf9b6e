"""Machines as users write them, with everything that can go wrong in one: for simulated lives.

`Moody` says no, raises, recurses without end, answers what cannot be sent, schedules and floods.
`Echo` answers any operation by its name. Nothing here knows who calls.
"""

from __future__ import annotations

from typing import Any

from ..errors import ConflictError, Rejected
from ..machine import Commit, StateMachine, command, event, query


class Moody(StateMachine):
    """A counter that mostly does something else."""

    type_name = "lives.Moody"
    told = event(list)

    def __init__(self) -> None:
        self.count = 0
        self.gone: list[int] = []

    @command
    def add(self, more: int) -> int:
        """Count; the count afterwards."""
        self.count += more
        return self.count

    @command
    def refuse(self) -> None:
        """Say no."""
        raise Rejected("not today")

    @command
    def conflict(self, plain: bool) -> None:
        """Say that something else is there: which can be sent, or not."""
        raise ConflictError("something else is there", current=self.count if plain else object())

    @command
    def fail(self) -> None:
        """Raise, with an address in the text that differs from member to member."""
        raise ValueError(f"what is {object()!r}?")

    @command
    def odd(self) -> object:
        """Answer what cannot be sent."""
        return object()

    @command
    def deep(self) -> int:
        """Never end by itself."""
        return self._deeper(0)

    def _deeper(self, level: int) -> int:
        return self._deeper(level + 1) + 1

    @command
    def later(self, delay: float, more: int) -> None:
        """Count after a while."""
        self.commit.schedule(delay, "add", more)

    @command
    def tell(self, events: int, size: int) -> int:
        """Publish many events, or large ones."""
        for number in range(events):
            self.told.publish([number, "." * size])
        return self.count

    @query
    def read(self) -> int:
        """The count."""
        return self.count

    @query
    def misread(self) -> int:
        """A query that may not do what it tries."""
        self.commit.publish("told", [])
        return self.count

    def on_close(self, session: int) -> None:
        """Remember the last few sessions that ended."""
        self.gone = [*self.gone, session][-5:]

    def on_delete(self, session: int) -> None:
        """Tell those who ended, and then raise: a path can be deleted all the same."""
        self.commit.dismiss(self.gone)
        raise ValueError("it does not want to go")


class Echo(StateMachine):
    """Answers any operation with its arguments; ``again`` schedules itself."""

    type_name = "lives.Echo"

    def __init__(self) -> None:
        self.heard = 0

    def apply(self, commit: Commit) -> object:
        """Whatever it is."""
        if not commit.read_only:
            self.heard += 1
        if commit.operation == "again" and self.heard % 3 and not commit.read_only:
            commit.schedule(0.0, "again", *commit.args)
        if commit.operation == "fail":
            raise KeyError("nothing")
        return list(commit.args)


class Unregistered(StateMachine):
    """No member has it."""

    type_name = "lives.Unregistered"

    @command
    def anything(self) -> Any:
        """Never runs."""


class Stubborn(StateMachine):
    """Cannot be made: its first state raises."""

    type_name = "lives.Stubborn"

    def __init__(self) -> None:
        raise ValueError("no")

    @command
    def anything(self) -> Any:
        """Never runs."""


MACHINES: tuple[type[StateMachine], ...] = (Moody, Echo, Stubborn)
"""What members need for lives with roamers."""
