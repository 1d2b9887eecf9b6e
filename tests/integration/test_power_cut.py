"""A power cut on a real file system: what was acknowledged is there after it.

``kill -9`` cannot show this, since the kernel keeps what a dead process wrote. Here the file system
itself is shut down without flushing anything, which needs root and a loop device; elsewhere the
tests are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import copycat

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


class LoopDisk:
    """A small ext4 file system in a file."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "disk.img"
        self.mount_point = folder / "mnt"
        self.mount_point.mkdir()

    def make(self) -> None:
        with self.image.open("wb") as file:
            file.truncate(64 << 20)
        run("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()

    def mount(self) -> None:
        run("mount", "-o", "loop", str(self.image), str(self.mount_point))

    def unmount(self) -> None:
        run("umount", str(self.mount_point))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, not even what the kernel holds already."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    disk = LoopDisk(tmp_path)
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    try:
        disk.make()
    except (OSError, subprocess.SubprocessError) as problem:
        pytest.skip(f"no ext4 on a loop device here: {problem}")
    yield disk
    with contextlib.suppress(subprocess.SubprocessError):
        disk.unmount()


async def write_until_the_cut(disk: LoopDisk, fsync: str, seconds: float) -> list[int]:
    """Write from 16 tasks, cut the power in the middle; what was acknowledged before the cut."""
    acknowledged: list[int] = []
    cut = False

    async def writer(m: copycat.AsyncMap[str, int], first: int) -> None:
        number = first
        while not cut:
            await m.put(f"k{number}", number, timeout=1.0)
            if not cut:
                acknowledged.append(number)
            number += 16

    data = str(disk.mount_point / "n1")
    with contextlib.suppress(copycat.CopycatError):
        async with copycat.open(data=data, fsync=fsync, segment_bytes=1 << 20) as cc:
            m = cc.map("/m")
            await m.put("first", 0)
            writers = [asyncio.create_task(writer(m, i)) for i in range(16)]
            await asyncio.sleep(seconds)
            cut = True
            disk.cut_power()
            await asyncio.gather(*writers, return_exceptions=True)
    return acknowledged


async def read_back(disk: LoopDisk, numbers: list[int]) -> set[int]:
    """Which of the numbers a restarted member knows."""
    async with copycat.open(data=str(disk.mount_point / "n1"), segment_bytes=1 << 20) as cc:
        m = cc.map("/m")
        found = await asyncio.gather(*(m.get(f"k{number}") for number in numbers))
        return {number for number, value in zip(numbers, found, strict=True) if value == number}


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.8])
def test_nothing_acknowledged_is_lost(disk: LoopDisk, seconds: float) -> None:
    """After a power cut in full work, every acknowledged write is there (H7)."""
    acknowledged = asyncio.run(write_until_the_cut(disk, "always", seconds))
    disk.unmount()
    disk.mount()
    assert acknowledged
    assert asyncio.run(read_back(disk, acknowledged)) == set(acknowledged)


def test_without_fdatasync_the_same_cut_loses_writes(disk: LoopDisk) -> None:
    """The test above has teeth: a member that does not sync loses what it acknowledged."""
    acknowledged = asyncio.run(write_until_the_cut(disk, "unsafe-never", 0.3))
    disk.unmount()
    disk.mount()
    assert acknowledged
    try:
        kept = asyncio.run(read_back(disk, acknowledged))
    except copycat.CopycatError:
        return  # not even its identity survived
    assert kept != set(acknowledged)
