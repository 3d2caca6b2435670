# SPDX-License-Identifier: Apache-2.0
"""Proofs out of the log: what a job carries to the agent, and the receipt that a client keeps."""

from dataclasses import dataclass

from privyseal.errors import UnsupportedInputError
from privyseal.ports.store import LogHead, ReadTx, Store
from privyseal.tlog.checkpoint import parse_checkpoint
from privyseal.tlog.note import parse_note
from privyseal.tlog.proof import consistency_proof, consistency_tiles, inclusion_proof, inclusion_tiles
from privyseal.tlog.receipt import Receipt
from privyseal.tlog.tile import Tile

__all__ = ["Audit", "JobProofs", "pruned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProofs:
    """Proofs for one job under one checkpoint.

    Attributes:
        inclusion: One proof for each of the indexes that were asked for.
        entries: The entries at those indexes.
        consistency: From the agent's checkpoint to `head`.
        cosigned: From the cosigned checkpoint to `head`.
    """

    head: LogHead
    entries: tuple[bytes, ...]
    inclusion: tuple[tuple[bytes, ...], ...]
    consistency: tuple[bytes, ...]
    cosigned: tuple[bytes, ...] = ()


def pruned(index: int) -> UnsupportedInputError:
    """The error for an entry whose body is not kept any more."""
    return UnsupportedInputError(
        "log.pruned_entries",
        f"entries around {index} were pruned",
        hint="an export that was written before still has them; receipts stay valid",
    )


async def _read_tiles(tx: ReadTx, wanted: set[Tile]) -> dict[Tile, bytes]:
    return {tile: await tx.tile(tile.level, tile.index, tile.width) for tile in wanted}


class Audit:
    """Reads of the log."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def newest_head(self) -> LogHead:
        """The newest checkpoint, also if another process over the same database made it."""

        async def nothing(_tx: ReadTx) -> None:
            """Every read brings the store's head up to date."""

        await self._store.read(nothing)
        return self._store.head

    async def job_proofs(self, indexes: tuple[int, ...], old_size: int, cosigned_size: int = 0) -> JobProofs:
        """Inclusion of the entries at `indexes` in the newest checkpoint, and its consistency with two older ones."""
        head = self._store.head
        if max(old_size, cosigned_size) > head.size:  # another process over the same database has gone on
            head = await self.newest_head()
        return await self.proofs(head, indexes, old_size, cosigned_size)

    async def proofs(self, head: LogHead, indexes: tuple[int, ...], old_size: int, cosigned_size: int = 0) -> JobProofs:
        """The same for a checkpoint that was the newest some time ago."""

        async def read(tx: ReadTx) -> JobProofs:
            wanted = {tile for index in indexes for tile in inclusion_tiles(index, head.size)}
            for size in (old_size, cosigned_size):
                wanted.update(consistency_tiles(size, head.size))
            tiles = await _read_tiles(tx, wanted)
            return JobProofs(
                head=head,
                entries=tuple([(await tx.entries(index, 1))[0] for index in indexes]),
                inclusion=tuple(inclusion_proof(index, head.size, tiles) for index in indexes),
                consistency=consistency_proof(old_size, head.size, tiles),
                cosigned=consistency_proof(cosigned_size, head.size, tiles),
            )

        return await self._store.read(read)

    async def receipt(self, tx: ReadTx, index: int, cosigned: str = "") -> str:
        """The receipt of the entry at `index`.

        It stands under the oldest checkpoint that covers the entry, so that asking again gives the same text; or under
        a cosigned one that the caller has found.

        Raises:
            UnsupportedInputError: `log.pruned_entries`.
        """
        note = cosigned or await tx.covering_checkpoint(index)
        size = parse_checkpoint(parse_note(note).text).size
        tiles = await _read_tiles(tx, set(inclusion_tiles(index, size)))
        entry = (await tx.entries(index, 1))[0]
        if not entry:
            raise pruned(index)
        return Receipt(index=index, proof=inclusion_proof(index, size, tiles), checkpoint=note, extra=entry).encode()
