# SPDX-License-Identifier: Apache-2.0
"""Dropping the bodies of old entries from a hub's database. Their leaf hashes stay."""

from collections.abc import Iterable, Iterator
from typing import Final

from privyseal.storage.calls import Query
from privyseal.tlog.tile import TILE_WIDTH

__all__ = ["drop_bodies"]

_DROP: Final = "UPDATE log_entry SET body = ? WHERE entry_index >= ? AND entry_index < ?"


async def drop_bodies(indexes: Iterable[int]) -> None:
    """Drop entries' bodies. In one transaction.

    Args:
        indexes: Of the entries, rising.
    """
    for run in _runs(indexes):
        await Query(_DROP, (b"", run.start, run.stop))


def _runs(indexes: Iterable[int]) -> Iterator[range]:
    """The indexes as runs without a gap; of one bundle at most, so that no statement takes long."""
    run = range(0)
    for index in indexes:
        if run and (index != run.stop or len(run) == TILE_WIDTH):
            yield run
            run = range(0)
        run = range(run.start if run else index, index + 1)
    if run:
        yield run
