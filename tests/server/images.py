"""Builds batch images for applier tests the way a leader would, one call a batch."""

from __future__ import annotations

from copycat._core.kernel import decode_results, encode_run, seal_batch
from copycat._core.layout import Kind
from copycat.serializer import Serializer
from copycat.server.sessions import proof_of
from copycat.system import SystemOperation

pack = Serializer(opaque=True).pack
unpack = Serializer(opaque=True).unpack

SECRET = b"known to clients"


class LogWriter:
    """Seals batches with consecutive indexes; time moves only when a test says so."""

    def __init__(self, term: int = 1) -> None:
        self.term = term
        self.next_index = 1
        self.time_us = 1_000_000

    def batch(self, *runs: bytes) -> bytes:
        """The image of a batch with ``runs``."""
        image = seal_batch(list(runs), self.next_index, self.term, self.time_us)
        self.next_index += sum(int.from_bytes(run[4:8], "little") for run in runs)
        return image


def results_of(answer: tuple[int, int, int, bytes]) -> list[bytes]:
    """The results in what an applier has to say to one session."""
    _, _, count, results = answer
    return decode_results(results, 0, count)


def initialize(*types: str, leader: str = "n1") -> bytes:
    """The first run of a term."""
    return encode_run(Kind.INITIALIZE, 0, 0, 0, [(0, 0, pack([leader, list(types)]))])


def register(uuid: bytes, timeout_ms: int = 5000, secret: bytes = SECRET) -> bytes:
    """A registration, as a leader logs it."""
    arguments = pack([uuid, timeout_ms, "test", proof_of(secret)])
    return encode_run(Kind.REGISTER, 0, 0, 0, [(0, 0, arguments)])


def keep_alive(session: int, event: int = 0, acknowledged: int = 0) -> bytes:
    """A keep-alive with nonce 1."""
    return encode_run(Kind.KEEP_ALIVE, session, 1, acknowledged, [(0, 0, pack([event]))])


def unregister(session: int) -> bytes:
    """The end of a session by its client's wish."""
    return encode_run(Kind.UNREGISTER, session, 0, 0, [(0, 0, pack([]))])


def tick() -> bytes:
    """Nothing but log time."""
    return encode_run(Kind.TICK, 0, 0, 0, [(0, 0, pack([]))])


def commands(
    session: int, first: int, *calls: tuple[int, int, list[object]], acknowledged: int = 0
) -> bytes:
    """A run of (resource, operation id, arguments)."""
    encoded = [(resource, operation, pack(args)) for resource, operation, args in calls]
    return encode_run(Kind.COMMAND, session, first, acknowledged, encoded)


def open_call(path: str, type_name: str, *operations: str) -> tuple[int, int, list[object]]:
    """The command that opens a resource."""
    return 0, SystemOperation.OPEN, [path, type_name, 1, list(operations)]
