"""The determinism check: every command of a simulation runs again elsewhere, and all is compared.

Beside the members live three copies of the replicated state, fed with what is committed:

* one in this process;
* one in another process with other hashes, clocks, time zone and environment (`Double`). If the
  machines cannot be imported there, it lives here too and only its clocks are others (`Beside`);
* one that is restored from its own snapshot all the time, as members that restart are.

All must say the same (results, events) and be in the same state after each command. The first
difference is a `NondeterminismError` that names the command and the attribute. Nothing here touches
virtual time or the members.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import CopycatError, InvariantViolated, NondeterminismError
from ..machine import StateMachine, type_name_of
from ..resources import BUILT_IN_MACHINES
from ..serializer import Serializer
from .copies import Copy, Single, Step, opened_state, singles
from .double import Double, DoubleDied, NoDoubleError
from .elsewhere import elsewhere
from .explanations import explain, first_difference, operation_of

STATE_BYTES = 32 << 10
"""States up to this size are compared after every command, larger ones proportionally seldom."""
_UNKNOWN_TYPE = b"is not registered here"


@dataclass(frozen=True, slots=True)
class _Manner:
    """How the other run differed, and what the author may do about it."""

    where: str
    advice: str
    hint: str


_ELSEWHERE = _Manner(
    "on two runs",
    "Use self.commit.time and self.commit.random; walk sets with sorted()",
    "the other run had another hash seed, clock, time zone, environment and process",
)
_RESTORED = _Manner(
    "on a copy restored from its snapshot",
    "Let snapshot() tell everything that operations look at; walk sets with sorted()",
    "a member that restarts goes on from snapshot(); besides, sets restored from it lie in another "
    "order, and what was one object under two names is two",
)


class Beside:
    """Stands in for a `Double` in this process: another copy, other clocks."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy

    def send(self, image: bytes, stride: int) -> None:
        """Apply a batch."""
        with elsewhere():
            self._copy.apply(image, stride)

    def digests(self) -> list[list[bytes]]:
        """`Step.digests` of the commands sent last."""
        return [step.digests() for step in self._copy.steps]

    def step(self, nth: int) -> Step:
        """One of them."""
        return self._copy.steps[nth]

    def state(self) -> bytes:
        """`Copy.state` after everything that was sent."""
        return self._copy.state()

    def close(self) -> None:
        """Nothing to do."""


class Determinism:
    """Runs again what members apply.

    Args:
        machines: the user's classes.
        seed: of what is left to chance.
        fail: hears the first problem; there is no second.

    Attributes:
        alone: why no other process takes part, if so.
    """

    def __init__(
        self,
        machines: Iterable[type[StateMachine]],
        seed: int,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.alone = ""
        self._own = {type_name_of(cls): cls for cls in machines}
        self._machines = {type_name_of(cls): cls for cls in BUILT_IN_MACHINES} | self._own
        self._seed = seed
        self._fail = fail
        self._failed = False
        self._straight = Copy(self._machines)
        self._restarted = Copy(self._machines)
        self._other: Double | Beside | None = None
        self._stride = 1
        self._batches = 0

    def begin(self) -> Double | Beside:
        """Start the other process, if that was not done: it gets ready while members do."""
        if self._other is not None:
            return self._other
        try:
            self._other = double = Double(self._own, self._seed)
        except NoDoubleError as problem:
            return self._fall_back(str(problem))
        return double

    # -- what members apply --------------------------------------------------------------------

    def adopt(self, member: Any) -> None:
        """A member begins: whatever it is the first to apply is run again."""
        turn = member.turn

        def watched(now: float, inputs: Any) -> Any:
            effects = turn(now, inputs)
            index, last = self._straight.applier.index, member._applier.index
            if index < last and not self._failed:
                for image in member._store.log.images(index + 1, last):
                    self.feed(image)
            return effects

        member.turn = watched

    def feed(self, image: bytes) -> None:
        """Run a committed batch, the next one, on all copies."""
        if not self._failed:
            try:
                self._run(image)
            except CopycatError as problem:
                self._failed = True
                self._fail(problem)

    def finish(self) -> None:
        """Compare what was not looked at lately; raises `NondeterminismError`."""
        if self._stride > 1 and self._other is not None and not self._failed:
            index = self._straight.applier.index
            mine = Step(index, b"", self._straight.state())
            theirs = Step(index, b"", self._other.state())
            if mine != theirs:
                ran = Single(index, 0, 0, 0, b"")
                raise self._explained(ran, mine, theirs, _ELSEWHERE)

    def close(self) -> None:
        """End the other process."""
        if self._other is not None:
            self._other.close()
            self._other = None

    def _run(self, image: bytes) -> None:
        stride = self._stride
        other = self._sent(image, stride)
        mine = self._straight.apply(image, stride)
        try:
            theirs = other.digests()
        except DoubleDied as problem:
            raise self._died(image, problem) from problem
        for nth, (step, digests) in enumerate(zip(mine, theirs, strict=True)):
            if step.digests() != digests:
                self._differs(image, nth, step, other.step(nth))
                break
        self._run_restarted(image, mine, stride)
        size = max(len(step.state) for step in mine)
        if size:
            self._stride = 1 + size // STATE_BYTES
        self._batches += 1

    def _sent(self, image: bytes, stride: int) -> Double | Beside:
        """Give the batch to the other process, or to whoever stands in for it."""
        other = self.begin()
        if isinstance(other, Double):
            try:
                other.send(image, stride)
            except NoDoubleError as problem:
                other = self._fall_back(str(problem))
            except DoubleDied as problem:
                raise self._died(image, problem) from problem
        if isinstance(other, Beside):
            other.send(image, stride)
        return other

    def _fall_back(self, reason: str) -> Beside:
        """Go on without another process, and say so."""
        self.close()
        self.alone = reason
        copy = Copy(self._machines)
        if self._straight.applier.index:
            copy.applier.restore(self._straight.applier.image())
        self._other = beside = Beside(copy)
        warnings.warn(
            f"{reason}: its commands are run again in this process only, where hashes and the "
            "environment are the same. To have those checked too, define it at the top of a module",
            stacklevel=2,
        )
        return beside

    # -- a copy that restarts ------------------------------------------------------------------

    def _run_restarted(self, image: bytes, mine: list[Step], stride: int) -> None:
        copy = self._restarted
        for nth, (step, again) in enumerate(zip(mine, copy.apply(image, stride), strict=True)):
            if step != again:
                single = list(singles(image))[nth]
                raise self._explained(single, step, again, _RESTORED)
        if self._batches % stride:
            return
        index, before = copy.applier.index, copy.state()
        try:
            copy.restart()
        except InvariantViolated:
            raise
        except Exception as problem:
            raise NondeterminismError(
                f"{self._unrestorable(before)} does not take what its snapshot() gave at index "
                f"{index}: {type(problem).__name__}: {problem}",
                index=index,
                hint=_RESTORED.hint,
            ) from problem
        after = copy.state()
        if before != after:
            found = first_difference(before, after)
            raise NondeterminismError(
                f"{found.type_name} at {found.path} (index {index}) is not the same after "
                f"restore(snapshot()): {found.text}",
                index=index,
                hint=_RESTORED.hint,
            )

    def _unrestorable(self, state: bytes) -> str:
        """Which machine it was."""
        for _, _, type_name, inner, fenced in opened_state(state)[1]:
            cls = self._own.get(type_name)
            if cls is not None and not fenced:
                try:
                    values = map(Serializer().unpack_state, inner)
                    cls().restore(next(values) if len(inner) == 1 else values)
                except Exception:
                    return f"{type_name}.restore()"
        return "restore()"

    # -- what differs --------------------------------------------------------------------------

    def _differs(self, image: bytes, nth: int, mine: Step, theirs: Step) -> None:
        if _UNKNOWN_TYPE in theirs.said and _UNKNOWN_TYPE not in mine.said:
            self._fall_back("an argument has a type that another process cannot import")
            return
        raise self._explained(list(singles(image))[nth], mine, theirs, _ELSEWHERE)

    def _explained(
        self, ran: Single, one: Step, other: Step, manner: _Manner
    ) -> NondeterminismError:
        label, did, what = explain(self._straight, ran, one, other)
        at = f"index {ran.index}"
        if self._stride > 1 and one.state != other.state:
            at += f", or one of the {self._stride - 1} before it"
        return NondeterminismError(
            f"{label} ({at}) {did} {manner.where}: {what}. {manner.advice}",
            index=ran.index,
            hint=manner.hint,
        )

    def _died(self, image: bytes, problem: DoubleDied) -> NondeterminismError:
        ran, *more = singles(image)
        what = operation_of(self._straight, ran)
        several = f" or one of the {len(more)} behind it" if more else ""
        return NondeterminismError(
            f"{what} (index {ran.index}{several}) ended one of two runs: {problem}",
            index=ran.index,
            hint=_ELSEWHERE.hint,
        )
