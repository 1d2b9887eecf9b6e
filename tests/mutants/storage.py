"""Mistakes between memory and disk: syncs, their order, recovery, truncation and snapshots."""

from __future__ import annotations

from typing import Any

from .mutant import Mutant, one

STORE = "server/store.py"
LOG = "_core/log.py"
CRASHES = ("crash point", "power cut", "everybody dies", "isolation", "kill")
ROT: dict[str, Any] = {
    "faults": ("bit flip", "lost file", "kill", "power cut", "isolation", "transfer", "partition"),
    "fault_every": 0.4, "value_bytes": 4000,
}  # fmt: skip

MUTANTS = (
    one("entries are not synced", STORE,
        "                for file in write.files:\n                    file.sync()\n", "",
        faults=CRASHES),
    one("the hard state is not synced", "server/hardstate.py",
        "            self._file.pwrite(slot, offset)\n            self._file.sync()\n        self",
        "            self._file.pwrite(slot, offset)\n        self", faults=CRASHES),
    Mutant("truncations come after the new entries", (
        (STORE, "            for truncation in truncations:\n"
         "                self._truncate(truncation)\n            if write",
         "            if write"),
        (STORE, "                for file in write.files:\n                    file.sync()\n",
         "                for file in write.files:\n                    file.sync()\n"
         "            for truncation in truncations:\n"
         "                self._truncate(truncation)\n")), "life",
        {"faults": ("isolation", "partition", "crash point", "kill")}),
    one("a truncation leaves no marker", "_core/segment.py",
        "        (file, at, cut_marker(generation, at)),\n", "", "store"),
    one("a completed write counts after a truncation", LOG,
        "            self._writing.last_index = min(self._writing.last_index, self.last_index)\n",
        "            pass\n", "store"),
    one("what was read from memory is not synced at the start", STORE,
        "            if (segment_id, file) not in repair.segments:\n                file.sync()\n",
        "            pass\n", "store"),
    one("a torn batch is accepted", "_core/kernel.py",
        "        or zlib.crc32(view[at + BATCH_CRC_FROM : at + length]) != crc\n", "",
        faults=("crash point", "power cut", "everybody dies"), fault_every=0.4, think_s=0.3,
        value_bytes=4000),
    one("what stands behind the end is believed after a restart", "_core/recovery.py",
        "    cleaning = _clean_tail(found.segments[-1]) if found.segments else []\n",
        "    cleaning: list[tuple[File, int, bytes]] = []\n", "store"),
    one("who lost entries votes as before", "raft/standing.py",
        "        return self.owes > 0\n", "        return False\n", **ROT),
    one("that entries were lost is not on disk", "server/store.py",
        "        self._hard_state_file.save(self.hard_state)\n        self._aside",
        "        self._aside", **ROT),
    one("a snapshot is published before it is synced", "server/snapshot_file.py",
        "        self.file.sync()\n        return SnapshotInfo(", "        return SnapshotInfo(",
        faults=(*CRASHES, "snapshot")),
    one("the log is cut beyond what is durable", "server/compaction.py",
        "horizon = min(info.index, log_.durable_index)", "horizon = info.index",
        faults=(*CRASHES, "snapshot", "slow disk")),
    one("the log is cut before the snapshot is there", "server/compaction.py",
        "        self._go_on(self._under_way)\n",
        "        self._go_on(self._under_way)\n        self._store.cut_before(index)\n",
        "world"),
    one("a snapshot names a later index than its state", "server/compaction.py",
        "        index = self._applier.index\n        term",
        "        index = self._raft.commit_index\n        term",
        faults=("snapshot",), fault_every=0.1, think_s=0.1, members=3, clients=6),
    one("an installed snapshot is not restored", "server/member.py",
        "        self._applier.restore(state)\n", "", faults=("isolation", "partition", "snapshot"),
        value_bytes=4000, snapshot_bytes=64 << 10),
    one("a snapshot does not change the members", "server/member.py",
        "        placed = newer(self._administration.rosters.base, info.configuration)\n",
        "        placed = self._administration.rosters.base\n"),
    one("an installed snapshot drops what follows it", "raft/raft.py",
        "return index > me.commit_index and not me.trail.holds(index, term)",
        "return index > me.commit_index", "raft"),
    one("entries are applied before they are committed", "server/member.py",
        "        commit = self._raft.commit_index\n        if applier",
        "        commit = self._raft.last_index\n        if applier"),
)  # fmt: skip
