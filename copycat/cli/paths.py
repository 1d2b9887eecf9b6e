"""``copycat ls``, ``rm`` and ``watch``: the path tree, from a shell."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import click

from .. import node
from ..errors import CopycatError, UnknownResourceError
from ..paths import normal_path
from ..types import EventType
from .common import (
    NEGATIVE,
    USAGE,
    Failure,
    addresses_of,
    cluster_option,
    echo_json,
    json_option,
    on_terminal,
    run,
    timeout_option,
)
from .data import typed

if TYPE_CHECKING:
    from ..handles import CopycatClient
    from ..nodes import NodeInfo, PathEvent
    from ..resources import MapEvent

COLUMNS = ("path", "type", "mode", "children", "version")
MAP = "copycat.map"
AT_ONCE = 1000
"""Paths that are asked about together."""

Event = dict[str, object]
Tell = Callable[[Event], None]


@click.command()
@click.argument("path", default="/")
@cluster_option
@timeout_option
@json_option
def ls(path: str, cluster: str, timeout: float, as_json: bool) -> int:
    """List what lies directly beneath PATH, and what lives there; exit code 1 if PATH is not there.

    The type is the name of a resource's machine, "-" if nothing lives there. An ephemeral path goes
    with its session. The version is the log index that created the path.
    """
    here, found = run(_ls(addresses_of(cluster), path, timeout))
    if as_json:
        echo_json(
            {
                "path": normal_path(path),
                "exists": here is not None,
                "node": None if here is None else _document(here),
                "children": [_document(each) for each in found],
            }
        )
        return NEGATIVE if here is None else 0
    if here is None:
        raise _not_there(path)
    rows = [
        (each.path, each.type or "-", each.mode.name.lower(), str(each.children), str(each.version))
        for each in found
    ]
    if not on_terminal():
        for row in (COLUMNS, *rows):
            click.echo("\t".join(row))
        return 0
    widths = [max(len(row[column]) for row in (COLUMNS, *rows)) for column in range(len(COLUMNS))]
    for row in (COLUMNS, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    return 0


@click.command()
@click.argument("path")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@cluster_option
@timeout_option
@json_option
def rm(path: str, yes: bool, cluster: str, timeout: float, as_json: bool) -> int:
    """Delete PATH, all beneath it, and the resources there; exit code 1 if PATH is not there.

    Shows what is there and asks; where nobody can be asked it needs --yes. Only what was shown is
    deleted: if the path is created anew meanwhile, that is a conflict (exit code 5).
    """
    if not yes and not sys.stdin.isatty():
        raise Failure("nobody can be asked here", hint="say --yes to delete without", code=USAGE)
    addresses = addresses_of(cluster)
    there, _ = run(_ls(addresses, path, timeout, children=False))
    if there is None:
        if as_json:
            echo_json({"path": normal_path(path), "deleted": False, "node": None})
            return NEGATIVE
        raise _not_there(path)
    what = f"a {there.type}" if there.type else "no resource"
    click.echo(f"{there.path} holds {what}, and {there.children} beneath it", err=True)
    if not yes:
        click.confirm("Delete all of it?", abort=True, err=True)
    deleted = run(_rm(addresses, there, timeout))
    if as_json:
        echo_json({"path": there.path, "deleted": deleted, "node": _document(there)})
    else:
        click.echo(f"{there.path} is deleted", err=True)
    return 0


@click.command()
@click.argument("path")
@click.option("--count", "-n", type=click.IntRange(min=1), help="Stop after so many lines.")
@cluster_option
@timeout_option
@click.option("--json", "--jsonl", "as_json", is_flag=True, help="One JSON document for each line.")
def watch(path: str, count: int | None, cluster: str, timeout: float, as_json: bool) -> int:
    """Print what becomes of PATH and of what lies directly beneath it, until Ctrl-C.

    PATH need not exist. If a map lives there now, what is put and removed is printed as well. None
    is lost or doubled; should the session end (exit code 1), start it again.
    """
    run(_watch(addresses_of(cluster), path, timeout, count, _teller(as_json)))
    return 0


# -- helpers -----------------------------------------------------------------------------------


def _not_there(path: str) -> Failure:
    return Failure(
        f"there is no {normal_path(path)}", hint="'copycat ls' lists what there is at the root"
    )


def _document(info: NodeInfo) -> dict[str, object]:
    return {
        "path": info.path,
        "type": info.type or None,
        "resource": info.resource or None,
        "mode": info.mode.name.lower(),
        "owner": info.owner or None,
        "version": info.version,
        "children": info.children,
    }


async def _ls(
    addresses: list[Any], path: str, timeout: float, *, children: bool = True
) -> tuple[NodeInfo | None, list[NodeInfo]]:
    """What is at ``path``, and each of what is beneath it."""
    async with node.connect(addresses, name="copycat ls", timeout=timeout) as cc:
        here = await cc.node(path).info()
        below = await cc.children(path) if children else []
        found: list[NodeInfo | None] = []
        for first in range(0, len(below), AT_ONCE):
            some = below[first : first + AT_ONCE]
            found += await asyncio.gather(*(each.info() for each in some))
        return here, [each for each in found if each is not None]  # None: deleted meanwhile


async def _rm(addresses: list[Any], there: NodeInfo, timeout: float) -> bool:
    async with node.connect(addresses, name="copycat rm", timeout=timeout) as cc:
        # The root is never created, so it has no version.
        return await cc.delete(there.path, version=there.version or None)


def _teller(as_json: bool) -> Tell:
    def tell(event: Event) -> None:
        if as_json:
            echo_json(event)
            return
        shown = [event["index"], event["type"], event["path"]]
        if "key" in event:
            shown += [_text(event["key"]), _text(event["value"])]
        click.echo("\t".join(map(str, shown)))

    return tell


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


async def _watch(
    addresses: list[Any], path: str, timeout: float, count: int | None, tell: Tell
) -> None:
    """Tell ``count`` events of ``path``; without one go on for ever."""
    async with (
        node.connect(addresses, name="copycat watch", timeout=timeout) as cc,
        cc.listen(path) as changes,
    ):
        events: asyncio.Queue[Event | CopycatError] = asyncio.Queue(1)
        info = await cc.node(path).info()
        sources = [_of_path(changes)]
        if info is not None and info.type == MAP:
            sources.append(_of_map(cc, path))
        tasks = [asyncio.create_task(_each(source, events)) for source in sources]
        click.echo(f"watching {normal_path(path)}", err=True)
        try:
            while count is None or count > 0:
                event = await events.get()
                if isinstance(event, CopycatError):
                    raise event
                tell(event)
                count = None if count is None else count - 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _each(source: AsyncIterator[Event], events: asyncio.Queue[Event | CopycatError]) -> None:
    try:
        async for event in source:
            await events.put(event)
    except CopycatError as problem:
        await events.put(problem)


async def _of_path(changes: AsyncIterator[PathEvent]) -> AsyncIterator[Event]:
    async for event in changes:
        yield {"index": event.index, "type": event.type.value, "path": event.path}


async def _of_map(cc: CopycatClient, path: str) -> AsyncIterator[Event]:
    """Changes of the map, as long as it is there."""
    event: MapEvent[Any, Any]
    try:
        async for event in cc.map(path).watch():
            shown: Event = {"index": event.index, "type": event.type.value}
            shown["path"] = normal_path(path)
            if event.type is not EventType.CLEAR:
                shown |= {"key": typed(event.key), "value": typed(event.value)}
            yield shown
    except UnknownResourceError:
        return  # its path was deleted, and that is told
