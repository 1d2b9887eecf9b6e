"""A machine that runs out of stack or memory: the same end on all members, or one stops alone."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copycat._core.layout import Status
from copycat.errors import CommandFailed, SerializationError
from copycat.machine import StateMachine, command, event, query
from copycat.outcomes import error_of
from copycat.resources import MapMachine
from copycat.serializer import Serializer
from copycat.server import applier as applier_module
from copycat.server import levelling as levelling_module
from copycat.server.applier import Applier
from copycat.server.depth import depth
from copycat.server.executor import MemberExhausted
from copycat.system import FENCED, SystemOperation

from .images import LogWriter, commands, initialize, open_call, register, results_of, tick, unpack


class Diver(StateMachine):
    """Goes as deep as it is told, and changes something at every step down."""

    stepped = event(int)

    def __init__(self) -> None:
        self.steps = 0
        self.closed: list[int] = []

    @command
    def dive(self, frames: int) -> int:
        return self._down(frames)

    @command
    def dive_later(self, frames: int) -> None:
        self.commit.schedule(1.0, "dive", frames)

    @command
    def hoard(self) -> None:
        self.steps += 1
        raise MemoryError

    @command
    def add(self) -> int:
        self.steps += 1
        return self.steps

    @query
    def look(self, frames: int) -> int:
        return self._look(frames)

    @query
    def lavish(self) -> int:
        raise MemoryError

    def on_close(self, session: int) -> None:
        self.closed.append(session)
        if self.steps == 13:
            self._down(1 << 30)

    def _down(self, frames: int) -> int:
        self.steps += 1
        self.stepped.publish(self.steps, to=self.commit.session or 2)
        self.commit.schedule(60.0, "add")
        return 1 if frames <= 1 else 1 + self._down(frames - 1)

    def _look(self, frames: int) -> int:
        return 1 if frames <= 1 else 1 + self._look(frames - 1)


class Ashamed(StateMachine):
    """Cannot show its state once it has one."""

    def __init__(self) -> None:
        self.full = False

    @command
    def fill(self) -> None:
        self.full = True

    def snapshot(self) -> object:
        return self.snapshot() if self.full else {}


OPERATIONS = ["dive", "dive_later", "hoard", "add", "look", "lavish"]


class World:
    """A log with one session (2) and a Diver, and appliers that follow it."""

    def __init__(self) -> None:
        self.log = LogWriter()
        self.images: list[bytes] = []
        self.sequence = 0
        self.lead = self.fresh()
        self.apply(initialize("Diver"), register(b"d" * 16, timeout_ms=3_600_000))
        result = self.call(open_call("/d", "Diver", *OPERATIONS))
        self.resource, ids = unpack(result[1:])
        self.ids = dict(zip(OPERATIONS, ids, strict=True))

    def fresh(self) -> Applier:
        return Applier({"Diver": Diver}, Serializer())

    def apply(self, *runs: bytes, seconds: float = 0.0) -> None:
        self.log.time_us += int(seconds * 1e6)
        self.images.append(self.log.batch(*runs))
        self.lead.apply(self.images[-1])

    def call(self, *calls: tuple[int, int, list[object]]) -> bytes:
        self.apply(commands(2, self.sequence + 1, *calls))
        self.sequence += len(calls)
        return results_of(self.lead.take().answers[-1])[-1]

    def do(self, name: str, *args: object) -> bytes:
        return self.call((self.resource, self.ids[name], list(args)))

    def fits(self) -> int:
        """The greatest number of frames that a dive may have; found on throw-away appliers."""
        low, high = 1, 100_000
        while low < high:
            middle = (low + high + 1) // 2
            other = self.replayed()
            dive = (self.resource, self.ids["dive"], [middle])
            log = LogWriter()
            log.next_index, log.time_us = self.log.next_index, self.log.time_us
            other.apply(log.batch(commands(2, self.sequence + 1, dive)))
            if results_of(other.take().answers[-1])[0][0] == Status.OK:
                low = middle
            else:
                high = middle - 1
        return low

    def replayed(self) -> Applier:
        other = self.fresh()
        for image in self.images:
            other.apply(image)
        return other


def deeper(frames: int, function: Callable[[], None]) -> None:
    """Call ``function`` from ``frames`` frames further down."""
    if frames <= 0:
        function()
    else:
        deeper(frames - 1, function)


@pytest.fixture
def world() -> World:
    return World()


def test_depth_counts_frames() -> None:
    """It rises by one for every call of a Python function."""
    found: list[int] = []
    for frames in (0, 1, 10):
        deeper(frames, lambda: found.append(depth()))
    assert found[1] - found[0] == 1 and found[2] - found[0] == 10


def test_what_follows_in_the_same_run_meets_the_fence(world: World) -> None:
    """A command right behind the one that failed is refused like any later one, in both modes."""
    dive = (world.resource, world.ids["dive"], [1 << 30])
    world.do("dive", 1)  # from here on the kernel knows how to run it without asking
    world.apply(commands(2, world.sequence + 1, dive, dive, (*dive[:2], [1])))
    results = results_of(world.lead.take().answers[-1])
    assert [unpack(result[1:])[0] for result in results] == ["RecursionError", FENCED, FENCED]


def test_runaway_recursion_fences_the_resource_everywhere(world: World) -> None:
    """However deep each member's stack was, all keep the same state, and nothing half-done."""
    follower = world.replayed()
    follower.executor.level = None  # even if its room were another
    fed = len(world.images)
    result = world.do("dive", 1 << 30)
    assert result[0] == Status.FAILED and unpack(result[1:])[0] == "RecursionError"
    refused = world.do("add")
    assert unpack(refused[1:])[0] == FENCED
    error = error_of(refused, Serializer())
    assert isinstance(error, CommandFailed) and error.applied == "no"
    for part in ("/d is fenced", "Diver.dive", "index 4"):
        assert part in str(error)
    session = world.lead.sessions.get(2)
    assert session is not None and not session.events and not world.lead.timers
    for image in world.images[fed:]:
        deeper(random.Random(3).randrange(300), lambda image=image: follower.apply(image))  # type: ignore[misc]
    assert follower.image() == world.lead.image()


def test_the_fence_is_state_and_ends_with_the_path(world: World) -> None:
    """It outlives snapshots, timers and sessions; deleting the path gives a fresh machine."""
    world.do("dive_later", 5)
    world.do("dive", 1 << 30)
    restored = world.fresh()
    restored.restore(world.lead.image())
    assert restored.image() == world.lead.image()
    world.lead = restored
    assert unpack(world.do("add")[1:])[0] == FENCED
    assert (
        world.lead.query(commands(0, 0, (world.resource, world.ids["look"], [1]))[40:], 0, 1)[0][0]
        == Status.FAILED
    )
    world.apply(tick(), seconds=120)
    assert world.call((0, SystemOperation.DELETE, ["/d"]))[0] == Status.OK
    world.resource, _ = unpack(world.call(open_call("/d", "Diver", *OPERATIONS))[1:])
    assert unpack(world.do("add")[1:]) == 1


def test_recursion_in_timers_and_hooks_fences_too(world: World) -> None:
    """What nobody waits for ends alike on all members, and stops none of them."""
    world.do("dive_later", 1 << 30)
    world.apply(tick(), seconds=2)
    assert unpack(world.do("add")[1:])[0] == FENCED
    other = World()
    for _ in range(13):
        other.do("add")
    other.apply(register(b"e" * 16, timeout_ms=100), seconds=1)
    other.apply(tick(), seconds=1)
    assert unpack(other.do("add")[1:])[0] == FENCED
    for each in (world, other):
        assert each.replayed().image() == each.lead.image()


def test_the_limit_is_the_same_from_any_depth(world: World) -> None:
    """What just fits on one member fits on all, from a turn, a replay, a first or a later call."""
    fits = world.fits()
    assert 500 < fits <= sys.getrecursionlimit()
    limit = sys.getrecursionlimit()
    for frames in (fits, fits + 1):
        lone = World()
        lone.do("dive", 1)  # the next one is not the first of its kind
        lone.do("dive", frames)
        fenced = unpack(lone.do("add")[1:]) != frames + 2
        assert fenced == (frames > fits)
        for down in (0, 1, 7, 100, 400):
            follower = lone.fresh()
            for image in lone.images[:-2]:
                follower.apply(image)
            if down == 7:  # as after a restart from a snapshot: its table is empty
                after = lone.fresh()
                after.restore(follower.image())
                follower = after
            for image in lone.images[-2:]:
                deeper(down, lambda image=image, to=follower: to.apply(image))  # type: ignore[misc]
            assert follower.image() == lone.lead.image(), down
    assert sys.getrecursionlimit() == limit


def test_a_kernel_with_more_frames_leaves_the_same_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far below the applier a command's body runs is measured, not assumed."""
    fits = world.fits()
    run_commands = applier_module.run_commands

    def roundabout(*args: Any) -> list[bytes]:
        found: list[list[bytes]] = []
        deeper(20, lambda: found.append(run_commands(*args)))
        return found[0]

    for module in (applier_module, levelling_module):
        monkeypatch.setattr(module, "run_commands", roundabout)
    assert world.fits() == fits


def test_compiled_and_pure_kernels_leave_the_same_room() -> None:
    """A member without a compiler draws the line where the others draw it."""
    script = (
        "from tests.server.test_exhaustion import World\n"
        "import copycat\n"
        "print(copycat.COMPILED, World().fits())\n"
    )
    found = {}
    for pure in ("", "1"):  # where nothing is compiled, both are pure
        out = subprocess.run(
            [sys.executable, "-c", script],
            env={"COPYCAT_PURE": pure, "PATH": ""},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        found[out[0]] = int(out[1])
    assert len(set(found.values())) == 1, found


def test_out_of_memory_stops_this_member_alone_and_says_where(world: World) -> None:
    """It answers nothing; replayed with enough memory, the same index is applied as elsewhere."""
    with pytest.raises(MemberExhausted, match=r"Diver\.hoard \(index 4\) at /d") as caught:
        world.do("hoard")
    assert "start it again" in caught.value.hint
    assert world.lead.take().answers == []
    assert isinstance(caught.value.__cause__, MemoryError)


def test_a_query_that_exhausts_a_member_fails_alone(world: World) -> None:
    """A read changes nothing, so nothing is fenced and nobody stops."""
    for name, args in (("look", [1 << 30]), ("lavish", [])):
        body = commands(0, 0, (world.resource, world.ids[name], args))[40:]  # type: ignore[arg-type]
        assert world.lead.query(body, 0, 1)[0][0] == Status.FAILED
    assert unpack(world.do("add")[1:]) == 1


def test_a_machine_that_cannot_show_its_state_costs_only_snapshots() -> None:
    """Its snapshot() recursing for ever is an error that names it, not the end of the member."""
    applier = Applier({"Ashamed": Ashamed}, Serializer())
    log = LogWriter()
    applier.apply(log.batch(initialize("Ashamed"), register(b"a" * 16)))
    applier.apply(log.batch(commands(2, 1, open_call("/a", "Ashamed", "fill"))))
    resource, (fill,) = unpack(results_of(applier.take().answers[-1])[0][1:])
    applier.apply(log.batch(commands(2, 2, (resource, fill, []))))
    with pytest.raises(SerializationError, match=r"snapshot\(\) of Ashamed at /a raised Recursion"):
        applier.image()
    applier.apply(log.batch(commands(2, 3, (resource, fill, []))))
    assert results_of(applier.take().answers[-1])[0][0] == Status.OK


def test_members_without_user_machines_are_not_levelled() -> None:
    """Nothing is paid by who does not need it."""
    assert Applier({"copycat.map": MapMachine}, Serializer()).executor.level is None
