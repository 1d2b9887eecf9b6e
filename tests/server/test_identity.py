"""The identity file: kept through restarts, refused when it is damaged, foreign, or alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from copycat.errors import CorruptLogError, StorageError, WrongClusterError
from copycat.raft import Membership
from copycat.raft.ready import HardState
from copycat.server.hardstate import HardStateFile
from copycat.server.identity import Identity, load_identity, save_identity
from copycat.server.memory_disk import MemoryDisk
from copycat.server.roster import Roster, Seat
from copycat.testing.disk import SimulatedDisk
from copycat.types import Address

MEMBERS = ("n1", "n2")
FOUNDERS = {
    "n1": (Address("10.0.0.1", 7400), b"1" * 16),
    "n2": (Address("::1", 7400), b"2" * 16),
}
FOUNDED = Identity("n1", b"1" * 16, b"c" * 16, FOUNDERS)


def load(
    disk: MemoryDisk | SimulatedDisk, name: str = "n1", members: tuple[str, ...] = MEMBERS
) -> Identity:
    """Load with a fixed seed."""
    return load_identity(disk, name, members, random.Random(1))


def founded_disk() -> MemoryDisk:
    """A disk with `FOUNDED` on it."""
    disk = MemoryDisk()
    save_identity(disk, FOUNDED)
    return disk


def test_an_empty_directory_gets_a_fresh_identity_that_stays() -> None:
    """The uuid is drawn once; two directories never share one."""
    disk = MemoryDisk()
    first = load(disk)
    assert not first.founded and len(first.uuid) == 16
    assert load_identity(disk, "n1", MEMBERS, random.Random(2)) == first
    assert load_identity(MemoryDisk(), "n1", MEMBERS, random.Random(2)).uuid != first.uuid


def test_a_founded_identity_is_read_back_whole() -> None:
    """Cluster, founders, uuids and addresses survive, IPv6 included; leftovers do not disturb."""
    disk = founded_disk()
    assert load(disk) == FOUNDED
    disk.open("identity.tmp", create=True).pwrite(bytes(10_000), 0)
    save_identity(disk, FOUNDED)
    assert load(disk) == FOUNDED
    assert disk.listdir("") == ["hardstate", "identity"]


def test_any_damaged_byte_is_noticed() -> None:
    """A flipped bit or a cut file is an error that names the file, never another identity."""
    size = founded_disk().open("identity").size()
    for at in range(size):
        disk = founded_disk()
        file = disk.open("identity")
        file.pwrite(bytes((file.pread(1, at)[0] ^ 4,)), at)
        with pytest.raises(CorruptLogError, match="identity cannot be read"):
            load(disk)
    for length in (0, 5, 20, size - 1):
        disk = founded_disk()
        del disk._files["identity"][length:]
        with pytest.raises(CorruptLogError, match="identity cannot be read"):
            load(disk)


def test_another_members_directory_is_refused() -> None:
    """The error names both members, and nothing is changed (H67)."""
    disk = founded_disk()
    with pytest.raises(WrongClusterError, match="of member 'n1', not of 'n2'") as caught:
        load(disk, "n2")
    assert "nothing was changed" in caught.value.hint
    assert load(disk) == FOUNDED


def test_another_clusters_directory_is_refused() -> None:
    """Other members in the configuration than those that founded it are another cluster."""
    with pytest.raises(WrongClusterError, match="with the members n1, n2; .* lists n1, n3"):
        load(founded_disk(), "n1", ("n1", "n3"))


def test_a_log_without_an_identity_is_not_empty() -> None:
    """A directory that holds promises must never be counted as empty (H32)."""
    disk = MemoryDisk()
    disk.makedirs("log")
    load(disk)  # an empty folder promises nothing
    disk = MemoryDisk()
    disk.makedirs("log")
    disk.open("log/1.seg", create=True)
    with pytest.raises(StorageError, match="holds a log directory, but no identity"):
        load(disk)
    assert not disk.exists("identity")


def test_votes_without_an_identity_are_not_empty() -> None:
    """A hard state with a term belongs to a member that may have voted."""
    disk = MemoryDisk()
    file = HardStateFile.found(disk)
    load(disk)  # an empty one is what a crash during the founding leaves
    file.save(HardState(1, "n1"))
    with pytest.raises(StorageError, match="votes of a member"):
        load(disk)


def test_a_founded_member_without_its_votes_is_refused() -> None:
    """Missing, cut or zero: it may have voted in its term and would vote again (H1)."""
    disk = founded_disk()
    disk.unlink("hardstate")
    with pytest.raises(CorruptLogError, match="memory/hardstate is gone") as caught:
        load(disk)
    assert caught.value.segment == "memory/hardstate" and "restore" in caught.value.hint
    for length in (0, 1, 200, 511):
        disk = founded_disk()
        del disk._files["hardstate"][length:]
        with pytest.raises(CorruptLogError, match="hardstate cannot be read"):
            load(disk)
    disk = founded_disk()
    disk._files["hardstate"][:] = bytes(8192)
    with pytest.raises(CorruptLogError, match="hardstate cannot be read"):
        load(disk)
    disk = founded_disk()
    del disk._files["hardstate"][4096:]  # one of the two slots is enough
    assert load(disk) == FOUNDED


class Recorder(SimulatedDisk):
    """Fails from the change number ``dies_at`` on."""

    def __init__(self, dies_at: int) -> None:
        super().__init__()
        self.left = dies_at
        self.fail = self._step

    def _step(self, operation: str, path: str) -> OSError | None:
        if operation in ("open", "pread"):
            return None
        self.left -= 1
        return OSError("power") if self.left < 0 else None


@pytest.mark.parametrize("seed", range(300))
def test_a_power_cut_during_the_founding_leaves_no_doubt(seed: int) -> None:
    """At whatever step it comes: either nothing is founded and all can be done again, or all is
    there, with a hard state that says "no vote yet"; votes cast later are never forgotten."""
    chance = random.Random(seed)
    disk = Recorder(chance.randrange(22))
    finished = 0
    state = HardState(3, "n2")
    try:
        first = load(disk)
        finished = 1
        save_identity(disk, replace(FOUNDED, uuid=first.uuid))
        finished = 2
        HardStateFile(disk).save(state)
        finished = 3
    except StorageError:
        pass
    disk.fail = lambda operation, path: None
    disk.crash(chance)
    found = load(disk)
    if finished:
        assert found.uuid == first.uuid
    assert found.founded or finished < 2
    if not found.founded:
        save_identity(disk, replace(FOUNDED, uuid=found.uuid))
        assert load(disk).founded
        assert HardStateFile(disk).state == HardState()
    elif finished == 3:
        assert HardStateFile(disk).state == state
    else:
        assert HardStateFile(disk).state in (HardState(), state)


def test_what_a_joined_member_was_told_is_read_back() -> None:
    """Its configuration and the index survive; which members it is started with is no concern."""
    seats = {n: Seat(Address(n, 7400), n.encode() * 8) for n in ("n1", "n4")}
    told = (77, Roster(Membership(("n1",), ("n4",), (), ("n4",)), seats))
    joined = Identity("n4", b"n4" * 8, b"c" * 16, joined=told)
    disk = MemoryDisk()
    save_identity(disk, joined)
    for members in (None, ["n4"], ["n1", "n2"]):
        again = load_identity(disk, "n4", members, random.Random(1))
        assert again == joined and again.founded
        assert again.told == told
    assert FOUNDED.told[0] == 0
    assert FOUNDED.told[1].membership == Membership(("n1", "n2"))
    assert load_identity(founded_disk(), "n1", None, random.Random(1)) == FOUNDED
    with pytest.raises(WrongClusterError):
        load_identity(disk, "n5", None, random.Random(1))
