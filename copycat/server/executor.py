"""The executor: instances of state machines, and one command or query run on one of them.

Whatever a machine does becomes a result of bytes: a status and a value, the same on every member.
An exception is a result too (H47). Two kinds are not like the others:

* **RecursionError.** A body has the same room on every member (`depth`), so it fails on all or on
  none; but what it did on its way down is not certain to be the same. So nothing of that is kept:
  the resource is *fenced*. Its state is thrown away, its events and timers with it, and every
  operation fails from then on, until its path is deleted. The fence is state, and travels in
  snapshots. (Stopping instead would let one command stop every member, and again at each replay.)
* **MemoryError** says something about this member only: the others may have applied the command. It
  stops, before it can acknowledge anything (H50), and says where. Started again with more memory it
  applies that index anew. Should no member have enough, then none has applied the index, and all of
  them can be started with a machine that refuses such arguments: nothing is stuck for ever.

In a query neither does harm: it is an error for who asked. In built-in machines, which do not
recurse, both mean a member at its end: it stops.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from .._core.calls import OK, OK_NONE, Entry, packer, unpacker
from .._core.layout import Status
from ..errors import (
    ConflictError,
    CopycatError,
    InvariantViolated,
    OverloadedError,
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
from ..system import FENCED
from .depth import Level

MESSAGE_MAX = 1000
TOLD_MAX = 1000
RETRY_MS = 1000
"""After which a caller may try again what a machine refused as too much."""
NO_STATE = b""
"""Stands in snapshots for the state of a fenced resource."""

log = logging.getLogger("copycat.machines")

_NO_ARGUMENTS = b"\x90"
_NIL = b"\xc0"
_NO_MORE = object()
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


class MachineMissing(CopycatError):
    """The log needs a machine this member does not have: it cannot apply any further."""

    code = "CC-MACHINE-MISSING"


class MemberExhausted(CopycatError):
    """A machine took more memory or stack than this member has: it cannot apply any further."""

    code = "CC-MEMBER-EXHAUSTED"


MEMBER_ONLY = (MemoryError, InvariantViolated, MachineMissing, MemberExhausted)
"""Exceptions that say something about this member, not about the command: they stop it."""


class Runtime(Protocol):
    """What the applier offers to the machines of an executor; values are bytes already."""

    def publish(self, resource: int, event: str, value: bytes, to: int | None) -> int: ...
    def schedule(self, resource: int, delay_us: int, operation: str, arguments: bytes) -> None: ...
    def retract(self, resource: int) -> None: ...


class Instance:
    """One resource: a machine at a path, with its operations by name."""

    __slots__ = (
        "commands", "commit", "fenced", "id", "machine", "pack", "path", "queries", "serializer",
        "state_size", "type_name", "unpack",
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
        self.fenced = ""  # why, if it is
        self.state_size = 0  # in bytes, when it was last encoded
        self.path = path
        self.type_name = type_name
        self.machine = machine
        self.serializer = serializer
        self.pack = packer(serializer.pack)
        self.unpack = unpacker(lambda encoded: arguments_of(serializer.unpack(encoded)))
        self.commit: Commit = attach(machine, id_, _Packing(runtime, serializer))
        kinds = operations_of(type(machine))
        bound = bound_operations(machine)
        self.commands = {name: bound[name] for name, kind in kinds.items() if not kind.is_query}
        self.queries = {name: bound[name] for name, kind in kinds.items() if kind.is_query}

    def __str__(self) -> str:
        return f"{self.type_name} at {self.path}"

    def freeze(self) -> tuple[bool, Iterator[bytes]]:
        """The state as it is now, for a snapshot: whether it comes in pieces, and each encoded.

        One that comes in pieces is encoded while they are taken, later. Raises
        `SerializationError` whatever the machine's own raises. Nothing of a fenced resource.
        """
        if self.fenced:
            return False, iter((NO_STATE,))
        with self._blamed():
            state = self.machine.snapshot()
            if isinstance(state, Iterator):
                return True, self._pieces(state)
            packed = self.serializer.pack_state(state)
        self.state_size = len(packed)
        return False, iter((packed,))

    def _pieces(self, pieces: Iterator[object]) -> Iterator[bytes]:
        size = 0
        while True:
            with self._blamed():
                piece = next(pieces, _NO_MORE)
                if piece is _NO_MORE:
                    break
                packed = self.serializer.pack_state(piece)
            size += len(packed)
            yield packed
        self.state_size = size

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        """What its snapshot() raises says whose it was."""
        try:
            yield
        except InvariantViolated:
            raise
        except SerializationError as problem:
            raise SerializationError(
                f"the state of {self}: {problem}", hint=problem.hint
            ) from problem
        except Exception as problem:
            raise SerializationError(
                f"snapshot() of {self} raised {type(problem).__name__}"
            ) from problem

    def thaw(self, in_pieces: bool, pieces: Iterable[bytes]) -> None:
        """Become what `freeze` gave."""
        values = self._thawed(pieces)
        self.machine.restore(values if in_pieces else next(values))

    def _thawed(self, pieces: Iterable[bytes]) -> Iterator[Any]:
        self.state_size = 0
        for piece in pieces:
            self.state_size += len(piece)
            yield self.serializer.unpack_state(piece)


class _Packing:
    """A machine's view of the applier: what it publishes and schedules is encoded at once."""

    def __init__(self, runtime: Runtime, serializer: Serializer) -> None:
        self._runtime = runtime
        self._serializer = serializer

    def publish(self, resource: int, event: str, value: object, to: int | None) -> int:
        return self._runtime.publish(resource, event, self._serializer.pack(value), to)

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
        self.level: Level | None = None  # set by the applier if user machines may run
        self._told: set[tuple[str, str, str]] = set()  # what was logged: type, operation, error

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
                hint=f"start this member with the class whose type_name is {type_name!r} among its "
                "machines (copycat serve ... MODULE:CLASS), then it catches up",
            )
        serializer = self._opaque if is_built_in(type_name) else self._serializer
        try:
            machine = cls()
        except RecursionError:
            raise Rejected(f"{type_name}() exceeded the depth of the stack") from None
        except MemoryError as problem:
            raise _exhausted(f"{type_name}()", path) from problem
        instance = Instance(id_, path, type_name, machine, serializer, self._runtime)
        self._instances[id_] = instance
        return instance

    def check_state(self, id_: int) -> None:
        """Raise `SerializationError` if the machine's state could not be put into a snapshot."""
        for _ in self._instances[id_].freeze()[1]:
            pass

    def delete(self, ids: Iterable[int]) -> None:
        """Forget these instances; their ids are never given out again."""
        gone = [id_ for id_ in ids if self._instances.pop(id_, None) is not None]
        if gone:
            self._forget_entries(gone)

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
        found = self.resolve(resource, operation, queries=False)
        if isinstance(found, bytes):
            return found
        function, instance = found

        def failed(problem: Exception) -> bytes:
            return self.failed(problem, instance, operation)

        entry = (function, instance.commit, instance.unpack, instance.pack, failed)
        self.table[resource, operation] = entry
        commit = instance.commit
        commit.index, commit.time_us, commit.session = index, time_us, session
        if self.level is None:
            return self._call(function, instance, arguments, operation)
        return self.level.first(lambda: self._call(function, instance, arguments, operation))

    def query(
        self, resource: int, operation: int, arguments: bytes, index: int = 0, time_us: int = 0
    ) -> bytes:
        """Run one query on the state at ``index``; its result. Nothing changes."""
        found = self.resolve(resource, operation, queries=True)
        if isinstance(found, bytes):
            return found
        function, instance = found
        commit = instance.commit
        commit.index, commit.time_us, commit.session = index, time_us, 0
        try:
            value = function(*instance.unpack(arguments))
            return OK_NONE if value is None else OK + instance.pack(value)
        except InvariantViolated:
            raise
        except Exception as problem:
            return self.mishap(problem, instance, operation)

    def timer(
        self, resource: int, operation: str, arguments: bytes, index: int, time_us: int
    ) -> None:
        """Run a scheduled command; nobody waits for its result."""
        instance = self._instances.get(resource)
        if instance is None or instance.fenced:
            return
        function = instance.commands.get(operation)
        if function is None and is_dynamic(type(instance.machine)):
            function = dynamic_operation(instance.machine, operation)
        if function is not None:
            commit = instance.commit
            commit.index, commit.time_us, commit.session = index, time_us, 0
            self._call(function, instance, arguments, operation)

    def hook(self, instance: Instance, name: str, index: int, time_us: int, session: int) -> None:
        """Call ``on_register``, ``on_expire``, ``on_close`` or ``on_delete``, if it has its own."""
        if getattr(type(instance.machine), name) is getattr(StateMachine, name) or instance.fenced:
            return
        commit = instance.commit
        commit.index, commit.time_us, commit.session = index, time_us, session
        function = getattr(instance.machine, name)
        self._call(lambda: function(session), instance, _NO_ARGUMENTS, name)

    def fence(self, instance: Instance, reason: str) -> None:
        """Let every operation fail from here on, and keep nothing of what might differ.

        Deleting the path takes the fence away with the resource.
        """
        instance.fenced = reason
        self._forget_entries([instance.id])
        self._runtime.retract(instance.id)

    def freeze(self) -> Iterator[bytes]:
        """All instances as they are now, for a snapshot: encoded while the pieces are taken.

        Of each, an array of its resource id, path, type, whether its state comes in pieces, and
        why it is fenced; then its state's pieces, each packed once more; then nil.
        """
        pack = self._opaque.pack
        frozen = [(each, *each.freeze()) for each in self._instances.values()]
        heads = [pack([i.id, i.path, i.type_name, many, i.fenced]) for i, many, _ in frozen]
        return _encoded(heads, [pieces for _, _, pieces in frozen], pack)

    def restore(self, values: Iterator[Any]) -> None:
        """Become what `freeze` gave, unpacked once."""
        self._instances.clear()
        self.table.clear()
        for id_, path, type_name, many, fenced in values:
            instance = self.create(id_, path, type_name)
            instance.fenced = fenced
            pieces = iter(lambda: next(values), None)
            if not fenced:
                instance.thaw(many, pieces)
            for _ in pieces:  # what nobody wanted
                pass

    def image(self) -> list[list[object]]:
        """All instances: id, path, type, the encoded pieces of the state, and why it is fenced."""
        return [
            [i.id, i.path, i.type_name, list(i.freeze()[1]), i.fenced]
            for i in self._instances.values()
        ]

    def resolve(
        self, resource: int, operation: int, *, queries: bool
    ) -> tuple[Callable[..., object], Instance] | bytes:
        """How to run an operation, and whose it is; or the result that says why it cannot be."""
        instance = self._instances.get(resource)
        if instance is None:
            return failure(Status.UNKNOWN_RESOURCE, f"resource {resource} was deleted")
        if instance.fenced:
            return failure(Status.FAILED, FENCED, instance.fenced)
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
        self,
        function: Callable[..., object],
        instance: Instance,
        arguments: bytes,
        operation: int | str,
    ) -> bytes:
        try:
            value = function(*instance.unpack(arguments))
            return OK_NONE if value is None else OK + instance.pack(value)
        except Exception as problem:
            return self.failed(problem, instance, operation)

    def failed(self, problem: Exception, instance: Instance, operation: int | str) -> bytes:
        """The result of a command or hook that raised ``problem``; see the module's docstring."""
        if not isinstance(problem, (RecursionError, *MEMBER_ONLY)):
            return self.mishap(problem, instance, operation)
        name = operation if isinstance(operation, str) else self.name_of(operation)
        what = f"{instance.type_name}.{name} (index {instance.commit.index})"
        if isinstance(problem, MemoryError) or (
            isinstance(problem, RecursionError) and is_built_in(instance.type_name)
        ):
            raise _exhausted(what, instance.path) from problem
        if isinstance(problem, RecursionError):
            self.fence(
                instance,
                f"{instance.path} is fenced: {what} exceeded the depth of the stack and left it "
                "half-done; delete the path to use it again",
            )
            return failure(Status.FAILED, type(problem).__name__, instance.fenced)
        raise problem

    def mishap(self, problem: Exception, instance: Instance, operation: int | str) -> bytes:
        """The result of an ordinary exception; where it arose is logged once for each kind."""
        name = operation if isinstance(operation, str) else self.name_of(operation)
        where = f"{instance.type_name}.{name} at {instance.path}"
        meant = isinstance(problem, (Rejected, ConflictError, OverloadedError))
        if not meant and len(self._told) < TOLD_MAX:
            kind = (instance.type_name, str(name), type(problem).__name__)
            if kind not in self._told:
                self._told.add(kind)
                log.error("%s raised %s", where, kind[2], exc_info=problem)
        return result_of(problem, instance.serializer, where)

    def _forget_entries(self, ids: Iterable[int]) -> None:
        gone = frozenset(ids)
        for key in [key for key in self.table if key[0] in gone]:
            del self.table[key]


def _encoded(
    heads: list[bytes], states: list[Iterator[bytes]], pack: Callable[[object], bytes]
) -> Iterator[bytes]:
    for head, pieces in zip(heads, states, strict=True):
        yield head
        for piece in pieces:
            yield pack(piece)
        yield _NIL


def failure(status: Status, *value: object) -> bytes:
    """A result that says no."""
    return bytes((status,)) + Serializer(opaque=True).pack(list(value))


def result_of(problem: Exception, serializer: Serializer, where: str = "the operation") -> bytes:
    """The result that tells a caller about ``problem``, free of anything member-specific."""
    # Only texts and numbers are taken: the repr of anything else may differ from member to member.
    # (How long an integer may be to have one is a setting of the process.)
    first = problem.args[0] if problem.args else ""
    is_plain = type(first) in (str, float, bool) or (type(first) is int and abs(first) < 1 << 64)
    text = str(first) if is_plain else ""
    message = _ADDRESS.sub("0x…", text)[:MESSAGE_MAX]
    if isinstance(problem, Rejected):
        return failure(Status.REJECTED, message)
    if isinstance(problem, OverloadedError):
        return failure(Status.OVERLOADED, message, RETRY_MS)
    if isinstance(problem, ConflictError):
        try:
            return bytes((Status.CONFLICT,)) + serializer.pack([message, problem.current])
        except SerializationError:
            return failure(Status.CONFLICT, message, None)
    return failure(Status.FAILED, type(problem).__name__, message, where[:MESSAGE_MAX])


def arguments_of(value: Any) -> Any:
    """What was sent as arguments; raises `Rejected` for a set: its order differs from member to
    member. (All else that is no list has an order, or fails in the call.)"""
    if isinstance(value, (set, frozenset)):
        raise Rejected("arguments are a list, not a set")
    return value


def is_built_in(type_name: str) -> bool:
    """Whether the machine is one of ours, which users cannot replace."""
    return type_name.startswith("copycat.")


def _exhausted(what: str, path: str) -> MemberExhausted:
    return MemberExhausted(
        f"{what} at {path} took more memory or stack than this member has: it stops before it "
        "answers, and the others go on",
        hint="give it more and start it again: it applies that index anew. If every member stops "
        "there, none has applied it: let the machine refuse such arguments, and start all members "
        "with it",
    )
