"""The bytes: formats, kernels, segments, the log. Opens nothing, knows nothing of Raft.

Read ``layout.py`` first, then ``kernel.py``. Some modules here have two bodies under one name: a
``.py``, which is the specification, and a compiled one beside it, which Python prefers. This file
decides which of them are used: all the compiled ones or none. None, if ``COPYCAT_PURE=1`` is set
or one was not built for this interpreter. One that is there but does not load is an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType

TWO_BODIES = ("calls", "kernel")
"""Modules that exist compiled as well; ``setup.py`` names the same ones."""

_directory = os.path.dirname(__file__)


class PureFinder:
    """Finds the modules of ``package``, an alias of this one or itself, as ``.py`` only."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the pure body; None for what is not in the package."""
        package, _, module = name.rpartition(".")
        file = os.path.join(_directory, f"{module}.py")
        if package != self.package or not os.path.exists(file):
            return None
        return spec_from_file_location(name, file)


def _is_built(module: str) -> bool:
    return any(
        os.path.exists(os.path.join(_directory, module + suffix)) for suffix in EXTENSION_SUFFIXES
    )


PURE_WANTED = os.environ.get("COPYCAT_PURE", "") not in ("", "0")
"""Whether the environment asks for the pure mode."""

COMPILED = not PURE_WANTED and all(map(_is_built, TWO_BODIES))
"""Whether the compiled bodies are in use."""

if not COMPILED:
    sys.meta_path.insert(0, PureFinder(__name__))
