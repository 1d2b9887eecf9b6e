"""Paths: one normal form for everybody, so that no two spellings name one thing twice.

``/a/b``: a leading slash, no trailing one, no empty segment, no ``.`` or ``..``, Unicode in NFC, no
control characters, at most `DEPTH_MAX` segments and `BYTES_MAX` bytes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from .errors import ConfigurationError

DEPTH_MAX = 64
BYTES_MAX = 1024


def normal_path(path: str) -> str:
    """The normal form of ``path``; raises `ConfigurationError` if it cannot have one (H96)."""
    if not isinstance(path, str):
        raise ConfigurationError(f"a path is a string, not {type(path).__name__}")
    segments = [segment for segment in unicodedata.normalize("NFC", path).split("/") if segment]
    normal = "/" + "/".join(segments)
    if len(segments) > DEPTH_MAX:
        raise ConfigurationError(f"the path has {len(segments)} segments, {DEPTH_MAX} are allowed")
    if len(normal.encode("utf-8", "surrogatepass")) > BYTES_MAX:
        raise ConfigurationError(f"the path is longer than {BYTES_MAX} bytes")
    for segment in segments:
        if segment in (".", ".."):
            raise ConfigurationError(f"the path {normal!r} contains {segment!r}")
    for character in normal:
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise ConfigurationError(f"the path {normal!r} contains a control character")
    return normal


def ancestors(path: str) -> Iterator[tuple[str, str]]:
    """(parent, child) pairs from the root down to the normal ``path``."""
    parent = "/"
    for segment in path.split("/")[1:]:
        if segment:
            child = f"{parent}{segment}" if parent == "/" else f"{parent}/{segment}"
            yield parent, child
            parent = child
