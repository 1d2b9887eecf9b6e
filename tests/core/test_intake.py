"""How a client's operations enter and are resolved is the same in both bodies."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from copycat._core.kernel import encode_results
from copycat._core.layout import FormatError
from copycat.errors import SerializationError
from copycat.serializer import Serializer
from copycat.testing.twins import bodies

BODIES = bodies("calls")
MOST, MOST_BYTES, FLUSH_AT, TIMEOUT = 6, 40, 4, 5.0


class Future:
    """As much of a future as the kernels use."""

    def __init__(self) -> None:
        self.value: Any = self

    def done(self) -> bool:
        return self.value is not self

    def set_result(self, value: Any) -> None:
        assert not self.done()
        self.value = value


class Loop:
    """As much of an event loop as the kernels use, and the deadlines they tell."""

    def __init__(self) -> None:
        self.now = 100.0
        self.next = float("inf")
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def create_future(self) -> Future:
        return Future()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def by(self, deadline: float) -> None:
        self.next = deadline


class World:
    """An intake with a queue, and what it called."""

    def __init__(self, body: Any) -> None:
        self.loop = self.running = Loop()
        self.early: list[int] = []
        self.queue: deque[Any] = deque()
        serializer = Serializer()
        self.intake = body.Intake(
            self.loop, lambda: self.running, body.packer(serializer.pack), TIMEOUT, self.loop,
            MOST, MOST_BYTES, FLUSH_AT, lambda: self.early.append(len(self.queue)), self.flush,
        )  # fmt: skip

    def flush(self) -> None:
        self.intake.flush_due = False

    def enter(self, *what: Any) -> str:
        """What came of entering an operation, and the state after it."""
        try:
            future = self.intake.enter(self.queue, *what)
            end = "none" if future is None else f"future {future is self.queue[-1][0]}"
        except SerializationError:
            end = "error"
        last = self.queue[-1][1:] if self.queue else ()
        return f"{end} {last} {self.loop.next} {len(self.loop.soon)} {self.early}"


@pytest.mark.parametrize("seed", range(10))
def test_whatever_enters_is_treated_alike_by_both_bodies(seed: int) -> None:
    """Queues, deadlines, flushes and refusals are the same, for any sequence of operations."""
    chance = random.Random(seed)
    worlds = [World(body) for body in BODIES.values()]
    for _ in range(200):
        what = (
            chance.randrange(1 << 40), chance.choice((7, 7, 7, None)),
            chance.choice(([], ["key", b"value"], [b"x" * MOST_BYTES], [object()])),
            chance.choice((None, 0.5, 7, float("inf"))),
        )  # fmt: skip
        step, moved = chance.random(), chance.random()
        for world in worlds:
            world.loop.now += moved
            if step < 0.2:
                world.queue.clear()
                world.loop.soon.clear()
                world.flush()
            elif step < 0.25:
                world.intake.closed = not world.intake.closed
            elif step < 0.3:
                world.running = Loop() if world.running is world.loop else world.loop
        assert len({world.enter(*what) for world in worlds}) == 1
        assert all(len(world.queue) <= MOST for world in worlds)


@pytest.mark.parametrize("name", BODIES)
def test_an_operation_is_flushed_once_a_turn_and_early_when_there_are_many(name: str) -> None:
    """The first that enters in a turn calls the flush; ``flush_at`` waiting ones flush at once."""
    world = World(BODIES[name])
    for _ in range(FLUSH_AT + 1):
        world.intake.enter(world.queue, 1, 2, [3], None)
    assert world.loop.soon == [world.flush]
    assert world.early == [FLUSH_AT]
    assert [call[1:3] for call in world.queue] == [(105.0, TIMEOUT)] * (FLUSH_AT + 1)
    assert world.queue[0][3] == (1, 2, b"\x91\x03")
    assert world.loop.next == 105.0


@pytest.mark.parametrize("seed", range(20))
def test_results_reach_their_futures_alike_in_both_bodies(seed: int) -> None:
    """Each future gets its value or its oddity, in order; a broken frame changes nothing."""
    chance = random.Random(seed)
    serializer = Serializer()
    values = [None, 7, "text", [1, {"a": b"b"}], {1, 2}, (3, 4), 1 << 80]
    results = [
        chance.choice((b"\x00" + serializer.pack(chance.choice(values)), b"\x02odd", b"\x00\xc1"))
        for _ in range(chance.randint(1, 12))
    ]
    skip = chance.randrange(len(results) + 1)
    frame = b"head" + encode_results(results)
    if chance.random() < 0.3:
        frame = frame[: chance.randrange(4, len(frame))]
    done = [chance.random() < 0.2 for _ in results]
    ends = []
    for body in BODIES.values():
        calls = deque((Future(), number) for number in range(len(results) - skip))
        waiting = list(calls)
        for (future, _), gone in zip(waiting, done, strict=False):
            future.value = "gone" if gone else future
        odd: list[Any] = []
        note = lambda call, result, odd=odd: odd.append((call[1], result))  # noqa: E731
        unpack = body.unpacker(serializer.unpack)
        try:
            body.resolve(frame, 4, len(results), skip, calls, unpack, note)
            end = "resolved"
        except FormatError as problem:
            end = str(problem)
            assert len(calls) == len(waiting) and not odd
        left = [repr(future.value) if future.done() else "waits" for future, _ in waiting]
        ends.append((end, left, odd, len(calls)))
    assert all(end == ends[0] for end in ends)
    if len(frame) == 4 + len(encode_results(results)):
        assert ends[0][0] == "resolved" and ends[0][3] == 0


@pytest.mark.parametrize("name", BODIES)
def test_more_results_than_calls_are_refused(name: str) -> None:
    """A frame that answers what was never asked is an error, and nobody gets a wrong answer."""
    future = Future()
    frame = encode_results([b"\x00\xc0"] * 2)
    with pytest.raises(FormatError, match="more results than calls"):
        BODIES[name].resolve(frame, 0, 2, 0, deque([(future,)]), None, None)
    assert not future.done()
