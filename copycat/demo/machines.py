"""The demo's own state machine: what a user of the library would write.

It counts words and knows nothing of clusters; every member runs it. The demo's client processes
call it through a typed handle.
"""

from __future__ import annotations

from itertools import islice

from copycat import StateMachine, command, query


class WordCount(StateMachine):
    """How often each word was seen."""

    type_name = "copycat.demo.WordCount"

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    @command
    def count(self, words: list[str]) -> int:
        """Count the words of one line; returns how many different words are known now."""
        for word in words:
            self.counts[word] = self.counts.get(word, 0) + 1
        return len(self.counts)

    @query
    def page(self, start: int, size: int) -> list[tuple[str, int]]:
        """Up to ``size`` words with their counts, from position ``start`` on."""
        return list(islice(self.counts.items(), start, start + size))
