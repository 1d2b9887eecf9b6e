"""A replicated flag, False at first: its machine (pure) and `AsyncBoolean`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

from ..errors import Rejected
from ..types import Consistency, EventType
from .base import Duration, Resource
from .reference import ReferenceMachine, ValueEvent

_CHANGED = "changed"


class BooleanMachine(ReferenceMachine):
    """A reference to True or False."""

    type_name = "copycat.boolean"
    initial = False

    def checked(self, value: Any) -> bool:
        """``value``, if it is a bool."""
        if type(value) is not bool:
            raise Rejected(f"True or False is needed, not {type(value).__name__}")
        return value


class AsyncBoolean(Resource[BooleanMachine]):
    """A shared flag; every change is atomic and happens exactly once."""

    machine = BooleanMachine

    async def get(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> bool:
        """The present value."""
        return cast(bool, await self._query("get", [], consistency, timeout))

    async def set(self, value: bool, *, timeout: Duration = None) -> None:
        """Set the value."""
        await self._command("set", [value], timeout)

    async def get_and_set(self, value: bool, *, timeout: Duration = None) -> bool:
        """Set the value; returns the one before."""
        return cast(bool, await self._command("set", [value], timeout))

    async def compare_and_set(
        self, expected: bool, value: bool, *, timeout: Duration = None
    ) -> bool:
        """Set the value if it is ``expected`` now; whether it was."""
        return cast(bool, await self._command("compare_and_set", [expected, value], timeout))

    async def watch(self) -> AsyncIterator[ValueEvent[bool]]:
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
