"""A copy of the replicated state beside all members, fed with what they commit, command by command.

It runs the production applier and remembers, for each command, what it said (results and events)
and which state it left. It judges nothing: ``determinism`` compares copies, of which one lives in
another process (``double``). It knows no member, no clock and no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .._core.kernel import batch_runs, decode_commands, decode_results, encode_run, seal_batch
from .._core.layout import BATCH_HEADER
from ..errors import SerializationError
from ..machine import StateMachine
from ..serializer import Serializer
from ..server.applier import Applier

NOT_LOOKED_AT = b""
"""Stands for the state after a command when only later ones are looked at."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one command did: ``said`` are its results and events, ``state`` is all state after it.

    Both are encoded: see `opened_state` and `opened_words`. ``ticked``: timers ran before it.
    """

    index: int
    said: bytes
    state: bytes
    ticked: bool = False

    def digests(self) -> list[bytes]:
        """16 bytes of each; the state's are empty if it was not looked at."""
        return [digest(self.said), digest(self.state) if self.state else NOT_LOOKED_AT]


@dataclass(frozen=True, slots=True)
class Single:
    """One command of a batch, as a batch of its own at the same index and log time."""

    index: int
    time_us: int
    resource: int
    operation: int
    image: bytes


def digest(data: bytes) -> bytes:
    """16 bytes that stand for ``data``."""
    return hashlib.blake2b(data, digest_size=16).digest()


def singles(image: bytes) -> Iterator[Single]:
    """The commands of a batch, each by itself: a difference then has one index."""
    header = BATCH_HEADER.unpack_from(image)
    flags, index, term, time_us = header[3], header[4], header[5], header[6]
    for kind, session, first, acknowledged, length, offset in batch_runs(image):
        commands = decode_commands(image, offset, length)
        for nth, (resource, operation, arguments) in enumerate(commands):
            number = first + nth if length > 1 else first
            run = encode_run(
                kind, session, number, acknowledged, [(resource, operation, arguments)]
            )
            single = seal_batch([run], index, term, time_us, flags)
            yield Single(index, time_us, resource, operation, single)
            index += 1


class Copy:
    """One more replica of everything, without a log.

    Args:
        machines: by name, the built-in ones included.
    """

    def __init__(self, machines: Mapping[str, type[StateMachine]]) -> None:
        self.applier = Applier(machines, Serializer())
        self.steps: list[Step] = []
        self._pack = Serializer(opaque=True).pack_state

    def apply(self, image: bytes, stride: int = 1) -> list[Step]:
        """Apply a batch; ``steps`` of its commands. The state is looked at every ``stride``."""
        self.steps = []
        for single in singles(image):
            timers = self.applier.timers
            ticked = bool(timers) and timers[0][0] <= single.time_us
            self.applier.apply(single.image)
            try:
                state = NOT_LOOKED_AT if single.index % stride else self.state()
            except SerializationError as problem:
                problem.add_note(f"found after the command at index {single.index}")
                raise
            self.steps.append(Step(single.index, self._words(), state, ticked))
        return self.steps

    def state(self) -> bytes:
        """Timers and machines, encoded. (Sessions follow from what was said.)"""
        applier = self.applier
        timers = [list(timer) for timer in sorted(applier.timers)]
        return self._pack([timers, applier.executor.image()])

    def restart(self) -> None:
        """Go on as a member that was started anew from a snapshot of this moment."""
        self.applier.restore(self.applier.image())

    def _words(self) -> bytes:
        out = self.applier.take()
        answers = [
            result
            for _, _, count, results in out.answers
            for result in decode_results(results, 0, count)
        ]
        return self._pack([answers, [list(event) for event in out.events]])


def opened_state(state: bytes) -> tuple[list[Any], list[list[Any]]]:
    """Of `Step.state`: timers, and [resource, path, type, state, fenced] of machines.

    A state is a list of its encoded pieces.
    """
    timers, instances = Serializer(opaque=True).unpack_state(state)
    return timers, instances


def opened_words(said: bytes) -> tuple[list[bytes], list[Any]]:
    """Results, and [session, index, index before, events], of `Step.said`."""
    answers, events = Serializer(opaque=True).unpack(said)
    return answers, events
