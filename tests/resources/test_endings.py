"""What ends by itself: in time, with its session, and never too early."""

from __future__ import annotations

import random
from typing import Any

import pytest

from copycat.errors import ConfigurationError, Rejected
from copycat.resources import MapMachine
from copycat.resources.endings import wire_terms
from copycat.types import Mode

from .test_machines import Runner


@pytest.mark.parametrize("seed", range(12))
def test_entries_end_with_their_time_or_their_session(seed: int) -> None:
    """Sizes and pages never count what is dead; an overwrite gives an entry new terms; each end is
    told once; a copy by way of a snapshot ends the same way (H53)."""
    chance = random.Random(seed)
    run = Runner(MapMachine())
    model: dict[int, tuple[int, float, int]] = {}  # key -> (value, ends at, session)
    now = 0.0
    run("watch", b"w", [], None, session=99)
    told = 0
    for step in range(600):
        key, session = chance.randrange(12), chance.randrange(1, 5)
        kind = chance.random()
        if kind < 0.45:
            ttl = chance.choice((0, 0, 1, 2, 5))
            ephemeral = chance.random() < 0.3
            terms: list[Any] = [ttl * 1_000_000, ephemeral] if ttl or ephemeral else []
            run(chance.choice(("put", "put")), key, step, *terms, session=session)
            model[key] = (step, now + ttl if ttl else 1e18, session if ephemeral else 0)
        elif kind < 0.55:
            expected = [model[key][0]] if key in model else []
            assert run("remove", key) == expected
            model.pop(key, None)
        elif kind < 0.6:
            assert run("replace_if", key, model.get(key, (None,))[0], -1) is (key in model)
            if key in model:
                model[key] = (-1, 1e18, 0)
        elif kind < 0.8:
            seconds = chance.choice((0.25, 0.5, 1.0))
            run.advance(seconds)
            now += seconds
            gone = [key for key, (_, end, _) in model.items() if end <= now]
            for key in gone:
                del model[key]
            told += len(gone)
        elif kind < 0.85:
            run.close(session)
            gone = [key for key, (_, _, owner) in model.items() if owner == session]
            for key in gone:
                del model[key]
            told += len(gone)
        elif kind < 0.9:
            events = run.events
            image = run.image()
            run = run.restored()
            run.events = events
            assert run.image() == image
        assert run("size") == len(model)
        assert run("page", 0, 3) == [-1, list(model), [value for value, _, _ in model.values()]]
        assert run.machine.endings.count == sum(  # type: ignore[attr-defined]
            end < 1e18 or owner > 0 for _, end, owner in model.values()
        )
    assert sum(event[1][0] == "expire" for event in run.events) == told > 10


def test_timers_do_not_pile_up() -> None:
    """One key that is written again and again with a long time to live costs one timer, and no
    memory that grows."""
    run = Runner(MapMachine())
    for number in range(5000):
        run("put", "k", number, 3_600_000_000, False)
        run.advance(0.001)
    assert len(run.timers) == 1
    assert len(run.machine.endings._due) < 200  # type: ignore[attr-defined]
    run.advance(3700)
    assert run("size") == 0 and run.timers == []


def test_long_and_short_times_to_live_share_timers() -> None:
    """A key that ends in a day next to one that is renewed again and again for a second, or a time
    to live that falls with each write: timers stay few, and the ends stay exact."""
    run = Runner(MapMachine())
    run("put", "day", 0, 86_400_000_000, False)
    most = 0
    for number in range(3000):
        run("put", "short", number, 1_000_000, False)
        run.advance(2.0)
        most = max(most, len(run.timers))
    assert most < 4 and run("page", 0, 1) == [-1, ["day"], []]
    for number in range(3000):
        run("put", "k", number, (70_000 - number) * 1_000_000, False)
        most = max(most, len(run.timers))
    assert 8 < most < 70
    assert run.machine.endings.timers == sorted(  # type: ignore[attr-defined]
        (timer[0] for timer in run.timers), reverse=True
    )
    run = run.restored()
    run.advance(70_000 - 2999 - 0.000001)
    assert run("size") == 2
    run.advance(0.000001)
    assert run("page", 0, 1) == [-1, ["day"], []]
    run.advance(86_400)
    assert run("size") == 0 and run.timers == []


def test_writes_at_one_moment_leave_nothing_behind() -> None:
    """Writes of one key at the same log time cost as much as others: no place is kept twice."""
    run = Runner(MapMachine())
    for number in range(3000):
        run("put", "k", number, 1_000_000, False)
        assert len(run.machine.endings._due) < 200  # type: ignore[attr-defined]
    assert len(run.timers) == 1
    run.advance(1)
    assert run("size") == 0


def test_nonsense_is_refused() -> None:
    """A time to live is a positive number; the machine refuses what no handle would send."""
    run = Runner(MapMachine())
    for bad in (-1, 1.5, "1", 1 << 70):
        with pytest.raises(Rejected):
            run("put", "k", 1, bad, False)
    with pytest.raises(Rejected):
        run("put", "k", 1, 0, True, session=0)
    assert run("size") == 0
    for ttl in (0, -1, float("nan"), float("inf"), "1"):
        with pytest.raises(ConfigurationError, match="ttl is a number of seconds above 0"):
            wire_terms(ttl, Mode.PERSISTENT)  # type: ignore[arg-type]
    assert wire_terms(0.25, Mode.EPHEMERAL) == [250_000, True]
    assert wire_terms(None, Mode.PERSISTENT) == []
