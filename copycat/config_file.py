"""Settings that come from a TOML file and from the environment, for `open` and ``copycat serve``.

What the program or the command line says comes first, then variables like ``COPYCAT_DATA``, then
the file; what none of them says has its default in `config`, which also checks the values. Machines
are imported by name from here and from nowhere else: never because a message asked for it (H93).
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from .config import unknown_key
from .errors import ConfigurationError
from .machine import StateMachine, checked_machines

log = logging.getLogger("copycat.config")

PREFIX = "COPYCAT_"


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


_READERS: dict[str, Callable[[str], object]] = {
    "name": str,
    "listen": str,
    "advertise": str,
    "data": str,
    "members": str,
    "join": _listed,
    "machines": _listed,
    "storage": str,
    "fsync": str,
    "election_timeout": float,
    "heartbeat": float,
    "session_timeout": float,
    "segment_bytes": int,
    "snapshot_bytes": int,
    "priority": int,
    "timeout": float,
}
"""Setting -> how its text in the environment is read."""

SETTINGS = tuple(_READERS)
"""What a file may say: the same names as the parameters of `copycat.open`."""


def read_settings(
    path: str | os.PathLike[str] | None,
    given: Mapping[str, object],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """All settings that somebody has made; None in ``given`` stands for none.

    ``machines`` are names as in ``"shop:Stock"`` if they come from the file or the environment; see
    `load_machines`. Raises `ConfigurationError`.
    """
    settings = {} if path is None else _read_file(path)
    settings |= _read_environment(environment)
    return settings | {key: value for key, value in given.items() if value is not None}


def machine_classes(
    machines: Iterable[type[StateMachine] | str],
) -> tuple[type[StateMachine], ...]:
    """The classes that are meant; those from a file come by name. Raises `ConfigurationError`."""
    if isinstance(machines, (str, type)) or not isinstance(machines, Iterable):
        return checked_machines(machines)  # which says what is wrong
    given = [load_machines(each) if isinstance(each, str) else [each] for each in machines]
    return checked_machines([cls for some in given for cls in some])


def load_machines(text: str) -> list[type[StateMachine]]:
    """The machine, or the list of machines, behind ``module:attribute``.

    Raises `ConfigurationError`; an error inside the module is its own.
    """
    module_name, colon, attribute = text.partition(":")
    if not (colon and module_name and attribute):
        raise ConfigurationError(
            f"{text!r} does not name a machine", hint="write module:attribute, as in shop:Stock"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        raise ConfigurationError(
            f"{text}: no module {problem.name!r}",
            hint="name the directory that has it in PYTHONPATH, or copycat serve --app-dir",
        ) from problem
    found = getattr(module, attribute, None)
    if isinstance(found, (list, tuple)) and found:
        return list(found)
    if not isinstance(found, type):
        raise ConfigurationError(f"{text}: {module_name} has no class {attribute!r}")
    return [cast("type[StateMachine]", found)]


def _read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigurationError(f"cannot read {path}: {problem.strerror}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"{path} is not TOML: {problem}") from problem
    for key in settings:
        if key not in SETTINGS:
            raise unknown_key(key, list(SETTINGS))
    machines = settings.get("machines", [])
    if not (isinstance(machines, list) and all(isinstance(each, str) for each in machines)):
        raise ConfigurationError('machines is a list of texts: ["module:attribute"]')
    return settings


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Settings from variables. Others with the prefix are not ours: Kubernetes makes some, too."""
    settings: dict[str, Any] = {}
    for setting, read in _READERS.items():
        variable = PREFIX + setting.upper()
        text = environment.get(variable, "").strip()
        if text:
            try:
                settings[setting] = read(text)
            except ValueError as problem:
                raise ConfigurationError(f"{variable} = {text!r} is not a number") from problem
    _warn_of_typos(environment)
    return settings


def _warn_of_typos(environment: Mapping[str, str]) -> None:
    known = [setting.upper() for setting in SETTINGS]
    for variable in sorted(environment):
        word = variable.removeprefix(PREFIX)
        if word not in (variable, *known):
            close = difflib.get_close_matches(word, known, n=1, cutoff=0.8)
            if close:
                log.warning("%s is not read: did you mean %s%s?", variable, PREFIX, close[0])
