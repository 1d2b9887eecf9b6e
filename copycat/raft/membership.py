"""Who takes part: voters decide, learners follow. A plain value; changes make a new one.

The voters change through a *joint* configuration (thesis 4.3): while it is in force every majority
has to be one of the new voters and one of the outgoing ones. Everything that asks for a majority
does so through ``quorum``, which is handed the whole membership.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Membership:
    """The members by name; a learner receives all entries and is never counted.

    Args:
        voters: those who decide, or in a joint configuration those who will.
        learners: those who only follow; one of them may still be an outgoing voter.
        outgoing: in a joint configuration the voters before; they decide as well.
        joining: the learners that become voters as soon as they have caught up.

    Raises:
        ConfigurationError: there is no voter, or a name stands twice.
    """

    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()
    outgoing: tuple[str, ...] = ()
    joining: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.voters:
            raise ConfigurationError("a cluster needs at least one voter")
        for group in (self.voters + self.learners, self.outgoing, self.joining):
            for name in group:
                if group.count(name) > 1:
                    raise ConfigurationError(f"the member {name!r} is listed twice")
        for name in self.joining:
            if name not in self.learners:
                raise ConfigurationError(f"{name!r} can only become a voter from a learner")

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody once, those who vote first."""
        return tuple(dict.fromkeys(self.voters + self.outgoing + self.learners))

    @property
    def electors(self) -> tuple[str, ...]:
        """All whose votes count, in either half."""
        return tuple(dict.fromkeys(self.voters + self.outgoing))

    @property
    def is_joint(self) -> bool:
        """Whether two sets of voters have to agree."""
        return bool(self.outgoing)

    def peers_of(self, name: str) -> tuple[str, ...]:
        """Everybody but ``name``."""
        return tuple(other for other in self.names if other != name)

    def rivals_of(self, name: str) -> tuple[str, ...]:
        """Those but ``name`` whom a candidate asks."""
        return tuple(other for other in self.electors if other != name)

    # -- steps from one to the next ------------------------------------------------------------

    def towards(self, wanted: Membership) -> Membership:
        """The next configuration on the way to ``wanted``: itself, or a joint one before it.

        Learners come and go in one step, since they are not counted; voters never do.
        """
        if set(wanted.voters) == set(self.voters):
            return wanted
        return Membership(wanted.voters, wanted.learners, self.voters, wanted.joining)

    def settled(self) -> Membership:
        """What follows a joint configuration: the outgoing voters are out."""
        return Membership(self.voters, self.learners, (), self.joining)

    def follows(self, before: Membership) -> bool:
        """Whether it may come directly after ``before``: any two majorities share a voter."""
        if before.is_joint:
            return not self.is_joint and set(self.voters) == set(before.voters)
        if self.is_joint:
            return set(self.outgoing) == set(before.voters)
        return set(self.voters) == set(before.voters)

    def promoting(self, name: str) -> Membership:
        """The one in which the learner ``name`` is a voter."""
        return Membership(
            (*self.voters, name),
            tuple(other for other in self.learners if other != name),
            (),
            tuple(other for other in self.joining if other != name),
        )
