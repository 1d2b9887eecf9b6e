"""What the README shows is what happens: each of its examples runs, and prints what it says.

An example for several processes is run as such. Ports and folders are replaced, nothing else.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COPYCAT = [sys.executable, "-c", "import sys; from copycat.cli import main; sys.exit(main())"]
PORTS = ("127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


EXAMPLES = blocks("python")
APPLICATION = [each for each in EXAMPLES if "sys.argv" in each]
CONNECTING = [each for each in EXAMPLES if "copycat.connect(" in each]
ALONE = [each for each in EXAMPLES if each not in APPLICATION + CONNECTING]


def promised(example: str) -> list[str]:
    """The lines of output that an example's comments announce."""
    return [said.strip() for said in re.findall(r"print\(.*\) +# (.+)$", example, re.M)]


def code_of(example: str) -> CodeType:
    """Compiled as ``python -m asyncio`` does it: with ``await`` at the top."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile(example, "README.md", "exec", flags=flags)
    return code


def play(example: str) -> None:
    """Run an example, a program or lines for the asyncio prompt."""
    code = code_of(example)
    space: dict[str, object] = {"__name__": "readme"}
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, space))  # noqa: S307 - our own README
    else:
        exec(code, space)  # noqa: S102 - our own README


def on_free_ports() -> dict[str, str]:
    """An address of this moment for each address in the README."""
    sockets = [socket.socket() for _ in PORTS]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    free = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(PORTS, free, strict=True))


def elsewhere(text: str, ports: dict[str, str]) -> str:
    """The same text with addresses that are free here."""
    return re.sub("|".join(map(re.escape, ports)), lambda found: ports[found[0]], text)


@contextmanager
def started(command: list[str], where: Path, name: str) -> Iterator[Path]:
    """A process in ``where``, ended on the way out; gives the file that it prints into."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with (where / f"{name}.out").open("w") as said:
        process = subprocess.Popen(
            command, cwd=where, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            yield where / f"{name}.out"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)


def ask(command: str, where: Path) -> subprocess.CompletedProcess[str]:
    """What a ``copycat`` command line says."""
    return subprocess.run(
        [*COPYCAT, *shlex.split(command)[1:]], cwd=where, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=30, check=False,
    )  # fmt: skip


def wait_until(happened: Callable[[], bool], files: list[Path]) -> None:
    """Return when it has happened; after half a minute fail, with what the processes said."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "\n".join(each.read_text() for each in files)
        time.sleep(0.1)


def test_the_first_screen_is_one_screen() -> None:
    """Forty lines suffice a stranger: the two commands, a whole program, promises and limits."""
    screen = README.split("\n## ")[0]
    assert screen.count("\n") <= 40
    for needed in ("make demo", "make test", "local_cluster(3", "Use it when", "Do not use it"):
        assert needed in screen
    assert promised(blocks("python")[0]), "the first example shows its result"


@pytest.mark.parametrize("example", ALONE, ids=[f"example {n}" for n in range(len(ALONE))])
def test_an_example_does_what_it_says(
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It runs in an empty folder, and prints what its comments announce, and nothing else."""
    monkeypatch.chdir(tmp_path)
    play(example)
    assert capsys.readouterr().out.splitlines() == promised(example)
    assert promised(example)


def test_a_cluster_by_hand_serves_commands_and_clients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three shells, the commands of the fourth, and the client example work on one cluster."""
    pytest.importorskip("click")
    ports = on_free_ports()
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [elsewhere(line, ports) for line in lines if line.startswith("copycat ")]
    servers = [line for line in commands if line.startswith("copycat serve")]
    status, put, get = [line for line in commands if line not in servers]
    with ExitStack() as stack:
        said = [
            stack.enter_context(started([*COPYCAT, *shlex.split(line)[1:]], tmp_path, f"n{number}"))
            for number, line in enumerate(servers, 1)
        ]
        wait_until(lambda: ask(status, tmp_path).returncode == 0, said)
        seen = ask(status, tmp_path)
        assert all(f"n{number}" in seen.stdout for number in (1, 2, 3)), seen
        assert ask(put, tmp_path).returncode == 0
        assert json.loads(ask(get, tmp_path).stdout)["value"] == "dark"
        (example,) = CONNECTING
        play(elsewhere(example, ports))
        assert capsys.readouterr().out.splitlines() == promised(example)
        assert json.loads(ask(get, tmp_path).stdout)["value"] == "light"


def test_the_application_runs_on_three_hosts(tmp_path: Path) -> None:
    """The embedded example, started three times: each start is counted once, and one leads."""
    (source,) = APPLICATION
    (tmp_path / "app.py").write_text(elsewhere(source, on_free_ports()))
    with ExitStack() as stack:
        lives = {name: stack.enter_context(ExitStack()) for name in ("n1", "n2", "n3")}
        said = [
            life.enter_context(started([sys.executable, "app.py", name], tmp_path, name))
            for name, life in lives.items()
        ]

        def lines(pattern: str) -> list[str]:
            return sorted(re.findall(pattern, "".join(each.read_text() for each in said)))

        wait_until(lambda: len(lines(r"start number (\d+)")) == 3, said)
        assert lines(r"start number (\d+)") == ["1", "2", "3"]
        wait_until(lambda: bool(lines(r"leads under token \d+")), said)
        (leader,) = lines(r"(n\d) leads under token \d+")
        asked = time.monotonic()
        lives[leader].close()  # SIGTERM: it says goodbye, and nobody waits for its session to end
        wait_until(lambda: len(lines(r"leads under token \d+")) == 2, said)
        assert time.monotonic() - asked < 4.0
        assert "Traceback" not in "".join(each.read_text() for each in said)


def test_commands_without_make_are_those_of_the_makefile() -> None:
    """The fold for people without make installs just what `make` installs."""
    install = "install -e '.[dev,standard]' --config-settings editable_mode=compat"
    assert install in README
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "install -qq -e '.[dev,standard]' --config-settings editable_mode=compat" in makefile


@pytest.mark.parametrize("example", [each for each in EXAMPLES if code_of(each).co_flags & 128])
def test_what_awaits_can_be_pasted(example: str) -> None:
    """At the prompt an empty line ends what is indented, and what follows it has to begin anew."""
    for before, after in re.findall(r"^( *)\S.*\n\n+( *)\S", example, re.M):
        assert not (before and after), example
