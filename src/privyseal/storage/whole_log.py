# SPDX-License-Identifier: Apache-2.0
"""Recomputing a stored log from its entries: every leaf hash, tile hash, checkpoint and root beside them."""

from typing import Final

from privyseal.errors import LogIntegrityError
from privyseal.ports.store import LogHead
from privyseal.storage.calls import Query
from privyseal.storage.log_tables import LogTables
from privyseal.tlog.tile import TILE_WIDTH
from privyseal.tlog.tree import Frontier, TileNode, leaf_hash

__all__ = ["check_whole_log"]

_ENTRIES: Final = (
    "SELECT entry_index, leaf_hash, body FROM log_entry WHERE entry_index >= ? AND entry_index < ? ORDER BY entry_index"
)
_NODE: Final = "SELECT hash FROM log_node WHERE level = ? AND hash_index = ?"
_NODES: Final = "SELECT count(*) FROM log_node"
_CHECKPOINTS: Final = "SELECT size, root FROM log_checkpoint WHERE size > ? AND size <= ? ORDER BY size"
_NOTES: Final = 1024


async def check_whole_log(log: LogTables, head: LogHead) -> None:
    """Read all of a log and compare. In one transaction; the memory that it takes does not grow with the log.

    Args:
        log: The log's tables.
        head: Its head.

    Raises:
        LogIntegrityError: `log.corrupt`, naming what does not fit.
    """
    frontier, nodes = Frontier(), 0
    for start in range(0, head.size, TILE_WIDTH):
        leaves = await _leaves(start, min(start + TILE_WIDTH, head.size))
        sizes = await Query(_CHECKPOINTS, (start, start + len(leaves)))
        for size, root in (*sizes, (start + len(leaves), None)):
            growth = frontier.extend(leaves[frontier.size - start : size - start])
            frontier = growth.frontier
            nodes += len(growth.nodes)
            for node in growth.nodes:
                await _check_node(node)
            if root not in (None, frontier.root):
                raise _corrupt(f"the checkpoint of size {size} has another root than the entries")
    if frontier.root != head.root:
        raise _corrupt(f"the entries do not give the root of the log's head at size {head.size}")
    ((stored_nodes,),) = await Query(_NODES)
    if (await log.stored_size(), stored_nodes) != (head.size, nodes):
        raise _corrupt(f"there are entries or tile hashes beyond those of a log of {head.size} entries")
    number = 0
    while notes := await log.checkpoints(number, _NOTES):
        number += len(notes)


async def _leaves(start: int, end: int) -> list[bytes]:
    """Leaf hashes of a bundle's entries, each of which must be that of its body, if that was not pruned."""
    rows = await Query(_ENTRIES, (start, end))
    for wanted, (index, leaf, body) in zip(range(start, end), rows, strict=False):
        if index != wanted or (body and leaf_hash(body) != leaf):
            raise _corrupt(f"entry {wanted} does not give the hash that is stored beside it, or is missing")
    if len(rows) != end - start:
        raise _corrupt(f"entry {start + len(rows)} is missing")
    return [leaf for _, leaf, _ in rows]


async def _check_node(node: TileNode) -> None:
    if [bytes(value) for (value,) in await Query(_NODE, (node.level, node.index))] != [node.hash]:
        raise _corrupt(f"tile hash {node.index} of level {node.level} is not that of the entries below it")


def _corrupt(what: str) -> LogIntegrityError:
    return LogIntegrityError(
        "log.corrupt",
        f"the stored log does not fit together: {what}",
        hint="keep this database for inspection and bring back an undamaged copy of the newest one",
    )
