"""``copycat members`` against a cluster of real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from copycat.testing.ports import free_ports

from .conftest import Member, run_copycat


def told(*arguments: str) -> Any:
    """The JSON document of a command that succeeds."""
    done = run_copycat("members", *arguments, "--json", "--timeout", "15", timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def parts(seen: Any) -> dict[str, str]:
    """Who plays which part."""
    return {member["name"]: member["type"] for member in seen["members"]}


def test_a_cluster_of_one_grows_and_changes_leaders(
    serve: Callable[..., Member], tmp_path: Path
) -> None:
    """Place kept, joined as a learner, promoted, leading; then the founder is taken out, and what
    would lose the majority is refused with exit code 5."""
    first, second = (f"127.0.0.1:{port}" for port in free_ports(2))
    founder = serve("--name", "n1", "--listen", first, "--data", str(tmp_path / "1"))
    where = ("--cluster", f"{first},{second}")
    founder.wait_for(first)
    assert parts(told(*where)) == {"n1": "active"}
    hopeful = run_copycat("members", "add", "n9", "127.0.0.1:9", *where)
    assert "n9\t127.0.0.1:9\texpected, learner, votes when it has caught up" in hopeful.stdout
    assert "1 of 1 needed -> 1 of 1 needed" in hopeful.stderr
    told("remove", "n9", *where)
    added = told("add", "n2", second, "--learner", *where)
    assert parts(added["before"]) == {"n1": "active"}
    assert parts(added["after"]) == {"n1": "active", "n2": "passive"}
    joined = serve(
        "--name", "n2", "--listen", second, "--data", str(tmp_path / "2"), "--join", first
    )
    assert parts(told("promote", "n2", *where)["after"]) == {"n1": "active", "n2": "active"}
    assert told("lead", "n2", *where)["after"]["leader"] == "n2"
    assert parts(told("remove", "n1", *where)["after"]) == {"n2": "active"}
    assert founder.process.wait(15) != 0
    plain = run_copycat("members", "list", *where)
    assert plain.stdout.splitlines() == [
        "member\taddress\tpart\tleads", f"n2\t{second}\tvotes\tleads"
    ]  # fmt: skip
    refused = run_copycat("members", "remove", "n2", *where)
    assert refused.returncode == 5
    assert "at least one voter" in refused.stderr
    assert joined.stop() == 0
    others = ("--members", f"n2={second},n3={first}")
    again = serve("--name", "n2", "--data", str(tmp_path / "2"), *others)
    again.wait_for("--members differs from the cluster that n2 joined")
    again.wait_for(f"with the members n2={second}")
