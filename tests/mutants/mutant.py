"""What a mutant is: one mistake, as a change of the sources, and which lives have to notice it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Edit = tuple[str, str, str]
"""A file of the package, a text that stands in it exactly once, and what takes its place."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake.

    Attributes:
        name: the mistake, in a few words.
        edits: what makes it.
        judge: whose lives hunt it: ``"life"`` (`copycat.testing.simulate`), ``"world"`` (members
            without sockets, `tests.server.world`), ``"store"`` (logs, votes and snapshots on a disk
            that fails, `tests.server.test_store_crash`), ``"raft"`` (`tests.raft.lives`) or
            ``"leased"`` (`tests.raft.leased_lives`).
        plan: settings of a `copycat.testing.plan.Plan` that favour it; the seed draws the rest.
    """

    name: str
    edits: tuple[Edit, ...]
    judge: str = "life"
    plan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pure(self) -> bool:
        """Whether it is in a kernel: it runs pure then; a contract ties the compiled body to it."""
        return any(path in ("_core/kernel.py", "_core/calls.py") for path, _, _ in self.edits)


def one(name: str, path: str, old: str, new: str, judge: str = "life", **plan: Any) -> Mutant:
    """A mutant with a single edit."""
    return Mutant(name, ((path, old, new),), judge, plan)
