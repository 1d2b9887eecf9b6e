"""Mistakes in what clients rely on: sessions, exactly once, events, locks and log time."""

from __future__ import annotations

from .mutant import Mutant, one

SESSIONS = "server/sessions.py"
APPLIER = "server/applier.py"
DESK = "server/desk.py"
TURNS, SHARES = "resources/turns.py", "resources/shares.py"
LINE = "resources/line.py"
MOVES = ("kill", "transfer", "isolation", "resets", "pause")

REPLICATED = (
    one("sessions are missing from snapshots", APPLIER,
        "[session.image() for session in self.sessions],", "[],",
        faults=("snapshot", "kill", "everybody dies")),
    one("cached results are missing from snapshots", SESSIONS,
        "[list(run) for run in self.results],", "[],", "world"),
    one("results are forgotten before they are acknowledged", SESSIONS,
        "        sequence = min(sequence, self.last_sequence)\n",
        "        sequence = self.last_sequence\n", faults=MOVES),
    Mutant("duplicates are let in and applied again", (
        (DESK, "        if skip and (\n", "        if False and (\n"),
        (DESK, "self._admit(slice_run(payload, 0, skip) if skip else payload)",
         "self._admit(payload)"),
        (APPLIER, "skip = session.last_sequence + 1 - first\n", "skip = 0\n")), "life",
        {"faults": MOVES}),
    one("what an earlier leadership logged counts as logged", DESK,
        "        self._appended.clear()  # what", "        # what", faults=MOVES),
    one("a new leader takes log time from its calendar", "server/leading.py",
        "(last_us or self._wall_us, now)", "(max(last_us, self._wall_us), now)",
        faults=("kill", "transfer", "calendar")),
    one("a new leader counts the time that nobody led against sessions", APPLIER,
        "            self.sessions.touch_all(time_us)\n", "            pass\n",
        faults=("client unheard", "kill", "isolation", "transfer", "client pause"),
        session_s=2.0, stay_s=1e9),
    one("a hole in the sequences is let in", DESK,
        "if first > last + 1 or first == 0:", "if first == 0:",
        faults=("full disk", "slow disk", "clogged"), fault_every=0.3, think_s=0.1,
        value_bytes=150_000, members=3),
    one("sessions expire in half of their time", SESSIONS,
        "return self.seen_us + self.timeout_us", "return self.seen_us + self.timeout_us // 2",
        faults=("isolation", "one way", "clogged", "client pause", "partition")),
    one("a query answers for whatever is applied", DESK,
        "        elif level == Consistency.SEQUENTIAL:\n            index = min_index\n",
        "        elif level == Consistency.SEQUENTIAL:\n            index = 0\n",
        faults=("isolation", "partition", "transfer", "one way", "pause")),
    one("what an ended session acknowledged is dropped for all", SESSIONS,
        "while self.events and self.events[0][0] <= index:", "while self.events:", faults=MOVES),
    one("events are not sent again after a failover", DESK,
        "            if index > last_event:\n", "            if False:\n", faults=MOVES),
)  # fmt: skip

TURN = (
    one("a lock goes to a second holder", TURNS,
        "        return not self.holders\n",
        "        return not self.holders or self.commit.index % 5 == 0\n"),
    one("tokens do not rise", SHARES,
        "self.last_token = max(self.commit.index, self.last_token + 1)",
        "self.last_token = max(1, self.last_token)", faults=("client pause",), roamers=0),
    one("an ended session keeps its lock", SHARES,
        "            del self.holders[claim]\n        if gone",
        "            pass\n        if gone", faults=("client death", "client pause")),
    one("who died stays in line", LINE,
        "            del self.waiting[claim]\n\n    def on_delete",
        "            pass\n\n    def on_delete", faults=("client death", "client pause")),
)  # fmt: skip

CLIENT = (
    one("a client trusts its session for too long", "lifetime.py",
        "self._safe = timeout * SAFE_FRACTION", "self._safe = timeout * 2.0",
        faults=("isolation", "one way", "clogged", "client pause", "partition")),
    one("a session counts from the answer, not from the question", "session.py",
        "        if sent is not None:\n            self.lifetime.confirm(sent)\n",
        "        if sent is not None:\n"
        "            self.lifetime.confirm(self._clock.suspended_too())\n",
        faults=("client unheard",), session_s=2.0, think_s=2.0, stay_s=1e9),
    # Alone it shows next to never: what was lost is sent again right behind the attaching, and its
    # results come first. So here that is late, too: by itself this only costs time.
    Mutant("results that are missing are skipped", (
        ("pipeline.py", "        if skip < 0:\n            return None\n",
         "        if skip < 0:\n            skip = 0\n"),
        ("session.py", "            data += self._commands.resend(self.id)\n",
         "            self._loop.call_later(0.1, self._pause, 0.0)\n")), "life",
        {"faults": ("resets", "transfer", "kill"), "fault_every": 0.5, "think_s": 0.3}),
    one("commands are sent again under new numbers", "pipeline.py",
        "first, size = acknowledged + 1, 0", "first, size = self.sequence + 1, 0", faults=MOVES),
    one("commands in doubt are repeated in the next session", "session.py",
        "        for call in self._commands.restart():\n            fail(\n                call,\n",
        "        for call in self._commands.restart():\n"
        "            self._commands.queued.append(call)\n            continue\n"
        "            fail(\n                call,\n",
        faults=("client unheard",), session_s=2.0, think_s=0.3, fault_every=1.0),
    Mutant("events are delivered again", (
        ("session.py", "if session != self.id or index <= self._event:",
         "if session != self.id:"),
        ("session.py", "        if previous != self._event:\n",
         "        if index > self._event and previous != self._event:\n")), "life",
        {"faults": ("transfer", "clogged"), "fault_every": 0.3, "think_s": 0.1, "clients": 3,
         "members": 3, "stay_s": 1e9}),
)  # fmt: skip

MUTANTS = (*REPLICATED, *TURN, *CLIENT)
