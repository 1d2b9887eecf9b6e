"""Builds a wheel for the running interpreter into wheels/dist, and proves that it is whole.

A wheel is either compiled or it is not made. It is checked from outside: what it holds, and whether
it works in an empty environment in a folder that knows nothing of this one. Uploads nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "wheels" / "dist"
KERNELS = tuple(sorted(path.stem for path in (ROOT / "copycat" / "_core").glob("*.pyx")))

TRIAL = """
import asyncio, pathlib, sys
import copycat

where = pathlib.Path(copycat.__file__).resolve()
if not where.is_relative_to(pathlib.Path(sys.prefix).resolve()):
    sys.exit(f"copycat was imported from {where}, not from the wheel")
if not copycat.COMPILED:
    sys.exit("the wheel runs in the pure mode")

async def main():
    async with copycat.local_cluster(3) as cluster:
        await cluster.client.map("/wheel").put("works", True)
        return await cluster.client.map("/wheel").get("works")

if asyncio.run(main()) is not True:
    sys.exit("a cluster did not keep a write")
"""


def step(text: str) -> None:
    """One line for each step, as in the Makefile."""
    print(f"wheels: {text}", flush=True)  # noqa: T201 - this is a command


def run(command: list[str | Path], where: Path, **environment: str) -> None:
    """Run a command in ``where``, without what this environment would lend it."""
    lent = {"PYTHONPATH", "PYTHONHOME", "COPYCAT_PURE", "COPYCAT_BUILD", "VIRTUAL_ENV"}
    clean = {key: value for key, value in os.environ.items() if key not in lent}
    clean |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment}
    done = subprocess.run(command, cwd=where, env=clean, check=False)  # noqa: S603 - our own words
    if done.returncode:
        sys.exit(f"wheels: failed: {' '.join(map(str, command[:6]))}")


def build() -> Path:
    """The wheel, fresh from the sources, in wheels/dist."""
    for leftover in (ROOT / "build").glob("lib*"):  # else modules deleted since would live on
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix="copycat-wheel-") as folder:
        to = Path(folder)
        pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-cache-dir"]
        run([*pip, "--wheel-dir", to, ROOT], to, COPYCAT_BUILD="require")
        (made,) = to.glob("*.whl")
        DIST.mkdir(parents=True, exist_ok=True)
        wheel = DIST / made.name
        wheel.write_bytes(made.read_bytes())
    return wheel


def faults(names: Iterable[str]) -> list[str]:
    """What is missing in a wheel that holds these files, or should not be there."""
    held = set(names)
    suffix = EXTENSION_SUFFIXES[0]
    needed = {"copycat/__init__.py", "copycat/py.typed"}
    needed |= {f"copycat/_core/{kernel}{end}" for kernel in KERNELS for end in (suffix, ".py")}
    found = [f"{name} is missing" for name in sorted(needed - held)]
    for name in sorted(held):
        top = name.split("/")[0]
        if top != "copycat" and not top.endswith(".dist-info"):
            found.append(f"{name} does not belong to the package")
        if name.endswith((".c", ".h", ".pyx", ".pyc")):
            found.append(f"{name} is for the builder, not for the user")
    if not any(name.endswith("LICENSE") for name in held):
        found.append("the licence is missing")
    return found


def try_out(wheel: Path) -> None:
    """Install the wheel into an empty environment elsewhere, and run a cluster there."""
    with tempfile.TemporaryDirectory(prefix="copycat-trial-") as folder:
        here = Path(folder)
        run([sys.executable, "-m", "venv", here / "venv"], here)
        python = here / "venv" / "bin" / "python"
        run([python, "-m", "pip", "install", "-qq", f"{wheel}[standard]"], here)
        run([python, "-c", TRIAL], here)
        run([here / "venv" / "bin" / "copycat", "--version"], here)


def main() -> None:
    """Build, look inside, try out."""
    step(f"building for {sys.implementation.cache_tag}, compiled or not at all")
    wheel = build()
    step(f"checking what {wheel.name} holds")
    with zipfile.ZipFile(wheel) as content:
        problems = faults(content.namelist())
    if problems:
        wheel.unlink()
        sys.exit("\n".join(f"wheels: {each}" for each in problems))
    step("installing it into an empty environment and running a cluster there")
    try_out(wheel)
    step(f"good: {wheel.relative_to(ROOT)}, {wheel.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
