"""Who takes part: voters decide, learners follow. A plain value; changes make a new one.

A joint configuration (thesis 4.3) will live here as a second set of voters; everything that asks
for a majority does so through ``quorum``, which is handed the whole membership.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Membership:
    """The members by name; a learner receives all entries and is never counted.

    Raises:
        ConfigurationError: there is no voter, or a name stands twice.
    """

    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.voters:
            raise ConfigurationError("a cluster needs at least one voter")
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"the member {name!r} is listed twice")

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody, voters first."""
        return self.voters + self.learners

    def peers_of(self, name: str) -> tuple[str, ...]:
        """Everybody but ``name``."""
        return tuple(other for other in self.names if other != name)

    def rivals_of(self, name: str) -> tuple[str, ...]:
        """The voters but ``name``: those whom a candidate asks."""
        return tuple(other for other in self.voters if other != name)
