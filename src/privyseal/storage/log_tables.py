# SPDX-License-Identifier: Apache-2.0
"""The log's entries and tile hashes in a database (C2SP tlog-tiles), and the tree's frontier beside them.

What is appended gathers in memory and is written in one go, when the log is read or the batch ends: hashing and
inserting many entries at once costs a fraction of doing it one by one.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from privyseal.errors import LogIntegrityError, MalformedInputError
from privyseal.storage.calls import Insert, Query
from privyseal.tlog.note import encode_base64
from privyseal.tlog.subtree import frontier_from_tiles, frontier_tiles
from privyseal.tlog.tile import MAX_ENTRY_BYTES, TILE_WIDTH, Tile
from privyseal.tlog.tree import MAX_TREE_SIZE, Frontier, leaf_hash

__all__ = ["LogTables", "Mark"]

_ENTRY_COLUMNS: Final = ("entry_index", "leaf_hash", "body")
_NODE_COLUMNS: Final = ("level", "hash_index", "hash")
_ENTRIES: Final = "SELECT body FROM log_entry WHERE entry_index >= ? AND entry_index < ? ORDER BY entry_index"
_LEAVES: Final = "SELECT leaf_hash FROM log_entry WHERE entry_index >= ? AND entry_index < ? ORDER BY entry_index"
_NODES: Final = "SELECT hash FROM log_node WHERE level = ? AND hash_index >= ? AND hash_index < ? ORDER BY hash_index"
_PAIRS: Final = (
    "SELECT entry_index, leaf_hash, body FROM log_entry WHERE entry_index >= ? AND entry_index < ? ORDER BY entry_index"
)
_COUNT: Final = "SELECT coalesce(max(entry_index) + 1, 0) FROM log_entry"
_COVERING: Final = "SELECT size, root, note FROM log_checkpoint WHERE size > ? ORDER BY size LIMIT 1"
_COSIGNED: Final = "SELECT note FROM log_cosigned WHERE size > ? ORDER BY size LIMIT ?"
_CHECKPOINTS: Final = "SELECT size, root, note FROM log_checkpoint WHERE number > ? ORDER BY number LIMIT ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far the log had grown: the written part, and what was waiting to be written."""

    frontier: Frontier
    waiting: list[bytes]
    count: int


class LogTables:
    """Appends to and reads the log's tables. All calls belong to one transaction at a time.

    Attributes:
        frontier: The tree over what the open transaction has written.
    """

    __slots__ = ("_waiting", "frontier")

    def __init__(self) -> None:
        self.frontier = Frontier()
        self._waiting: list[bytes] = []

    @property
    def size(self) -> int:
        """Tree size with all that was appended."""
        return self.frontier.size + len(self._waiting)

    def append(self, entry: bytes) -> int:
        """Append an entry; its index.

        Raises:
            MalformedInputError: `entry.too_large`.
        """
        if len(entry) > MAX_ENTRY_BYTES:
            raise MalformedInputError(
                "entry.too_large", f"an entry of {len(entry)} bytes; at most {MAX_ENTRY_BYTES} fit"
            )
        self._waiting.append(entry)
        return self.size - 1

    def mark(self) -> Mark:
        """Where to go back to if what follows is undone."""
        return Mark(frontier=self.frontier, waiting=self._waiting, count=len(self._waiting))

    def go_back(self, mark: Mark) -> None:
        """Forget what was appended since the mark; whoever calls this has undone the writes since then."""
        self.frontier = mark.frontier
        self._waiting = mark.waiting
        del self._waiting[mark.count :]

    def restart(self, frontier: Frontier) -> None:
        """Stand at a tree that is stored, with nothing appended."""
        self.frontier = frontier
        self._waiting = []

    async def flush(self) -> None:
        """Write what was appended."""
        if not self._waiting:
            return
        # A new list: a mark holds the old one, should this write be undone.
        entries, self._waiting = self._waiting, []
        leaves = [leaf_hash(entry) for entry in entries]
        indexes = range(self.frontier.size, self.frontier.size + len(entries))
        await Insert(table="log_entry", columns=_ENTRY_COLUMNS, rows=list(zip(indexes, leaves, entries, strict=True)))
        growth = self.frontier.extend(leaves)
        if growth.nodes:
            nodes = [(node.level, node.index, node.hash) for node in growth.nodes]
            await Insert(table="log_node", columns=_NODE_COLUMNS, rows=nodes)
        self.frontier = growth.frontier

    async def entries(self, start: int, count: int) -> tuple[bytes, ...]:
        """Entries [start, start+count), fewer at the end of the log."""
        await self.flush()
        first = min(max(start, 0), MAX_TREE_SIZE)
        end = min(max(start + count, 0), MAX_TREE_SIZE)
        return tuple([body for (body,) in await Query(_ENTRIES, (first, end))])

    async def tile(self, level: int, index: int, width: int) -> bytes:
        """Hashes of a tile.

        Raises:
            LogIntegrityError: `log.missing_hash` if they are not all there.
            MalformedInputError: `tile.malformed` for coordinates that no tile has.
        """
        await self.flush()
        tile = Tile(level=level, index=index, width=width)
        first = index * TILE_WIDTH
        end = min(first + width, MAX_TREE_SIZE)
        query = Query(_LEAVES, (first, end)) if level == 0 else Query(_NODES, (level, first, end))
        content = b"".join([value for (value,) in await query])
        if len(content) != tile.size_bytes:
            raise LogIntegrityError("log.missing_hash", f"the log does not hold all {width} hashes of {tile.path}")
        return content

    async def covering_checkpoint(self, index: int) -> str:
        """The oldest stored checkpoint whose tree holds entry `index`.

        Raises:
            LogIntegrityError: `log.missing_checkpoint`, `log.corrupt`.
        """
        rows = await Query(_COVERING, (min(max(index, 0), MAX_TREE_SIZE),))
        if not rows:
            raise LogIntegrityError("log.missing_checkpoint", f"no checkpoint covers entry {index}")
        return _note(*rows[0])

    async def checkpoints(self, start: int, count: int) -> tuple[str, ...]:
        """Signed checkpoints in the order of their size, `count` at most from the `start`-th on.

        Raises:
            LogIntegrityError: `log.corrupt` if one is not what its row says.
        """
        first, limit = (min(max(value, 0), MAX_TREE_SIZE) for value in (start, count))
        return tuple([_note(*row) for row in await Query(_CHECKPOINTS, (first, limit))])

    async def cosigned(self, index: int, count: int) -> tuple[str, ...]:
        """Checkpoints with witnesses' cosignatures whose trees hold entry `index`: the `count` oldest."""
        first, limit = (min(max(value, 0), MAX_TREE_SIZE) for value in (index, count))
        return tuple([note for (note,) in await Query(_COSIGNED, (first, limit))])

    async def stored_frontier(self, size: int) -> Frontier:
        """The frontier of the tree of that size as the stored hashes give it.

        Raises:
            LogIntegrityError: `log.missing_hash`.
        """
        tiles = {tile: await self.tile(tile.level, tile.index, tile.width) for tile in frontier_tiles(size)}
        return frontier_from_tiles(size, tiles)

    async def damaged_entry(self) -> int | None:
        """The first entry that does not give the leaf hash beside it; reads all of them."""
        for start in range(0, await self.stored_size(), TILE_WIDTH):
            for index, leaf, body in await Query(_PAIRS, (start, start + TILE_WIDTH)):
                if body and leaf_hash(body) != leaf:  # one without a body was pruned
                    return int(index)
        return None

    async def stored_size(self) -> int:
        """How many entries the table holds if it has no gap."""
        ((size,),) = await Query(_COUNT)
        return int(size)


def _note(size: int, root: bytes, note: str) -> str:
    """A stored note, which must be text, and speak of the size and root beside it."""
    with suppress(UnicodeEncodeError):
        note.encode()
        if note.partition("\n")[2].startswith(f"{size}\n{encode_base64(root)}\n"):
            return note
    raise LogIntegrityError(
        "log.corrupt",
        f"the stored checkpoint of size {size} is not what its row in log_checkpoint says",
        hint="keep this database for inspection and bring back an undamaged copy of the newest one",
    )
