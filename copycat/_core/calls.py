"""Arguments in, results out: the loop that runs commands, and its fast codecs, in their pure body.

``calls.pyx`` is the compiled body. A codec made here never differs from the ``fallback`` it is
given, which knows every type and raises every error: the compiled one takes plain built-in values
itself and hands everything else over. `run_commands` is the only place where a machine is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .kernel import Buffer, decode_commands, encode_results
from .layout import Status

OK = bytes((Status.OK,))
OK_NONE = OK + b"\xc0"

Entry = tuple[
    Callable[..., Any],  # the body of a command
    Any,  # the machine's Commit
    Callable[[bytes], Any],  # unpack: a list of arguments
    Callable[[object], bytes],  # pack
    Callable[[Exception], bytes],  # the result of an exception; raises what must stop the member
]


def packer(fallback: Callable[[object], bytes]) -> Callable[[object], bytes]:
    """A function that does what ``fallback`` does: a value to msgpack."""
    return fallback


def unpacker(fallback: Callable[[Buffer], Any]) -> Callable[[Buffer], Any]:
    """A function that does what ``fallback`` does: msgpack to a value."""
    return fallback


def run_commands(
    image: Buffer,
    offset: int,
    count: int,
    skip: int,
    index: int,
    time_us: int,
    session: int,
    table: dict[tuple[int, int], Entry],
    slow: Callable[[int, int, bytes, int, int], bytes],
    events: dict[int, Any],
    flush: Callable[[int], None],
) -> bytes:
    """Run ``count`` commands from ``offset`` less the first ``skip``; their results, encoded.

    ``index`` belongs to the first command that runs. A command whose (resource, operation) is not
    in ``table`` goes to ``slow(resource, operation, arguments, index, session)``, which may add it.
    Whenever ``events`` is not empty after a command, ``flush(index)`` is called.
    """
    results: list[bytes] = []
    for resource, operation, arguments in decode_commands(image, offset, count, skip):
        entry = table.get((resource, operation))
        if entry is None:
            results.append(slow(resource, operation, arguments, index, session))
        else:
            function, commit, unpack, pack, failed = entry
            commit.index = index
            commit.time_us = time_us
            commit.session = session
            try:
                value = function(*unpack(arguments))
                results.append(OK_NONE if value is None else OK + pack(value))
            except Exception as problem:
                results.append(failed(problem))
        if events:
            flush(index)
        index += 1
    return encode_results(results)
