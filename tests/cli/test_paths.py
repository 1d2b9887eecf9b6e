"""``ls``, ``rm`` and ``watch`` against a real cluster."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import copycat
from copycat.cli.common import CONFLICT, INTERRUPTED, UNREACHABLE, USAGE
from copycat.demo.servers import Servers

from .conftest import run_copycat


def put(cluster: Servers, path: str, value: object) -> None:
    """Set ``k`` in a map, without a process of its own."""

    async def do() -> None:
        async with copycat.connect(cluster.url) as cc:
            await cc.map(path).put("k", value)

    asyncio.run(do())


def rm(cluster: Servers, path: str) -> None:
    """Delete a path, without a process of its own."""

    async def do() -> None:
        async with copycat.connect(cluster.url) as cc:
            assert await cc.delete(path)

    asyncio.run(do())


def test_ls_lists_what_lives_beneath_a_path(cluster: Servers) -> None:
    """Types, modes and numbers of children, as columns and as JSON; a missing path is exit
    code 1."""
    put(cluster, "/shop/prices", 3)
    put(cluster, "/shop/stock/eu", 3)
    plain = run_copycat("ls", "shop/", "--cluster", cluster.url)
    assert plain.returncode == 0, plain.stderr
    rows = [line.split("\t") for line in plain.stdout.splitlines()]
    assert [row[:4] for row in rows] == [
        ["path", "type", "mode", "children"],
        ["/shop/prices", "copycat.map", "persistent", "0"],
        ["/shop/stock", "-", "persistent", "1"],
    ]
    shown = json.loads(run_copycat("ls", "/shop", "--json", "--cluster", cluster.url).stdout)
    assert shown["path"] == "/shop" and shown["exists"] and shown["node"]["children"] == 2
    prices, stock = shown["children"]
    assert prices["type"] == "copycat.map" and prices["resource"] >= prices["version"] > 0
    assert stock == {
        "path": "/shop/stock", "type": None, "resource": None, "mode": "persistent", "owner": None,
        "version": stock["version"], "children": 1,
    }  # fmt: skip
    root = json.loads(run_copycat("ls", "--json", "--cluster", cluster.url).stdout)
    assert root["path"] == "/" and "/shop" in [each["path"] for each in root["children"]]
    missing = run_copycat("ls", "/nowhere", "--cluster", cluster.url)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "Error: there is no /nowhere" in missing.stderr
    missing = run_copycat("ls", "/nowhere", "--json", "--cluster", cluster.url)
    assert missing.returncode == 1 and json.loads(missing.stdout)["exists"] is False


def test_rm_says_what_goes_and_wants_to_be_sure(cluster: Servers) -> None:
    """Without a terminal it needs --yes; what is not there is exit code 1."""
    put(cluster, "/old/a", 1)
    refused = run_copycat("rm", "/old", "--cluster", cluster.url)
    assert refused.returncode == USAGE and "hint: say --yes" in refused.stderr
    done = run_copycat("rm", "/old/", "--yes", "--json", "--cluster", cluster.url)
    assert done.returncode == 0, done.stderr
    assert "/old holds no resource, and 1 beneath it" in done.stderr
    shown = json.loads(done.stdout)
    assert (shown["path"], shown["deleted"], shown["node"]["children"]) == ("/old", True, 1)
    again = run_copycat("rm", "/old", "-y", "--cluster", cluster.url)
    assert again.returncode == 1 and "there is no /old" in again.stderr
    again = run_copycat("rm", "/old", "-y", "--json", "--cluster", cluster.url)
    assert again.returncode == 1 and json.loads(again.stdout)["deleted"] is False


@pytest.mark.parametrize("answer", ["n", "anew", "y"])
def test_rm_asks_on_a_terminal(cluster: Servers, answer: str) -> None:
    """No means no; and what came in place of what was shown is not deleted by a yes."""
    put(cluster, "/asked", 1)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "copycat", "rm", "/asked", "--cluster", cluster.url],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = b""
        while b"Delete all of it?" not in said:
            said += os.read(process.stderr.fileno(), 1000)
        if answer == "anew":
            rm(cluster, "/asked")
            put(cluster, "/asked", 2)
        os.write(ours, b"n\n" if answer == "n" else b"y\n")
        code = process.wait(10)
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
        os.close(theirs)
    assert code == {"n": INTERRUPTED, "anew": CONFLICT, "y": 0}[answer]
    there = run_copycat("ls", "/asked", "--cluster", cluster.url).returncode == 0
    assert there == (answer != "y")


@contextmanager
def watching(cluster: Servers, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A ``copycat watch`` that has begun."""
    process = subprocess.Popen(
        [sys.executable, "-m", "copycat", "watch", *arguments, "--cluster", cluster.url],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("watching /")
        yield process
    finally:
        process.kill()
        process.communicate()


def test_watch_prints_what_becomes_of_a_path(cluster: Servers) -> None:
    """Of one that is created later as well, as lines or as JSON, and so many of them."""
    with (
        watching(cluster, "/seen", "--count", "4", "--json") as machine,
        watching(cluster, "/seen") as human,
    ):
        put(cluster, "/seen/m", 1)
        rm(cluster, "/seen")
        out, _ = machine.communicate(timeout=20)
        assert machine.returncode == 0
        events = [json.loads(line) for line in out.splitlines()]
        expected = [
            ("created", "/seen"), ("created", "/seen/m"), ("opened", "/seen/m"),
            ("deleted", "/seen/m"),
        ]  # fmt: skip
        assert [(event["type"], event["path"]) for event in events] == expected
        assert human.stdout is not None
        lines = [human.stdout.readline().rstrip("\n").split("\t") for _ in range(5)]
        assert [(type_, path) for _, type_, path in lines] == [*expected, ("deleted", "/seen")]
        human.send_signal(signal.SIGINT)
        assert human.wait(10) == INTERRUPTED


def test_watch_prints_what_becomes_of_a_map(cluster: Servers) -> None:
    """Keys and values, until the map is deleted, which is told as well."""
    put(cluster, "/live", 0)
    with watching(cluster, "/live", "--jsonl") as process:
        out = process.stdout
        assert out is not None
        number = 0
        while not select.select([out], [], [], 0.05)[0]:
            number += 1
            put(cluster, "/live", [number])
        first = json.loads(out.readline())
        assert first == {
            "index": first["index"], "type": "put", "path": "/live", "key": "k",
            "value": first["value"],
        }  # fmt: skip
        seen = first["value"][0]
        rm(cluster, "/live")
        for value in range(seen + 1, number + 1):
            assert json.loads(out.readline())["value"] == [value]
        assert json.loads(out.readline())["type"] == "deleted"


def test_nobody_answers_and_no_path(port: int) -> None:
    """Unreachable members and impossible paths have their exit codes, and no traceback."""
    for command in (("ls",), ("rm", "/a", "--yes"), ("watch", "/a")):
        done = run_copycat(*command, "--cluster", f"127.0.0.1:{port}", "--timeout", "0.5")
        assert done.returncode == UNREACHABLE and "connection refused" in done.stderr
        assert "Traceback" not in done.stderr


def test_impossible_paths(cluster: Servers) -> None:
    """A path that cannot be one is a usage error that says why."""
    for command in (("ls", "/a/../b"), ("rm", "/a/../b", "--yes"), ("watch", "/a/../b")):
        done = run_copycat(*command, "--cluster", cluster.url)
        assert done.returncode == USAGE and "contains '..'" in done.stderr, done.stderr
