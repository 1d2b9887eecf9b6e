"""A member without a leader says so, names who is missing, and does not go on about it."""

from __future__ import annotations

import logging

import pytest

from copycat.server.vigil import Vigil


class Loop:
    """Calls back when the test lets time pass; also the clock."""

    def __init__(self) -> None:
        self.time = 0.0
        self.due: list[tuple[float, object]] = []

    def now(self) -> float:
        return self.time

    def call_later(self, delay: float, callback: object) -> Loop:
        self.due.append((self.time + delay, callback))
        return self

    def cancel(self) -> None:
        self.due.clear()

    def run(self, seconds: float) -> None:
        end = self.time + seconds
        while self.due and self.due[0][0] <= end:
            self.time, callback = self.due.pop(0)
            callback()  # type: ignore[operator]
        self.time = end


def test_a_missing_leader_is_reported_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """First after some seconds, then after twice as long, in the end once a minute."""
    loop, leaders = Loop(), ["n1"]
    vigil = Vigil(
        "n2", lambda: leaders[0] if leaders else None,
        lambda: {"n3": "connection refused", "n1": "no route"}, loop, loop,  # type: ignore[arg-type]
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        loop.run(60)
        assert not caplog.records
        leaders.clear()
        loop.run(10)
        (record,) = caplog.records
        assert record.message == (
            "n2 has had no leader for 5 s: nothing can be written or locked. "
            "Not reached: n1 (no route), n3 (connection refused)"
        )
        loop.run(600)
        assert 10 <= len(caplog.records) <= 16
        caplog.clear()
        leaders.append("n3")
        loop.run(60)
        assert [record.message for record in caplog.records] == ["n2 has a leader again: n3"]
        caplog.clear()
        vigil.close()
        leaders.clear()
        loop.run(60)
        assert not caplog.records


def test_a_short_absence_is_nobodys_business(caplog: pytest.LogCaptureFixture) -> None:
    """An election takes a moment; that is not worth a word."""
    loop, leaders = Loop(), ["n1"]
    leader = lambda: leaders[0] if leaders else None  # noqa: E731
    Vigil("n2", leader, dict, loop, loop)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            leaders.clear()
            loop.run(3)
            leaders.append("n1")
            loop.run(3)
    assert not caplog.records
