"""Term and vote survive what a disk may do, or the member says that they did not."""

from __future__ import annotations

import random

import pytest

from copycat.errors import CorruptLogError
from copycat.raft.ready import HardState
from copycat.server.hardstate import NAME, SLOT_OFFSETS, HardStateFile
from copycat.testing.disk import SimulatedDisk

STATES = [HardState(1), HardState(1, "n1"), HardState(2, "n2"), HardState(7, "é" * 100)]
STATES += [HardState(7, "é" * 100, 2**63), HardState(7, None, 1), HardState(8, "n1")]
STATES += [HardState(9, None, 5, 9), HardState(9, "é" * 100, 0, 2**63)]


def test_what_was_saved_is_read_back() -> None:
    """Each saved state is the one a restarted member finds (H1)."""
    disk = SimulatedDisk()
    assert HardStateFile.found(disk).state == HardState()
    assert HardStateFile(disk).state == HardState()
    for state in STATES:
        HardStateFile(disk).save(state)
        assert HardStateFile(disk).state == state


@pytest.mark.parametrize("seed", range(200))
def test_a_crash_in_the_middle_leaves_the_old_state_or_the_new_one(seed: int) -> None:
    """At whatever write or sync the power fails, nothing but those two can be found."""
    chance = random.Random(seed)
    disk = SimulatedDisk()
    file = HardStateFile.found(disk)
    file.save(STATES[1])
    steps = chance.randrange(5)

    def fail(operation: str, path: str) -> OSError | None:
        nonlocal steps
        steps -= 1
        return OSError("power") if steps < 0 else None

    disk.fail = fail
    try:
        file.save(STATES[2])
        finished = True
    except OSError:
        finished = False
    disk.fail = lambda operation, path: None
    disk.crash(chance)
    found = HardStateFile(disk).state
    assert found == STATES[2] if finished else found in STATES[1:3]


@pytest.mark.parametrize("slot", [0, 1])
def test_one_rotten_slot_takes_no_vote_with_it(slot: int) -> None:
    """After a save both slots hold the vote, so that either may rot."""
    disk = SimulatedDisk()
    HardStateFile.found(disk).save(STATES[2])
    disk.open(NAME).pwrite(b"\xff" * 40, SLOT_OFFSETS[slot])
    assert HardStateFile(disk).state == STATES[2]


def test_two_rotten_slots_are_an_error_not_a_fresh_start() -> None:
    """A member that does not know its vote must not begin with none."""
    disk = SimulatedDisk()
    for rot in (b"\xff" * 40, bytes(512)):
        HardStateFile.found(disk).save(STATES[2])
        for offset in SLOT_OFFSETS:
            disk.open(NAME).pwrite(rot, offset)
        with pytest.raises(CorruptLogError, match="hardstate cannot be read"):
            HardStateFile(disk)
    disk.unlink(NAME)
    with pytest.raises(CorruptLogError, match="hardstate is gone"):
        HardStateFile(disk)


def test_founding_twice_keeps_what_is_there() -> None:
    """A founding that is repeated after a crash takes no vote back."""
    disk = SimulatedDisk()
    HardStateFile.found(disk).save(STATES[2])
    assert HardStateFile.found(disk).state == STATES[2]
