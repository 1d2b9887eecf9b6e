"""Every hazard of Raft has a test or a checker that cites it."""

from __future__ import annotations

from .hazards import NOT_YET, TABLE, citations, table


def test_somebody_stands_against_every_hazard() -> None:
    """No number is without a citation, unless a reason is given; and no reason is out of date."""
    missing = [number for number, files in citations().items() if not files]
    assert missing == sorted(NOT_YET)


def test_the_table_is_up_to_date() -> None:
    """``python -m tests.hazards`` would change nothing."""
    assert TABLE.read_text(encoding="utf-8") == table()
