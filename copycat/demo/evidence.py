"""The judge: compares what the clients wrote down with what the cluster holds, and says what is off.

Pure functions over the records of a run: nothing here asks the cluster, reads a file or looks at a
clock, so every kind of tampering can be tried in a test. A command whose outcome its client never
learned may have been applied or not; each such command widens what is accepted by exactly one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .records import Operation, Stamp, Worker

DETAILS_MAX = 20
WRITES = ("count", "increment", "report")


@dataclass(slots=True)
class Kill:
    """One SIGKILL of a leader; times in seconds of the monotonic clock."""

    member: str
    pid: int
    term: int
    at: float
    elected_at: float | None = None
    new_leader: str = ""
    new_term: int = 0
    restarted_at: float | None = None
    back_at: float | None = None
    """When the restarted member had applied what was committed by then."""


@dataclass(slots=True)
class Evidence:
    """Everything that is known about a run, each part from its own source."""

    lines: list[list[str]]
    workers: list[Worker]
    exit_codes: dict[str, int | None]
    stamps: list[Stamp]
    words: dict[str, int]
    counter: int
    digest_index: int
    digests: dict[str, str | None]
    kills: list[Kill]
    kills_planned: int


@dataclass(slots=True)
class Check:
    """One thing that must hold; ``problems`` says how it does not."""

    name: str
    expected: str
    found: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.problems


def judge(evidence: Evidence) -> list[Check]:
    """All checks of a run."""
    return [
        check_words(evidence),
        check_counter(evidence),
        check_overlaps(evidence),
        check_tokens(evidence.stamps),
        check_terms(evidence.workers),
        check_digests(evidence),
        check_kills(evidence),
        check_clients(evidence),
    ]


# -- the checks --------------------------------------------------------------------------------


def check_words(evidence: Evidence) -> Check:
    """Every word was counted as often as its lines were acknowledged."""
    sure: Counter[int] = Counter()
    doubtful: Counter[int] = Counter()
    for operation in _operations(evidence.workers, "count"):
        _tally(operation, operation.line, sure, doubtful)
    least = _words_in(evidence.lines, sure)
    more = _words_in(evidence.lines, doubtful)
    problems = []
    for word in sorted(least.keys() | more.keys() | evidence.words.keys()):
        low, found = least[word], evidence.words.get(word, 0)
        if not low <= found <= low + more[word]:
            problems.append(f"{word!r}: expected {_between(low, low + more[word])}, found {found}")
    total, in_doubt, found = least.total(), more.total(), sum(evidence.words.values())
    if not total:
        problems.append("no word was counted")
    return Check(
        "words",
        f"{_between(total, total + in_doubt)} of {len(least)} kinds",
        f"{found:,} of {len(evidence.words)} kinds",
        {
            "lines_acknowledged": sure.total(), "lines_unknown": doubtful.total(),
            "expected": total, "expected_at_most": total + in_doubt, "found": found,
            "distinct_expected": len(least), "distinct_found": len(evidence.words),
            "differing": len(problems),
        },
        problems,
    )  # fmt: skip


def check_counter(evidence: Evidence) -> Check:
    """The counter is the number of acknowledged increments, and no two got the same answer."""
    sure: Counter[int] = Counter()
    doubtful: Counter[int] = Counter()
    answers: Counter[int] = Counter()
    for operation in _operations(evidence.workers, "increment"):
        _tally(operation, 0, sure, doubtful)
        if operation.done is not None:
            answers[operation.value] += 1
    low, high, found = sure.total(), sure.total() + doubtful.total(), evidence.counter
    problems = [
        f"{times} increments were answered with {value}"
        for value, times in sorted(answers.items())
        if times > 1
    ]
    if not low <= found <= high:
        problems.append(f"{_between(low, high)} increments, but the counter is {found}")
    problems += [f"an increment was answered with {n}" for n in answers if not 0 < n <= found]
    if not low:
        problems.append("nothing was incremented")
    facts = {"acknowledged": low, "unknown": high - low, "found": found}
    return Check("counter", _between(low, high), f"{found:,}", facts, problems)


def check_overlaps(evidence: Evidence) -> Check:
    """Between a begin and its end nobody else wrote, and nobody wrote after losing the lock."""
    lost = {
        (worker.name, note["token"]): note["t"]
        for worker in evidence.workers
        for note in worker.noted("lock lost")
    }
    problems: list[str] = []
    current: Stamp | None = None
    turns = 0
    for stamp in evidence.stamps:
        if stamp.kind == "begin":
            turns += 1
            if (
                current is not None
                and lost.get((current.who, current.token), stamp.t + 1) > stamp.t
            ):
                problems.append(f"{_turn(stamp)} began inside {_turn(current)}")
            current = stamp
        elif current is None or (current.token, current.who) != (stamp.token, stamp.who):
            problems.append(f"{_turn(stamp)} ended outside of its turn")
        else:
            current = None
    if current is not None and (current.who, current.token) not in lost:
        problems.append(f"{_turn(current)} never ended")
    for worker in evidence.workers:
        problems += [f"{worker.name}: {note['problem']}" for note in worker.noted("stale")]
    overlaps = len(problems)
    if not turns:
        problems.append("nobody ever had the lock")
    facts = {"turns": turns, "overlaps": overlaps, "lost": len(lost)}
    return Check("lock", "0 overlaps", f"{overlaps} in {turns:,} turns", facts, problems)


def check_tokens(stamps: list[Stamp]) -> Check:
    """Every turn's token is higher than the one before."""
    begins = [stamp for stamp in stamps if stamp.kind == "begin"]
    problems = [
        f"{_turn(later)} came after {_turn(earlier)}"
        for earlier, later in pairwise(begins)
        if later.token <= earlier.token
    ]
    facts = {"tokens": len(begins), "not_rising": len(problems)}
    found = "rising" if not problems else f"{len(problems)} not rising"
    if begins:
        found += f", {begins[0].token:,} to {begins[-1].token:,}"
    return Check("tokens", "strictly rising", found, facts, problems)


def check_terms(workers: list[Worker]) -> Check:
    """One elected leader at a time, each with a higher token."""
    ends = {
        note["token"]: note["t"]
        for worker in workers
        for note in [*worker.noted("term ends"), *worker.noted("term lost")]
    }
    begins = sorted(
        (note["t"], note["token"], worker.name)
        for worker in workers
        for note in worker.noted("term begins")
    )
    problems = [f"{who} never ended term {token}" for _, token, who in begins if token not in ends]
    for (_, token, who), (start, later, other) in pairwise(begins):
        if later <= token:
            problems.append(f"{other} got token {later} after {who} got {token}")
        if ends.get(token, start) > start:
            problems.append(f"{other} (token {later}) led before {who} (token {token}) ended")
    if not begins:
        problems.append("nobody was elected")
    facts = {"terms": len(begins), "leaders": len({who for _, _, who in begins})}
    found = f"{len(begins)} terms, {facts['leaders']} leaders"
    return Check("election", "one leader at a time", found, facts, problems)


def check_digests(evidence: Evidence) -> Check:
    """Every member has the same state at one index."""
    digests = evidence.digests
    problems = [f"{name} gave no digest" for name, digest in digests.items() if digest is None]
    if len(set(digests.values())) > 1:
        problems.append("they differ: " + ", ".join(f"{n} {d}" for n, d in digests.items()))
    if len(digests) < 3:
        problems.append(f"only {len(digests)} members were asked")
    facts = {"index": evidence.digest_index, "members": digests}
    same = next(iter(digests.values()), None)
    found = f"{same} at index {evidence.digest_index:,}" if not problems else problems[-1]
    return Check("digests", f"equal on {len(digests)} members", found, facts, problems)


def check_kills(evidence: Evidence) -> Check:
    """As many leaders were killed as planned; each was replaced and came back."""
    problems = []
    for kill in evidence.kills:
        if kill.elected_at is None:
            problems.append(f"nobody followed {kill.member} of term {kill.term}")
        elif kill.new_term <= kill.term or kill.new_leader == kill.member:
            problems.append(f"{kill.new_leader} leads term {kill.new_term} after {kill.term}")
        if kill.back_at is None:
            problems.append(f"{kill.member} did not come back")
    if len(evidence.kills) != evidence.kills_planned:
        problems.append(f"{evidence.kills_planned} kills were planned")
    replaced = sum(kill.elected_at is not None for kill in evidence.kills)
    found = f"{len(evidence.kills)}, {replaced} replaced"
    expected = str(evidence.kills_planned)
    return Check("leaders killed", expected, found, {"kills": len(evidence.kills)}, problems)


def check_clients(evidence: Evidence) -> Check:
    """Every client ended in good order and knows what became of each of its operations."""
    problems = [f"{n} ended with {code}" for n, code in evidence.exit_codes.items() if code != 0]
    unknown = failed = 0
    for worker in evidence.workers:
        if not worker.complete:
            problems.append(f"the log of {worker.name} is not complete")
        for number, operation in worker.operations.items():
            if operation.failure:
                failed += 1
                unknown += operation.applied == "unknown"
            elif operation.done is None:
                problems.append(f"{worker.name}: operation {number} has no outcome")
    if not evidence.workers:
        problems.append("there was no client")
    total = sum(len(worker.operations) for worker in evidence.workers)
    facts = {"clients": len(evidence.workers), "operations": total, "failed": failed,
             "unknown": unknown}  # fmt: skip
    found = f"{total:,} operations, {failed} failed, {unknown} unknown"
    return Check("clients", "every outcome recorded", found, facts, problems)


# -- helpers -----------------------------------------------------------------------------------


def _operations(workers: Iterable[Worker], kind: str) -> Iterator[Operation]:
    for worker in workers:
        for operation in worker.operations.values():
            if operation.kind == kind:
                yield operation


def _tally(operation: Operation, key: int, sure: Counter[int], doubtful: Counter[int]) -> None:
    if operation.done is not None or operation.applied == "yes":
        sure[key] += 1
    elif operation.applied != "no":
        doubtful[key] += 1


def _words_in(lines: list[list[str]], times: Counter[int]) -> Counter[str]:
    words: Counter[str] = Counter()
    for line, count in times.items():
        for word in lines[line]:
            words[word] += count
    return words


def _between(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _turn(stamp: Stamp) -> str:
    return f"{stamp.who}'s turn (token {stamp.token}, {stamp.t:.6f} s)"


__all__ = ["Check", "Evidence", "Kill", "judge"]
