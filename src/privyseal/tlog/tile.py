# SPDX-License-Identifier: Apache-2.0
"""Tiles and entry bundles of a log: coordinates, resource paths and bundle encoding (C2SP tlog-tiles).

Paths here have no leading slash and no log prefix: `tile/0/x001/x234/067` or `tile/entries/000.p/17`.
"""

import re
from dataclasses import dataclass
from typing import Final

from privyseal.errors import MalformedInputError
from privyseal.tlog.tree import HASH_BYTES, MAX_TREE_SIZE, TILE_HEIGHT

__all__ = [
    "MAX_ENTRY_BYTES",
    "TILE_WIDTH",
    "EntryBundle",
    "Tile",
    "decode_bundle",
    "encode_bundle",
    "parse_path",
    "tile_at",
]

TILE_WIDTH: Final = 1 << TILE_HEIGHT

#: An entry's length is a uint16 in its bundle.
MAX_ENTRY_BYTES: Final = 0xFFFF

#: Levels 0 to 63 can be written; level 7 is the last that a tree below 2^63 leaves reaches.
MAX_LEVEL: Final = 63

_PATH: Final = re.compile(
    r"tile/(?P<level>0|[1-9][0-9]?|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)
_MAX_PATH_CHARS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Coordinates of a tile of hashes.

    Attributes:
        level: 0 for leaf hashes; each hash of level L+1 is the root over a full tile of level L.
        index: Number of the tile within its level.
        width: Hashes in it: 256 for a full tile, less for a partial one at the right edge.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not 0 <= self.level <= MAX_LEVEL:
            raise MalformedInputError("tile.malformed", f"tile level {self.level} is not in 0..{MAX_LEVEL}")
        _check_place(self.index, self.width)

    @property
    def path(self) -> str:
        """Its resource path."""
        return f"tile/{self.level}/{_index_path(self.index)}{_width_path(self.width)}"

    @property
    def size_bytes(self) -> int:
        """Length of its content."""
        return self.width * HASH_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryBundle:
    """Coordinates of a bundle of log entries; `index` and `width` as in the level 0 tile beside it."""

    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        _check_place(self.index, self.width)

    @property
    def path(self) -> str:
        """Its resource path."""
        return f"tile/entries/{_index_path(self.index)}{_width_path(self.width)}"


def _check_place(index: int, width: int) -> None:
    if not 0 <= index <= MAX_TREE_SIZE // TILE_WIDTH:
        raise MalformedInputError("tile.malformed", f"tile index {index} is out of range")
    if not 1 <= width <= TILE_WIDTH:
        raise MalformedInputError("tile.malformed", f"tile width {width} is not in 1..{TILE_WIDTH}")


def _index_path(index: int) -> str:
    """The index in groups of three digits, all but the last marked with an `x`."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    return "/".join(reversed(groups))


def _width_path(width: int) -> str:
    return "" if width == TILE_WIDTH else f".p/{width}"


def parse_path(path: str) -> Tile | EntryBundle:
    """The tile or entry bundle that a resource path names.

    Raises:
        MalformedInputError: `tile.malformed` for anything that `Tile.path` and `EntryBundle.path` would not
            write.
    """
    match = _PATH.fullmatch(path) if len(path) <= _MAX_PATH_CHARS else None
    if match is None:
        raise MalformedInputError(
            "tile.malformed",
            "the path does not name a tile or entry bundle; expected tile/<L>/<N>[.p/<W>]",
            hint="<N> is written in groups of three digits, all but the last with a leading x: x001/x234/067",
        )
    index = int(match["index"].replace("/", "").replace("x", ""))
    width = TILE_WIDTH if match["width"] is None else int(match["width"])
    resource: Tile | EntryBundle
    if match["level"] == "entries":
        resource = EntryBundle(index=index, width=width)
    else:
        resource = Tile(level=int(match["level"]), index=index, width=width)
    if resource.path != path:
        raise MalformedInputError("tile.malformed", f"the path is not canonical; expected {resource.path}")
    return resource


def tile_at(*, level: int, hash_index: int, tree_size: int) -> Tile:
    """The tile of a tree that holds the `hash_index`-th hash of a level: full, or partial at the right edge.

    Raises:
        MalformedInputError: `tile.malformed` if a tree of that size has no such hash.
    """
    hashes = tree_size >> (TILE_HEIGHT * level)
    index = hash_index // TILE_WIDTH
    if not 0 <= hash_index < hashes:
        raise MalformedInputError(
            "tile.malformed", f"a tree of size {tree_size} has no hash {hash_index} at tile level {level}"
        )
    return Tile(level=level, index=index, width=min(TILE_WIDTH, hashes - index * TILE_WIDTH))


def encode_bundle(entries: tuple[bytes, ...]) -> bytes:
    """Entries as an entry bundle: each behind its length as a big-endian uint16.

    Raises:
        MalformedInputError: `bundle.malformed` for no or more than 256 entries, or one above 65,535 bytes.
    """
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise MalformedInputError("bundle.malformed", f"a bundle holds 1..256 entries, not {len(entries)}")
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise MalformedInputError(
                "bundle.malformed", f"an entry of {len(entry)} bytes is longer than {MAX_ENTRY_BYTES}"
            )
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def decode_bundle(bundle: bytes, *, width: int) -> tuple[bytes, ...]:
    """The `width` entries of an entry bundle.

    Raises:
        MalformedInputError: `bundle.malformed` if it is cut off, or holds fewer or more than `width` entries.
    """
    entries: list[bytes] = []
    offset = 0
    for number in range(width):
        start = offset + 2
        offset = start + int.from_bytes(bundle[offset:start], "big")
        if start > len(bundle) or offset > len(bundle):
            raise MalformedInputError(
                "bundle.malformed", f"the bundle ends within entry {number} of {width} ({len(bundle)} bytes)"
            )
        entries.append(bundle[start:offset])
    if offset != len(bundle):
        raise MalformedInputError(
            "bundle.malformed", f"{len(bundle) - offset} bytes follow the last of {width} entries"
        )
    return tuple(entries)
