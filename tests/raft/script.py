"""Text stories: commands at the left margin, what happened indented beneath, replayed exactly.

A story is prose, commands and output. `replay` runs the commands and returns the whole text with
the output as it is now; the test compares it with the file byte for byte.

Commands (a LINK is ``n1->n2``, either side may be ``*``)::

    cluster NAME... [learners NAME...] [bytes N]
                         start; election timeouts grow in this order, from 1 s; N is the size of
                         a window (1: every batch travels alone)
    time SECONDS [without NAME...]
                         let time pass; whoever has something to do does it (or is stalled)
    run SECONDS          the same, while network and disks are quick: `settle` after every step
    expire NAME          its election timer runs out now
    elect NAME with NAME...
                         the same, until NAME leads by these votes; nobody else hears of it
    deliver [LINK...]    deliver what is under way now, not what is sent because of it
    settle               deliver and sync until nothing happens any more
    drop LINK...         lose what is under way
    copy LINK...         remember duplicates of what is under way, for `replay`
    replay               the duplicates arrive now
    cut LINK...          lose everything from now on        heal     stop doing so
    sync [NAME...]       make durable what is staged
    propose NAME COUNT   a batch of entries                 read NAME ID [leased]
    transfer NAME [TO]   NAME hands its leadership over
    members NAME VOTER... [learners NAME...] [joining NAME...]
                         NAME is asked to change the members
    add NAME by NAME     a new member, which was told the configuration of the other
    lost NAME PEER       NAME's connection to PEER broke    refused NAME PEER   ... for good
    sleep NAME SECONDS   time passes, and NAME's clock does not count it
    crash NAME           memory and what was not synced     restart NAME
    compact NAME INDEX   a snapshot replaces the log up to there
    show [NAME...]       where everybody stands
    quietly COMMAND      without output
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from copycat.ports import Random
from copycat.raft import Membership, RaftOptions, Ready, Role
from copycat.raft.inputs import Input, PeerLost, PeerRefused, Receive, Reconfigure, Transfer
from copycat.raft.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    SnapshotChunk,
    SnapshotResponse,
    Span,
    Stand,
    VoteRequest,
)

from .harness import Cluster, Node, Trace
from .toydisk import ToyDisk

INDENT = "  "


class Steady(Random):
    """Always the same chance, so that a story's timeouts can be read off its names."""

    def __init__(self, fraction: float) -> None:
        super().__init__(0)
        self._fraction = fraction

    def random(self) -> float:
        """In [0, 1)."""
        return self._fraction


class Teller(Trace):
    """Writes down what happens."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.known: dict[str, tuple[object, ...]] = {}

    def say(self, node: Node, text: str) -> None:
        """One line."""
        self.lines.append(f"{INDENT}{node.name} {text}")

    def sent(self, node: Node, message: Message) -> None:
        """As `Trace`."""
        self.lines.append(f"{INDENT}{message.sender} -> {message.to}: {describe(message)}")

    def staged(self, node: Node, span: Span, image: bytes) -> None:
        """As `Trace`."""
        self.say(node, f"appends {describe_span(span)}")

    def truncated(self, node: Node, from_index: int) -> None:
        """As `Trace`."""
        self.say(node, f"truncates from {from_index}")

    def synced(self, node: Node) -> None:
        """As `Trace`."""
        disk = node.disk
        self.say(node, f"synced: {describe_disk(disk)}")

    def stepped(self, node: Node, ready: Ready) -> None:
        """As `Trace`."""
        raft = node.alive
        role = (raft.role, raft.term)
        old_role, old_commit = self.known.get(node.name, ((Role.FOLLOWER, 0), 0))
        if role != old_role:
            self.say(node, f"is {raft.role.value} in term {raft.term}")
        if ready.commit_index != old_commit:
            self.say(node, f"commits {ready.commit_index}")
        self.known[node.name] = (role, ready.commit_index)
        for peer in ready.install:
            self.say(node, f"begins a snapshot for {peer}")
        for id_, index in ready.reads:
            self.say(node, f"serves read {id_} at {index}")
        for id_ in ready.reads_failed:
            self.say(node, f"refuses read {id_}")

    def leased(self, node: Node, id_: int, index: int) -> None:
        """As `Trace`."""
        self.say(node, f"serves read {id_} at {index} by its lease")

    def started(self, node: Node) -> None:
        """It recovered from its disk."""
        disk = node.disk
        self.known[node.name] = ((Role.FOLLOWER, disk.hard_state.term), disk.snapshot[0])
        self.say(node, f"restarts: {describe_disk(disk)}")


def describe_disk(disk: ToyDisk) -> str:
    """What would survive."""
    state = disk.hard_state
    text = f"log to {disk.last_index}, term {state.term}, vote {state.vote or 'nobody'}"
    return text + (f", promise {state.promise_us / 1e6:g} s" if state.promise_us else "")


def describe_span(span: Span) -> str:
    """``4-6@2``: entries 4 to 6 of term 2."""
    indexes = str(span.base_index)
    if span.last_index > span.base_index:
        indexes += f"-{span.last_index}"
    members = "" if span.membership is None else f"={describe_membership(span.membership)}"
    return f"{indexes}@{span.term}{members}"


def describe_membership(membership: Membership) -> str:
    """``n1,n2/n1+n3``: joint, n1 and n2 with n1 outgoing; n3 learns; ``(n3)`` would be joining."""
    text = ",".join(membership.voters)
    if membership.outgoing:
        text += "/" + ",".join(membership.outgoing)
    for name in membership.learners:
        text += f"+({name})" if name in membership.joining else f"+{name}"
    return text


def describe(message: Message) -> str:
    """A message in words."""
    m = message
    if isinstance(m, AppendRequest):
        asked = f", promise {m.lease_us / 1e6:g} s?" if m.lease_us else ""
        what = " ".join(map(describe_span, m.spans)) or "nothing"
        return (
            f"append {what} after {m.prev_index}@{m.prev_term}, commit {m.commit_index}, "
            f"round {m.round}, term {m.term}{asked}"
        )
    if isinstance(m, AppendResponse):
        hint = "" if m.success else f", mismatch: perhaps {m.hint_index}@{m.hint_term}"
        promised = ", promised" if m.promised else ""
        return f"durable to {m.match_index}{hint}, round {m.round}, term {m.term}{promised}"
    if isinstance(m, VoteRequest):
        kind = "pre-vote" if m.pre else "bidden vote" if m.bidden else "vote"
        return f"{kind} for term {m.term}? last {m.last_index}@{m.last_term}"
    if isinstance(m, SnapshotChunk):
        return f"snapshot {m.index}@{m.snapshot_term}, byte {m.offset} of {m.total}, term {m.term}"
    if isinstance(m, SnapshotResponse):
        progress = "done" if m.done else f"next byte {m.offset}"
        return f"snapshot {m.index} {progress}, term {m.term}"
    if isinstance(m, ReadIndexRequest):
        return f"read index? request {m.number}, term {m.term}"
    if isinstance(m, ReadIndexResponse):
        index = "none" if m.index is None else m.index
        return f"read index {index} for request {m.number}, term {m.term}"
    if isinstance(m, Stand):
        return f"stand for election, term {m.term}"
    kind = "pre-vote" if m.pre else "vote"
    return f"{kind} {'granted' if m.granted else 'refused'}, term {m.term}"


class Story:
    """One replay."""

    def __init__(self) -> None:
        self._teller = Teller()
        self._cluster: Cluster | None = None
        self._cut: list[str] = []
        self._copies: list[Message] = []

    # -- the frame -----------------------------------------------------------------------------

    def command(self, line: str) -> list[str]:
        """Run one command; returns the lines that it caused."""
        words = line.split()
        quiet = words[0] == "quietly"
        if quiet:
            del words[0]
        action: Callable[..., None] = getattr(self, f"do_{words[0]}")
        self._teller.lines = []
        action(*words[1:])
        return [] if quiet else self._teller.lines

    @property
    def cluster(self) -> Cluster:
        """The cluster, once there is one."""
        assert self._cluster is not None, "a story begins with `cluster`"
        return self._cluster

    def _matching(self, links: Iterable[str]) -> list[Message]:
        """Take the messages on these links out of the network."""
        chosen: list[Message] = []
        rest: list[Message] = []
        patterns = list(links) or ["*->*"]
        for message in self.cluster.in_flight:
            link = f"{message.sender}->{message.to}"
            fits = any(fnmatchcase(link, pattern) for pattern in patterns)
            (chosen if fits else rest).append(message)
        self.cluster.in_flight[:] = rest
        return chosen

    def _arrive(self, messages: list[Message]) -> None:
        """All messages for one member arrive in one step, in the order they were sent."""
        inputs: dict[str, list[Input]] = {}
        for message in messages:
            link = f"{message.sender}->{message.to}"
            if not any(fnmatchcase(link, pattern) for pattern in self._cut):
                inputs.setdefault(message.to, []).append(Receive(message))
        for node in self.cluster.running():
            if node.name in inputs:
                node.step(inputs[node.name])

    # -- commands ------------------------------------------------------------------------------

    def do_cluster(self, *words: str) -> None:
        """Start."""
        options = RaftOptions()
        if "bytes" in words:
            options = RaftOptions(max_append_bytes=int(words[-1]))
            words = words[:-2]
        at = words.index("learners") if "learners" in words else len(words)
        voters, learners = words[:at], words[at + 1 :]
        names = voters + learners
        randoms: dict[str, Random] = {
            name: Steady(place / len(names)) for place, name in enumerate(names)
        }
        self._teller.known.clear()
        self._cluster = Cluster(voters, learners, randoms, self._teller, options)
        self._cluster.start()

    def do_time(self, seconds: str, *without: str) -> None:
        """Step whoever is due, in order of time."""
        self._pass_time(float(seconds), lambda: None, without)

    def do_run(self, seconds: str) -> None:
        """The same with a perfect network and perfect disks."""
        self.do_settle()
        self._pass_time(float(seconds), self.do_settle)

    def _pass_time(
        self, seconds: float, after_each: Callable[[], None], without: tuple[str, ...] = ()
    ) -> None:
        cluster = self.cluster
        end = cluster.now + seconds
        while True:
            due = [
                node
                for node in cluster.running()
                if node.wake_at <= end + 1e-9 and node.name not in without
            ]
            if not due:
                break
            node = min(due, key=lambda node: (node.wake_at, node.name))
            cluster.now = max(cluster.now, node.wake_at)
            node.step()
            after_each()
        cluster.now = max(cluster.now, end)

    def do_expire(self, name: str) -> None:
        """The one thing that a story may force: chance alone decides it otherwise."""
        node = self.cluster.nodes[name]
        node.alive._election.deadline = self.cluster.now
        node.step()

    def do_elect(self, name: str, with_: str, *voters: str) -> None:
        """Timer, pre-votes, syncs, votes; stops before the no-op of the new leader arrives."""
        assert with_ == "with"
        node = self.cluster.nodes[name]
        links = [link for voter in voters for link in (f"{name}->{voter}", f"{voter}->{name}")]
        for _ in range(10):
            if node.alive.role is Role.FOLLOWER:
                self.do_expire(name)
            messages = self._matching(links)
            self._matching(())
            self._arrive(messages)
            if node.alive.is_leader:
                return
            self.do_sync(name, *voters)
        raise AssertionError(f"{name} is not elected")

    def do_deliver(self, *links: str) -> None:
        """What is under way now arrives."""
        self._arrive(self._matching(links))

    def do_settle(self) -> None:
        """Until nothing happens any more."""
        while True:
            self._arrive(self._matching(()))
            dirty = [node for node in self.cluster.running() if node.dirty]
            for node in dirty:
                node.begin_sync()
                node.end_sync()
            if not dirty and not self.cluster.in_flight:
                return

    def do_drop(self, *links: str) -> None:
        """What is under way is lost."""
        self._matching(links)

    def do_copy(self, *links: str) -> None:
        """The network will deliver it a second time."""
        copies = self._matching(links)
        self._copies += copies
        self.cluster.in_flight[:0] = copies

    def do_replay(self) -> None:
        """The second time is now."""
        copies, self._copies = self._copies, []
        self._arrive(copies)

    def do_cut(self, *links: str) -> None:
        """From now on."""
        self._cut += links

    def do_heal(self) -> None:
        """All links work again."""
        self._cut.clear()

    def do_sync(self, *names: str) -> None:
        """What is staged becomes durable."""
        for node in self.cluster.running():
            if (not names or node.name in names) and node.dirty:
                node.begin_sync()
                node.end_sync()

    def do_propose(self, name: str, count: str) -> None:
        """A batch."""
        if self.cluster.nodes[name].propose(int(count)) is None:
            self._teller.say(self.cluster.nodes[name], "does not lead")

    def do_read(self, name: str, id_: str, level: str = "") -> None:
        """A linearizable read."""
        self.cluster.nodes[name].read(int(id_), leased=level == "leased")

    def do_sleep(self, name: str, seconds: str) -> None:
        """It notices that it slept, at once when it wakes up."""
        self._pass_time(float(seconds), lambda: None, (name,))
        self.cluster.nodes[name].sleep(float(seconds))

    def do_transfer(self, name: str, to: str | None = None) -> None:
        """An administrator asks for it."""
        self.cluster.nodes[name].step([Transfer(to)])

    def do_members(self, name: str, *words: str) -> None:
        """An administrator asks for it."""
        groups: dict[str, list[str]] = {"voters": [], "learners": [], "joining": []}
        group = groups["voters"]
        for word in words:
            if word in groups:
                group = groups[word]
            else:
                group.append(word)
        wanted = Membership(
            tuple(groups["voters"]),
            tuple(groups["learners"] + groups["joining"]),
            joining=tuple(groups["joining"]),
        )
        node = self.cluster.nodes[name]
        problem = node.alive.objection(wanted)
        if problem is not None:
            self._teller.say(node, f"objects: {problem}")
        node.step([Reconfigure(wanted)])

    def do_add(self, name: str, by: str, other: str) -> None:
        """It comes with nothing but what it was told."""
        assert by == "by"
        raft = self.cluster.nodes[other].alive
        told = raft.configuration_at(raft.last_index)
        self.cluster.add(name, Steady(0.9), told)

    def do_lost(self, name: str, peer: str) -> None:
        """A connection broke."""
        self.cluster.nodes[name].step([PeerLost(peer)])

    def do_refused(self, name: str, peer: str) -> None:
        """A connection broke and cannot be made anew."""
        self.cluster.nodes[name].step([PeerRefused(peer)])

    def do_crash(self, name: str) -> None:
        """Nothing survives but what was synced."""
        node = self.cluster.nodes[name]
        node.crash()

    def do_restart(self, name: str) -> None:
        """Recover from the disk."""
        node = self.cluster.nodes[name]
        self._teller.started(node)
        node.start()

    def do_compact(self, name: str, index: str) -> None:
        """A snapshot at ``index``."""
        self.cluster.nodes[name].compact(int(index))

    def do_show(self, *names: str) -> None:
        """Roles, logs and progress."""
        for node in self.cluster.running():
            if names and node.name not in names:
                continue
            raft, log = node.alive, node.log
            base = [f"({log.base_index}@{log.base_term})"] if log.base_index else []
            entries = " ".join(base + [describe_span(span) for span, _ in log.batches])
            self._teller.say(
                node,
                f"{raft.role.value} term {raft.term} vote {raft.vote} leader {raft.leader} "
                f"log [{entries}] durable {raft.durable_index} commit {raft.commit_index}",
            )
            for peer in raft.progress_of():
                self._teller.say(node, f"  {peer.name} {peer.state.value} {peer.match_index}")


def replay(text: str) -> str:
    """The story's text with the output that its commands cause now."""
    story = Story()
    told: list[str] = []
    for line in text.splitlines():
        if line.startswith(INDENT):
            continue
        told.append(line)
        if line and not line.startswith("#"):
            told += story.command(line)
    return "\n".join(told) + "\n"
