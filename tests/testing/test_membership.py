"""Members of a simulated cluster come and go while they are killed: all production code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from copycat import handles
from copycat.config import server_options
from copycat.errors import MembershipError
from copycat.node import Doors, RunningMember
from copycat.resources import BUILT_IN_MACHINES
from copycat.testing.disk import SimulatedDisk
from copycat.testing.process import SimulatedProcess
from copycat.testing.watch import Watch
from copycat.testing.world import World

PORT = 7400


class Host:
    """A machine: its disk stays, its processes come and go."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.disk = SimulatedDisk(random=cluster.world.random(f"disk {name}"))
        self.process: SimulatedProcess | None = None
        self.running: RunningMember | None = None
        self.is_out = False  # removed from the cluster

    def start(self) -> None:
        """Start the member on what its disk has kept; all but the first one join."""
        world = self.cluster.world
        self.process = process = world.process(self.name)
        door = self.disk.mount(process.schedule)
        joining = {} if self.name == "n1" else {"join": "n1:7400,n2:7400,n3:7400"}
        options = server_options(
            name=self.name, listen=f"{self.name}:{PORT}", data="simulated", segment_bytes=64 << 10,
            snapshot_bytes=64 << 10, **joining,
        )  # fmt: skip
        doors = Doors(process.network, door, process.clock, process.random)
        self.running = RunningMember(options, doors, BUILT_IN_MACHINES)
        process.spawn(self._serve(self.running))

    async def _serve(self, running: RunningMember) -> None:
        await running.start()
        self.cluster.watch.adopt(running)
        failed = running.failed
        assert failed is not None
        error = await failed
        if not isinstance(error, MembershipError) or not self.cluster.may_go(self.name):
            raise error
        self.is_out = True

    def kill(self, *, power: bool) -> None:
        """End the process, and with ``power`` lose what was not synced."""
        if self.process is not None:
            self.process.kill()
        self.process = self.running = None
        if power:
            self.disk.power_cut()
        else:
            self.disk.kill()


class Cluster:
    """Hosts, a client that counts, and an administrator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.watch = Watch(lambda: world.timeline.now)
        self.hosts: dict[str, Host] = {}
        self.removed: set[str] = set()
        self.counted = 0
        self.chance = world.random("faults")
        self.done = False

    def may_go(self, name: str) -> bool:
        """Whether somebody wanted it out."""
        return name in self.removed

    def host(self, name: str) -> Host:
        """A new machine, running."""
        host = self.hosts[name] = Host(self, name)
        host.start()
        return host

    def client(self, name: str, work: Callable[[Any], Coroutine[Any, Any, None]]) -> Any:
        """A client process that does ``work``."""
        process = self.world.process(name)

        async def main() -> None:
            connecting = handles.connect(
                [f"n{i}:{PORT}" for i in range(1, 4)], network=process.network,
                clock=process.clock, random=process.random, name=name, timeout=60.0,
            )  # fmt: skip
            async with connecting as cc:
                await work(cc)

        return process.spawn(main())

    async def count(self, cc: Any) -> None:
        """Increment without pause; not one may be lost or counted twice."""
        counter = cc.long("/count")
        while not self.done:
            value = await counter.increment()
            assert value == self.counted + 1, "an increment was lost or counted twice"
            self.counted = value
            await asyncio.sleep(0.01)

    def trouble(self) -> None:
        """Somebody dies every few seconds and comes back soon; the leader often."""
        if self.done:
            return
        up = [h for h in self.hosts.values() if h.process is not None and not h.is_out]
        if len(up) == len(self.hosts) - len(self.removed) and len(up) > 1:
            leading = [
                h for h in up if h.running and h.running.member and h.running.member.serving
            ]
            host = self.chance.choice(leading if leading and self.chance.random() < 0.5 else up)
            host.kill(power=self.chance.random() < 0.5)
            self.world.timeline.after(
                self.chance.uniform(0.1, 2.0),
                lambda: None if host.is_out or host.process is not None else host.start(),
            )
        self.world.timeline.after(self.chance.uniform(1.0, 4.0), self.trouble)

    async def administer(self, cc: Any) -> None:
        """Grow to three, replace every one of them, the founder included, and shrink to one."""
        members = cc.cluster
        await self.grow(cc, "n2")
        await self.grow(cc, "n3")
        self.trouble()
        for new, old in (("n4", "n1"), ("n5", "n3"), ("n6", "n2")):
            await self.grow(cc, new)
            await self.shrink(members, old)
            await asyncio.sleep(1.0)
        await members.transfer_leadership(timeout=60)
        await self.shrink(members, "n4")
        await self.shrink(members, "n5")
        await asyncio.sleep(1.0)
        self.done = True

    async def grow(self, cc: Any, name: str) -> None:
        """Take one in and wait until it votes."""
        self.host(name)
        while True:
            status = await cc.cluster._ask("status", [], 60.0)
            if name in status["voters"]:
                return
            await asyncio.sleep(0.1)

    async def shrink(self, members: Any, name: str) -> None:
        """Take one out; it stops by itself if it is up to hear of it."""
        self.removed.add(name)
        while True:
            try:
                return await members.remove(name, timeout=60)
            except MembershipError:  # whoever has to vote without it is down just now
                await asyncio.sleep(0.2)


@pytest.mark.parametrize("seed", range(3))
def test_every_member_is_replaced_under_fire(seed: int) -> None:
    """A cluster of one grows, exchanges all its members while they die, and shrinks to one; no law
    is broken, each increment counts once, and the client sees no error."""
    with World(seed) as world:
        cluster = Cluster(world)
        cluster.host("n1")
        counting = cluster.client("counter", cluster.count)
        administering = cluster.client("admin", cluster.administer)
        ended = world.run(
            300,
            until=lambda: (counting.done() and administering.done()) or bool(world.failures),
        )
        assert not world.failures, world.failures[0]
        assert ended, "the changes never end"
        counting.result()
        administering.result()
        assert cluster.counted > 100
        survivor = cluster.hosts["n6"].running
        assert survivor is not None and survivor.member is not None
        assert survivor.member.status()["voters"] == ["n6"]
        assert cluster.watch.elections >= 2
