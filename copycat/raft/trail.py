"""The trail: the log as Raft sees it, terms of indexes without any payload.

A run is a first index and the term that all entries from there to the next run share, so a trail
of millions of entries is a handful of numbers. Before the first run stands the base: the last
compacted entry, of which only index and term are known (H21). Never touches the log itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ..errors import InvariantViolated, invariant


class Trail:
    """Terms of the entries ``base_index`` (compacted, but its term is known) to ``last_index``.

    Args:
        base_index, base_term: the last compacted entry; 0 and 0 for a log that is whole.
        runs: (first index, term) of each run, rising in both; the first begins behind the base.
        last_index: of the last entry; by default the base's, for an empty log.
    """

    __slots__ = ("_firsts", "_terms", "base_index", "base_term", "last_index")

    def __init__(
        self,
        base_index: int = 0,
        base_term: int = 0,
        runs: Sequence[tuple[int, int]] = (),
        last_index: int | None = None,
    ) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self.last_index = base_index
        self._firsts: list[int] = []
        self._terms: list[int] = []
        end = base_index if last_index is None else last_index
        lasts = [first - 1 for first, _ in runs[1:]] + [end] * bool(runs)
        for (first, term), last in zip(runs, lasts, strict=True):
            self.extend(first, last, term)
        invariant(self.last_index == end, f"the runs {list(runs)} do not end at {end}")

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._terms[-1] if self._terms else self.base_term

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(first index, term) of each run."""
        return list(zip(self._firsts, self._terms, strict=True))

    def term_at(self, index: int) -> int:
        """The term of the entry at ``index``, which must lie within the trail (H21)."""
        if self._firsts and self._firsts[-1] <= index <= self.last_index:
            return self._terms[-1]
        invariant(
            self.base_index <= index <= self.last_index,
            f"the term at {index} was asked of a trail from {self.base_index} to {self.last_index}",
        )
        run = bisect_right(self._firsts, index) - 1
        return self._terms[run] if run >= 0 else self.base_term

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry at ``index`` is here (or is the base) and has ``term``."""
        return self.base_index <= index <= self.last_index and self.term_at(index) == term

    def last_at_most(self, index: int, term: int) -> int:
        """The largest index up to ``index`` whose term is at most ``term``.

        This is the conflict hint: where the other log has a smaller term, none of our entries with
        larger terms can match it, so whole terms are skipped at once. An answer below the base
        only says that the place lies somewhere down there.
        """
        index = min(index, self.last_index)
        if index < self.base_index:
            return index
        for run in range(bisect_right(self._firsts, index) - 1, -1, -1):
            if self._terms[run] <= term:
                return index
            index = self._firsts[run] - 1
        return self.base_index if self.base_term <= term else self.base_index - 1

    def extend(self, first_index: int, last_index: int, term: int) -> None:
        """Add the entries ``first_index`` to ``last_index``, all of ``term``, at the end."""
        if first_index != self.last_index + 1 or last_index < first_index:
            raise InvariantViolated(
                f"entries {first_index} to {last_index} do not follow {self.last_index}"
            )
        if term < self.last_term:
            raise InvariantViolated(
                f"an entry of term {term} cannot follow one of term {self.last_term}"
            )
        if not self._terms or self._terms[-1] != term:
            self._firsts.append(first_index)
            self._terms.append(term)
        self.last_index = last_index

    def truncate(self, from_index: int) -> None:
        """Drop the entries from ``from_index`` on."""
        invariant(
            self.base_index < from_index <= self.last_index,
            f"cannot truncate from {from_index}: the trail goes from {self.base_index} to "
            f"{self.last_index}",
        )
        while self._firsts and self._firsts[-1] >= from_index:
            self._firsts.pop()
            self._terms.pop()
        self.last_index = from_index - 1

    def compact(self, index: int, term: int) -> None:
        """Move the base up to ``index``; what lies below is known to be in a snapshot."""
        if index <= self.base_index:
            return
        invariant(self.holds(index, term), f"cannot compact to {index}: its term is not {term}")
        passed = bisect_right(self._firsts, index)
        last_passed = self._terms[passed - 1]
        del self._firsts[:passed], self._terms[:passed]
        if index < self.last_index and (not self._firsts or self._firsts[0] > index + 1):
            self._firsts.insert(0, index + 1)
            self._terms.insert(0, last_passed)
        self.base_index = index
        self.base_term = term

    def reset(self, index: int, term: int) -> None:
        """Begin anew behind ``index``: a snapshot replaces everything."""
        self.base_index = self.last_index = index
        self.base_term = term
        self._firsts.clear()
        self._terms.clear()
