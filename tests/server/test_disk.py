"""The Disk door: one suite for the real and the memory disk, then the real one's own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from copycat.errors import (
    ConfigurationError,
    DataDirectoryInUse,
    DiskFullError,
    MisuseError,
    StorageError,
)
from copycat.server import lanes
from copycat.server.disk import RealDisk
from copycat.server.lanes import LogLane, Pace
from copycat.server.memory_disk import MemoryDisk

AnyDisk = RealDisk | MemoryDisk


@pytest.fixture(params=["real", "memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyDisk]:
    """Each kind of disk, empty."""
    made: AnyDisk = RealDisk(tmp_path / "data") if request.param == "real" else MemoryDisk()
    yield made
    made.close()


def run_job(disk: AnyDisk, lane: str, job: Callable[[], object], size: int = 0) -> object:
    """Submit a job from a loop and return its result, or raise its error."""

    async def main() -> object:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def done(result: object, error: BaseException | None) -> None:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        disk.submit(lane, job, done, size=size)
        async with asyncio.timeout(10):
            return await future

    return asyncio.run(main())


# -- both kinds ------------------------------------------------------------------------------------


def test_what_is_written_is_read_back_at_its_offset(disk: AnyDisk) -> None:
    """Bytes lie where they were put, gaps are zeros, and a read past the end is short."""
    file = disk.open("a", create=True)
    file.pwrite(b"xyz", 5)
    file.pwrite(b"12", 0)
    file.sync()
    assert file.size() == 8
    assert file.pread(100, 0) == b"12\0\0\0xyz"
    assert file.pread(2, 6) == b"yz"
    assert file.pread(4, 8) == b""
    again = disk.open("a")
    assert again.pread(3, 5) == b"xyz"
    file.close()
    again.close()


def test_allocated_files_are_zero_and_have_their_size(disk: AnyDisk) -> None:
    """A segment has its full size from the start, also if it is no multiple of a piece."""
    file = disk.open("a", create=True)
    file.pwrite(b"rubbish", 0)
    size = (1 << 20) + 4097
    file.allocate(size)
    assert file.size() == size
    assert not any(file.pread(size, 0))
    file.close()


def test_a_view_shows_later_writes_and_cannot_be_written(disk: AnyDisk) -> None:
    """Readers of a segment see what is appended after they took their view."""
    file = disk.open("a", create=True)
    file.allocate(8192)
    view = file.view()
    assert len(view) == 8192
    file.pwrite(b"later", 4096)
    assert bytes(view[4096:4101]) == b"later"
    assert view.readonly
    slice_ = view[4096:4101]
    file.close()
    assert bytes(slice_) == b"later"  # a slice that is still alive stays valid


def test_directories_names_renames_and_removals(disk: AnyDisk) -> None:
    """The name operations do what their names say, and listings are sorted."""
    disk.makedirs("log/deep")
    disk.makedirs("log/deep")
    for name in ("log/b", "log/a"):
        disk.open(name, create=True).close()
    assert disk.listdir("log") == ["a", "b", "deep"]
    disk.rename("log/b", "log/c")
    disk.rename("log/a", "log/c")
    disk.sync_directory("log")
    assert disk.listdir("log") == ["c", "deep"]
    assert disk.exists("log/c") and disk.exists("log") and not disk.exists("log/a")
    disk.unlink("log/c")
    disk.sync_directory("log")
    assert disk.listdir("log") == ["deep"]
    assert "log" in disk.listdir("")
    assert disk.free_bytes() > 0


def test_missing_files_are_named(disk: AnyDisk) -> None:
    """An error says which operation failed on which file."""
    with pytest.raises(StorageError, match="cannot open .*/nothing"):
        disk.open("nothing")
    with pytest.raises(StorageError, match="cannot remove .*/nothing"):
        disk.unlink("nothing")
    with pytest.raises(StorageError, match="cannot rename .*/nothing"):
        disk.rename("nothing", "something")
    with pytest.raises(StorageError, match="cannot list .*/nothing"):
        disk.listdir("nothing")
    with pytest.raises(StorageError, match="no/file"):
        disk.open("no/file", create=True)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../b", "", "a//b", ".", "a\0b"])
def test_names_cannot_leave_the_directory(disk: AnyDisk, name: str) -> None:
    """Nothing outside the data directory can be named (H102)."""
    with pytest.raises(MisuseError, match="not a name inside"):
        disk.open(name, create=True)


def test_closed_files_refuse(disk: AnyDisk) -> None:
    """A file that was closed is never silently written to."""
    file = disk.open("a", create=True)
    file.close()
    file.close()
    with pytest.raises(StorageError):
        file.pwrite(b"x", 0)


@pytest.mark.parametrize("lane", ["log", "background"])
def test_jobs_give_results_and_errors(disk: AnyDisk, lane: str) -> None:
    """A job's result or its error reaches the one who submitted it."""

    def fail() -> None:
        raise StorageError("no")

    assert run_job(disk, lane, lambda: 42) == 42
    with pytest.raises(StorageError, match="no"):
        run_job(disk, lane, fail)
    assert run_job(disk, lane, lambda: 43, size=1 << 30) == 43


@pytest.mark.parametrize("lane", ["log", "background"])
def test_jobs_of_a_lane_keep_their_order(disk: AnyDisk, lane: str) -> None:
    """Small and large jobs never overtake one another, inline or not."""
    order: list[int] = []
    finished: list[int] = []

    async def main() -> None:
        ready = asyncio.Event()
        for number in range(100):
            size = (1 << 20) if number % 7 == 0 else 0

            def job(number: int = number) -> None:
                order.append(number)

            def done(result: object, error: object, number: int = number) -> None:
                finished.append(number)
                if number == 99:
                    ready.set()

            disk.submit(lane, job, done, size=size)
            if number % 10 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await ready.wait()

    asyncio.run(main())
    assert order == finished == list(range(100))


def test_unknown_lanes_are_refused(disk: AnyDisk) -> None:
    """A misspelt lane is an error, not a new thread."""
    with pytest.raises(MisuseError, match="lane"):
        run_job(disk, "fast", lambda: None)


# -- memory ----------------------------------------------------------------------------------------


def test_a_memory_disk_survives_its_member() -> None:
    """A member that restarts on the same object finds its files, and takes the lock again."""
    disk = MemoryDisk()
    disk.lock()
    with pytest.raises(DataDirectoryInUse):
        disk.lock()
    disk.open("a", create=True).pwrite(b"kept", 0)
    disk.close()
    disk.lock()
    assert disk.open("a").pread(10, 0) == b"kept"


def test_jobs_of_a_killed_member_do_not_touch_its_successors_files() -> None:
    """A background job that had not begun when the disk was closed never runs."""
    disk = MemoryDisk()
    ran: list[str] = []

    async def main() -> None:
        disk.submit("background", lambda: ran.append("old"), lambda result, error: None)
        disk.close()
        disk.submit("background", lambda: ran.append("new"), lambda result, error: None)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert ran == ["new"]


def test_a_memory_disk_can_be_full() -> None:
    """Its capacity holds for all files together, and rewriting costs nothing."""
    disk = MemoryDisk(capacity=10)
    file = disk.open("a", create=True)
    file.pwrite(b"12345678", 0)
    file.pwrite(b"abcdefgh", 0)
    with pytest.raises(DiskFullError, match="2 bytes free"):
        disk.open("b", create=True).pwrite(b"123", 0)


# -- real ------------------------------------------------------------------------------------------


def test_files_and_directories_are_private(tmp_path: Path) -> None:
    """Nobody else may read a member's data (H102)."""
    old = os.umask(0)
    try:
        disk = RealDisk(tmp_path / "x" / "data")
        disk.makedirs("log")
        disk.open("log/a", create=True).close()
        disk.lock()
    finally:
        os.umask(old)
    root = tmp_path / "x" / "data"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "log").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "log" / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "LOCK").stat().st_mode) == 0o600
    disk.close()


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """A planted link neither leads a file nor a directory elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"precious")
    disk = RealDisk(tmp_path / "data")
    os.symlink(outside / "victim", tmp_path / "data" / "link")
    os.symlink(outside, tmp_path / "data" / "log")
    with pytest.raises(StorageError, match="symbolic link"):
        disk.open("link")
    with pytest.raises(StorageError, match="log/victim"):
        disk.open("log/victim")
    disk.close()
    assert (outside / "victim").read_bytes() == b"precious"


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    """The error names the file that is in the way, also further up."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file is a file") as caught:
        RealDisk(tmp_path / "file")
    assert caught.value.hint
    with pytest.raises(ConfigurationError, match="file is a file"):
        RealDisk(tmp_path / "file" / "below")


@contextlib.contextmanager
def mounted(arguments: list[str], target: Path) -> Iterator[None]:
    """A mount for the length of a test; the test is skipped where mounting is not permitted."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting needs root")
    target.mkdir(exist_ok=True)
    made = subprocess.run([mount, *arguments, str(target)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not permitted: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """On a read-only file system the lock fails with the operation, the file and the fix."""
    target = tmp_path / "readonly"
    with mounted(["-t", "tmpfs", "-o", "ro,size=64k", "tmpfs"], target):
        disk = RealDisk(target)
        with pytest.raises(StorageError, match="cannot lock .*LOCK: Read-only") as caught:
            disk.lock()
        assert "able to read and write" in caught.value.hint
        disk.close()


def test_a_full_disk_says_so_when_a_file_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room is an error of allocate, which gives back what it took (H61)."""
    target = tmp_path / "small"
    with mounted(["-t", "tmpfs", "-o", "size=1m", "tmpfs"], target):
        disk = RealDisk(target)
        assert disk.on_tmpfs()
        file = disk.open("segment", create=True)
        with pytest.raises(DiskFullError, match=r"cannot allocate .*/segment: .* bytes free") as e:
            file.allocate(4 << 20)
        assert e.value.retryable
        assert file.size() == 0
        with monkeypatch.context() as patch:  # a file system that promises more than it has
            patch.setattr(os, "posix_fallocate", lambda fd, at, size: None)
            with pytest.raises(DiskFullError):
                file.allocate(4 << 20)
            assert file.size() == 0
        file.allocate(256 << 10)
        with pytest.raises(DiskFullError, match="cannot write"):
            file.pwrite(bytes(2 << 20), 0)
        disk.close()


def test_room_is_reserved_before_zeros_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writes are allocated late, only the reservation can tell that the disk is full."""
    disk = RealDisk(tmp_path)
    file = disk.open("a", create=True)

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFullError, match="cannot allocate"):
        file.allocate(100)
    disk.close()


def test_a_failed_sync_stays_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one failed sync the next one must not claim success (H60)."""
    disk = RealDisk(tmp_path / "data")
    file = disk.open("a", create=True)

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(StorageError, match="cannot sync .*/a: Input/output error"):
            file.sync()
    with pytest.raises(StorageError, match="an earlier sync failed"):
        file.sync()
    disk.close()


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write is no error; one that writes nothing is (H68)."""
    disk = RealDisk(tmp_path / "data")
    file = disk.open("a", create=True)
    real = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data[:3]), at))
        file.pwrite(b"abcdefgh", 2)
        patch.setattr(os, "pwrite", lambda fd, data, at: 0)
        with pytest.raises(StorageError, match="nothing was written"):
            file.pwrite(b"x", 0)
    assert file.pread(100, 0) == b"\0\0abcdefgh"
    disk.close()


def test_without_fsync_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync=False asks the kernel for no sync at all; the default asks for each."""
    asked: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: asked.append("data"))
    monkeypatch.setattr(os, "fsync", lambda fd: asked.append("all"))
    for fsync in (False, True):
        disk = RealDisk(tmp_path, fsync=fsync)
        file = disk.open("a", create=True)
        file.pwrite(b"x", 0)
        file.sync()
        file.allocate(10)
        disk.sync_directory("")
        disk.close()
        assert asked == (["data", "all", "all", "all"] if fsync else [])


def test_a_second_disk_in_this_process_is_refused(tmp_path: Path) -> None:
    """Two members of one process cannot share a directory; closing frees it."""
    first, second = RealDisk(tmp_path), RealDisk(tmp_path)
    first.lock()
    first.lock()
    with pytest.raises(DataDirectoryInUse, match="this very process") as caught:
        second.lock()
    assert caught.value.pid == os.getpid()
    first.close()
    second.lock()
    second.close()


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    """The error names the holder's pid and command; its death frees the directory (H66)."""
    script = (
        "import sys; from copycat.server.disk import RealDisk; d = RealDisk(sys.argv[1]); "
        "d.lock(); print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    disk = RealDisk(tmp_path)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(DataDirectoryInUse, match=f"used by pid {holder.pid} .*python") as e:
            disk.lock()
        assert e.value.pid == holder.pid
    finally:
        holder.kill()
        holder.communicate()
    disk.lock()
    disk.close()


def test_closing_waits_for_jobs_and_drops_their_completions(tmp_path: Path) -> None:
    """close() lets a running write end; nobody hears of it afterwards."""
    disk = RealDisk(tmp_path)
    begun, may_end = threading.Event(), threading.Event()
    ended: list[str] = []
    told: list[object] = []

    def job() -> None:
        begun.set()
        may_end.wait(5)
        ended.append("job")

    async def main() -> None:
        disk.submit("background", job, lambda result, error: told.append(error))
        await asyncio.to_thread(begun.wait, 5)
        threading.Timer(0.05, may_end.set).start()
        disk.close()
        assert ended == ["job"]
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert told == []
    with pytest.raises(MisuseError, match="closed"):
        run_job(disk, "log", lambda: None)


# -- lanes -----------------------------------------------------------------------------------------


def test_pace_leaves_inline_when_the_disk_is_slow_and_tries_again() -> None:
    """Few slow jobs in a window are forgiven, more are not; rests double, a good phase resets."""
    pace = Pace()
    slow, stalled = 1.1 * lanes.FAST_S, 1.1 * lanes.STALL_S

    def rest() -> int:
        count = 0
        while not pace.inline:
            pace.threaded()
            count += 1
        return count

    for _ in range(3):  # windows with as many slow jobs as are forgiven
        for number in range(lanes.WINDOW):
            pace.took(slow if number < lanes.STRIKES - 1 else 0.0)
        assert pace.inline
    for number in range(lanes.STRIKES):
        assert pace.inline, number
        pace.took(slow)
    assert rest() == lanes.REST_MIN
    pace.took(stalled)
    assert rest() == 2 * lanes.REST_MIN
    for _ in range(lanes.WINDOW):
        pace.took(0.0)
    pace.took(stalled)
    assert rest() == lanes.REST_MIN
    for _ in range(20):
        pace.took(stalled)
        rest()
    pace.took(stalled)
    assert rest() == lanes.REST_MAX


def test_the_log_lane_runs_small_fast_jobs_inline() -> None:
    """A small job on a fast disk is done when submit returns, on the caller's thread."""
    lane = LogLane("test")
    threads: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        job = lambda: threads.append(threading.current_thread().name)  # noqa: E731
        lane.submit(loop, job, lambda result, error: None, 100)
        assert threads == [threading.current_thread().name]
        lane.submit(loop, job, lambda result, error: ready.set(), 1 << 20)
        async with asyncio.timeout(5):
            await ready.wait()

    asyncio.run(main())
    lane.close()
    assert threads[1] == "test"
