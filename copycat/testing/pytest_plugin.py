"""A pytest plugin: ``copycat_simulation`` and ``copycat_cluster``.

``copycat_simulation(machines=[...])`` gives a started `Simulation`; its seed follows from the name
of the test, or from ``--copycat-seed``, and is printed when it fails. If the test passes, the
simulation is checked once more (`Simulation.check`). Your machines are run again
in another process and compared (see `Simulation`). ``copycat_cluster(...)`` is `local_cluster`, a
real cluster on loopback: ``async with copycat_cluster(3) as cluster``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ..machine import StateMachine
from .local_cluster import local_cluster
from .simulation import Simulation

_HAS_FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--copycat-seed N``: the seed of every simulation."""
    group = parser.getgroup("copycat")
    group.addoption("--copycat-seed", type=int, help="seed of every copycat_simulation")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember which tests failed: their simulations have nothing to add."""
    report = yield
    if call.when == "call":
        item.stash[_HAS_FAILED] = not report.passed
    return report


@pytest.fixture
def copycat_simulation(request: pytest.FixtureRequest) -> Iterator[Callable[..., Simulation]]:
    """Makes simulations: ``copycat_simulation(members=3, machines=[...])``; checked at the end.

    At the end of a test that passed, all faults are healed and `Simulation.check` is called.
    The seed follows from the test's name; ``seed=`` sets another, ``--copycat-seed`` any.
    """
    given = request.config.getoption("--copycat-seed")
    usual = zlib.crc32(request.node.nodeid.encode()) if given is None else int(given)
    request.node.add_report_section("setup", "copycat", f"--copycat-seed {usual}")
    simulations: list[Simulation] = []
    with ExitStack() as stack:

        def make(
            members: int = 3,
            machines: Iterable[type[StateMachine]] = (),
            *,
            seed: int = usual,
            **options: Any,
        ) -> Simulation:
            seed = seed if given is None else usual
            simulation = Simulation(seed, members, machines, **options)
            simulations.append(stack.enter_context(simulation))
            return simulation

        yield make
        if not request.node.stash.get(_HAS_FAILED, False):
            for simulation in simulations:
                simulation.check()


@pytest.fixture
def copycat_cluster() -> Callable[..., Any]:
    """`local_cluster`: ``async with copycat_cluster(3, machines=[...]) as cluster``."""
    return local_cluster
