"""What makes a session a client's own: the uuid it registers under and the secret that proves it.

The cluster keeps only a hash of the secret, so neither logs nor snapshots nor other members' files
give a session away. The secret is shown once a connection, to whoever answers as a member: without
TLS, whoever can read the network can read it. It serves the `Session`; nothing here sends.
"""

from __future__ import annotations

from .errors import CopycatError, OverloadedError
from .ports import Random

SECRET_SIZE = 16


class Credentials:
    """The uuid and the secret of one session; ``random`` must not be foreseeable to others.

    ``patience`` is how long, in seconds, one attempt to register is repeated: its answer confirms
    the *first* sending, so an old attempt is not worth repeating.
    """

    __slots__ = ("_patience", "_random", "_sent_at", "_uuid", "refusal", "secret")

    def __init__(self, random: Random, patience: float) -> None:
        self._random = random
        self._patience = patience
        self._uuid = b""
        self._sent_at: float | None = None
        self.secret = b""
        self.refusal = ""  # why the cluster has no room for a session, if it said so

    def renew(self) -> None:
        """The next registration is another one."""
        self._sent_at = None

    def attempt(self, now: float) -> tuple[bytes, bytes]:
        """The uuid and the secret to register with at clock time ``now`` (s)."""
        if self._sent_at is None or now > self._sent_at + self._patience:
            self._uuid = self._random.randbytes(SECRET_SIZE)
            self.secret = self._random.randbytes(SECRET_SIZE)
            self._sent_at = now
        return self._uuid, self.secret

    def accepted(self, uuid: bytes) -> float | None:
        """When the attempt with ``uuid``, now answered, was first sent; None if it is not ours."""
        if uuid != self._uuid:
            return None
        sent_at, self._sent_at = self._sent_at, None
        self.refusal = ""
        return sent_at

    def refused(self) -> CopycatError | None:
        """The error for a registration that was refused, and that is asked for again."""
        return OverloadedError(f"{self.refusal}. Not applied.") if self.refusal else None

    def __repr__(self) -> str:
        return "<Credentials>"
