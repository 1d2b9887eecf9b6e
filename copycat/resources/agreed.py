"""A number that the first use of a resource settles for everybody: permits, parties, a count.

Handles that say another number get an error instead of a surprise. It serves the machines and the
handles of semaphores, barriers and latches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ConfigurationError, ConflictError, Rejected


def agreed(known: int, said: object, what: str, most: int) -> int:
    """For a machine: the number in force; ``known`` is 0 while none was settled.

    ``said`` is what a caller holds for the number, None if it takes any. Raises `ConflictError`
    (``current``: the number in force) if it is another one.
    """
    if said is None:
        if not known:
            raise Rejected(f"nobody has said yet how many {what} there are")
        return known
    if type(said) is not int or not 1 <= said <= most:
        raise Rejected(f"there are between 1 and {most} {what}")
    if known and said != known:
        raise ConflictError(f"it has {known} {what}, not {said}", current=known)
    return said


def own_number(said: int | None, what: str, most: int) -> int | None:
    """For a handle: ``said``; raises `ConfigurationError` unless the machine would take it."""
    if said is not None and (type(said) is not int or not 1 <= said <= most):
        raise ConfigurationError(f"{what} is a whole number from 1 to {most}, not {said!r}")
    return said


@contextmanager
def settling(path: str, what: str, said: int | None) -> Iterator[None]:
    """For a handle: the machine's errors about the number, with the names of this run."""
    try:
        yield
    except ConflictError as conflict:
        raise ConflictError(
            f"{path!r} has {conflict.current} {what}, not {said}",
            current=conflict.current,
            hint=f"say the same number of {what} everywhere; to change it, delete the path",
        ) from None
    except Rejected as problem:
        if said is not None:
            raise
        raise Rejected(
            f"{path!r}: {problem}", hint=f"say the number of {what} when you make the handle"
        ) from None
