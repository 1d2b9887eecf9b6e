"""Founding a cluster: one cluster or none, whoever crashes, is wiped, or was told another list."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping

import pytest

from copycat._core.codec import Frame
from copycat.connection import FrameProtocol
from copycat.errors import (
    ConfigurationError,
    CopycatError,
    MembershipError,
    StorageError,
)
from copycat.handshake import pack_control
from copycat.network import RealNetwork
from copycat.server import bootstrap as bootstrap_module
from copycat.server.bootstrap import Bootstrap, Statement
from copycat.server.gateway import Gateway
from copycat.server.identity import Identity, load_identity
from copycat.server.memory_disk import MemoryDisk, MemoryFile
from copycat.types import Address

from .loops import LOOPS, at_end, free_port, local, run, until

NAMES = ("n1", "n2", "n3")


class Crash(StorageError):
    """The process died here."""


class FragileFile(MemoryFile):
    """A file whose changes are steps at which the process may die."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Half of the data may be written when the process dies."""
        self._disk.step(lambda: super(FragileFile, self).pwrite(data, offset))  # type: ignore[attr-defined]

    def sync(self) -> None:
        """A step."""
        self._disk.step(super().sync)  # type: ignore[attr-defined]


class FragileDisk(MemoryDisk):
    """Dies at change number ``dies_at``, before or after it; dead until `revive`."""

    def __init__(self, dies_at: int = 1 << 30, *, after: bool = False) -> None:
        super().__init__()
        self.steps = 0
        self.dies_at = dies_at
        self.after = after
        self.dead = False

    def step(self, change: Callable[[], None]) -> None:
        """Make one change, or die."""
        if self.dead:
            raise Crash("dead")
        if self.steps == self.dies_at:
            self.dead = True
            if self.after:
                change()
            raise Crash("died")
        self.steps += 1
        change()

    def revive(self) -> None:
        """The next process dies no more."""
        self.dead = False
        self.dies_at = 1 << 30

    def open(self, name: str, *, create: bool = False) -> MemoryFile:
        """Open a fragile file."""
        file = super().open(name, create=create)
        return FragileFile(self, file.path, file._data)

    def rename(self, old: str, new: str) -> None:
        """A step."""
        self.step(lambda: super(FragileDisk, self).rename(old, new))

    def unlink(self, name: str) -> None:
        """A step."""
        self.step(lambda: super(FragileDisk, self).unlink(name))

    def sync_directory(self, name: str) -> None:
        """A step."""
        self.step(lambda: super(FragileDisk, self).sync_directory(name))


class Founder:
    """One process: gateway and bootstrap on a disk."""

    def __init__(
        self, name: str, members: Mapping[str, Address], disk: MemoryDisk, seed: int = 0
    ) -> None:
        self.name = name
        self.disk = disk
        self.gateway: Gateway | None = None
        self.bootstrap: Bootstrap | None = None
        self._members = members
        self._random = random.Random(f"{name} {seed}")

    async def found(self) -> Identity:
        """What a node does at its start; whatever goes wrong ends the process."""
        try:
            identity = load_identity(self.disk, self.name, self._members, self._random)
            network = RealNetwork()
            self.bootstrap = Bootstrap(identity, self._members, self.disk, network, self._random)
            self.gateway = Gateway(self.name, network, self.bootstrap.on_ask)
            at_end(self.gateway.close)
            await self.gateway.listen(self._members[self.name])
            return await self.bootstrap.run()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """The process ends."""
        if self.gateway is not None:
            self.gateway.close()


def members(*names: str) -> dict[str, Address]:
    """Addresses for the names."""
    return {name: local(free_port()) for name in names}


async def all_found(founders: list[Founder]) -> list[Identity]:
    """Start all of them and wait until they are founded."""
    return await asyncio.gather(*(founder.found() for founder in founders))


def check_one_cluster(identities: list[Identity]) -> None:
    """All founded, under one id, with one list of founders that has their uuids."""
    assert all(identity.founded for identity in identities)
    assert len({identity.cluster for identity in identities}) == 1
    for identity in identities:
        assert identity.founders == identities[0].founders
        assert identity.founders[identity.name][1] == identity.uuid


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_empty_members_found_one_cluster(count: int, loop: str) -> None:
    """All agree on the id and the founders, and a restart finds the same on the disk."""

    async def main() -> None:
        where = members(*(f"n{number}" for number in range(1, count + 1)))
        founders = [Founder(name, where, MemoryDisk()) for name in where]
        identities = await all_found(founders)
        check_one_cluster(identities)
        assert [address for address, _ in identities[0].founders.values()] == list(where.values())
        for founder, identity in zip(founders, identities, strict=True):
            founder.close()
            again = await Founder(founder.name, where, founder.disk, seed=1).found()
            assert again == identity

    run(main(), loop)


@pytest.mark.parametrize("order", ["n1 n2 n3", "n3 n2 n1", "n2 n1 n3"])
def test_nothing_is_founded_until_the_last_one_is_up(
    order: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three wait, saying for whom; the third one makes a cluster at once."""
    monkeypatch.setattr(bootstrap_module, "FIRST_NOTICE", 0.05)
    first, second, last = order.split()

    async def main() -> None:
        where = members(*NAMES)
        tasks = [
            asyncio.create_task(Founder(name, where, MemoryDisk()).found())
            for name in (first, second)
        ]
        await asyncio.sleep(0.4)
        assert not any(task.done() for task in tasks)
        identity = await Founder(last, where, MemoryDisk()).found()
        check_one_cluster([identity, *(await asyncio.gather(*tasks))])

    with caplog.at_level(logging.WARNING, logger="copycat.bootstrap"):
        run(main())
    notices = [record.message for record in caplog.records if "waits for" in record.message]
    assert any(f"{first} waits for {last} (127.0.0.1:" in line for line in notices)
    assert any("connection refused" in line.lower() for line in notices)
    assert len(notices) == 2  # one each, not one per attempt


async def crash_and_recover(victim: str, at: int, after: bool) -> bool:
    """One founding in which ``victim`` dies at its change ``at``; whether it got that far."""
    where = members(*NAMES)
    disks = {name: FragileDisk() for name in NAMES}
    disks[victim] = FragileDisk(at, after=after)
    tasks = {name: asyncio.create_task(Founder(name, where, disks[name]).found()) for name in NAMES}
    died = False
    try:
        await tasks[victim]
    except Crash:
        died = True
        disks[victim].revive()
        tasks[victim] = asyncio.create_task(Founder(victim, where, disks[victim], seed=1).found())
    check_one_cluster(await asyncio.gather(*tasks.values()))
    return died


@pytest.mark.parametrize("victim", NAMES)
def test_a_crash_at_any_step_leaves_one_cluster(victim: str) -> None:
    """Whoever dies before or after any write, sync or rename: one cluster, all founders in it."""

    async def main() -> None:
        died: dict[bool, list[bool]] = {}
        for after in (False, True):
            tries = [crash_and_recover(victim, at, after) for at in range(26)]
            died[after] = await asyncio.gather(*tries)
        for outcome in died.values():
            assert 8 <= sum(outcome) < 26  # every step was met, and the last try was beyond them
            assert outcome == sorted(outcome, reverse=True)

    run(main(), timeout=60)


async def crash_and_lose(victim: str, at: int, after: bool) -> str:
    """As above, but the victim comes back with an empty disk; says how that ended."""
    where = members(*NAMES)
    disks: dict[str, MemoryDisk] = {name: MemoryDisk() for name in NAMES}
    disks[victim] = FragileDisk(at, after=after)
    others = [name for name in NAMES if name != victim]
    tasks = {name: asyncio.create_task(Founder(name, where, disks[name]).found()) for name in NAMES}
    try:
        await tasks[victim]
    except Crash:
        pass
    else:
        check_one_cluster(await asyncio.gather(*tasks.values()))
        return "no crash"
    wiped = asyncio.create_task(Founder(victim, where, MemoryDisk(), seed=1).found())
    (outcome,) = await asyncio.gather(wiped, return_exceptions=True)
    if isinstance(outcome, MembershipError):
        assert f"another incarnation of {victim}" in str(outcome)
        survivors = await asyncio.gather(*(tasks[name] for name in others))
        assert survivors[0].cluster == survivors[1].cluster
        return "refused"
    check_one_cluster([wiped.result(), *(await asyncio.gather(*(tasks[name] for name in others)))])
    return "founded"


@pytest.mark.parametrize("victim", ["n1", "n3"])
def test_a_founder_that_loses_its_disk_is_never_counted(victim: str) -> None:
    """It founds anew with the others, or stays outside of what they founded; never both."""

    async def main() -> None:
        outcomes: set[str] = set()
        for after in (False, True):
            tries = [crash_and_lose(victim, at, after) for at in range(26)]
            outcomes |= set(await asyncio.gather(*tries))
        assert "founded" in outcomes and "no crash" in outcomes
        # The coordinator's decision is known to nobody before its last step; another founder's
        # uuid is in the decision before it takes its first one.
        assert ("refused" in outcomes) == (victim == "n3")

    run(main(), timeout=60)


def test_wiped_members_cannot_found_a_second_cluster() -> None:
    """Two wiped members of three wait while the third is away, and give up when it is back."""

    async def main() -> None:
        where = members(*NAMES)
        founders = [Founder(name, where, MemoryDisk()) for name in NAMES]
        identities = await all_found(founders)
        for founder in founders:
            founder.close()
        await asyncio.sleep(0.02)
        wiped = [
            asyncio.create_task(Founder(name, where, MemoryDisk(), seed=1).found())
            for name in ("n1", "n2")
        ]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in wiped)
        third = Founder("n3", where, founders[2].disk, seed=1)
        assert await third.found() == identities[2]
        for task, name in zip(wiped, ("n1", "n2"), strict=True):
            with pytest.raises(MembershipError, match=f"another incarnation of {name}"):
                await task
        third.close()

    run(main())


def test_a_coordinator_that_forgot_its_decision_is_refused() -> None:
    """Its uuid is right, but its disk is a copy from before the founding: it may have voted."""

    async def main() -> None:
        where = members(*NAMES)
        disk = MemoryDisk()
        load_identity(disk, "n1", where, random.Random(1))
        copy = MemoryDisk()
        copy._files = {name: bytearray(data) for name, data in disk._files.items()}
        founders = [Founder("n1", where, disk)]
        founders += [Founder(name, where, MemoryDisk()) for name in ("n2", "n3")]
        await all_found(founders)
        founders[0].close()
        await asyncio.sleep(0.02)
        with pytest.raises(StorageError, match="a copy from before the founding"):
            await Founder("n1", where, copy, seed=1).found()
        for founder in founders[1:]:
            founder.close()

    run(main())


def test_a_leftover_of_an_earlier_coordinator_is_ignored() -> None:
    """Who told the new coordinator that it is empty takes nothing from the old one (rule 6)."""

    async def main() -> None:
        where = members(*NAMES)
        me = load_identity(MemoryDisk(), "n2", where, random.Random(2))
        subject = Bootstrap(me, where, MemoryDisk(), RealNetwork(), random.Random(1))
        subject._ended = asyncio.get_running_loop().create_future()
        listed = {name: str(address) for name, address in where.items()}
        old, new = b"o" * 16, b"n" * 16
        uuids = {"n1": old, "n2": me.uuid, "n3": b"3" * 16}
        decision = Identity(
            "n1", old, b"c" * 16, {name: (where[name], uuids[name]) for name in NAMES}
        )
        ask = Statement(Identity("n1", new), listed).frame(Frame.FOUND_ASK)[8:]
        subject.on_ask(FrameProtocol(lambda t, p: None, lambda e: None), ask)
        subject._heard("n1", Statement(decision, listed))
        assert not subject.identity.founded
        told_by_third = Identity("n3", uuids["n3"], decision.cluster, decision.founders)
        subject._heard("n3", Statement(told_by_third, listed))
        assert subject.identity.cluster == decision.cluster

    run(main())


@pytest.mark.parametrize("coordinator_differs", [True, False])
def test_differing_lists_are_told_to_both_sides(coordinator_differs: bool) -> None:
    """Nobody founds anything, and both errors show both lists (ECOSYSTEM 9.3, 6)."""

    async def main() -> None:
        where = members(*NAMES)
        short = {name: where[name] for name in ("n1", "n2")}
        lists = [short, where] if coordinator_differs else [where, short]
        founders = [
            Founder(name, list_, MemoryDisk())
            for name, list_ in zip(("n1", "n2"), lists, strict=True)
        ]
        outcomes = await asyncio.gather(
            *(founder.found() for founder in founders), return_exceptions=True
        )
        for outcome in outcomes:
            assert isinstance(outcome, ConfigurationError), outcome
            assert "{n1, n2, n3}" in str(outcome) and "{n1, n2}" in str(outcome)
            assert "same list on every host" in outcome.hint

    run(main())


def test_differing_addresses_are_told() -> None:
    """The error names the member about whose address they disagree."""

    async def main() -> None:
        where = members(*NAMES)
        other = {**where, "n3": local(free_port())}
        outcomes = await asyncio.gather(
            Founder("n1", where, MemoryDisk()).found(),
            Founder("n2", other, MemoryDisk()).found(),
            return_exceptions=True,
        )
        for outcome in outcomes:
            assert isinstance(outcome, ConfigurationError), outcome
            assert str(where["n3"]) in str(outcome) and str(other["n3"]) in str(outcome)

    run(main())


def test_swapped_addresses_are_told() -> None:
    """A name that answers at another's address is a mistake in the list."""

    async def main() -> None:
        where = members("n1", "n2")
        founder = Founder("n1", where, MemoryDisk())
        impostor = Founder("n1", {**where, "n1": where["n2"]}, MemoryDisk())
        waiting = asyncio.create_task(impostor.found())
        with pytest.raises(ConfigurationError, match="is listed as n2, but n1 answers there"):
            await founder.found()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run(main())


async def answer_to(address: Address, frame: bytes, wait: float = 2.0) -> list[Statement]:
    """What a stranger who connects and sends ``frame`` is told before the connection ends."""
    told: list[Statement] = []
    gone = asyncio.Event()
    protocol = FrameProtocol(
        lambda type_, payload: told.append(Statement.parse(payload)), lambda error: gone.set()
    )
    await RealNetwork().connect(address, lambda: protocol)
    protocol.write(frame)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait):
            await gone.wait()
    protocol.abort()
    return told


def test_strangers_stop_nothing_and_learn_no_uuid() -> None:
    """Before and after the founding: rubbish, foreign names and foreign lists are counted, told at
    most the list, and the founding goes on as if nobody had asked."""

    async def main() -> None:
        where = members(*NAMES)
        listed = {name: str(address) for name, address in where.items()}
        other = {**listed, "n3": "127.0.0.1:1"}
        asks = [
            Statement(Identity("n3", b"s" * 16), other),  # a listed name with another list
            Statement(Identity("n9", b"s" * 16), {**listed, "n9": "127.0.0.1:2"}),
            Statement(Identity("n9", b"s" * 16), listed),  # not on the list it shows
            Statement(Identity("n1", b"s" * 16), listed),  # in the name of whom it asks
        ]
        frames = [ask.frame(Frame.FOUND_ASK) for ask in asks]
        rubbish = frames[0][:8] + b"\xc1" * len(frames[0][8:])
        frames += [pack_control(Frame.FOUND_ASK, {"protocol": 1}), rubbish]
        founder = Founder("n1", where, MemoryDisk())
        first = asyncio.create_task(founder.found())
        await until(lambda: founder.bootstrap is not None and founder.gateway is not None)
        await asyncio.sleep(0.05)
        for round_ in range(2):
            for frame in frames:
                for statement in await answer_to(where["n1"], frame):
                    assert statement.members == listed
                    assert statement.identity == Identity("n1", bytes(16))
            assert founder.bootstrap is not None and founder.gateway is not None
            assert founder.bootstrap.complaints.count == 4 * (round_ + 1)
            assert founder.gateway.complaints.count == 2 * (round_ + 1)
            if not round_:
                assert not first.done()
                others = [Founder(name, where, MemoryDisk()) for name in ("n2", "n3")]
                check_one_cluster([*await all_found(others), await first])

    run(main())


def test_who_poses_as_the_coordinator_delays_the_founding_at_most() -> None:
    """A false coordinator that knows the whole list is asked about no decision, and the real one
    asks again once the false one is gone (rule 6)."""

    async def main() -> None:
        where = members(*NAMES)
        listed = {name: str(address) for name, address in where.items()}
        false = Statement(Identity("n1", b"f" * 16), listed).frame(Frame.FOUND_ASK)
        founders = [Founder(name, where, MemoryDisk()) for name in ("n1", "n2")]
        tasks = [asyncio.create_task(founder.found()) for founder in founders]
        second = founders[1]
        await until(lambda: second.bootstrap is not None and second.bootstrap._promised)
        for _ in range(3):
            (told,) = await answer_to(where["n2"], false, wait=0.1)
            assert not told.identity.founded
        identity = await Founder("n3", where, MemoryDisk()).found()
        check_one_cluster([identity, *await asyncio.gather(*tasks)])

    run(main())


def test_waiting_can_be_cancelled() -> None:
    """A member that waits for others closes without leaving tasks or connections behind."""

    async def main() -> None:
        where = members(*NAMES)
        founders = [Founder(name, where, MemoryDisk()) for name in ("n1", "n2")]
        tasks = [asyncio.create_task(founder.found()) for founder in founders]
        await until(lambda: all(founder.bootstrap is not None for founder in founders))
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_running_cluster_is_not_stopped_by_a_newcomer_with_another_list() -> None:
    """The one with the wrong list hears it; the founded members go on."""

    async def main() -> None:
        where = members(*NAMES)
        founders = [Founder(name, where, MemoryDisk()) for name in NAMES]
        await all_found(founders)
        other = {"n3": where["n3"], "n4": local(free_port())}
        with pytest.raises(ConfigurationError) as caught:
            await Founder("n4", other, MemoryDisk()).found()
        assert isinstance(caught.value, CopycatError)
        assert "{n3, n4}" in str(caught.value)
        again = Founder("n2", where, MemoryDisk(), seed=1)
        founders[1].close()
        await asyncio.sleep(0.02)
        with pytest.raises(MembershipError):  # they still answer
            await again.found()
        for founder in founders:
            founder.close()

    run(main())
