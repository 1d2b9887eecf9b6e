"""The session against a fake cluster: exactly once, in order, whatever happens to connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

import pytest

from copycat._core.codec import Frame
from copycat._core.layout import Kind
from copycat.errors import (
    ConfigurationError,
    CopycatError,
    DeadlineError,
    ForkedError,
    NoLeaderError,
    NoQuorumError,
    OutcomeUnknownError,
    SerializationError,
    SessionExpiredError,
    UnavailableError,
    WrongLoopError,
)
from copycat.handles import connect
from copycat.session import FLUSH_AT
from copycat.types import Consistency, SessionState

from ..server.loops import free_port, local, run
from .fake_server import client, cluster_and_client, fake_cluster, until


def test_commands_of_one_turn_travel_together() -> None:
    """Commands that are started in one loop turn make a few runs, with results in order."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.get()
            before = cluster.kinds.count(Kind.COMMAND)
            results = await asyncio.gather(*(number.increment() for _ in range(500)))
            assert results == list(range(1, 501))
            runs = cluster.kinds.count(Kind.COMMAND) - before
            assert 1 <= runs <= 1 + -(-500 // FLUSH_AT)

    run(main())


def test_finds_the_leader_from_a_follower() -> None:
    """One address of a follower is enough to reach the leader."""

    async def main() -> None:
        async with fake_cluster() as cluster, client([cluster.members["n3"].address]) as cc:
            assert await cc.long("/n").increment() == 1
            assert cc.session.state is SessionState.CONNECTED

    run(main())


def test_unanswered_commands_survive_a_leader_kill_exactly_once() -> None:
    """Killing the leader in mid-flight, with its answers lost, repeats and loses nothing."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.increment(0)
            done: list[int] = []

            async def work() -> None:
                for _ in range(60):
                    done.append(await number.increment())

            workers = [asyncio.create_task(work()) for _ in range(8)]
            for victim, heir in (("n1", "n2"), ("n2", "n3")):
                await asyncio.sleep(0.005)
                cluster.mute = {Frame.RESULTS}
                await asyncio.sleep(0.005)
                cluster.members[victim].kill()
                cluster.mute = set()
                cluster.elect(heir)
            await asyncio.gather(*workers)
            assert sorted(done) == list(range(1, 481))
            assert await number.get() == 480

    run(main())


def test_new_leader_is_found_at_once() -> None:
    """After a kill the client waits with the others and acts on their announcement."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.increment()
            cluster.members["n1"].kill()
            cluster.elect(None)
            waiting = asyncio.create_task(number.increment())
            await asyncio.sleep(0.3)
            assert not waiting.done()
            loop = asyncio.get_running_loop()
            began = loop.time()
            cluster.elect("n3")
            assert await waiting == 2
            assert loop.time() - began < 0.05

    run(main())


def test_leader_change_without_a_broken_connection() -> None:
    """A leader that is only deposed redirects its clients; nothing breaks or repeats."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            for turn in range(1, 13):
                task = asyncio.create_task(number.increment())
                await asyncio.sleep(0)
                cluster.elect(f"n{turn % 3 + 1}")
                assert await task == turn

    run(main())


def test_reelected_leader_is_attached_to_again() -> None:
    """The same leader in a new term gets everything unanswered once more."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.increment()
            cluster.mute = {Frame.RESULTS}
            task = asyncio.create_task(number.increment())
            await asyncio.sleep(0.05)
            cluster.mute = set()
            cluster.elect("n1")
            assert await task == 2

    run(main())


def test_broken_connection_is_made_again() -> None:
    """A dropped connection is replaced and lost answers come from the cluster's cache."""

    async def main() -> None:
        async with cluster_and_client(1) as (cluster, cc):
            number = cc.long("/n")
            for turn in range(1, 11):
                cluster.mute = {Frame.RESULTS} if turn % 2 else set()
                task = asyncio.create_task(number.increment())
                await asyncio.sleep(0.003)
                cluster.mute = set()
                cluster.members["n1"].drop()
                assert await task == turn

    run(main())


def test_overload_is_retried_after_the_hint() -> None:
    """A refused run is sent again in order; the caller only sees the delay."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.increment()
            cluster.members["n1"].overload = 3
            tasks = []
            for _ in range(20):
                tasks.append(asyncio.create_task(number.increment()))
                await asyncio.sleep(0)
            assert [await task for task in tasks] == list(range(2, 22))

    run(main())


def test_more_commands_than_may_be_in_flight_wait_their_turn() -> None:
    """The limit of unanswered commands delays, and changes nothing else."""

    async def main() -> None:
        async with cluster_and_client(in_flight=10) as (_, cc):
            number = cc.long("/n")
            results = await asyncio.gather(*(number.increment() for _ in range(95)))
            assert sorted(results) == list(range(1, 96))

    run(main())


def test_cancelling_before_the_flush_leaves_no_hole() -> None:
    """A call that is cancelled before it is sent never gets a sequence number."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            number = cc.long("/n")
            await number.increment(0)
            tasks = [asyncio.create_task(number.increment()) for _ in range(10)]
            await asyncio.sleep(0)  # they are queued, not sent
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [r for r in results if isinstance(r, int)] == [1, 2, 3, 4, 5]
            assert await number.get() == 5

    run(main())


def test_cancelling_after_the_flush_keeps_the_session_healthy() -> None:
    """A call that is cancelled while it is under way is still applied once."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.increment(0)
            cluster.mute = {Frame.RESULTS}
            task = asyncio.create_task(number.increment())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            cluster.mute = set()
            cluster.members["n1"].drop()
            assert await number.increment() == 2

    run(main())


def test_expired_session_fails_the_doubtful_and_keeps_the_rest() -> None:
    """What was sent and not answered is unknown; what was not sent goes on under a new session."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.increment()
            first = cc.session.id
            cluster.mute = {Frame.RESULTS}
            sent = asyncio.create_task(number.increment())
            await asyncio.sleep(0.05)
            cluster.mute = set()
            cluster.elect(None)
            cluster.members["n1"].drop()
            await until(lambda: cc.session._link is None)
            cluster.expire_all()
            unsent = asyncio.create_task(number.increment())
            await asyncio.sleep(0)
            cluster.elect("n1")
            with pytest.raises(OutcomeUnknownError) as caught:
                await sent
            assert caught.value.applied == "unknown"
            assert await unsent == 3
            assert cc.session.id > first
            assert cc.session.state is SessionState.CONNECTED

    run(main())


def test_states_are_watched() -> None:
    """A watcher sees the session expire, come back, and be closed."""

    async def main() -> None:
        async with fake_cluster() as cluster:
            seen: list[SessionState] = []
            async with client(cluster) as cc:

                async def watch() -> None:
                    async for state in cc.session.watch():
                        seen.append(state)

                watcher = asyncio.create_task(watch())
                await asyncio.sleep(0)
                cluster.expire_all()
                await until(lambda: seen.count(SessionState.CONNECTED) == 2)
            await watcher
            state = SessionState
            assert seen == [
                state.CONNECTED, state.EXPIRED, state.CONNECTING, state.CONNECTED,
                state.EXPIRED, state.CLOSED,
            ] or seen == [
                state.CONNECTED, state.EXPIRED, state.CONNECTING, state.CONNECTED, state.CLOSED,
            ]  # fmt: skip

    run(main())


def test_silence_suspends_by_the_clients_own_clock() -> None:
    """Without answers the session is suspended before its timeout, and resumes with them (H41)."""

    async def main() -> None:
        async with cluster_and_client(session_timeout=0.5) as (cluster, cc):
            session = cc.session.id
            loop = asyncio.get_running_loop()
            cluster.deaf = True
            began = loop.time()
            await until(lambda: cc.session.state is SessionState.SUSPENDED)
            assert loop.time() - began < 0.5
            assert not cc.session.lifetime.reliable
            cluster.deaf = False
            await until(lambda: cc.session.state is SessionState.CONNECTED)
            assert cc.session.id >= session

    run(main())


def test_idle_session_is_kept_alive() -> None:
    """Keep-alives alone keep a session connected for many timeouts."""

    async def main() -> None:
        async with cluster_and_client(session_timeout=0.25) as (cluster, cc):
            session = cc.session.id
            await asyncio.sleep(1.2)
            assert cc.session.id == session
            assert cc.session.state is SessionState.CONNECTED
            assert cluster.kinds.count(Kind.KEEP_ALIVE) >= 8

    run(main())


def test_deadline_says_sent_or_not() -> None:
    """A command without an answer says to whom it was sent and that it may be applied."""

    async def main() -> None:
        async with cluster_and_client(in_flight=1) as (cluster, cc):
            number = cc.long("/n")
            await number.increment()
            cluster.mute = {Frame.RESULTS, Frame.ANSWERS}
            sent = asyncio.create_task(number.increment(timeout=0.1))
            await asyncio.sleep(0.02)
            waiting = asyncio.create_task(number.increment(timeout=0.05))
            with pytest.raises(DeadlineError, match=r"not sent within 0\.1 s") as late:
                await waiting
            assert late.value.applied == "no"
            with pytest.raises(DeadlineError, match="sent to n1, no answer") as caught:
                await sent
            assert caught.value.applied == "unknown"
            with pytest.raises(DeadlineError, match="Nothing was changed") as asked:
                await number.get(timeout=0.05)
            assert asked.value.applied == "no"
            cluster.mute = set()
            cluster.members["n1"].drop()
            assert await number.increment() == 3

    run(main())


def test_no_quorum_names_each_member_and_reason() -> None:
    """Without a majority the error counts, names and explains; and says what was applied."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.increment()
            cluster.elect(None)
            cluster.members["n1"].kill()
            cluster.members["n3"].kill()
            await until(lambda: cc.session._link is None)
            with pytest.raises(NoQuorumError) as caught:
                await number.increment(timeout=0.3)
            error = caught.value
            assert (error.alive, error.needed, error.applied) == (1, 2, "no")
            assert "1 of 3 members reachable, 2 needed" in str(error)
            assert "n1" in str(error)
            assert "connection refused" in str(error)
            assert "Not applied" in str(error)

    run(main())


def test_no_leader_is_another_error() -> None:
    """If members answer but none leads, it is no matter of a quorum."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            cluster.elect(None)
            await until(lambda: cc.session._link is None)
            with pytest.raises(NoLeaderError, match="3 of 3 members answer") as caught:
                await cc.long("/n").increment(timeout=0.2)
            assert caught.value.applied == "no"

    run(main())


def test_connecting_to_nobody_says_why() -> None:
    """Entering connect() without a member raises with the address and the reason."""

    async def main() -> None:
        port = free_port()
        with pytest.raises(NoQuorumError, match=f"127.0.0.1:{port} .connection refused"):
            async with client([local(port)], timeout=0.2):
                pass

    run(main())


def test_unknown_host_is_named() -> None:
    """A host that does not resolve appears in the error with that reason."""

    async def main() -> None:
        from copycat.types import Address

        with pytest.raises(NoQuorumError, match="does not resolve"):
            async with client([Address("no-such-host.invalid", 7400)], timeout=0.5):
                pass

    run(main())


@pytest.mark.parametrize("text", ["", "host", "host:0", "host:99999", ":7400", "host:http"])
def test_bad_addresses_are_refused(text: str) -> None:
    """An address that cannot be one is a configuration error, before anything is opened."""
    with pytest.raises(ConfigurationError):
        connect(text, network=None, clock=None, random=None)  # type: ignore[arg-type]


def test_queries_of_every_level_and_their_repetition() -> None:
    """Queries are answered at each level, and asked again after a lost connection."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.set(5)
            for level in Consistency:
                assert await number.get(consistency=level) == 5
            cluster.mute = {Frame.ANSWERS}
            task = asyncio.create_task(number.get())
            await asyncio.sleep(0.02)
            cluster.mute = set()
            cluster.members["n1"].kill()
            cluster.elect("n2")
            assert await task == 5

    run(main())


def test_weak_queries_need_no_leader() -> None:
    """SERIALIZABLE and SEQUENTIAL are answered by any member while there is no leader."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.set(5)
            cluster.elect(None)
            await until(lambda: cc.session._link is None)
            assert await number.get(consistency=Consistency.SERIALIZABLE) == 5
            assert await number.get(consistency=Consistency.SEQUENTIAL) == 5

    run(main())


def test_too_long_arguments_are_refused_at_the_call() -> None:
    """What no member would take is not sent."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            with pytest.raises(SerializationError, match="are allowed"):
                await cc.map("/m").put("k", b"x" * (1 << 21))
            await cc.map("/m").put("k", b"x" * (1 << 19))

    run(main())


def test_admin_requests_are_answered() -> None:
    """An administrator's request reaches a member and comes back, or fails with its words."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            assert await cc.session.admin("status", [1]) == {"name": "n1", "arguments": [1]}
            with pytest.raises(CopycatError, match="no admin request"):
                await cc.session.admin("dance", [])

    run(main())


def test_what_was_asked_of_a_member_that_is_gone_ends() -> None:
    """Without a leader any member is asked; when that one is lost, a request fails at once and a
    query goes to another."""

    async def main() -> None:
        async with cluster_and_client() as (cluster, cc):
            number = cc.long("/n")
            await number.increment(7)
            cluster.members["n1"].kill()
            cluster.elect(None)
            route = cc.session._route
            while len(route._links) < 2:
                await asyncio.sleep(0.01)
            cluster.mute = {Frame.ADMIN_REPLY, Frame.ANSWERS}
            request = cc.session.admin("status", [])
            query = asyncio.create_task(number.get(consistency=Consistency.SERIALIZABLE))
            await asyncio.sleep(0.05)
            assert not request.done() and not query.done()
            cluster.mute = set()
            assert route.any_link is not None
            cluster.members[route.any_link.name].kill()
            with pytest.raises(UnavailableError):
                async with asyncio.timeout(1):
                    await request
            async with asyncio.timeout(1):
                assert await query == 7

    run(main())


def test_closed_client_refuses() -> None:
    """After close everything says that the client is closed, and the session is over at once."""

    async def main() -> None:
        async with fake_cluster() as cluster:
            async with client(cluster) as cc:
                number = cc.long("/n")
                await number.increment()
            assert len(cluster.applier.sessions) == 0
            with pytest.raises(SessionExpiredError, match="closed"):
                await number.increment()

    run(main())


def test_another_loop_is_refused() -> None:
    """Use from another loop raises WrongLoopError and names the way out."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            number = cc.long("/n")
            await number.increment()
            caught: list[BaseException] = []

            def other() -> None:
                try:
                    asyncio.run(number.increment())
                except WrongLoopError as problem:
                    caught.append(problem)

            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            assert len(caught) == 1

    run(main())


def test_use_after_a_fork_is_refused() -> None:
    """In a child process the client raises ForkedError instead of writing to the socket."""

    async def main() -> None:
        async with cluster_and_client() as (_, cc):
            number = cc.long("/n")
            await number.increment()
            pid = os.fork()
            if pid == 0:
                try:
                    asyncio.run(number.increment())
                except ForkedError:
                    os._exit(0)
                except BaseException:
                    os._exit(2)
                os._exit(1)
            _, status = os.waitpid(pid, 0)  # noqa: ASYNC222  # it ends at once
            assert os.waitstatus_to_exitcode(status) == 0
            assert await number.increment() == 2

    run(main())


def test_a_registration_that_got_lost_is_sent_again() -> None:
    """Silence after a registration is not waited out for ever, and one session comes of it."""

    async def main() -> None:
        async with fake_cluster() as cluster:
            cluster.mute.add(Frame.REGISTERED)
            asyncio.get_running_loop().call_later(0.3, cluster.mute.clear)
            async with client(cluster, session_timeout=1.0) as cc:
                assert await cc.long("/n").increment() == 1
                assert len(list(cluster.applier.sessions)) == 1

    run(main())


def test_a_dead_connection_that_nobody_reports_is_given_up() -> None:
    """A leader that is alive behind a connection that carries nothing is dialled again."""

    async def main() -> None:
        async with cluster_and_client(session_timeout=0.5) as (cluster, cc):
            assert await cc.long("/n").increment() == 1
            for protocol in cluster.members["n1"]._connections.values():
                protocol.pause_reading()  # the kernel goes on taking what is sent
            with contextlib.suppress(OutcomeUnknownError):  # the session may end meanwhile
                await cc.long("/n").increment()
            assert await cc.long("/n").increment() in (2, 3)
            await until(lambda: cc.session.state is SessionState.CONNECTED)

    run(main())
