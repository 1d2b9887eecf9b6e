"""Who was away while the members changed: production members on simulated doors find the cluster
again, or learn that they belong to it no more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from copycat.errors import MembershipError
from copycat.testing.console import Consoles, Deed
from copycat.testing.garbage import orderly
from copycat.testing.hosting import Host, Hosting


class Story:
    """A cluster of three, and what a test does to it."""

    def __init__(self, seed: int) -> None:
        self.hosting = Hosting(seed, 3)
        self.hosting.excuse = self._excuses
        self.consoles = Consoles(self.hosting)
        self.stopped: dict[str, BaseException | None] = {}
        for host in self.hosting.hosts.values():
            self.hosting.start(host)
        assert self.hosting.run(10, lambda: self.hosting.leader() is not None)

    def _excuses(self, host: Host, error: BaseException | None) -> bool:
        self.stopped[host.name] = error
        host.is_out = True
        return isinstance(error, MembershipError)

    def wish(self, kind: str, name: str, deed: Deed) -> str:
        """Have something done; how it ended."""
        wish = self.consoles.wish(kind, name, deed)
        assert self.hosting.run(40, lambda: bool(wish.outcome))
        return wish.outcome

    def grow(self, *names: str) -> None:
        """New members join, and vote."""
        for name in names:
            self.hosting.start(self.hosting.add_host(name, joins=True))
            assert self.hosting.run(20, lambda name=name: name in self.voters), self.voters

    def remove(self, *names: str) -> None:
        """Take members out and wait until their processes have stopped."""
        for name in names:
            host = self.hosting.hosts[name]
            assert self.wish("remove", name, lambda c, t, n=name: c.remove(n, timeout=t)) == "done"
            assert self.hosting.run(10, lambda host=host: not host.is_up)

    def replace(self, name: str) -> None:
        """A member goes and comes back wiped, as another incarnation."""
        self.remove(name)
        host = self.hosting.hosts[name]
        self.hosting.wipe(host)
        self.hosting.start(host)
        assert self.hosting.run(20, lambda: name in self.voters)

    def lead(self, name: str) -> str:
        """Let somebody lead."""
        return self.wish(
            "lead", name, lambda c, t: c.transfer_leadership(name, timeout=t)
        )

    @property
    def voters(self) -> tuple[str, ...]:
        """By the committed configuration, if nothing is under way."""
        committed = self.hosting.watch.members.committed
        assert committed is not None
        return () if committed[1].membership.is_joint else committed[1].membership.voters

    def kill(self, name: str) -> Host:
        """End a process."""
        host = self.hosting.hosts[name]
        self.hosting.kill(host, power=False)
        return host


@contextmanager
def story(seed: int) -> Iterator[Story]:
    """A story in an orderly world, without the log lines of those who are killed."""
    with orderly():
        told = Story(seed)
        yield told
        told.hosting.bury()


@pytest.mark.parametrize("seed", range(3))
def test_a_leader_may_be_a_new_incarnation_of_a_name_that_is_known(seed: int) -> None:
    """Whoever was away follows it at once; nobody else has to lead first."""
    with story(seed) as told:
        hosting = told.hosting
        away = told.kill("n3")
        told.grow("n4", "n5")
        told.replace("n1")
        told.replace("n2")
        if hosting.leader() is not hosting.hosts["n1"]:
            assert told.lead("n1") == "done"
        hosting.run(1.0)
        leader = hosting.leader()
        assert leader is hosting.hosts["n1"] and leader.running is not None
        term = leader.running.member.term
        hosting.start(away)
        assert hosting.run(5, hosting.is_settled)
        assert hosting.leader() is leader
        assert leader.running.member.term == term


def test_who_was_away_may_be_needed_for_a_majority() -> None:
    """All it knows by name are other incarnations by now, none leads, and its vote decides."""
    with story(3) as told:
        hosting = told.hosting
        away = told.kill("n3")
        told.grow("n4")
        for name in ("n1", "n2"):
            told.replace(name)
        told.remove("n4")
        for name in ("n1", "n2"):
            told.kill(name)
        hosting.start(away)
        hosting.run(2.0)
        hosting.start(hosting.hosts["n1"])  # with it there are two of three
        assert hosting.run(10, lambda: hosting.leader() is not None)
        hosting.start(hosting.hosts["n2"])
        assert hosting.run(10, hosting.is_settled)


def test_one_member_that_knows_better_suffices_to_learn_of_the_removal() -> None:
    """Most of whom it knew are gone; the one that is there shows the newer configuration."""
    with story(4) as told:
        away = told.kill("n3")
        told.grow("n4", "n5")
        told.remove("n3", "n1")
        told.hosting.start(away)
        assert told.hosting.run(8, lambda: "n3" in told.stopped)
        assert isinstance(told.stopped["n3"], MembershipError)


def test_who_knows_nobody_any_more_asks_where_it_was_told_to_join() -> None:
    """All members it knows are out; the addresses in its configuration lead to those that are."""
    with story(5) as told:
        hosting = told.hosting
        told.grow("n4")
        away = told.kill("n4")
        told.grow("n5", "n6", "n7")
        told.remove("n4", "n1", "n2", "n3")
        hosting.start(away)
        assert hosting.run(20, lambda: "n4" in told.stopped)
        assert isinstance(told.stopped["n4"], MembershipError)


def test_who_can_ask_nobody_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A founder that was away, and was told of its founders only, says what it waits for."""
    with story(6) as told, caplog.at_level(logging.WARNING, "copycat.asking"):
        away = told.kill("n3")
        told.grow("n4", "n5")
        told.remove("n3", "n1", "n2")
        told.hosting.start(away)
        told.hosting.run(20)
        assert away.is_up
        assert "n3 has no leader and waits" in caplog.text
        assert "n1:7400, n2:7400" in caplog.text


def test_leadership_is_not_handed_to_the_dead() -> None:
    """A named heir that cannot be reached is refused, and the leader goes on without a pause."""
    with story(7) as told:
        hosting = told.hosting
        leader = hosting.leader()
        dead = next(name for name in hosting.hosts if hosting.hosts[name] is not leader)
        told.kill(dead)
        hosting.run(0.5)
        began = hosting.timeline.now
        assert told.lead(dead) == "refused"
        assert hosting.timeline.now - began < 1.0
        assert hosting.leader() is leader
