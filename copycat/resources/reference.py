"""One replicated value, None at first: its machine (pure) and `AsyncReference`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from ..machine import StateMachine, command, event, query
from ..types import Consistency, EventType, Mode
from .base import Duration, Resource
from .endings import Endings, terms_of, wire_terms
from .table import Table

T = TypeVar("T")

_CHANGED = "changed"
_KEY = 0


class ReferenceMachine(StateMachine):
    """A table with one entry at most. Members store the value as it is on the wire."""

    type_name = "copycat.reference"
    changed = event(list[Any])
    initial: Any = None

    def __init__(self) -> None:
        self.table = Table()
        self.endings = Endings(self.table)

    @command
    def set(self, value: Any, ttl_us: int = 0, ephemeral: bool = False) -> Any:
        """Set it; the value before."""
        return self._set(self.checked(value), terms_of(self.commit, ttl_us, ephemeral))

    @command
    def compare_and_set(
        self, expected: Any, value: Any, ttl_us: int = 0, ephemeral: bool = False
    ) -> bool:
        """Set it if it equals ``expected``."""
        terms = terms_of(self.commit, ttl_us, ephemeral)
        expected, value = self.checked(expected), self.checked(value)
        if self.table.get(_KEY, self.initial) != expected:
            return False
        self._set(value, terms)
        return True

    @command
    def expire(self) -> None:
        """Be as at first if the value has outlived its time: the timer of `Endings`."""
        for serial in self.endings.due(self.commit.time_us):
            self._end(serial)
        self.endings.schedule(self.commit, "expire")

    @query
    def get(self) -> Any:
        """The value."""
        return self.table.get(_KEY, self.initial)

    def on_close(self, session: int) -> None:
        """What was set for the time of an ended session is gone."""
        for serial in self.endings.of(session):
            self._end(serial)

    def snapshot(self) -> object:
        """The value with its terms."""
        return [self.table.serial, list(self.endings.timers), list(self.table.freeze())]

    def restore(self, image: Any) -> None:
        """Become what `snapshot` gave."""
        serial, timers, leaves = image
        self.endings.restored(timers, self.table.restore(serial, leaves))

    def checked(self, value: Any) -> Any:
        """``value``, if it may be one."""
        return value

    def _set(self, value: Any, terms: list[int] | None) -> Any:
        self.endings.forget(self.table.serials.get(_KEY))
        before = self.table.get(_KEY, self.initial)
        serial = self.table.put(_KEY, value, self.commit.index, terms)
        if terms is not None:
            self.endings.begin(serial, terms)
            self.endings.schedule(self.commit, "expire")
        self.changed.publish(["change", value, before])
        return before

    def _end(self, serial: int) -> None:
        self.endings.forget(serial)
        self.changed.publish(["expire", self.initial, self.table.pop(_KEY)])


@dataclass(frozen=True, slots=True)
class ValueEvent(Generic[T]):
    """`CHANGE`, or `EXPIRE` (then ``value`` is as at first); ``index`` is its place in the log."""

    type: EventType
    value: T
    previous: T
    index: int


class AsyncReference(Resource[ReferenceMachine], Generic[T]):
    """A shared value of any type that can be sent; every change is atomic.

    Values are compared by what they are, not by identity.
    """

    machine = ReferenceMachine

    async def get(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> T | None:
        """The present value; None if none was set."""
        return cast("T | None", await self._query("get", [], consistency, timeout))

    async def set(
        self,
        value: T | None,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> None:
        """Set the value.

        With a ``ttl`` (s, by log time) it is None again after that; with `Mode.EPHEMERAL` when the
        session that set it ends. The same holds for the other operations that set it.
        """
        await self._command("set", [value, *wire_terms(ttl, mode)], timeout)

    async def get_and_set(
        self,
        value: T | None,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> T | None:
        """Set the value; returns the one before."""
        arguments = [value, *wire_terms(ttl, mode)]
        return cast("T | None", await self._command("set", arguments, timeout))

    async def compare_and_set(
        self,
        expected: T | None,
        value: T | None,
        *,
        ttl: Duration = None,
        mode: Mode = Mode.PERSISTENT,
        timeout: Duration = None,
    ) -> bool:
        """Set the value if it equals ``expected`` now; whether it did."""
        arguments = [expected, value, *wire_terms(ttl, mode)]
        return cast(bool, await self._command("compare_and_set", arguments, timeout))

    async def watch(self) -> AsyncIterator[ValueEvent[T | None]]:
        """Changes from now on; none is lost or doubled.

        Raises `SessionExpiredError` if the session ended and changes may have been missed.
        """
        registration, inbox = await self._listen(_CHANGED)
        try:
            while True:
                (kind, value, before), index = await inbox.get()
                yield ValueEvent(EventType(kind), value, before, index)
        finally:
            self._session.unlisten(registration)
