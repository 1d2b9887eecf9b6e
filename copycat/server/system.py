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
    ConflictError,
    ResourceTypeError,
    SerializationError,
    UnknownResourceError,
)
from ..paths import normal_path
from ..serializer import Serializer
from ..system import DELETED, SYSTEM_RESOURCE, SystemOperation
from ..types import EventType, Mode
from .executor import MEMBER_ONLY, Executor, arguments_of, failure, result_of
from .listening import Listening
from .transactions import Step, Transaction
from .tree import Schema, Tree

DIGESTS_KEPT = 16
DIGEST_INTERVAL_US = 1_000_000
"""Log time between two digests: each costs every member a walk over its whole state."""
LISTENERS_MAX = 4096
"""Events, and paths, that one session may listen to."""
OWNED_MAX = 65_536
"""Ephemeral paths of one session."""
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
    def retire(self, resources: Iterable[int]) -> None: ...


class System:
    """The tree, the schema, and who listens to what."""

    def __init__(self, executor: Executor, state: State) -> None:
        self._executor = executor
        self._state = state
        self._tree = Tree()
        self._schema = Schema()
        self._listening = Listening()
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
            op.CHILDREN: self._children,
            op.DIGEST_AT: self._digests.get,
            op.RESOURCES: self._resources,
            op.INFO: self._info,
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
        return self._listening.sessions(resource, event)

    def end(self, session: int) -> None:
        """A session ended: it listens to nothing any more, and its paths go, oldest first."""
        self._listening.forget(session)
        self._session = session
        for path in self._tree.owned(session):
            self._remove(path)

    def image(self) -> list[object]:
        """Everything replicated here, for a snapshot."""
        return [
            self._tree.image(),
            self._schema.names,
            self._listening.image(),
            self._allowed,
            self._allowed_by,
            self._digest_due_us,
        ]

    def restore(self, image: list) -> None:  # type: ignore[type-arg]
        """Become what made ``image``."""
        paths, names, listeners, self._allowed, self._allowed_by, self._digest_due_us = image
        self._tree = Tree(paths)
        self._schema = Schema(names)
        self._executor.name_of = self._schema.name
        self._listening = Listening(listeners)
        self._digests.clear()

    # -- commands ------------------------------------------------------------------------------

    def _open(
        self,
        path: str,
        type_name: str,
        version: int,
        operations: list[str],
        mode: int | None = None,
    ) -> object:
        path = normal_path(path)
        self._check_names(operations)
        self._check_path(path, mode)
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
            resource = self._state.index
            self._executor.create(resource, path, type_name)
            try:
                self._executor.check_state(resource)
            except SerializationError as problem:
                self._executor.delete([resource])
                raise SerializationError(  # not `Rejected`, which is the machines' own word
                    f"the state of {type_name} cannot be put into a snapshot: {problem.args[0]}; "
                    "give it plain attributes, or snapshot() and restore()"
                ) from problem
            self._create(path, mode)
            self._tree.put(path, resource)
            self._tell_of_path(EventType.OPENED, path)
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

    def _create(self, path: str, mode: int | None = Mode.PERSISTENT) -> bool:
        path = normal_path(path)
        self._check_path(path, mode)
        state = self._state
        created = self._tree.create(path, state.index, state.time_us, self._owner(mode))
        for each in created:
            self._tell_of_path(EventType.CREATED, each)
        return bool(created)

    def _check_path(self, path: str, mode: int | None) -> None:
        """Whether it may and can be there, before anything is changed."""
        if len(self._tree) >= PATHS_MAX and path not in self._tree:
            raise Full(f"the cluster has {len(self._tree)} paths, its limit")
        owner = self._owner(mode)
        self._tree.check(path, owner)
        if owner and self._tree.owns(owner) >= OWNED_MAX and path not in self._tree:
            raise Full(f"session {owner} has {OWNED_MAX} ephemeral paths, its limit")

    def _owner(self, mode: int | None) -> int | None:
        """Whom a path shall belong to; None: whoever has it."""
        if mode is None:
            return None
        return self._session if Mode(mode) is Mode.EPHEMERAL else 0

    def _delete(self, path: str, version: int | None = None) -> bool:
        path = normal_path(path)
        place = self._tree.find(path)
        if version is not None and (place is None or place.version != version):
            there = None if place is None else place.version
            raise ConflictError(
                f"{path} is not there" if there is None else f"{path} has the version {there}",
                current=there,
            )
        return self._remove(path)

    def _remove(self, path: str) -> bool:
        gone = self._tree.delete(path)
        for _, place in gone:
            if place.resource:
                self._tell_of_deletion(place.resource)
        resources = [place.resource for _, place in gone if place.resource]
        self._executor.delete(resources)
        self._state.retire(resources)
        for each, _ in gone:
            if each != "/":  # which stays
                self._tell_of_path(EventType.DELETED, each)
        return bool(gone)

    def _tell_of_deletion(self, resource: int) -> None:
        """The machine hears of it first, so that its last events come before the end of all."""
        state, instance = self._state, self._executor.instance(resource)
        if instance is not None:
            self._executor.hook(instance, "on_delete", state.index, state.time_us, self._session)
        for session in self._listening.delete(resource):
            state.publish(resource, DELETED, NO_VALUE, session)

    def _tell_of_path(self, what: EventType, path: str) -> None:
        """Those who listen to the path or to its parent."""
        if not self._listening.knows(SYSTEM_RESOURCE):
            return
        told = self._serializer.pack([what.value, path])
        for each in (path, path.rpartition("/")[0] or "/") if path != "/" else (path,):
            self._state.publish(SYSTEM_RESOURCE, each, told, None)

    def _listen(self, resource: int, event: str) -> int:
        if resource == SYSTEM_RESOURCE:
            event = normal_path(event)
        elif self._executor.instance(resource) is None:
            raise UnknownResourceError(f"resource {resource} was deleted")
        elif not isinstance(event, str) or len(event) > NAME_CHARACTERS_MAX:
            raise TypeError(f"an event has a name of at most {NAME_CHARACTERS_MAX} characters")
        session = self._session
        if not self._listening.has(resource, event, session):
            count = self._listening.count(session)
            if count >= LISTENERS_MAX:
                raise Full(f"session {session} listens to {count} events, its limit")
            self._listening.add(resource, event, session)
        return self._state.index

    def _unlisten(self, resource: int, event: str) -> None:
        self._listening.drop(resource, event, self._session)

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

    def _children(self, path: str, after: int = 0) -> object:
        return list(self._tree.children(normal_path(path), after))

    def _info(self, path: str) -> object:
        place = self._tree.find(normal_path(path))
        if place is None:
            return None
        instance = self._executor.instance(place.resource)
        type_name = "" if instance is None else instance.type_name
        return [
            place.version, place.time_us, place.owner, place.resource, type_name,
            len(place.children),
        ]  # fmt: skip

    def _resources(self) -> object:
        return [[i.path, i.id, i.type_name] for i in self._executor.instances()]

    # -- helpers -------------------------------------------------------------------------------

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
