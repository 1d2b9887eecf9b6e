"""Typical mistakes of a caller are told as such, with the next step, before anything is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

import copycat
from copycat.testing import Simulation


class Shop(copycat.StateMachine):
    """The smallest machine."""

    @copycat.query
    def size(self) -> int:
        """Nothing is in it."""
        return 0


class Odd(copycat.StateMachine):
    """Answers what cannot be sent."""

    @copycat.command
    def thing(self) -> Any:
        """No serializer knows a bare object."""
        return object()


GIVEN: dict[str, tuple[object, str]] = {
    "the class itself": (Shop, "no list of classes"),
    "an instance": ([Shop()], "not an instance: Shop"),
    "a bare instance": (Shop(), "no list of classes"),
    "a text": ("shop:Shop", "no list of classes"),
    "another class": ([int], "no StateMachine class"),
    "a number": (7, "no list of classes"),
}
TAKERS: dict[str, Callable[[Any], object]] = {
    "open": lambda given: copycat.open(storage="memory", machines=given),
    "connect": lambda given: copycat.connect("127.0.0.1:1", machines=given),
    "local_cluster": lambda given: copycat.local_cluster(3, machines=given),
    "Simulation": lambda given: Simulation(machines=given),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("what", GIVEN)
def test_machines_are_classes_in_a_list(taker: str, what: str) -> None:
    """Anything else is a ConfigurationError that says what to write instead."""
    given, told = GIVEN[what]
    with pytest.raises(copycat.ConfigurationError) as caught:
        TAKERS[taker](given)
    error = caught.value
    assert told in f"{error} {error.hint}"
    assert error.hint


@pytest.mark.parametrize("members", [0, -1, 10])
def test_a_simulation_has_members(members: int) -> None:
    """None, or more than a simulation is made for, is refused at once."""
    with pytest.raises(copycat.ConfigurationError, match=rf"members={members}"):
        Simulation(members=members)


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        (lambda: copycat.open(storage="memory").map, r"async with copycat.open\(...\) as cc"),
        (lambda: copycat.connect("127.0.0.1:1").map, r"async with copycat.connect\(...\) as cc"),
        (lambda: copycat.local_cluster(3).client, r"copycat.local_cluster\(...\) as cluster"),
    ],
)
def test_what_is_not_open_says_how_to_open_it(thing: Callable[[], Any], told: str) -> None:
    """Using the result of open, connect or local_cluster directly names ``async with``."""
    with pytest.raises(AttributeError, match=told):
        thing()


def test_types_and_consistencies_are_checked_at_the_call() -> None:
    """A text where a class or a Consistency belongs is refused by name, for views and for calls."""

    async def main() -> None:
        async with copycat.local_cluster(1, machines=[Shop]) as cluster:
            cc: Any = cluster.client
            with pytest.raises(copycat.MisuseError, match="StateMachine class, not 'Shop'"):
                cc.machine("/shop", "Shop")
            with pytest.raises(copycat.MisuseError, match="Resource class"):
                cc.get("/shop", Shop)
            shop = cc.machine("/shop", Shop)
            with pytest.raises(
                copycat.ConfigurationError, match="'eventual' is no consistency"
            ) as e:
                shop.at(consistency="eventual")
            assert "Consistency.SEQUENTIAL" in str(e.value.hint)
            with pytest.raises(copycat.ConfigurationError, match="is no consistency"):
                await shop.query("size", consistency="linearizable")
            assert await shop.query("size", consistency=copycat.Consistency.SEQUENTIAL) == 0

    asyncio.run(main())


def test_the_log_has_the_traceback_that_the_error_promises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A result that cannot be sent is in the members' log with where it arose."""

    async def main() -> None:
        async with copycat.local_cluster(1, machines=[Odd]) as cluster:
            with pytest.raises(copycat.CommandFailed, match="SerializationError") as caught:
                await cluster.client.machine("/odd", Odd).thing()
        assert "traceback" in caught.value.hint
        assert any("Odd.thing" in each.message and each.exc_info for each in caplog.records)

    asyncio.run(main())


def test_closing_does_not_read_like_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A client that closes says that its session is closed, by number, and nothing else."""

    async def main() -> None:
        caplog.set_level(logging.INFO, "copycat.session")
        caplog.set_level(logging.INFO, "copycat")
        async with copycat.local_cluster(1) as cluster:
            await cluster.client.long("/n").increment()
            id_ = cluster.client.session.id
            caplog.clear()
            await cluster.client.close()
        said = [each.getMessage() for each in caplog.records]
        assert f"session {id_} is closed" in said
        assert not [each for each in said if "expired" in each or "over" in each]

    asyncio.run(main())
