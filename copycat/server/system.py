"""Resource 0: opening and deleting resources, paths, listeners, digests of the whole state.

Its operations have fixed ids (`copycat.system`). A machine type can be opened only if the leader
of the current term said, in its first entry, that it has it: an unknown name is the same error on
every member, and nothing is ever imported because the wire asked for it (H93, H95).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol

from .._core.calls import OK, OK_NONE
from .._core.layout import Status
from ..errors import (
    ConfigurationError,
    ResourceTypeError,
    SerializationError,
    UnknownResourceError,
)
from ..paths import normal_path
from ..serializer import Serializer
from ..system import DELETED, SystemOperation
from .executor import MEMBER_ONLY, Executor, arguments_of, failure, result_of
from .transactions import Step, Transaction
from .tree import Schema, Tree

DIGESTS_KEPT = 16
DIGEST_INTERVAL_US = 1_000_000
"""Log time between two digests: each costs every member a walk over its whole state."""
LISTENERS_MAX = 4096
"""Events that one session may listen to."""
NAMES_MAX = 65_536
"""Names of operations in a cluster; they are never forgotten."""
NAME_CHARACTERS_MAX = 256
PATHS_MAX = 1_000_000
"""Paths of a cluster. (How long and deep one may be: `copycat.paths`.)"""
FULL_RETRY_MS = 1000
NO_VALUE = b"\xc0"


class Full(Exception):
    """A limit of the replicated state is reached: the same answer on every member."""


class State(Protocol):
    """What the system needs to know of the applier."""

    index: int
    time_us: int

    def image(self) -> bytes: ...
    def publish(self, resource: int, event: str, value: bytes, to: int | None) -> int: ...


class System:
    """The tree, the schema, and who listens to what."""

    def __init__(self, executor: Executor, state: State) -> None:
        self._executor = executor
        self._state = state
        self._tree = Tree()
        self._schema = Schema()
        self._listeners: dict[tuple[int, str], dict[int, None]] = {}
        self._listening: dict[int, int] = {}  # session -> to how many events it listens
        self._allowed: list[str] = []
        self._allowed_by = ""
        self._digest_due_us = 0  # log time from which on the next digest may be asked for
        self._digests: dict[int, bytes] = {}  # this member's own; not part of the state
        self._serializer = Serializer(opaque=True)
        executor.name_of = self._schema.name
        op = SystemOperation
        self._commands: dict[int, Callable[..., object]] = {
            op.OPEN: self._open,
            op.CREATE: self._create,
            op.DELETE: self._delete,
            op.LISTEN: self._listen,
            op.UNLISTEN: self._unlisten,
            op.DIGEST: self._digest,
            op.TRANSACT: self._transact,
        }
        self._queries: dict[int, Callable[..., object]] = {
            op.EXISTS: lambda path: path in self._tree,
            op.CHILDREN: lambda path: self._tree.children(path),
            op.DIGEST_AT: self._digests.get,
            op.RESOURCES: self._resources,
        }
        self._session = 0

    def command(self, operation: int, arguments: bytes, session: int) -> bytes:
        """Run one of the system's commands; its result."""
        self._session = session
        return self._call(self._commands.get(operation), operation, arguments)

    def query(self, operation: int, arguments: bytes) -> bytes:
        """Run one of the system's queries; its result."""
        return self._call(self._queries.get(operation), operation, arguments)

    def allow(self, leader: str, types: list[str]) -> None:
        """From here on, these machine types can be opened: the leader has them."""
        self._allowed, self._allowed_by = list(types), leader

    def listeners(self, resource: int, event: str) -> Iterable[int]:
        """The sessions that listen to ``event`` of ``resource``, the oldest first."""
        return tuple(self._listeners.get((resource, event), ()))

    def forget(self, session: int) -> None:
        """A session ended: it listens to nothing any more."""
        for key in [key for key, sessions in self._listeners.items() if session in sessions]:
            self._drop_listener(key, session)

    def image(self) -> list[object]:
        """Everything replicated here, for a snapshot."""
        return [
            self._tree.image(),
            self._schema.names,
            [[list(key), list(sessions)] for key, sessions in self._listeners.items()],
            self._allowed,
            self._allowed_by,
            self._digest_due_us,
        ]

    def restore(self, image: list) -> None:  # type: ignore[type-arg]
        """Become what made ``image``."""
        paths, names, listeners, self._allowed, self._allowed_by, self._digest_due_us = image
        self._tree = Tree([(path, resource) for path, resource in paths])
        self._schema = Schema(names)
        self._executor.name_of = self._schema.name
        self._listeners = {
            (resource, event): dict.fromkeys(sessions) for (resource, event), sessions in listeners
        }
        self._listening = {}
        for sessions in self._listeners.values():
            for session in sessions:
                self._listening[session] = self._listening.get(session, 0) + 1
        self._digests.clear()

    # -- commands ------------------------------------------------------------------------------

    def _open(self, path: str, type_name: str, version: int, operations: list[str]) -> object:
        path = normal_path(path)
        self._check_names(operations)
        resource = self._tree.resource(path)
        if resource:
            instance = self._executor.instance(resource)
            if instance is None:
                raise UnknownResourceError(f"resource {resource} was deleted")
            if instance.type_name != type_name:
                raise ResourceTypeError(
                    f"{path} holds a {instance.type_name!r}, not a {type_name!r}"
                )
        else:
            if type_name not in self._allowed:
                raise UnknownResourceError(
                    f"the machine {type_name!r} is not registered on the leader "
                    f"{self._allowed_by}; start the members with machines=[{type_name}]"
                )
            self._create_path(path)
            resource = self._state.index
            self._executor.create(resource, path, type_name)
            try:
                self._executor.check_state(resource)
            except SerializationError as problem:
                self._executor.delete(resource)
                raise SerializationError(  # not `Rejected`, which is the machines' own word
                    f"the state of {type_name} cannot be put into a snapshot: {problem.args[0]}; "
                    "give it plain attributes, or snapshot() and restore()"
                ) from problem
            self._tree.place(path, resource)
        return [resource, [self._schema.intern(name) for name in operations]]

    def _check_names(self, names: list[str]) -> None:
        """Before anything is changed: names are interned for ever."""
        if type(names) is not list or not all(  # of a set, members would intern in other orders
            isinstance(name, str) and len(name) <= NAME_CHARACTERS_MAX for name in names
        ):
            raise TypeError(
                f"operations are a list of names of at most {NAME_CHARACTERS_MAX} characters"
            )
        if len(self._schema.names) + len(names) > NAMES_MAX:
            new = sum(name not in self._schema for name in dict.fromkeys(names))
            if new and len(self._schema.names) + new > NAMES_MAX:
                raise Full(f"the cluster knows {NAMES_MAX} names of operations, its limit")

    def _create(self, path: str) -> bool:
        return self._create_path(normal_path(path))

    def _create_path(self, path: str) -> bool:
        if len(self._tree) >= PATHS_MAX and path not in self._tree:
            raise Full(f"the cluster has {len(self._tree)} paths, its limit")
        return self._tree.create(path)

    def _delete(self, path: str) -> bool:
        gone = self._tree.delete(normal_path(path))
        for resource in gone or ():
            self._tell_of_deletion(resource)
            self._executor.delete(resource)
            for key in [key for key in self._listeners if key[0] == resource]:
                for session in tuple(self._listeners[key]):
                    self._drop_listener(key, session)
        return gone is not None

    def _tell_of_deletion(self, resource: int) -> None:
        """The machine hears of it first, so that its last events come before the end of all."""
        state, instance = self._state, self._executor.instance(resource)
        if instance is not None:
            self._executor.hook(instance, "on_delete", state.index, state.time_us, self._session)
        listening = [sessions for key, sessions in self._listeners.items() if key[0] == resource]
        for session in dict.fromkeys(session for sessions in listening for session in sessions):
            state.publish(resource, DELETED, NO_VALUE, session)

    def _listen(self, resource: int, event: str) -> int:
        if self._executor.instance(resource) is None:
            raise UnknownResourceError(f"resource {resource} was deleted")
        if not isinstance(event, str) or len(event) > NAME_CHARACTERS_MAX:
            raise TypeError(f"an event has a name of at most {NAME_CHARACTERS_MAX} characters")
        session = self._session
        sessions = self._listeners.get((resource, event), {})
        if session not in sessions:
            count = self._listening.get(session, 0)
            if count >= LISTENERS_MAX:
                raise Full(f"session {session} listens to {count} events, its limit")
            self._listening[session] = count + 1
            self._listeners.setdefault((resource, event), sessions)[session] = None
        return self._state.index

    def _unlisten(self, resource: int, event: str) -> None:
        self._drop_listener((resource, event), self._session)

    def _digest(self) -> object:
        if self._state.time_us < self._digest_due_us:
            raise Full("a digest was made less than a second ago")
        self._digest_due_us = self._state.time_us + DIGEST_INTERVAL_US
        digest = hashlib.blake2b(self._state.image(), digest_size=16).digest()
        self._digests[self._state.index] = digest
        while len(self._digests) > DIGESTS_KEPT:
            del self._digests[next(iter(self._digests))]
        return [self._state.index, digest]

    def _transact(self, expected: list[Step], steps: list[Step]) -> object:
        state = self._state
        circumstances = state.index, state.time_us, self._session
        return Transaction(self._executor, *circumstances).run(expected, steps)

    # -- queries -------------------------------------------------------------------------------

    def _resources(self) -> object:
        return [[i.path, i.id, i.type_name] for i in self._executor.instances()]

    # -- helpers -------------------------------------------------------------------------------

    def _drop_listener(self, key: tuple[int, str], session: int) -> None:
        sessions = self._listeners.get(key)
        if sessions is not None and session in sessions:
            del sessions[session]
            self._listening[session] -= 1
            if not self._listening[session]:
                del self._listening[session]
            if not sessions:
                del self._listeners[key]

    def _call(
        self, function: Callable[..., object] | None, operation: int, arguments: bytes
    ) -> bytes:
        if function is None:
            return failure(Status.UNKNOWN_OPERATION, f"the system has no operation {operation}")
        try:
            value = function(*arguments_of(self._serializer.unpack(arguments)))
        except ResourceTypeError as problem:
            return failure(Status.RESOURCE_TYPE, str(problem.args[0]))
        except UnknownResourceError as problem:
            return failure(Status.UNKNOWN_RESOURCE, str(problem.args[0]))
        except ConfigurationError as problem:
            return failure(Status.REJECTED, str(problem.args[0]))
        except Full as problem:
            return failure(Status.OVERLOADED, str(problem.args[0]), FULL_RETRY_MS)
        except (RecursionError, *MEMBER_ONLY):  # our own code does not recurse
            raise
        except Exception as problem:
            return result_of(problem, self._serializer)
        if value is None:
            return OK_NONE
        return OK + self._serializer.pack(value)
