"""How asynchronous names, types and sentences are called in the blocking world.

The tables say what is written by hand, and what only our insides use. It serves `translate`.
"""

from __future__ import annotations

import ast
import importlib
import re
from typing import Any

BY_HAND = "copycat.sync.words.HAND_WRITTEN"
HAND_WRITTEN = {
    "Resource": "base.Handle",
    "Claims": "base.Handle",
    "Turns": "scopes.Turns",
    "Held": "scopes.Held",
    "LeaderElection": "scopes.Campaign",
    "Copycat": "clients.Client",
    "Node": "clients.Position",
    "CopycatServer": "clients.Embedded",
    "LocalCluster": "clients.Playground",
}
"""Asynchronous class -> the class of `copycat.sync` that stands for it or is under its twin."""

WHOLE = ("Resource", "Claims", "Turns", "Held")
"""These have no other twin than the one by hand."""

ONLY = {
    "Session": {"id", "index", "state", "watch"},
    "LocalCluster": {
        "add", "addresses", "client", "connect", "heal", "kill", "leader", "members", "names",
        "partition", "restart", "stop",
    },
    "Taken": {"ack", "nack"},
}  # fmt: skip
"""Of these classes, only this is for users."""

IN_THE_LOOP = ("LocalCluster",)
"""What their properties read may change meanwhile: they are read in the loop's thread."""

PHRASES = {
    "this task": "this thread",
    "a task": "a thread",
    "A task": "A thread",
    "Belongs to the event loop it was opened in.": "All threads may use it.",
    "cancels the body if": "raises at the end if",
}
"""What is said otherwise where nothing can be cancelled."""

UNDO = {"Taken": ", AsyncTaken.nack"}
"""What gives back a result that came too late for an interrupted caller."""


class Vocabulary:
    """Names of asynchronous classes and of their twins, and where those are."""

    def __init__(self, classes: list[type[Any]]) -> None:
        self.classes = {cls.__name__: cls for cls in classes}
        self.twins = {name: name.removeprefix("Async") for name in self.classes}
        self.twins |= {"Held": "Held"}

    def original(self, name: str) -> str:
        """What an asynchronous class is called beside its twin."""
        return name if name.startswith("Async") else f"Async{name}"

    def home(self, twin: str) -> str:
        """The module, relative to `copycat.sync.twins`, of a twin or of what it stands on."""
        for name, cls in self.classes.items():
            if self.twins[name] == twin:
                return "." + cls.__module__.rpartition(".")[2]
        for where in HAND_WRITTEN.values():
            module, _, name = where.partition(".")
            if name == twin:
                return f"..{module}"
        raise LookupError(twin)

    def bases(self, cls: type[Any]) -> list[str]:
        """The bases of its twin."""
        own = by_hand(cls)
        found = [] if own is None else [own.__name__]
        for base in cls.__bases__:
            stand_in = by_hand(base) if base.__name__ in WHOLE else None
            if stand_in is not None:
                if own is None or not issubclass(own, stand_in):
                    found.append(stand_in.__name__)
            elif base.__name__ in self.twins:
                found.append(self.twins[base.__name__])
        return found or ["Twin"]

    def is_resource(self, cls: type[Any]) -> bool:
        """Whether a handle of it can be made from a path."""
        return any(base.__name__ == "Resource" for base in cls.__mro__) and hasattr(cls, "machine")

    def written_by_hand(self, cls: type[Any]) -> set[str]:
        """What the classes by hand under its twin define."""
        found: set[str] = set()
        for base in cls.__mro__:
            own = by_hand(base)
            for each in own.__mro__ if own is not None else ():
                if each.__module__.startswith("copycat.sync."):
                    found |= set(vars(each)) - {"_async", "__eq__", "__hash__", "__repr__"}
        return found

    def twin_in(self, annotation: ast.expr | None) -> str | None:
        """The twin that a type speaks of, if it does."""
        for node in ast.walk(annotation) if annotation is not None else ():
            if isinstance(node, ast.Name) and node.id in self.twins:
                return self.twins[node.id]
        return None

    def twin(self, node: ast.FunctionDef) -> None:
        """Put the signature into blocking words, in place."""
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
        for each in every:
            if each.annotation is not None:
                if re.search(r"\b(Awaitable|Coroutine|Async\w+or)\b", ast.unparse(each.annotation)):
                    raise LookupError(f"its parameter {each.arg} is asynchronous")
                if self.twin_in(each.annotation) is not None:
                    each.is_twin = True  # type: ignore[attr-defined]
                each.annotation = _Renamed(self.twins).visit(each.annotation)
        if node.returns is not None:
            node.returns = _Renamed(self.twins).visit(node.returns)

    def prose(self, text: str) -> str:
        """A docstring in blocking words."""
        text = re.sub(r"\basync (with|for)\b", r"\1", text)
        text = re.sub(r"\bawait ", "", text)
        text = re.sub(r"\bcopycat\.(connect|open|local_cluster)\(", r"copycat.sync.\1(", text)
        text = re.sub(r"\bAsync[A-Z]\w+", lambda found: self.twins.get(found[0], found[0]), text)
        for phrase, other in PHRASES.items():
            text = text.replace(phrase, other)
        return re.sub(r"\b([Aa])n (`[^AEIOUaeiou])", r"\1 \2", text)


class _Renamed(ast.NodeTransformer):
    """Annotations with the names of twins."""

    def __init__(self, twins: dict[str, str]) -> None:
        self._names = {**twins, "AsyncIterator": "Iterator"}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """A name, perhaps another one."""
        return ast.Name(self._names.get(node.id, node.id), node.ctx)


def by_hand(cls: type[Any]) -> type[Any] | None:
    """The class by hand for an asynchronous one."""
    where = HAND_WRITTEN.get(cls.__name__)
    if where is None or not cls.__module__.startswith("copycat."):
        return None
    module, _, name = where.partition(".")
    found: type[Any] = getattr(importlib.import_module(f"copycat.sync.{module}"), name)
    return found
