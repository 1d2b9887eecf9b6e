"""Importing Copycat is cheap; what is imported on demand looks as if it had been there before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import copycat

HEAVY = ("asyncio", "click", "inspect", "lz4", "msgpack", "ssl", "uvloop")


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.split())


def ours(loaded: set[str]) -> set[str]:
    """Those of Copycat."""
    return {name for name in loaded if name.partition(".")[0] == "copycat"}


def test_importing_copycat_loads_nothing_else() -> None:
    """No loop, no codec and no room of the house is loaded before something is asked for."""
    loaded = loaded_after("import copycat; dir(copycat); copycat.__version__")
    assert ours(loaded) == {"copycat"}
    assert not loaded & set(HEAVY)


def test_names_load_their_homes_only() -> None:
    """An exception or a constant does not load what runs members; opening does."""
    assert ours(loaded_after("from copycat import CopycatError, Consistency")) == {
        "copycat", "copycat.errors", "copycat.types",
    }  # fmt: skip
    assert "asyncio" not in loaded_after("import copycat; copycat.COMPILED")
    assert {"asyncio", "copycat.node", "copycat.raft"} <= loaded_after("from copycat import open")


def test_help_loads_no_command() -> None:
    """The list of commands needs neither the commands nor an event loop (``--help`` < 0.15 s)."""
    loaded = loaded_after("import copycat.cli; assert copycat.cli.main(['--help']) == 0")
    assert ours(loaded) == {"copycat", "copycat.cli", "copycat.cli.common", "copycat.errors"}
    assert not loaded & set(HEAVY) - {"click", "inspect"}, "click itself inspects"


def test_all_names_are_there_in_every_way() -> None:
    """Attribute, star-import and dir() know the same names, each one object that stays."""
    code = (
        "import copycat\nbefore = dir(copycat)\nfrom copycat import *\n"
        "for name in copycat.__all__:\n"
        "    assert name in before and globals()[name] is getattr(copycat, name), name\n"
        "    assert vars(copycat)[name] is globals()[name], name"
    )
    assert "copycat.testing.local_cluster" in loaded_after(code)


def test_unknown_names_are_unknown() -> None:
    """A misspelt name is the ordinary error, also where a submodule could be meant."""
    with pytest.raises(AttributeError, match=r"^module 'copycat' has no attribute 'opne'$"):
        _ = copycat.opne  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'opne' from 'copycat'"):
        from copycat import opne  # type: ignore[attr-defined]  # noqa: F401
    assert not hasattr(copycat, "__wrapped__")


def test_compiled_tells_what_runs() -> None:
    """The flag is that of the kernels in use, in both modes."""
    from copycat._core import kernel

    assert kernel.COMPILED == copycat.COMPILED
    code = (
        "import os; os.environ['COPYCAT_PURE'] = '1'\n"
        "import copycat\nassert copycat.COMPILED is False\n"
        "from copycat._core import kernel\nassert kernel.__file__.endswith('.py')"
    )
    assert "copycat._core.kernel" in loaded_after(code)
