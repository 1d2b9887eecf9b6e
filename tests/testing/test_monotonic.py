"""A session never goes back behind what it knew when it asked."""

from __future__ import annotations

import pytest

from copycat.testing.checkers import CheckFailed
from copycat.testing.monotonic import check_monotonic

from .stories import history

GOOD = {
    "versions rise": "a: [write -> 1] [read -> 1] [read -> 3]",
    "another session may be behind": """
        a: [write -> 3]
        b:              [read -> 1] [read -> 2]
    """,
    "an answer that had not come yet binds nobody": """
        a: [read   -> 5]
        a:   [read  -> 3]
    """,
    "what has no version says nothing": "a: [write -> 3] [write ?] [write !] [read] [read -> 3]",
}
BAD = {
    "behind its own write": "a: [write -> 3] [read -> 2]",
    "behind its earlier read": "a: [read -> 3] [read -> 3] [read -> 2]",
    "a slow old answer does not excuse": """
        a: [read -> 5] [read -> 4]
        a:   [read         -> 3]
    """,
    "long ago": """
        a: [read -> 9]
        b:             [read -> 1] [read -> 2]
        a:                                      [read -> 8]
    """,
}


@pytest.mark.parametrize("drawing", GOOD.values(), ids=GOOD)
def test_sessions_that_move_on_pass(drawing: str) -> None:
    """Each answer is at least as new as what the session had been told before it asked."""
    check_monotonic(history(drawing))


@pytest.mark.parametrize("drawing", BAD.values(), ids=BAD)
def test_sessions_that_go_back_are_found(drawing: str) -> None:
    """The older answer is named, together with what the session knew."""
    with pytest.raises(CheckFailed, match="went back to version") as failure:
        check_monotonic(history(drawing))
    assert failure.value.name == "monotonic"


def test_keys_are_apart_and_versions_can_come_from_anywhere() -> None:
    """Versions of different keys are not compared; what an operation shows is up to the caller."""
    operations = history("a: [read -> 3]", key="x") + history("a: [read -> 2]", key="y")
    check_monotonic(operations)
    pairs = history("a: [read -> (1,7)] [read -> (2,6)]")
    check_monotonic(pairs)
    with pytest.raises(CheckFailed):
        check_monotonic(pairs, lambda each: each.result[1])
