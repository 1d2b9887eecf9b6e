"""What a member tells about itself: the numbers behind ``copycat status``. It changes nothing."""

from __future__ import annotations

from collections.abc import Set

from ..raft import Raft
from .applier import Applier
from .store import Store


def status_of(
    name: str, raft: Raft, store: Store, applier: Applier, peers_up: Set[str]
) -> dict[str, object]:
    """Where a member stands: plain values, by name."""
    log_ = store.log
    return {
        "name": name,
        "role": raft.role.value,
        "abstains": raft.abstains,
        "term": raft.term,
        "leader": raft.leader,
        "commit_index": raft.commit_index,
        "applied_index": applier.index,
        "last_index": log_.last_index,
        "durable_index": log_.durable_index,
        "first_index": log_.base_index + 1,
        "snapshot_index": store.snapshot.index if store.snapshot else 0,
        "differences": [[what, index] for what, index in applier.agreement.differences.items()],
        "sessions": len(applier.sessions),
        "peers_up": sorted(peers_up),
        "voters": list(raft.membership.voters),
        "learners": list(raft.membership.learners),
        "progress": [
            [peer.name, peer.match_index, peer.state.value] for peer in raft.progress_of()
        ],
    }
