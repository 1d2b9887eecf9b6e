"""``copycat get`` and ``copycat put``: one value of a map, as JSON."""

from __future__ import annotations

import json
from typing import Any

import click

from .. import node
from .common import (
    NEGATIVE,
    Failure,
    addresses_of,
    cluster_option,
    echo_json,
    json_option,
    run,
    timeout_option,
)

_ABSENT = object()


@click.command()
@click.argument("path")
@click.argument("key")
@cluster_option
@timeout_option
@json_option
def get(path: str, key: str, cluster: str, timeout: float, as_json: bool) -> int:
    """Print the value of KEY, a text, in the map at PATH; exit code 1 if there is none.

    It is printed as JSON. With --json types that JSON does not know are named, as in
    {"$bytes": "00ff"} or {"$map": [[1, "one"]]}.
    """
    addresses = addresses_of(cluster)
    value = run(_get(addresses, path, key, timeout))
    found = value is not _ABSENT
    if as_json:
        shown = typed(value) if found else None
        echo_json({"path": path, "key": key, "found": found, "value": shown})
        return 0 if found else NEGATIVE
    if not found:
        raise Failure(
            f"there is no {key!r} in the map {path}",
            hint="KEY is a text here: a key that is a number or a tuple is another one",
        )
    echo_json(value)
    return 0


@click.command()
@click.argument("path")
@click.argument("key")
@click.argument("value")
@cluster_option
@timeout_option
@json_option
def put(path: str, key: str, value: str, cluster: str, timeout: float, as_json: bool) -> int:
    """Set KEY in the map at PATH to VALUE, which is JSON: 5, true, '"text"', '{"a": 1}'.

    Prints the value before, null if there was none.
    """
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError as problem:
        quoted = json.dumps(value, ensure_ascii=False)
        raise Failure(
            f"VALUE is not JSON: {problem}", hint=f"for a text, quote it twice: '{quoted}'", code=2
        ) from None
    addresses = addresses_of(cluster)
    previous = run(_put(addresses, path, key, parsed, timeout))
    if as_json:
        echo_json({"path": path, "key": key, "value": parsed, "previous": previous})
    else:
        echo_json(previous)
    return 0


def typed(value: object) -> object:
    """``value`` for JSON, so that what differs stays different: types that it lacks are named."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [typed(each) for each in value]
    if isinstance(value, dict):
        plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
        if plain:
            return {key: typed(each) for key, each in value.items()}
        return {"$map": [[typed(key), typed(each)] for key, each in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [typed(each) for each in value]}
    if isinstance(value, set | frozenset):
        return {"$set": sorted((typed(each) for each in value), key=repr)}
    if isinstance(value, bytes | bytearray):
        return {"$bytes": bytes(value).hex()}
    return {f"${type(value).__name__.lower()}": str(value)}


async def _get(addresses: list[Any], path: str, key: str, timeout: float) -> object:
    async with node.connect(addresses, name="copycat get", timeout=timeout) as cc:
        if not await cc.exists(path):  # a map comes to be at its first use; reading is none
            return _ABSENT
        return await cc.map(path).get(key, _ABSENT)


async def _put(addresses: list[Any], path: str, key: str, value: object, timeout: float) -> object:
    async with node.connect(addresses, name="copycat put", timeout=timeout) as cc:
        return await cc.map(path).put(key, value)
