"""The library's own types hold under ``mypy --strict``; users' code is checked in tests/typing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_library_is_strictly_typed(tmp_path: Path) -> None:
    """Mypy finds nothing in the package and its benchmarks, with the settings of pyproject.toml."""
    pytest.importorskip("mypy")
    pytest.importorskip("click")  # the command line's types come from there
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "--no-error-summary"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
