"""Garbage collection that happens at the same moments in every run of a simulation.

Finalizers have effects: abandoned generators clean up, exceptions that nobody retrieved are told.
Inside `orderly` the collector runs only when the `Timeline` says so. It serves whoever runs worlds.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Switch the automatic collector off, and collect at the end.

    What exists already is set aside, so that a collection costs no more than the world is large.
    """
    was_enabled = gc.isenabled()
    aside = gc.get_freeze_count() == 0  # else somebody else set things aside
    gc.disable()
    if aside:
        gc.collect()  # the world before this one: set aside as well, it would stay for ever
        gc.freeze()
    try:
        yield
        gc.collect()
    finally:
        if aside:
            gc.unfreeze()
        if was_enabled:
            gc.enable()
