"""Going straight to the next turn changes nothing but the number of planned events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from copycat.testing.timeline import Timeline
from copycat.testing.world import World


def _happenings(seed: int) -> list[tuple[float, str]]:
    """When whom had a turn, where some sleep, some spin, and events come between."""
    told: list[tuple[float, str]] = []
    chance = random.Random(seed)

    async def live(name: str, naps: list[float]) -> None:
        for nap in naps:
            await asyncio.sleep(nap)
            told.append((world.now, name))

    with World(seed) as world:
        tasks = []
        for name in "abc":
            naps = [chance.choice((0.0, 0.0, 0.0001, chance.random() / 100)) for _ in range(60)]
            tasks.append(world.process(name).spawn(live(name, naps)))
        for _ in range(100):
            at = chance.random()
            world.timeline.at(at, lambda at=at: told.append((world.now, "event")))
        assert world.run(100.0, until=lambda: all(task.done() for task in tasks))
        world.run(2.0)
    return told


@pytest.mark.parametrize("seed", range(10))
def test_turns_that_follow_at_once_happen_as_planned_ones(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without `reach` the same happens at the same times, in the order of time."""
    reached: list[bool] = []
    reach = Timeline.reach

    def counted(self: Timeline, time: float) -> bool:
        reached.append(reach(self, time))
        return reached[-1]

    monkeypatch.setattr(Timeline, "reach", counted)
    straight = _happenings(seed)
    assert any(reached)
    assert not all(reached)
    monkeypatch.setattr(Timeline, "reach", lambda self, time: False)
    assert straight == _happenings(seed)
    assert straight == sorted(straight, key=lambda each: each[0])


@pytest.mark.parametrize("stop", [{"limit_s": 0.5}, {"until": 100}])
def test_who_never_rests_is_stopped_all_the_same(stop: dict[str, float]) -> None:
    """A task that always has a next turn ends at the limit, and when ``until`` is true."""
    turns = 0

    async def spin() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    with World(1) as world:
        world.process("p").spawn(spin())
        until: Callable[[], bool] | None = None
        if "until" in stop:
            until = lambda: turns >= stop["until"]  # noqa: E731
        world.run(stop.get("limit_s", 1e9), until=until)
        if until is None:
            assert world.now == 0.5
        else:
            assert turns == 100
