"""The determinism check: what differs between members is found at its command, and nothing else."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from copycat._core.kernel import encode_run
from copycat._core.layout import Kind
from copycat.errors import CopycatError, NondeterminismError, SerializationError
from copycat.machine import StateMachine, command, type_name_of
from copycat.resources import (
    BUILT_IN_MACHINES,
    ElectionMachine,
    LockMachine,
    LongMachine,
    MapMachine,
)
from copycat.serializer import Serializer, serializable
from copycat.testing import Simulation
from copycat.testing.determinism import STATE_BYTES, Determinism
from copycat.testing.differences import difference
from tests.server.images import LogWriter, commands, initialize, open_call, register, tick
from tests.testing import unruly

ELSEWHERE = "on two runs"
RESTORED = "on a copy restored from its snapshot"
STATES = f"gave different states {ELSEWHERE}"

CAUGHT: dict[type[StateMachine], str] = {
    unruly.Bank: rf"^Bank.act \(index 4\) {STATES}: \.ledger\[0\]\.at differs: .*commit\.time",
    unruly.Hours: rf"^Hours.act \(index 4\) {STATES}: \.hours\[0\] differs",
    unruly.Days: rf"^Days.act \(index 4\) {STATES}: \.seen differs: '....-..-..' is only in one",
    unruly.Moments: rf"^Moments.act \(index 4\) answered differently {ELSEWHERE}: '",
    unruly.Dice: rf"^Dice.act \(index 4\) {STATES}: \.thrown\[0\] differs",
    unruly.Names: rf"^Names.act \(index 4\) {STATES}: \.names\['k0'\] differs",
    unruly.Hashes: rf"^Hashes.act \(index \d+\) {STATES}: \.buckets\[\d+\] differs",
    unruly.Sets: rf"^Sets.act \(index [45]\) {STATES}: \.order\[\d\] differs: 'a\d+' and 'a",
    unruly.KeySets: rf"^KeySets.act \(index [45]\) {STATES}: \.votes differs: its keys lie in",
    unruly.IntegerSets: rf"^IntegerSets.act \(index \d+\) gave different states {RESTORED}: \.free",
    unruly.Addresses: rf"^Addresses.act \(index 4\) {STATES}: \.by_id\[\d+\] differs",
    unruly.Settings: rf"^Settings.act \(index 4\) {STATES}: \.home differs: 'here' and 'elsewhere'",
    unruly.Teller: rf"^Teller.act \(index 4\) published different events {ELSEWHERE}: \[\['told'",
    unruly.Planner: rf"^Planner.act \(index 4\) {STATES}: it scheduled act\(0\) at ",
    unruly.Late: rf"^Late.act or a timer before it \(index 5\) {STATES}: \.at differs",
    unruly.Born: rf"^Born\(\) \(index 3\) {STATES}: \.born differs",
    unruly.Forgetful: rf"^Forgetful.act \(index 5\) answered differently {RESTORED}: 2 and 1",
    unruly.Twisted: r"^Twisted at /m \(index 3\) is not the same after restore\(snapshot\(\)\): ",
    unruly.Broken: r"^Broken.restore\(\) does not take what .* at index 3: KeyError: 'sum'",
    unruly.Aliased: rf"^Aliased.act \(index 4\) gave different states {RESTORED}: \.all differs",
    unruly.Large: rf"^Large.act \(index \d+, or one of the \d before it\) {STATES}: \.odd",
}


class Rerun:
    """A log that is fed to the check as members would; ``problem`` is what it found."""

    def __init__(self, *machines: type[StateMachine], seed: int = 1) -> None:
        self.problem: BaseException | None = None
        self.check = Determinism(machines, seed, self._failed)
        self.log = LogWriter()
        self.resources: dict[str, tuple[int, dict[str, int]]] = {}
        self.session = 2
        self.sequence = 0
        self.feed(initialize(*map(type_name_of, (*machines, *BUILT_IN_MACHINES))))
        self.feed(register(b"a" * 16))

    def _failed(self, problem: BaseException) -> None:
        self.problem = self.problem or problem

    def feed(self, *runs: bytes, seconds: float = 0.0) -> None:
        self.log.time_us += int(seconds * 1e6)
        self.check.feed(self.log.batch(*runs))

    def call(self, *calls: tuple[int, int, list[object]], seconds: float = 0.0) -> None:
        first, self.sequence = self.sequence + 1, self.sequence + len(calls)
        self.feed(commands(self.session, first, *calls), seconds=seconds)

    def open(self, path: str, type_name: str, *operations: str) -> tuple[int, dict[str, int]]:
        """The resource and its operations; ids are given in the order of asking."""
        resource = self.log.next_index
        self.call(open_call(path, type_name, *operations))
        name_of = self.check._straight.applier.executor.name_of
        ids = {name_of(number): number for number in range(1, 200) if name_of(number)}
        return resource, {name: ids[name] for name in operations}

    def __enter__(self) -> Rerun:
        return self

    def __exit__(self, *_: object) -> None:
        self.check.close()


@pytest.mark.parametrize("machine", CAUGHT, ids=lambda cls: cls.__name__)
def test_what_differs_is_found_and_named(
    machine: type[StateMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Command, index and attribute are those at which two members first part (H46)."""
    monkeypatch.setenv("COPYCAT_TEST_HOME", "here")
    with Rerun(machine) as rerun:
        resource, ids = rerun.open("/m", machine.__name__, "act")
        for number in range(12):
            rerun.call((resource, ids["act"], [number]), seconds=0.1)
        assert isinstance(rerun.problem, NondeterminismError), rerun.problem
        assert re.search(CAUGHT[machine], rerun.problem.args[0]), rerun.problem
        assert rerun.problem.index >= 3
        assert rerun.problem.hint
        assert rerun.check.alone == ""


def test_a_default_that_copies_share_is_found() -> None:
    """Members of a simulation share what a class shares; alone in a process nobody does."""
    with (
        Simulation(1, machines=[unruly.Shared]) as sim,
        pytest.raises(NondeterminismError, match=rf"^Shared.act .* {STATES}: \.seen differs"),
    ):
        sim.run(lambda cc: cc.machine("/m", unruly.Shared).act(1))


def test_a_simulation_raises_what_the_check_finds() -> None:
    """``run`` says it, with the seed; without the check nothing that members agree on is wrong."""
    with pytest.raises(NondeterminismError) as raised, Simulation(3, machines=[unruly.Sets]) as sim:
        sim.run(lambda cc: cc.machine("/m", unruly.Sets).act(1))
    assert re.search(CAUGHT[unruly.Sets].replace("[45]", r"\d+"), raised.value.args[0])
    assert "seed=3" in "".join(raised.value.__notes__)
    with Simulation(3, machines=[unruly.Sets], check_determinism=False) as sim:
        sim.run(lambda cc: cc.machine("/m", unruly.Sets).act(1))
        sim.check()


def test_the_check_leaves_virtual_time_alone() -> None:
    """With faults and restarts an honest machine passes, and the trace is that without a check."""

    def live(check: bool) -> str:
        async def work(cc: Any) -> None:
            sim.torment("kill", "partition", every=0.5)
            honest = cc.machine("/m", unruly.Honest)
            for number in range(60):
                try:
                    await honest.act(number)
                except CopycatError:
                    assert number % 7 == 0
                await cc.machine("/n", unruly.Anything).act("x" * 4000)

        machines = [unruly.Honest, unruly.Anything]
        with Simulation(
            5, machines=machines, check_determinism=check, snapshot_bytes=64 << 10
        ) as sim:
            sim.run(work, seconds=120)
            sim.check()
            return sim.trace

    assert live(True) == live(False)


def acted(rng: random.Random, number: int) -> dict[str, list[object]]:
    """Random arguments for every command of the built-in machines."""
    key, value = rng.choice(["a", "b", 3, b"c", (1, 2)]), rng.choice([1, "x", None, {"y": [2.5]}])
    claim = bytes([rng.randrange(6)])
    return {
        "put": [key, value], "put_if_absent": [key, value], "replace": [key, value],
        "remove": [key], "update": [[[key, value], ["z", number]]], "clear": [],
        "watch": [claim, [key], None], "unwatch": [claim],
        "add": [rng.randrange(-5, 5)], "set": [number], "compare_and_set": [number - 1, 7],
        "acquire": [claim, f"c{number}", rng.random() < 0.7], "release": [claim],
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_built_in_machines_are_honest(seed: int) -> None:
    """Random commands of several sessions, time and timers: no copy ever differs."""
    rng = random.Random(seed)
    with Rerun(seed=seed) as rerun:
        opened = []
        for machine in (MapMachine, LongMachine, LockMachine, ElectionMachine):
            names = [name for name in acted(rng, 0) if name in machine._operations]
            assert names
            opened.append(rerun.open(f"/{machine.type_name}", machine.type_name, *names))
        for number in range(150):
            calls = []
            for _ in range(rng.choice((1, 1, 3, 30))):
                resource, ids = rng.choice(opened)
                name = rng.choice(list(ids))
                calls.append((resource, ids[name], acted(rng, number)[name]))
            rerun.call(*calls, seconds=rng.random())
            if number % 40 == 20:
                rerun.session, rerun.sequence = rerun.log.next_index, 0
                rerun.feed(register(bytes([number]) * 16), seconds=rng.random() * 4)
            if number % 9 == 0:
                rerun.feed(tick(), seconds=rng.random() * 2)
        rerun.check.finish()
        assert rerun.problem is None
        assert rerun.check._straight.applier.index == rerun.log.next_index - 1


def test_a_class_that_cannot_be_imported_is_run_twice_here() -> None:
    """It is said, and clocks, chance and snapshots are still checked."""

    class Local(StateMachine):
        def __init__(self) -> None:
            self.day = ""

        @command
        def act(self, number: int) -> None:
            self.day = time.ctime()

    with pytest.warns(UserWarning, match="Local is defined inside a function.*only"):
        made = Rerun(Local)
    with made as rerun:
        resource, ids = rerun.open("/m", "Local", "act")
        rerun.call((resource, ids["act"], [1]))
        assert rerun.problem is not None
        assert re.match(r"Local.act \(index 4\) .*: \.day differs: '", rerun.problem.args[0])
        assert "inside a function" in rerun.check.alone


def test_a_machine_is_imported_from_the_file_where_it_was(tmp_path: Path) -> None:
    """Its module need not be on any path, what it prints does not matter, and its end is told."""
    file = tmp_path / "of_a_user.py"
    file.write_text(
        "import os\n"
        "from copycat import StateMachine, command\n"
        "class Loud(StateMachine):\n"
        "    @command\n"
        "    def act(self, number: int) -> int:\n"
        "        print('number', number, flush=True)\n"
        "        if number == 3 and 'COPYCAT_DOUBLE' in os.environ: os._exit(7)\n"
        "        return number\n"
    )
    spec = importlib.util.spec_from_file_location("of_a_user", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["of_a_user"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        with warnings.catch_warnings(), Rerun(module.Loud) as rerun:
            warnings.simplefilter("error")
            resource, ids = rerun.open("/m", "Loud", "act")
            rerun.call((resource, ids["act"], [1]))
            rerun.call((resource, ids["act"], [2]))
            assert (rerun.problem, rerun.check.alone) == (None, "")
            rerun.call((resource, ids["act"], [3]))
            assert re.search(r"Loud.act \(index 6\) ended .*: exit code 7", repr(rerun.problem))
    finally:
        del sys.modules["of_a_user"]


def test_a_type_that_only_this_process_knows_blames_nobody() -> None:
    """An argument of a class from inside a function: the check goes on here, and says so."""

    @serializable(id=7002)
    @dataclass
    class Secret:
        text: str

    with Rerun(unruly.Anything) as rerun:
        resource, ids = rerun.open("/m", "Anything", "act")
        rerun.call((resource, ids["act"], [1]))
        body = Serializer().pack([Secret("s")])
        with pytest.warns(UserWarning, match="a type that another process cannot import"):
            rerun.feed(encode_run(Kind.COMMAND, 2, 3, 0, [(resource, ids["act"], body)]))
        rerun.sequence = 3
        rerun.call((resource, ids["act"], [2]))
        assert rerun.problem is None


def test_a_state_that_no_snapshot_takes_is_an_error_at_its_command() -> None:
    """It says which type, and after which index."""
    with Rerun(unruly.Anything) as rerun:
        resource, ids = rerun.open("/m", "Anything", "spoil")
        rerun.call((resource, ids["spoil"], []))
        assert isinstance(rerun.problem, SerializationError)
        assert re.search("the state of Anything at /m: .*object", rerun.problem.args[0])
        assert "found after the command at index 4" in rerun.problem.__notes__


def test_the_end_of_a_simulation_looks_at_what_was_not_looked_at() -> None:
    """A large state is compared now and then, and once more by ``check``."""
    with Rerun(unruly.Large) as rerun:
        resource, ids = rerun.open("/m", "Large", "act")
        assert len(rerun.check._straight.state()) > 2 * STATE_BYTES
        while rerun.log.next_index % rerun.check._stride:
            rerun.call((resource, ids["act"], [0]))
        rerun.call((resource, ids["act"], [0]))
        rerun.call((resource, ids["act"], [3]))
        if rerun.problem is None:
            with pytest.raises(NondeterminismError, match=r"\.odd differs"):
                rerun.check.finish()


DIFFERENT: list[tuple[object, object, str]] = [
    ({"a": 1}, {"a": 2}, ".a differs: 1 and 2"),
    ({"a": 1}, {"a": 1.0}, ".a differs: 1 and 1.0"),
    ({"a": 1}, {"b": 1}, ".a differs: 1 and nothing"),
    ({"a": [1, {"b": (2, 3)}]}, {"a": [1, {"b": (2, 4)}]}, ".a[1]['b'][1] differs: 3 and 4"),
    ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}, ".a differs: its keys lie in another order"),
    ({"a": {1, 2}}, {"a": {2, 3}}, ".a differs: 1 is only in one of them"),
    ([[1, 2], 3], [[1, 2, 3], 3], "[0] differs: 2 and 3 elements"),
    (5, None, "snapshot() differs: 5 and None"),
    ({"a": unruly.Payment(1, 2.0)}, {"a": unruly.Payment(1, 3.0)}, ".a.at differs: 2.0 and 3.0"),
    ({"a": "x" * 99}, {"a": "y"}, f".a differs: '{'x' * 38}… and 'y'"),
]


@pytest.mark.parametrize(("one", "other", "text"), DIFFERENT, ids=lambda each: str(each)[:20])
def test_a_difference_has_a_path(one: object, other: object, text: str) -> None:
    """The first place that differs, down to the leaf, in the names of the machine's author."""
    assert difference(one, other) == text
