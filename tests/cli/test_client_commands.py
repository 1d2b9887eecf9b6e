"""``status``, ``get`` and ``put`` against a real cluster, and against none."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from copycat.cli.common import (
    COMMANDS,
    CONFLICT,
    DAMAGED,
    LOST,
    NO_LEADER,
    UNREACHABLE,
    exit_code,
    for_shell,
)
from copycat.cli.data import typed
from copycat.cli.status import differences_of
from copycat.demo.servers import Servers
from copycat.errors import (
    ConfigurationError,
    ConflictError,
    CopycatError,
    CorruptLogError,
    DeadlineError,
    LockLost,
    NoLeaderError,
    NoQuorumError,
)
from copycat.testing.ports import free_ports

from .conftest import Member, run_copycat


def test_help_names_every_command_without_importing_it() -> None:
    """The list of commands is there at once; what they need is loaded when they run."""
    code = (
        "import sys; from copycat.cli import main; code = main(['--help']);"
        "late = {'rich', 'copycat.demo', 'copycat.cli.serve', 'copycat.cli.status'};"
        "sys.exit(code or len(late & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_every_command_explains_itself() -> None:
    """``copycat COMMAND --help`` works for each, and an unknown command is a usage error."""
    for name in COMMANDS:
        assert "Usage: copycat" in run_copycat(name, "--help").stdout
    unknown = run_copycat("stauts")
    assert unknown.returncode == 2
    assert "No such command" in unknown.stderr


def test_a_missing_extra_is_named_with_its_install_line(tmp_path: Path) -> None:
    """Without click the command says what to install, and prints no traceback."""
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(name='click')")
    done = run_copycat("--help", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        'the copycat command needs click: pip install "copycat-raft[standard]"\n'
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), 2),
        (NoQuorumError("x", alive=0, needed=2), UNREACHABLE),
        (NoQuorumError("x", alive=1, needed=2), NO_LEADER),
        (NoLeaderError("x"), NO_LEADER),
        (DeadlineError("x"), NO_LEADER),
        (ConflictError("x"), CONFLICT),
        (CorruptLogError("x"), DAMAGED),
        (LockLost("x"), LOST),
        (CopycatError("x"), 1),
    ],
)
def test_scripts_can_tell_errors_apart(error: CopycatError, code: int) -> None:
    """Each kind of error has the exit code that the help promises."""
    assert exit_code(error) == code


def test_what_was_put_is_got(cluster: Servers) -> None:
    """A value goes in and out as JSON; the value before is told; COPYCAT_URL works as well."""
    put = run_copycat("put", "/config", "eu", '{"rps": 10}', "--cluster", cluster.url)
    assert (put.returncode, put.stdout) == (0, "null\n"), put.stderr
    again = run_copycat("put", "/config", "eu", "7", "--json", "--cluster", cluster.url)
    assert json.loads(again.stdout) == {
        "path": "/config", "key": "eu", "value": 7, "previous": {"rps": 10}
    }  # fmt: skip
    got = run_copycat("get", "/config", "eu", COPYCAT_URL=f"copycat://{cluster.url}")
    assert (got.returncode, got.stdout) == (0, "7\n")


def test_one_address_is_enough(cluster: Servers) -> None:
    """Any member leads the way to the leader."""
    for address in cluster.addresses.values():
        done = run_copycat("put", "/one", "k", "1", "--cluster", str(address))
        assert done.returncode == 0, done.stderr


def test_an_absent_key_is_exit_code_one(cluster: Servers) -> None:
    """Asking for what is not there is a negative answer, and creates nothing."""
    for path in ("/config", "/never/made"):
        done = run_copycat("get", path, "nobody", "--cluster", cluster.url)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"Error: there is no 'nobody' in the map {path}" in done.stderr
        shown = run_copycat("get", path, "nobody", "--json", "--cluster", cluster.url)
        assert shown.returncode == 1
        assert json.loads(shown.stdout)["found"] is False


def test_types_that_json_lacks_are_named() -> None:
    """With --json what differs looks different."""
    values = [
        {1: "a"}, {"1": "a"}, {"$map": []}, [1], (1,), {1}, b"a", "61", 1, "1", 1.0, True, None,
        Decimal("1"), datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1),
    ]  # fmt: skip
    assert len({json.dumps(typed(value)) for value in values}) == len(values)
    assert typed({"a": [b"\xff", (1, "x")]}) == {"a": [{"$bytes": "ff"}, {"$tuple": [1, "x"]}]}
    assert typed({1: "one"}) == {"$map": [[1, "one"]]}


def test_hints_are_for_a_shell(tmp_path: Path) -> None:
    """What to do about an error is told in options, not in Python."""
    for arguments, hint in (
        (("--name", "n4", "--join", "h:1", "--data", str(tmp_path)), "add --listen HOST:PORT"),
        (("--join", "h:1", "--data", str(tmp_path), "--listen", "h:2"), "copycat serve --name n4"),
        (("--name", "n4"), "add --data ./data"),
    ):
        done = run_copycat("serve", *arguments)
        assert done.returncode == 2 and f"hint: {hint}" in done.stderr, done.stderr
    wiped = "open it with join=[...] instead of members"
    assert for_shell(wiped) == "serve it with --join HOST:PORT instead of --members"


def test_status_of_who_waits_for_the_others(serve: Callable[..., Member], tmp_path: Path) -> None:
    """A member that is up and belongs to no cluster yet is not called unreachable."""
    first, second = (f"127.0.0.1:{port}" for port in free_ports(2))
    waiting = serve("--data", str(tmp_path / "1"), "--members", f"n1={first},n2={second}")
    waiting.wait_for("waits for n2")
    done = run_copycat("status", "--cluster", first)
    assert done.returncode == UNREACHABLE
    assert f"{first}\tno service\t" in done.stdout and "unreachable" not in done.stdout
    assert "no member serves yet" in done.stderr and "start the others" in done.stderr


def test_a_value_that_is_not_json_is_a_usage_error() -> None:
    """The error shows how the text has to be quoted; no cluster is asked."""
    done = run_copycat("put", "/config", "us", "hello")
    assert done.returncode == 2
    assert "VALUE is not JSON" in done.stderr
    assert "quote it twice: '\"hello\"'" in done.stderr


def test_status_tells_clusters_apart(
    cluster: Servers, serve: Callable[..., Member], tmp_path: Path
) -> None:
    """Addresses of two clusters are no cluster with two leaders."""
    (port,) = free_ports(1)
    other = f"127.0.0.1:{port}"
    alone = serve("--name", "alone", "--data", str(tmp_path / "alone"), "--listen", other)
    alone.wait_for("is ready")
    done = run_copycat("status", "--cluster", f"{cluster.url},{other}")
    assert done.returncode == CONFLICT
    assert "belong to different clusters" in done.stderr and other in done.stderr


def test_status_asks_every_member(cluster: Servers) -> None:
    """Three members, one of them the leader of the term that all of them are in."""
    first = str(next(iter(cluster.addresses.values())))
    done = run_copycat("status", "--json", "--cluster", first)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    members = {member["name"]: member for member in report["members"]}
    assert {name: m["address"] for name, m in members.items()} == {
        name: str(address) for name, address in cluster.addresses.items()
    }
    assert [n for n, m in members.items() if m["role"] == "leader"] == [report["leader"]]
    assert {member["term"] for member in members.values()} == {report["term"]}
    plain = run_copycat("status", "--cluster", first).stdout.splitlines()
    assert plain[0].split("\t")[:4] == ["member", "address", "role", "term"]
    assert [line.split("\t")[0] for line in plain[1:]] == ["n1", "n2", "n3"]


def test_nobody_answers(port: int) -> None:
    """The addresses that were tried and the reason of each are named; exit code 3."""
    for command in (("status",), ("get", "/a", "k"), ("put", "/a", "k", "1")):
        done = run_copycat(*command, "--cluster", f"127.0.0.1:{port}", "--timeout", "0.5")
        assert done.returncode == UNREACHABLE
        assert f"127.0.0.1:{port}" in done.stderr
        assert "connection refused" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_unknown_host() -> None:
    """A name that does not resolve is said to be one."""
    for command in (("status",), ("get", "/a", "k")):
        done = run_copycat(*command, "--cluster", "no-such-host.invalid:7400", "--timeout", "1")
        assert done.returncode == UNREACHABLE
        assert "'no-such-host.invalid'" in done.stderr
        assert "does not resolve" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_malformed_address() -> None:
    """A port out of range is a usage error that names it."""
    done = run_copycat("status", "--cluster", "localhost:99999")
    assert done.returncode == 2
    assert "99999" in done.stderr


def test_no_quorum_names_the_missing(tmp_path: Path) -> None:
    """One member of three alone: who is missing and why, and that nothing was applied."""

    async def story() -> None:
        async with Servers(tmp_path) as servers:
            await servers.kill("n2")
            await servers.stop("n3")
            put = await asyncio.to_thread(
                run_copycat, "put", "/a", "k", "1", "--cluster", servers.url, "--timeout", "1.5"
            )
            status = await asyncio.to_thread(
                run_copycat, "status", "--json", "--cluster", servers.url
            )
            await servers.start("n2")
            await servers.ready("n2")
            mended = await asyncio.to_thread(
                run_copycat, "put", "/a", "k", "2", "--cluster", servers.url
            )
        assert put.returncode == NO_LEADER
        assert "1 of 3 members reachable, 2 needed" in put.stderr
        assert "Not applied." in put.stderr
        for name in ("n2", "n3"):
            assert f"{name} ({servers.addresses[name]}: connection refused)" in put.stderr
        assert status.returncode == NO_LEADER
        report = json.loads(status.stdout)
        assert report["leader"] is None
        assert [member["reachable"] for member in report["members"]] == [True, False, False]
        assert (mended.returncode, mended.stdout) == (0, "null\n")

    asyncio.run(story())


def test_a_member_that_differs_has_a_note() -> None:
    """What a member found to be other than at its leader stands in its line, with the index."""
    found = [["the state of Bank at /bank", 88], ["what commands answered or published", 90]]
    assert differences_of({"differences": found}) == (
        "the state of Bank at /bank differs since index 88; "
        "what commands answered or published differs since index 90"
    )
    assert differences_of({"role": "founding"}) == ""
