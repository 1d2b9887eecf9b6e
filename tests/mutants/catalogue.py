"""All mutants, by name."""

from __future__ import annotations

from . import consensus, services, storage
from .mutant import Mutant

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant for mutant in (*consensus.MUTANTS, *storage.MUTANTS, *services.MUTANTS)
}
