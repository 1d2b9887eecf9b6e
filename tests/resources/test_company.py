"""Topics, groups and transactions under faults: what clients see while members and they suffer."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from copycat.errors import ConflictError
from copycat.handles import CopycatClient
from copycat.ports import Random
from copycat.resources import MembershipGroup, TopicEvent
from copycat.testing import CheckFailed
from copycat.types import EventType

from .crowd import CLIENTS_SUFFER, MEMBERS_SUFFER, SESSION_S, Crowd

ALL = MEMBERS_SUFFER + CLIENTS_SUFFER


# -- what is told ----------------------------------------------------------------------------------


class TopicLife:
    """What the clients of one topic heard, subscription by subscription."""

    def __init__(self) -> None:
        self.at: dict[int, str] = {}  # log index -> message, as somebody heard it
        self.heard: list[list[int]] = []
        self.tried = 0

    async def step(self, crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        """Publish, or listen for a while to oneself and the others."""
        topic = cc.topic("/x")
        if random.random() < 0.6:
            await topic.publish(self._message(cc))
            return
        heard: list[int] = []
        self.heard.append(heard)
        async with topic.subscribe() as messages:
            mine = self._message(cc)
            if await topic.publish(mine) < 1:
                raise AssertionError("nobody listens, though this client does")
            while not heard or self.at[heard[-1]] != mine:
                self._note(heard, await anext(messages))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.choice((0.2, 8.0)) * random.random()):
                    async for message in messages:
                        self._note(heard, message)

    def _message(self, cc: CopycatClient) -> str:
        self.tried += 1
        return f"{cc.name}-{self.tried}"

    def _note(self, heard: list[int], message: TopicEvent[str]) -> None:
        if heard and heard[-1] >= message.index:
            raise AssertionError(f"{message} came after index {heard[-1]}")
        if self.at.setdefault(message.index, message.value) != message.value:
            raise AssertionError(f"{message} is {self.at[message.index]} to others")
        heard.append(message.index)


def topics(seed: int, faults: tuple[str, ...] = ALL, seconds: float = 20.0) -> Crowd:
    """A life at a topic: everybody hears the same, in order, without gap or repeat."""
    life = TopicLife()

    async def judge(cc: CopycatClient) -> None:
        async with asyncio.timeout(3 * session_s):
            while await cc.topic("/x").publish("anybody?"):  # the dead are told no more
                await asyncio.sleep(0.1)

    session_s = SESSION_S if set(faults) & set(CLIENTS_SUFFER) else 15.0
    crowd = Crowd(seed, life.step, faults=faults, session_s=session_s)
    crowd.live(seconds, judge)
    if len(set(life.at.values())) != len(life.at):
        raise CheckFailed("once", f"published twice: {sorted(life.at.values())}")
    everything = sorted(life.at)
    for heard in filter(None, life.heard):
        if missed := set(everything[everything.index(heard[0]) :][: len(heard)]) - set(heard):
            raise CheckFailed("gap", f"{heard[0]}..{heard[-1]} lacks {sorted(missed)}")
    crowd.report = f"{len(life.at)} of {life.tried} heard in {len(life.heard)} subscriptions"
    return crowd


class GroupLife:
    """Who believes to be a member of one group, and what watchers were told."""

    def __init__(self) -> None:
        self.watched = 0

    async def step(self, crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        """Be a member for a while and look around, or watch the others."""
        group = cc.group("/x")
        if random.random() < 0.3:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.choice((0.2, 5.0)) * random.random()):
                    await group.join({"patience": "little"})  # and never leave: it ends some day
            return
        if random.random() < 0.4:
            await self._watch(group)
            return
        async with await group.join() as me:
            with crowd.believing("/x", cc, me.token, "member"):
                for _ in range(random.randrange(4)):
                    await self._look_around(crowd, group)
                    await asyncio.sleep(random.random())
                    await me.update({"n": random.randrange(9)})

    async def _look_around(self, crowd: Crowd, group: MembershipGroup) -> None:
        before = crowd.who("/x")
        listed = {member.token for member in await group.members()}
        if missing := before & crowd.who("/x") - listed:
            raise AssertionError(f"{missing} are alive and are not listed: {listed}")

    async def _watch(self, group: MembershipGroup) -> None:
        """Join, change and leave, and see all that in the right place between others' events."""
        known: dict[int, object] = {}
        self.watched += 1
        async with group.watch() as events:
            me = await group.join({"n": 1})
            await me.update({"n": 2})
            await me.leave()
            mine = []
            while len(mine) < 3:
                event = await anext(events)
                token = event.member.token
                if (token in known) is (event.type is EventType.JOINED):
                    raise AssertionError(f"{event} does not follow from {known}")
                if event.type is EventType.CHANGE and event.previous != known[token]:
                    raise AssertionError(f"{event}: it had {known[token]}")
                known[token] = event.member.properties
                if event.type is EventType.LEFT:
                    del known[token]
                mine += [event.type] if token == me.token else []
        if mine != [EventType.JOINED, EventType.CHANGE, EventType.LEFT]:
            raise AssertionError(f"{me} saw itself {mine}")


def groups(seed: int, faults: tuple[str, ...] = ALL, seconds: float = 20.0) -> Crowd:
    """A life of a group: who is alive is listed, and who is dead is not for long."""
    life = GroupLife()
    session_s = SESSION_S if set(faults) & set(CLIENTS_SUFFER) else 15.0

    async def judge(cc: CopycatClient) -> None:
        async with asyncio.timeout(3 * session_s):
            while await cc.group("/x").members():
                await asyncio.sleep(0.1)

    crowd = Crowd(seed, life.step, faults=faults, session_s=session_s)
    crowd.live(seconds, judge)
    crowd.report = f"{life.watched} watched"
    return crowd


# -- what is done together -------------------------------------------------------------------------


class BankLife:
    """Money that goes from one map to another, and what is known of it."""

    ACCOUNTS = 4
    MONEY = 100

    def __init__(self) -> None:
        self.tried = self.confirmed = self.conflicts = self.audits = 0

    async def open(self, cc: CopycatClient) -> None:
        """Give each account of the first map its money, once."""
        async with cc.transaction() as tx:
            first = tx.map("/a")
            for account in range(self.ACCOUNTS):
                first.expect_absent(account)
                first.put(account, self.MONEY)

    async def step(self, crowd: Crowd, cc: CopycatClient, random: Random) -> None:
        """Move some money, or count all of it."""
        try:
            with contextlib.suppress(ConflictError):
                await self.open(cc)
            await (self._audit(cc) if random.random() < 0.3 else self._move(cc, random))
        except ConflictError:
            self.conflicts += 1

    async def _move(self, cc: CopycatClient, random: Random) -> None:
        source, target = random.sample(["/a", "/b"], 2)
        account, other = random.randrange(self.ACCOUNTS), random.randrange(self.ACCOUNTS)
        tx = cc.transaction()
        left = await tx.map(source).get(account, 0)
        there = await tx.map(target).get(other, 0)
        amount = random.randint(0, left)
        tx.map(source).put(account, left - amount)
        tx.map(target).put(other, there + amount)
        number = tx.long("/moves").increment()
        tx.queue("/moved").put(f"{source} {amount}")
        tx.topic("/news").publish(amount)
        self.tried += 1
        before = self.confirmed
        try:
            await tx.commit()
        except ConflictError:
            self.tried -= 1
            raise
        self.confirmed += 1
        if number.value <= before:
            raise AssertionError(f"move {number.value} came after {before} others")

    async def _audit(self, cc: CopycatClient) -> None:
        """Reads that are committed were true at one moment."""
        async with cc.transaction() as tx:
            total = 0
            for path in ("/a", "/b"):
                for account in range(self.ACCOUNTS):
                    total += await tx.map(path).get(account, 0)
        self.audits += 1
        if total != self.ACCOUNTS * self.MONEY:
            raise AssertionError(f"there are {total}")

    async def judge(self, cc: CopycatClient) -> None:
        """The money is there, and each move was counted and queued once."""
        await self._audit(cc)
        moves = await cc.long("/moves").get()
        assert await cc.queue("/moved").size() == moves
        assert self.confirmed <= moves <= self.tried


def banks(seed: int, faults: tuple[str, ...] = ALL, seconds: float = 20.0) -> Crowd:
    """A life of a bank: the sum never changes, and every move happens once or not at all."""
    life = BankLife()
    crowd = Crowd(seed, life.step, faults=faults, session_s=SESSION_S)
    crowd.live(seconds, life.judge)
    crowd.report = f"{life.confirmed} of {life.tried}, {life.conflicts} conflicts"
    assert life.confirmed > 5
    assert life.audits > 1
    return crowd


# -- a few lives of each; hundreds of others were clean ------------------------------------------


@pytest.mark.parametrize("faults", [MEMBERS_SUFFER, ALL], ids=["members", "all"])
def test_topics_under_faults(faults: tuple[str, ...]) -> None:
    """All hear the same messages in the same order, and miss none while they listen."""
    crowd = topics(1, faults)
    assert crowd.steps > 20, crowd.report


@pytest.mark.parametrize("faults", [MEMBERS_SUFFER, ALL], ids=["members", "all"])
def test_groups_under_faults(faults: tuple[str, ...]) -> None:
    """Nobody who is alive is ever missing, the dead go, and watchers are told each change."""
    crowd = groups(1, faults)
    assert crowd.steps > 20, crowd.report


@pytest.mark.parametrize("faults", [MEMBERS_SUFFER, ALL], ids=["members", "all"])
def test_transactions_under_faults(faults: tuple[str, ...]) -> None:
    """Whatever fails: the sum of two maps is constant, and no transaction is a half or twice."""
    crowd = banks(1, faults)
    assert crowd.steps > 20, crowd.report
