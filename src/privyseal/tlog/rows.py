# SPDX-License-Identifier: Apache-2.0
"""The tiles of a log, recomputed leaf by leaf (C2SP tlog-tiles): at most one unfinished tile of each level is held."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self

from privyseal.tlog.subtree import Tiles, frontier_from_tiles, frontier_tiles
from privyseal.tlog.tile import TILE_WIDTH, Tile
from privyseal.tlog.tree import HASH_BYTES, TILE_HEIGHT, Frontier

__all__ = ["TileRows"]

_EMPTY: Final = Frontier()
_NO_ROWS: Final[Mapping[int, tuple[bytes, ...]]] = MappingProxyType({})


class TileRows:
    """A tree that grows, and the tiles at its right edge."""

    def __init__(self, frontier: Frontier = _EMPTY, rows: Mapping[int, tuple[bytes, ...]] = _NO_ROWS) -> None:
        self._frontier = frontier
        self._rows = {level: list(row) for level, row in rows.items()}

    @classmethod
    def at(cls, size: int, tiles: Tiles) -> Self:
        """The tree of that size, from the tiles that `frontier_tiles` names: those are the unfinished ones.

        Raises:
            UnavailableError: `tile.missing`.
            MalformedInputError: `tile.malformed`, `proof.range`.
        """
        frontier = frontier_from_tiles(size, tiles)
        rows = {
            tile.level: tuple(
                tiles[tile][place : place + HASH_BYTES] for place in range(0, tile.size_bytes, HASH_BYTES)
            )
            for tile in frontier_tiles(size)
        }
        return cls(frontier, rows)

    def copy(self) -> Self:
        """The same tree, which grows apart."""
        return type(self)(self._frontier, {level: tuple(row) for level, row in self._rows.items()})

    @property
    def frontier(self) -> Frontier:
        """The tree by the roots of its complete subtrees."""
        return self._frontier

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._frontier.size

    @property
    def root(self) -> bytes:
        """The Merkle Tree Hash."""
        return self._frontier.root

    def append(self, leaf: bytes) -> tuple[tuple[Tile, bytes], ...]:
        """Take the next leaf hash; answers with the tiles that it filled, mostly none."""
        index = self._frontier.size
        growth = self._frontier.append(leaf)
        self._frontier = growth.frontier
        filled = self._put(0, index, leaf)
        if filled is None:  # as for 255 of 256
            return ()
        above = (self._put(node.level, node.index, node.hash) for node in growth.nodes)
        return (filled, *(tile for tile in above if tile is not None))

    def _put(self, level: int, index: int, node: bytes) -> tuple[Tile, bytes] | None:
        row = self._rows.setdefault(level, [])
        row.append(node)
        if len(row) < TILE_WIDTH:
            return None
        del self._rows[level]
        return Tile(level=level, index=index // TILE_WIDTH), b"".join(row)

    def unfinished(self) -> tuple[tuple[Tile, bytes], ...]:
        """The partial tiles at the right edge, by level."""
        return tuple(
            (
                Tile(level=level, index=(self.size >> (TILE_HEIGHT * level)) // TILE_WIDTH, width=len(row)),
                b"".join(row),
            )
            for level, row in sorted(self._rows.items())
        )
