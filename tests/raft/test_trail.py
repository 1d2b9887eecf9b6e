"""The trail against the plainest possible model: a list of terms."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantViolated
from copycat.ports import Random
from copycat.raft import Trail


class Model:
    """Every entry's term in a dict."""

    def __init__(self) -> None:
        self.base = 0
        self.terms = {0: 0}

    @property
    def last(self) -> int:
        """The last index."""
        return max(self.terms)

    def last_at_most(self, index: int, term: int) -> int | None:
        """None: somewhere below the base."""
        fitting = [i for i, t in self.terms.items() if i <= index and t <= term]
        return max(fitting, default=None)


def change(random: Random, trail: Trail, model: Model) -> None:
    """One random change to both."""
    chance = random.random()
    if chance < 0.6 or model.last == model.base:
        term = model.terms[model.last] + random.choice((0, 0, 1, 3))
        first, last = model.last + 1, model.last + random.randint(1, 5)
        trail.extend(first, last, term)
        model.terms.update(dict.fromkeys(range(first, last + 1), term))
    elif chance < 0.8:
        index = random.randint(model.base + 1, model.last)
        trail.truncate(index)
        model.terms = {i: t for i, t in model.terms.items() if i < index}
    elif chance < 0.98:
        index = random.randint(model.base, model.last)
        trail.compact(index, model.terms[index])
        model.terms = {i: t for i, t in model.terms.items() if i >= index}
        model.base = index
    else:
        index, term = model.last + 7, model.terms[model.last] + 1
        trail.reset(index, term)
        model.base, model.terms = index, {index: term}


@pytest.mark.parametrize("seed", range(30))
def test_the_trail_knows_what_a_list_of_terms_knows(seed: int) -> None:
    """Terms, hints and bounds agree with the model after every change."""
    random = Random(seed)
    trail, model = Trail(), Model()
    for _ in range(60):
        change(random, trail, model)
        assert (trail.base_index, trail.last_index) == (model.base, model.last)
        assert (trail.base_term, trail.last_term) == (
            model.terms[model.base],
            model.terms[model.last],
        )
        for index, term in model.terms.items():
            assert trail.term_at(index) == term
            assert trail.holds(index, term)
            assert not trail.holds(index, term + 1)
        for _ in range(10):
            index = random.randint(model.base, model.last + 2)
            term = random.randint(0, trail.last_term + 1)
            expected = model.last_at_most(index, term)
            found = trail.last_at_most(index, term)
            assert found == (model.base - 1 if expected is None else expected)
        again = Trail(trail.base_index, trail.base_term, trail.runs, trail.last_index)
        assert again.runs == trail.runs
        firsts = [first for first, _ in trail.runs]
        assert firsts == sorted(set(firsts))
        assert all(model.base < first <= model.last for first in firsts)


def test_a_term_outside_of_the_trail_is_never_guessed() -> None:
    """Below the base and behind the end there is no answer, not even 0 (H21)."""
    trail = Trail(5, 2, [(6, 2), (8, 3)], 9)
    assert trail.term_at(5) == 2
    for index in (0, 4, 10):
        assert not trail.holds(index, 0)
        with pytest.raises(InvariantViolated):
            trail.term_at(index)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda trail: trail.extend(11, 12, 3),
        lambda trail: trail.extend(10, 9, 3),
        lambda trail: trail.extend(10, 10, 2),
        lambda trail: trail.truncate(5),
        lambda trail: trail.truncate(10),
        lambda trail: trail.compact(9, 2),
        lambda trail: trail.compact(10, 3),
    ],
)
def test_what_cannot_be_is_refused(misuse: object) -> None:
    """Holes, falling terms, and cuts outside of the trail are our own bugs."""
    trail = Trail(5, 2, [(6, 2), (8, 3)], 9)
    with pytest.raises(InvariantViolated):
        misuse(trail)  # type: ignore[operator]


def test_a_hint_below_the_base_points_below_it() -> None:
    """Where only compacted entries can match, the answer asks for a snapshot."""
    trail = Trail(5, 2, [(6, 2), (8, 3)], 9)
    assert trail.last_at_most(9, 1) == 4
    assert trail.last_at_most(3, 9) == 3
    assert trail.last_at_most(7, 2) == 7
    assert trail.last_at_most(9, 2) == 7
