"""What is generated is what the sources say, and nothing that is awaited lacks its twin."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import copycat
from copycat import sync
from copycat.resources import Resource
from copycat.sync import generate, translate, words

HERE = Path(sync.__file__).parent
ENTRANCES = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}


def shape(source: str) -> list[str]:
    """A source without its layout: statements, those of imports one by one and sorted."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
            node
        ):
            node.body[0] = ast.Expr(ast.Constant(ast.get_docstring(node)))
    imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = sorted(
        f"{getattr(n, 'module', '')} {getattr(n, 'level', 0)} {ast.unparse(alias)}"
        for n in imports
        for alias in n.names
    )
    return names + [ast.dump(n) for n in tree.body if n not in imports]


def test_the_twins_are_up_to_date() -> None:
    """The files are what ``python -m copycat.sync.generate`` makes of the sources as they are."""
    made = generate.sources()
    there = {f"twins/{path.name}" for path in (HERE / "twins").glob("*.py")}
    assert there - {"twins/__init__.py"} == set(made) - {"__init__.py"}
    old = [name for name, source in made.items()
           if shape((HERE / name).read_text(encoding="utf-8")) != shape(source)]  # fmt: skip
    assert not old, f"run  python -m copycat.sync.generate  and commit: {old}"


def asynchronous_names() -> Iterator[tuple[type[Any], str]]:
    """Each public name that callers await, iterate or enter, of each class that is exported.

    Found by looking at the running classes, not by the generator's own eyes.
    """
    exported = [getattr(copycat, name) for name in copycat.__all__]
    for cls in [*filter(inspect.isclass, exported), *generate.INSIDE]:
        only = words.ONLY.get(cls.__name__)
        for name, value in inspect.getmembers(cls):
            if name.startswith("_") and name not in ENTRANCES:
                continue
            if only is not None and name not in only and name not in ENTRANCES:
                continue
            awaited = inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)
            returns = getattr(value, "__annotations__", {}).get("return", "")
            if awaited or str(returns).startswith("AsyncIterator"):
                yield cls, name


@pytest.mark.parametrize(
    ("cls", "name"), [pytest.param(c, n, id=f"{c.__name__}.{n}") for c, n in asynchronous_names()]
)
def test_nothing_awaited_lacks_its_twin(cls: type[Any], name: str) -> None:
    """Whatever is awaited has a blocking function of the same name and the same parameters."""
    own = sync.base.Handle if cls is Resource else None
    twin = own or getattr(sync, cls.__name__.removeprefix("Async"), None)
    assert twin is not None, f"{cls.__name__} has no twin: run  python -m copycat.sync.generate"
    found = getattr(twin, ENTRANCES.get(name, name), None)
    assert callable(found), f"sync.{twin.__name__}.{name} is missing"
    assert not inspect.iscoroutinefunction(found)
    if not name.startswith("__"):
        mine, theirs = inspect.signature(found), inspect.signature(getattr(cls, name))
        assert list(mine.parameters) == list(theirs.parameters)
        assert all(mine.parameters[each].kind is parameter.kind
                   for each, parameter in theirs.parameters.items())  # fmt: skip


def test_clients_offer_the_same_names() -> None:
    """Also what is not awaited (factories, properties) is there, on clients, nodes and clusters."""
    for cls in (copycat.CopycatClient, copycat.CopycatServer, copycat.Node, copycat.Cluster):
        twin = getattr(sync, cls.__name__)
        static = {n for n, v in inspect.getmembers_static(cls) if isinstance(v, classmethod)}
        public = {name for name in dir(cls) if not name.startswith("_")}
        assert public - static <= set(dir(twin)), cls


def test_the_openings_take_the_same_settings() -> None:
    """`connect`, `open` and `local_cluster` have the parameters of their originals."""
    for name in generate.OPENINGS:
        mine, theirs = (inspect.signature(getattr(m, name)) for m in (sync, copycat))
        assert str(mine).partition(" -> ")[0] == str(theirs).partition(" -> ")[0]


def test_what_cannot_be_translated_is_refused_by_name() -> None:
    """A callback that is awaited needs a hand: the generator says which, and where to say so."""

    class AsyncOdd:
        """Odd."""

        async def each(self, call: Any) -> None:
            """Call it."""

    (function,) = translate.public_functions(AsyncOdd)
    function.args.args[1].annotation = translate.expression("Callable[[], Awaitable[int]]")
    with pytest.raises(translate.Untranslatable, match=r"each: its parameter call .*HAND_WRITTEN"):
        translate.Translation(function, AsyncOdd, words.Vocabulary([])).twin()
