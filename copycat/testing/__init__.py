"""What helps to test programs that use Copycat; the library itself never needs it.

Read ``local_cluster.py`` for a real cluster in a test, ``simulation.py`` for one in virtual time
under faults, and ``simulate.py`` for how Copycat itself is tested, members and clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkers import CheckFailed as CheckFailed
    from .local_cluster import local_cluster as local_cluster
    from .simulation import Simulation as Simulation

_HOMES = {"CheckFailed": "checkers", "Simulation": "simulation", "local_cluster": "local_cluster"}

__all__ = ["CheckFailed", "Simulation", "local_cluster"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """The public names, imported when they are used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
