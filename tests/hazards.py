"""Which test or checker stands against which hazard: ``python -m tests.hazards`` writes the table.

The hazards are numbered; whoever covers one cites its number (``H17``). `TITLES` are Raft's; for
each of them somebody has to answer, or a reason is given in `NOT_YET`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "HAZARDS.md"

TITLES = {
    1: "a vote or term is answered before it is durable",
    2: "a vote is forgotten within its term",
    3: "a vote of another term or of a duplicate is counted",
    4: "a candidate with an older log is elected",
    5: "an entry of an older term is committed by counting",
    6: "a leader counts its own entry before it is synced",
    7: "a follower acknowledges before it has synced",
    8: "something is committed beyond what matches the leader's log",
    9: "a late or short request truncates acknowledged entries",
    10: "committed entries are truncated",
    11: "a new term has no entry of its own",
    12: "members change one by one, twice at once, without a joint configuration",
    13: "a configuration counts from its commitment, or survives its truncation",
    14: "a snapshot keeps a configuration that was never committed",
    15: "a removed or lonely member disturbs the others",
    16: "pre-vote and check-quorum block each other",
    17: "an acknowledgement of a write that was truncated counts",
    18: "a snapshot is installed while another one is",
    19: "an older snapshot replaces newer state",
    20: "entries that contradict a snapshot survive it",
    21: "the term before the log's beginning is unknown",
    22: "what a follower or a transfer needs is compacted",
    23: "a crash within a truncation leaves a hole",
    24: "state and applied index are saved at different moments",
    25: "a command of an old leadership is answered",
    26: "an answer is never given",
    27: "a deposed leader answers reads",
    28: "the round of one read confirms another",
    29: "a lease holds although a clock stood still",
    30: "a reader goes back in time",
    31: "a leader hands over and goes on, or to somebody who is behind",
    32: "a wiped member comes back as its old self",
    33: "two clusters talk to each other",
    34: "a peer poisons the term",
    35: "everybody stands at once, again and again",
}
NOT_YET: dict[int, str] = {}


def citations() -> dict[int, list[str]]:
    """Test files by the numbers that they cite."""
    found: dict[int, list[str]] = {number: [] for number in TITLES}
    places = [ROOT / "copycat" / "testing", ROOT / "tests"]
    for path in sorted(path for place in places for path in place.rglob("*")):
        if path.suffix in (".py", ".txt") and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            for number in sorted({int(n) for n in re.findall(r"\bH(\d+)\b", text)}):
                if number in found:
                    found[number].append(path.relative_to(ROOT).as_posix())
    return found


def table() -> str:
    """The table in Markdown."""
    lines = [
        "# Hazards of Raft, and who stands against them",
        "",
        "Written by `python -m tests.hazards`. Besides, the simulated lives (`tests/testing`,",
        "`tests/raft/lives.py`, `tests/server/world.py`) watch over all of them at once.",
        "",
        "| | hazard | covered in |",
        "| --- | --- | --- |",
    ]
    for number, files in citations().items():
        where = ", ".join(f"`{name}`" for name in files) or NOT_YET.get(number, "**nothing**")
        lines.append(f"| H{number} | {TITLES[number]} | {where} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    sys.exit(0)
