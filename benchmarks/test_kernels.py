"""The kernel benchmarks under pytest-benchmark: `pytest benchmarks`. Not part of the tests."""

from __future__ import annotations

from typing import Any

import pytest

from .cases import Case, cases, modes

CASES = [(mode, case) for mode in modes() for case in cases(mode)]


@pytest.mark.parametrize(
    ("mode", "case"), CASES, ids=[f"{mode}-{case.name.partition(',')[0]}" for mode, case in CASES]
)
def test_kernel(benchmark: Any, mode: str, case: Case) -> None:
    """Each case in each mode; a group holds the modes of one case."""
    benchmark.group = f"{case.name} (a run does {case.per_run})"
    benchmark.extra_info["mode"] = mode
    benchmark(case.run)
