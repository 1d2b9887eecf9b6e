"""Measures how the kernels and the executor add to the depth of the stack (see `depth`).

The compiled and the pure kernel lie different numbers of frames between the applier and the body of
a command, and so does the way that the first command of its kind takes. It is found out by running
a command, once for each applier that may run user machines. It serves the `Applier`.
"""

from __future__ import annotations

from collections.abc import Mapping

from .._core.calls import run_commands
from .._core.kernel import decode_results, encode_run
from .._core.layout import RUN_HEADER_SIZE, Kind
from ..machine import StateMachine, command
from ..serializer import Serializer
from .depth import Level, depth
from .executor import Executor, is_built_in

_NAME = "copycat.probe"


class Probe(StateMachine):
    """Its command says how deep it runs."""

    @command
    def deep(self) -> int:
        """Frames in use."""
        return depth()


class _Silent:
    """A runtime for a machine that says nothing."""

    def publish(self, resource: int, event: str, value: bytes, to: int | None) -> int:
        return 0

    def schedule(self, resource: int, delay_us: int, operation: str, arguments: bytes) -> None: ...
    def retract(self, resource: int) -> None: ...


def level_for(machines: Mapping[str, type[StateMachine]]) -> Level | None:
    """The level for an applier with these machines; None if all are built in: they stay shallow."""
    if all(map(is_built_in, machines)):
        return None
    serializer = Serializer(opaque=True)
    executor = Executor({_NAME: Probe}, serializer, _Silent())
    executor.create(1, "/", _NAME)
    executor.level = Level()
    executor.name_of = lambda operation: "deep"
    run = encode_run(Kind.COMMAND, 0, 0, 0, [(1, 1, b"\x90")])

    def slow(resource: int, operation: int, arguments: bytes, index: int, session: int) -> bytes:
        return executor.command(resource, operation, arguments, index, 0, session)

    def once() -> int:
        results = run_commands(
            run, RUN_HEADER_SIZE, 1, 0, 1, 0, 0, executor.table, slow, {}, lambda index: None,
            1, 64, b"", b"",
        )  # fmt: skip
        (result,) = decode_results(results, 0, 1)
        value = serializer.unpack(result[1:])
        return value if isinstance(value, int) else 0

    level = Level()
    first, later = once(), once()
    level.lead, level.detour = later - depth(), first - later
    return level
