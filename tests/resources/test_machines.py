"""The machines of the built-in resources by themselves, against simple models."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from copycat.errors import ConflictError, Rejected
from copycat.machine import StateMachine, attach, bound_operations, type_name_of
from copycat.resources import (
    BUILT_IN_MACHINES,
    LockMachine,
    LongMachine,
    MapMachine,
    QueueMachine,
)
from copycat.serializer import Serializer


class Runner:
    """Runs a machine as a member would: operations by name, at rising indexes."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.commit = attach(machine, 1, self)
        self.run = bound_operations(machine)
        self.events: list[tuple[str, Any, int | None]] = []
        self.timers: list[tuple[int, int, str, tuple[Any, ...]]] = []

    def publish(self, resource: int, event: str, value: object, to: int | None) -> None:
        self.events.append((event, value, to))

    def schedule(self, resource: int, delay_us: int, operation: str, args: tuple[Any, ...]) -> None:
        due = self.commit.time_us + max(1, delay_us)
        self.timers.append((due, self.commit.index, operation, args))

    def __call__(self, name: str, *args: Any, session: int = 1) -> Any:
        self.commit.index += 1
        self.commit.session = session
        return self.run[name](*args)

    def close(self, session: int) -> None:
        self.commit.index += 1
        self.machine.on_close(session)

    def restored(self) -> Runner:
        """A new machine from this one's snapshot, by way of its bytes."""
        serializer = Serializer(opaque=True)
        other = Runner(type(self.machine)())
        again = lambda value: serializer.unpack_state(serializer.pack_state(value))  # noqa: E731
        image = self.machine.snapshot()
        other.machine.restore(map(again, image) if isinstance(image, Iterator) else again(image))
        other.commit.index, other.commit.time_us = self.commit.index, self.commit.time_us
        other.timers = list(self.timers)
        return other

    def image(self) -> list[bytes]:
        """The machine's state, encoded."""
        image = self.machine.snapshot()
        pack = Serializer(opaque=True).pack_state
        return [pack(each) for each in (image if isinstance(image, Iterator) else (image,))]

    def advance(self, seconds: float) -> None:
        """Let log time pass; timers that come due run in their order."""
        until = self.commit.time_us + round(seconds * 1e6)
        while self.timers and min(self.timers)[0] <= until:
            timer = min(self.timers)
            self.timers.remove(timer)
            self.commit.time_us, _, operation, args = timer
            self(operation, *args, session=0)
        self.commit.time_us = until


def test_built_in_machines_have_names_of_their_own() -> None:
    """Every built-in machine stands in the log under ``copycat.``."""
    names = [type_name_of(machine) for machine in BUILT_IN_MACHINES]
    assert len(set(names)) == len(names)
    assert all(name.startswith("copycat.") for name in names)


@pytest.mark.parametrize("seed", range(10))
def test_map_behaves_like_a_dict(seed: int) -> None:
    """Random operations give what a plain dict would give, across snapshots."""
    rng = random.Random(seed)
    run, model = Runner(MapMachine()), dict[Any, Any]()
    for _ in range(400):
        key, value, other = rng.randrange(8), rng.randrange(4), rng.randrange(4)
        before = model.get(key)
        present = key in model
        kind = rng.randrange(10)
        if kind == 0:
            assert run("put", key, value) == before
            model[key] = value
        elif kind == 1:
            assert run("put_if_absent", key, value) == ([before] if present else [])
            model.setdefault(key, value)
        elif kind == 2:
            assert run("replace", key, value) == ([before] if present else [])
            if present:
                model[key] = value
        elif kind == 3:
            done = present and before == other
            assert run("replace_if", key, other, value) is done
            if done:
                model[key] = value
        elif kind == 4:
            assert run("remove", key) == ([before] if present else [])
            model.pop(key, None)
        elif kind == 5:
            done = present and before == value
            assert run("remove_if", key, value) is done
            if done:
                del model[key]
        elif kind == 6:
            run("update", [[key, value], [key + 1, other]])
            model.update({key: value, key + 1: other})
        elif kind == 7 and rng.random() < 0.1:
            run("clear")
            model.clear()
        elif kind == 8:
            run = run.restored()
        assert run("get", key) == model.get(key)
        assert run("size") == len(model)
        assert run("contains_value", value) == (value in model.values())
        assert run("page", 0, 3) == [-1, list(model), list(model.values())]


def test_map_versions_guard_writes() -> None:
    """A versioned write needs the index of the last write, 0 for an absent key."""
    run = Runner(MapMachine())
    version = run("put_if_version", "k", 1, 0)
    assert run("find", "k") == [1, version]
    with pytest.raises(ConflictError) as caught:
        run("put_if_version", "k", 2, 0)
    assert caught.value.current == [1, version]
    newer = run("put_if_version", "k", 2, version)
    assert newer > version
    with pytest.raises(ConflictError) as caught:
        run("put_if_version", "absent", 2, 9)
    assert caught.value.current is None


def test_map_pages_are_bounded_and_complete() -> None:
    """Pages have a limit in entries and bytes, and what stays is seen exactly once."""
    run = Runner(MapMachine())
    for number in range(1500):
        run("put", number, b"x" * 2000)
    seen: list[int] = []
    after = pages = 0
    while after >= 0:
        after, keys, values = run("page", after, 3)
        assert len(keys) <= 512
        assert sum(map(len, values)) <= (256 << 10) + 2000
        seen += keys
        pages += 1
        run("remove", pages)  # long passed
        run("put", 5000 + pages, b"new")
    assert pages > 5
    assert seen[:1500] == list(range(1500))
    assert len(set(seen)) == len(seen)


def test_map_update_validates_before_it_changes() -> None:
    """A bad key in an update leaves the map as it was (H48)."""
    run = Runner(MapMachine())
    with pytest.raises(TypeError):
        run("update", [["a", 1], [["unhashable"], 2]])
    assert run("size") == 0


def test_what_has_no_order_or_no_hash_is_refused_where_it_would_matter() -> None:
    """A set comes in another order on each member, a signaling NaN cannot be compared (H48)."""
    run = Runner(MapMachine())
    for pairs in ({("a", 1), ("b", 2)}, [{"a", "b"}], {"ab": 1}, ["ab"], "ab", None):
        with pytest.raises(Rejected):
            run("update", pairs)
    with pytest.raises(TypeError):
        run("watch", b"w", [Decimal("sNaN")], None)
    assert run("put", 1, "x") is None
    assert run("size") == 1
    queue = Runner(QueueMachine())
    queue("put", 1)
    for item in ({1, 2, "x"}, "123", (1, 1, 1)):
        with pytest.raises(Rejected):
            queue("put_back", b"c", item, 1)


def test_map_tells_only_watchers_that_match() -> None:
    """A watch gets what matches its key or prefix, until it or its session ends."""
    run = Runner(MapMachine())
    run("watch", b"1", ["a"], None, session=11)
    run("watch", b"2", [], "ab", session=12)
    run("watch", b"3", [], None, session=12)
    run("put", "a", 1)
    run("put", "abc", 1)
    assert [(value[1], to) for _, value, to in run.events] == [("a", 11), ("a", 12), ("abc", 12)]
    run.events.clear()
    run = run.restored()
    run.close(12)
    run("remove", "a")
    run("clear")
    assert [(value[0], to) for _, value, to in run.events] == [("remove", 11), ("clear", 11)]
    run("unwatch", b"1")
    run("put", "a", 1)
    assert len(run.events) == 2


def test_long_counts_without_limits_and_takes_only_integers() -> None:
    """Integers of any size; anything else is rejected and changes nothing."""
    run = Runner(LongMachine())
    assert run("add", 2**80) == 2**80
    assert run("compare_and_set", 2**80, 7) is True
    assert run("compare_and_set", 8, 9) is False
    assert run("set", 5) == 7
    for bad in ("1", 1.5, None, True):
        with pytest.raises(Rejected):
            run("add", bad)
    assert run.restored()("get") == 5


@pytest.mark.parametrize("seed", range(15))
def test_turns_are_fair_fenced_and_never_leak(seed: int) -> None:
    """One holder; first come, first served; tokens rise; ended sessions hold and wait no more."""
    rng = random.Random(seed)
    run = Runner(LockMachine())
    line: list[tuple[bytes, int]] = []  # the holder first
    tokens = [0]
    made = 0
    for _ in range(500):
        kind = rng.randrange(10)
        run.events.clear()
        holder = line[0] if line else None
        if kind < 4:
            made += 1
            claim, session, wait = made.to_bytes(4, "big"), rng.randrange(1, 6), rng.random() < 0.8
            token = run("acquire", claim, "me", wait, session=session)
            if not line or wait:
                line.append((claim, session))
            assert bool(token) == (holder is None)
            if token:
                tokens.append(token)
        elif kind < 8 and line:
            claim, session = rng.choice(line)
            assert run("release", claim, session=session) is (line[0][0] == claim)
            line = [entry for entry in line if entry[0] != claim]
        elif kind == 8:
            session = rng.randrange(1, 6)
            run.close(session)
            line = [entry for entry in line if entry[1] != session]
        else:
            run = run.restored()
        granted = [(value, to) for event, value, to in run.events if event == "granted"]
        if line and line[0] != holder and not (kind < 4 and holder is None):
            (value, to) = granted[-1]
            assert (value[0], to) == line[0]
            tokens.append(value[1])
        assert run("held") == ([["me", line[0][1], tokens[-1]]] if line else [])
        assert [session for _, session in run("line")] == [session for _, session in line[1:]]
    assert tokens == sorted(set(tokens))
    assert len(tokens) > 20


def test_tokens_rise_even_when_sessions_end_at_one_index() -> None:
    """Two hand-overs at the same index get two tokens."""
    run = Runner(LockMachine())
    for claim, session in ((b"a", 1), (b"b", 2), (b"c", 3)):
        run("acquire", claim, "me", True, session=session)
    first = run("held")[0][2]
    run.machine.on_close(1)
    second = run("held")[0][2]
    run.machine.on_close(2)
    third = run("held")[0][2]
    assert first < second < third


def test_acquiring_again_with_one_claim_is_the_same_acquisition() -> None:
    """A claim that holds gets its token again, and waits only once."""
    run = Runner(LockMachine())
    token = run("acquire", b"a", "me", True)
    assert run("acquire", b"a", "me", True) == token
    assert run("acquire", b"b", "me", True) == run("acquire", b"b", "me", True) == 0
    assert len(run("line")) == 1
    assert run("acquire", b"c", "me", False) == 0
    assert len(run("line")) == 1
