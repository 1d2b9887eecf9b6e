"""What every command shares: the lazy group, the loop, addresses, and errors with an exit code.

Nothing here talks to a cluster. Heavy modules are imported inside functions, so that listing the
commands stays cheap.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import (
    ConfigurationError,
    ConflictError,
    CopycatError,
    CorruptLogError,
    DeadlineError,
    LockLost,
    MembershipError,
    NoQuorumError,
    SerializationError,
    StorageError,
    UnavailableError,
)

if TYPE_CHECKING:
    import asyncio

    from ..types import Address

T = TypeVar("T")

NEGATIVE = 1
USAGE = 2
UNREACHABLE = 3
NO_LEADER = 4
CONFLICT = 5
UNHEALTHY = 6
DAMAGED = 7
LOST = 75
INTERRUPTED = 130

DEFAULT_CLUSTER = "127.0.0.1:7400"

COMMANDS = {
    "demo": "Watch a real three-process cluster lose its leader, and check that it lost nothing.",
    "serve": "Run one member of a cluster until it is told to stop.",
    "status": "Who leads, and where every member stands.",
    "members": "List the members, or add, remove, promote and demote one; let another lead.",
    "get": "Print a value of a map.",
    "put": "Set a value of a map.",
    "ls": "List what lies beneath a path.",
    "rm": "Delete a path and all beneath it.",
    "watch": "Print what becomes of a path.",
}
"""Each command's module is its name, but for those that share one."""

_MODULES = {"get": "data", "put": "data", "ls": "paths", "rm": "paths", "watch": "paths"}

EPILOG = """\b
Exit codes: 0 done, 1 negative answer (key absent, a check failed), 2 usage,
3 no member reachable, 4 no leader or too late, 5 conflict, 6 cannot run on
this data directory, 7 damaged data, 75 lock lost, 130 interrupted."""


class LazyGroup(click.Group):
    """Knows its commands by name and one line; imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{_MODULES.get(cmd_name, cmd_name)}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="copycat-raft", prog_name="copycat")
def cli() -> None:
    """Strongly consistent coordination for Python programs: try `copycat demo`."""


class Failure(click.ClickException):
    """An error as the command line shows it: what happened, what to do, an exit code."""

    def __init__(self, message: str, *, hint: str = "", code: int = NEGATIVE) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = code  # type: ignore[misc]  # click documents setting it so

    def show(self, file: Any = None) -> None:
        """One line of cause, one of advice, on standard error."""
        click.echo(f"Error: {self.message}", err=True)
        if self.hint:
            click.echo(f"hint: {self.hint}", err=True)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on uvloop where there is one; errors become a `Failure`, never a traceback."""
    import asyncio

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main)
    except KeyboardInterrupt:
        raise click.exceptions.Abort from None
    except CopycatError as problem:
        raise failure(problem) from problem


def failure(problem: CopycatError) -> Failure:
    """How the command line shows ``problem``."""
    text, hint = for_shell(str(problem)), for_shell(problem.hint)
    return Failure(text, hint=hint, code=exit_code(problem))


def for_shell(text: str) -> str:
    """``text`` with settings as one writes them here: ``join=[...]`` is ``--join HOST:PORT``."""
    for python, shell in _IN_SHELL.items():
        text = text.replace(python, shell)
    return text


_IN_SHELL = {
    'open("n4", listen=..., join=[...])': "copycat serve --name n4 --listen HOST:PORT --join ...",
    "members= founds a cluster, or restarts a founder; join= is":
        "--members founds a cluster, or restarts a founder; --join is",
    "pass listen=, and advertise= if": "add --listen HOST:PORT, and --advertise if",
    "pass data='./data', or storage='memory'": "add --data ./data, or set COPYCAT_STORAGE=memory",
    "open it with join=[...]": "serve it with --join HOST:PORT",
    "instead of members": "instead of --members",
}  # fmt: skip
"""How hints for programs, and parts of such, read at a shell."""


def exit_code(problem: CopycatError) -> int:
    """The exit code that tells a script what kind of error this is."""
    if isinstance(problem, NoQuorumError) and problem.alive == 0:
        return UNREACHABLE
    for kind, code in _EXIT_CODES:
        if isinstance(problem, kind):
            return code
    return NEGATIVE


_EXIT_CODES: tuple[tuple[type[CopycatError], int], ...] = (
    (ConfigurationError, USAGE),
    (SerializationError, USAGE),
    (UnavailableError, NO_LEADER),
    (DeadlineError, NO_LEADER),
    (ConflictError, CONFLICT),
    (MembershipError, CONFLICT),
    (CorruptLogError, DAMAGED),
    (StorageError, UNHEALTHY),
    (LockLost, LOST),
)


def cluster_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option that says where the cluster is."""
    return click.option(
        "--cluster",
        envvar="COPYCAT_URL",
        default=DEFAULT_CLUSTER,
        show_default=True,
        metavar="HOST:PORT,...",
        help="Some of the members; COPYCAT_URL in the environment says the same.",
    )(function)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option that asks for one JSON document on standard output."""
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON document on standard output."
    )(function)


def timeout_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option that limits the waiting."""
    return click.option(
        "--timeout", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds."
    )(function)


def addresses_of(cluster: str) -> list[Address]:
    """The addresses in ``--cluster``; raises a `Failure` if they are none."""
    from ..client import parse_addresses

    try:
        return parse_addresses(cluster.removeprefix("copycat://"))
    except ConfigurationError as problem:
        raise failure(problem) from problem


def echo_json(document: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, ensure_ascii=False, default=_jsonable))


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _jsonable(value: object) -> object:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def lies_in_memory(directory: str | os.PathLike[str]) -> bool:
    """Whether an existing ``directory`` is on a tmpfs: no fsync there means anything."""
    from ..server.disk import RealDisk

    disk = RealDisk(directory)
    try:
        return disk.on_tmpfs()
    finally:
        disk.close()
