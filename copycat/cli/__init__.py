"""The ``copycat`` command: a thin, lazy shell over what any program can call.

`main` is the entry point. Each command lives in a module of its own that is imported only when it
runs, so that ``--help`` is quick. Read ``common.py`` for exit codes and how errors are shown.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

MISSING = 'the copycat command needs {}: pip install "copycat-raft[standard]"'


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        import click
    except ModuleNotFoundError as problem:
        if problem.name != "click":
            raise
        sys.stderr.write(MISSING.format("click") + "\n")
        return 2
    from .common import INTERRUPTED, cli

    try:
        result = cli.main(args=arguments, prog_name="copycat", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as problem:
        problem.show()
        return problem.exit_code
    return result if isinstance(result, int) else 0
