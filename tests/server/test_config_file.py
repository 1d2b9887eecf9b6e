"""Settings from a file and the environment: who overrules whom, and mistakes that are named."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

import copycat
from copycat.config_file import SETTINGS, load_machines, read_settings
from copycat.errors import ConfigurationError

SHOP = """\
from copycat import StateMachine, command

class Stock(StateMachine):
    def __init__(self):
        self.count = 0

    @command
    def take(self) -> int:
        self.count += 1
        return self.count

class Orders(StateMachine):
    pass

everything = [Stock, Orders]
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with machines, beside the user's files."""
    name = f"shop_{tmp_path.name.strip('_')}"
    (tmp_path / f"{name}.py").write_text(SHOP)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def written(tmp_path: Path, text: str) -> Path:
    """A configuration file."""
    path = tmp_path / "copycat.toml"
    path.write_text(text)
    return path


def test_arguments_overrule_the_environment_and_that_the_file(tmp_path: Path) -> None:
    """Each setting comes from the first who made it; what nobody says is left to the defaults."""
    path = written(tmp_path, 'name = "file"\ndata = "file"\nheartbeat = 0.1\nsegment_bytes = 70000')
    environment = {
        "COPYCAT_NAME": "env", "COPYCAT_DATA": "env", "COPYCAT_SNAPSHOT_BYTES": " 80000 ",
        "COPYCAT_FSYNC": "", "COPYCAT_MACHINES": "a:b, c:d", "COPYCAT_TIMEOUT": "2.5",
        "COPYCAT_SERVICE_HOST": "10.0.0.1", "NAME": "other",
    }  # fmt: skip
    given = {"name": "argument", "storage": None, "machines": None}
    assert read_settings(path, given, environment) == {
        "name": "argument", "data": "env", "heartbeat": 0.1, "segment_bytes": 70000,
        "snapshot_bytes": 80000, "machines": ["a:b", "c:d"], "timeout": 2.5,
    }  # fmt: skip
    assert read_settings(None, {}, {}) == {}


def test_a_file_may_say_what_open_may_be_told() -> None:
    """The names are those of the parameters; classes and types cannot be written in a file."""
    parameters = set(inspect.signature(copycat.open).parameters)
    assert set(SETTINGS) == parameters - {"types", "config"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("electon_timeout = 1", "did you mean election_timeout"),
        ("types = 1", "unknown setting types"),
        ('config = "other.toml"', "unknown setting config"),
        ("election_timeout = ", "is not TOML"),
        ("machines = 5", "machines is a list"),
        ("machines = [5]", "machines is a list"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, expected: str) -> None:
    """An unknown key is answered with the one that was probably meant; broken files with why."""
    with pytest.raises(ConfigurationError, match=expected):
        read_settings(written(tmp_path, text), {}, {})


def test_a_missing_file_and_a_broken_variable_are_named(tmp_path: Path) -> None:
    """The error says which file, or which variable."""
    with pytest.raises(ConfigurationError, match=r"cannot read .*none\.toml: No such file"):
        read_settings(tmp_path / "none.toml", {}, {})
    with pytest.raises(ConfigurationError, match="COPYCAT_HEARTBEAT = 'fast' is not a number"):
        read_settings(None, {}, {"COPYCAT_HEARTBEAT": "fast"})


def test_machines_are_found_by_name(shop: str, tmp_path: Path) -> None:
    """A class or a list of classes; mistakes are named, an error inside the module is its own."""
    (stock,) = load_machines(f"{shop}:Stock")
    assert stock.__name__ == "Stock"
    assert [each.__name__ for each in load_machines(f"{shop}:everything")] == ["Stock", "Orders"]
    for text, expected in (
        (shop, "write module:attribute"), (f"{shop}:Shelf", "has no class 'Shelf'"),
        ("no_such_module:Bank", "no module 'no_such_module'"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError) as caught:
            load_machines(text)
        assert expected in f"{caught.value} {caught.value.hint}"
    (tmp_path / f"broken_{shop}.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_machines(f"broken_{shop}:X")


def test_open_reads_a_file(shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole member from a file: its data, its machines, its timing; arguments overrule it."""
    path = written(
        tmp_path,
        f'name = "n7"\ndata = "{tmp_path / "d"}"\nmachines = ["{shop}:everything"]\n'
        "election_timeout = 0.2\nheartbeat = 0.05\nsession_timeout = 1.5\ntimeout = 4\n",
    )
    (stock,) = load_machines(f"{shop}:Stock")
    monkeypatch.setenv("COPYCAT_SESSION_TIMEOUT", "2.5")

    async def use(**arguments: Any) -> tuple[str, int, float]:
        async with copycat.open(config=path, **arguments) as cc:
            machine: Any = cc.machine("/stock", stock)
            return cc.name, await machine.take(), cc.session.timeout

    assert asyncio.run(use()) == ("n7", 1, 4.0)
    assert asyncio.run(use(timeout=3.0)) == ("n7", 2, 3.0)
    assert (tmp_path / "d").is_dir()


def test_a_variable_that_is_nearly_one_of_ours_is_asked_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A misspelt variable is not silently ignored; somebody else's is."""
    assert read_settings(None, {}, {"COPYCAT_HEARTBEET": "1", "COPYCAT_PORT": "tcp://x:1"}) == {}
    assert [record.getMessage() for record in caplog.records] == [
        "COPYCAT_HEARTBEET is not read: did you mean COPYCAT_HEARTBEAT?"
    ]


def test_the_environment_is_no_business_of_plain_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who says everything in the program is not overruled from outside; with a file he may be."""
    monkeypatch.setenv("COPYCAT_HEARTBEAT", "never")
    copycat.open(data=str(tmp_path))
    with pytest.raises(ConfigurationError, match="COPYCAT_HEARTBEAT"):
        copycat.open(config=written(tmp_path, ""), data=str(tmp_path))
    monkeypatch.setenv("COPYCAT_HEARTBEAT", "5")
    with pytest.raises(ConfigurationError, match="at least 3 times heartbeat"):
        copycat.open(config=written(tmp_path, "heartbeat = 0.1"), data=str(tmp_path))
    copycat.open(config=written(tmp_path, ""), data=str(tmp_path), heartbeat=0.2)
