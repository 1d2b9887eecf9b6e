"""``copycat members``: who takes part, and who shall.

Every change is a wish to whoever leads, which refuses what would lose the majority; asking twice
does no harm. Each prints who voted before and who votes after it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from .. import node
from .common import (
    addresses_of,
    cluster_option,
    echo_json,
    json_option,
    on_terminal,
    run,
    timeout_option,
)

if TYPE_CHECKING:
    from ..cluster import Cluster

COLUMNS = ("member", "address", "part", "leads")

Deed = Callable[["Cluster"], Awaitable[object]]


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that all of these have."""
    return cluster_option(timeout_option(json_option(function)))


@click.group(invoke_without_command=True)
@options
@click.pass_context
def members(ctx: click.Context, cluster: str, timeout: float, as_json: bool) -> None:
    """List the members, or change who takes part."""
    if ctx.invoked_subcommand is None:
        _list(cluster, timeout, as_json)


@members.command("list")
@options
def list_(cluster: str, timeout: float, as_json: bool) -> None:
    """All members by the committed configuration, and who leads."""
    _list(cluster, timeout, as_json)


@members.command()
@click.argument("name")
@click.argument("address", metavar="HOST:PORT")
@click.option("--learner", is_flag=True, help="It follows for good, and never votes.")
@options
def add(
    name: str, address: str, learner: bool, cluster: str, timeout: float, as_json: bool
) -> None:
    """Keep a place for NAME, which will be started with 'copycat serve --join'.

    It votes as soon as it has caught up. Who is to vote need not be added: joining does that.
    """
    from ..types import MemberType

    type_ = MemberType.PASSIVE if learner else MemberType.ACTIVE
    _change(
        cluster, timeout, as_json, lambda c: c.add(name, address, type=type_, timeout=timeout)
    )


@members.command()
@click.argument("name")
@options
def remove(name: str, cluster: str, timeout: float, as_json: bool) -> None:
    """Take NAME out, whether it is up or not, the leader as well. Its process then stops."""
    _change(cluster, timeout, as_json, lambda c: c.remove(name, timeout=timeout), gone=name)


@members.command()
@click.argument("name")
@options
def promote(name: str, cluster: str, timeout: float, as_json: bool) -> None:
    """Let the learner NAME vote; waits until it has caught up."""
    _change(cluster, timeout, as_json, lambda c: c.promote(name, timeout=timeout))


@members.command()
@click.argument("name")
@options
def demote(name: str, cluster: str, timeout: float, as_json: bool) -> None:
    """Let the voter NAME follow only."""
    _change(cluster, timeout, as_json, lambda c: c.demote(name, timeout=timeout))


@members.command()
@click.argument("name", required=False)
@options
def lead(name: str | None, cluster: str, timeout: float, as_json: bool) -> None:
    """Let the voter NAME lead, or whoever is best prepared."""
    _change(cluster, timeout, as_json, lambda c: c.transfer_leadership(name, timeout=timeout))


# -- helpers -----------------------------------------------------------------------------------


def _list(cluster: str, timeout: float, as_json: bool) -> None:
    _, seen = run(_done(addresses_of(cluster), timeout, None))
    if as_json:
        echo_json(seen)
    else:
        _show(seen)


def _change(cluster: str, timeout: float, as_json: bool, deed: Deed, *, gone: str = "") -> None:
    before, after = run(_done(addresses_of(cluster), timeout, deed))
    names = [each["name"] for each in before["members"]]
    if gone and gone not in names:
        click.echo(f"{gone} was no member: there are {', '.join(names)}", err=True)
    if as_json:
        echo_json({"before": before, "after": after})
        return
    _show(after)
    click.echo(f"{_quorum(before)} -> {_quorum(after)}", err=True)


async def _done(
    addresses: list[Any], timeout: float, deed: Deed | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the cluster was, and how it is after ``deed``."""
    async with node.connect(addresses, name="copycat members", timeout=timeout) as cc:
        before = after = await _look(cc.cluster, timeout)
        if deed is not None:
            await deed(cc.cluster)
            after = await _look(cc.cluster, timeout)
        return before, after


async def _look(cluster: Cluster, timeout: float) -> dict[str, Any]:
    """The members now, as plain values."""
    found = await cluster.members(timeout=timeout)
    voters = (await cluster._ask("status", [], timeout))["voters"]
    return {
        "cluster": cluster.id,
        "leader": cluster.leader,
        "members": [
            {
                "name": m.name,
                "address": str(m.address),
                "type": m.type.value,
                "votes": m.name in voters,
                "uuid": m.uuid,
            }
            for m in found
        ],
    }


def _quorum(seen: dict[str, Any]) -> str:
    voters = sum(member["votes"] for member in seen["members"])
    return f"{voters // 2 + 1} of {voters} needed"


def _part(member: dict[str, Any]) -> str:
    """What it does now, and will do."""
    if member["votes"]:
        return "votes"
    later = ", votes when it has caught up" if member["type"] == "active" else ""
    return ("learner" if member["uuid"] else "expected, learner") + later


def _show(seen: dict[str, Any]) -> None:
    rows = [
        (m["name"], m["address"], _part(m), "leads" if m["name"] == seen["leader"] else "")
        for m in seen["members"]
    ]
    if not on_terminal():
        for row in (COLUMNS, *rows):
            click.echo("\t".join(row))
        return
    widths = [max(len(row[column]) for row in (COLUMNS, *rows)) for column in range(len(COLUMNS))]
    for row in (COLUMNS, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
