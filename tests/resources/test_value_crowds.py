"""Values under faults: histories that fit, what goes with a session, watchers that miss nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from copycat.errors import SessionExpiredError
from copycat.handles import CopycatClient
from copycat.ports import Random
from copycat.testing.checkers import require_linearizable
from copycat.testing.models import Model
from copycat.testing.value_models import List, MultiMap, Reference, Set
from copycat.types import Consistency, Mode, SessionState

from .crowd import CLIENTS_SUFFER, MEMBERS_SUFFER, SESSION_S, Crowd

ALL = MEMBERS_SUFFER + CLIENTS_SUFFER
MODELS: dict[str, Model[Any]] = {
    "/set": Set(), "/multimap": MultiMap(), "/list": List(), "/reference": Reference(),
    "/boolean": Reference(False),
}  # fmt: skip


async def indexed(wait: Awaitable[Any]) -> Any:
    """The answer, with the class of an IndexError for an answer."""
    try:
        return await wait
    except IndexError:
        return IndexError


def histories(seed: int, seconds: float = 20.0) -> Crowd:
    """A life with all kinds of values."""

    async def step(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        number, key, other = (random.randrange(4) for _ in range(3))
        level = random.choice((Consistency.LINEARIZABLE, Consistency.LINEARIZABLE_LEASE))
        tags, pairs, lines = cc.set("/set"), cc.multimap("/multimap"), cc.list("/list")
        one, flag, on = cc.reference("/reference"), cc.boolean("/boolean"), number < 2
        name, path, arguments, call = random.choice([
            ("add", tags, (number,), lambda: tags.add(number)),
            ("remove", tags, (number,), lambda: tags.remove(number)),
            ("contains", tags, (number,), lambda: tags.contains(number, consistency=level)),
            ("size", tags, (), lambda: tags.size(consistency=level)),
            ("put", pairs, (key, number), lambda: pairs.put(key, number)),
            ("remove", pairs, (key,), lambda: pairs.remove(key)),
            ("remove_value", pairs, (key, number), lambda: pairs.remove(key, number)),
            ("get", pairs, (key,), lambda: pairs.get(key, consistency=level)),
            ("append", lines, (number,), lambda: lines.append(number)),
            ("insert", lines, (key, number), lambda: lines.insert(key, number)),
            ("pop", lines, (-1,), lambda: indexed(lines.pop())),
            ("set", lines, (key, number), lambda: indexed(lines.set(key, number))),
            ("get", lines, (key,), lambda: indexed(lines.get(key, consistency=level))),
            ("get", one, (), lambda: one.get(consistency=level)),
            ("get_and_set", one, (number,), lambda: one.get_and_set(number)),
            ("compare_and_set", one, (key, other), lambda: one.compare_and_set(key, other)),
            ("get", flag, (), lambda: flag.get(consistency=level)),
            ("compare_and_set", flag, (on, not on), lambda: flag.compare_and_set(on, not on)),
        ])  # fmt: skip
        await crowd.history.record(cc.name, name, path.path, arguments, call())

    async def judge(cc: CopycatClient) -> None:
        """Nothing else is left to be seen."""

    crowd = Crowd(seed, step, faults=MEMBERS_SUFFER, session_s=30.0)
    crowd.live(seconds, judge)
    for path, model in MODELS.items():
        require_linearizable([each for each in crowd.history.operations if each.key == path], model)
    return crowd


def belongings(seed: int, seconds: float = 20.0) -> Crowd:
    """A life in which everybody leaves what is to go with its session, or after a while."""

    async def step(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        me, here, named = cc.session.id, cc.set("/here"), cc.map("/named")
        mode = Mode.EPHEMERAL
        if random.random() < 0.3:
            await cc.map("/brief").put(me, 1, ttl=random.choice((0.01, 0.5, 3)))
            return
        await here.add(me, mode=mode)
        await named.put(me, "mine", mode=mode)
        await asyncio.sleep(random.random())
        there = await here.contains(me), await named.get(me)
        if cc.session.id == me and cc.session.state is SessionState.CONNECTED:
            assert there == (True, "mine"), f"{there} of session {me}, which lives"

    async def judge(cc: CopycatClient) -> None:
        async with asyncio.timeout(5 * SESSION_S):
            for one in (cc.set("/here"), cc.map("/named"), cc.map("/brief")):
                while not await one.is_empty():
                    await asyncio.sleep(0.1)

    crowd = Crowd(seed, step, faults=ALL, session_s=SESSION_S)
    crowd.live(seconds, judge)
    return crowd


def watchers(seed: int, seconds: float = 20.0) -> Crowd:
    """A life with some who write and some who watch."""
    told: dict[int, Any] = {}  # what anybody was told, by index
    heard: list[list[int]] = []  # indexes, of each watch

    async def step(crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        tags = cc.set("/x")
        if random.random() < 0.8:
            value = random.randrange(30)
            ttl = random.choice((None, None, 0.2))
            await (tags.add(value, ttl=ttl) if random.random() < 0.6 else tags.remove(value))
            return
        indexes: list[int] = []
        heard.append(indexes)
        try:
            async with asyncio.timeout(random.choice((1.0, 8.0))):
                async for event in tags.watch():
                    # Several may end at one index, each at its own place.
                    fact = (event.type, event.value)
                    known = told.setdefault(event.index, [])
                    place = indexes.count(event.index)
                    if place == len(known):
                        known.append(fact)
                    assert known[place] == fact, f"{event}, others heard {known}"
                    indexes.append(event.index)
        except (TimeoutError, SessionExpiredError):
            pass

    async def judge(cc: CopycatClient) -> None:
        """What was heard is compared below."""

    crowd = Crowd(seed, step, faults=ALL, session_s=SESSION_S)
    crowd.live(seconds, judge)
    every = sorted(told)
    for indexes in heard:
        assert indexes == sorted(indexes), indexes
        if indexes:
            between = [each for each in every if indexes[0] < each < indexes[-1]]
            missed = set(between) - set(indexes)
            assert not missed, f"somebody missed {sorted(missed)}"
            for each in between:
                assert indexes.count(each) == len(told[each])
    assert sum(map(len, heard)) > 10
    return crowd


@pytest.mark.parametrize("seed", range(2))
def test_values_under_faults(seed: int) -> None:
    """Every answer of every kind of value fits one order, whatever happens to members."""
    assert histories(seed).steps > 50


@pytest.mark.parametrize("seed", range(2))
def test_what_belongs_to_a_session_lives_as_long_as_it(seed: int) -> None:
    """It is there while the session lives, and gone when it has ended; so is what had a time."""
    assert belongings(seed).steps > 20


@pytest.mark.parametrize("seed", range(2))
def test_watchers_under_faults(seed: int) -> None:
    """All watchers hear the same, in order, without gaps or repetitions, as long as they listen."""
    assert watchers(seed).steps > 20
