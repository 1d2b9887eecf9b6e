"""What leaves waits for the very hard state that it depends on."""

from __future__ import annotations

from copycat._core.codec import FrameBuffer
from copycat.raft.messages import VoteRequest
from copycat.server.effects import JobDone, PeerFrame
from copycat.server.peerwire import encode_message

from .world import World


def vote(sender: str, term: int) -> PeerFrame:
    ((type_, payload),) = FrameBuffer(1 << 20, expect_preamble=False).feed(
        encode_message(VoteRequest(term, sender, "n1", 0, 0, False))
    )
    return PeerFrame(sender, type_, payload)


def test_a_vote_waits_for_its_own_save_not_for_an_earlier_one() -> None:
    """While term 5 is being saved, a vote in term 6 is cast: it leaves only once 6 is on disk."""
    world = World(1)
    member = world.nodes["n1"].member
    assert member is not None
    first = member.turn(world.now, [vote("n2", 5)])
    (job,) = [job for job in first.jobs if job.lane == "log"]
    assert first.peer_frames == []
    second = member.turn(world.now, [vote("n3", 6)])
    assert second.peer_frames == [] and [j for j in second.jobs if j.lane == "log"] == []
    third = member.turn(world.now, [JobDone(job, job.run(), None)])
    assert third.peer_frames == []
    (job,) = [job for job in third.jobs if job.lane == "log"]
    fourth = member.turn(world.now, [JobDone(job, job.run(), None)])
    assert [peer for peer, _ in fourth.peer_frames] == ["n2", "n3"]
