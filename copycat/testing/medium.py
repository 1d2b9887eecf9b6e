"""What a data directory holds, in memory and on the platter: contents by sector, names in order.

The two differ by what was not synced: sectors of 512 bytes, and the changes of each directory in
their order. A power cut lets chance decide about both. Nothing here knows processes, handles,
injected errors or time: `device` does. For the simulator's disk only.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DiskFullError, MisuseError, StorageError
from ..ports import Random

SECTOR_BYTES = 512
ODDS = (0.0, 0.1, 0.5, 0.9, 1.0)
"""How probable it is that something unsynced survives; drawn anew for every power cut."""


@dataclass(frozen=True, slots=True)
class BitFlip:
    """Which bit of which byte of which file was flipped."""

    path: str
    offset: int
    bit: int


class Content:
    """A file's bytes, apart from its names."""

    __slots__ = ("data", "dirty", "handles", "lost", "rot", "synced_size")

    def __init__(self) -> None:
        self.data = bytearray()  # what readers see: the page cache
        self.synced_size = 0
        # Sector -> what the platter has, then all that was written over it since, except the last:
        # the kernel may have begun to write any of them back.
        self.dirty: dict[int, list[bytes]] = {}
        # Sector -> what the platter has, although its page counts as clean: its sync failed.
        self.lost: dict[int, bytes] = {}
        self.rot: dict[int, int] = {}  # offset -> which bits of that byte are not as written
        self.handles = 0

    def write(self, data: bytes, offset: int) -> None:
        """Change what readers see."""
        end = offset + len(data)
        if self.rot:
            self.restore(offset, end)  # a sector that is written anew is sound, old or new
        for sector in range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
            if sector in self.dirty:
                self.dirty[sector].append(self._sector(sector))
            else:
                before = self.lost.pop(sector, None)
                self.dirty[sector] = [self._sector(sector) if before is None else before]
        self.grow(end)
        self.data[offset:end] = data

    def grow(self, size: int) -> None:
        """Zeros up to ``size``, if it is longer than the file."""
        if size > len(self.data):
            # A bytearray with views cannot grow in place; whoever holds a view keeps the old one.
            grown = bytearray(size)
            grown[: len(self.data)] = self.data
            self.data = grown

    def sync(self, random: Random, fraction: float = 1.0) -> None:
        """Put what is dirty on the platter; below 1.0, about that part of it."""
        if fraction == 1.0:
            self.dirty.clear()
            self.synced_size = len(self.data)
        for sector in sorted(self.dirty):
            if random.random() < fraction:
                self._settle(sector)

    def fail_sync(self, random: Random) -> None:
        """A sync that failed: some of it is on the platter, the rest counts as clean and is not."""
        odds = random.choice(ODDS)
        for sector in sorted(self.dirty):
            if random.random() < odds:
                self._settle(sector)
            else:
                self.lost[sector] = self.dirty.pop(sector)[0]

    def evict(self, random: Random) -> None:
        """Clean pages leave the cache as they please: the next reader sees what the platter has."""
        odds = random.choice(ODDS)
        for sector in sorted(self.lost):
            if random.random() < odds:
                self._put(sector, self.lost.pop(sector))

    def power_cut(self, random: Random, odds: float) -> None:
        """Keep what the platter has, and of what was on its way each sector with these odds."""
        self.data, wanted = bytearray(self.data), len(self.data)  # views keep the past
        size = self.synced_size
        for sector, before in sorted(self.lost.items()):
            self._put(sector, before)
        for sector, (platter, *later) in sorted(self.dirty.items()):
            newest = self._sector(sector)
            survivor = next((v for v in (newest, *later[::-1]) if random.random() < odds), None)
            self._put(sector, platter if survivor is None else survivor)
            if survivor is not None:
                size = max(size, sector * SECTOR_BYTES + len(survivor))
        if random.random() < odds:
            size = wanted
        del self.data[size:]
        self.dirty.clear()
        self.lost.clear()
        self.synced_size = len(self.data)

    def flip(self, offset: int, bit: int) -> None:
        """One bit is not what was written any more, on the platter and for every reader."""
        self.data[offset] ^= 1 << bit
        self.rot[offset] = self.rot.get(offset, 0) ^ 1 << bit
        if not self.rot[offset]:
            del self.rot[offset]

    def restore(self, begin: int = 0, end: int = 1 << 62) -> None:
        """Put back what `flip` has changed."""
        for offset in [each for each in self.rot if begin <= each < end]:
            bits = self.rot.pop(offset)
            if offset < len(self.data):
                self.data[offset] ^= bits

    def clean_sectors(self) -> list[int]:
        """The sectors that hold synced data other than zeros."""
        return [
            sector
            for sector in range(-(-self.synced_size // SECTOR_BYTES))
            if sector not in self.dirty and sector not in self.lost and any(self._sector(sector))
        ]

    def _sector(self, sector: int) -> bytes:
        return bytes(self.data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])

    def _put(self, sector: int, data: bytes) -> None:
        begin = sector * SECTOR_BYTES
        end = min(begin + SECTOR_BYTES, len(self.data))
        self.data[begin:end] = data.ljust(SECTOR_BYTES, b"\0")[: max(0, end - begin)]

    def _settle(self, sector: int) -> None:
        del self.dirty[sector]
        end = min((sector + 1) * SECTOR_BYTES, len(self.data))
        self.synced_size = max(self.synced_size, end)


Change = tuple[tuple[str, Content | None], ...]
"""Names that change in one step, with what they mean from then on."""


class Medium:
    """Names and contents. ``capacity_bytes`` bounds the lengths of all files together."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.names: dict[str, Content] = {}
        self.directories: dict[str, None] = {}
        self._platter: dict[str, Content] = {}
        self._changes: dict[str, list[Change]] = {}  # directory -> what was not synced, in order
        self._orphans: list[Content] = []  # unlinked, and still open

    # -- names ---------------------------------------------------------------------------------

    def find(self, name: str) -> Content:
        """The content of that name; raises `StorageError` if there is none."""
        content = self.names.get(name)
        if content is None:
            raise StorageError(f"{name}: no such file") from FileNotFoundError(name)
        return content

    def create(self, name: str) -> None:
        """A new, empty file."""
        self._change(name, ((name, Content()),))

    def rename(self, old: str, new: str) -> None:
        """One step, within a directory."""
        if old.rpartition("/")[0] != new.rpartition("/")[0]:
            raise MisuseError(f"{old} and {new} are in different directories")
        self._change(old, ((old, None), (new, self.find(old))))

    def unlink(self, name: str) -> None:
        """Remove a name; whoever has the file open keeps its content."""
        self._change(name, ((name, None),))

    def sync_directory(self, name: str, random: Random, fraction: float = 1.0) -> None:
        """Make the changes within a directory durable; below 1.0, a first part of them."""
        changes = self._changes.pop(name, [])
        count = len(changes) if fraction == 1.0 else random.randint(0, len(changes))
        for change in changes[:count]:
            _apply(change, self._platter)
        if changes[count:]:
            self._changes[name] = changes[count:]

    def _change(self, name: str, change: Change) -> None:
        before = [self.names[each] for each, _ in change if each in self.names]
        _apply(change, self.names)
        kept = [content for _, content in change]
        self._orphans += [each for each in before if each.handles and each not in kept]
        self._changes.setdefault(name.rpartition("/")[0], []).append(change)

    # -- space ---------------------------------------------------------------------------------

    @property
    def free_bytes(self) -> int:
        """What is left of the capacity."""
        used = sum(len(content.data) for content in (*self.names.values(), *self._orphans))
        return max(0, self.capacity_bytes - used)

    def reserve(self, content: Content, size: int) -> None:
        """Raise `DiskFullError` if ``content`` cannot become that long."""
        more = size - len(content.data)
        if more > 0 and more > self.free_bytes:
            raise DiskFullError(f"no space for {more} bytes, {self.free_bytes} are free")

    def closed(self, content: Content) -> None:
        """One handle less."""
        content.handles -= 1
        if not content.handles and content in self._orphans:
            self._orphans.remove(content)

    # -- what ends a life ----------------------------------------------------------------------

    def power_cut(self, random: Random) -> None:
        """Of what was not synced, a random part survives: sectors one by one, and of each
        directory's changes the first ones."""
        data_odds, name_odds = random.choice(ODDS), random.choice(ODDS)
        for name in sorted(self._changes):
            for change in self._changes[name]:
                if random.random() >= name_odds:
                    break
                _apply(change, self._platter)
        self._changes.clear()
        self.names = dict(self._platter)
        self._forget_handles()
        for name in sorted(self.names):
            self.names[name].power_cut(random, data_odds)

    def kill(self, random: Random) -> None:
        """The page cache survives, except what a failed sync left in it as if it were clean."""
        self._forget_handles()
        for name in sorted(self.names):
            self.names[name].evict(random)

    def _forget_handles(self) -> None:
        self._orphans.clear()
        for content in self.names.values():
            content.handles = 0

    def flip_bit(self, random: Random, path: str | None) -> BitFlip | None:
        """Flip a bit of synced data, zeros aside; None if there is no such data."""
        paths = sorted(self._platter.keys() & self.names.keys()) if path is None else [path]
        candidates = [each for each in paths if self.find(each).clean_sectors()]
        if not candidates:
            return None
        chosen = random.choice(candidates)
        content = self.names[chosen]
        begin = random.choice(content.clean_sectors()) * SECTOR_BYTES
        offset = begin + random.randrange(min(SECTOR_BYTES, len(content.data) - begin))
        bit = random.randrange(8)
        content.flip(offset, bit)
        return BitFlip(chosen, offset, bit)

    def rotten(self) -> dict[str, list[int]]:
        """The files with flipped bits, and where."""
        return {
            name: sorted(content.rot) for name, content in sorted(self.names.items()) if content.rot
        }

    def lose(self, name: str) -> Content:
        """A name is gone, as if it had never been made; whoever has the file open keeps it."""
        content = self.find(name)
        del self.names[name], self._platter[name]
        return content

    def regain(self, name: str, content: Content) -> None:
        """What was lost is back, unless there is something else by now."""
        if name not in self.names:
            self.names[name] = self._platter[name] = content

    def durable_names(self) -> list[str]:
        """The names that are on the platter and mean there what they mean for readers."""
        return [
            name
            for name, content in sorted(self.names.items())
            if self._platter.get(name) is content
        ]


def _apply(change: Change, names: dict[str, Content]) -> None:
    for name, content in change:
        if content is None:
            names.pop(name, None)
        else:
            names[name] = content
