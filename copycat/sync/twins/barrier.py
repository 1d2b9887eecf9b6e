"""Generated from `copycat.resources.barrier` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from types import TracebackType

from ...resources.barrier import AsyncBarrier
from ...resources.base import Duration
from ...resources.line import Claim
from ...types import Consistency
from ..base import Handle


class Barrier(Handle):
    """As ``asyncio.Barrier``; the first use settles the number of parties.

    ``with barrier as position`` waits for the others before the body; so does `wait`. Raises
    `ConflictError` if others have settled another number; with ``parties=None`` a handle takes
    whatever there is.
    """

    _kind = AsyncBarrier

    @property
    def _async(self) -> AsyncBarrier:
        return self._as(AsyncBarrier)

    @property
    def parties(self) -> int | None:
        """How many have to come, as this handle was told."""
        return self._async.parties

    def wait(self, *, timeout: Duration = None) -> int:
        """Wait for the others, for ``timeout`` seconds or as long as the session lives.

        Returns this party's place in the order of arrival, from 0: each party gets another one.
        Whoever is cancelled or gives up is not there any more; the others wait on.

        Raises:
            asyncio.BrokenBarrierError: somebody called `reset` meanwhile, or `abort` before it.
            DeadlineError: the others did not come in time.
            SessionExpiredError: it is not known whether the others have gone on.
        """
        return self._run(self._async.wait(timeout=timeout))

    def reset(self, *, timeout: Duration = None) -> None:
        """Make it as new; who waits gets a ``BrokenBarrierError``."""
        self._run(self._async.reset(timeout=timeout))

    def abort(self, *, timeout: Duration = None) -> None:
        """Break it: who waits or comes gets a ``BrokenBarrierError``, until it is reset."""
        self._run(self._async.abort(timeout=timeout))

    def n_waiting(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> int:
        """How many wait."""
        return self._run(self._async.n_waiting(consistency=consistency, timeout=timeout))

    def broken(self, *, consistency: Consistency | None = None, timeout: Duration = None) -> bool:
        """Whether it was aborted."""
        return self._run(self._async.broken(consistency=consistency, timeout=timeout))

    def waiters(
        self, *, consistency: Consistency | None = None, timeout: Duration = None
    ) -> list[Claim]:
        """Who waits, in the order of arrival."""
        return self._run(self._async.waiters(consistency=consistency, timeout=timeout))

    def __enter__(self) -> int:
        return self._run(self._async.__aenter__())

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held."""
        if self._portal.inherited:
            return
        self._run(self._async.__aexit__(exc_type, exc, traceback))


__all__ = ["Barrier"]
