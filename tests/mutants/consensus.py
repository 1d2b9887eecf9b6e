"""Mistakes in Raft: terms, votes, quorums, logs and reads."""

from __future__ import annotations

from .mutant import Mutant, one

STANDING = "raft/standing.py"
ELECTION = "raft/election.py"
FOLLOWING = "raft/following.py"
REPLICATION = "raft/replication.py"
QUORUM = "raft/quorum.py"
RAFT = "raft/raft.py"

VOTES = (
    one("vote not persisted", STANDING,
        "self.term != told.term or self.vote != told.vote or", "self.term != told.term or",
        "raft"),
    one("second vote in a term", ELECTION,
        "            and (free or me.vote == request.sender)\n", "", "raft"),
    one("votes for a log that is behind", ELECTION,
        "return theirs >= (trail.last_term, trail.last_index)", "return True", "raft"),
    one("logs are compared by length before terms", ELECTION,
        "theirs = (request.last_term, request.last_index)\n"
        "        return theirs >= (trail.last_term, trail.last_index)",
        "theirs = (request.last_index, request.last_term)\n"
        "        return theirs >= (trail.last_index, trail.last_term)", "raft"),
    one("votes go out before they are durable", "server/member.py",
        "held = self._effects.peer_frames if self._unsaved is None else self._held",
        "held = self._effects.peer_frames", members=5,
        faults=("crash point", "everybody dies", "slow disk", "power cut")),
    one("held messages go out with any save", "server/member.py",
        "        if state == self._unsaved:\n", "        if self._unsaved is not None:\n",
        members=5, faults=("crash point", "everybody dies", "slow disk", "power cut")),
)  # fmt: skip

QUORUMS = (
    one("half of an even cluster elects", QUORUM,
        "2 * sum(voter in names for voter in half) > len(half)",
        "2 * sum(voter in names for voter in half) >= len(half)", "raft"),
    one("half of an even cluster commits", QUORUM,
        "return values[(len(values) - 1) // 2]", "return values[len(values) // 2]", "raft"),
    one("old voters are not asked in a joint election", QUORUM,
        "for half in (membership.voters, membership.outgoing)",
        "for half in (membership.voters,)", "raft"),
    one("old voters do not count in joint commitment", QUORUM,
        "value = min(value, _reached(membership.outgoing, value_of))", "pass", "raft"),
    one("learners count", QUORUM,
        "value = _reached(membership.voters, value_of)",
        "value = _reached(membership.names, value_of)", "raft"),
    one("a change comes undone, its members stay", STANDING,
        "        self.configurations.truncate(from_index)\n", "", "raft"),
    Mutant("a configuration counts from its commitment", (
        (STANDING, "self.configurations.append(index, membership)\n"
         "        self.membership = self.configurations.current",
         "self.configurations.append(index, membership)"),
        (STANDING, "            )  # fmt: skip\n            self.commit_index = index",
         "            )  # fmt: skip\n            self.commit_index = index\n"
         "            self.membership = self.configurations.at(index)[1]")), "raft"),
    one("two changes of the members at a time", "raft/changes.py",
        "return not me.membership.is_joint and me.configurations.last_index <= me.commit_index",
        "return not me.membership.is_joint", "raft"),
)  # fmt: skip

LOGS = (
    one("acknowledged before it is synced", FOLLOWING,
        "acknowledged = min(self._matched, me.durable_index)",
        "acknowledged = self._matched", "raft"),
    one("acknowledged beyond what matched", FOLLOWING,
        "acknowledged = min(self._matched, me.durable_index)",
        "acknowledged = me.durable_index", "raft"),
    one("the leader counts itself before its sync", REPLICATION,
        "lambda name: me.durable_index if name == me.name else peers[name].match_index",
        "lambda name: me.trail.last_index if name == me.name else peers[name].match_index",
        "raft"),
    one("an older term is committed by counting", REPLICATION,
        "if index > me.commit_index and me.trail.term_at(index) == me.term:",
        "if index > me.commit_index:", "raft"),
    one("committed beyond what matched", FOLLOWING,
        "me.commit(min(request.commit_index, self._matched))",
        "me.commit(min(request.commit_index, me.trail.last_index))", "raft"),
    one("a short request cuts the log", FOLLOWING,
        "        self._matched = max(self._matched, request.last_index)\n",
        "        if me.commit_index < request.last_index < me.trail.last_index:\n"
        "            me.truncate(request.last_index + 1)\n"
        "        self._matched = max(self._matched, request.last_index)\n", "raft"),
    one("what matched in an earlier term still counts", FOLLOWING,
        "        self._matched = self._me.commit_index\n        self._acknowledged",
        "        self._matched = max(self._matched, self._me.commit_index)\n"
        "        self._acknowledged", "raft"),
    one("the conflict hint is off by one", REPLICATION,
        "peer.probe(self._window_start(found + 1))", "peer.probe(self._window_start(found + 2))",
        "raft"),
    one("messages of earlier terms are believed", RAFT,
        "if message.term == me.term:  # as", "if message.term <= me.term:  # as", "raft"),
    one("an installed snapshot leaves a log that contradicts it", STANDING,
        "if not self.trail.holds(index, term):", "if index > self.trail.last_index:", "raft"),
    Mutant("an older snapshot replaces newer state", (
        (STANDING, "        if index <= self.commit_index:\n            return  # an",
         "        if index < 0:\n            return  # an"),
        (FOLLOWING, "if chunk.index > self._me.commit_index:", "if chunk.index > 0:"),
        ("server/member.py",
         "        if info.index <= self._applier.index:\n", "        if False:\n"),
    ), "raft"),
)  # fmt: skip

READS = (
    one("a read without a round", RAFT,
        "self._reads.begin(self._replication.begin_read_round(), me.commit_index)",
        "self._reads.begin(0, me.commit_index)", "raft"),
    one("a read joins a round under way", REPLICATION,
        "        self._wanted_round = self.begin_round()\n        return self._wanted_round",
        "        self._wanted_round = max(1, self._round)\n        return self._wanted_round",
        "raft"),
    one("a read before the term's first commitment", RAFT,
        "if self._reads.waiting and self.ready_to_serve:", "if self._reads.waiting:", "raft"),
    one("a linearizable read is answered at once", "server/desk.py",
        "if level == Consistency.SERIALIZABLE:", "if level != Consistency.SEQUENTIAL:"),
)  # fmt: skip

LEASE = "raft/leases.py"
LEASES = (
    one("a lease is longer than the promise", LEASE,
        "self._span = options.election_timeout * (1.0 - drift) / (1.0 + drift)",
        "self._span = options.election_timeout * 1.2", "leased"),
    one("a lease does not allow for clocks that drift", LEASE,
        "self._span = options.election_timeout * (1.0 - drift) / (1.0 + drift)",
        "self._span = options.election_timeout", "leased"),
    one("a lease outlives the bid for another leader", RAFT,
        "            self._replication.forsake_lease()\n", "", "leased"),
    one("a promise is forgotten by a restart", STANDING,
        "self.promised_until = now + hard_state.promise_us / 1e6", "self.promised_until = now",
        "leased"),
    Mutant("a promise does not stop a vote", (
        (ELECTION, "free = me.vote is None and (request.bidden or not me.is_bound)",
         "free = me.vote is None"),
        (ELECTION, "if me.role is Role.LEADER or me.is_bound:", "if me.role is Role.LEADER:"),
    ), "leased"),
    one("one promise is enough", REPLICATION,
        "        self._lease.promised(\n", "        self._lease.promised(round_)\n"
        "        self._lease.promised(\n", "leased"),
)  # fmt: skip

MUTANTS = (*VOTES, *QUORUMS, *LOGS, *READS, *LEASES)
