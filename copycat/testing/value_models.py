"""What sets, multimaps, lists and references promise, one operation at a time; see `models`."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ..errors import MisuseError
from .models import Sequential

Items = tuple[Hashable, ...]


class Reference(Sequential[Hashable]):
    """An `AsyncReference` or an `AsyncBoolean`, ``initial`` at first."""

    queries = frozenset({"get"})
    conditional = frozenset({"compare_and_set"})

    def __init__(self, initial: Hashable = None) -> None:
        self._initial = initial

    def initial(self) -> Hashable:
        """See `Sequential`."""
        return self._initial

    def apply(
        self, state: Hashable, name: str, arguments: tuple[Any, ...]
    ) -> tuple[object, Hashable]:
        """See `Sequential`."""
        match name, arguments:
            case "get", ():
                return state, state
            case "set", (value,):
                return None, value
            case "get_and_set", (value,):
                return state, value
            case "compare_and_set", (expected, value):
                return state == expected, value if state == expected else state
        raise _unknown(name, arguments)


class Set(Sequential[frozenset[Hashable]]):
    """An `AsyncSet`; a multimap is one of pairs."""

    queries = frozenset({"contains", "size"})
    conditional = frozenset({"add", "remove"})

    def initial(self) -> frozenset[Hashable]:
        """Empty."""
        return frozenset()

    def apply(
        self, state: frozenset[Hashable], name: str, arguments: tuple[Any, ...]
    ) -> tuple[object, frozenset[Hashable]]:
        """See `Sequential`."""
        match name, arguments:
            case "contains", (value,):
                return value in state, state
            case "size", ():
                return len(state), state
            case "add", (value,):
                return value not in state, state | {value}
            case "remove", (value,):
                return value in state, state - {value}
            case "clear", ():
                return None, frozenset()
        raise _unknown(name, arguments)


class MultiMap(Sequential[frozenset[tuple[Hashable, Hashable]]]):
    """An `AsyncMultiMap`."""

    queries = frozenset({"get", "size", "contains"})
    conditional = frozenset({"put", "remove_value"})

    def initial(self) -> frozenset[tuple[Hashable, Hashable]]:
        """Empty."""
        return frozenset()

    def apply(
        self, state: frozenset[tuple[Hashable, Hashable]], name: str, arguments: tuple[Any, ...]
    ) -> tuple[object, frozenset[tuple[Hashable, Hashable]]]:
        """See `Sequential`."""
        match name, arguments:
            case "get", (key,):
                return {value for each, value in state if each == key}, state
            case "contains", (key,):
                return any(each == key for each, _ in state), state
            case "size", ():
                return len(state), state
            case "put", (key, value):
                return (key, value) not in state, state | {(key, value)}
            case "remove_value", (key, value):
                return (key, value) in state, state - {(key, value)}
            case "remove", (key,):
                gone = {pair for pair in state if pair[0] == key}
                return {value for _, value in gone}, state - gone
        raise _unknown(name, arguments)


class List(Sequential[Items]):
    """An `AsyncList`; what raises ``IndexError`` is recorded as that error's class."""

    queries = frozenset({"get", "size", "contains"})
    conditional = frozenset({"remove"})

    def initial(self) -> Items:
        """Empty."""
        return ()

    def apply(self, state: Items, name: str, arguments: tuple[Any, ...]) -> tuple[object, Items]:
        """See `Sequential`."""
        items = list(state)
        answer: object = None
        match name, arguments:
            case "append", (value,):
                items.append(value)
            case "extend", values:
                items.extend(values)
            case "insert", (index, value):
                items.insert(index, value)
            case "get", (index,):
                answer = items[index] if -len(items) <= index < len(items) else IndexError
            case "set", (index, value):
                answer = IndexError
                if -len(items) <= index < len(items):
                    answer, items[index] = items[index], value
            case "pop", (index,):
                answer = items.pop(index) if -len(items) <= index < len(items) else IndexError
            case "remove", (value,):
                answer = value in items
                if answer:
                    items.remove(value)
            case "contains", (value,):
                answer = value in items
            case "size", ():
                answer = len(items)
            case _:
                raise _unknown(name, arguments)
        return answer, tuple(items)


def _unknown(name: str, arguments: tuple[Any, ...]) -> MisuseError:
    return MisuseError(f"the model has no operation {name} with arguments {arguments}")
