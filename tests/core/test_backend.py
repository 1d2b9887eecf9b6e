"""Which bodies are in use is never a matter of luck, and is told truly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import copycat
from copycat import _core
from copycat._core import kernel
from copycat.testing.twins import bodies, load_twin

PACKAGE = Path(copycat.__file__).parent
SAY = (
    "import copycat._core as c, copycat._core.kernel as k, copycat._core.calls as r;"
    "print(c.COMPILED, k.COMPILED, [m.__file__.endswith('.py') for m in (k, r)])"
)


def say(where: Path, pure: str) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter finds in ``where``."""
    return subprocess.run(
        [sys.executable, "-c", SAY],
        cwd=where,
        env={**os.environ, "COPYCAT_PURE": pure, "PYTHONPATH": str(where)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def copy_core(to: Path) -> Path:
    """A package with nothing but the core, to be spoilt."""
    (to / "copycat").mkdir()
    (to / "copycat" / "__init__.py").write_text("")
    for name in ("errors.py", "ports.py", "types.py"):
        shutil.copy(PACKAGE / name, to / "copycat" / name)
    return Path(shutil.copytree(PACKAGE / "_core", to / "copycat" / "_core"))


def test_the_mode_is_the_expected_one() -> None:
    """Where ``COPYCAT_EXPECT`` names a mode, this very run is in that mode."""
    assert _core.COMPILED == kernel.COMPILED
    expected = os.environ.get("COPYCAT_EXPECT")
    if expected is None:
        pytest.skip("COPYCAT_EXPECT is not set")
    assert expected == ("compiled" if _core.COMPILED else "pure")


def test_the_pure_mode_can_be_asked_for() -> None:
    """COPYCAT_PURE=1 uses no compiled body, whatever was built; 0 and nothing ask for none."""
    root = PACKAGE.parent
    assert say(root, "1").stdout == "False False [True, True]\n"
    built = all(map(_core._is_built, _core.TWO_BODIES))
    expected = "True True [False, False]\n" if built else "False False [True, True]\n"
    assert say(root, "").stdout == expected
    assert say(root, "0").stdout == expected


def test_one_missing_body_means_all_pure(tmp_path: Path) -> None:
    """Compiled and pure bodies are never mixed: that combination is tested nowhere."""
    core = copy_core(tmp_path)
    for built in core.glob("calls.*.so"):
        built.unlink()
    assert say(tmp_path, "").stdout == "False False [True, True]\n"


@pytest.mark.skipif(not _core.COMPILED, reason="nothing is compiled here")
def test_a_broken_body_is_an_error(tmp_path: Path) -> None:
    """A compiled file that does not load is reported, not silently replaced by slow code."""
    core = copy_core(tmp_path)
    assert say(tmp_path, "").stdout == "True True [False, False]\n"
    (built,) = core.glob("kernel.*.so")
    built.unlink()  # the loader must not see a mapped file change
    built.write_bytes(b"not a library")
    broken = say(tmp_path, "")
    assert broken.returncode != 0
    assert "ImportError" in broken.stderr and "kernel" in broken.stderr
    assert say(tmp_path, "1").stdout == "False False [True, True]\n"


def test_every_compiled_module_has_two_bodies() -> None:
    """The list of modules with two bodies is that of the sources; setup.py compiles all of it."""
    core = PACKAGE / "_core"
    sources = {path.stem for path in core.glob("*.pyx")}
    assert sources == set(_core.TWO_BODIES)
    assert all((core / f"{name}.py").exists() for name in sources)
    setup = PACKAGE.parent / "setup.py"
    if not setup.exists():
        pytest.skip("an installed package has no setup.py")
    names = ", ".join(f'"{name}"' for name in sorted(sources))
    assert f"KERNELS = ({names})" in setup.read_text()


def test_both_bodies_offer_the_same_names() -> None:
    """Whatever one body of a module exports, the other one does too."""
    for name in _core.TWO_BODIES:
        exported = [
            {key for key, value in vars(module).items()
             if callable(value) and getattr(value, "__module__", "").endswith(f".{name}")
             and not key.startswith("_")}
            for module in bodies(name).values()
        ]  # fmt: skip
        assert exported[0] and all(names == exported[0] for names in exported)


def test_a_twin_stands_beside_the_ordinary_module() -> None:
    """The pure log runs over the pure kernel, in the same process as the ordinary one."""
    log = load_twin("log")
    assert log.frame_image is load_twin("kernel").frame_image
    assert load_twin("kernel").COMPILED is False
    assert load_twin("log") is log
    assert load_twin("kernel") is not kernel
