"""What a run was like: throughput, latency, and how long each kill left the clients waiting.

Pure, from the clients' own records like everything else; it judges nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import Any

from .evidence import WRITES, Evidence, Kill

WINDOW_S = 2.0


def figures(evidence: Evidence, began: float) -> dict[str, Any]:
    """Writes and kills of the run that began at ``began``, monotonic seconds."""
    done: list[float] = []
    latencies: list[float] = []
    for worker in evidence.workers:
        for operation in worker.operations.values():
            if operation.done is not None and operation.kind in WRITES:
                done.append(operation.done)
                latencies.append(operation.done - operation.sent)
    done.sort()
    latencies.sort()
    span = done[-1] - done[0] if len(done) > 1 else 0.0
    return {
        "writes": {
            "acknowledged": len(done),
            "seconds": round(span, 3),
            "per_s": round(len(done) / span) if span else 0,
            "p50_ms": _percentile_ms(latencies, 0.50),
            "p99_ms": _percentile_ms(latencies, 0.99),
        },
        "kills": [_kill(kill, done, began) for kill in evidence.kills],
    }


def longest_wait(done: list[float], kill: Kill) -> tuple[float, float] | None:
    """The longest time without an acknowledgement around ``kill``: its begin and its end.

    ``done`` is sorted. All pauses count that touch the time from the kill to the restart.
    """
    until = kill.restarted_at if kill.restarted_at is not None else kill.at + WINDOW_S
    touching = [gap for gap in pairwise(done) if gap[1] >= kill.at and gap[0] <= until]
    return max(touching, key=lambda gap: gap[1] - gap[0], default=None)


def _kill(kill: Kill, done: list[float], began: float) -> dict[str, Any]:
    wait = longest_wait(done, kill)
    elected = None if kill.elected_at is None else kill.elected_at - kill.at
    return {
        **asdict(kill),
        "at": round(kill.at - began, 3),
        "elected_at": None if elected is None else round(kill.at + elected - began, 3),
        "restarted_at": _since(kill.restarted_at, began),
        "back_at": _since(kill.back_at, began),
        "without_leader_s": None if wait is None else round(wait[1] - wait[0], 4),
        "served_again_s": None if wait is None else round(wait[1] - kill.at, 4),
        "elected_s": None if elected is None else round(elected, 4),
    }


def _since(at: float | None, began: float) -> float | None:
    return None if at is None else round(at - began, 3)


def _percentile_ms(ordered: list[float], part: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000, 3)


__all__ = ["figures", "longest_wait"]
