# SPDX-License-Identifier: Apache-2.0
"""Hashes of parts of a tree, computed from its tiles (RFC 6962 §2.1 over C2SP tlog-tiles). Sans-I/O.

Each question comes in two steps: which tiles are needed, and what follows from their content. Tiles are
believed here as they come; whoever got them from others holds what was computed against a signed root.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from privyseal.errors import MalformedInputError, UnavailableError
from privyseal.tlog.tile import TILE_WIDTH, Tile, tile_at
from privyseal.tlog.tree import HASH_BYTES, MAX_TREE_SIZE, TILE_HEIGHT, Frontier, fold, node_hash

__all__ = ["Span", "Tiles", "check_size", "frontier_from_tiles", "frontier_tiles", "span_hash", "tiles_of"]

#: Content of tiles by their coordinates.
Tiles = Mapping[Tile, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The leaves [start, end), where `start` is a multiple of the power of two that covers the length."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Complete:
    """A complete subtree: the `index`-th node at `height`."""

    height: int
    index: int

    @property
    def tile_level(self) -> int:
        return self.height // TILE_HEIGHT

    @property
    def hash_count(self) -> int:
        """How many neighbouring hashes of its tile lie under it."""
        return 1 << (self.height % TILE_HEIGHT)

    @property
    def first_hash(self) -> int:
        return self.index * self.hash_count

    def tile(self, tree_size: int) -> Tile:
        return tile_at(level=self.tile_level, hash_index=self.first_hash, tree_size=tree_size)


def check_size(size: int) -> None:
    """Refuse a tree size that no log can have.

    Raises:
        MalformedInputError: `proof.range`.
    """
    if not 0 <= size <= MAX_TREE_SIZE:
        raise MalformedInputError("proof.range", f"tree size {size} is not in 0..2^63-1")


def _complete_subtrees(span: Span) -> Iterator[_Complete]:
    """The complete subtrees of a span, largest first."""
    start = span.start
    while start < span.end:
        height = (span.end - start).bit_length() - 1
        yield _Complete(height=height, index=start >> height)
        start += 1 << height


def tiles_of(spans: Iterable[Span], *, tree_size: int) -> tuple[Tile, ...]:
    """The tiles of a tree from which the hashes of all spans follow, each once, by level and index."""
    tiles = {subtree.tile(tree_size) for span in spans for subtree in _complete_subtrees(span)}
    return tuple(sorted(tiles, key=lambda tile: (tile.level, tile.index)))


def span_hash(span: Span, *, tree_size: int, tiles: Tiles) -> bytes:
    """The Merkle Tree Hash over a span.

    Raises:
        UnavailableError: `tile.missing` if a tile is not among `tiles`.
        MalformedInputError: `tile.malformed` if the content of one has not the length of its width.
    """
    return fold(_subtree_hash(subtree, tree_size, tiles) for subtree in _complete_subtrees(span))


def _subtree_hash(subtree: _Complete, tree_size: int, tiles: Tiles) -> bytes:
    tile = subtree.tile(tree_size)
    content = tiles.get(tile)
    if content is None:
        raise UnavailableError("tile.missing", f"{tile.path} is needed and was not given")
    if len(content) != tile.size_bytes:
        raise MalformedInputError("tile.malformed", f"{tile.path} has {len(content)} bytes; expected {tile.size_bytes}")
    first = subtree.first_hash % TILE_WIDTH
    return _complete_root(content[first * HASH_BYTES : (first + subtree.hash_count) * HASH_BYTES])


@lru_cache(maxsize=4096)
def _complete_root(hashes: bytes) -> bytes:
    """Root over neighbouring hashes, a power of two of them; what is complete never changes, so it is kept."""
    row = [hashes[place : place + HASH_BYTES] for place in range(0, len(hashes), HASH_BYTES)]
    while len(row) > 1:
        row = [node_hash(row[place], row[place + 1]) for place in range(0, len(row), 2)]
    return row[0]


def frontier_tiles(size: int) -> tuple[Tile, ...]:
    """The tiles from which the frontier (and so the root) of a tree follows: at most one for each level.

    Raises:
        MalformedInputError: `proof.range` for an impossible size.
    """
    check_size(size)
    return tiles_of((Span(start=0, end=size),), tree_size=size)


def frontier_from_tiles(size: int, tiles: Tiles) -> Frontier:
    """The frontier of a tree of that size, from the tiles that `frontier_tiles` names.

    Raises:
        UnavailableError: `tile.missing`.
        MalformedInputError: `tile.malformed`, `proof.range`.
    """
    check_size(size)
    whole = Span(start=0, end=size)
    return Frontier(
        size=size, hashes=tuple(_subtree_hash(subtree, size, tiles) for subtree in _complete_subtrees(whole))
    )
