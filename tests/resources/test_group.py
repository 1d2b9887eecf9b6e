"""Membership groups: the machine against a model, the handles against a cluster that fails."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from copycat._core.codec import Frame
from copycat.errors import (
    DeadlineError,
    MisuseError,
    OverloadedError,
    Rejected,
    SerializationError,
    SessionExpiredError,
    UnknownResourceError,
)
from copycat.resources import GroupEvent, GroupMachine, MembershipGroup
from copycat.resources import group as group_module
from copycat.serializer import Serializer
from copycat.types import EventType, SessionState

from ..client.fake_server import client, cluster_and_client, fake_cluster, until
from ..server.loops import run
from .test_machines import Runner


@pytest.mark.parametrize("seed", range(8))
def test_members_are_those_who_joined_and_did_not_leave(seed: int) -> None:
    """In the order of joining, under tokens that rise; events tell each change, and only those."""
    rng = random.Random(seed)
    run, tokens = Runner(GroupMachine()), list[int]()
    model: dict[bytes, tuple[int, Any]] = {}  # claim -> session, properties
    told: list[tuple[str, bytes]] = []
    number_of: dict[int, bytes] = {}
    for number in range(500):
        run.events.clear()
        told.clear()
        claim, session = number.to_bytes(2, "big"), rng.randrange(1, 6)
        properties = {"n": number, "x": rng.choice([None, b"b" * 9, [1, {2: "y"}], 2**70])}
        known = rng.choice(list(model)) if model else b"nobody"
        kind = rng.randrange(12)
        if kind < 5:
            token = run("acquire", claim, "me", False, properties, session=session)
            tokens.append(token)
            number_of[token] = claim
            assert run("acquire", claim, "me", False, {}, session=session) == token
            model[claim] = session, properties
            told.append(("joined", claim))
        elif kind < 8:
            assert run("update", known, properties) is (known in model)
            if known in model:
                model[known] = model[known][0], properties
                told.append(("change", known))
        elif kind < 10:
            assert run("release", known) is (known in model)
            assert run("release", known) is False
            if model.pop(known, None):
                told.append(("left", known))
        elif kind == 10:
            run.close(session)
            gone = [c for c, (owner, _) in model.items() if owner == session]
            told += [("left", c) for c in gone if model.pop(c)]
        else:
            run = run.restored()
        assert [(kind, number_of[who[0]]) for _, (kind, who, _), _ in run.events] == told
        index, members = run("view")
        assert index == run.commit.index
        assert [number_of[member[0]] for member in members] == list(model)
        assert [tuple(member[2:]) for member in members] == list(model.values())
    assert tokens == sorted(set(tokens))
    assert len(tokens) > 100


def test_a_group_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members, the properties of one and those of all have a limit; beyond it nothing changes."""
    monkeypatch.setattr(group_module, "MEMBERS_MAX", 3)
    monkeypatch.setattr(group_module, "GROUP_BYTES_MAX", 1000)
    monkeypatch.setattr(group_module, "PROPERTIES_BYTES_MAX", 500)
    run = Runner(GroupMachine())
    run("acquire", b"a", "me", False, {"x": "y" * 400})
    for bad in ({"x": "y" * 500}, {1: 2}, [1], None, "x"):
        with pytest.raises(Rejected):
            run("acquire", b"b", "me", False, bad)
        with pytest.raises(Rejected):
            run("update", b"a", bad)
    with pytest.raises(Rejected):
        run("acquire", "b", "me", False, {})
    run("acquire", b"b", "me", False, {"x": "y" * 400})
    with pytest.raises(OverloadedError):
        run("acquire", b"c", "me", False, {"x": "y" * 400})
    run("acquire", b"c", "me", False, {})
    with pytest.raises(OverloadedError):
        run("acquire", b"d", "me", False, {})
    with pytest.raises(OverloadedError):
        run("update", b"c", {"x": "y" * 400})
    assert [len(member[3]) for member in run("view")[1]] == [1, 1, 0]
    run("update", b"a", {})
    run("update", b"c", {"x": "y" * 400})
    for claim in (b"a", b"b", b"c"):
        run("release", claim)
    assert run.machine.bytes == 0


def test_what_members_take_is_never_counted_too_small() -> None:
    """The count of a value's bytes is no less than its encoding has: an answer has room for it."""
    rng, pack = random.Random(5), Serializer().pack
    values: list[Any] = [None, True, 1.5, "", "ä" * 40, b"", b"x" * 300, [], (), {}, {1, 2}]
    values += [2**k for k in range(0, 400, 7)] + [-(3**k) for k in range(0, 90, 7)]
    for _ in range(300):
        some = rng.sample(values, 3)
        values.append(rng.choice([list(some), tuple(some), {str(each): each for each in some}]))
        if len(pack(values[-1])) > 5000:
            values.pop()
    for value in values:
        assert group_module._size(value) >= len(pack(value)), value


def who(event: GroupEvent) -> tuple[EventType, object]:
    """What a watcher is told of whom."""
    return event.type, event.member.properties.get("n")


def test_one_joins_changes_and_leaves_in_view_of_others() -> None:
    """Others see it in this order; who begins to watch later sees the present state first."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            group, seen = one.group("/g"), two.group("/g").watch()
            async with seen:
                first = await group.join({"n": 1})
                async with await group.join({"n": 2}) as second:
                    assert second.token > first.token
                    await first.update({"n": 10})
                    members = await two.group("/g").members()
                    assert [member.properties for member in members] == [{"n": 10}, {"n": 2}]
                    assert [member.token for member in members] == [first.token, second.token]
                    assert {member.session for member in members} == {one.session.id}
                    second.check()
                    async with group.watch() as later:
                        assert [who(await anext(later)) for _ in range(2)] == [
                            (EventType.JOINED, 10), (EventType.JOINED, 2),
                        ]  # fmt: skip
                        await first.leave()
                        assert who(await anext(later)) == (EventType.LEFT, 10)
                assert [who(await anext(seen)) for _ in range(3)] == [
                    (EventType.JOINED, 1), (EventType.JOINED, 2), (EventType.CHANGE, 10),
                ]  # fmt: skip
                assert [who(await anext(seen)) for _ in range(2)] == [
                    (EventType.LEFT, 10), (EventType.LEFT, 2),
                ]  # fmt: skip
            assert await group.members() == []
            assert not first.lost.is_set()
            await first.leave()
            with pytest.raises(MisuseError, match="has left"):
                await first.update({})
            with pytest.raises(MisuseError, match="has left"):
                async with first:
                    raise AssertionError("never entered")

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_a_watch_adds_up_to_the_members(seed: int) -> None:
    """Over reconnects and changes of leader: its events give the members, whenever it began."""
    rng = random.Random(seed)

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one, client(cluster) as two:
            mine, seen = [], two.group("/g").watch()
            known: dict[int, dict[str, Any]] = {}

            async def watch() -> None:
                async for event in seen:
                    if event.type is EventType.LEFT:
                        del known[event.member.token]
                    else:
                        assert (event.member.token in known) is (event.type is EventType.CHANGE)
                        known[event.member.token] = event.member.properties

            watching = None
            for number in range(80):
                kind = rng.randrange(8)
                if kind < 3:
                    mine.append(await one.group("/g").join({"n": number}))
                elif kind == 3 and mine:
                    await mine.pop(rng.randrange(len(mine))).leave()
                elif kind == 4 and mine:
                    await rng.choice(mine).update({"n": number})
                elif kind == 5:
                    cluster.members[cluster.leader or "n1"].drop()
                    cluster.elect(rng.choice(list(cluster.members)))
                elif number > 30 and watching is None:
                    watching = asyncio.create_task(watch())
            expected = {member.token: member.properties for member in mine}
            await until(lambda: known == expected)
            members = await one.group("/g").members()
            assert [member.token for member in members] == sorted(expected)
            assert watching is not None
            watching.cancel()

    run(main())


def test_the_end_of_the_session_ends_the_membership() -> None:
    """The body is cancelled, the scope raises, and the group no longer has the member."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            group = cc.group("/g")
            idle = await group.join({"n": 1})
            with pytest.raises(SessionExpiredError, match="membership in '/g'.*was lost"):
                async with await group.join({"n": 2}):
                    cluster.expire_all()
                    await asyncio.sleep(30)
            assert idle.lost.is_set()
            for act in (idle.check, idle.__aenter__, lambda: idle.update({})):
                with pytest.raises(SessionExpiredError):
                    await act()  # type: ignore[misc]
            await idle.leave()
            await until(lambda: cc.session.state is SessionState.CONNECTED)
            assert await group.members() == []
            again = await group.join()
            assert again.token > idle.token

    run(main())


def test_who_cannot_rely_on_its_session_leaves_though_it_may_live() -> None:
    """A client that was cut off believes to be out, so others do not see it as a member after."""

    async def main() -> None:
        async with cluster_and_client(session_timeout=0.4) as (cluster, cc):
            group = cc.group("/g")
            me = await group.join({"n": 1})
            cluster.mute |= {Frame.KEPT, Frame.RESULTS}
            async with asyncio.timeout(5):
                await me.lost.wait()
            cluster.mute.clear()
            async with asyncio.timeout(5):
                while await group.members():
                    await asyncio.sleep(0.005)

    run(main())


@pytest.mark.parametrize("delay", range(6))
def test_a_cancelled_join_leaves_nobody_behind(delay: int) -> None:
    """Whenever it is cancelled: there is a membership in somebody's hands, or none."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            group: MembershipGroup = cc.group("/g")
            await group.open()
            if delay == 5:
                cluster.mute.add(Frame.RESULTS)
            joining = asyncio.create_task(group.join({"n": 1}))
            for _ in range(delay):
                await asyncio.sleep(0)
            if delay == 5:
                state = cluster.applier.executor.instance(group._resource).machine
                await until(lambda: state.members)
            joining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await joining
            cluster.mute.clear()
            cluster.members["n1"].drop()
            async with asyncio.timeout(5):
                while await group.members():
                    await asyncio.sleep(0.005)

    run(main())


def test_join_has_a_deadline_and_says_what_is_wrong() -> None:
    """Too late, too large, no encoding: an error at the call, and no member."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            group = cc.group("/g")
            with pytest.raises(Rejected, match="too large"):
                await group.join({"x": "y" * (64 << 10)})
            with pytest.raises(SerializationError):
                await group.join({"x": object()})
            with pytest.raises(Rejected, match="keys are strings"):
                await group.join({1: 2})  # type: ignore[dict-item]
            me = await group.join()
            with pytest.raises(Rejected, match="too large"):
                await me.update({"x": "y" * (64 << 10)})
            assert me.properties == {}
            cluster.deaf = True
            for short in (group.join(timeout=0.05), group.at(timeout=0.05).join()):
                with pytest.raises(DeadlineError):
                    await short
            cluster.deaf = False
            async with asyncio.timeout(5):
                while [each.token for each in await group.members()] != [me.token]:
                    await asyncio.sleep(0.005)

    run(main())


def test_a_deleted_group_has_no_members() -> None:
    """Its members lose their place, and its watchers hear of it."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            group = cc.group("/g")
            async with group.watch() as seen:
                with pytest.raises(SessionExpiredError, match="was deleted"):
                    async with await group.join():
                        await cc.delete("/g")
                        await asyncio.sleep(30)
                assert (await anext(seen)).type is EventType.JOINED
                with pytest.raises(UnknownResourceError):
                    await anext(seen)
            assert await cc.group("/g").members() == []

    run(main())
