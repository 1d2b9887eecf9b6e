"""The settings of Raft, checked against each other; plain values that never change afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigurationError

HEARTBEATS_PER_TIMEOUT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftOptions:
    """How patient a member is, and how much may be under way to one peer.

    Args:
        election_timeout: seconds; a follower waits for a uniformly random time between this and
            twice this, a leader gives up after this long without a quorum's answers.
        heartbeat: seconds between two rounds of an idle leader; at most a third of the above.
        failover_jitter: seconds; a follower whose leader is certainly gone asks for votes after a
            random time up to this.
        commit_notice: seconds after which idle followers are told of a new commit index; under
            load the next entries tell them sooner.
        clock_drift: the fraction by which any member's clock may run too fast or too slow; a lease
            is shorter than the promises that it rests on by as much.
        max_append_bytes: of images in one append request (a larger single batch still goes).
        max_inflight: append requests on their way to one peer.
        max_inflight_bytes: of images on their way to one peer.

    Raises:
        ConfigurationError: a value is not positive, or two of them contradict each other.
    """

    election_timeout: float = 1.0
    heartbeat: float = 0.2
    failover_jitter: float = 0.02
    commit_notice: float = 0.01
    clock_drift: float = 0.1
    max_append_bytes: int = 256 << 10
    max_inflight: int = 8
    max_inflight_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} must be positive, not {getattr(self, name)!r}")
        if self.heartbeat * HEARTBEATS_PER_TIMEOUT > self.election_timeout * (1 + 1e-9):
            raise ConfigurationError(
                f"the heartbeat ({self.heartbeat} s) must be at most a third of the election "
                f"timeout ({self.election_timeout} s)",
                hint="otherwise a single lost heartbeat would start an election",
            )
        if self.failover_jitter > self.election_timeout:
            raise ConfigurationError(
                f"the failover jitter ({self.failover_jitter} s) must not exceed the election "
                f"timeout ({self.election_timeout} s)"
            )
        if self.clock_drift >= 1:
            raise ConfigurationError(f"clock_drift is a fraction, not {self.clock_drift!r}")

    @property
    def election_timeout_us(self) -> int:
        """The election timeout in microseconds, as it travels."""
        return round(self.election_timeout * 1e6)
