"""The models of queues, semaphores and latches against drawn histories."""

from __future__ import annotations

from typing import Any

import pytest

from copycat.errors import MisuseError
from copycat.testing.linearizable import check
from copycat.testing.queue_models import Latch, Queue, Semaphore

from ..testing.stories import history

GOOD: dict[str, tuple[Any, str]] = {
    "a get waits for what is put": (Queue(), """
        a: [get               -> 1]  [get -> 2]
        b:      [put 1 -> None] [put 2 -> None]  [size -> 0]
    """),
    "puts that overlap come in either order": (Queue(), """
        a: [put 1 -> None] [get -> 2]
        b: [put 2 -> None] [get -> 1]
    """),
    "a get of unknown outcome has taken something": (Queue(), """
        a: [put 1 -> None] [get ?]
        b:                 [put 2 -> None]  [get -> 2] [peek -> None]
    """),
    "two permits": (Semaphore(2), """
        a: [acquire -> 3]              [release -> None]
        b: [acquire -> 4] [try_acquire 9 -> None]       [available -> 1]
    """),
    "a permit of a dead client comes back": (Semaphore(1), """
        a: [acquire -> 3] [release ?]
        b:                [acquire -> 8]
    """),
    "a latch stays open": (Latch(2), """
        a: [count_down -> 1] [count_down 5 -> 0] [count_down -> 0]
        b:      [wait                -> None]    [count -> 0]
    """),
}  # fmt: skip
BAD: dict[str, tuple[Any, str]] = {
    "last in, first out": (Queue(), """
        a: [put 1 -> None] [put 2 -> None] [get -> 2]
    """),
    "an item comes twice": (Queue(), """
        a: [put 1 -> None] [get -> 1]
        b:                 [get -> 1]
    """),
    "an item from nowhere": (Queue(), """
        a: [get -> 1]
    """),
    "an item is lost": (Queue(), """
        a: [put 1 -> None] [size -> 0]
    """),
    "three of two permits": (Semaphore(2), """
        a: [acquire 1 -> 3] [acquire 2 -> 4] [acquire 3 -> 5]
    """),
    "a token that falls": (Semaphore(2), """
        a: [acquire 1 -> 3] [acquire 2 -> 2]
    """),
    "a permit that was there": (Semaphore(2), """
        a: [acquire 1 -> 3] [try_acquire 2 -> None]
    """),
    "a latch opens too early": (Latch(2), """
        a: [count_down -> 1] [wait -> None]
    """),
    "a count is lost": (Latch(3), """
        a: [count_down -> 2] [count -> 3]
    """),
}  # fmt: skip


@pytest.mark.parametrize("story", GOOD)
def test_good_histories_pass(story: str) -> None:
    """What the resource may answer is explained by some order."""
    model, drawing = GOOD[story]
    verdict = check(history(drawing), model)
    assert verdict.finding == "good", verdict


@pytest.mark.parametrize("story", BAD)
def test_bad_histories_are_found(story: str) -> None:
    """What it must never answer is explained by none."""
    model, drawing = BAD[story]
    verdict = check(history(drawing), model)
    assert verdict.finding == "bad", verdict


def test_a_model_refuses_operations_that_it_does_not_know() -> None:
    """A misspelt operation is an error of the workload, not a finding."""
    model: Any
    for model in (Queue(), Latch(1), Semaphore(1)):
        with pytest.raises(MisuseError, match="putt"):
            check(history("a: [putt 1 -> None]"), model)
