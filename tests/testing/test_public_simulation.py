"""`Simulation` and the pytest plugin, used as a user would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from copycat.errors import ConfigurationError, MisuseError, NondeterminismError
from copycat.machine import StateMachine, command, query
from copycat.testing import CheckFailed, Simulation


class Bank(StateMachine):
    """Accounts."""

    def __init__(self) -> None:
        self.balance: dict[str, int] = {}

    @command
    def deposit(self, who: str, amount: int) -> int:
        """The balance afterwards."""
        self.balance[who] = self.balance.get(who, 0) + amount
        return self.balance[who]

    @query
    def of(self, who: str) -> int:
        """The balance."""
        return self.balance.get(who, 0)


class Forgetful(Bank):
    """A machine that says something else wherever it runs."""

    @command
    def deposit(self, who: str, amount: int) -> int:  # type: ignore[override]
        """Wrong: what it keeps depends on the member."""
        self.balance[who] = id(self)
        return amount


class Lazy(StateMachine):
    """Its query changes what only commands may."""

    def __init__(self) -> None:
        self.seen = {"a": 0}

    @command
    def put(self, number: int) -> None:
        self.seen["b"] = number

    @query
    def look(self) -> int:
        self.seen["a"] += 1
        return self.seen["a"]


async def deposits(cc: Any) -> int:
    """Ten deposits, then the balance."""
    bank = cc.machine("/bank", Bank)
    for _ in range(10):
        await bank.deposit("ann", 1)
    return int(await bank.of("ann"))


def test_a_workload_survives_crashes_and_partitions() -> None:
    """What a user awaits is there after the leader has lost its power and peers were cut off."""
    with Simulation(7, machines=[Bank]) as sim:

        async def workload(cc: Any) -> int:
            assert await deposits(cc) == 10
            sim.crash(sim.leader, power=True)
            assert await deposits(cc) == 20
            sim.heal()
            sim.isolate(sim.leader)
            return await deposits(cc)

        assert sim.run(workload) == 30
        sim.check()
        assert sim.leader in sim.members
        assert sim.now < 60


def test_the_same_seed_is_the_same_life() -> None:
    """A trace follows from the seed and the workload."""

    def live(seed: int) -> str:
        with Simulation(seed, machines=[Bank], clock_skew=0.01) as sim:
            sim.torment("kill", "partition", every=0.5)
            assert sim.run(deposits, seconds=120) == 10
            sim.check()
            return sim.trace

    assert live(1) == live(1) != live(2)


def test_a_machine_that_differs_between_members_is_found() -> None:
    """State that depends on the member is found at once, or else when members are compared."""

    async def workload(cc: Any) -> None:
        for _ in range(100):
            await cc.machine("/bank", Forgetful).deposit("ann", 1)

    with (
        Simulation(3, machines=[Forgetful]) as sim,
        pytest.raises(NondeterminismError, match=r"Forgetful\.deposit .*: \.balance\['ann'\] dif"),
    ):
        sim.run(workload)
    with (
        Simulation(3, machines=[Forgetful], check_determinism=False) as sim,
        pytest.raises(CheckFailed, match="same state"),
    ):
        sim.run(workload)
        sim.check()


def test_a_query_that_changes_the_state_is_found_and_named() -> None:
    """Members that differ: which machine, at which path, in which attribute, and likely why."""

    async def workload(cc: Any) -> None:
        lazy = cc.machine("/lazy", Lazy)
        await lazy.put(3)
        await lazy.look()

    with (
        Simulation(1, machines=[Lazy]) as sim,
        pytest.raises(CheckFailed, match=r"at /lazy: \.seen\['a'\] differs: .*@query") as found,
    ):
        sim.run(workload)
        sim.check()
    assert found.value.name == "same state"


def test_a_story_tells_of_leaders_and_of_what_the_test_did() -> None:
    """``tell`` hears of elections, members and faults, and not of packets."""
    told: list[str] = []
    with Simulation(2, tell=told.append) as sim:
        sim.advance(5)
        leader = sim.leader
        sim.isolate(leader)
        sim.advance(5)
    story = "\n".join(told)
    assert f"{leader} leads term " in story and f"partition: {leader} | " in story
    assert "members: n1, n2, n3" in story and " bytes" not in story


def test_errors_of_a_workload_come_out_and_nothing_waits_for_ever() -> None:
    """An exception is the caller's; a workload that hangs is a failure, and names the seed."""
    with pytest.raises(ZeroDivisionError) as raised, Simulation(4) as sim:

        async def broken(cc: Any) -> None:
            raise ZeroDivisionError

        sim.run(broken)
    assert "seed=4" in "".join(raised.value.__notes__)
    with Simulation(5) as sim, pytest.raises(CheckFailed, match="has not ended after 20"):
        sim.advance(5)
        sim.crash("n1")
        sim.crash("n2")

        async def hopeless(cc: Any) -> None:
            while True:
                await cc.map("/m").put("a", 1, timeout=60)

        sim.run(hopeless, seconds=20)


def test_a_full_disk_is_survived_and_mended() -> None:
    """Reads go on, and writes as soon as there is room again."""
    with Simulation(6) as sim:

        async def fill(cc: Any) -> None:
            m = cc.map("/m")
            await m.put("a", 0)
            for name in sim.members:
                sim.fill_disk(name)
            for i in range(400):
                await m.put("a", "x" * 3000 + str(i), timeout=0.5)

        with pytest.raises(Exception, match="applied|within"):
            sim.run(fill)
        for name in sim.members:
            sim.mend(name)
        sim.advance(90)
        sim.run(lambda cc: cc.map("/m").put("b", 1), seconds=90)
        sim.check()


def test_mistakes_are_named() -> None:
    """A member that does not exist, a fault that does not exist, a member that is up."""
    with Simulation(8) as sim:
        with pytest.raises(MisuseError, match="no member 'n9'"):
            sim.crash("n9")
        with pytest.raises(MisuseError, match="no fault 'rain'.* Without a name .*'kill'"):
            sim.torment("rain")
        with pytest.raises(MisuseError, match="no fault 'crash', perhaps 'kill'"):
            sim.torment("crash")
        with pytest.raises(MisuseError, match="'client death' befalls clients"):
            sim.torment("client death")
        with pytest.raises(MisuseError, match="n1 is up"):
            sim.restart("n1")
    with Simulation(9, snapshot_bytes=1) as sim, pytest.raises(ConfigurationError):
        sim.advance(1)


def test_the_pytest_plugin_gives_both_fixtures(tmp_path: Path) -> None:
    """A test gets a simulation with a seed that is printed on failure and that is checked at the
    end, and a real cluster."""
    (tmp_path / "test_user.py").write_text(
        "import asyncio, copycat\n"
        "def test_simulated(copycat_simulation):\n"
        "    sim = copycat_simulation(members=1)\n"
        "    sim.run(lambda cc: cc.map('/m').put('a', 1))\n"
        "    assert sim.seed == 99\n"
        "def test_fails(copycat_simulation):\n"
        "    assert False\n"
        "class Counting(copycat.StateMachine):\n"
        "    def __init__(self):\n"
        "        self.count = 0\n"
        "    @copycat.query\n"
        "    def ask(self):\n"
        "        self.count += 1\n"
        "def test_diverges(copycat_simulation):\n"
        "    sim = copycat_simulation(machines=[Counting], check_determinism=False)\n"
        "    sim.run(lambda cc: cc.machine('/c', Counting).ask())\n"
        "def test_real(copycat_cluster):\n"
        "    async def main():\n"
        "        async with copycat_cluster(1) as cluster:\n"
        "            await cluster.client.map('/m').put('a', 1)\n"
        "    asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p",
         "copycat.testing.pytest_plugin", "--copycat-seed", "99", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, env=_environment(),
    )  # fmt: skip
    assert "3 passed" in done.stdout and "1 failed" in done.stdout, done.stdout + done.stderr
    assert "1 error" in done.stdout and "same state: " in done.stdout, done.stdout
    assert "--copycat-seed 99" in done.stdout


def _environment() -> dict[str, str]:
    """Without installed plugins, so that ours is not there twice."""
    import os

    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": root}
