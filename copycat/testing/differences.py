"""The first place at which two values differ, as a path that the author of a class recognizes.

It compares what the serializer makes of them, as members do: ``1`` and ``1.0`` differ, equal sets
never do, and a dict whose keys lie in another order does. It serves `determinism`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import SerializationError
from ..serializer import Serializer

SHOWN = 40
_MISSING = object()
_WHOLE = "snapshot()"


def difference(one: object, other: object) -> str:
    """What differs between two states that are not the same: ``.ledger[3].at differs: ...``."""
    return _Finder().find("", one, other)


def shown(value: object) -> str:
    """A value in a message: its beginning."""
    if value is _MISSING:
        return "nothing"
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


class _Finder:
    """Descends into two values that differ."""

    def __init__(self) -> None:
        self._serializer = Serializer()

    def find(self, path: str, one: Any, other: Any) -> str:
        """Descend to the first difference below ``path``; both sides differ."""
        if type(one) is type(other):
            if isinstance(one, dict):
                return self._in_dicts(path, one, other)
            if isinstance(one, list | tuple):
                return self._in_sequences(path, one, other)
            if dataclasses.is_dataclass(one) and not isinstance(one, type):
                for field in dataclasses.fields(one):
                    here, there = getattr(one, field.name), getattr(other, field.name)
                    if self._differ(here, there):
                        return self.find(f"{path}.{field.name}", here, there)
            if isinstance(one, set | frozenset) and one ^ other:
                odd = sorted(map(shown, one ^ other))[0]
                return f"{path or _WHOLE} differs: {odd} is only in one of them"
        return f"{path or _WHOLE} differs: {shown(one)} and {shown(other)}"

    def _in_dicts(self, path: str, one: dict[Any, Any], other: dict[Any, Any]) -> str:
        for key in [*one, *(key for key in other if key not in one)]:
            here, there = one.get(key, _MISSING), other.get(key, _MISSING)
            if here is _MISSING or there is _MISSING or self._differ(here, there):
                return self.find(self._key(path, key), here, there)
        for here, there in zip(one, other, strict=True):
            if self._differ(here, there):
                return f"{path or _WHOLE} differs: its keys lie in another order"
        return f"{path or _WHOLE} differs"

    def _in_sequences(self, path: str, one: Any, other: Any) -> str:
        for nth, (here, there) in enumerate(zip(one, other, strict=False)):
            if self._differ(here, there):
                return self.find(f"{path}[{nth}]", here, there)
        return f"{path or _WHOLE} differs: {len(one)} and {len(other)} elements"

    @staticmethod
    def _key(path: str, key: object) -> str:
        """Names of attributes at the top, keys below."""
        if not path and isinstance(key, str) and key.isidentifier():
            return f".{key}"
        return f"{path}[{shown(key)}]"

    def _differ(self, one: object, other: object) -> bool:
        try:
            return self._serializer.pack_state(one) != self._serializer.pack_state(other)
        except SerializationError:
            return bool(one != other)
