"""Who a data directory is: its member, that member's incarnation, and the cluster it belongs to.

The ``identity`` file is written when a directory is first used (a fresh uuid, no cluster yet) and
once more when the cluster is founded or joined; it never changes afterwards. Whoever lost the file
is another incarnation and must not pose as the old one (H32, H33). Knows nothing of how a cluster
is founded.

File, little-endian::

     0   8 magic b"CCIDENT1"
     8   4 crc32 of bytes [12, 16 + length)
    12   4 length of the body
    16   - msgpack map: name, uuid, cluster, founders {name: [address, uuid]}, and of who joined a
          running cluster: joined [index, configuration as in layout.py]
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .._core.kernel import crc32
from .._core.layout import FormatError
from ..config import parse_address
from ..errors import ConfigurationError, CorruptLogError, StorageError, WrongClusterError
from ..handshake import Fields, pack_msgpack
from ..ports import Disk, Random
from ..types import Address
from .hardstate import HardStateFile, peek
from .roster import PlacedRoster, Roster

NAME = "identity"
TEMPORARY = "identity.tmp"
NO_CLUSTER = bytes(16)
HISTORY = ("log", "snapshots")
"""Directories that hold something only if the member has taken part in a cluster."""

_MAGIC = b"CCIDENT1"
_HEAD = struct.Struct("<8sII")
_CRC_FROM = 12
_SIZE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """One incarnation of one member; ``founders`` is empty until the cluster is founded."""

    name: str
    uuid: bytes
    cluster: bytes = NO_CLUSTER
    founders: Mapping[str, tuple[Address, bytes]] = field(default_factory=dict)
    joined: PlacedRoster | None = None  # what it was told if it joined a running cluster

    @property
    def told(self) -> PlacedRoster:
        """Who takes part, as this member was told when it became one, and at which index."""
        return self.joined or (0, Roster.founded(self.founders))

    @property
    def founded(self) -> bool:
        """Whether this directory belongs to a cluster."""
        return self.cluster != NO_CLUSTER


def load_identity(
    disk: Disk, name: str, members: Iterable[str] | None, random: Random
) -> Identity:
    """This directory's identity; a fresh one, saved, if the directory is empty. Blocks.

    ``members`` are those that the cluster was founded with, None if that is of no concern.

    Raises:
        WrongClusterError: the directory is another member's, or another cluster's.
        CorruptLogError: the file is damaged, or the votes that belong to it cannot be read.
        StorageError: a log is there without an identity, or the other way round.
    """
    identity = _read(disk)
    if identity is not None:
        _settle(disk)
    if identity is None:
        _refuse_history(disk)
        identity = Identity(name, random.randbytes(16))
        save_identity(disk, identity)
        return identity
    if identity.name != name:
        raise WrongClusterError(
            f"{_path(disk)} is the data directory of member {identity.name!r}, not of {name!r}",
            hint="nothing was changed; every member needs a data directory of its own",
        )
    if not identity.founded:
        _refuse_history(disk)
        return identity
    wanted = None if members is None or identity.joined is not None else sorted(members)
    if wanted is not None and sorted(identity.founders) != wanted:
        raise WrongClusterError(
            f"{_path(disk)} belongs to cluster {identity.cluster.hex()[:8]} with the members "
            f"{', '.join(sorted(identity.founders))}; the configuration lists {', '.join(wanted)}",
            hint="nothing was changed; use the members it was founded with, or another directory",
        )
    HardStateFile(disk).close()
    return identity


def save_identity(disk: Disk, identity: Identity) -> None:
    """Make ``identity`` durable, replacing an older one in one step. Blocks.

    A first hard state, without a vote, is durable before: a founded directory in which none can be
    read is damaged, however it came to that.
    """
    if identity.founded:
        HardStateFile.found(disk).close()
    founders = {name: [str(address), uuid] for name, (address, uuid) in identity.founders.items()}
    told = identity.joined
    body = pack_msgpack(
        {
            "name": identity.name,
            "uuid": identity.uuid,
            "cluster": identity.cluster,
            "founders": founders,
            "joined": None if told is None else [told[0], told[1].encode()],
        }
    )
    rest = len(body).to_bytes(4, "little") + body
    if disk.exists(TEMPORARY):
        disk.unlink(TEMPORARY)
    file = disk.open(TEMPORARY, create=True)
    try:
        file.pwrite(_MAGIC + crc32(rest).to_bytes(4, "little") + rest, 0)
        file.sync()
    finally:
        file.close()
    disk.rename(TEMPORARY, NAME)
    disk.sync_directory("")


def parse_founders(fields: Fields, name: str) -> dict[str, tuple[Address, bytes]]:
    """A map {name: [address, uuid]} out of a msgpack map; raises `FormatError`."""
    map_ = fields.raw(name)
    if not isinstance(map_, dict):
        raise FormatError("founders is not a map")
    founders = {}
    for member, pair in map_.items():
        if not (isinstance(member, str) and isinstance(pair, list) and len(pair) == 2):
            raise FormatError("a founder is not described by an address and a uuid")
        address, uuid = pair
        if not (isinstance(address, str) and isinstance(uuid, bytes) and len(uuid) == 16):
            raise FormatError("a founder is not described by an address and a uuid")
        try:
            founders[member] = (parse_address(address), uuid)
        except ConfigurationError as problem:
            raise FormatError(f"a founder's address is none: {address!r}") from problem
    return founders


def _read(disk: Disk) -> Identity | None:
    if not disk.exists(NAME):
        return None
    file = disk.open(NAME)
    try:
        path = file.path
        data = file.pread(min(file.size(), _SIZE_LIMIT), 0)
    finally:
        file.close()
    try:
        if len(data) < _HEAD.size:
            raise FormatError("it is too short")
        magic, crc, length = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise FormatError(f"it begins with {magic!r}: damaged, or of another version")
        if len(data) < _HEAD.size + length or crc32(data[_CRC_FROM : _HEAD.size + length]) != crc:
            raise FormatError("its checksum does not match")
        fields = Fields(data[_HEAD.size : _HEAD.size + length])
        name, uuid, cluster = fields.text("name"), fields.id("uuid"), fields.id("cluster")
        founders = parse_founders(fields, "founders")
        joined = _joined(fields.raw("joined"))
    except FormatError as problem:
        raise CorruptLogError(
            f"{path} cannot be read: {problem}",
            segment=path,
            hint="restore it from a backup of this very directory, or remove the whole directory",
        ) from problem
    return Identity(name, uuid, cluster, founders, joined)


def _joined(value: object) -> PlacedRoster | None:
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2):
        raise FormatError("what a joined member was told is an index and a configuration")
    index, encoded = value
    if not (isinstance(index, int) and isinstance(encoded, bytes)):
        raise FormatError("what a joined member was told is an index and a configuration")
    return index, Roster.decode(encoded)


def _settle(disk: Disk) -> None:
    """Make durable what was read: a killed process may have written it and not synced it yet."""
    file = disk.open(NAME)
    try:
        file.sync()
    finally:
        file.close()
    disk.sync_directory("")


def _refuse_history(disk: Disk) -> None:
    """A directory that counts as empty must not hold what a member once promised."""
    for directory in HISTORY:
        if disk.exists(directory) and disk.listdir(directory):
            raise StorageError(
                f"{_path(disk)} holds a {directory} directory, but no identity of a cluster: "
                "what is in it cannot be trusted",
                hint="restore the identity file, or remove the whole data directory",
            )
    state = peek(disk)
    if state is not None and state.term:
        raise StorageError(
            f"{_path(disk)} holds the votes of a member, but no identity of a cluster",
            hint="restore the identity file, or remove the whole data directory",
        )


def _path(disk: Disk) -> str:
    return str(getattr(disk, "root", "the data directory"))
