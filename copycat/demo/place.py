"""Where a demo keeps its data and takes its text from.

A folder in memory (tmpfs) makes every figure about durable writes worthless, so it is avoided, and
labelled where the user wants it. It serves the demo's command only.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import tempfile
from pathlib import Path

import copycat

from ..cli.common import lies_in_memory

def new_folder() -> Path:
    """A new temporary folder, on a disk if there is one to write to."""
    for parent in (tempfile.gettempdir(), "/var/tmp", str(Path.cwd())):  # noqa: S108
        try:
            folder = Path(tempfile.mkdtemp(prefix="copycat-demo-", dir=parent))
        except OSError:
            continue
        if not lies_in_memory(folder):
            return folder
        folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="copycat-demo-"))


def find_text(folder: Path, given: Path | None = None) -> tuple[Path, str]:
    """The text to count and a name for it: ``given``, else a README, else our own docstrings.

    What is not a file yet is written into ``folder``.
    """
    if given is not None:
        return given, str(given)
    for place in (Path(copycat.__file__).parent.parent, Path.cwd()):
        readme = place / "README.md"
        if readme.is_file() and readme.stat().st_size > 0:
            return readme, "README.md"
    made = folder / "text.txt"
    made.write_text(_docstrings(), encoding="utf-8")
    return made, "the docstrings of copycat"


def _docstrings() -> str:
    """What the modules of the library say about themselves."""
    texts = [inspect.getdoc(copycat) or ""]
    for module in pkgutil.iter_modules(copycat.__path__):
        if not module.ispkg and module.name != "__main__":
            found = importlib.import_module(f"copycat.{module.name}")
            texts += [inspect.getdoc(found) or ""]
            texts += [
                inspect.getdoc(item) or ""
                for _, item in inspect.getmembers(found, inspect.isclass)
                if item.__module__ == found.__name__
            ]
    return "\n".join(texts)
