"""Terms of a log's entries, kept as stretches: a handful of numbers for millions of entries."""

from __future__ import annotations

from bisect import bisect_right


class Terms:
    """(first index, term) of each stretch above a base, whose own term is known too."""

    __slots__ = ("_firsts", "_terms", "base_index", "base_term")

    def __init__(self, base_index: int = 0, base_term: int = 0) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self._firsts: list[int] = []
        self._terms: list[int] = []

    @property
    def runs(self) -> list[tuple[int, int]]:
        """All stretches, in order."""
        return list(zip(self._firsts, self._terms, strict=True))

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._terms[-1] if self._terms else self.base_term

    def at(self, index: int) -> int:
        """The term at ``index``, which lies at or above the base."""
        run = bisect_right(self._firsts, index) - 1
        return self._terms[run] if run >= 0 else self.base_term

    def append(self, first_index: int, term: int) -> None:
        """From ``first_index`` on, entries have ``term``."""
        if not self._terms or self._terms[-1] != term:
            self._firsts.append(first_index)
            self._terms.append(term)

    def truncate(self, from_index: int) -> None:
        """Forget what is said about ``from_index`` and later."""
        while self._firsts and self._firsts[-1] >= from_index:
            self._firsts.pop()
            self._terms.pop()

    def compact(self, base_index: int) -> None:
        """Move the base up to ``base_index``."""
        self.base_term = self.at(base_index)
        passed = bisect_right(self._firsts, base_index)
        following = self._firsts[passed] if passed < len(self._firsts) else None
        del self._firsts[:passed], self._terms[:passed]
        if passed and following != base_index + 1:
            self._firsts.insert(0, base_index + 1)
            self._terms.insert(0, self.base_term)
        self.base_index = base_index
