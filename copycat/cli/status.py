"""``copycat status``: who leads, and where every member stands, asked of each member itself."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from ..errors import UnavailableError
from ..handshake import Welcome
from ..types import Address
from .common import (
    CONFLICT,
    NO_LEADER,
    UNREACHABLE,
    Failure,
    addresses_of,
    cluster_option,
    echo_json,
    json_option,
    on_terminal,
    run,
    timeout_option,
)
from .probe import Probe

COLUMNS = ("member", "address", "role", "term", "commit", "applied", "lag", "sessions", "note")


@click.command()
@cluster_option
@timeout_option
@json_option
def status(cluster: str, timeout: float, as_json: bool) -> int:
    """Who leads, and where every member stands."""
    report = run(cluster_report(addresses_of(cluster), timeout))
    members = report["members"]
    if as_json:
        echo_json(report)
    elif on_terminal():
        _show_table(report)
    else:
        click.echo("\t".join(COLUMNS))
        for member in members:
            click.echo("\t".join(_cells(member)))
    if not any(member["reachable"] for member in members):
        if as_json:
            return UNREACHABLE
        notes = ", ".join(f"{m['name'] or m['address']} ({m['note']})" for m in members)
        if any(member.get("waits") for member in members):
            raise Failure(
                f"no member serves yet: {notes}",
                hint="a cluster is founded when all that --members lists are up: start the others; "
                "the log of each says for whom it waits",
                code=UNREACHABLE,
            )
        raise Failure(
            f"no member answers: {notes}",
            hint="start them with 'copycat serve', or say where they are with --cluster",
            code=UNREACHABLE,
        )
    return 0 if report["leader"] else NO_LEADER


async def cluster_report(addresses: list[Address], timeout: float) -> dict[str, Any]:
    """Ask every member that is known or gets known on the way; one entry for each."""
    asked: dict[Address, dict[str, Any]] = {}
    names: dict[Address, str] = {}
    clusters: dict[str, str] = {}  # id -> one of its members
    due = list(addresses)
    while due:
        answers = await asyncio.gather(*(_ask(address, timeout) for address in due))
        for address, (welcome, entry) in zip(due, answers, strict=True):
            asked[address] = entry
            if welcome is not None:
                if any(welcome.cluster):
                    clusters.setdefault(welcome.cluster.hex(), str(address))
                for name, text in welcome.members.items():
                    host, _, port = text.rpartition(":")
                    names[Address(host.strip("[]"), int(port))] = name
        due = [address for address in names if address not in asked]
    if len(clusters) > 1:
        which = ", ".join(f"{address} to {id_[:8]}" for id_, address in clusters.items())
        raise Failure(
            f"the addresses belong to different clusters: {which}",
            hint="name members of one of them with --cluster. Was one founded by mistake, with an "
            "empty data directory? It has to come back with --join",
            code=CONFLICT,
        )
    return _summary(next(iter(clusters), ""), _one_each(asked, names))


def _one_each(
    asked: dict[Address, dict[str, Any]], names: dict[Address, str]
) -> list[dict[str, Any]]:
    """One entry a member, though it may have been asked under two addresses."""
    entries: dict[str, dict[str, Any]] = {}
    for address, entry in asked.items():
        name = entry["name"] or names.get(address, "")
        entry["name"] = name
        key = name or str(address)
        if key not in entries or entry["reachable"]:
            entries[key] = entry
    return [entries[key] for key in sorted(entries)]


def _summary(cluster: str, members: list[dict[str, Any]]) -> dict[str, Any]:
    leading = [m for m in members if m.get("role") == "leader"]
    leader = max(leading, key=lambda m: m["term"], default=None)
    newest = max((m.get("commit_index", 0) for m in members), default=0)
    for member in members:
        if "applied_index" in member:
            member["lag"] = max(newest - member["applied_index"], 0)
    return {
        "cluster": cluster,
        "leader": leader["name"] if leader else None,
        "term": max((m.get("term", 0) for m in members), default=0),
        "members": members,
    }


async def _ask(address: Address, timeout: float) -> tuple[Welcome | None, dict[str, Any]]:
    entry: dict[str, Any] = {"name": "", "address": str(address), "reachable": False, "note": ""}
    probe = Probe(address, timeout=timeout)
    try:
        async with probe as member:
            entry |= {"reachable": True, **await member.status()}
            entry["note"] = differences_of(entry)
            return member.welcome, entry
    except UnavailableError as problem:
        entry["waits"] = probe.refused
        entry["note"] = str(problem).removeprefix(f"{address}: ")
        return None, entry


def differences_of(status: dict[str, Any]) -> str:
    """What a member has noticed to be other than at its leader; usually nothing."""
    found = status.get("differences", [])
    return "; ".join(f"{what} differs since index {index}" for what, index in found)


def _cells(member: dict[str, Any]) -> list[str]:
    keys = ("role", "term", "commit_index", "applied_index", "lag", "sessions", "note")
    cells = [member["name"] or "?", member["address"]]
    if not member["reachable"]:
        role = "no service" if member.get("waits") else "unreachable"
        return [*cells, role, "", "", "", "", "", member["note"]]
    return [*cells, *(str(member.get(key, "")) for key in keys)]


def _show_table(report: dict[str, Any]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        click.echo("  ".join(COLUMNS))
        for member in report["members"]:
            click.echo("  ".join(cell or "-" for cell in _cells(member)))
        return
    title = f"cluster {report['cluster'][:8] or '?'}, term {report['term']}"
    table = Table(*COLUMNS, title=title, title_justify="left")
    for member in report["members"]:
        leads = member["name"] == report["leader"]
        style = "bold green" if leads else None if member["reachable"] else "red"
        table.add_row(*_cells(member), style=style)
    Console().print(table)
