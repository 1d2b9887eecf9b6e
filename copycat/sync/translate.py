"""From an asynchronous class, or opening function, to the source of its blocking twin.

Works on sources, so that annotations, overloads and docstrings come along. What cannot be put into
blocking words mechanically is refused by name; such things are written by hand. It serves
`generate`, and no program at run time.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from .words import BY_HAND, IN_THE_LOOP, ONLY, UNDO, Vocabulary

Function = ast.FunctionDef | ast.AsyncFunctionDef

ENTRANCES = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}

_BUILT_IN = r"(builtins\.)?(list|dict)\["


class Untranslatable(Exception):
    """Something has to be written by hand."""


def public_functions(cls: type[Any]) -> list[Function]:
    """The functions of the class itself that callers use, overloads included."""
    only = ONLY.get(cls.__name__)
    return [
        node
        for node in node_of(cls).body
        if isinstance(node, Function)
        and (not node.name.startswith("_") or node.name in ENTRANCES)
        and (only is None or node.name in only or node.name in ENTRANCES)
        and not decorators(node) & {"setter", "classmethod", "staticmethod"}
    ]


def is_asynchronous(cls: type[Any]) -> bool:
    """Whether callers await something of it: then it needs a twin."""
    return any(
        isinstance(node, ast.AsyncFunctionDef) or iterated(node) is not None
        for base in cls.__mro__
        if base.__module__.startswith("copycat.")
        for node in public_functions(base)
    )


def node_of(thing: Any) -> Any:
    """The definition of a class or a function."""
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def decorators(node: Function) -> set[str]:
    """The last words of what decorates it."""
    return {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}


def iterated(node: Function) -> ast.expr | None:
    """What an asynchronous iterator that it returns yields."""
    returns = node.returns
    if isinstance(returns, ast.Subscript) and ast.unparse(returns.value) == "AsyncIterator":
        return returns.slice
    return None


def class_source(cls: type[Any], words: Vocabulary) -> str:
    """The twin of a class."""
    node = node_of(cls)
    name = words.twins[cls.__name__]
    generic = next((b for b in node.bases if ast.unparse(b).startswith("Generic[")), None)
    original = words.original(cls.__name__) + _parameters(cls, generic)
    bases = [*words.bases(cls), *([ast.unparse(generic)] if generic is not None else [])]
    lines = [f"class {name}({', '.join(bases)}):", said(ast.get_docstring(node), words)]
    if words.is_resource(cls):
        lines.append(f"    _kind = {words.original(cls.__name__)}")
    lines.append(
        f"    @property\n    def _async(self) -> {original}:\n"
        f"        return self._as({words.original(cls.__name__)})"
    )
    written = words.written_by_hand(cls)
    for function in [*public_attributes(node), *public_functions(cls)]:
        if ENTRANCES.get(function.name, function.name) not in written:
            text = ast.unparse(ast.fix_missing_locations(Translation(function, cls, words).twin()))
            lines.append(textwrap.indent(text, "    "))
    return "\n\n".join(lines)


def _parameters(cls: type[Any], generic: ast.expr | None) -> str:
    """What the class is parametrized with, as its own twin sees it."""
    if isinstance(generic, ast.Subscript):
        return f"[{ast.unparse(generic.slice).strip('()')}]"
    count = len(getattr(cls, "__parameters__", ()))
    return f"[{', '.join(['Any'] * count)}]" if count else ""


def function_source(function: Any, result: type[Any], words: Vocabulary) -> str:
    """The twin of a function that opens something whose inside is a ``result``."""
    node: ast.FunctionDef = copy.deepcopy(node_of(function))
    name = words.twins[result.__name__]
    words.twin(node)
    node.returns = expression(f"Opening[{name}]")
    call = f"async_{node.name}({', '.join(passed_on(node, method=False))})"
    body = f"return Opening({call}, 'sync.{node.name}(...)', {name})"
    doc = said(ast.get_docstring(node), words)
    node.body = [*ast.parse(textwrap.dedent(doc)).body, *ast.parse(body).body]
    return ast.unparse(ast.fix_missing_locations(node))


def public_attributes(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """A property for each public attribute that the class declares with its type."""
    for each in ast.walk(node):
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Attribute):
            name = each.target.attr
            if ast.unparse(each.target.value) == "self" and not name.startswith("_"):
                source = f"@property\ndef {name}(self) -> {ast.unparse(each.annotation)}:\n"
                source += f'    """As in `copycat.{node.name}`."""'
                (made,) = ast.parse(source).body
                if isinstance(made, ast.FunctionDef):
                    yield made


def said(doc: str | None, words: Vocabulary) -> str:
    """A docstring in blocking words, indented for the body of a class."""
    lines = words.prose(doc or "As its asynchronous twin.").splitlines()
    text = "\n".join([f'"""{lines[0]}', *lines[1:]])
    closing = '\n"""' if len(lines) > 1 else '"""'
    return textwrap.indent(text + closing, "    ")


def passed_on(node: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> list[str]:
    """The arguments of the call to the original."""
    arguments = node.args
    first = [*arguments.posonlyargs, *arguments.args][1 if method else 0 :]
    found = [_plain(each) for each in first]
    if arguments.vararg is not None:
        found.append(f"*{arguments.vararg.arg}")
    found += [f"{each.arg}={_plain(each)}" for each in arguments.kwonlyargs]
    if arguments.kwarg is not None:
        found.append(f"**{arguments.kwarg.arg}")
    return found


def _plain(argument: ast.arg) -> str:
    return f"plain({argument.arg})" if hasattr(argument, "is_twin") else argument.arg


def expression(text: str) -> ast.expr:
    """The parsed expression."""
    return ast.parse(text, mode="eval").body


class Translation:
    """One function on its way to its twin."""

    def __init__(self, function: Function, cls: type[Any], words: Vocabulary) -> None:
        self._original = function
        self._words = words
        self._class = cls.__name__
        self._item = self._yielded(cls)
        self._where = f"{cls.__module__}.{cls.__name__}.{function.name}"

    def twin(self) -> ast.FunctionDef:
        """The blocking function."""
        original = self._original
        fields = {f: copy.deepcopy(getattr(original, f)) for f in original._fields}
        node = ast.FunctionDef(**fields)
        node.name = ENTRANCES.get(node.name, node.name)
        try:
            if node.name == "__iter__":
                node.returns = expression(f"AsyncIterator[{self._item}]")
            self._words.twin(node)
            if "overload" in decorators(node):
                return node
            doc = ast.get_docstring(node)
            code = "\n".join(self._code(node))
        except LookupError as problem:
            raise Untranslatable(
                f"{self._where}: {problem}; write it by hand and name it in {BY_HAND}"
            ) from None
        node.body = ast.parse(code).body
        if doc is not None or not node.name.startswith("_"):
            written = textwrap.dedent(said(doc, self._words))
            indented = textwrap.indent(written, " " * 8).lstrip()
            node.body = [*ast.parse(indented).body, *node.body]
        return node

    def _code(self, node: ast.FunctionDef) -> Iterator[str]:
        """The lines of its body."""
        words, original = self._words, self._original
        call = f"self._async.{original.name}({', '.join(passed_on(node, method=True))})"
        returns = original.returns
        if "property" in decorators(node):
            value = f"self._async.{original.name}"
            away = f"self._do(lambda: {value})"
            yield from self._wrapped(away if self._class in IN_THE_LOOP else value, returns)
        elif original.name == "__aiter__":
            yield "return self._iterate(self._async)"
        elif original.name == "__aexit__":
            yield "if self._portal.inherited:"
            yield "    return"
            yield f"self._run({call})"
        elif original.name == "__aenter__" and ast.unparse(returns or ast.Constant(0)) == "Self":
            yield f"self._run({call})"
            yield "return self"
        elif (item := iterated(original)) is not None:
            twin = words.twin_in(item)
            if twin is None:
                yield f"return self._iterate({call})"
            else:
                yield f"return ({twin}(self._portal, each) for each in self._iterate({call}))"
        elif isinstance(original, ast.AsyncFunctionDef):
            undo = next((u for name, u in UNDO.items() if self._returns(name)), "")
            yield from self._wrapped(f"self._run({call}{undo})", returns)
        elif words.twin_in(returns) is not None or self._returns("Self"):
            yield from self._wrapped(call, returns)
        else:
            yield from self._wrapped(f"self._do(lambda: {call})", returns)

    def _yielded(self, cls: type[Any]) -> str:
        """What iterating over the class gives."""
        found = iterated(self._original)
        for node in node_of(cls).body if found is None else ():
            if isinstance(node, Function) and node.name == "__anext__":
                found = node.returns
        return "Any" if found is None else ast.unparse(found)

    def _returns(self, name: str) -> bool:
        returns = self._original.returns
        return returns is not None and re.search(rf"\b{name}\b", ast.unparse(returns)) is not None

    def _wrapped(self, value: str, returns: ast.expr | None) -> Iterator[str]:
        """Return ``value``, as twins if it is, or holds, objects that have some."""
        said_ = "" if returns is None else ast.unparse(returns)
        twin = self._words.twin_in(returns)
        if said_ == "None":
            yield value
        elif said_ == "Self":
            yield f"return self._again({value})"
        elif twin is None:
            yield f"return {value}"
        elif re.fullmatch(r"[\w.]+(\[[^|]*\])?", said_) and not re.match(_BUILT_IN, said_):
            yield f"return {twin}(self._portal, {value})"
        elif said_.endswith(" | None") and "[" not in said_.replace("[T]", ""):
            yield f"found = {value}"
            yield f"return None if found is None else {twin}(self._portal, found)"
        elif said_.removeprefix("builtins.").startswith("list["):
            yield f"return [{twin}(self._portal, each) for each in {value}]"
        elif said_.startswith("dict[str, "):
            yield f"found = {value}"
            yield f"return {{key: {twin}(self._portal, each) for key, each in found.items()}}"
        else:
            raise LookupError(f"a result of type {said_}")


__all__ = [
    "Untranslatable",
    "class_source",
    "function_source",
    "is_asynchronous",
    "public_functions",
]
