"""The machine contract: what a class may say, and what its bodies get at run time."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import pytest

from copycat.errors import ConfigurationError, MisuseError
from copycat.machine import (
    Commit,
    StateMachine,
    attach,
    bound_operations,
    command,
    dynamic_operation,
    event,
    is_dynamic,
    operations_of,
    query,
    type_name_of,
)
from copycat.types import Consistency


class Bank(StateMachine):
    """The example of the contract."""

    moved = event(tuple[str, str, int])

    def __init__(self) -> None:
        self.balance: dict[str, int] = {}

    @command
    def transfer(self, src: str, dst: str, amount: int = 1) -> int:
        """Move money."""
        self.balance[src] = self.balance.get(src, 0) - amount
        self.balance[dst] = self.balance.get(dst, 0) + amount
        self.moved.publish((src, dst, amount))
        return self.balance[src]

    @query(consistency=Consistency.SEQUENTIAL)
    def of(self, who: str) -> int:
        return self.balance.get(who, 0)

    @query
    def total(self) -> int:
        return sum(self.balance.values())


class FakeRuntime:
    """Writes down what machines ask for."""

    def __init__(self) -> None:
        self.published: list[tuple[Any, ...]] = []
        self.scheduled: list[tuple[Any, ...]] = []

    def publish(self, resource: int, event: str, value: object, to: int | None) -> None:
        self.published.append((resource, event, value, to))

    def schedule(self, resource: int, delay_us: int, operation: str, args: tuple[Any, ...]) -> None:
        self.scheduled.append((resource, delay_us, operation, args))


def attached(machine: StateMachine) -> tuple[Commit, FakeRuntime, dict[str, Any]]:
    """A machine as a member runs it."""
    runtime = FakeRuntime()
    commit = attach(machine, 7, runtime)
    return commit, runtime, bound_operations(machine)


def test_operations_are_found_with_kind_and_consistency() -> None:
    """Operations carry name, kind, consistency and their body."""
    operations = operations_of(Bank)
    assert list(operations) == ["transfer", "of", "total"]
    assert not operations["transfer"].is_query
    assert operations["of"].consistency is Consistency.SEQUENTIAL
    assert operations["total"].consistency is Consistency.LINEARIZABLE
    assert operations["transfer"].__doc__ == "Move money."


def test_bound_operations_run_the_bodies() -> None:
    """A member runs plain callables; events carry the resource and the addressee."""
    bank = Bank()
    commit, runtime, run = attached(bank)
    commit.index = 5
    assert run["transfer"]("ann", "bob", 3) == -3
    assert run["of"]("bob") == 3
    assert runtime.published == [(7, "moved", ("ann", "bob", 3), None)]


def test_operations_cannot_be_called_on_the_machine() -> None:
    """Reaching for an operation from inside the machine is a misuse with a way out."""
    bank = Bank()
    with pytest.raises(MisuseError, match=r"Bank\.transfer was called on the machine"):
        bank.transfer("a", "b", 1)  # type: ignore[unused-coroutine]
    assert Bank.transfer.function(attach_and_return(bank), "a", "b", 1) == -1


def attach_and_return(machine: Bank) -> Bank:
    """The same machine, attached."""
    attach(machine, 1, FakeRuntime())
    return machine


def test_commit_time_and_chance_depend_on_the_log_only() -> None:
    """Time is log time in seconds; chance is seeded by the index and the same everywhere."""
    commit, _, _ = attached(Bank())
    commit.index, commit.time_us = 42, 1_500_000
    assert commit.time == 1.5
    drawn = [commit.random.random() for _ in range(3)]
    expected = Random(42)
    assert drawn == [expected.random() for _ in range(3)]
    commit.index = 43
    assert commit.random.random() == Random(43).random()


def test_schedule_takes_commands_and_durations() -> None:
    """Scheduling needs a command of the machine and a finite delay."""
    commit, runtime, _ = attached(Bank())
    commit.schedule(0.25, "transfer", "a", "b")
    commit.schedule(timedelta(seconds=2), "transfer", "a", "b")
    assert [entry[1] for entry in runtime.scheduled] == [250_000, 2_000_000]
    nan = float("nan")
    for delay, name in ((1.0, "of"), (1.0, "no"), (-1.0, "transfer"), (nan, "transfer")):
        with pytest.raises(MisuseError):
            commit.schedule(delay, name)


def test_queries_neither_publish_nor_schedule() -> None:
    """A query runs on one member only, so it may not touch what is replicated."""

    class Sneaky(Bank):
        @query
        def look(self) -> int:
            self.moved.publish(("a", "b", 1))
            return 1

    commit, runtime, run = attached(Sneaky())
    with pytest.raises(MisuseError, match="a query cannot publish"):
        run["look"]()
    assert runtime.published == []
    assert not commit.read_only


def test_default_snapshot_is_the_instances_attributes() -> None:
    """A snapshot holds all attributes but the commit, and restore forgets everything else."""
    bank, other = Bank(), Bank()
    attached(bank)
    commit, _, _ = attached(other)
    bank.balance["ann"] = 5
    other.extra = 1  # type: ignore[attr-defined]
    other.restore(bank.snapshot())
    assert other.balance == {"ann": 5}
    assert not hasattr(other, "extra")
    assert other.commit is commit


def test_events_are_published_only_by_a_running_machine() -> None:
    """An unattached machine cannot publish, and none is iterated."""
    bank = Bank()
    with pytest.raises(MisuseError):
        bank.moved.publish(("a", "b", 1))
    attached(bank)
    with pytest.raises(MisuseError, match="through a handle"):
        aiter(bank.moved)


def test_type_names_are_not_inherited() -> None:
    """The name in the log is the class's own or its class name."""

    class Named(StateMachine):
        type_name = "shop.named"

    class Below(Named):
        pass

    assert type_name_of(Named) == "shop.named"
    assert type_name_of(Below) == "Below"


def test_dynamic_machines_answer_by_name() -> None:
    """A machine that overrides apply gets operation and arguments in its commit."""

    class Echo(StateMachine):
        def apply(self, commit: Commit) -> object:
            return [commit.operation, *commit.args]

    machine = Echo()
    attached(machine)
    assert is_dynamic(Echo)
    assert not is_dynamic(Bank)
    assert dynamic_operation(machine, "shout")(1, 2) == ["shout", 1, 2]
    assert dynamic_operation(machine, "ask", is_query=True)(3) == ["ask", 3]


async def _coroutine(self: object) -> int:
    return 1


def _generator(self: object) -> Any:
    yield 1


def _keyword_only(self: object, *, key: int) -> int:
    return key


def _keywords(self: object, **keys: int) -> int:
    return 1


def _without_self() -> int:
    return 1


@pytest.mark.parametrize(
    "body", [_coroutine, _generator, _keyword_only, _keywords, _without_self, 3, int]
)
def test_what_cannot_run_is_refused_when_it_is_decorated(body: Any) -> None:
    """A body that could not run on every member alike is refused at once."""
    for decorate in (command, query):
        with pytest.raises(ConfigurationError):
            decorate(body)


@pytest.mark.parametrize("name", ["snapshot", "commit", "apply", "on_close", "version", "_run"])
def test_taken_names_are_refused_when_the_class_is_defined(name: str) -> None:
    """An operation cannot have a name that means something else on a machine."""

    def body(self: object) -> int:
        return 1

    with pytest.raises(ConfigurationError, match="the name is taken"):
        type("Bad", (StateMachine,), {name: command(body)})


def test_operations_are_not_hidden_by_accident() -> None:
    """A subclass may replace an operation by one of its kind and by nothing else."""

    class Better(Bank):
        @query
        def of(self, who: str) -> int:
            return 1

    assert operations_of(Better)["of"].consistency is Consistency.LINEARIZABLE
    with pytest.raises(ConfigurationError, match="hides an operation"):

        class Hiding(Bank):
            def of(self, who: str) -> int:  # type: ignore[override]
                return 2

    with pytest.raises(ConfigurationError, match="a command in one class"):

        class Turning(Bank):
            @command
            def of(self, who: str) -> int:
                return 3


def test_arguments_are_checked_before_they_travel() -> None:
    """Keywords and defaults become positions; what does not fit is a TypeError at the call."""
    transfer = operations_of(Bank)["transfer"]
    assert transfer.positional(("a", "b"), {}) == ("a", "b")
    assert transfer.positional(("a",), {"dst": "b", "amount": 2}) == ("a", "b", 2)
    assert transfer.positional((), {"src": "a", "dst": "b"}) == ("a", "b", 1)
    for args, kwargs in ((("a",), {}), (("a", "b", 1, 2), {}), (("a", "b"), {"to": 1})):
        with pytest.raises(TypeError, match=r"transfer\(\)"):
            transfer.positional(args, kwargs)
