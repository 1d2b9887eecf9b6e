"""A copy of the replicated state in a process of its own, with other hashes, clocks, environment.

::

    simulation ── pipe ──► python -P -m copycat.testing.double     (this file, `main`)
                 ◄────────  PYTHONHASHSEED, TZ, clocks, variables: all others

Both sides speak the house's serializer, a length before each message. The double imports the user's
machines by module and name, as any member would, and never anything else than the modules that the
simulation's process has imported itself. It judges nothing; see `determinism`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, BinaryIO

from ..machine import StateMachine, type_name_of
from ..resources import BUILT_IN_MACHINES
from ..serializer import Serializer, _shared
from .copies import Copy, Step
from .elsewhere import change_environment, elsewhere, time_zone

ANSWER_S = 60.0
_MARK = "COPYCAT_DOUBLE"
_LENGTH = 4


class NoDoubleError(Exception):
    """The machines cannot be run in another process; says why."""


class DoubleDied(Exception):
    """The other process is gone, or a command stopped it; says why."""


# -- the simulation's side -------------------------------------------------------------------------


class Double:
    """A `Copy` in another process; ``start`` returns before that process is up.

    Raises `NoDoubleError`, here or with the first batch, if it cannot import the machines.
    """

    def __init__(self, machines: Mapping[str, type[StateMachine]], seed: int) -> None:
        if _MARK in os.environ:
            raise NoDoubleError("this is such a process already")
        places = [[name, *_place(cls), cls.__qualname__] for name, cls in machines.items()]
        self._serializer = Serializer()
        optimized = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
        try:
            self._process = process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, *optimized, "-P", "-m", __name__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(seed),
            )  # fmt: skip
        except OSError as problem:
            raise NoDoubleError(f"no other process can be started: {problem}") from problem
        if process.stdin is None or process.stdout is None:
            raise NoDoubleError("it has no pipes")
        self._to: BinaryIO = process.stdin  # type: ignore[assignment]
        self._from: BinaryIO = process.stdout  # type: ignore[assignment]
        self._is_up = False
        self._tell(["machines", places, list(_modules_of_types()), sys.getrecursionlimit()])

    def send(self, image: bytes, stride: int) -> None:
        """Have a batch applied; it goes on meanwhile. See `Copy.apply`."""
        if not self._is_up:
            self._hear()
            self._is_up = True
        self._tell(["apply", image, stride])

    def digests(self) -> list[list[bytes]]:
        """`Step.digests` of the commands sent last."""
        return list(self._hear())

    def step(self, nth: int) -> Step:
        """One of them, whole."""
        self._tell(["step", nth])
        return Step(*self._hear())

    def state(self) -> bytes:
        """`Copy.state` after everything that was sent."""
        self._tell(["state"])
        return bytes(self._hear())

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._to.close()
        self._from.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, message: list[Any]) -> None:
        try:
            _write(self._to, self._serializer, message)
        except OSError as problem:
            raise DoubleDied(f"{problem}, exit code {self._process.poll()}") from problem

    def _hear(self) -> Any:
        if not select.select([self._from], [], [], ANSWER_S)[0]:
            raise DoubleDied(f"no answer within {ANSWER_S:.0f} s")
        message = _read(self._from, self._serializer)
        if message is None:
            raise DoubleDied(f"exit code {self._process.wait()}")
        kind, value = message
        if kind == "cannot":
            raise NoDoubleError(value)
        if kind == "died":
            raise DoubleDied(value)
        return value


def _place(cls: type) -> list[str]:
    """Module and file of a class that another process can import; raises `NoDoubleError`."""
    module = sys.modules.get(cls.__module__)
    found: object = module
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    if "<locals>" in cls.__qualname__:
        raise NoDoubleError(f"{cls.__qualname__} is defined inside a function")
    if module is None or found is not cls:
        raise NoDoubleError(f"{cls.__module__}.{cls.__qualname__} cannot be imported")
    if cls.__module__ == "__main__":
        raise NoDoubleError(f"{cls.__qualname__} is defined in the program that runs")
    return [cls.__module__, getattr(module, "__file__", None) or ""]


def _modules_of_types() -> Iterable[list[str]]:
    """Where registered types are: arguments of commands may have them."""
    for name in dict.fromkeys(type_.__module__ for type_ in _shared.by_type):
        module = sys.modules.get(name)
        if module is not None and name != "__main__":
            yield [name, getattr(module, "__file__", None) or ""]


def _environment(seed: int) -> dict[str, str]:
    hashes = str(1 + seed % 4_000_000_000)
    if hashes == os.environ.get("PYTHONHASHSEED"):
        hashes = str(int(hashes) + 1)
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    return {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": path, "TZ": time_zone(),
            _MARK: "1"}  # fmt: skip


# -- the other side --------------------------------------------------------------------------------


def main() -> int:
    """Serve until the pipe is closed. What machines print goes to the standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the simulation, and so this process
    to, from_ = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    logging.disable()  # members say it once; this copy would only repeat it
    try:
        return _serve(to, from_, Serializer())
    except BrokenPipeError:  # the simulation ended while it was to be answered
        return 0
    finally:
        with contextlib.suppress(OSError):
            to.close()


def _serve(to: BinaryIO, from_: BinaryIO, serializer: Serializer) -> int:
    with elsewhere():
        copy: Copy | None = None
        while (message := _read(from_, serializer)) is not None:
            kind, *arguments = message
            try:
                if kind == "machines":
                    copy = _prepared(*arguments)
                    answer: list[object] = ["ready", None]
                elif copy is None:
                    return 2
                elif kind == "apply":
                    answer = ["digests", [step.digests() for step in copy.apply(*arguments)]]
                elif kind == "state":
                    answer = ["state", copy.state()]
                else:
                    step = copy.steps[arguments[0]]
                    answer = ["step", [step.index, step.said, step.state, step.ticked]]
            except NoDoubleError as problem:
                answer = ["cannot", str(problem)]
            except Exception as problem:
                answer = ["died", f"{type(problem).__name__}: {problem}"]
            _write(to, serializer, answer)
    return 0


def _prepared(places: list[list[str]], modules: list[list[str]], limit: int) -> Copy:
    sys.setrecursionlimit(limit)
    machines: dict[str, type[StateMachine]] = {type_name_of(cls): cls for cls in BUILT_IN_MACHINES}
    for name, module, file, qualname in places:
        found: Any = _imported(module, file)
        for each in qualname.split("."):
            found = getattr(found, each, None)
        if not (isinstance(found, type) and issubclass(found, StateMachine)):
            raise NoDoubleError(f"{module}.{qualname} is missing when {module} is imported anew")
        machines[name] = found
    for module, file in modules:
        with contextlib.suppress(NoDoubleError):  # its types are unknown then; who needs one hears
            _imported(module, file)
    change_environment()
    return Copy(machines)


def _imported(name: str, file: str) -> ModuleType:
    """The module as the simulation has it: from the same file."""
    try:
        with contextlib.suppress(ModuleNotFoundError):
            module = importlib.import_module(name)
            if not file or os.path.samefile(module.__file__ or "", file):
                return module
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise NoDoubleError(f"{name} cannot be imported")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except NoDoubleError:
        raise
    except BaseException as problem:
        raise NoDoubleError(
            f"importing {name} in another process raised {type(problem).__name__}: {problem}"
        ) from problem
    return module


# -- the pipe --------------------------------------------------------------------------------------


def _write(pipe: BinaryIO, serializer: Serializer, message: list[Any]) -> None:
    data = serializer.pack(message)
    pipe.write(len(data).to_bytes(_LENGTH, "little") + data)
    pipe.flush()


def _read(pipe: BinaryIO, serializer: Serializer) -> Any:
    """The next message; None at the end."""
    head = pipe.read(_LENGTH)
    if len(head) < _LENGTH:
        return None
    length = int.from_bytes(head, "little")
    data = pipe.read(length)
    return serializer.unpack(data) if len(data) == length else None


if __name__ == "__main__":
    sys.exit(main())
