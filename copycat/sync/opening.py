"""``with copycat.sync.connect(...) as cc``: a thread of its own for each opening, and its end.

The end is clean also if nobody leaves the ``with`` before the interpreter exits, and in a child
process nothing of its parent's is touched.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar

from ..errors import MisuseError
from .portal import Portal, refuse_in_a_loop

E = TypeVar("E", covariant=True)

STOP_S = 10.0
"""Seconds for what runs in the thread to end; it is a daemon, so nothing waits for it later."""
AT_EXIT_S = 2.0


class Opening(Generic[E]):
    """What `connect`, `open` and `local_cluster` return; nothing happens before ``with``."""

    def __init__(
        self,
        opening: AbstractAsyncContextManager[Any, Any],
        what: str,
        twin: Callable[[Portal, Any], E],
    ) -> None:
        self._opening = opening
        self._what = what
        self._twin = twin
        self._portal: Portal | None = None

    def __enter__(self) -> E:
        refuse_in_a_loop()
        if self._portal is not None:
            raise MisuseError(f"this {self._what} is open already", hint="call it again")
        self._portal = portal = Portal(self._what)
        try:
            portal.start()
            inside = portal.run(self._opening.__aenter__())
        except BaseException:
            self._portal = None
            portal.stop(STOP_S)
            raise
        atexit.register(self._leave_at_exit)
        return self._twin(portal, inside)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        portal, self._portal = self._portal, None
        if portal is None or portal.inherited:  # a child leaves its parent's things alone
            return
        atexit.unregister(self._leave_at_exit)
        try:
            portal.run(self._opening.__aexit__(None, None, None))
        finally:
            portal.stop(STOP_S)

    def _leave_at_exit(self) -> None:
        """The interpreter ends, and its other threads have: say goodbye, but not for ever."""
        portal, self._portal = self._portal, None
        if portal is not None and not portal.inherited:
            portal.finish(self._opening.__aexit__(None, None, None), AT_EXIT_S)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"copycat.{self._what} is not open yet and has no {name!r}: "
            f"use  with copycat.{self._what} as cc:"
        )

    async def __aenter__(self) -> NoReturn:
        raise TypeError(f"copycat.{self._what} is blocking: use  with, or copycat without .sync")

    async def __aexit__(self, *exc: object) -> None:
        """Never reached."""


__all__ = ["Opening"]
