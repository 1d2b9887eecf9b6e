"""Transactions: changes of several resources in one step, or no change at all.

``async with cc.transaction() as tx`` collects what is to be done and sends it when the body ends,
as one command: one entry of the log, done exactly once, seen by everybody at once. Nothing is
locked meanwhile: what was read, or is expected, is compared at that moment, and `ConflictError`
tells that it has changed. Which operations take part is said by their machines (`command`'s
``check``); how it is made sure that there is never a half, by ``server/transactions.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from ..errors import ConflictError, MisuseError
from ..machine import Operation, StateMachine, operations_of
from ..types import Versioned
from .base import Access, Duration, Resource, Step, StepFailed, seconds_of
from .election import LeaderElection
from .lock import AsyncLock
from .long import AsyncLong
from .map import AsyncMap
from .queue import AsyncQueue
from .topic import AsyncTopic

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")
P = ParamSpec("P")

STEPS_MAX = 128
"""Operations of one transaction, and preconditions."""


class Outcome(Generic[R]):
    """What an operation of a transaction returned: ``value``, once that is committed."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._values: list[R] = []
        self._missing = "is not committed"

    @property
    def value(self) -> R:
        """The result; raises `MisuseError` while, or if, there is none."""
        if not self._values:
            raise MisuseError(f"the result of {self._what} cannot be read: it {self._missing}")
        return self._values[0]

    def __repr__(self) -> str:
        state = repr(self._values[0]) if self._values else self._missing
        return f"<Outcome of {self._what}: {state}>"


class Transaction:
    """Operations on several resources that take effect together, if at all.

    Use it once, as a scope or with `commit`. A body that raises has changed nothing. The parts
    (`map`, `long`, `queue`, `topic`, `lock`, `election`, `machine`) note what is to be done and
    return at once; only their reads are awaited.
    """

    def __init__(self, access: Access, timeout: Duration = None) -> None:
        self._access = access
        self._timeout = None if timeout is None else seconds_of(timeout)
        self._expected: list[Step] = []
        self._steps: list[Step] = []
        self._outcomes: list[Outcome[Any]] = []
        self._over = False

    # -- parts ---------------------------------------------------------------------------------

    def map(self, path: str) -> MapPart[Any, Any]:
        """The part of the map at ``path``."""
        return MapPart(self, AsyncMap(self._access, path))

    def long(self, path: str) -> LongPart:
        """The part of the integer at ``path``."""
        return LongPart(self, AsyncLong(self._access, path))

    def queue(self, path: str) -> QueuePart[Any]:
        """The part of the queue at ``path``."""
        return QueuePart(self, AsyncQueue(self._access, path))

    def topic(self, path: str) -> TopicPart[Any]:
        """The part of the topic at ``path``."""
        return TopicPart(self, AsyncTopic(self._access, path))

    def lock(self, path: str) -> HeldPart:
        """The part of the lock at ``path``."""
        return HeldPart(self, AsyncLock(self._access, path))

    def election(self, path: str) -> HeldPart:
        """The part of the election at ``path``."""
        return HeldPart(self, LeaderElection(self._access, path))

    def machine(self, path: str, machine: type[StateMachine]) -> Part:
        """The part of a machine of your own."""
        return Part(self, _Somewhere(self._access, path), machine)

    # -- the end -------------------------------------------------------------------------------

    async def commit(self, *, timeout: Duration = None) -> None:
        """Do everything now, in one step. The end of the scope does it otherwise.

        Raises `ConflictError` (``current``: what stands there) if a precondition does not hold or
        something that was read has changed; `Rejected`, or whatever else the first operation
        raises; `OverloadedError`, `UnknownResourceError`: in all these cases nothing was changed.
        After `DeadlineError` and `OutcomeUnknownError` see their ``applied``.
        """
        self._check_open()
        self._over = True
        if not self._expected and not self._steps:
            return
        seconds = self._timeout if timeout is None else seconds_of(timeout)
        try:
            results = await self._access.transact(self._expected, self._steps, timeout=seconds)
        except StepFailed as failure:
            raise self._explained(failure) from None
        for outcome, result in zip(self._outcomes, results, strict=True):
            if result:
                outcome._values.append(self._access.unpack(result[1:]))
            else:
                outcome._missing = "was too large to be told"

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self._over = True
        elif not self._over:
            await self.commit()

    def _explained(self, failure: StepFailed) -> BaseException:
        """The error of a step, with the name of its resource."""
        path, _, operation, _ = [*self._expected, *self._steps][failure.nth]
        problem = failure.error
        if isinstance(problem, ConflictError):
            current = problem.current
            if operation in ("expect_version", "put_if_version") and isinstance(current, list):
                current = Versioned(*current)
            return ConflictError(
                f"{path!r}: {problem}. Nothing was changed.",
                current=current,
                hint="begin another transaction with what is there now",
            )
        problem.add_note(f"in a transaction, at {operation!r} of {path!r}")
        return problem

    def _check_open(self) -> None:
        if self._over:
            raise MisuseError("this transaction is over", hint="begin another one")

    def _expect(self, part: Part, query: str, args: list[Any]) -> None:
        self._check_open()
        self._add(self._expected, part, query, args)

    def _do(self, part: Part, operation: str, args: list[Any]) -> Outcome[Any]:
        self._check_open()
        self._add(self._steps, part, operation, args)
        outcome: Outcome[Any] = Outcome(f"{operation!r} of {part.path!r}")
        self._outcomes.append(outcome)
        return outcome

    def _add(self, steps: list[Step], part: Part, operation: str, args: list[Any]) -> None:
        known = operations_of(part._machine).get(operation)
        if steps is self._steps and steps and (known is None or known.check is None):
            raise MisuseError(
                f"{part._machine.__name__}.{operation} may fail, so it has to be the first "
                "operation of its transaction",
                hint="give it a check (see copycat.command), or let it be the first",
            )
        if len(steps) >= STEPS_MAX:
            raise MisuseError(f"a transaction has at most {STEPS_MAX} operations")
        steps.append((part.path, part._machine, operation, self._access.pack(args)))


class _Somewhere(Resource[StateMachine]):
    """A handle that only knows its path."""

    machine = StateMachine


class Part:
    """What a transaction does with the resource at ``path``; see `Transaction`."""

    def __init__(
        self,
        transaction: Transaction,
        handle: Resource[Any],
        machine: type[StateMachine] | None = None,
    ) -> None:
        self._transaction = transaction
        self._machine = handle.machine if machine is None else machine
        self.path = handle.path

    def run(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> Outcome[R]:
        """Run a command: ``tx.machine("/bank", Bank).run(Bank.transfer, "ann", "bob", 5)``.

        One that has no check (see `copycat.command`) has to be the first operation of all. If it
        raises, that is the transaction's error, and nothing else is done.
        """
        name = operation.name
        known = operations_of(self._machine).get(name)
        if known is None or known.is_query:
            raise MisuseError(f"{self._machine.__name__} has no command {name!r}")
        return self._do(name, *operation.positional(args, kwargs))

    def _do(self, operation: str, *args: Any) -> Outcome[Any]:
        return self._transaction._do(self, operation, [*args])

    def _expect(self, query: str, *args: Any) -> None:
        self._transaction._expect(self, query, [*args])


class MapPart(Part, Generic[K, V]):
    """Of a map. Reads see what is committed, not what this transaction is going to do."""

    def __init__(self, transaction: Transaction, handle: AsyncMap[K, V]) -> None:
        super().__init__(transaction, handle)
        self._map = handle

    async def get(self, key: K, default: Any = None) -> Any:
        """The value of ``key`` now, or ``default``; expected not to change until the commit."""
        self._transaction._check_open()
        found = await self._map.get_versioned(key)
        self.expect_version(key, 0 if found is None else found.version)
        return default if found is None else found.value

    def expect_version(self, key: K, version: int) -> None:
        """Go on only if ``key`` was last written at ``version`` (0: is absent)."""
        self._expect("expect_version", key, version)

    def expect_absent(self, key: K) -> None:
        """Go on only if there is no ``key``."""
        self._expect("expect_version", key, 0)

    def put(self, key: K, value: V) -> Outcome[V | None]:
        """Set ``key``; the outcome is the value before, or None."""
        return self._do("put", key, value)

    def update(self, mapping: Mapping[K, V]) -> None:
        """Set all of ``mapping``."""
        self._do("update", [[key, value] for key, value in mapping.items()])

    def remove(self, key: K) -> Outcome[list[V]]:
        """Remove ``key``; the outcome is a list of the value before, empty if there was none."""
        return self._do("remove", key)

    def clear(self) -> None:
        """Remove every entry."""
        self._do("clear")


class LongPart(Part):
    """Of an integer."""

    def __init__(self, transaction: Transaction, handle: AsyncLong) -> None:
        super().__init__(transaction, handle)
        self._long = handle

    async def get(self) -> int:
        """The value now; expected to be the same at the commit."""
        self._transaction._check_open()
        value = await self._long.get()
        self.expect(value)
        return value

    def expect(self, value: int) -> None:
        """Go on only if it has this value."""
        self._expect("expect", value)

    def set(self, value: int) -> Outcome[int]:
        """Set it; the outcome is the value before."""
        return self._do("set", value)

    def increment(self, by: int = 1) -> Outcome[int]:
        """Add ``by``; the outcome is the new value."""
        return self._do("add", by)

    def decrement(self, by: int = 1) -> Outcome[int]:
        """Subtract ``by``; the outcome is the new value."""
        return self._do("add", -by)


class QueuePart(Part, Generic[V]):
    """Of a queue."""

    def put(self, value: V) -> Outcome[None]:
        """Add an item at the end."""
        return self._do("put", value)


class TopicPart(Part, Generic[V]):
    """Of a topic."""

    def publish(self, value: V) -> Outcome[int]:
        """Send to all who subscribe; the outcome is the number of sessions."""
        return self._do("publish", value)


class HeldPart(Part):
    """Of a lock or an election."""

    def expect(self, token: int) -> None:
        """Go on only if it is held under this token: what comes too late, after a loss, fails."""
        self._expect("expect", token)
