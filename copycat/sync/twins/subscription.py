"""Generated from `copycat.resources.subscription` by `copycat.sync.generate`: do not edit.

The blocking twins of what is there; see `copycat.sync`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Generic, Self

from ...resources.subscription import E
from ...resources.subscription import Subscription as AsyncSubscription
from ..base import Twin


class Subscription(Twin, Generic[E]):
    """``for event in subscription``; leave it, or `aclose`, to end it.

    A step that is cancelled, by ``asyncio.timeout`` say, takes nothing: iterate again. Raises
    `SessionExpiredError` if the session ended and events may have been missed, `OverloadedError`
    if 16,384 events wait for this iterator, `UnknownResourceError` if the path was deleted; after
    that read the state anew and subscribe again.
    """

    @property
    def _async(self) -> AsyncSubscription[E]:
        return self._as(AsyncSubscription)

    def __enter__(self) -> Self:
        """Begin: whatever is published from here on will come."""
        self._run(self._async.__aenter__())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._portal.inherited:
            return
        self._run(self._async.__aexit__(exc_type, exc, traceback))

    def aclose(self) -> None:
        """End it, also for a thread that waits; the cluster is told in the background."""
        self._run(self._async.aclose())


__all__ = ["Subscription"]
