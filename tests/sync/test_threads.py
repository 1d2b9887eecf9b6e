"""Many threads use one blocking client of a real cluster; what they hold, lose and interrupt."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import copycat
from copycat import sync

THREADS = 16


class Bank(copycat.StateMachine):
    """A user's machine."""

    moved = copycat.event(list[object])

    def __init__(self) -> None:
        self.balance: dict[str, int] = {}

    @copycat.command
    def deposit(self, who: str, amount: int = 1) -> int:
        """Add."""
        if amount <= 0:
            raise copycat.Rejected("deposits are positive")
        self.balance[who] = self.balance.get(who, 0) + amount
        self.moved.publish([who, amount])
        return self.balance[who]

    @copycat.query
    def of(self, who: str) -> int:
        """Look."""
        return self.balance.get(who, 0)


class CalmBank(sync.Blocking, Bank):
    """The same for type checkers."""


class Accounts(sync.Resource[Bank]):
    """A client half of one's own."""

    machine = Bank

    def pay(self, who: str) -> int:
        """Deposit one."""
        return int(self.submit("deposit", who, 1))


@pytest.fixture(scope="module")
def cluster() -> Iterator[sync.LocalCluster]:
    """One for all tests here."""
    pace = {"election_timeout": 0.3, "heartbeat": 0.05, "session_timeout": 2.0}
    with sync.local_cluster(3, machines=[Bank], **pace) as cluster:
        yield cluster


@pytest.fixture
def cc(cluster: sync.LocalCluster) -> Iterator[sync.CopycatClient]:
    """A client, with a thread of its own, that does not outlive the test."""
    before = threading.active_count()
    with cluster.connect(session_timeout=2.0) as cc:
        assert threading.active_count() == before + 1
        yield cc
    assert threading.active_count() == before


def test_threads_count_exactly_once(cluster: sync.LocalCluster, cc: sync.CopycatClient) -> None:
    """Sixteen threads over one handle, the leader killed amid them: each increment counts once."""
    counter = cc.long("/count")
    halfway = threading.Barrier(THREADS + 1)

    def count(_: int) -> list[int]:
        seen = [counter.increment(timeout=20) for _ in range(50)]
        halfway.wait(30)
        return seen + [counter.increment(timeout=20) for _ in range(50)]

    with ThreadPoolExecutor(THREADS) as pool:
        results = [pool.submit(count, number) for number in range(THREADS)]
        halfway.wait(30)
        victim = cluster.leader
        cluster.kill(victim)
        found = [number for each in results for number in each.result(60)]
    cluster.restart(str(victim))
    assert sorted(found) == list(range(1, THREADS * 100 + 1))
    assert counter.get() == THREADS * 100


def test_a_lock_is_the_threads(cc: sync.CopycatClient) -> None:
    """Threads exclude one another over one shared handle; tokens rise; asking twice is an error."""
    lock, inside, tokens = cc.lock("/lock"), [], []

    def work(_: int) -> None:
        for _ in range(5):
            with lock as held:
                inside.append(threading.get_ident())
                assert inside == [threading.get_ident()]
                tokens.append(held.token)
                held.check()
                inside.clear()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(tokens) == 40
    assert tokens == sorted(set(tokens))
    with lock:
        with pytest.raises(copycat.MisuseError, match="this thread|this task"):
            cc.lock("/lock").acquire()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lock.try_acquire).result(10) is None
    held = lock.acquire(timeout=5)
    lock.release()
    assert held.released
    with pytest.raises(copycat.MisuseError, match="not held"):
        lock.release()


def test_scopes_nest(cc: sync.CopycatClient) -> None:
    """Each end of a ``with`` gives back its own share, whatever the body did with it."""
    permits = cc.semaphore("/permits", 3)
    with permits as outer:
        with permits as inner:
            assert permits.available() == 1
        assert inner.released
        assert not outer.released
        with permits as early:
            permits.release(early)
        assert not outer.released
    assert permits.available() == 3
    with cc.rwlock("/rw").reader as reading, pytest.raises(copycat.MisuseError):
        assert reading.token
        cc.rwlock("/rw").writer.acquire()


def test_a_loss_is_told(cc: sync.CopycatClient) -> None:
    """A lost lock sets ``lost``, fails ``check()`` and the end of the ``with``; errors win."""
    with pytest.raises(copycat.LockLost) as caught, cc.lock("/gone") as held:
        assert not held.lost.wait(0.01)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(held.lost.wait, 10)
            assert cc.delete("/gone")
            assert waiting.result(10)
        assert held.lost.is_set()
        assert held.remaining() == 0
        with pytest.raises(copycat.LockLost):
            held.check()
    assert caught.value.token == held.token
    with pytest.raises(KeyError) as own, cc.lock("/gone2") as held:
        cc.delete("/gone2")
        assert held.lost.wait(10)
        raise KeyError("mine")
    assert "was lost" in own.value.__notes__[0]
    with cc.lock("/gone") as again:  # and the handle's path can be used anew
        assert again.token > held.token


def test_leading_is_repeated_after_a_loss(cc: sync.CopycatClient) -> None:
    """`run` campaigns again when leadership was lost, and returns what its function returns."""
    election, terms = cc.election("/boss"), []

    def lead(term: sync.Held) -> str:
        terms.append(term.token)
        if len(terms) == 1:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(election.resign).result(10)
            assert term.lost.is_set()
            term.check()
        return "led"

    assert election.run(lead) == "led"
    assert len(terms) == 2
    assert terms[1] > terms[0]
    assert election.leader() is None
    with election as term:
        assert election.is_leader(term.token)
        election.resign()
        assert election.leader() is None


def test_an_interrupted_wait_leaves_nothing(cc: sync.CopycatClient) -> None:
    """Ctrl-C in `acquire`, `get` and a watch ends the call; nobody waits in line afterwards."""
    main = threading.main_thread().ident or 0
    lock, queue, watched = cc.lock("/busy"), cc.queue("/empty"), cc.map("/watched")
    with ThreadPoolExecutor(1) as holder:
        held = holder.submit(lock.acquire).result(10)
        for call in (lock.acquire, queue.get, lambda: next(watched.watch())):
            alarm = threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT])
            began = time.monotonic()
            alarm.start()
            with pytest.raises(KeyboardInterrupt):
                call()
            assert time.monotonic() - began < 5
        assert lock.waiters() == []
        assert queue.waiters() == []
        holder.submit(lock.release, held).result(10)
    assert lock.try_acquire(timeout=5) is not None
    queue.put("kept")
    assert queue.get(timeout=5) == "kept"


def test_what_came_too_late_is_given_back(cc: sync.CopycatClient) -> None:
    """A lock granted to a caller who was interrupted at that moment is free again."""
    lock = cc.lock("/late")
    portal = cc._portal

    class Interrupted:
        """Stands for the caller's waiting: the result is there, then comes the signal."""

        def __init__(self, inner: threading.Lock) -> None:
            self.inner, self.first = inner, True

        def acquire(self, timeout: float = -1) -> bool:
            """Wait, then be interrupted."""
            if self.first:
                self.first = False
                self.inner.acquire(timeout=10)
                self.inner.release()
                raise KeyboardInterrupt
            return self.inner.acquire(timeout=timeout)

        def locked(self) -> bool:
            """As the inner one."""
            return self.inner.locked()

        def release(self) -> None:
            """As the inner one."""
            self.inner.release()

    post = portal._post

    def posted(call: object, *, wake: bool = False) -> None:
        owner = getattr(call, "__self__", None)
        if getattr(call, "__name__", "") == "begin":
            owner.finished = Interrupted(owner.finished)  # type: ignore[union-attr]
        post(call, wake=wake)  # type: ignore[arg-type]

    portal._post = posted  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            lock.acquire(timeout=5)
    finally:
        portal._post = post  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lock.acquire, timeout=5).result(10).token


def test_time_limits_apply(cc: sync.CopycatClient) -> None:
    """A timeout ends a wait in time, with the same error as in asynchronous code."""
    began = time.monotonic()
    with pytest.raises(copycat.DeadlineError, match="within 0.2 s"):
        cc.queue("/none").get(timeout=0.2)
    assert 0.15 < time.monotonic() - began < 3


def test_iterators_are_plain(cc: sync.CopycatClient) -> None:
    """All entries in order, in batches; a watch sees each change once and ends when left."""
    numbers = cc.map("/numbers")
    numbers.update({number: str(number) for number in range(2000)})
    assert list(numbers.items()) == [(number, str(number)) for number in range(2000)]
    assert list(itertools.islice(numbers.keys(), 3)) == [0, 1, 2]
    seen: list[object] = []
    listening = threading.Event()

    def watch() -> None:
        states = cc.session.watch()
        assert next(states) is copycat.SessionState.CONNECTED
        listening.set()
        for change in numbers.watch(prefix="x"):
            if change.value is not None:
                seen.append(change.value)
            if len(seen) == 1000:
                return

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        assert listening.wait(10)
        numbers.put("x", None)
        while not watching.done() and not seen:
            numbers.put("x", 0)
        for value in range(1, 2000):
            if watching.done():
                break
            numbers.put("x", value)
        watching.result(10)
    fresh = [value for value in seen if value]
    assert fresh == list(range(1, len(fresh) + 1))


def test_users_machines_are_called(cc: sync.CopycatClient) -> None:
    """Operations, defaults, refusals and events of a user's class; a client half of one's own."""
    bank = cc.machine("/bank", Bank)
    calm = cc.machine("/bank", CalmBank)
    assert bank.deposit("ann", 5) == 5
    assert calm.deposit("ann") == 6
    assert bank.call(Bank.of, "ann") == calm.of(who="ann") == 6
    assert cc.get("/bank", Accounts).pay("ann") == 7
    assert cc.create("/bank", Accounts).path == "/bank"
    with pytest.raises(copycat.Rejected, match="positive"):
        bank.deposit("ann", -1)
    with pytest.raises(AttributeError, match="it has: deposit, of"):
        bank.steal("ann")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: next(iter(calm.moved)))
        while not first.done():
            calm.deposit("bob", 2)
    assert first.result() == ["bob", 2]


def test_nodes_and_clusters_are_twins_too(
    cluster: sync.LocalCluster, cc: sync.CopycatClient
) -> None:
    """What is reached from a client is blocking all the way down."""
    node = cc.create("/a/b")
    assert isinstance(node, sync.Node)
    assert node == cc.node("/a").children()[0]
    assert node.parent is not None and node.parent.parent == cc.node("/")
    assert node.create(sync.Long).increment() == node.get(sync.Long).get() == 1
    assert cc.delete("/a") and not node.exists()
    assert {member.name for member in cc.cluster.members()} == set(cluster.names)
    assert set(cluster.members) == set(cluster.names)


def test_a_queue_lends(cc: sync.CopycatClient) -> None:
    """``with queue.take()`` acknowledges at the end, and returns the item if the body raises."""
    jobs = cc.queue("/jobs")
    jobs.put("paint")
    with pytest.raises(ZeroDivisionError), jobs.take():
        raise ZeroDivisionError
    with jobs.take() as job:
        assert (job.value, job.deliveries) == ("paint", 2)
        assert jobs.size() == 0
    assert jobs.size() == 0
    assert jobs.holders() == []


def test_an_event_loop_is_not_blocked(cc: sync.CopycatClient) -> None:
    """Inside a coroutine a blocking call is refused, with a hint, and costs no warning."""

    async def wrong() -> None:
        with pytest.raises(copycat.MisuseError, match="would stop the event loop") as caught:
            cc.map("/m").get("k")
        assert "await" in caught.value.hint
        with pytest.raises(copycat.MisuseError), sync.local_cluster(1):
            pass
        assert await asyncio.to_thread(cc.long("/beside").increment) == 1

    asyncio.run(wrong())


def test_what_was_closed_says_so(cluster: sync.LocalCluster) -> None:
    """After the ``with`` calls fail at once; those that waited in other threads fail then."""
    opening = cluster.connect()
    with pytest.raises(AttributeError, match="use  with copycat.sync.connect"):
        opening.map("/m")  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as pool:
        with opening as cc:
            queue = cc.queue("/never").open()
            waiting = pool.submit(queue.get)
            while not queue.waiters():
                pass
        with pytest.raises(copycat.CopycatError):
            waiting.result(10)
    with pytest.raises(copycat.SessionExpiredError, match="closed"):
        queue.put("x")
    with pytest.raises(copycat.ConfigurationError):
        sync.connect("nonsense:port")
    with pytest.raises(copycat.UnavailableError), sync.connect("127.0.0.1:9", timeout=0.3):
        pass
