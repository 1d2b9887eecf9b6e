"""``copycat serve``: one member in this process, from the ready line to a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

import click

from .._core import COMPILED
from ..errors import ConfigurationError
from ..machine import StateMachine
from ..node import CopycatServer
from ..node import open as open_member
from .common import run, failure, UNHEALTHY, Failure
from .places import on_tmpfs

PURE_WARNING = """\
WARNING: the compiled core is missing: this member runs the slower pure Python mode.
         With a C compiler: pip install --no-cache-dir --force-reinstall copycat-raft"""

TMPFS_WARNING = """\
WARNING: {} lies in memory (tmpfs): nothing in it survives a power cut."""


@click.command()
@click.argument("machines", nargs=-1, metavar="[MODULE:ATTRIBUTE]...")
@click.option("--name", help="Which of the members this is.  [default: n1]")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen.  [default: as in --members]")
@click.option("--data", metavar="DIRECTORY", help="The member's own data directory.")
@click.option("--members", metavar="n1=HOST:PORT,...", help="All members; the same list everywhere.")
@click.option("--config", metavar="FILE", help="A TOML file with these and further settings.")
@click.option("--app-dir", default=".", show_default=True, help="Where MODULE is looked for.")
@click.option("--stop-on-eof", is_flag=True, help="Stop when standard input is closed.")
@click.option("--verbose", "-v", is_flag=True, help="Log what happens, not only what is wrong.")
def serve(
    machines: tuple[str, ...],
    config: str | None,
    app_dir: str,
    stop_on_eof: bool,
    verbose: bool,
    **given: str | None,
) -> int:
    """Run one member of a cluster until it is told to stop (Ctrl-C or SIGTERM).

    MODULE:ATTRIBUTE is a StateMachine class of yours, or a list of them. Without any there are the
    built-in resources: maps, counters, locks, elections.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("copycat.node").addFilter(lambda r: "compiled core" not in r.getMessage())
    try:
        settings = _settings(config, given)
        listed = [*settings.pop("machines", []), *machines]
        classes = [each for text in listed for each in load_machines(text, app_dir)]
    except ConfigurationError as problem:
        raise failure(problem) from problem
    if not COMPILED:
        click.echo(PURE_WARNING, err=True)
    return run(_serve(settings, classes, stop_on_eof))


async def _serve(
    settings: dict[str, Any], machines: list[type[StateMachine]], stop_on_eof: bool
) -> int:
    """Run the member until a signal, the end of standard input, or its own failure."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if stop_on_eof:
        loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or stop.set())
    opening = open_member(**settings, machines=machines)
    life = asyncio.ensure_future(_live(opening, settings, stop))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((life, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not life.done() and not opening_done(life):
            life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await life
    finally:
        stopped.cancel()
    click.echo("stopped", err=True)
    return 0
