"""Hostile lives notice mistakes: every mutant fits the sources, and some are hunted down here."""

from __future__ import annotations

from pathlib import Path

import pytest

from .catalogue import MUTANTS
from .hunt import ROOT, Stale, change, hunt_once
from .mutant import one

QUICK = (
    "vote not persisted",
    "acknowledged before it is synced",
    "an older term is committed by counting",
    "tokens do not rise",
)


def test_every_mutant_is_a_change_of_the_sources_as_they_are() -> None:
    """A mutant whose text is gone, or stands there twice, would test something else or nothing."""
    wrong = [
        f"{mutant.name}: {path}"
        for mutant in MUTANTS.values()
        for path, old, new in mutant.edits
        if (ROOT / "copycat" / path).read_text().count(old) != 1 or old == new
    ]
    assert not wrong, "\n".join(wrong)
    assert len(MUTANTS) >= 30


def test_a_stale_mutant_is_an_error(tmp_path: Path) -> None:
    """It never counts as killed or alive."""
    (tmp_path / "paths.py").write_text("a = 1\na = 1\n")
    for old in ("b = 1", "a = 1"):
        with pytest.raises(Stale, match="places in paths"):
            change(tmp_path, one("stale", "paths.py", old, "c = 1"))


@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_is_killed_and_the_original_is_not(name: str, tmp_path: Path) -> None:
    """Within a few seeds a life breaks a law that it keeps on the sources as they are."""
    kill = hunt_once(MUTANTS[name], tmp_path, seeds=40)
    assert kill.killed, kill.verdict


def test_a_harmless_change_survives(tmp_path: Path) -> None:
    """Lives are not killed by having been copied."""
    harmless = one("nothing", "raft/reads.py", '"""Linearizable', '"""The linearizable', "raft")
    kill = hunt_once(harmless, tmp_path, seeds=3)
    assert not kill.killed and kill.seeds == 3
