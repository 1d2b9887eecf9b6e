"""The process in which lives judge one copy of the package: the changed one, or the original.

``python -m tests.mutants.judge JUDGE FIRST LAST SECONDS PLAN`` lives the lives of these seeds, one
after the other, and prints a line for each; the first that breaks a law is the last.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

HUNG_S = 60
"""Seconds of real time after which a life is hung."""
RAFT_LIVES = 4
"""How many short lives of Raft alone one seed is good for."""
STORE_LIVES = 200
"""How often a store dies and comes back, one seed long."""


class Hung(BaseException):
    """A life that does not come to an end."""


def live(judge: str, seed: int, seconds: float, plan: Mapping[str, Any]) -> None:
    """One life; raises if a law is broken."""
    if judge == "raft":
        from tests.raft.lives import Life as RaftLife

        for life in range(RAFT_LIVES):
            RaftLife(RAFT_LIVES * seed + life).live()
    elif judge == "leased":
        from tests.raft.leased_lives import LeasedLife

        LeasedLife(seed).live()
    elif judge == "store":
        from tests.server.test_store_crash import Story

        Story(seed).run(STORE_LIVES)
    elif judge == "world":
        from tests.server.test_member import test_hostile_lives

        test_hostile_lives(seed)
    else:
        from copycat.testing.life import Life
        from copycat.testing.plan import draw

        settings = {key: tuple(v) if isinstance(v, list) else v for key, v in plan.items()}
        Life(replace(draw(seed, seconds=seconds), **settings)).live()


def _hung(*_: object) -> None:
    raise Hung(f"more than {HUNG_S} s of real time")


def main() -> int:
    """The command line."""
    judge, first, last, seconds, plan = sys.argv[1:]
    signal.signal(signal.SIGALRM, _hung)
    for seed in range(int(first), int(last) + 1):
        signal.alarm(HUNG_S)
        try:
            live(judge, seed, float(seconds), json.loads(plan))
        except (Exception, Hung) as problem:
            words = " ".join(f"{type(problem).__name__}: {problem}".split())
            print(json.dumps([seed, words[:300]]), flush=True)
            return 0
        finally:
            signal.alarm(0)
        print(json.dumps([seed, None]), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
