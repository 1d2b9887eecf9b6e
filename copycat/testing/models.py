"""What resources promise, one operation at a time: the models that histories are compared with.

A model is a pure function from a state and an operation to whether the answer fits and the state
after it. It knows nothing of members, logs and time; ``linearizable.py`` looks for the order. Names
of operations and results are those of the client's handles (`AsyncMap`, `AsyncLong`, `AsyncLock`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Generic, Protocol, TypeVar

from ..errors import MisuseError
from .history import Operation, Outcome

S = TypeVar("S", bound=Hashable)


class Model(Protocol[S]):
    """What `linearizable.check` asks."""

    def initial(self) -> S:
        """The state of a key before its first operation."""

    def step(self, state: S, operation: Operation) -> tuple[bool, S]:
        """Whether the operation can take effect in ``state`` with the answer it got, and the state
        after it. Where the outcome is unknown, any answer will do."""

    def reads(self, operation: Operation) -> bool:
        """Whether, if its answer is what it is, it changes nothing in whatever state."""

    def effect(self, operation: Operation) -> Hashable:
        """Unanswered operations with the same effect can stand for each other."""


class Sequential(ABC, Generic[S]):
    """A model whose answers are determined by the state: only `apply` is left to write.

    Attributes:
        queries: names of operations that change nothing.
        conditional: names of operations that changed nothing if they answered False.
    """

    queries: frozenset[str] = frozenset()
    conditional: frozenset[str] = frozenset()

    @abstractmethod
    def initial(self) -> S:
        """The state of a key before its first operation."""

    @abstractmethod
    def apply(self, state: S, name: str, arguments: tuple[Any, ...]) -> tuple[object, S]:
        """The answer and the state after it. Raises `MisuseError` for a name it does not know."""

    def step(self, state: S, operation: Operation) -> tuple[bool, S]:
        """See `Model`."""
        answer, after = self.apply(state, operation.name, operation.arguments)
        fits = answer == operation.result or operation.outcome is Outcome.UNKNOWN
        return fits, after

    def reads(self, operation: Operation) -> bool:
        """See `Model`."""
        if operation.name in self.conditional:
            return operation.outcome is Outcome.OK and operation.result is False
        return operation.name in self.queries

    def effect(self, operation: Operation) -> Hashable:
        """See `Model`."""
        return operation.name, operation.arguments


Entry = tuple[Hashable, ...]
"""(value,), or () for an absent key: a key may hold None."""


class MapKey(Sequential[Entry]):
    """One key of an `AsyncMap`; what concerns several keys at once cannot be judged key by key."""

    queries = frozenset({"contains", "get"})
    conditional = frozenset({"remove_if", "replace_if"})

    def initial(self) -> Entry:
        """Absent."""
        return ()

    def apply(self, state: Entry, name: str, arguments: tuple[Any, ...]) -> tuple[object, Entry]:
        """See `Sequential`."""
        value = state[0] if state else None
        match name, arguments:
            case "get", (default,):
                return (value if state else default), state
            case "get", ():
                return value, state
            case "contains", ():
                return bool(state), state
            case "put", (new,):
                return value, (new,)
            case "put_if_absent", (new,):
                return value, state or (new,)
            case "replace", (new,):
                return value, (new,) if state else ()
            case "replace_if", (old, new):
                return state == (old,), (new,) if state == (old,) else state
            case "remove", ():
                return value, ()
            case "remove_if", (old,):
                return state == (old,), () if state == (old,) else state
            case "pop", (default,):
                return (value if state else default), ()
        raise _unknown(name, arguments)


class Long(Sequential[int]):
    """An `AsyncLong`: a counter and a register."""

    queries = frozenset({"get"})
    conditional = frozenset({"compare_and_set"})

    def initial(self) -> int:
        """Zero."""
        return 0

    def apply(self, state: int, name: str, arguments: tuple[Any, ...]) -> tuple[object, int]:
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
            case "increment", ():
                return state + 1, state + 1
            case "increment", (by,):
                return state + by, state + by
            case "decrement", ():
                return state - 1, state - 1
            case "decrement", (by,):
                return state - by, state - by
            case "get_and_add", (by,):
                return state, state + by
        raise _unknown(name, arguments)


Turn = tuple[Hashable, int]
"""(the claim that holds or None, the highest token known so far)."""


class Lock:
    """An `AsyncLock` or a `LeaderElection`: one holder, tokens that rise strictly.

    ``acquire``, ``try_acquire`` and ``release`` belong to a claim: their one argument, or else the
    client. An acquisition's result is its token (None if `try_acquire` came too late).

    What the cluster may do by itself is to be noted as a ``release`` of unknown outcome: when a
    lock goes with its session, invoked when the session was last known to live; and when an
    acquisition gave up, which is of unknown outcome too: it can be granted before it is withdrawn.
    """

    def initial(self) -> Turn:
        """Free, no token given out."""
        return None, 0

    def step(self, state: Turn, operation: Operation) -> tuple[bool, Turn]:
        """See `Model`."""
        holder, highest = state
        claim = self._claim(operation)
        unknown = operation.outcome is Outcome.UNKNOWN
        match operation.name:
            case "locked":
                return unknown or operation.result is (holder is not None), state
            case "release":
                return holder == claim, (None, highest)
            case "try_acquire" if operation.result is None and not unknown:
                return holder is not None, state
            case "acquire" | "try_acquire":
                if unknown:  # some higher token
                    return holder is None, (claim, highest)
                token = operation.result
                if not isinstance(token, int):
                    raise MisuseError(f"an acquisition's result is its token: {operation}")
                return holder is None and token > highest, (claim, token)
        raise _unknown(operation.name, operation.arguments)

    def reads(self, operation: Operation) -> bool:
        """See `Model`."""
        if operation.name == "try_acquire" and operation.outcome is Outcome.OK:
            return operation.result is None
        return operation.name == "locked"

    def effect(self, operation: Operation) -> Hashable:
        """See `Model`."""
        return operation.name.removeprefix("try_"), self._claim(operation)

    def _claim(self, operation: Operation) -> Hashable:
        return operation.arguments[0] if operation.arguments else operation.client


def _unknown(name: str, arguments: tuple[object, ...]) -> MisuseError:
    return MisuseError(f"the model has no operation {name} with arguments {arguments}")
