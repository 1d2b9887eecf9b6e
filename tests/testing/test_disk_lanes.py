"""Jobs on the simulated disk take virtual time, keep their order, and repeat exactly."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from copycat.errors import MisuseError, StorageError
from copycat.server.hardstate import HardStateFile
from copycat.server.store import Store
from copycat.testing.disk import FAST, SLOW, STALLING, Crashed, Latency, SimulatedDisk

from .test_disk import KB, content, written


class Timeline:
    """Virtual time: what is scheduled happens in its order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._nth = 0

    def schedule(self, delay: float, callback: Callable[[], None]) -> None:
        self._nth += 1
        heapq.heappush(self._events, (self.now + delay, self._nth, callback))

    def run(self, end: float = 1e9) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, callback = heapq.heappop(self._events)
            callback()


@pytest.mark.parametrize("latency", [FAST, SLOW, STALLING])
def test_lanes_run_one_job_at_a_time_in_order(latency: Latency) -> None:
    """Jobs of a lane and their completions keep their order; they take time, errors included."""
    timeline = Timeline()
    disk = SimulatedDisk(random=random.Random(1), schedule=timeline.schedule, latency=latency)
    runs: dict[str, list[int]] = {"log": [], "background": []}
    ends: dict[str, list[int]] = {"log": [], "background": []}
    inline = 0
    chance = random.Random(2)

    def submit(nth: int) -> None:
        nonlocal inline
        lane = chance.choice(("log", "background"))

        def job() -> int:
            runs[lane].append(nth)
            if nth % 7 == 0:
                raise OSError(str(nth))
            return nth

        def done(result: object, error: BaseException | None) -> None:
            assert result == nth or str(error) == str(nth)
            ends[lane].append(nth)

        size = chance.choice((100, 1 << 20))
        disk.submit(lane, job, done, size=size)
        if nth in ends[lane]:
            assert lane == "log" and size == 100
            inline += 1

    for nth in range(400):
        timeline.schedule(nth * 0.001, lambda nth=nth: submit(nth))  # type: ignore[misc]
    timeline.run()
    assert runs == ends
    assert all(sorted(each) == each for each in runs.values())
    assert sorted(runs["log"] + runs["background"]) == list(range(400))
    assert (inline > 0) == (latency.inline > 0)
    assert timeline.now > 0.4
    if latency is STALLING:
        assert timeline.now > 2
    with pytest.raises(MisuseError):
        disk.submit("express", lambda: None, lambda result, error: None)


def test_jobs_die_with_their_process() -> None:
    """What was queued or not yet reported when a life ended is never run and never reported."""
    timeline = Timeline()
    disk = SimulatedDisk(
        random=random.Random(1), schedule=timeline.schedule, latency=Latency(inline=0.0)
    )
    told: list[object] = []
    door = disk.mount(timeline.schedule)

    def job() -> None:
        door.open("f", create=True).allocate(KB)

    def done(result: object, error: BaseException | None) -> None:
        told.append((result, error))

    disk.crash_after = 1
    for _ in range(3):
        door.submit("background", job, done)
    timeline.run()
    assert disk.dead and told == []
    disk.kill()
    for _ in range(20):
        disk.submit("log", lambda: disk.open("g", create=True), done)
    disk.kill()
    timeline.run()
    assert told == [] and not disk.exists("g")
    disk.submit("log", lambda: 5, done)
    timeline.run()
    assert told == [(5, None)]


def test_closing_lets_queued_jobs_end() -> None:
    """As with a real disk: they run, and nobody is told; then nothing works any more."""
    timeline = Timeline()
    disk = SimulatedDisk()
    door = disk.mount(timeline.schedule)
    told: list[object] = []
    for nth in range(5):
        door.submit(
            "background",
            lambda nth=nth: written(disk, f"f{nth}", b""),  # type: ignore[misc]
            lambda result, error: told.append(error),
        )
    file = door.open("f", create=True)
    door.close()
    assert disk.listdir("") == ["f", *(f"f{nth}" for nth in range(5))]
    timeline.run()
    assert told == []
    for attempt in (file.sync, lambda: door.exists("f"), lambda: door.unlink("f")):
        with pytest.raises(StorageError, match="closed"):
            attempt()
    with pytest.raises(StorageError, match="closed"):
        door.submit("log", lambda: None, lambda result, error: None)


# -- repeatability ---------------------------------------------------------------------------------


def life(seed: int) -> tuple[dict[str, bytes], dict[str, int], list[str]]:
    """A store's life of chance on a disk of chance: what survives, what was counted, said."""
    chance = random.Random(seed)
    timeline = Timeline()
    disk = SimulatedDisk(random=random.Random(seed), latency=STALLING)
    said: list[str] = []
    HardStateFile.found(disk).close()
    for _ in range(4):
        disk.crash_after = chance.randrange(60)
        disk.rates["sync"] = 0.01
        door = disk.mount(timeline.schedule)
        try:
            store = Store(
                door, b"c" * 16, b"m" * 16, segment_bytes=8 * KB,
                on_saved=lambda state: None, on_durable=lambda index: None,
            )  # fmt: skip
            store.recover()
            for nth in range(30):
                body = chance.randbytes(2000)
                door.submit(
                    "background",
                    lambda nth=nth, body=body, store=store: store.snapshots.save(nth, 1, body),  # type: ignore[misc]
                    lambda result, error: said.append(f"{timeline.now} {result} {error}"),
                )
            timeline.run(timeline.now + 5)
        except (Crashed, StorageError) as error:
            said.append(str(error))
        disk.power_cut(chance) if chance.random() < 0.5 else disk.kill()
    found = {f"{d}/{name}" for d in ("log", "snapshots") for name in disk.listdir(d)}
    return {name: content(disk, name) for name in sorted(found)}, disk.counts, said


@pytest.mark.parametrize("seed", range(10))
def test_the_same_seed_gives_the_same_life(seed: int) -> None:
    """Surviving bytes, counters and the moment of every completion repeat exactly."""
    assert life(seed) == life(seed)


def test_lives_differ() -> None:
    """Chance does decide: the lives above have different ends."""
    assert len({str(life(seed)) for seed in range(6)}) == 6
