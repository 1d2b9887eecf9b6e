"""``copycat serve``: one member in this process, from the ready line to a clean stop.

It says in one line where it listens and who leads, and in one more whatever makes it slow or
unsafe. All settings are those of `copycat.open`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from typing import Any

import click

from .._core import COMPILED
from ..config_file import load_machines, read_settings
from ..errors import ConfigurationError, CopycatError
from ..node import CopycatServer, Opening
from ..node import open as open_member
from .common import UNHEALTHY, Failure, failure, lies_in_memory, run

PURE_WARNING = """\
WARNING: the compiled core is missing: this runs the slower pure Python mode. Install it again:
         pip install --no-cache-dir --force-reinstall --no-binary copycat-raft copycat-raft"""
JOINED_WARNING = """\
WARNING: {} differs from the cluster that {} joined. What counts is the cluster that its data
         directory knows, with the members {}"""
TMPFS_WARNING = "WARNING: {} lies in memory (tmpfs): nothing in it survives a power cut."


@click.command()
@click.argument("machines", nargs=-1, metavar="[MODULE:ATTRIBUTE]...")
@click.option("--name", help="Which of the members this is.  [default: n1]")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen.  [default: as in --members]")
@click.option("--data", metavar="DIRECTORY", help="The member's own data directory.")
@click.option(
    "--members", metavar="n1=HOST:PORT,...", help="All members; the same list everywhere."
)
@click.option(
    "--join", metavar="HOST:PORT,...", help="Members of a running cluster to be taken into."
)
@click.option("--fsync", help="'always'; 'unsafe-never' is for comparisons.  [default: always]")
@click.option("--advertise", metavar="HOST:PORT", help="Where others reach it, if that differs.")
@click.option("--election-timeout", type=float, metavar="SECONDS", help="[default: 1]")
@click.option("--heartbeat", type=float, metavar="SECONDS", help="[default: 0.2]")
@click.option("--session-timeout", type=float, metavar="SECONDS", help="[default: 5]")
@click.option("--segment-bytes", type=int, metavar="BYTES", help="Size of a log file.")
@click.option("--snapshot-bytes", type=int, metavar="BYTES", help="Log between two snapshots.")
@click.option("--priority", type=int, metavar="N", help="The highest should lead.  [default: 1]")
@click.option(
    "--config",
    envvar="COPYCAT_CONFIG",
    metavar="FILE",
    help="A TOML file with these settings, and others; COPYCAT_CONFIG says the same.",
)
@click.option("--app-dir", default=".", show_default=True, help="Where MODULE is looked for.")
@click.option("--stop-on-eof", is_flag=True, help="Stop when standard input is closed.")
@click.option("--verbose", "-v", is_flag=True, help="Log what happens, not only what is wrong.")
def serve(
    machines: tuple[str, ...],
    config: str | None,
    app_dir: str,
    stop_on_eof: bool,
    verbose: bool,
    **given: str | float | None,
) -> int:
    """Run one member of a cluster until it is told to stop (Ctrl-C or SIGTERM).

    MODULE:ATTRIBUTE is a StateMachine class of yours, or a list of them. Without any there are the
    built-in resources: maps, counters, locks, elections. Each setting may also stand in the
    environment, as COPYCAT_DATA or COPYCAT_HEARTBEAT: before the file, after the options.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("copycat.node").addFilter(_not_said_already)
    try:
        settings = read_settings(config, given, os.environ)
        listed = [*settings.pop("machines", ()), *machines]
        if os.path.abspath(app_dir) not in sys.path:
            sys.path.insert(0, os.path.abspath(app_dir))
        classes = [each for text in listed for each in load_machines(text)]
        opening = open_member(**settings, machines=classes)
    except ConfigurationError as problem:
        raise failure(problem) from problem
    if not COMPILED:
        click.echo(PURE_WARNING, err=True)
    return run(_serve(opening, settings, stop_on_eof))


async def _serve(opening: Opening, settings: dict[str, Any], stop_on_eof: bool) -> int:
    """Run the member until a signal, the end of standard input, or its own failure."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if stop_on_eof:
        loop.add_reader(sys.stdin.fileno(), _stop_at_the_end_of_input, stop)
    life = loop.create_task(_live(opening, settings))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait((life, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not life.done():
        life.cancel()
        await asyncio.wait((life,))
    stopping.cancel()
    if stop_on_eof:
        loop.remove_reader(sys.stdin.fileno())
    if not life.cancelled():
        life.result()
    click.echo(f"{settings.get('name', 'n1')} stopped", err=True)
    return 0


async def _live(opening: Opening, settings: dict[str, Any]) -> None:
    """From recovery to the end; raises what made the member stop by itself."""
    async with opening as member:
        _announce(member, settings)
        await _warn_of_contradictions(member, settings)
        gc.collect()
        gc.freeze()  # what is there now stays: no full collection has to look at it again
        if member.failed is not None:
            problem = await asyncio.shield(member.failed)
            if isinstance(problem, CopycatError):
                raise problem
            raise Failure(f"{member.name} had to stop: {problem!r}", code=UNHEALTHY) from problem


def _stop_at_the_end_of_input(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()


def _announce(member: CopycatServer, settings: dict[str, Any]) -> None:
    status = member.status()
    data = settings.get("data")
    click.echo(
        f"{member.name} is ready at {member.address}: leader {status['leader']}, term "
        f"{status['term']}, data {data or 'in memory'}, "
        f"{'compiled' if COMPILED else 'pure Python'}, pid {os.getpid()}"
    )
    sys.stdout.flush()
    if data and lies_in_memory(data):
        click.echo(TMPFS_WARNING.format(data), err=True)


async def _warn_of_contradictions(member: CopycatServer, settings: dict[str, Any]) -> None:
    """What the data directory knows counts for who joined: say so where the options differ."""
    running = member._running
    identity = running.identity
    if identity is None or identity.joined is None:
        return
    try:
        there = {each.name: each.address for each in await member.cluster.members()}
    except CopycatError:
        return  # another start will tell
    known = ", ".join(f"{name}={address}" for name, address in there.items())
    listed, join = running.options.members, running.options.join
    if settings.get("members") and set(listed) != set(there):
        option = "--members"
    elif join and not set(join) & set(there.values()):
        option = "--join"
    else:
        return
    click.echo(JOINED_WARNING.format(option, member.name, known), err=True)


def _not_said_already(record: logging.LogRecord) -> bool:
    """The command line has a warning of its own about the compiled core."""
    return "compiled core is missing" not in record.getMessage()
