"""Checkers accept what is promised and name what is not."""

from __future__ import annotations

import pytest

from copycat.errors import CopycatError
from copycat.testing.checkers import (
    CheckFailed,
    Events,
    Exclusion,
    Tokens,
    check_exactly_once,
    require_linearizable,
)
from copycat.testing.models import MapKey

from .stories import history


def test_only_good_histories_pass() -> None:
    """Bad and undecided histories fail alike, and the text says which it is."""
    good = history("a: [put 1 -> None] [get -> 1]")
    require_linearizable(good, MapKey())
    with pytest.raises(CheckFailed, match="undecided"):
        require_linearizable(good, MapKey(), limit=1)
    with pytest.raises(CheckFailed, match="linearizable: bad") as failure:
        require_linearizable(history("a: [put 1 -> 1]"), MapKey())
    assert failure.value.name == "linearizable"
    assert not isinstance(failure.value, CopycatError)


# -- locks -----------------------------------------------------------------------------------------


def test_turns_that_touch_do_not_overlap() -> None:
    """A lock goes from hand to hand, also at one instant; other locks do not matter."""
    exclusion = Exclusion()
    exclusion.begin("l", "a", 3, 1.0)
    exclusion.begin("m", "b", 2, 1.0)
    exclusion.end("l", "a", 3, 2.0)
    exclusion.begin("l", "b", 5, 2.0)
    exclusion.end("m", "b", 2, 3.0)
    exclusion.end("l", "b", 5, 3.0)
    exclusion.begin("l", "a", 6, 3.0)
    assert exclusion.turns == 4


def test_two_holders_are_found() -> None:
    """Who begins while another one believes to hold is named, with both tokens and times."""
    exclusion = Exclusion()
    exclusion.begin("l", "a", 3, 1.0)
    with pytest.raises(CheckFailed, match=r"b holds 'l' \(token 5\) from 2.000.*a \(token 3\)"):
        exclusion.begin("l", "b", 5, 2.0)


@pytest.mark.parametrize("token", [3, 2])
def test_a_token_that_does_not_rise_is_found(token: int) -> None:
    """A later turn has a higher token."""
    exclusion = Exclusion()
    exclusion.begin("l", "a", 3, 1.0)
    exclusion.end("l", "a", 3, 2.0)
    with pytest.raises(CheckFailed, match="tokens: b was granted"):
        exclusion.begin("l", "b", token, 3.0)


def test_an_end_without_a_turn_is_found() -> None:
    """Only who holds can give up."""
    exclusion = Exclusion()
    with pytest.raises(CheckFailed, match="nobody did"):
        exclusion.end("l", "a", 3, 2.0)
    exclusion.begin("l", "a", 3, 1.0)
    with pytest.raises(CheckFailed, match="did not hold"):
        exclusion.end("l", "a", 4, 2.0)


def test_the_fence_lets_no_older_token_pass() -> None:
    """A holder may pass many times, and be left behind, but nobody comes back or shares a token."""
    tokens = Tokens()
    for holder, token in (("a", 3), ("a", 3), ("b", 5), ("a", 7)):
        tokens.passed("l", holder, token)
    tokens.passed("m", "b", 1)
    with pytest.raises(CheckFailed, match="b passed the fence of 'l' with token 5 after a"):
        tokens.passed("l", "b", 5)
    with pytest.raises(CheckFailed, match="token 7"):
        tokens.passed("l", "b", 7)


# -- events ----------------------------------------------------------------------------------------


def heard(*positions: int, until: int | None = None, after: int = 0) -> None:
    """A listener of a stream with events at 2, 3 and 7 hears these positions."""
    events = Events()
    for _ in range(3):  # by each member
        for position in (2, 3, 7):
            events.happened("s", position, f"e{position}")
    events.listen("a", "s", after)
    for position in positions:
        events.heard("a", position, f"e{position}")
    events.finish("a", until)


def test_listeners_that_heard_everything_pass() -> None:
    """From where it listens to where it is asked, nothing is missing."""
    heard(2, 3, 7)
    heard(3, 7, after=2)
    heard(2, 3, until=6)
    heard(2, 3, 7, until=3)
    heard(after=7)


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        ((2, 2), "heard 2 .* twice"),
        ((3, 2), "heard 2 .* after 3"),
        ((2, 7), "never heard 3"),
        ((2, 3), "never heard 7"),
        ((3, 7), "never heard 2"),
        ((2, 3, 5, 7), "heard 'e5' at 5, where 's' had 'nothing'"),
    ],
)
def test_what_listeners_must_not_hear(positions: tuple[int, ...], text: str) -> None:
    """Twice, out of order, with a gap, cut short, invented: each is found."""
    with pytest.raises(CheckFailed, match=text):
        heard(*positions)


def test_wanted_events_are_heard_and_no_others() -> None:
    """A listener with a filter hears what passes it; members that disagree are found."""
    events = Events()
    for position, event in enumerate(("ax", "bx", "ay"), 1):
        events.happened("s", position, event)
    events.listen("l", "s", wanted=lambda event: str(event).startswith("a"))
    events.heard("l", 1, "ax")
    events.heard("l", 3, "ay")
    events.finish("l")
    events.listen("m", "s", wanted=lambda event: str(event).startswith("b"))
    events.heard("m", 1, "ax")
    events.heard("m", 2, "bx")
    with pytest.raises(CheckFailed, match="heard 'ax' at 1"):
        events.finish("m")
    with pytest.raises(CheckFailed, match="members disagree"):
        events.happened("s", 3, "az")


# -- exactly once ----------------------------------------------------------------------------------

APPENDS = """
    a: [append 1] [append 2] [append 3 ?] [append 4]
    b: [append 5]    [append 6 !]    [append 7 ?]
"""


@pytest.mark.parametrize(
    "found", [(1, 5, 2, 3, 4, 7), (5, 1, 2, 4), (5, 1, 2, 7, 4), (1, 5, 2, 3, 4)]
)
def test_appends_exactly_once_pass(found: tuple[int, ...]) -> None:
    """What was acknowledged is there, the unknown may be, and sessions interleave freely."""
    check_exactly_once(history(APPENDS), found)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ((1, 2, 4), "acknowledged and lost: b"),
        ((1, 2, 4, 5, 2), "2 was applied twice, at 1 and 4"),
        ((5, 3, 1, 2, 4), "out of order: a .* stands at 1, a .* at 3"),
        ((5, 2, 1, 4), "out of order: a .* stands at 1, a .* at 2"),
        ((1, 2, 4, 5, 6), "refused, and applied all the same: b"),
        ((1, 2, 4, 5, 9), "9 stands at 4, and nobody sent it"),
        ((1, 2, 3, 3, 4, 5), "3 was applied twice"),
    ],
)
def test_broken_appends_are_found(found: tuple[int, ...], text: str) -> None:
    """Lost, twice, out of the session's order, refused or invented: each is named."""
    with pytest.raises(CheckFailed, match=text):
        check_exactly_once(history(APPENDS), found)


def test_order_is_kept_within_sessions_and_behind_acknowledgements() -> None:
    """What runs at once keeps its session's order; what was acknowledged before, everybody's."""
    operations = history("""
        a: [append 1 ]    [append 3 ?]
        a:    [append 2 ]
        b:    [append 4 ]               [append 5]
    """)
    check_exactly_once(operations, (4, 1, 2, 5, 3), session=lambda each: each.arguments)
    check_exactly_once(operations, (2, 4, 1, 5), session=lambda each: each.arguments)
    with pytest.raises(CheckFailed, match="append..k., 2. -> None stands at 0, a .* at 2"):
        check_exactly_once(operations, (2, 4, 1, 5))
    with pytest.raises(CheckFailed, match="append..k., 5. -> None stands at 2, a .* at 3"):
        check_exactly_once(operations, (4, 1, 5, 2))
