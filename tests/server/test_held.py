"""What leaves waits for the very hard state that it depends on."""

from __future__ import annotations

from copycat._core.codec import HEADER, Frame, FrameBuffer
from copycat.raft.messages import AppendRequest, Message, VoteRequest
from copycat.server.effects import JobDone, PeerFrame
from copycat.server.peerwire import encode_message

from .world import World


def vote(sender: str, term: int) -> PeerFrame:
    return received(VoteRequest(term, sender, "n1", 0, 0, False))


def received(message: Message) -> PeerFrame:
    ((type_, payload),) = FrameBuffer(1 << 20, expect_preamble=False).feed(encode_message(message))
    return PeerFrame(message.sender, type_, payload)


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


def test_what_an_earlier_leader_would_be_told_is_dropped_with_its_term() -> None:
    """An acknowledgement that waits for term 5's save never leaves once term 6 is entered: by then
    it may speak of what had to go (H7). Found by a random life of Raft with late messages."""
    world = World(1)
    member = world.nodes["n1"].member
    assert member is not None
    first = member.turn(world.now, [vote("n2", 5)])
    (job,) = [job for job in first.jobs if job.lane == "log"]
    waiting = member.turn(world.now, [received(AppendRequest(5, "n2", "n1", 0, 0, 0, 0, 1))])
    assert waiting.peer_frames == []
    member.turn(world.now, [received(AppendRequest(6, "n3", "n1", 0, 0, 0, 0, 1))])
    second = member.turn(world.now, [JobDone(job, job.run(), None)])
    (job,) = [job for job in second.jobs if job.lane == "log"]
    last = member.turn(world.now, [JobDone(job, job.run(), None)])
    told = [
        to for to, frame in last.peer_frames if HEADER.unpack_from(frame)[1] == Frame.APPEND_REPLY
    ]
    assert told == ["n3"]
