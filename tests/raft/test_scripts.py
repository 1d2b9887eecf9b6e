"""The text stories under ``scripts`` are the readable specification of Raft; each must replay.

``COPYCAT_REWRITE_SCRIPTS=1 pytest tests/raft/test_scripts.py`` writes the present output into the
files: the difference is what has to be reviewed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .script import replay

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_story_replays_byte_for_byte(path: Path) -> None:
    """Every message, sync and change of role of a story happens exactly as written down."""
    text = path.read_text()
    told = replay(text)
    if os.environ.get("COPYCAT_REWRITE_SCRIPTS"):
        path.write_text(told)
    else:
        assert told == text


def test_there_are_stories() -> None:
    """An empty directory would prove nothing."""
    assert len(SCRIPTS) >= 13
