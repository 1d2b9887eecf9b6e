"""What all handles of one client share: its session, what it has opened, and what it holds.

It is where a handle that has become stale learns what has become of its resource. It serves
`Resource` and `Node`.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from .._core.calls import packer, unpacker
from ..errors import CopycatError, UnknownResourceError, WrongLoopError
from ..machine import StateMachine, operations_of, type_name_of
from ..outcomes import error_of, forked
from ..ports import Random
from ..scopes import Held
from ..serializer import Serializer
from ..session import Session
from ..system import SYSTEM_RESOURCE, SystemOperation
from ..types import Consistency, Mode, SessionState

STALE_KEPT = 1024
"""Deleted resources of which a client remembers where they were."""


@dataclass(slots=True)
class Opened:
    """A resource as the cluster knows it: its id, and the ids of operations by name."""

    resource: int
    ids: dict[str, int]


Step = tuple[str, type[StateMachine], str, bytes]
"""Of a transaction: path, machine, operation, arguments."""


class StepFailed(Exception):
    """A transaction ended at its step ``nth``; ``error`` is what its caller has to hear."""

    def __init__(self, nth: int, error: CopycatError) -> None:
        super().__init__()
        self.nth = nth
        self.error = error


class Access:
    """What every handle of one client needs: the session, and what is open already."""

    def __init__(self, session: Session, serializer: Serializer, random: Random, name: str) -> None:
        self.session = session
        self.pack = packer(serializer.pack)
        self.unpack = unpacker(serializer.unpack)
        self._serializer = serializer
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.held: dict[int, dict[Held, None]] = {}  # by resource: what this client holds now
        self._random = random
        self._pid = os.getpid()
        self._opened: dict[tuple[str, str], Opened] = {}
        self._stale: dict[int, str] = {}  # deleted resources -> their paths, the latest few
        session.when_unknown(self._missing, self.forget, self._name_of)

    def check(self) -> None:
        """Raise unless this is the loop (and the process) the client was opened in."""
        if asyncio.get_running_loop() is not self.loop:
            self.wrong_place()

    def wrong_place(self) -> NoReturn:
        """Raise `ForkedError` or `WrongLoopError`."""
        if os.getpid() != self._pid:
            raise forked(self._pid, os.getpid())
        raise WrongLoopError(
            "the client belongs to another event loop",
            hint="from another thread use asyncio.run_coroutine_threadsafe(..., loop) with the "
            "loop it was opened in",
        )

    def new_claim(self) -> bytes:
        """An id that nobody else has."""
        return self._random.randbytes(16)

    def hold(self, resource: int, held: Held) -> None:
        """Something of the resource is held from now on: it is lost if that is deleted."""
        self.held.setdefault(resource, {})[held] = None

    def let_go(self, resource: int, held: Held) -> None:
        """It was given back, or is lost already."""
        holds = self.held.get(resource, {})
        holds.pop(held, None)
        if not holds:
            self.held.pop(resource, None)

    def known(self, path: str, machine: type[StateMachine]) -> Opened | None:
        """What is open already."""
        return self._opened.get((path, type_name_of(machine)))

    async def open(
        self,
        path: str,
        machine: type[StateMachine],
        *,
        also: tuple[str, ...] = (),
        mode: Mode | None = None,
        timeout: float | None = None,
    ) -> Opened:
        """Open, and if need be create, the resource; ``also`` names dynamic operations.

        In this ``mode`` the path has to be there or be created; None: as it is.
        """
        type_name = type_name_of(machine)
        known = self._opened.get((path, type_name))
        names = sorted({*operations_of(machine), *also, *(known.ids if known else ())})
        how = None if mode is None else mode.value
        resource, ids = await self.system(
            SystemOperation.OPEN, path, type_name, machine.version, names, how, timeout=timeout
        )
        opened = Opened(resource, dict(zip(names, ids, strict=True)))
        self._opened[path, type_name] = opened
        return opened

    def system(
        self, operation: SystemOperation, *args: object, timeout: float | None = None
    ) -> asyncio.Future[Any]:
        """Submit one of the system's commands."""
        self.check()
        return self.session.command(SYSTEM_RESOURCE, operation, [*args], timeout)

    def ask_system(
        self,
        operation: SystemOperation,
        *args: object,
        consistency: Consistency = Consistency.LINEARIZABLE,
        timeout: float | None = None,
    ) -> asyncio.Future[Any]:
        """Ask one of the system's queries."""
        self.check()
        return self.session.query(SYSTEM_RESOURCE, operation, [*args], consistency, timeout)

    async def transact(
        self, expected: list[Step], steps: list[Step], *, timeout: float | None = None
    ) -> list[bytes]:
        """Run ``steps``, all or none, if what is ``expected`` holds; the encoded results.

        Raises `StepFailed` with the place of the first that failed (what is expected comes first).
        """
        called = []
        for path, machine, operation, arguments in (*expected, *steps):
            opened = self.known(path, machine)
            if opened is None or operation not in opened.ids:
                opened = await self.open(path, machine, also=(operation,), timeout=timeout)
            called.append([opened.resource, opened.ids[operation], arguments])
        results, failed, *why = await self.system(
            SystemOperation.TRANSACT, called[: len(expected)], called[len(expected) :],
            timeout=timeout,
        )  # fmt: skip
        if failed < 0:
            return cast("list[bytes]", results)
        problem = error_of(why[0], self._serializer)
        if isinstance(problem, UnknownResourceError):
            self.forget(called[failed][0])
        raise StepFailed(failed, problem)

    def forget(self, resource: int) -> None:
        """The resource was deleted: what is held of it is lost, new handles open anew."""
        for held in self.held.pop(resource, {}):
            held.lose("the resource was deleted")
        for key in [key for key, opened in self._opened.items() if opened.resource == resource]:
            del self._opened[key]
            self._stale[resource] = key[0]
            if len(self._stale) > STALE_KEPT:
                del self._stale[next(iter(self._stale))]

    def _name_of(self, resource: int) -> str:
        """What to call a resource in an error."""
        paths = (path for (path, _), known in self._opened.items() if known.resource == resource)
        path = next(paths, None) or self._stale.get(resource)
        return f"resource {resource}" if path is None else _called(path, resource)

    def _missing(self, resource: int, future: asyncio.Future[Any], error: CopycatError) -> None:
        """An operation met no ``resource``: tell who waits also what is at its path by now."""
        self.forget(resource)
        path = self._stale.get(resource)
        if path is None or self.session.state is SessionState.CLOSED:
            future.set_exception(error)
            return

        def told(asked: asyncio.Future[Any]) -> None:
            there = None if asked.cancelled() or asked.exception() else asked.result()
            if not future.done():
                future.set_exception(_stale_error(path, resource, there, error))

        try:
            self.ask_system(SystemOperation.INFO, path).add_done_callback(told)
        except CopycatError:  # too much waits to be sent: then no more than this
            future.set_exception(error)


def _called(path: str, resource: int) -> str:
    return f"the resource at {path} (id {resource})"


def _stale_error(path: str, resource: int, there: Any, error: CopycatError) -> CopycatError:
    """What an operation of a stale handle fails with; ``there``: what `INFO` says of the path."""
    if there is None or not there[3] or there[3] == resource:
        stale = UnknownResourceError(
            f"{_called(path, resource)} was deleted",
            hint="make a new handle: its first use creates the resource again",
        )
    else:
        stale = UnknownResourceError(
            f"{_called(path, resource)} was deleted, and another one was created there: a "
            f"{there[4]!r} with the id {there[3]}",
            current=there[3],
            hint="nothing is left of the old one; make a new handle to use the new one",
        )
    stale.applied = error.applied
    return stale
