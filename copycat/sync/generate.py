"""``python -m copycat.sync.generate``: write `copycat.sync.twins` anew.

Every class that ``copycat`` exports and that awaits anything has a twin there, one file for each
file of the original; a test fails if they are not what this makes of the sources. It needs ruff,
which wraps the lines. No program needs it at run time.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import copycat

from ..resources import rwlock
from ..resources.lockable import Lockable
from ..session import Session
from ..testing.local_cluster import LocalCluster
from .translate import class_source, function_source, is_asynchronous, public_functions
from .words import HAND_WRITTEN, WHOLE, Vocabulary

HERE = Path(__file__).parent
INSIDE = (Lockable, rwlock.ReadWriteSide, Session, LocalCluster)
"""Not exported, but within reach of those that are."""
INNER = ("RunningMember",)
"""Given out by a local cluster as it is, for tests to look at."""
OPENINGS = {
    "connect": "CopycatClient", "open": "CopycatServer", "local_cluster": "LocalCluster",
}  # fmt: skip
"""Function -> what its ``with`` gives."""
BESIDE = {
    "Blocking": "..machine", "Held": ".scopes", "Lost": ".scopes", "Machine": ".machines",
    "Opening": ".opening", "Resource": ".base",
}  # fmt: skip
"""What is exported and was written by hand."""
FACE = """The blocking twin of Copycat, for code without ``await``: the same names, for any thread.

::

    with copycat.sync.connect("127.0.0.1:7401") as cc:
        cc.map("/settings").put("theme", "dark")

`connect`, `open` and `local_cluster` start one daemon thread with one event loop each, and end it
at the end of the ``with``, or when the interpreter exits. What is given out may be used by all
threads at the same time; a call from a running event loop is a `MisuseError`, one in a child after
``os.fork()`` a `ForkedError`, at once. A waiting call that is interrupted (Ctrl-C) is cancelled.

Asynchronous iterators are plain ones here, which read ahead a little. ``with lock as held`` cannot
cancel its body: ask ``held.check()`` where it matters, pass ``held.token`` along, and expect
`LockLost` at the end of the ``with``; so it is with elections. Errors are those of ``copycat``.

This file and `twins` are written by ``python -m copycat.sync.generate``; do not edit them.
"""


def classes() -> list[type[Any]]:
    """All classes that need a twin of their own, in the order of their sources."""
    exported = [getattr(copycat, name) for name in copycat.__all__]
    found = {each for each in exported if inspect.isclass(each) and is_asynchronous(each)}
    pending = [*found, *INSIDE]
    while pending:
        cls = pending.pop()
        found.add(cls)
        pending += [each for each in _given_out(cls) if each not in found]
    wanted = [cls for cls in found if cls.__name__ not in WHOLE]
    return sorted(wanted, key=lambda cls: (cls.__module__, inspect.getsourcelines(cls)[1]))


def _given_out(cls: type[Any]) -> list[type[Any]]:
    """The classes of what its functions return that need twins as well."""
    known = vars(importlib.import_module(cls.__module__))
    names = {
        node.id
        for function in public_functions(cls)
        if function.returns is not None
        for node in ast.walk(function.returns)
        if isinstance(node, ast.Name)
    }
    given = [known[name] for name in sorted(names) if inspect.isclass(known.get(name))]
    return [
        each
        for each in given
        if each.__module__.startswith("copycat.") and each.__name__ not in INNER
        and is_asynchronous(each)
    ]  # fmt: skip


def sources() -> dict[str, str]:
    """File in `copycat.sync` -> source, its lines not yet wrapped."""
    words = Vocabulary(classes())
    homes = {cls.__module__ for cls in words.classes.values()}
    homes |= {getattr(copycat, function).__module__ for function in OPENINGS}
    found = {f"twins/{name.rpartition('.')[2]}.py": _module(name, words) for name in sorted(homes)}
    found["__init__.py"] = _face(words)
    return found


def _module(name: str, words: Vocabulary) -> str:
    module = importlib.import_module(name)
    bodies = [class_source(cls, words) for cls in words.classes.values() if cls.__module__ == name]
    made = [cls for cls in words.classes.values() if cls.__module__ == name]
    own = {words.twins[cls.__name__] for cls in made}
    for function, result in OPENINGS.items():
        found = getattr(copycat, function)
        if found.__module__ == name:
            bodies.append(function_source(found, words.classes[result], words))
            own.add(function)
    code = "\n\n\n".join(bodies)
    head = (
        f'"""Generated from `{name}` by `copycat.sync.generate`: do not edit.\n\n'
        'The blocking twins of what is there; see `copycat.sync`.\n"""\n\n'
        "from __future__ import annotations\n"
    )
    exports = sorted(own, key=lambda n: (not n[0].isupper(), n))
    return f"{head}\n{_imports(code, module, own, words)}\n\n{code}\n\n__all__ = {exports!r}\n"


def _face(words: Vocabulary) -> str:
    homes = {twin: f".twins{words.home(twin)}" for twin in words.twins.values() if twin != "Held"}
    for function in OPENINGS:
        homes[function] = ".twins." + getattr(copycat, function).__module__.rpartition(".")[2]
    homes |= BESIDE
    names = sorted(homes, key=lambda n: (not n[0].isupper(), n))
    lines = [f"from {homes[name]} import {name} as {name}" for name in names]
    return f'"""{FACE}"""\n\n' + "\n".join(lines) + f"\n\n__all__ = {names!r}\n"


def _imports(code: str, module: ModuleType, own: set[str], words: Vocabulary) -> str:
    """The imports for all names that ``code`` uses."""
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    here = _relative(module.__name__)
    originals = {words.original(name): name for name in words.classes}
    lines: set[str] = set()
    known = _imported(module)
    stands = {where.partition(".")[2] for where in HAND_WRITTEN.values()}
    helpers = {"Twin": "..base", "plain": "..base", "Opening": "..opening"}
    for name in used - own - {"self", "each", "found", "key", "_kind"}:
        if name in helpers:
            lines.add(f"from {helpers[name]} import {name}")
        elif name in originals:
            asked = originals[name] if originals[name] == name else f"{originals[name]} as {name}"
            lines.add(f"from {here} import {asked}")
        elif name.startswith("async_"):
            lines.add(f"from {here} import {name.removeprefix('async_')} as {name}")
        elif name == "Any":
            lines.add("from typing import Any")
        elif name == "Iterator":
            lines.add("from collections.abc import Iterator")
        elif name in words.twins.values() or name in stands:
            lines.add(f"from {words.home(name)} import {name}")
        elif name in known:
            lines.add(known[name])
        elif hasattr(module, name):
            lines.add(f"from {here} import {name}")
        elif not hasattr(builtins, name) and not _is_local(name, code):
            raise LookupError(f"{module.__name__}: where does {name} come from?")
    return "\n".join(sorted(lines))


def _imported(module: ModuleType) -> dict[str, str]:
    """Name -> the statement that imports it there, as the twins have to write it."""
    found: dict[str, str] = {}
    package = module.__name__.rpartition(".")[0]
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name] = ast.unparse(ast.Import([alias]))
        elif isinstance(node, ast.ImportFrom):
            home = package.rsplit(".", node.level - 1)[0] if node.level else ""
            full = ".".join(part for part in (home, node.module or "") if part)
            source = _relative(full) if node.level else full
            for alias in node.names:
                asked = alias.name + (f" as {alias.asname}" if alias.asname else "")
                found[alias.asname or alias.name] = f"from {source} import {asked}"
    return found


def _relative(name: str) -> str:
    """A module of ours as seen from a file of the twins."""
    return "..." + name.partition(".")[2]


def _is_local(name: str, code: str) -> bool:
    """Whether it is a parameter somewhere."""
    return any(isinstance(node, ast.arg) and node.arg == name for node in ast.walk(ast.parse(code)))


def main() -> int:
    """Write the files."""
    made = sources()
    for old in (HERE / "twins").glob("*.py"):
        if old.name != "__init__.py":
            old.unlink()
    for name, text in made.items():
        (HERE / name).write_text(text, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    files = [str(HERE / name) for name in made]
    wrap = [*ruff, "format", "--quiet", *files]
    sort = [*ruff, "check", "--select", "I", "--fix", "--quiet", *files]
    subprocess.run(sort, check=True)  # noqa: S603 - our own files
    subprocess.run(wrap, check=True)  # noqa: S603
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
