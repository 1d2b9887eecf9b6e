"""The executor: instances of state machines, and one command or query run on one of them.

Whatever a machine does becomes a result of bytes: a status and a value, the same on every member.
An exception is a result too (H47), except those that say something about *this* member only
(memory, recursion depth): they stop it before it can acknowledge anything (H50).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from .._core.calls import OK, OK_NONE, Entry, packer, unpacker
from .._core.layout import Status
from ..errors import (
    ConflictError,
    CopycatError,
    InvariantViolated,
    Rejected,
    SerializationError,
)
from ..machine import (
    Commit,
    StateMachine,
    attach,
    bound_operations,
    dynamic_operation,
    is_dynamic,
    operations_of,
)
from ..serializer import Serializer

MESSAGE_MAX = 1000

_NO_ARGUMENTS = b"\x90"
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


class MachineMissing(CopycatError):
    """The log needs a machine this member does not have: it cannot apply any further."""

    code = "CC-MACHINE-MISSING"


MEMBER_ONLY = (MemoryError, RecursionError, InvariantViolated, MachineMissing)
"""Exceptions that say something about this member, not about the command: they stop it."""


class Runtime(Protocol):
    """What the applier offers to the machines of an executor; values are bytes already."""

    def publish(self, resource: int, event: str, value: bytes, to: int | None) -> None: ...
    def schedule(self, resource: int, delay_us: int, operation: str, arguments: bytes) -> None: ...


class Instance:
    """One resource: a machine at a path, with its operations by name."""

    __slots__ = (
        "commands", "commit", "id", "machine", "pack", "path", "queries", "serializer",
        "type_name", "unpack",
    )  # fmt: skip

    def __init__(
        self,
        id_: int,
        path: str,
        type_name: str,
        machine: StateMachine,
        serializer: Serializer,
        runtime: Runtime,
    ) -> None:
        self.id = id_
        self.path = path
        self.type_name = type_name
        self.machine = machine
        self.serializer = serializer
        self.pack = packer(serializer.pack)
        self.unpack = unpacker(serializer.unpack)
        self.commit: Commit = attach(machine, id_, _Packing(runtime, serializer))
        kinds = operations_of(type(machine))
        bound = bound_operations(machine)
        self.commands = {name: bound[name] for name, kind in kinds.items() if not kind.is_query}
        self.queries = {name: bound[name] for name, kind in kinds.items() if kind.is_query}


class _Packing:
    """A machine's view of the applier: what it publishes and schedules is encoded at once."""

    def __init__(self, runtime: Runtime, serializer: Serializer) -> None:
        self._runtime = runtime
        self._serializer = serializer

    def publish(self, resource: int, event: str, value: object, to: int | None) -> None:
        self._runtime.publish(resource, event, self._serializer.pack(value), to)

    def schedule(
        self, resource: int, delay_us: int, operation: str, args: tuple[object, ...]
    ) -> None:
        packed = self._serializer.pack(list(args))
        self._runtime.schedule(resource, delay_us, operation, packed)


class Executor:
    """All instances, by resource id, and a dispatch table that grows as operations are used."""

    def __init__(
        self,
        machines: Mapping[str, type[StateMachine]],
        serializer: Serializer,
        runtime: Runtime,
    ) -> None:
        self.machines = dict(machines)
        self._serializer = serializer
        self._opaque = Serializer(opaque=True)
        self._runtime = runtime
        self._instances: dict[int, Instance] = {}
        self.table: dict[tuple[int, int], Entry] = {}  # for `run_commands`
        self.name_of: Callable[[int], str | None] = lambda operation: None  # set by System

    def instances(self) -> Iterable[Instance]:
        """Every instance, in creation order."""
        return self._instances.values()

    def instance(self, id_: int) -> Instance | None:
        """The instance, or None if it was deleted or never was."""
        return self._instances.get(id_)

    def create(self, id_: int, path: str, type_name: str) -> Instance:
        """A fresh machine; raises `MachineMissing` if this member was started without its class."""
        cls = self.machines.get(type_name)
        if cls is None:
            raise MachineMissing(
                f"{path} is a {type_name!r}, and this member was started without that machine: "
                "it cannot apply what the others have agreed on",
                hint=f"start this member with machines=[{type_name}], then it catches up",
            )
        built_in = type_name.startswith("copycat.")
        serializer = self._opaque if built_in else self._serializer
        instance = Instance(id_, path, type_name, cls(), serializer, self._runtime)
        self._instances[id_] = instance
        return instance

    def check_state(self, id_: int) -> None:
        """Raise `SerializationError` if the machine's state could not be put into a snapshot."""
        instance = self._instances[id_]
        instance.serializer.pack_state(instance.machine.snapshot())

    def delete(self, id_: int) -> None:
        """Forget an instance; its id is never given out again."""
        self._instances.pop(id_, None)
        for key in [key for key in self.table if key[0] == id_]:
            del self.table[key]

    def command(
        self,
        resource: int,
        operation: int,
        arguments: bytes,
        index: int,
        time_us: int,
        session: int,
    ) -> bytes:
        """Run the first command of its kind, and note in ``table`` how to run the next ones."""
        found = self._resolve(resource, operation, queries=False)
        if isinstance(found, bytes):
            return found
        function, instance = found

        def failed(problem: Exception) -> bytes:
            if isinstance(problem, MEMBER_ONLY):
                raise problem
            return result_of(problem, instance.serializer)

        entry = (function, instance.commit, instance.unpack, instance.pack, failed)
        self.table[resource, operation] = entry
        commit = instance.commit
        commit.index, commit.time_us, commit.session = index, time_us, session
        return self._call(function, instance, arguments)

    def query(
        self, resource: int, operation: int, arguments: bytes, index: int = 0, time_us: int = 0
    ) -> bytes:
        """Run one query on the state at ``index``; its result. Nothing changes."""
        found = self._resolve(resource, operation, queries=True)
        if isinstance(found, bytes):
            return found
        commit = found[1].commit
        commit.index, commit.time_us, commit.session = index, time_us, 0
        return self._call(*found, arguments)

    def timer(
        self, resource: int, operation: str, arguments: bytes, index: int, time_us: int
    ) -> None:
        """Run a scheduled command; nobody waits for its result."""
        instance = self._instances.get(resource)
        if instance is None:
            return
        function = instance.commands.get(operation)
        if function is None and is_dynamic(type(instance.machine)):
            function = dynamic_operation(instance.machine, operation)
        if function is not None:
            commit = instance.commit
            commit.index, commit.time_us, commit.session = index, time_us, 0
            self._call(function, instance, arguments)

    def hook(self, instance: Instance, name: str, index: int, time_us: int, session: int) -> None:
        """Call ``on_register``, ``on_expire``, ``on_close`` or ``on_delete``, if it has its own."""
        if getattr(type(instance.machine), name) is getattr(StateMachine, name):
            return
        commit = instance.commit
        commit.index, commit.time_us, commit.session = index, time_us, session
        function = getattr(instance.machine, name)
        self._call(lambda: function(session), instance, _NO_ARGUMENTS)

    def image(self) -> list[object]:
        """All instances for a snapshot."""
        return [
            [i.id, i.path, i.type_name, i.serializer.pack_state(i.machine.snapshot())]
            for i in self._instances.values()
        ]

    def restore(self, image: list) -> None:  # type: ignore[type-arg]
        """Become what made ``image``."""
        self._instances.clear()
        self.table.clear()
        for id_, path, type_name, state in image:
            instance = self.create(id_, path, type_name)
            instance.machine.restore(instance.serializer.unpack_state(state))

    def _resolve(
        self, resource: int, operation: int, *, queries: bool
    ) -> tuple[Callable[..., object], Instance] | bytes:
        instance = self._instances.get(resource)
        if instance is None:
            return failure(Status.UNKNOWN_RESOURCE, f"resource {resource} was deleted")
        name = self.name_of(operation)
        operations = instance.queries if queries else instance.commands
        function = operations.get(name) if name is not None else None
        if function is None and name is not None and is_dynamic(type(instance.machine)):
            function = dynamic_operation(instance.machine, name, is_query=queries)
        if function is None:
            kind = "query" if queries else "command"
            return failure(
                Status.UNKNOWN_OPERATION, f"{instance.type_name} has no {kind} {name or operation}"
            )
        return function, instance

    def _call(
        self, function: Callable[..., object], instance: Instance, arguments: bytes
    ) -> bytes:
        try:
            value = function(*instance.unpack(arguments))
            return OK_NONE if value is None else OK + instance.pack(value)
        except MEMBER_ONLY:
            raise
        except Exception as problem:
            return result_of(problem, instance.serializer)


def failure(status: Status, *value: object) -> bytes:
    """A result that says no."""
    return bytes((status,)) + Serializer(opaque=True).pack(list(value))


def result_of(problem: Exception, serializer: Serializer) -> bytes:
    """The result that tells a caller about ``problem``, free of anything member-specific."""
    # Only a text is taken as it is: the repr of anything else may differ from member to member.
    text = problem.args[0] if problem.args and isinstance(problem.args[0], str) else ""
    message = _ADDRESS.sub("0x…", text)[:MESSAGE_MAX]
    if isinstance(problem, Rejected):
        return failure(Status.REJECTED, message)
    if isinstance(problem, ConflictError):
        try:
            return bytes((Status.CONFLICT,)) + serializer.pack([message, problem.current])
        except SerializationError:
            return failure(Status.CONFLICT, message, None)
    return failure(Status.FAILED, type(problem).__name__, message)
