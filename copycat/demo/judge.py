"""The judge: compares what the cluster says with what everybody wrote down for themselves.

Pure functions over records: the text, the clients' acknowledgements, the stamps in the protected
file, the members' digests, the times of kills. Asks nobody and forgives nothing. It serves the
conductor, and can be tested without a cluster.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .stamps import Stamp


@dataclass(slots=True)
class Client:
    """What one client's records come to. Times are monotonic seconds, latencies milliseconds."""

    name: str
    words: Counter[str] = field(default_factory=Counter)  # acknowledged
    increments: list[int] = field(default_factory=list)  # values of acknowledged increments
    times: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    lost_words: Counter[str] = field(default_factory=Counter)  # failed, certainly not applied
    doubtful_words: Counter[str] = field(default_factory=Counter)
    lost_increments: int = 0
    doubtful_increments: int = 0
    reigns: list[tuple[float, str, int]] = field(default_factory=list)  # when, event, token
    locks_lost: int = 0
    failures: list[str] = field(default_factory=list)
    words_taken: int = -1  # -1: the records have no end
    increments_tried: int = 0

    @classmethod
    def of(cls, name: str, records: Iterable[Sequence[Any]]) -> Client:
        """Read one client's records."""
        client = cls(name)
        for record in records:
            client._take(record[0], record[1], *record[2:])
        return client

    def _take(self, what: str, when: float, *rest: Any) -> None:
        if what in ("word", "increment"):
            self.times.append(when)
            self.latencies.append(rest[0])
            if what == "word":
                self.words[rest[1]] += 1
            else:
                self.increments.append(rest[1])
        elif what == "lead":
            self.reigns.append((when, *rest))
        elif what == "lock":
            self.locks_lost += rest[0] == "lost"
        elif what == "failed":
            self._failed(*rest)
        elif what == "end":
            self.words_taken, self.increments_tried = rest

    def _failed(self, what: str, detail: str, applied: str, message: str) -> None:
        self.failures.append(f"{self.name}: {what}: {message}")
        if what == "word":
            (self.lost_words if applied == "no" else self.doubtful_words)[detail] += 1
        elif what == "increment":
            self.lost_increments += applied == "no"
            self.doubtful_increments += applied != "no"


@dataclass(frozen=True, slots=True)
class Kill:
    """One killed leader; times are monotonic seconds, None if it never came about."""

    name: str
    term: int
    at: float
    new_leader: str | None = None
    new_term: int = 0
    elected_at: float | None = None
    caught_up_s: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: ``ok``, and the figures that anybody can compare again."""

    name: str
    ok: bool
    text: str
    figures: dict[str, Any]


def check_words(clients: Sequence[Client], words: Sequence[str], found: Mapping[str, int]) -> Check:
    """The replicated counts against the text itself, as far as each client got in it."""
    expected: Counter[str] = Counter()
    ended = all(client.words_taken >= 0 for client in clients)
    for number, client in enumerate(clients):
        share = words[number :: len(clients)] or words
        expected.update(_first(share, max(client.words_taken, 0)))
        expected.subtract(client.lost_words)
    doubtful = sum((client.doubtful_words for client in clients), Counter[str]())
    acknowledged = sum((client.words for client in clients), Counter[str]())
    missing = extra = 0
    for word in expected.keys() | found.keys():
        count = found.get(word, 0)
        missing += max(expected[word] - doubtful[word] - count, acknowledged[word] - count, 0)
        extra += max(count - expected[word], 0)
    total, doubts = expected.total(), doubtful.total()
    doubt = f" ({doubts} of them in doubt)" if doubts else ""
    return Check(
        "words",
        ended and not missing and not extra,
        f"expected {total:,}{doubt}, found {sum(found.values()):,}; "
        f"{len(found):,} different words, {missing:,} lost, {extra:,} counted twice",
        {
            "expected": total,
            "found": sum(found.values()),
            "acknowledged": acknowledged.total(),
            "in_doubt": doubts,
            "different": len(found),
            "lost": missing,
            "twice": extra,
        },
    )


def check_increments(clients: Sequence[Client], counter: int) -> Check:
    """The counter against the increments: none lost, none twice, no value given out twice."""
    values = [value for client in clients for value in client.increments]
    tried = sum(client.increments_tried for client in clients)
    doubtful = sum(client.doubtful_increments for client in clients)
    lost = sum(client.lost_increments for client in clients)
    repeated = len(values) - len(set(values))
    ok = (
        len(values) <= counter <= len(values) + doubtful
        and len(values) + doubtful + lost == tried
        and repeated == 0
        and max(values, default=0) <= counter
    )
    return Check(
        "increments",
        ok,
        f"acknowledged {len(values):,}, counter {counter:,}, tried {tried:,}; "
        f"{repeated:,} values given out twice",
        {
            "acknowledged": len(values),
            "counter": counter,
            "tried": tried,
            "in_doubt": doubtful,
            "values_twice": repeated,
        },
    )


def check_lock(clients: Sequence[Client], stamps: Sequence[Stamp]) -> Check:
    """The stamps in the file: begin and end by turns, tokens that only rise."""
    overlaps = falling = turns = 0
    holder: tuple[int, str] | None = None
    last = 0
    for stamp in stamps:
        who = (stamp.token, stamp.who)
        if stamp.what == "begin":
            turns += 1
            overlaps += holder is not None
            falling += stamp.token <= last
            holder, last = who, stamp.token
        else:
            overlaps += holder != who
            holder = None
    lost = sum(client.locks_lost for client in clients)
    return Check(
        "lock",
        turns > 0 and not overlaps and not falling,
        f"{turns:,} turns of {len({stamp.who for stamp in stamps})} clients, {overlaps} overlaps, "
        f"tokens {'strictly increasing' if not falling else f'fell {falling} times'}",
        {
            "turns": turns,
            "overlaps": overlaps,
            "tokens_not_increasing": falling,
            "lost": lost,
            "last_token": last,
        },
    )


def check_leaders(clients: Sequence[Client]) -> Check:
    """The reigns that the clients wrote down: never two at a time, tokens that only rise."""
    events = sorted(
        (when, token, event, client.name)
        for client in clients
        for when, event, token in client.reigns
        if event in ("begin", "end")
    )
    overlaps = falling = reigns = last = 0
    leading: int | None = None
    for _, token, event, _ in events:
        if event == "begin":
            reigns += 1
            overlaps += leading is not None
            falling += token <= last
            leading, last = token, token
        elif leading == token:
            leading = None
        else:
            overlaps += 1
    return Check(
        "leaders",
        reigns > 0 and not overlaps and not falling,
        f"{reigns} reigns, {overlaps} overlaps, "
        f"tokens {'strictly increasing' if not falling else f'fell {falling} times'}",
        {"reigns": reigns, "overlaps": overlaps, "tokens_not_increasing": falling},
    )


def check_replicas(index: int, digests: Mapping[str, bytes | None]) -> Check:
    """The members' digests of their whole state at one log index."""
    distinct = set(digests.values())
    ok = len(distinct) == 1 and None not in distinct
    shown = (
        " = ".join(digests)
        if ok
        else ", ".join(
            f"{name} {digest.hex()[:8] if digest else 'none'}" for name, digest in digests.items()
        )
    )
    first = next(iter(digests.values()), None)
    return Check(
        "replicas",
        ok,
        f"{shown} at index {index:,}" + (f": {first.hex()}" if ok and first else ""),
        {
            "index": index,
            "digests": {name: d.hex() if d else None for name, d in digests.items()},
        },
    )


def check_failover(clients: Sequence[Client], kills: Sequence[Kill], wanted: int) -> Check:
    """Every killed leader was replaced and came back; how long nothing was acknowledged."""
    times = sorted(when for client in clients for when in client.times)
    figures = []
    for kill in kills:
        gap = None if kill.elected_at is None else longest_gap(times, kill.at, kill.elected_at)
        figures.append(
            {
                "killed": kill.name,
                "term": kill.term,
                "new_leader": kill.new_leader,
                "new_term": kill.new_term,
                "without_acknowledgement_s": gap,
                "new_leader_seen_s": _rounded(kill.elected_at, kill.at),
                "caught_up_s": _rounded(kill.caught_up_s, 0.0),
            }
        )
    ok = len(kills) == wanted and all(
        each["without_acknowledgement_s"] is not None and each["caught_up_s"] is not None
        for each in figures
    )
    gaps = ", ".join(
        "never again" if each["without_acknowledgement_s"] is None
        else f"{each['without_acknowledgement_s']:.3f} s"
        for each in figures
    )  # fmt: skip
    return Check(
        "failover",
        ok,
        f"{len(kills)} leader{'s' * (len(kills) != 1)} killed, without a leader for {gaps}"
        if kills
        else "nobody killed",
        {"kills": figures},
    )


def longest_gap(times: Sequence[float], begin: float, end: float) -> float | None:
    """The longest time between two acknowledgements that touches [begin, end], in seconds.

    ``times`` is sorted. None if nothing was acknowledged after ``end``.
    """
    first = max(bisect_left(times, begin) - 1, 0)
    last = bisect_left(times, end)
    if last >= len(times):
        return None
    gaps = (b - a for a, b in itertools.pairwise(times[first : last + 1]))
    return round(max(gaps, default=0.0), 4)


def speed(clients: Sequence[Client]) -> dict[str, float]:
    """Acknowledged writes per second over the whole run, kills included, and their latencies."""
    times = [when for client in clients for when in client.times]
    latencies = sorted(ms for client in clients for ms in client.latencies)
    if len(times) < 2:
        return {"writes": len(times), "writes_per_s": 0.0, "p50_ms": 0.0, "p99_ms": 0.0}
    seconds = max(times) - min(times)
    return {
        "writes": len(times),
        "seconds": round(seconds, 3),
        "writes_per_s": round(len(times) / seconds, 1) if seconds else 0.0,
        "p50_ms": percentile(latencies, 0.50),
        "p99_ms": percentile(latencies, 0.99),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of ``ordered`` lies (nearest rank)."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _first(words: Sequence[str], count: int) -> Counter[str]:
    """The first ``count`` words of a text that begins anew at its end."""
    rounds, rest = divmod(count, len(words))
    counted = Counter({word: times * rounds for word, times in Counter(words).items()})
    counted.update(words[:rest])
    return counted


def _rounded(later: float | None, earlier: float) -> float | None:
    return None if later is None else round(later - earlier, 4)
