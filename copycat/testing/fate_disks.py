"""Fate's hand in disks that lie: bits rot in synced data, reads fail, files and directories vanish.

Only what a cluster must survive: a majority keeps sound copies without the damaged member. That one
has to go on without what was damaged until the others gave it that again, or to stop; both with an
error that names the file, which is checked here. When it stops, its operator restores the disk from
a copy, bit by bit as it was written, and starts it again.

What no member can notice by itself is left alone: rot in the last group of its log is a torn tail
to it, and so is a last segment that is gone (H57). A bit is flipped in a frame only if a later one,
which is committed and so cannot be truncated, says that the former had been durable. A read that
fails in a mapped segment is a signal from the operating system and not simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from .._core.kernel import scan_frames
from .._core.layout import (
    BATCH_HEADER,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    SEGMENT_DATA_OFFSET,
    SEGMENT_HEADER,
    SEGMENT_MAGIC,
)
from ..errors import ConfigurationError, CorruptLogError, MembershipError, StorageError
from ..server import aside, hardstate, identity, snapshots
from ..server.store import DIRECTORY as LOG
from .checkers import CheckFailed
from .medium import SECTOR_BYTES, Content, Medium

if TYPE_CHECKING:
    from .hosting import Host, Hosting

READ_ERRORS_S = 3.0
"""Mean time for which reads of a disk may fail, in seconds."""
Place = tuple[str, int, int]
"""A file, and the range of bytes in which a flipped bit must be noticed or do no harm."""


@dataclass(slots=True, eq=False)
class _Damage:
    """What was done to one disk and is not undone; ``medium`` tells whether it is still there."""

    medium: Medium
    lost: dict[str, Content] = field(default_factory=dict)
    directory: Medium | None = None  # what there was before the whole directory was gone
    noticed: bool = False  # the member has stopped, and said why
    rotten: dict[str, list[int]] = field(default_factory=dict)  # when the member was started
    borne: bool = False  # it goes on without, and has the others to give it that again


class DisksFate:
    """Damages disks of one cluster.

    Args:
        hosting: the cluster.
        count: called with the name of what happened, when it happens later than it was asked for.
    """

    def __init__(self, hosting: Hosting, count: Callable[[str], None]) -> None:
        self.acts: dict[str, Callable[[], bool]] = {
            "bit flip": self._flip,
            "read error": self._read_error,
            "lost file": self._lose_file,
            "lost directory": self._lose_directory,
        }
        self._hosting = hosting
        self._random = hosting.random
        self._count = count
        self._damaged: dict[str, _Damage] = {}
        hosting.started = self.started
        self._unreadable: set[str] = set()  # disks whose reads have failed at times

    # -- the operator --------------------------------------------------------------------------

    def restore(self, host: Host, *, always: bool = False) -> None:
        """A member is about to start: if it had complained, its disk is as it was written."""
        host.disk.rates.pop("pread", None)
        damage = self._damaged.get(host.name)
        if damage is None:
            return
        damage.rotten = damage.medium.rotten()
        if not (damage.noticed or always):
            return
        if damage.borne:  # what is gone from its log only the others can give back
            damage.noticed = False
        else:
            del self._damaged[host.name]
            host.is_damaged = False
        if damage.directory is not None and host.disk.medium is damage.medium:
            host.disk.medium = damage.directory
        elif host.disk.medium is damage.medium:
            for name, content in damage.lost.items():
                damage.medium.regain(name, content)
            damage.lost.clear()
            for content in damage.medium.names.values():
                content.restore()
        self._hosting.timeline.trace(f"fate: the disk of {host.name} is restored")

    def end(self) -> None:
        """No more of it; whoever has not recovered from a damaged disk yet starts over."""
        for host in self._hosting.hosts.values():
            if self._damage(host) is not None and host.is_up and host.running is None:
                self._hosting.kill(host, power=False)
            self.restore(host, always=True)

    def excuses(self, host: Host, error: BaseException | None) -> bool:
        """Whether a member may stop because of what was done to its disk; the error must be clear.

        Raises `CheckFailed` if it does not say which file it is about.
        """
        damage = self._damage(host)
        if damage is not None and damage.directory is not None:
            kinds = (MembershipError, ConfigurationError, StorageError)
            damage.noticed = isinstance(error, kinds)
            return damage.noticed
        if not isinstance(error, StorageError):
            return False
        if host.name in self._unreadable and "pread of" in str(error):
            self._count("stopped by a read error")
            return True
        if damage is None:
            return False
        rotten = damage.medium.rotten()
        if not (damage.lost or isinstance(error, CorruptLogError)):
            return False
        damage.noticed = True
        if not damage.lost and not _is_clear(error, rotten):
            where = {name: offsets[:5] for name, offsets in rotten.items()}
            raise CheckFailed("clear errors", f"{host.name} stops with {error!r}; rotten: {where}")
        self._count("stopped by damage")
        return True

    # -- who may be damaged --------------------------------------------------------------------

    def _damage(self, host: Host) -> _Damage | None:
        damage = self._damaged.get(host.name)
        if damage is not None and host.disk.medium is not damage.medium:
            del self._damaged[host.name]  # the machine has another disk by now
            return None
        if damage is not None and damage.borne and _has_healed(host, damage):
            del self._damaged[host.name]
            host.is_damaged = False
            self._count("healed")
            return None
        return damage

    def started(self, host: Host) -> None:
        """A member has read its disk: if it goes on without a part, that part is history."""
        damage = self._damage(host)
        store = host.running.member._store if host.running and host.running.member else None
        if damage is None or store is None or store.damage is None:
            return
        if not damage.lost and not _is_clear(store.damage, damage.rotten):
            where = {name: offsets[:5] for name, offsets in damage.rotten.items()}
            raise CheckFailed("clear errors", f"{host.name}: {store.damage!r}; rotten: {where}")
        for name in [name for name in damage.lost if name.startswith(f"{LOG}/")]:
            del damage.lost[name]
        damage.borne = True
        self._count("goes on without what was damaged")

    def _victim(self) -> tuple[Host, _Damage] | None:
        """A member without which the cluster has a sound majority; often the one damaged before."""
        hosting = self._hosting
        if hosting.watch.members.committed is None:
            return None
        able = [
            host
            for host in hosting.hosts.values()
            if host.uuid and not (host.is_out or host.is_doomed) and hosting.can_lose(host)
        ]
        if not able:
            return None
        host = self._random.choice(able)
        damage = self._damage(host) or _Damage(host.disk.medium)
        return None if damage.directory is not None else (host, damage)

    def _done(self, host: Host, damage: _Damage, what: str) -> None:
        self._damaged[host.name] = damage
        host.is_damaged = True
        self._hosting.timeline.trace(f"fate: {host.name}: {what}")

    def _restart(self, host: Host) -> None:
        """Now and then it dies, and sees at its start what has become of its disk."""
        if host.is_up and self._random.random() < 0.6:
            self._hosting.kill(host, power=self._random.random() < 0.5)

    # -- bits ----------------------------------------------------------------------------------

    def _flip(self) -> bool:
        victim = self._victim()
        if victim is None:
            return False
        host, damage = victim
        places = self._places(host, damage.medium)
        if not places:
            return False
        flipped = ""
        for path, begin, end in places:
            content = damage.medium.names[path]
            offset = self._random.randrange(begin, max(begin + 1, end))
            if offset < content.synced_size and _is_clean(content, offset):
                bit = self._random.randrange(8)
                content.flip(offset, bit)
                flipped += f" {path}@{offset}.{bit}"
        if flipped:
            self._done(host, damage, f"bits rot:{flipped}")
            self._restart(host)
        return bool(flipped)

    def _places(self, host: Host, medium: Medium) -> list[Place]:
        """Ranges of which each shall get a flipped bit: one, or both slots of the hard state."""
        names, random = medium.durable_names(), self._random
        kind = random.choice(("log", "log", "log", "snapshot", "snapshot", "votes", "identity"))
        if kind == "log":
            frames = self._proven(medium)
            headers = [place for place in frames if place[1] == 0]
            wanted = headers if headers and random.random() < 0.2 else frames
            return [random.choice(wanted)] if wanted else []
        if kind == "votes" and hardstate.NAME in names:
            slots = [
                (hardstate.NAME, offset, offset + hardstate.SLOT_SIZE)
                for offset in hardstate.SLOT_OFFSETS
            ]
            return slots if random.random() < 0.5 else [random.choice(slots)]
        if kind == "snapshot":
            prefix = f"{snapshots.DIRECTORY}/"
            found = [n for n in names if n.startswith(prefix) and n.endswith(".snap")]
        else:
            found = [name for name in names if name == identity.NAME]
        return [(name, 0, len(medium.names[name].data)) for name in found[-1:]]

    def _proven(self, medium: Medium, *, elsewhere: bool = False) -> list[Place]:
        """The frames and headers of a log whose damage the member can tell from a torn tail.

        With ``elsewhere`` only those that are proven by a frame in another file.
        """
        committed = self._hosting.watch._committed
        places: list[tuple[int, Place]] = []  # with the index that would be missing
        proof = (0, 0, "")  # what the last committed frame says was durable; its index, its file
        first = _snapshot_index(medium) + 1  # what a log without its first header has to begin with
        for path, data, frames in _segments(medium):
            base_index = max(SEGMENT_HEADER.unpack_from(data)[5], first)
            first = 0
            places.append((base_index, (path, 0, SEGMENT_HEADER.size + 4)))
            for base, at in frames:
                _, checksum, length, _, _, term, _, _, _ = BATCH_HEADER.unpack_from(
                    data, at + FRAME_HEADER_SIZE
                )
                places.append((base, (path, at, at + FRAME_HEADER_SIZE + length)))
                if committed.get(base) == (term, checksum):
                    proof = FRAME_HEADER.unpack_from(data, at)[4], base, path
        durable, index, where = proof
        return [
            place
            for missing, place in places
            if missing <= durable and missing < index and not (elsewhere and place[0] == where)
        ]

    # -- reads ---------------------------------------------------------------------------------

    def _read_error(self) -> bool:
        """For a while some reads of a disk fail, also those of a member that starts."""
        hosting = self._hosting
        hosts = [host for host in hosting.hosts.values() if host.uuid and not host.is_out]
        if not hosts:
            return False
        host = self._random.choice(hosts)
        if host.is_doomed or host.is_away:
            return False
        self._unreadable.add(host.name)
        host.disk.rates["pread"] = self._random.choice((0.1, 0.5))
        delay = self._random.expovariate(1 / READ_ERRORS_S)
        hosting.timeline.after(delay, lambda: host.disk.rates.pop("pread", None))
        if host.is_up and self._random.random() < 0.5:
            hosting.kill(host, power=False)
            hosting.start(host)
        hosting.timeline.trace(f"fate: {host.name} cannot read everything")
        return True

    # -- files ---------------------------------------------------------------------------------

    def _lose_file(self) -> bool:
        """A file is not there any more when the member starts."""
        victim = self._victim()
        if victim is None:
            return False
        host, damage = victim
        names = damage.medium.durable_names()
        found = [name for name in (identity.NAME, hardstate.NAME) if name in names]
        needless = _needless(damage.medium)
        found += [
            path
            for path, begin, _ in self._proven(damage.medium, elsewhere=True)
            if begin == 0 and path in names and path not in needless
        ]
        if not found:
            return False
        if host.is_up:
            self._hosting.kill(host, power=self._random.random() < 0.5)
        name = self._random.choice(found)
        if name not in damage.medium.durable_names():
            return True  # it was only killed
        damage.lost[name] = damage.medium.lose(name)
        self._done(host, damage, f"{name} is lost")
        return True

    def _lose_directory(self) -> bool:
        """A founding member starts with an empty directory, until its real one is found again."""
        victim = self._victim()
        if victim is None:
            return False
        host, damage = victim
        if host.joins or damage.borne or damage.lost or damage.medium.rotten():
            return False
        if len(self._hosting.founders) == 1:
            return False  # nobody else is listed who could tell it that there is a cluster
        if host.is_up:
            self._hosting.kill(host, power=self._random.random() < 0.5)
        damage.directory = damage.medium
        damage.medium = host.disk.medium = Medium(damage.medium.capacity_bytes)
        self._done(host, damage, "its directory is gone")
        return True


def _has_healed(host: Host, damage: _Damage) -> bool:
    """Whether it has everything again, and nothing else on its disk is damaged."""
    member = None if host.running is None else host.running.member
    if member is None or member._store.hard_state.owes or damage.lost:
        return False
    return all(name.startswith(f"{aside.DIRECTORY}/") for name in damage.medium.rotten())


def _is_clean(content: Content, offset: int) -> bool:
    sector = offset // SECTOR_BYTES
    return sector not in content.dirty and sector not in content.lost


def _segments(medium: Medium) -> list[tuple[str, bytes, list[tuple[int, int]]]]:
    """The segments of a log as far as they chain: path, content, (base index, offset) of frames."""
    found = []
    following = None  # (next index, checksum of the last image)
    for path in sorted(medium.names):
        data = bytes(medium.names[path].data)
        if not path.startswith(f"{LOG}/") or data[:8] != SEGMENT_MAGIC:
            continue
        header = SEGMENT_HEADER.unpack_from(data)
        generation, base_index, crc = header[4], header[5], header[7]
        if following is not None and following != (base_index, crc):
            break
        _, _, crc, next_index, _, frames, _, _ = scan_frames(
            data, SEGMENT_DATA_OFFSET, len(data), generation, crc, base_index, 1
        )
        following = next_index, crc
        found.append((path, data, frames))
    return found


def _snapshot_index(medium: Medium) -> int:
    """Of the newest snapshot; 0 if there is none."""
    prefix = f"{snapshots.DIRECTORY}/"
    found = [
        name
        for name in medium.durable_names()
        if name.startswith(prefix) and name.endswith(".snap")
    ]
    return max((int(name.removeprefix(prefix).split("-")[0]) for name in found), default=0)


def _needless(medium: Medium) -> set[str]:
    """The segments that a snapshot stands for: nobody misses them."""
    index, chain = _snapshot_index(medium), _segments(medium)
    return {
        path
        for (path, _, _), (_, data, _) in pairwise(chain)
        if SEGMENT_HEADER.unpack_from(data)[5] - 1 <= index
    }


def _is_clear(error: StorageError, rotten: dict[str, list[int]]) -> bool:
    """Whether it names a rotten file, and in a segment a place that is not behind the rot."""
    named = [name for name in rotten if name in str(error)]
    if not isinstance(error, CorruptLogError) or not named:
        return False
    return error.segment in named and any(
        at >= error.offset for name in named for at in rotten[name]
    )
