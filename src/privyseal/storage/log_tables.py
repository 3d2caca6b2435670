# SPDX-License-Identifier: Apache-2.0
"""The log's entries and tile hashes in SQLite (C2SP tlog-tiles), and the tree's frontier beside them."""

import sqlite3
from typing import Final

from privyseal.errors import LogIntegrityError, MalformedInputError
from privyseal.tlog.subtree import frontier_from_tiles, frontier_tiles
from privyseal.tlog.tile import MAX_ENTRY_BYTES, TILE_WIDTH, Tile
from privyseal.tlog.tree import MAX_TREE_SIZE, Frontier, leaf_hash

__all__ = ["LogTables"]

_INSERT_ENTRY: Final = "INSERT INTO log_entry (entry_index, leaf_hash, body) VALUES (?, ?, ?)"
_INSERT_NODE: Final = "INSERT INTO log_node (level, hash_index, hash) VALUES (?, ?, ?)"
_ENTRIES: Final = "SELECT body FROM log_entry WHERE entry_index >= ? AND entry_index < ? ORDER BY entry_index"
_LEAVES: Final = "SELECT leaf_hash FROM log_entry WHERE entry_index >= ? AND entry_index < ? ORDER BY entry_index"
_NODES: Final = "SELECT hash FROM log_node WHERE level = ? AND hash_index >= ? AND hash_index < ? ORDER BY hash_index"
_COUNT: Final = "SELECT coalesce(max(entry_index) + 1, 0) FROM log_entry"
_COVERING: Final = "SELECT note FROM log_checkpoint WHERE size > ? ORDER BY size LIMIT 1"
_COSIGNED: Final = "SELECT note FROM log_cosigned WHERE size > ? ORDER BY size LIMIT ?"
_PUT_COSIGNED: Final = "INSERT OR REPLACE INTO log_cosigned (size, note) VALUES (?, ?)"
_CHECKPOINTS: Final = "SELECT note FROM log_checkpoint WHERE number > ? ORDER BY number LIMIT ?"


class LogTables:
    """Appends to and reads the log's tables. All calls belong to the thread that owns the connection.

    Attributes:
        frontier: The tree with what the open transaction appended; whoever rolls back puts the old one back.
    """

    __slots__ = ("_connection", "frontier")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection
        self.frontier = Frontier()

    def append(self, entry: bytes) -> int:
        """Append an entry; its index.

        Raises:
            MalformedInputError: `entry.too_large`.
        """
        if len(entry) > MAX_ENTRY_BYTES:
            raise MalformedInputError(
                "entry.too_large", f"an entry of {len(entry)} bytes; at most {MAX_ENTRY_BYTES} fit"
            )
        index = self.frontier.size
        leaf = leaf_hash(entry)
        self._connection.execute(_INSERT_ENTRY, (index, leaf, entry))
        growth = self.frontier.append(leaf)
        for node in growth.nodes:
            self._connection.execute(_INSERT_NODE, (node.level, node.index, node.hash))
        self.frontier = growth.frontier
        return index

    def entries(self, start: int, count: int) -> tuple[bytes, ...]:
        """Entries [start, start+count), fewer at the end of the log."""
        first = min(max(start, 0), MAX_TREE_SIZE)
        end = min(max(start + count, 0), MAX_TREE_SIZE)
        return tuple(body for (body,) in self._connection.execute(_ENTRIES, (first, end)))

    def tile(self, level: int, index: int, width: int) -> bytes:
        """Hashes of a tile.

        Raises:
            LogIntegrityError: `log.missing_hash` if they are not all there.
            MalformedInputError: `tile.malformed` for coordinates that no tile has.
        """
        tile = Tile(level=level, index=index, width=width)
        first = index * TILE_WIDTH
        end = min(first + width, MAX_TREE_SIZE)
        if level == 0:
            rows = self._connection.execute(_LEAVES, (first, end))
        else:
            rows = self._connection.execute(_NODES, (level, first, end))
        content = b"".join(value for (value,) in rows)
        if len(content) != tile.size_bytes:
            raise LogIntegrityError("log.missing_hash", f"the log does not hold all {width} hashes of {tile.path}")
        return content

    def covering_checkpoint(self, index: int) -> str:
        """The oldest stored checkpoint whose tree holds entry `index`.

        Raises:
            LogIntegrityError: `log.missing_checkpoint`.
        """
        row = self._connection.execute(_COVERING, (min(max(index, 0), MAX_TREE_SIZE),)).fetchone()
        if row is None:
            raise LogIntegrityError("log.missing_checkpoint", f"no checkpoint covers entry {index}")
        note: str = row[0]
        return note

    def checkpoints(self, start: int, count: int) -> tuple[str, ...]:
        """Signed checkpoints in the order of their size, `count` at most from the `start`-th on."""
        first, limit = (min(max(value, 0), MAX_TREE_SIZE) for value in (start, count))
        return tuple(note for (note,) in self._connection.execute(_CHECKPOINTS, (first, limit)))

    def cosigned(self, index: int, count: int) -> tuple[str, ...]:
        """Checkpoints with witnesses' cosignatures whose trees hold entry `index`: the `count` oldest."""
        first, limit = (min(max(value, 0), MAX_TREE_SIZE) for value in (index, count))
        return tuple(note for (note,) in self._connection.execute(_COSIGNED, (first, limit)))

    def put_cosigned(self, size: int, note: str) -> None:
        """Remember a checkpoint with witnesses' cosignatures; replaces one of the same size."""
        self._connection.execute(_PUT_COSIGNED, (size, note))

    def stored_frontier(self, size: int) -> Frontier:
        """The frontier of the tree of that size as the stored hashes give it.

        Raises:
            LogIntegrityError: `log.missing_hash`.
        """
        tiles = {tile: self.tile(tile.level, tile.index, tile.width) for tile in frontier_tiles(size)}
        return frontier_from_tiles(size, tiles)

    def stored_size(self) -> int:
        """How many entries the table holds if it has no gap."""
        (size,) = self._connection.execute(_COUNT).fetchone()
        return int(size)
