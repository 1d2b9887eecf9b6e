"""The whole demo, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from copycat.testing.ports import free_ports

TEXT = "The quick brown fox jumps over the lazy dog, and the dog doesn't mind.\n" * 3


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A small text."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def demo(*arguments: str, timeout: float = 90.0) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [sys.executable, "-m", "copycat", "demo", *arguments],
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def started_by(pid: int) -> list[int]:
    """The processes that ``pid`` started and that are still alive."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_leader_is_killed_and_nothing_is_lost(text: Path, tmp_path: Path) -> None:
    """Every check holds, the figures are there, and the data are kept where they were asked for."""
    data = tmp_path / "data"
    done = demo("--kills", "1", "--json", "--input", str(text), "--data", str(data))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True and report["problems"] == []
    assert report["words"]["expected"] == report["words"]["found"] > 0
    assert report["words"]["different"] == 11
    assert report["increments"]["acknowledged"] == report["increments"]["counter"] > 0
    assert report["lock"]["overlaps"] == 0 and report["lock"]["turns"] > 1
    assert len(set(report["replicas"]["digests"].values())) == 1
    (kill,) = report["failover"]["kills"]
    assert kill["killed"] != kill["new_leader"] and kill["new_term"] > kill["term"]
    assert 0 < kill["without_acknowledgement_s"] < 5
    assert report["speed"]["writes_per_s"] > 0
    assert "killed the leader" in done.stderr
    assert sorted(path.name for path in data.iterdir() if path.is_dir()) == ["n1", "n2", "n3"]
    again = demo("--data", str(data), "--input", str(text))
    assert again.returncode == 2
    assert f"{data} is not empty" in again.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_leaves_no_process_behind(text: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Interrupted it ends what it started and removes its folder; killed, at least the former."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "copycat", "demo", "--input", str(text)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "clients work" in line:
            break
    children = started_by(process.pid)
    assert len(children) == 6
    process.send_signal(number)
    code = process.wait(20)
    process.stdout.close()
    deadline = time.monotonic() + 20
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, children))
    if number != signal.SIGKILL:
        assert code == 130
        assert list(folder.iterdir()) == []


def test_a_text_without_words_is_refused(tmp_path: Path) -> None:
    """There must be something to count."""
    empty = tmp_path / "empty.txt"
    empty.write_text("... !\n")
    done = demo("--input", str(empty))
    assert done.returncode == 2
    assert "has no words to count" in done.stderr


def test_server_ports_are_never_given_to_outgoing_connections() -> None:
    """A dead server's port stays free for it, and nobody is connected to himself on it."""
    ports = free_ports(5)
    assert len(set(ports)) == 5
    range_ = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not range_.exists():
        pytest.skip("this system does not tell its range")
    low, high = map(int, range_.read_text().split())
    if low <= 15_000 and high >= 32_000:
        pytest.skip("every port may be given out here")
    assert not any(low <= port <= high for port in ports)
