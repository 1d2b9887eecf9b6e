"""A real file system that fills up: the member goes on, answers reads, and resumes by itself.

It needs root and a loop device, as the power cuts do; elsewhere it is skipped.
"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import copycat

from .test_power_cut import LoopDisk, disk

__all__ = ["disk"]


def fill(path: Path) -> None:
    """A file that takes whatever is left."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    step, at = 8 << 20, 0
    while step >= 512:
        try:
            os.posix_fallocate(descriptor, at, step)
            at += step
        except OSError as problem:
            if problem.errno != errno.ENOSPC:
                raise
            step //= 2
    os.close(descriptor)


async def life(disk: LoopDisk) -> None:
    """Fill the disk under a member at work, look, free it, look again."""
    ballast = disk.mount_point / "ballast"
    data = str(disk.mount_point / "n1")
    async with copycat.open(data=data, segment_bytes=1 << 20) as cc:
        m: copycat.AsyncMap[str, str] = cc.map("/m")
        await m.put("k", "first")
        fill(ballast)
        acknowledged = 0
        refused: copycat.CopycatError | None = None
        while refused is None:
            assert acknowledged < 200, "two segments cannot hold that much"
            try:
                await m.put(f"k{acknowledged}", "x" * 32_000, timeout=1.5)
                acknowledged += 1
            except copycat.CopycatError as problem:
                refused = problem
        assert isinstance(refused, copycat.DeadlineError | copycat.UnavailableError)
        assert acknowledged > 10
        assert await m.get("k", timeout=5) == "first"
        assert await m.get(f"k{acknowledged - 1}", timeout=5) == "x" * 32_000
        ballast.unlink()
        await m.put("k", "last", timeout=20)
    async with copycat.open(data=data, segment_bytes=1 << 20) as cc:
        m = cc.map("/m")
        assert await m.get("k") == "last"
        for number in range(acknowledged):
            assert await m.get(f"k{number}") == "x" * 32_000


def test_a_full_disk_makes_a_member_read_only_until_there_is_space(disk: LoopDisk) -> None:
    """Writes time out, reads are answered, nothing acknowledged is lost, and it goes on."""
    asyncio.run(life(disk))
