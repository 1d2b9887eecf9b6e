"""The demo's replicated class: counts words. This is all that a user of Copycat has to write."""

from __future__ import annotations

import re

from ..machine import StateMachine, command, query

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


class WordCount(StateMachine):
    """How often each word was added."""

    type_name = "copycat.demo.words"

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    @command
    def add(self, word: str) -> int:
        """Count one more ``word``; how often it was counted so far."""
        count = self.counts[word] = self.counts.get(word, 0) + 1
        return count

    @query
    def table(self) -> dict[str, int]:
        """All counts."""
        return self.counts


def words_of(text: str) -> list[str]:
    """The words of ``text`` in order, in lower case."""
    return _WORD.findall(text.lower())
