"""Three real member processes for a benchmark, and what is read off them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from copycat.testing.ports import free_ports

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Point:
    """One row: an operation at one depth."""

    op: str
    in_flight: int
    connections: int
    value_bytes: int
    ops_per_s: float
    p50_ms: float
    p99_ms: float
    server_cpu_s_per_10k: float
    client_cpu_s_per_10k: float

    @staticmethod
    def header() -> str:
        """The table's first line."""
        return (f"{'operation':<18} {'in flight':>9} {'conns':>6} {'ops/s':>10} {'p50 ms':>8} "
                f"{'p99 ms':>8} {'server CPU':>11} {'client CPU':>11}  (s per 10k)")  # fmt: skip

    def line(self) -> str:
        """A row of the table."""
        return (f"{self.op:<18} {self.in_flight:>9} {self.connections:>6} {self.ops_per_s:>10,.0f} "
                f"{self.p50_ms:>8.3f} {self.p99_ms:>8.3f} {self.server_cpu_s_per_10k:>11.4f} "
                f"{self.client_cpu_s_per_10k:>11.4f}")  # fmt: skip

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class Members:
    """Starts three members with ``copycat serve`` and stops them, each by its own pid."""

    def __init__(self, data: str | None = None, *, fsync: bool = True) -> None:
        self._own = data is None
        self.root = Path(data or tempfile.mkdtemp(prefix="copycat-bench-", dir=_roomy()))
        self.on_tmpfs = _filesystem(self.root) == "tmpfs"
        self._fsync = fsync
        ports = free_ports(3)
        self._list = ",".join(f"n{i}=127.0.0.1:{port}" for i, port in enumerate(ports, 1))
        self.addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for i in (1, 2, 3):
            command = [
                sys.executable, "-m", "copycat", "serve", "--name", f"n{i}",
                "--members", self._list, "--data", str(self.root / f"n{i}"),
            ]  # fmt: skip
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self._processes.append(process)
        for process in self._processes:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                self.__exit__(None, None, None)
                raise SystemExit("a member did not start; its message stands above")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._own:
            shutil.rmtree(self.root, ignore_errors=True)

    def cpu_s(self) -> float:
        """CPU seconds that the members have used."""
        ticks = 0
        for process in self._processes:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS


def raw_sync_us(folder: Path, count: int = 200) -> float:
    """The median time, in microseconds, of a 256-byte write and fdatasync into zeroed space."""
    path = folder / "sync-probe"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(1 << 20), 0)
        os.fsync(descriptor)
        times = []
        for i in range(count):
            began = time.perf_counter()
            os.pwrite(descriptor, b"x" * 256, 256 * i)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - began)
        return sorted(times)[count // 2] * 1e6
    finally:
        os.close(descriptor)
        path.unlink()


def _roomy() -> str | None:
    """A folder for temporary data that is on a disk, if the usual one is not."""
    usual = tempfile.gettempdir()
    if _filesystem(Path(usual)) != "tmpfs":
        return usual
    lasting = Path("/var/tmp")  # noqa: S108 - a parent for a folder that mkdtemp makes
    return str(lasting) if lasting.is_dir() else None


def _filesystem(path: Path) -> str:
    best, kind = "", "?"
    real = str(path.resolve())
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return kind
    for line in lines:
        _, mount, found = line.split()[:3]
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind
