"""No snapshot gets ahead of the hard state of its term."""

from __future__ import annotations

from copycat._core.codec import FrameBuffer
from copycat._core.kernel import encode_run, seal_batch
from copycat._core.layout import Kind
from copycat.raft.messages import AppendRequest
from copycat.server.effects import PeerFrame
from copycat.server.peerwire import encode_message

from .images import pack
from .world import World


def test_no_snapshot_of_a_term_that_is_not_on_disk() -> None:
    """A follower applied an entry of term 3 while its hard state is being saved: no snapshot yet,
    for with that on disk and a hard state of an older term it could never start again."""
    world = World(1)
    member = world.nodes["n1"].member
    assert member is not None
    run = encode_run(Kind.INITIALIZE, 0, 0, 0, [(0, 0, pack(["n2", ["Tally"]]))])
    request = AppendRequest(3, "n2", "n1", 0, 0, 1, 1, 1)
    ((type_, payload),) = FrameBuffer(1 << 20, expect_preamble=False).feed(
        encode_message(request, [seal_batch([run], 1, 3, 10)])
    )
    effects = member.turn(world.now, [PeerFrame("n2", type_, payload)])
    assert [job.lane for job in effects.jobs].count("log") == 1  # and it takes its time
    member.turn(world.now + 0.01, [])
    assert member.status()["applied_index"] == 1
    member.admin("snapshot", [])
    background = [job for job in member.turn(world.now + 0.01, []).jobs if job.lane == "background"]
    for job in background:
        job.run()
    disk = world.nodes["n1"].disk
    assert not [name for name in disk.listdir("snapshots") if name.endswith(".snap")]
