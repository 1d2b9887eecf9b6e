"""``copycat serve``: starts, stops, and says what is wrong in one line and one hint."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import copycat
from copycat.cli.common import DAMAGED, UNHEALTHY, USAGE
from copycat.demo.servers import Servers
from copycat.testing.ports import free_ports

from .conftest import Member, run_copycat

Serve = Callable[..., Member]


def refusal(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a serve that does not start; never a traceback."""
    done = run_copycat("serve", *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("Error: "), done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_line_when_ready_and_a_clean_stop(
    serve: Serve, tmp_path: Path, port: int, number: signal.Signals
) -> None:
    """The ready line has what one needs to know; a signal ends it with exit code 0."""
    data = tmp_path / "data"
    member = serve("--listen", f"127.0.0.1:{port}", "--data", str(data))
    member.wait_for("\n")
    (ready,) = member.said.splitlines()
    assert f"n1 is ready at 127.0.0.1:{port}: leader n1, term 1, data {data}" in ready
    assert f"pid {member.process.pid}" in ready
    assert member.stop(number) == 0
    assert member.said.endswith("n1 stopped\n")


def test_it_can_be_stopped_while_it_waits_for_others(serve: Serve, tmp_path: Path) -> None:
    """A member that waits for the founding says for whom, and obeys."""
    ports = free_ports(3)
    members = ",".join(f"n{i}=127.0.0.1:{port}" for i, port in enumerate(ports, start=1))
    member = serve("--name", "n1", "--members", members, "--data", str(tmp_path / "d"))
    member.wait_for("n2")
    assert "ready" not in member.said
    assert member.stop() == 0


def test_it_stops_when_standard_input_closes(serve: Serve, tmp_path: Path) -> None:
    """With --stop-on-eof a member does not outlive who started it."""
    member = serve("--data", str(tmp_path / "d"), "--stop-on-eof")
    member.wait_for("ready")
    assert member.process.stdin is not None
    member.process.stdin.close()
    assert member.process.wait(10) == 0


def test_a_config_file_and_the_command_line(serve: Serve, tmp_path: Path, port: int) -> None:
    """Settings come from a TOML file; what is said on the command line wins."""
    config = tmp_path / "copycat.toml"
    config.write_text(
        f'name = "red"\nlisten = "127.0.0.1:1"\nheartbeat = 0.05\ndata = "{tmp_path / "red"}"\n'
        'machines = ["copycat.demo.words:WordCount"]\n'
    )
    member = serve("--config", str(config), "--listen", f"127.0.0.1:{port}")
    member.wait_for("ready")
    assert f"red is ready at 127.0.0.1:{port}" in member.said


def test_machines_and_resources_of_the_users_own_module(
    serve: Serve, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member finds the machine in the module; a client of the same module has its resource."""
    (tmp_path / "depot.py").write_text(
        "import copycat\n"
        "class Stock(copycat.StateMachine):\n"
        "    def __init__(self) -> None: self.left: dict[str, int] = {}\n"
        "    @copycat.command\n"
        "    def put(self, item: str, count: int) -> int:\n"
        "        self.left[item] = self.left.get(item, 0) + count\n"
        "        return self.left[item]\n"
        "@copycat.stateful(Stock)\n"
        "class Depot(copycat.Resource[Stock]):\n"
        "    async def deliver(self, item: str) -> int: return await self.submit('put', item, 1)\n"
        "machines = [Stock]\n"
    )
    address = f"127.0.0.1:{port}"
    where = ("--app-dir", str(tmp_path), "--listen", address, "--data", str(tmp_path / "d"))
    monkeypatch.syspath_prepend(tmp_path)
    depot = importlib.import_module("depot")

    async def deliver() -> int:
        async with copycat.connect(address) as cc:
            return int(await cc.get("/depot", depot.Depot).deliver("tea"))

    for count, name in enumerate(("depot:Stock", "depot:machines"), 1):
        member = serve(name, *where)
        member.wait_for("ready")
        assert asyncio.run(deliver()) == count
        assert member.stop() == 0
    code, said = refusal("depot:Depot", *where)
    assert code == USAGE and "members need its machine, Stock" in said


def test_the_pure_mode_is_announced(serve: Serve, tmp_path: Path) -> None:
    """Nobody runs the slow mode without being told, once, with the way out."""
    member = serve("--data", str(tmp_path / "d"), COPYCAT_PURE="1")
    member.wait_for("ready")
    assert member.said.count("compiled core is missing") == 1
    assert "--no-binary copycat-raft copycat-raft" in member.said
    assert "pure Python, pid" in member.said


def test_a_port_in_use(cluster: Servers, tmp_path: Path) -> None:
    """The process that has the port is named."""
    address, pid = cluster.addresses["n1"], cluster.pids["n1"]
    code, said = refusal("--listen", str(address), "--data", str(tmp_path / "d"))
    assert code == USAGE
    assert f"cannot listen on {address}: in use by pid {pid}" in said
    assert "hint: stop that process, or choose another port" in said


def test_a_second_process_on_one_data_directory(cluster: Servers, port: int) -> None:
    """The process that has the directory is named; it goes on undisturbed."""
    data = cluster.data("n1")
    code, said = refusal("--listen", f"127.0.0.1:{port}", "--data", str(data))
    assert code == UNHEALTHY
    assert f"{data} is used by pid {cluster.pids['n1']}" in said
    assert run_copycat("put", "/still", "k", "1", "--cluster", cluster.url).returncode == 0


def test_a_data_directory_of_another_cluster(serve: Serve, tmp_path: Path) -> None:
    """A directory is not taken over by a cluster with other members, and is left as it was."""
    data = tmp_path / "d"
    member = serve("--data", str(data))
    member.wait_for("ready")
    assert member.stop() == 0
    before = (data / "identity").read_bytes()
    members = ",".join(
        f"n{number}=127.0.0.1:{port}" for number, port in enumerate(free_ports(3), start=1)
    )
    code, said = refusal("--name", "n1", "--members", members, "--data", str(data))
    assert code == UNHEALTHY
    assert "belongs to cluster" in said
    assert "nothing was changed" in said
    assert (data / "identity").read_bytes() == before
    code, said = refusal("--name", "other", "--data", str(data))
    assert code == UNHEALTHY
    assert "of member 'n1', not of 'other'" in said


def test_a_corrupt_segment(serve: Serve, tmp_path: Path, port: int) -> None:
    """Damage before the end of the log is not taken for a torn tail: file and offset are named."""
    data = tmp_path / "d"
    arguments = ("--listen", f"127.0.0.1:{port}", "--data", str(data))
    member = serve(*arguments)
    member.wait_for("ready")
    for number in range(3):
        put = run_copycat("put", "/a", f"k{number}", "1", "--cluster", f"127.0.0.1:{port}")
        assert put.returncode == 0, put.stderr
    assert member.stop() == 0
    segment = min(path for path in (data / "log").iterdir() if path.stat().st_size)
    with segment.open("r+b") as file:
        content = file.read()
        at = content.index(b"copycat put")  # inside the first registration
        file.seek(at)
        file.write(b"C")
    code, said = refusal(*arguments)
    assert code == DAMAGED
    assert segment.name in said
    assert "offset" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--name", "n1"], "data is missing"),
        (["--listen", "127.0.0.1:99999", "--data", "d"], "99999"),
        (["--members", "n1=nowhere", "--data", "d"], "members['n1']"),
        (["--name", "n9", "--members", "n1=h:1,n2=h:2,n3=h:3", "--data", "d"], "'n9'"),
        (["--fsync", "sometimes", "--data", "d"], "'always'"),
        (["--config", "/no/such/file.toml"], "cannot read /no/such/file.toml"),
        (["no_such_module:Bank", "--data", "d"], "no module 'no_such_module'"),
        (["copycat.demo.words:Bank", "--data", "d"], "has no class 'Bank'"),
        (["copycat.demo.words", "--data", "d"], "write module:attribute"),
        (["copycat.demo.judge:Check", "--data", "d"], "no StateMachine"),
    ],
)
def test_settings_that_cannot_be(arguments: list[str], expected: str) -> None:
    """Each mistake is a usage error that names what is wrong; nothing is created."""
    code, said = refusal(*arguments)
    assert code == USAGE
    assert expected in said
    assert not os.path.exists("d")


def test_an_unusable_data_directory(tmp_path: Path, port: int) -> None:
    """A file in the place of the directory is named."""
    (tmp_path / "file").write_text("")
    for data in (tmp_path / "file", tmp_path / "file" / "below"):
        code, said = refusal("--listen", f"127.0.0.1:{port}", "--data", str(data))
        assert code == USAGE
        assert f"{tmp_path / 'file'} is a file" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_an_unreadable_data_directory(tmp_path: Path, port: int) -> None:
    """A directory without permission is named."""
    data = tmp_path / "d"
    data.mkdir(mode=0)
    code, said = refusal("--listen", f"127.0.0.1:{port}", "--data", str(data))
    assert code in (USAGE, UNHEALTHY)
    assert f"{data}" in said
    assert "permission denied" in said.lower()


def test_an_unresolvable_listen_address(tmp_path: Path) -> None:
    """A host that does not resolve is said to be one."""
    code, said = refusal("--listen", "no-such-host.invalid:7400", "--data", str(tmp_path / "d"))
    assert code == USAGE
    assert "the host 'no-such-host.invalid' does not resolve" in said
