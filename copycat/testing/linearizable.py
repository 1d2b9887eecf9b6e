"""Is there an order of a history's operations that explains all answers? The linearizability check.

An order explains a history if the model accepts every answer in it, and no operation stands before
one that had ended when it began. The search follows Wing and Gong, with Lowe's remembered
configurations: those who were ordered already, and the state they led to, are tried once.

An operation of unknown outcome may stand anywhere from its invocation on, or be left out. Such
operations are what makes the search explode, so it takes one only when nothing else fits, and only
where it makes a difference (see `_Search`).

It decides from the history alone, and never says "good" because it got tired: that is "undecided".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from .history import Operation, Outcome
from .models import Model

S = TypeVar("S", bound=Hashable)

CONFIGURATIONS = 1_000_000
"""How many configurations of one key are looked at before the verdict is "undecided"."""

Finding = Literal["good", "bad", "undecided"]
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check; ``configurations`` is how much of the search it took."""

    finding: Finding
    text: str
    configurations: int

    def __str__(self) -> str:
        return self.text


def check(
    operations: Iterable[Operation], model: Model[S], *, limit: int = CONFIGURATIONS
) -> Verdict:
    """Judge a history key by key; each key may use ``limit`` configurations.

    One bad key makes it bad; else one undecided key makes it undecided.
    """
    keys: dict[Hashable, list[Operation]] = {}
    count = total = 0
    for operation in operations:
        keys.setdefault(operation.key, []).append(operation)
        count += 1
    undecided: list[str] = []
    for key, some in keys.items():
        search = _Search(some, model, limit)
        finding = search.run()
        total += search.configurations
        if finding == "bad":
            return Verdict("bad", f"key {key!r} is not linearizable\n{_explain(search)}", total)
        if finding == "undecided":
            undecided.append(f"key {key!r}: no verdict on {len(some)} operations within {limit:,}")
    if undecided:
        return Verdict("undecided", "\n".join(undecided), total)
    return Verdict("good", f"{count:,} operations on {len(keys):,} keys are linearizable", total)


@dataclass(slots=True, eq=False)
class _Path(Generic[S]):
    """An order so far, its last operation first; shared by all that go on from it."""

    operation: Operation
    state: S
    before: _Path[S] | None


@dataclass(slots=True, eq=False)
class _Configuration(Generic[S]):
    """A point of the search, and what is left to be tried there."""

    state: S
    answered: int  # bits of the answered operations that have their place
    unanswered: int  # the same for the others
    path: _Path[S] | None
    options: Iterator[int]
    detour: _Configuration[S] | None  # where it came from, if by an unanswered operation
    choice: int = -1  # the option that is being followed


class _Search(Generic[S]):
    """The search on one key.

    Answered operations stand in a linked list of their events: entry ``i`` is the invocation of
    the i-th of them, ``n + i`` its end. Those that may come next begin before the list's first end.

    Four rules keep it small; each drops a configuration only if another one, at least as near to
    success, is tried anyway:

    * What changes nothing and fits now comes next: it is in nobody's way.
    * A configuration that differs from one seen before only by having used up more is not tried.
    * After an unanswered operation comes one that tells the difference: had it been accepted
      without it and led to the same state, then the detour was for nothing.
    * Of those that can stand for each other, the one that began first is taken first.
    """

    def __init__(self, operations: Sequence[Operation], model: Model[S], limit: int) -> None:
        self.operations = operations
        self.model = model
        self.limit = limit
        self.configurations = 0
        self.best: _Path[S] | None = None
        self._best_count = 0
        answered = [each for each in operations if each.outcome is Outcome.OK]
        self.answered = sorted(answered, key=_begin)
        self._reads = [model.reads(each) for each in self.answered]
        unanswered = [
            each for each in operations if each.outcome is Outcome.UNKNOWN and not model.reads(each)
        ]
        self.unanswered = sorted(unanswered, key=_begin)
        kinds: dict[Hashable, list[int]] = {}
        for number, each in enumerate(self.unanswered):
            kinds.setdefault(model.effect(each), []).append(number)
        self._kinds = list(kinds.values())  # by their first ones
        self._begins = [self.unanswered[kind[0]].begin for kind in self._kinds]
        self._link()
        # (the first without a place, who of the later ones has one, state) -> unanswered ones used
        self._seen: dict[tuple[int, int, S], list[int]] = {}

    # -- the list ------------------------------------------------------------------------------

    def _link(self) -> None:
        count = len(self.answered)
        self._ends = [_end(each) for each in self.answered]
        events = [(each.begin, number) for number, each in enumerate(self.answered)]
        events += [(end, count + number) for number, end in enumerate(self._ends)]
        events.sort()
        head = 2 * count
        self._after = [head] * (head + 1)
        self._before = [head] * (head + 1)
        last = head
        for _, entry in events:
            self._after[last], self._before[entry] = entry, last
            last = entry
        self._after[last], self._before[head] = head, last

    def _lift(self, number: int) -> None:
        for entry in (number, len(self.answered) + number):
            before, after = self._before[entry], self._after[entry]
            self._after[before], self._before[after] = after, before

    def _put_back(self, number: int) -> None:
        for entry in (len(self.answered) + number, number):
            before, after = self._before[entry], self._after[entry]
            self._after[before] = self._before[after] = entry

    def _options(self, state: S, used: int) -> Iterator[int]:
        """Who may come next: answered ones by number, then unanswered ones by ``~number``."""
        count = len(self.answered)
        entry = self._after[2 * count]
        answered = []
        while entry < count:
            answered.append(entry)
            if self._reads[entry] and self.model.step(state, self.answered[entry])[0]:
                yield entry
                return
            entry = self._after[entry]
        yield from answered
        horizon = self._ends[entry - count]
        begun = bisect_left(self._begins, horizon)  # the latest first: most effects come soon
        for kind in reversed(self._kinds[:begun]):
            for number in kind:
                if not used >> number & 1:
                    if self.unanswered[number].begin < horizon:
                        yield ~number
                    break

    # -- the search ----------------------------------------------------------------------------

    def run(self) -> Finding:
        """Search to the end, or to the limit."""
        if not self.answered:
            return "good"
        everybody = (1 << len(self.answered)) - 1
        state = self.model.initial()
        self._is_new(0, 0, state)
        way = [_Configuration(state, 0, 0, None, self._options(state, 0), None)]
        while way:
            here = way[-1]
            there = self._next(here)
            if there is None:
                way.pop()
                if way and way[-1].choice >= 0:
                    self._put_back(way[-1].choice)
            elif there.answered == everybody:
                self.best = there.path
                return "good"
            elif self.configurations >= self.limit:
                return "undecided"
            else:
                way.append(there)
        return "bad"

    def _next(self, here: _Configuration[S]) -> _Configuration[S] | None:
        """The next new configuration after this one; what it places is lifted off the list."""
        for choice in here.options:
            known = choice >= 0
            operation = self.answered[choice] if known else self.unanswered[~choice]
            accepted, state = self.model.step(here.state, operation)
            if not accepted:
                continue
            detour = here.detour
            if detour and self.model.step(detour.state, operation) == (True, state):
                continue
            answered = here.answered | 1 << choice if known else here.answered
            unanswered = here.unanswered if known else here.unanswered | 1 << ~choice
            if known:
                self._lift(choice)
            if not self._is_new(answered, unanswered, state):
                if known:
                    self._put_back(choice)
                continue
            here.choice = choice
            path = _Path(operation, state, here.path)
            if known and (placed := answered.bit_count()) > self._best_count:
                self.best, self._best_count = path, placed
            options = self._options(state, unanswered)
            origin = None if known else here
            return _Configuration(state, answered, unanswered, path, options, origin)
        return None

    def _is_new(self, answered: int, unanswered: int, state: S) -> bool:
        first = self._after[2 * len(self.answered)]  # an invocation, or the head if none is left
        seen = self._seen.setdefault((first, answered >> first, state), [])
        for fewer in seen:
            if fewer & unanswered == fewer:
                return False
        seen.append(unanswered)
        self.configurations += 1
        return True


# -- the explanation -------------------------------------------------------------------------------


def _explain(search: _Search[S]) -> str:
    """Why a history is bad: where it became so, and how far an order could be found."""
    ends = sorted(_end(each) for each in search.answered)
    good, bad = 0, len(ends)  # so many ends can be explained, so many cannot
    shortest, proven = search, True
    while bad - good > 1:
        middle = (good + bad) // 2
        attempt = _Search(_until(search.operations, ends[middle - 1]), search.model, search.limit)
        finding = attempt.run()
        if finding == "bad":
            bad, shortest = middle, attempt
        else:
            good = middle
            proven = proven and finding == "good"
    last = next(each for each in search.answered if _end(each) == ends[bad - 1])
    head = f"of {len(ends)} answers, the first {bad} fit no order; the last of them:"
    lines = [head, f"    {last}", *_best_order(shortest), *_left_over(shortest)]
    if not proven:
        lines.append("(whether a shorter beginning is to blame took too long to decide)")
    return "\n".join(lines)


def _until(operations: Sequence[Operation], place: int) -> list[Operation]:
    """The history up to a place: what had not ended by then could still have any answer."""
    return [
        replace(each, outcome=Outcome.UNKNOWN)
        if each.outcome is Outcome.OK and _end(each) > place
        else each
        for each in operations
        if each.begin < place
    ]


def _best_order(search: _Search[S]) -> Iterator[str]:
    order = _order(search.best)
    if not order:
        yield f"from the beginning, {search.model.initial()!r}, nothing can be ordered:"
        return
    skipped = len(order) - _SHOWN
    yield "the longest order found, with the state after each:"
    if skipped > 0:
        yield f"    ... {skipped} more ..."
    for step in order[-_SHOWN:]:
        yield f"    {step.operation}  => {step.state!r}"
    yield "after it, these fit nowhere:"


def _left_over(search: _Search[S]) -> Iterator[str]:
    placed = {id(step.operation) for step in _order(search.best)}
    left = [each for each in search.answered if id(each) not in placed]
    unused = [each for each in search.unanswered if id(each) not in placed]
    for each in left[:_SHOWN]:
        yield f"    {each}"
    if len(left) > _SHOWN:
        yield f"    ... {len(left) - _SHOWN} more ..."
    if unused:
        yield f"nor do they with any of {len(unused)} operations that had no answer then:"
        for each in unused[-_SHOWN:]:
            yield f"    {replace(each, outcome=Outcome.UNKNOWN)}"


def _order(path: _Path[S] | None) -> list[_Path[S]]:
    order = []
    while path is not None:
        order.append(path)
        path = path.before
    return order[::-1]


def _begin(operation: Operation) -> int:
    return operation.begin


def _end(operation: Operation) -> int:
    if operation.end is None:
        raise ValueError(f"an answered operation has no end: {operation}")
    return operation.end
