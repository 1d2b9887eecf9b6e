"""Sets, multimaps, lists and references: their machines against models, and their handles."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from copycat.errors import ConfigurationError, Rejected, SerializationError
from copycat.machine import StateMachine
from copycat.resources import (
    BooleanMachine,
    ListMachine,
    MapEvent,
    MapMachine,
    MultiMapMachine,
    ReferenceMachine,
    SetEvent,
    SetMachine,
    ValueEvent,
)
from copycat.testing.value_models import List, MultiMap, Reference, Set
from copycat.types import Consistency, EventType, Mode

from ..client.fake_server import FakeCluster, client, cluster_and_client, until
from ..server.loops import run
from .test_machines import Runner

Ask = Callable[[Runner], object]


def reference(chance: random.Random) -> tuple[str, tuple[Any, ...], Ask]:
    value, other = chance.randrange(3), chance.choice((None, 0, 1, 2))
    return chance.choice([
        ("get", (), lambda run: run("get")),
        ("get_and_set", (value,), lambda run: run("set", value)),
        ("compare_and_set", (other, value), lambda run: run("compare_and_set", other, value)),
    ])  # fmt: skip


def boolean(chance: random.Random) -> tuple[str, tuple[Any, ...], Ask]:
    value, other = chance.random() < 0.5, chance.random() < 0.5
    return chance.choice([
        ("get", (), lambda run: run("get")),
        ("get_and_set", (value,), lambda run: run("set", value)),
        ("compare_and_set", (other, value), lambda run: run("compare_and_set", other, value)),
    ])  # fmt: skip


def a_set(chance: random.Random) -> tuple[str, tuple[Any, ...], Ask]:
    value = chance.randrange(12)
    name = chance.choice(["contains", "add", "add", "remove", "clear", "size"])
    if name == "clear" and chance.random() < 0.8:
        name = "size"
    arguments = () if name in ("clear", "size") else (value,)
    return name, arguments, lambda run: run(name, *arguments)


def multimap(chance: random.Random) -> tuple[str, tuple[Any, ...], Ask]:
    key, value = chance.randrange(4), chance.randrange(4)
    return chance.choice([
        ("get", (key,), lambda run: set(run("get", key))),
        ("contains", (key,), lambda run: run("contains", key)),
        ("size", (), lambda run: run("size", [])),
        ("put", (key, value), lambda run: run("put", key, value)),
        ("put", (key, value), lambda run: run("put", key, value)),
        ("remove_value", (key, value), lambda run: run("remove_entry", key, value)),
        ("remove", (key,), lambda run: set(run("remove", key))),
    ])  # fmt: skip


def a_list(chance: random.Random) -> tuple[str, tuple[Any, ...], Ask]:
    at, value = chance.randrange(-7, 7), chance.randrange(9)
    there = lambda found: found[0] if found else IndexError  # noqa: E731
    return chance.choice([
        ("append", (value,), lambda run: run("extend", [value]) and None),
        ("extend", (value, at), lambda run: run("extend", [value, at]) and None),
        ("insert", (at, value), lambda run: run("insert", at, value)),
        ("get", (at,), lambda run: there(run("get", at))),
        ("set", (at, value), lambda run: there(run("set", at, value))),
        ("pop", (at,), lambda run: there(run("pop", at))),
        ("pop", (-1,), lambda run: there(run("pop", -1))),
        ("remove", (value,), lambda run: run("remove", value)),
        ("contains", (value,), lambda run: run("index", value) >= 0),
        ("size", (), lambda run: run("size")),
    ])  # fmt: skip


KINDS: list[tuple[type[StateMachine], Any, Callable[..., Any]]] = [
    (ReferenceMachine, Reference(), reference),
    (BooleanMachine, Reference(False), boolean),
    (SetMachine, Set(), a_set),
    (MultiMapMachine, MultiMap(), multimap),
    (ListMachine, List(), a_list),
]


@pytest.mark.parametrize(
    ("machine", "model", "step"), KINDS, ids=[each[0].__name__ for each in KINDS]
)
def test_machines_do_what_their_models_do(
    machine: type[StateMachine], model: Any, step: Callable[..., Any]
) -> None:
    """Random operations are answered as one would by hand, across snapshots, which are the same
    before and after."""
    for seed in range(8):
        chance = random.Random(seed)
        runner, state = Runner(machine()), model.initial()
        for _ in range(300):
            name, arguments, ask = step(chance)
            answer, state = model.apply(state, name, arguments)
            assert ask(runner) == answer, (seed, name, arguments)
            if chance.random() < 0.05:
                image = runner.image()
                runner = runner.restored()
                assert runner.image() == image


@pytest.mark.parametrize("machine", [SetMachine, MultiMapMachine, ReferenceMachine])
def test_values_end_with_their_time_or_session(machine: type[StateMachine]) -> None:
    """What has terms ends by them, once; and it ends after a restart as well."""
    put = {SetMachine: "add", MultiMapMachine: "put", ReferenceMachine: "set"}[machine]

    def arguments(number: int) -> list[Any]:
        return [number // 2, number] if machine is MultiMapMachine else [number]

    def there(runner: Runner) -> list[int]:
        if machine is ReferenceMachine:
            return [runner("get")] if runner("get") is not None else []
        found = runner("page", 0, *([True] if machine is MultiMapMachine else []))[1]
        return [each[1] if isinstance(each, list) else each for each in found]

    runner = Runner(machine())
    if machine is ReferenceMachine:
        for ttl, ephemeral in ((2, False), (0, True)):
            runner(put, 7, ttl * 1_000_000, ephemeral, session=5)
            runner = runner.restored()
            assert there(runner) == [7]
            runner.advance(1.999)
            assert there(runner) == [7]
            runner.advance(0.001)
            assert there(runner) == ([7] if ephemeral else [])
            runner.close(5)
            assert there(runner) == []
        assert runner("compare_and_set", None, 1) is True
        return
    terms = [(1, False), (2, False), (0, False), (0, True), (3, True)]
    for number, (ttl, ephemeral) in enumerate(terms):
        assert runner(put, *arguments(number), ttl * 1_000_000, ephemeral, session=5) is True
        assert runner(put, *arguments(number), 9, False, session=6) is False  # stays as it is
    runner = runner.restored()
    assert there(runner) == [0, 1, 2, 3, 4]
    runner.advance(1)
    assert there(runner) == [1, 2, 3, 4]
    runner.close(5)
    assert there(runner) == [1, 2]
    runner.advance(100)
    assert there(runner) == [2]
    assert runner.timers == [] and runner.machine.endings.count == 0  # type: ignore[attr-defined]


def test_nonsense_changes_nothing() -> None:
    """What is no position, no list, no bool or has no hash is refused before anything changes."""
    items = Runner(ListMachine())
    items("extend", [1, 2])
    for name, arguments in (
        ("extend", (5,)), ("insert", ("x", 1)), ("set", (1 << 70, 1)), ("pop", (None,)),
    ):  # fmt: skip
        with pytest.raises(Rejected):
            items(name, *arguments)
    flag = Runner(BooleanMachine())
    for name, arguments in (("set", (1,)), ("compare_and_set", (0, True)),
                            ("compare_and_set", (False, None))):  # fmt: skip
        with pytest.raises(Rejected):
            flag(name, *arguments)
    pairs = Runner(MultiMapMachine())
    with pytest.raises(TypeError):
        pairs("put", 1, [2])
    assert items("page", 0) == [-1, [1, 2]]
    assert flag("get") is False
    assert pairs("size", []) == 0 and pairs("page", 0, False) == [-1, []]


def test_pages_of_long_lists_are_bounded() -> None:
    """A page has at most 512 items, and not many more bytes than 256 KiB."""
    items = Runner(ListMachine())
    items("extend", [b"x" * 2000] * 300 + [b""] * 1500)
    begin, lengths = 0, []
    while begin >= 0:
        begin, page = items("page", begin)
        lengths.append(len(page))
    assert sum(lengths) == 1800 and max(lengths) == 512 and min(lengths[:2]) < 140


async def expect(kind: type[Exception], wait: Awaitable[object]) -> None:
    """It raises."""
    with pytest.raises(kind):
        await wait


def test_handles_of_sets_and_multimaps() -> None:
    """The handles do what they say, with their errors."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            tags = cc.set("/tags")
            assert await tags.add("a") and await tags.add(("b", 1)) and not await tags.add("a")
            assert [tag async for tag in tags.items()] == ["a", ("b", 1)]
            assert await tags.contains(("b", 1), consistency=Consistency.SERIALIZABLE)
            assert await tags.remove("a") and not await tags.remove("a")
            assert await tags.size() == 1 and not await tags.is_empty()
            with pytest.raises(SerializationError, match="needs a hash"):
                await tags.add([1])
            with pytest.raises(ConfigurationError, match="ttl"):
                await tags.add("x", ttl=0)
            await tags.clear()
            assert await tags.is_empty()

            pairs = cc.multimap("/pairs")
            assert await pairs.put("k", (1, 2)) and await pairs.put("k", 3)
            assert not await pairs.put("k", 3)
            assert await pairs.put("l", 3)
            assert await pairs.get("k") == {(1, 2), 3} and await pairs.get("m") == set()
            assert await pairs.contains("k") and await pairs.contains_entry("k", (1, 2))
            assert [key async for key in pairs.keys()] == ["k", "l"]  # noqa: SIM118
            assert [pair async for pair in pairs.items()] == [("k", (1, 2)), ("k", 3), ("l", 3)]
            assert (await pairs.size(), await pairs.size("k")) == (3, 2)
            assert await pairs.remove("k", 3) is True and await pairs.remove("k", 3) is False
            assert await pairs.remove("k") == {(1, 2)} and not await pairs.contains("k")
            await pairs.clear()
            assert await pairs.size() == 0

    run(main())


def test_handles_of_lists_and_single_values() -> None:
    """Positions that are not there raise ``IndexError``, values are compared by what they are."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            lines = cc.list("/lines")
            await lines.extend(["a", "b"])
            await lines.append("d")
            await lines.insert(2, "c")
            assert [line async for line in lines.items()] == ["a", "b", "c", "d"]
            assert await lines.set(0, "A") == "a" and await lines.get(0) == "A"
            assert await lines.pop() == "d" and await lines.pop(0) == "A"
            assert await lines.index("c") == 1 and await lines.contains("b")
            assert await lines.remove("b") and not await lines.remove("b")
            await expect(IndexError, lines.get(7))
            await expect(IndexError, lines.set(7, "x"))
            await expect(ValueError, lines.index("zz"))
            await lines.clear()
            await expect(IndexError, lines.pop())

            one = cc.reference("/one")
            assert await one.get() is None
            await one.set({"a": [1]})
            assert await one.compare_and_set({"a": [1]}, (2,)) and await one.get() == (2,)
            assert await one.get_and_set(None) == (2,)

            flag = cc.boolean("/flag")
            assert await flag.get() is False
            assert await flag.get_and_set(True) is False and await flag.get() is True
            assert await flag.compare_and_set(True, False)
            with pytest.raises(Rejected, match="True or False"):
                await flag.set(1)  # type: ignore[arg-type]

    run(main())


def test_watchers_hear_of_ends_as_well() -> None:
    """Changes, ends by time and ends with a session arrive once and in order, with their values."""

    def watchers(cluster: FakeCluster) -> dict[bytes, Any]:
        machines = [each.machine for each in cluster.applier.executor.instances()]
        return next((each.watchers for each in machines if isinstance(each, MapMachine)), {})

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            told: list[Any] = []

            async def follow(events: Any) -> None:
                async for event in events:
                    told.append(event)

            handles = cc.map("/m"), cc.set("/s"), cc.reference("/r"), cc.boolean("/b")
            tasks = [asyncio.ensure_future(follow(each.watch())) for each in handles]
            system = cluster.applier.system
            await until(lambda: len(system._listening) == 3 and len(watchers(cluster)) == 1)
            async with client(cluster) as other:
                await other.map("/m").put("k", 1, ttl=0.05)
                await until(lambda: len(told) == 2)
                await other.set("/s").add("x", mode=Mode.EPHEMERAL)
                await other.reference("/r").set(5, mode=Mode.EPHEMERAL)
                await other.boolean("/b").set(True)
                await until(lambda: len(told) == 5)
            await until(lambda: len(told) == 7)
            for task in tasks:
                task.cancel()
            seen = [
                (type(each).__name__, each.type, each.value, getattr(each, "previous", None))
                for each in told
            ]
            assert seen[:5] == [
                (MapEvent.__name__, EventType.PUT, 1, None),
                (MapEvent.__name__, EventType.EXPIRE, None, 1),
                (SetEvent.__name__, EventType.ADD, "x", None),
                (ValueEvent.__name__, EventType.CHANGE, 5, None),
                (ValueEvent.__name__, EventType.CHANGE, True, False),
            ]
            assert sorted(seen[5:], key=str) == sorted([
                (SetEvent.__name__, EventType.EXPIRE, "x", None),
                (ValueEvent.__name__, EventType.EXPIRE, None, 5),
            ], key=str)  # fmt: skip
            assert await cc.set("/s").size() == 0

    run(main())
