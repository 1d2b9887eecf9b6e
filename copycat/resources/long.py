"""A replicated integer of any size, 0 at first.

Nothing wraps around. The machine is pure; `AsyncLong` is its client half.
"""

from __future__ import annotations

from typing import cast

from ..errors import ConflictError, Rejected
from ..machine import StateMachine, command, query
from ..types import Consistency
from .base import Duration, Resource


class LongMachine(StateMachine):
    """One integer."""

    type_name = "copycat.long"

    def __init__(self) -> None:
        self.value = 0

    @command(check=lambda _, value: _check(value))
    def set(self, value: int) -> int:
        """Set it; the value before."""
        _check(value)
        before, self.value = self.value, value
        return before

    @command(check=lambda _, by: _check(by))
    def add(self, by: int) -> int:
        """Add to it; the new value."""
        _check(by)
        self.value += by
        return self.value

    @command
    def compare_and_set(self, expected: int, value: int) -> bool:
        """Set it if it is ``expected``."""
        _check(expected)
        _check(value)
        if self.value != expected:
            return False
        self.value = value
        return True

    @query
    def get(self) -> int:
        """The value."""
        return self.value

    @query
    def expect(self, value: int) -> None:
        """Raise `ConflictError` unless it has this value."""
        _check(value)
        if self.value != value:
            raise ConflictError(f"the value is {self.value}, not {value}", current=self.value)


def _check(value: object) -> None:
    if type(value) is not int:
        raise Rejected(f"an integer is needed, not {type(value).__name__}")


class AsyncLong(Resource[LongMachine]):
    """A shared integer; every change is atomic and happens exactly once."""

    machine = LongMachine

    async def get(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> int:
        """The present value."""
        return cast(int, await self._query("get", [], consistency, timeout))

    async def set(self, value: int, *, timeout: Duration = None) -> None:
        """Set the value."""
        await self._command("set", [value], timeout)

    async def get_and_set(self, value: int, *, timeout: Duration = None) -> int:
        """Set the value; returns the one before."""
        return cast(int, await self._command("set", [value], timeout))

    async def compare_and_set(self, expected: int, value: int, *, timeout: Duration = None) -> bool:
        """Set the value if it is ``expected`` now; whether it was."""
        return cast(bool, await self._command("compare_and_set", [expected, value], timeout))

    async def increment(self, by: int = 1, *, timeout: Duration = None) -> int:
        """Add ``by``; returns the new value."""
        return cast(int, await self._command("add", [by], timeout))

    async def decrement(self, by: int = 1, *, timeout: Duration = None) -> int:
        """Subtract ``by``; returns the new value."""
        return cast(int, await self._command("add", [-by], timeout))

    async def get_and_add(self, by: int, *, timeout: Duration = None) -> int:
        """Add ``by``; returns the value before."""
        return cast(int, await self._command("add", [by], timeout)) - by
