"""The operations of resource 0, the system: paths, resources, listeners, digests.

Ids below `FIRST_USER_OPERATION` are fixed for ever; every other operation's id is interned in the
replicated schema by name when a machine that has it is first opened.
"""

from __future__ import annotations

import enum

SYSTEM_RESOURCE = 0
FIRST_USER_OPERATION = 64
FENCED = "ResourceFenced"
"""The error type of operations on a resource that a command left half-done."""
DELETED = "copycat.deleted"
"""The event that tells a session that a resource it depends on is gone; no value. No machine can
declare it: a dot stands in no attribute's name."""


class SystemOperation(enum.IntEnum):
    """Fixed operation ids; arguments -> result, both msgpack.

    An event of the system itself (resource 0) is named by a path: what becomes of it and of what
    lies directly beneath it, as [type, path]. The last arguments of OPEN (None), CHILDREN (0),
    DELETE (None) and CREATE (0) may be left out.
    """

    OPEN = 1  # command [path, machine type, version, [operation names], mode] -> [resource, [ids]]
    EXISTS = 2  # query [path] -> bool
    CHILDREN = 3  # query [path, after version] -> [[names], version to go on after or 0]
    DELETE = 4  # command [path, version] -> bool: the subtree and its resources are gone
    CREATE = 5  # command [path, mode] -> bool: True if it was not there
    LISTEN = 6  # command [resource, event] -> its index: this session gets what comes then
    UNLISTEN = 7  # command [resource, event] -> None
    DIGEST = 8  # command [] -> [index, digest]: every member digests its state at this index
    DIGEST_AT = 9  # query [index] -> digest | None: what this member found there
    RESOURCES = 10  # query [] -> [[path, resource, machine type], ...]
    INFO = 12  # query [path] -> [version, time_us, owner, resource, machine type, children] | None
    TRANSACT = 11  # command [[precondition], [operation]], each [resource, operation, arguments as
    # bytes] -> [[result], -1] or [[], nth of them that failed, its result]: nothing was changed
