"""The pure bodies of ``copycat._core`` beside the compiled ones, in one process.

For tests and benchmarks that compare the two; never for programs, which choose by ``COPYCAT_PURE``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import copycat._core
import copycat._core.layout

_ALIAS = "copycat._pure_core"


def load_twin(name: str) -> ModuleType:
    """The module ``name`` of ``_core`` in its pure body, with everything it imports from there.

    It stands under an alias package: ``load_twin("log")`` is the log over the pure kernel. The
    formats (and so `FormatError`) are shared with the ordinary package.
    """
    if _ALIAS not in sys.modules:
        package = ModuleType(_ALIAS)
        package.__path__ = list(copycat._core.__path__)
        sys.modules[_ALIAS] = package
        sys.modules[f"{_ALIAS}.layout"] = copycat._core.layout
        sys.meta_path.insert(0, copycat._core.PureFinder(_ALIAS))
    return importlib.import_module(f"{_ALIAS}.{name}")


def bodies(name: str) -> dict[str, ModuleType]:
    """The module ``name`` by mode: ``pure`` always, ``compiled`` where that is in use."""
    found = {"pure": load_twin(name)}
    if copycat._core.COMPILED:
        found["compiled"] = importlib.import_module(f"copycat._core.{name}")
    return found
