"""Forked children, and interpreters that exit while a blocking client is open."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(program: str, *, timeout: float = 60) -> tuple[str, float]:
    """What a program prints, and how long it took after the line "leaving"; it must succeed."""
    code = "import copycat, os, sys, threading, time\n" + textwrap.dedent(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            said, complaints = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        ended = time.time()
    assert process.returncode == 0, said + complaints
    assert "Traceback" not in complaints, complaints
    assert "Exception ignored" not in complaints, complaints
    left = [float(line.split()[1]) for line in said.splitlines() if line.startswith("leaving")]
    return said, ended - (left[0] if left else ended)


def test_a_child_is_refused_and_its_parent_unharmed() -> None:
    """After a fork every use fails at once with a hint; the child's end touches nothing."""
    said, _ = run("""
        with copycat.sync.local_cluster(1) as cluster:
            cc = cluster.client
            m, lock = cc.map("/m"), cc.lock("/l")
            m.put("k", 1)
            states = cc.session.watch()
            next(states)
            with lock as held:
                for way in ("exit", "leave", "os._exit"):
                    child = os.fork()
                    if child:
                        _, status = os.waitpid(child, 0)
                        assert os.waitstatus_to_exitcode(status) == 0, status
                        assert m.put("k", m.get("k") + 1) in (1, 2, 3)
                        held.check()
                        continue
                    uses = (lambda: m.get("k"), lambda: cc.long("/n"), held.check, cc.close,
                            lambda: next(m.watch()), lambda: next(states),
                            lambda: cc.session.state, lock.acquire,
                            lambda: held.lost.is_set(), lambda: cluster.kill("n1"))
                    began = time.monotonic()
                    for use in uses:
                        try:
                            use()
                        except copycat.ForkedError as problem:
                            assert "worker" in problem.hint
                        else:
                            os._exit(3)
                    assert time.monotonic() - began < 1
                    if way == "os._exit":
                        os._exit(0)
                    if way == "exit":
                        sys.exit()      # out of both scopes, through the interpreter's end
                    break               # out of both scopes, to the end of the program
            if child:
                assert lock.locked() is False
                print("parent", m.get("k"))
    """)
    assert said.split() == ["parent", "4"]


def test_a_child_opens_its_own() -> None:
    """What is forbidden is the parent's client; a new one works in the child."""
    said, _ = run("""
        with copycat.sync.local_cluster(1) as cluster:
            address = str(cluster.addresses["n1"])
            child = os.fork()
            if not child:
                with copycat.sync.connect(address) as cc:
                    cc.map("/m").put("child", 7)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print(cluster.client.map("/m").get("child"))
    """)
    assert said.split() == ["7"]


@pytest.mark.parametrize("opened", ["cluster", "client", "disk"])
def test_exit_without_close(opened: str, tmp_path: Path) -> None:
    """A program that never leaves its ``with`` ends by itself, soon and with code 0.

    Also with a daemon thread in the middle of a wait, a lock that is held and a live iterator.
    """
    ways = {
        "cluster": "opening = copycat.sync.local_cluster(3); cc = opening.__enter__().client",
        "client": "cluster = copycat.sync.local_cluster(1); inside = cluster.__enter__()\n"
        "opening = inside.connect(); cc = opening.__enter__()",
        "disk": f"opening = copycat.sync.open(data={str(tmp_path)!r}); cc = opening.__enter__()",
    }
    said, seconds = run(f"""
{textwrap.indent(ways[opened], "        ")}
        cc.map("/m").put("k", 1)
        held = cc.lock("/l").acquire()
        threading.Thread(target=cc.queue("/q").open().get, daemon=True).start()
        states = cc.session.watch()
        next(states)
        while not cc.queue("/q").waiters():
            pass
        threading.excepthook = lambda args: None      # the daemon's call ends with an error
        print("leaving", time.time())
    """)
    assert said.startswith("leaving")
    assert seconds < 8


def test_worker_threads_finish_before_the_end() -> None:
    """The exit waits for threads that are no daemons, and they may use the client until then."""
    said, _ = run("""
        cluster = copycat.sync.local_cluster(1)
        cc = cluster.__enter__().client
        def work():
            threading.main_thread().join()
            print(cc.long("/n").increment())
        threading.Thread(target=work).start()
    """)
    assert said.split() == ["1"]
