"""Machines that look at what differs between members, each in one way, and an honest one."""

from __future__ import annotations

import os
import random
import time
import uuid
from dataclasses import dataclass
from datetime import date, datetime
from time import time as now

from copycat.machine import Commit, StateMachine, command, event
from copycat.serializer import serializable


@serializable(id=7001)
@dataclass
class Payment:
    """An entry of a ledger."""

    amount: int
    at: float


class Bank(StateMachine):
    """Notes the time of its own clock."""

    def __init__(self) -> None:
        self.ledger: list[Payment] = []

    @command
    def act(self, number: int) -> int:
        self.ledger.append(Payment(number, time.time()))
        return number


class Hours(StateMachine):
    """Rounds its clock to the hour, taken from the module at import."""

    def __init__(self) -> None:
        self.hours: dict[int, int] = {}

    @command
    def act(self, number: int) -> None:
        self.hours[number] = int(now()) // 3600


class Days(StateMachine):
    """Notes the date of where it is."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    @command
    def act(self, number: int) -> None:
        self.seen.add(date.today().isoformat())


class Moments(StateMachine):
    """Answers with the time, and keeps nothing."""

    @command
    def act(self, number: int) -> str:
        return datetime.now().isoformat()


class Dice(StateMachine):
    """Draws from the generator of the process."""

    def __init__(self) -> None:
        self.thrown: list[float] = []

    @command
    def act(self, number: int) -> None:
        self.thrown.append(random.random())


class Names(StateMachine):
    """Makes names that are unique."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    @command
    def act(self, number: int) -> None:
        self.names[f"k{number}"] = str(uuid.uuid4())


class Hashes(StateMachine):
    """Puts texts into buckets by their hash."""

    def __init__(self) -> None:
        self.buckets: list[list[str]] = [[] for _ in range(64)]

    @command
    def act(self, number: int) -> None:
        self.buckets[hash(f"text {number}") % 64].append(f"text {number}")


class Sets(StateMachine):
    """Walks over a set as it lies."""

    def __init__(self) -> None:
        self.order: list[str] = []

    @command
    def act(self, number: int) -> None:
        self.order = list({f"a{number + i}" for i in range(10)})


class KeySets(StateMachine):
    """The same, but only the order of a dict's keys shows it."""

    def __init__(self) -> None:
        self.votes: dict[str, int] = {}

    @command
    def act(self, number: int) -> None:
        self.votes = dict.fromkeys({f"a{number + i}" for i in range(10)}, 0)


class IntegerSets(StateMachine):
    """Takes any element of a set of integers, which depends on how it came about."""

    def __init__(self) -> None:
        self.free = {8 * n for n in range(1, 40)}
        self.taken: list[int] = []

    @command
    def act(self, number: int) -> None:
        self.taken.append(self.free.pop())
        self.free.add(number * 4096 + 1)


class Addresses(StateMachine):
    """Keys by identity."""

    def __init__(self) -> None:
        self.by_id: dict[int, int] = {}

    @command
    def act(self, number: int) -> None:
        self.by_id[id(self)] = number


class Shared(StateMachine):
    """A default that all copies share."""

    def __init__(self, seen: list[int] = []) -> None:  # noqa: B006
        self.seen = seen

    @command
    def act(self, number: int) -> int:
        self.seen.append(number)
        return len(self.seen)


class Settings(StateMachine):
    """Looks into its environment."""

    def __init__(self) -> None:
        self.home = ""

    @command
    def act(self, number: int) -> None:
        self.home = os.environ.get("COPYCAT_TEST_HOME", "")


class Teller(StateMachine):
    """Publishes what it must not know."""

    told = event(int)

    @command
    def act(self, number: int) -> None:
        self.told.publish(time.monotonic_ns(), to=self.commit.session)


class Planner(StateMachine):
    """Schedules by chance."""

    @command
    def act(self, number: int) -> None:
        self.commit.schedule(random.random() * 100, "act", number)


class Late(StateMachine):
    """Does it in a timer."""

    def __init__(self) -> None:
        self.at = 0.0

    @command
    def act(self, number: int) -> None:
        self.commit.schedule(0.01, "note")

    @command
    def note(self) -> None:
        self.at = time.time()


class Born(StateMachine):
    """Is different from the beginning."""

    def __init__(self) -> None:
        self.born = time.time()

    @command
    def act(self, number: int) -> None:
        """Nothing."""


class Forgetful(StateMachine):
    """Its snapshot does not tell all."""

    def __init__(self) -> None:
        self.total = 0
        self.calls = 0

    @command
    def act(self, number: int) -> int:
        self.total += number
        self.calls += 1
        return self.calls

    def snapshot(self) -> object:
        return {"total": self.total, "calls": 0}


class Twisted(StateMachine):
    """What it restores is not what it was."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def act(self, number: int) -> None:
        self.total += 1

    def snapshot(self) -> object:
        return [self.total]

    def restore(self, image: list[int]) -> None:
        self.total = image[0] + 1


class Broken(StateMachine):
    """Cannot be restored."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def act(self, number: int) -> None:
        self.total += 1

    def restore(self, image: dict[str, int]) -> None:
        self.total = image["sum"]


class Aliased(StateMachine):
    """Two attributes are one object, until it is restored."""

    def __init__(self) -> None:
        self.all: list[int] = []
        self.latest = self.all

    @command
    def act(self, number: int) -> None:
        self.latest.append(number)


class Large(StateMachine):
    """A large state that goes wrong in one place."""

    def __init__(self) -> None:
        self.pages = ["x" * 1000] * 100
        self.odd = 0

    @command
    def act(self, number: int) -> None:
        if number == 3:
            self.odd = id(self)


class Honest(StateMachine):
    """Uses all that is allowed."""

    told = event(list[int])

    def __init__(self) -> None:
        self.log: list[tuple[int, float, float]] = []
        self.names: set[str] = set()
        self.sessions: dict[int, float] = {}
        self.decimals: dict[str, Payment] = {}

    @command
    def act(self, number: int) -> list[str]:
        self.log.append((number, self.commit.time, self.commit.random.random()))
        self.names.add(f"name {self.commit.random.randrange(50)}")
        self.decimals[f"d{number}"] = Payment(number, self.commit.time)
        self.told.publish([number, *range(number % 5)])
        if number % 3 == 0:
            self.commit.schedule(self.commit.random.random(), "later", number)
        if number % 7 == 0:
            raise ValueError(f"{number} at {id(self):#x}")
        return sorted(self.names)

    @command
    def later(self, number: int) -> None:
        self.log.append((-number, self.commit.time, 0.0))

    def on_register(self, session: int) -> None:
        self.sessions[session] = self.commit.time

    def on_close(self, session: int) -> None:
        self.sessions.pop(session, None)


class Dynamic(StateMachine):
    """Without decorators, and with the clock."""

    def __init__(self) -> None:
        self.last = 0

    def apply(self, commit: Commit) -> object:
        self.last = time.time_ns()
        return commit.operation


class Weighty(StateMachine):
    """As large as it is told."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}

    @command
    def fill(self, kilobytes: int) -> None:
        self.pages = {f"page {n}": "x" * 90 for n in range(kilobytes * 10)}

    @command
    def act(self, number: int) -> None:
        self.pages[f"page {number % 10}"] = str(number)


class Anything(StateMachine):
    """Keeps whatever comes."""

    def __init__(self) -> None:
        self.kept: list[object] = []

    @command
    def act(self, thing: object) -> int:
        self.kept = [thing]
        return len(self.kept)

    @command
    def spoil(self) -> None:
        self.kept = [object()]
