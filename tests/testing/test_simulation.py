"""Whole lives of simulated clusters: production members and clients, faults, laws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from copycat.errors import StorageError
from copycat.raft import Raft
from copycat.serializer import Serializer
from copycat.testing import simulate
from copycat.testing.checkers import CheckFailed
from copycat.testing.life import Life
from copycat.testing.plan import FAULTS, Plan, Report, draw

LIVES = 16
TRACE = """
from copycat.testing.life import Life
from copycat.testing.plan import draw
for seed in (5, 11):
    report = Life(draw(seed, seconds=15.0)).live()
    print(report.trace, report.events, report.acknowledged)
"""


@pytest.mark.parametrize("seed", range(LIVES))
def test_a_hostile_life_breaks_no_law(seed: int) -> None:
    """Whatever befalls it, the cluster keeps every promise, heals, and answers everybody."""
    report = Life(draw(seed, seconds=25.0)).live()
    assert report.acknowledged > 0
    assert report.elections > 0


def test_a_connection_that_nothing_comes_through_is_given_up() -> None:
    """A client whose connection is dead, and not known to be, is back when the faults are over."""
    faults = ("client unheard", "clogged", "resets", "cut off")
    plan = Plan(58, seconds=30.0, faults=faults, fault_every=0.3, think_s=2.0)
    assert Life(replace(plan, session_s=2.0, stay_s=5.0)).live().acknowledged > 0


def test_every_kind_of_fault_can_happen() -> None:
    """No fault is only a name: in a few lives with all of them each happens at least once."""
    seen: set[str] = set()
    for seed in range(4):
        plan = Plan(seed, seconds=40.0, fault_every=0.3, think_s=2.0)
        seen |= set(Life(plan).live().faults)
    assert not set(FAULTS) - seen


def test_a_life_follows_from_its_seed_in_both_modes() -> None:
    """The same seed gives the same trace, compiled or pure, whatever the order of hashes."""
    told = set()
    for pure, hash_seed in (("", "1"), ("", "2"), ("1", "3")):
        environment = {**os.environ, "COPYCAT_PURE": pure, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", TRACE], env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        told.add(done.stdout)
    assert len(told) == 1
    assert Life(draw(5, seconds=15.0)).live().trace != Life(draw(6, seconds=15.0)).live().trace


def test_a_member_that_loses_its_promises_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that only pretends to sync costs acknowledged writes, and the life fails."""
    from copycat.testing.medium import Content

    monkeypatch.setattr(Content, "sync", lambda self, random, fraction=1.0: None)
    plan = Plan(3, faults=("power cut", "everybody dies"), fault_every=1.0, seconds=30.0)
    with pytest.raises((CheckFailed, StorageError)):
        for seed in range(5):
            Life(replace(plan, seed=seed)).live()


def test_a_lease_that_outlasts_a_sleep_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that does not count how long its machine slept has a lease when others lead."""
    plan = Plan(0, clients=3, faults=("suspend",), fault_every=1.0, think_s=0.1, leased=1.0)
    monkeypatch.setattr(Raft, "slept", lambda self: None)
    with pytest.raises(CheckFailed, match="lease: "):
        for seed in range(3, 50):
            Life(replace(plan, seed=seed, seconds=30.0)).live()


def test_a_failing_life_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not needed for the failure is left out of the plan that is printed."""

    def run(plan: Plan) -> tuple[Report | None, str]:
        guilty = "partition" in plan.faults and plan.seconds >= 10
        return (None, "law: broken") if guilty else (Report(), "")

    monkeypatch.setattr(simulate, "run", run)
    plan, failure = simulate.shrunk(Plan(1, clients=6, members=5, skew=0.1), "law: broken")
    assert plan.faults == ("partition",)
    assert (plan.members, plan.clients, plan.skew) == (3, 1, 0.0)
    assert 10 <= plan.seconds < 20
    assert failure == "law: broken"


def test_the_command_counts_and_fails_with_a_failing_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints what was lived and checked, writes it as JSON, and tells by its exit status."""
    out = tmp_path / "out.json"
    arguments = ["--seeds", "0..1", "--seconds", "5", "--json", str(out)]
    assert simulate.main(arguments) == 0
    summary = json.loads(out.read_text())
    assert summary["lives"] == 2 and summary["operations"] > 0 and not summary["failed"]
    ledger = tmp_path / "ledger.jsonl"
    for _ in range(2):
        assert simulate.main([*arguments, "--ledger", str(ledger)]) == 0
    (line,) = ledger.read_text().splitlines()  # the second time there was nothing left to live
    assert json.loads(line)["seeds"] == [0, 1]
    monkeypatch.setattr(simulate, "run", lambda plan: (None, "law: broken"))
    assert simulate.main([*arguments, "--no-shrink"]) == 1
    assert "FAILED seed 0: law: broken" in capsys.readouterr().out


def test_a_ledger_counts_for_code_that_does_the_same(tmp_path: Path) -> None:
    """Comments, docstrings and the command line may change; what lives run may not."""
    (tmp_path / "cli").mkdir()
    file, line = tmp_path / "raft.py", tmp_path / "cli" / "put.py"
    file.write_text("def f():\n    return 1\n")
    first = simulate.code_digest(tmp_path)
    file.write_text('"""About."""\n\n\ndef f():\n    """One."""\n    return 1  # one\n')
    line.write_text("print(1)\n")
    assert simulate.code_digest(tmp_path) == first
    file.write_text("def f():\n    return 2\n")
    assert simulate.code_digest(tmp_path) != first


@pytest.mark.parametrize(
    ("arguments", "next_step"),
    [
        ("--seeds 5..3", "write 3..5"),
        ("--seeds=-3..2", "begin at 0"),
        ("--seeds x", "write 0..99"),
        ("--seeds 1..2 --seed 3", "leave one out"),
        ("--seeds 5..6 --trace", "--seed 17 --trace"),
        ("--trace", "--seed 17 --trace"),
        ("--seed 1 --trace --jobs 2", "leave --jobs out"),
        ("--seed 1 --trace --json out.json", "leave one of them out"),
        ("--seed 1 --packets", "add --trace"),
        ("--jobs 0", "1 or more"),
        ("--seconds nan", "write 60"),
        ("--json nowhere/at/all", "name a file"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: str, next_step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on the standard error, with a next step, and status 2."""
    with pytest.raises(SystemExit) as ended:
        simulate.main(arguments.split())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and next_step in said


def test_a_story_tells_who_leads_and_what_clients_were_told() -> None:
    """A life that is told is the same life; its lines are in the order of virtual time."""
    missing = [
        "n1 starts", "n1 is up: term 0", "leads term 1", "leads no more", "members: n1, n2, n3",
        " is killed", "wish: ", "holds /lock, token ", "no more faults",
        "increment('/count') -> 1", "operations done since",
    ]  # fmt: skip
    for seed in range(5, 11):  # not every life has everything
        told: list[str] = []
        plan = draw(seed, seconds=15.0)
        report = Life(plan, told.append).live()
        if seed == 5:
            assert report.trace == Life(plan).live().trace
        story = "\n".join(told)
        assert " bytes" not in story and " dials " not in story
        times = [float(line.split()[0]) for line in told]
        assert times == sorted(times)
        missing = [needed for needed in missing if needed not in story]
        if not missing:
            break
    assert not missing
    packets: list[str] = []
    Life(draw(5, seconds=2.0), packets.append, packets=True).live()
    assert any(" bytes" in line for line in packets)


@pytest.mark.parametrize("arguments", ["--seed 5 --trace", "--seeds 5..6 --seconds 1"])
def test_nobody_has_to_hear_all_of_it(arguments: str) -> None:
    """Whoever closes the pipe early sees no traceback."""
    command = [sys.executable, "-m", "copycat.testing.simulate", *arguments.split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 141


def test_a_double_whose_simulation_is_gone_ends_in_silence() -> None:
    """It has an answer, and nobody to give it to."""
    command = [sys.executable, "-m", "copycat.testing.double"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        message = Serializer().pack(["machines", [], [], 1000])
        process.stdin.write(len(message).to_bytes(4, "little") + message)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
