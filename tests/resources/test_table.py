"""Large tables: order, pages, and what is frozen while they change."""

from __future__ import annotations

import random
from typing import Any

import pytest

from copycat.resources import table as table_module
from copycat.resources.table import LEAF, Frozen, Table


@pytest.fixture(params=[2, 9], ids=["small leaves", "leaves"])
def leaf_bits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How large leaves are: small ones meet each other more often."""
    bits: int = request.param
    monkeypatch.setattr(table_module, "LEAF_BITS", bits)
    monkeypatch.setattr(table_module, "LEAF", 1 << bits)
    monkeypatch.setattr(table_module, "IN_LEAF", (1 << bits) - 1)
    return bits


def content(table: Table) -> list[tuple[Any, Any, int]]:
    return [row[1:] for row in table.after(0)]


def image(frozen: Frozen) -> list[Any]:
    return [list(each) for each in frozen]


def restored(table: Table, images: list[Any]) -> Table:
    other = Table()
    for serial, terms in other.restore(table.serial, images):
        assert table.terms(serial) == terms
    return other


@pytest.mark.parametrize("seed", range(12))
def test_a_table_is_a_dict_in_order_of_insertion(seed: int, leaf_bits: int) -> None:
    """Random writes leave what a dict would have, pages begin anywhere, and a copy by way of a
    snapshot is the same, and has the same snapshot, whatever became of the holes in between."""
    chance = random.Random(seed)
    table, model = Table(), dict[int, tuple[int, int]]()
    for step in range(1500):
        key = chance.randrange(1 << chance.choice((3, 6, 9)))
        kind = chance.random()
        if kind < 0.5 + 0.2 * (seed % 3):
            terms = [chance.randrange(9), chance.randrange(9)] if chance.random() < 0.1 else None
            assert table.get(key) == model.get(key, (None, 0))[0]
            assert table.terms(table.put(key, step, step, terms)) == terms
            model[key] = (step, step)
        elif kind < 0.995:
            if key in model:
                assert table.pop(key) == model.pop(key)[0]
        else:
            table.clear()
            model.clear()
        assert table.find(key) == model.get(key)
        if step % 50 == 0:
            assert content(table) == [(key, *pair) for key, pair in model.items()]
            serial = chance.choice([0, *table.serials.values()])
            assert [row[0] for row in table.after(serial)] == [
                each for each in table.serials.values() if each > serial
            ]
            assert len(table) == len(model)
            frozen = image(table.freeze())
            again = restored(table, frozen)
            assert content(again) == content(table) and again.serials == table.serials
            assert image(again.freeze()) == frozen
            if chance.random() < 0.3:
                table = again


@pytest.mark.parametrize("seed", range(12))
def test_what_is_frozen_does_not_change(seed: int, leaf_bits: int) -> None:
    """Several snapshots, begun at different times and taken slowly, each show their own moment."""
    chance = random.Random(seed)
    table, slow = Table(), list[tuple[Frozen, list[Any], list[Any]]]()
    for step in range(1200):
        key = chance.randrange(200)
        if chance.random() < 0.7:
            table.put(key, step, step, [step, 1] if chance.random() < 0.1 else None)
        elif key in table:
            table.pop(key)
        if step % 97 == 0:
            slow.append((table.freeze(), image(table.freeze()), []))
        if chance.random() < 0.01:
            table.clear()
        if chance.random() < 0.004 and slow:
            del slow[chance.randrange(len(slow))]  # nobody wants that one any more
        for frozen, _, taken in slow:
            if chance.random() < 0.3:
                taken.extend(each for each in [next(frozen, None)] if each is not None)
    assert slow
    for frozen, expected, taken in slow:
        assert [*taken, *frozen] == expected
    slow.clear()
    del frozen
    table.put(0, 0, 0)
    table.put(0, 0, 0)
    assert table.frozen == []


def test_a_leaf_is_copied_once() -> None:
    """Who writes while a snapshot is taken copies a leaf at its first change only."""
    table = Table()
    for number in range(4 * LEAF):
        table.put(number, number, 1)
    frozen = table.freeze()
    for number in range(3 * LEAF):
        table.put(number, 0, 2)
    assert len(frozen._copies) == 3
    assert sum(len(each[3]) for each in frozen) == 4 * LEAF
