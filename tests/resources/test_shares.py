"""Semaphores and read-write locks: the machines against a model, the handles against a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from copycat.errors import (
    ConfigurationError,
    ConflictError,
    DeadlineError,
    LockLost,
    MisuseError,
    Rejected,
)
from copycat.resources import (
    AsyncSemaphore,
    LockMachine,
    ReadWriteLockMachine,
    SemaphoreMachine,
    rwlock,
)
from copycat.system import DELETED

from ..client.fake_server import client, cluster_and_client, fake_cluster, until
from ..server.loops import run
from .test_machines import Runner

PERMITS = 3


def one(holding: list[Any], asks: Any) -> bool:
    """A lock's rule."""
    return not holding


def few(holding: list[Any], asks: Any) -> bool:
    """A semaphore's rule."""
    return len(holding) < PERMITS


def sides(holding: list[Any], asks: Any) -> bool:
    """A read-write lock's rule: a writer alone, readers beside readers."""
    return not holding if asks else not any(holding)


KINDS: dict[str, tuple[Any, Callable[[list[Any], Any], bool], tuple[Any, ...]]] = {
    "lock": (LockMachine, one, (None,)),
    "semaphore": (SemaphoreMachine, few, (PERMITS, PERMITS, None)),
    "rwlock": (ReadWriteLockMachine, sides, (True, False, False)),
}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_fair_fenced_and_never_leak(kind: str, seed: int) -> None:
    """Holders and line are what the rule allows, in the order of asking, and tokens rise."""
    machine, admits, terms_of = KINDS[kind]
    rng = random.Random(seed)
    run = Runner(machine())
    holders: dict[bytes, tuple[int, Any]] = {}  # claim -> session, terms
    line: dict[bytes, tuple[int, Any]] = {}
    tokens: list[int] = []
    if kind == "semaphore":
        run("acquire", b"first", "me", False, PERMITS)
        tokens.append(run("held")[0][2])
        run("release", b"first")
    for number in range(400):
        choice = rng.randrange(10)
        run.events.clear()
        fresh: list[bytes] = []
        if choice < 4:
            claim, session = number.to_bytes(4, "big"), rng.randrange(1, 6)
            wait, terms = rng.random() < 0.8, rng.choice(terms_of)
            token = run("acquire", claim, "me", wait, terms, session=session)
            assert bool(token) == (not line and admits([t for _, t in holders.values()], terms))
            if token:
                holders[claim] = session, terms
                tokens.append(token)
            elif wait:
                line[claim] = session, terms
            assert run("acquire", claim, "me", False, terms, session=session) == token
        elif choice < 8 and holders | line:
            claim = rng.choice(list(holders | line))
            assert run("release", claim) is (claim in holders)
            assert run("release", claim) is False
            holders.pop(claim, None)
            line.pop(claim, None)
        elif choice == 8:
            session = rng.randrange(1, 6)
            run.close(session)
            holders = {c: each for c, each in holders.items() if each[0] != session}
            line = {c: each for c, each in line.items() if each[0] != session}
        else:
            run = run.restored()
        while line and admits([t for _, t in holders.values()], next(iter(line.values()))[1]):
            fresh.append(next(iter(line)))
            holders[fresh[-1]] = line.pop(fresh[-1])
        granted = [(*value, to) for event, value, to in run.events if event == "granted"]
        assert [(each[0], each[2]) for each in granted] == [(c, holders[c][0]) for c in fresh]
        tokens += [each[1] for each in granted]
        assert [each[1] for each in run("held")] == [session for session, _ in holders.values()]
        assert [each[1] for each in run("line")] == [session for session, _ in line.values()]
    assert tokens == sorted(set(tokens))
    assert len(tokens) > 30


def test_a_writer_that_gives_up_lets_the_readers_behind_it_in() -> None:
    """Whoever waited only for somebody in line does not wait for ever when that one leaves."""
    for closes in (False, True):
        run = Runner(ReadWriteLockMachine())
        assert run("acquire", b"r1", "me", True, False, session=1)
        assert not run("acquire", b"w", "me", True, True, session=2)
        assert not run("acquire", b"r2", "me", True, False, session=3)
        assert not run("acquire", b"r3", "me", False, False, session=3), "no overtaking"
        assert len(run("line_of", False)) == len(run("line_of", True)) == 1
        if closes:
            run.close(2)
        else:
            run("release", b"w")
        assert [holder[1] for holder in run("held_by", False)] == [1, 3]
        assert run("line") == run("held_by", True) == []


def test_bad_claims_change_nothing() -> None:
    """What is no claim, or asks for what there is not, is refused before anything changes."""
    semaphore, sides_ = Runner(SemaphoreMachine()), Runner(ReadWriteLockMachine())
    for bad in ("claim", b"x" * 65, 5, None, [b"x"]):
        with pytest.raises(Rejected):
            semaphore("acquire", bad, "me", True, 2)
    for bad_terms in (0, -1, 10_001, True, "2", 2.0, None):
        with pytest.raises(Rejected):
            semaphore("acquire", b"c", "me", True, bad_terms)
    with pytest.raises(Rejected):
        semaphore("acquire", b"c", "m" * 1025, True, 2)
    with pytest.raises(Rejected):
        sides_("acquire", b"c", "me", True, None)
    assert semaphore("count") == [0, 0]
    assert semaphore("acquire", b"c", "me", True, 2)
    with pytest.raises(ConflictError, match="it has 2 permits, not 3") as caught:
        semaphore("acquire", b"d", "me", True, 3)
    assert caught.value.current == 2
    assert semaphore("count") == [2, 1]


def test_a_deleted_semaphore_tells_all_who_hold_and_wait() -> None:
    """Each session is dismissed once, whatever number of permits it holds."""
    run = Runner(SemaphoreMachine())
    for claim, session in ((b"a", 1), (b"b", 1), (b"c", 2), (b"d", 3)):
        run("acquire", claim, "me", True, 3, session=session)
    run.events.clear()
    run.machine.on_delete(9)
    assert run.events == [(DELETED, None, 1), (DELETED, None, 2), (DELETED, None, 3)]


def test_readers_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers beyond the limit wait in line instead of making the state grow."""
    monkeypatch.setattr(rwlock, "READERS_MAX", 2)
    run = Runner(ReadWriteLockMachine())
    tokens = [run("acquire", bytes([n]), "me", True, False) for n in range(3)]
    assert tokens[2] == 0
    run("release", bytes([0]))
    assert len(run("held")) == 2
    assert run("line") == []


# -- handles -----------------------------------------------------------------------------------


def test_a_semaphore_lets_in_as_many_as_it_has_permits() -> None:
    """Never more than three bodies of any client, all of them in the end, nothing is leaked."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one_, client(cluster) as two:
            inside = most = 0
            tokens: list[int] = []

            async def work(number: int) -> None:
                nonlocal inside, most
                async with (one_, two)[number % 2].semaphore("/s", PERMITS) as held:
                    inside += 1
                    most = max(most, inside)
                    tokens.append(held.token)
                    await asyncio.sleep(0.003)
                    inside -= 1

            await asyncio.gather(*(work(number) for number in range(20)))
            assert most == PERMITS
            assert len(set(tokens)) == 20
            semaphore = two.semaphore("/s")
            assert await semaphore.available() == PERMITS
            assert not await semaphore.locked()
            assert await semaphore.holders() == await semaphore.waiters() == []

    run(main())


def test_one_task_may_have_several_permits() -> None:
    """Nested scopes end in their order, and each gives back its own permit."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            semaphore = cc.semaphore("/s", 2)
            assert await semaphore.available() == 2
            async with semaphore as first, semaphore as second:
                assert first.token < second.token
                assert await semaphore.locked()
                assert await semaphore.try_acquire() is None
                assert [each.token for each in await semaphore.holders()] == [
                    first.token, second.token,
                ]  # fmt: skip
                await semaphore.release(first)
                assert await semaphore.available() == 1
                with pytest.raises(MisuseError, match="not held"):
                    await semaphore.release(first)
            assert await semaphore.available() == 2
            held = await semaphore.acquire()
            await semaphore.release()
            assert held.released
            assert not cc._access.held

    run(main())


def test_everybody_says_the_same_number_of_permits() -> None:
    """Another number is a ConflictError with both, None takes any, and nonsense fails at once."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            with pytest.raises(Rejected, match="'/s': nobody has said yet how many permits"):
                await cc.semaphore("/s").acquire()
            async with cc.semaphore("/s", 2):
                with pytest.raises(ConflictError, match="'/s' has 2 permits, not 5") as caught:
                    await cc.semaphore("/s", 5).acquire()
                assert caught.value.current == 2
                assert "delete the path" in caught.value.hint
                async with cc.get("/s", AsyncSemaphore):
                    assert await cc.semaphore("/s", 5).available() == 0
            for bad in (0, -1, 2.0, True, 10_001):
                with pytest.raises(ConfigurationError, match="permits is a whole number from 1"):
                    cc.semaphore("/s", bad)  # type: ignore[arg-type]

    run(main())


@pytest.mark.parametrize("kind", ["semaphore", "writer", "reader"])
def test_cancelled_acquires_leak_no_share(kind: str) -> None:
    """Cancelling an acquire at any moment leaves neither a permit nor a dead waiter behind."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):

            def handle() -> Any:
                sides_ = cc.rwlock("/x")
                return cc.semaphore("/x", 1) if kind == "semaphore" else getattr(sides_, kind)

            other = handle() if kind == "semaphore" else cc.rwlock("/x").writer
            async with other:
                pass
            for delay in range(40):
                holder = await other.acquire(timeout=2) if delay % 2 else None
                task = asyncio.create_task(handle().acquire())
                for _ in range(delay // 2):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await handle().release(await task)
                if holder is not None:
                    await other.release(holder)
                async with asyncio.timeout(2), other:
                    pass
            assert await handle().waiters() == await other.waiters() == []

    run(main())


def test_readers_share_and_writers_exclude() -> None:
    """Writers are alone, readers meet readers, and neither starves."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one_, client(cluster) as two:
            readers = writers = most = 0
            tokens: list[int] = []

            async def work(number: int) -> None:
                nonlocal readers, writers, most
                lock = (one_, two)[number % 2].rwlock("/rw")
                if number % 4 == 0:
                    async with lock.writer as held:
                        assert readers == writers == 0
                        writers += 1
                        tokens.append(held.token)
                        await asyncio.sleep(0.003)
                        writers -= 1
                else:
                    async with lock.reader as held:
                        assert writers == 0
                        readers += 1
                        most = max(most, readers)
                        tokens.append(held.token)
                        await asyncio.sleep(0.003)
                        readers -= 1

            await asyncio.gather(*(work(number) for number in range(24)))
            assert most > 1
            assert len(set(tokens)) == 24
            assert not await one_.rwlock("/rw").reader.locked()
            assert not await one_.rwlock("/rw").writer.locked()

    run(main())


def test_a_readers_stream_does_not_starve_a_writer() -> None:
    """A reader that comes after a waiting writer waits behind it, and is not let in by trying."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as one_, client(cluster) as two:
            lock, other = one_.rwlock("/rw"), two.rwlock("/rw")
            async with lock.reader as first:
                writer = asyncio.create_task(other.writer.acquire())
                while not await lock.writer.waiters():
                    await asyncio.sleep(0.001)
                assert await other.reader.try_acquire() is None
                late = asyncio.create_task(other.reader.acquire())
                while not await lock.reader.waiters():
                    await asyncio.sleep(0.001)
                assert [each.token for each in await lock.reader.holders()] == [first.token]
            held = await writer
            assert held.token > first.token
            assert await lock.writer.locked()
            assert not late.done()
            await other.writer.release(held)
            assert (await late).token > held.token

    run(main())


def test_a_read_write_lock_is_not_reentrant() -> None:
    """A task that holds a side and asks again gets an error instead of waiting for itself."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            lock = cc.rwlock("/rw")
            async with lock.reader as held:
                for side in (lock.reader, lock.writer, cc.rwlock("/rw").at(timeout=1).writer):
                    with pytest.raises(
                        MisuseError, match=f"already holds '/rw' .token {held.token}"
                    ):
                        await side.acquire()
            async with lock.writer:
                with pytest.raises(MisuseError, match="not re-entrant"):
                    await lock.reader.try_acquire()
            with pytest.raises(DeadlineError, match="read-write lock '/rw' was not obtained"):
                holder = await cc.rwlock("/rw").writer.acquire()
                await asyncio.create_task(lock.reader.acquire(timeout=0.05))
            await lock.writer.release(holder)

    run(main())


@pytest.mark.parametrize("kind", ["semaphore", "writer", "reader"])
def test_lost_shares_cancel_their_bodies(kind: str) -> None:
    """All permits of a session go with it: every body is cancelled and raises LockLost."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            entered = 0

            async def body() -> int:
                nonlocal entered
                sides_ = cc.rwlock("/x")
                scope: Any = cc.semaphore("/x", 3) if kind == "semaphore" else sides_.reader
                with pytest.raises(LockLost, match="ended it") as caught:
                    async with sides_.writer if kind == "writer" else scope:
                        entered += 1
                        await asyncio.sleep(5)
                return caught.value.token

            count = 1 if kind == "writer" else 3
            tasks = [asyncio.create_task(body()) for _ in range(count)]
            await until(lambda: entered == count)
            cluster.expire_all()
            async with asyncio.timeout(2):
                assert len(set(await asyncio.gather(*tasks))) == count
            assert not cc._access.held

    run(main())


def test_a_deleted_semaphore_is_lost_by_all_its_holders() -> None:
    """Deleting the path cancels every body of a client, not only the latest one."""

    async def main() -> None:
        async with fake_cluster() as cluster, client(cluster) as cc, client(cluster) as admin:
            entered = 0

            async def body() -> None:
                nonlocal entered
                async with cc.semaphore("/s", 3):
                    entered += 1
                    await asyncio.sleep(5)

            tasks = [asyncio.create_task(body()) for _ in range(3)]
            await until(lambda: entered == 3)
            await admin.delete("/s")
            async with asyncio.timeout(2):
                for task in tasks:
                    with pytest.raises(LockLost, match="the resource was deleted"):
                        await task
            assert not cc._access.held
            async with cc.semaphore("/s", 5):
                assert await admin.semaphore("/s").available() == 4

    run(main())
