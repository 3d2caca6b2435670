# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of a log: RFC 6962 §2.1 (the same in RFC 9162 §2.1.1), always SHA-256.

A tree is kept by its frontier alone (the roots of its complete subtrees): appending a leaf and computing the
root need at most 63 hashes, whatever the size. `Growth.nodes` says which inner hashes a tiled log must store.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "MAX_TREE_SIZE",
    "TILE_HEIGHT",
    "Frontier",
    "Growth",
    "TileNode",
    "fold",
    "leaf_hash",
    "node_hash",
]

HASH_BYTES: Final = 32

#: Hash of the empty tree (RFC 6962 §2.1): SHA-256 of nothing.
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

#: Largest tree size that is handled: what a signed 64-bit integer holds, as elsewhere in the field.
MAX_TREE_SIZE: Final = 2**63 - 1

#: Tree levels that one tile spans (C2SP tlog-tiles: 256 hashes).
TILE_HEIGHT: Final = 8


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a log entry as a leaf: SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class TileNode:
    """A hash above level 0 that stands in a tile from now on.

    Attributes:
        level: Tile level, 1 or more.
        index: Number of the hash within its level (tile index * 256 + place in the tile).
        hash: 32 bytes.
    """

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """A tree by the roots of its complete subtrees, largest (leftmost) first: one for each 1 bit of size."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> "Growth":
        """The tree with one more leaf, and the tile hashes that became final by it.

        Args:
            leaf: Leaf hash, not the entry.
        """
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> "Growth":
        """The tree with more leaves, and the tile hashes that became final by them, in that order.

        Args:
            leaves: Leaf hashes, not the entries.
        """
        subtrees = list(self.hashes)
        nodes: list[TileNode] = []
        size = self.size
        for leaf in leaves:
            node, height = leaf, 0
            while size >> height & 1:
                node = node_hash(subtrees.pop(), node)
                height += 1
                if height % TILE_HEIGHT == 0:
                    nodes.append(TileNode(level=height // TILE_HEIGHT, index=size >> height, hash=node))
            subtrees.append(node)
            size += 1
        return Growth(frontier=Frontier(size=size, hashes=tuple(subtrees)), nodes=tuple(nodes))

    @property
    def root(self) -> bytes:
        """The Merkle Tree Hash."""
        return fold(self.hashes) if self.hashes else EMPTY_ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What appending leaves gave.

    Attributes:
        nodes: Hashes of tile levels 1 and up that the leaves completed; none for 255 of 256 leaves.
    """

    frontier: Frontier
    nodes: tuple[TileNode, ...]


def fold(hashes: Iterable[bytes]) -> bytes:
    """The hash over neighbouring complete subtrees, largest first: at least one is needed (RFC 6962 §2.1)."""
    smallest_first = reversed(tuple(hashes))
    node = next(smallest_first)
    for left in smallest_first:
        node = node_hash(left, node)
    return node
