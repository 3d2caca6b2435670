# SPDX-License-Identifier: Apache-2.0
"""Reading a whole log (C2SP tlog-tiles) and checking it: a hub's, or what was exported of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from privyseal.client.cell import web_cell
from privyseal.client.config import ClientConfig
from privyseal.client.log_source import HubSource, LogSource
from privyseal.errors import LogIntegrityError, MalformedInputError, VerificationError
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.entry import Entry
from privyseal.tlog.note import NoteVerifier, VerifierKey
from privyseal.tlog.proof import (
    consistency_proof,
    consistency_tiles,
    inclusion_proof,
    inclusion_tiles,
    verify_consistency,
)
from privyseal.tlog.rows import TileRows
from privyseal.tlog.subtree import frontier_tiles
from privyseal.tlog.tile import TILE_WIDTH, EntryBundle, Tile, decode_bundle, tile_at
from privyseal.tlog.tree import HASH_BYTES

__all__ = ["Follower", "LogReader", "PublicLog", "check_root", "rewound"]


class Follower(Protocol):
    """Goes through a log beside the check."""

    def follow(self, check: LogCheck, index: int, entry: Entry | None) -> None:
        """Take the entry that the check has just taken, None for a pruned one; whatever this raises ends the check."""
        ...

    def finish(self, checkpoint: Checkpoint) -> None:
        """All entries were taken, and this checkpoint signs them."""
        ...


class PublicLog:
    """The public side of a log: what anybody can read of it, believed as far as the log key's signature reaches.

    Attributes:
        place: Where it is read, for people.
        also: Further keys of the log, whose lines on a checkpoint must hold where they stand.
        shown: The newest checkpoint that was shown here, as it came: a proof, should it contradict another.
    """

    def __init__(
        self, source: LogSource, *, key: VerifierKey, origin: str, also: tuple[NoteVerifier, ...] = ()
    ) -> None:
        self.source: Final = source
        self.key: Final = key
        self.also: Final = also
        self.origin: Final = origin
        self.place: Final = source.place
        self.shown = b""

    def open(self, note: str | bytes, path: str = "a checkpoint") -> Checkpoint:
        """The checkpoint in a note of this log.

        Args:
            note: The note.
            path: Where it stood, for messages.

        Raises:
            LogIntegrityError: `log.checkpoint` if the log's key did not sign it, or a further key's line is wrong.
        """
        try:
            return open_checkpoint(note, origin=self.origin, verifiers=(self.key,), also=self.also)
        except (MalformedInputError, VerificationError) as error:
            raise LogIntegrityError(
                "log.checkpoint",
                f"{self.place}, {path}, does not hold: {error}",
                hint="this is another log than the one whose key is pinned, or it is damaged",
            ) from error

    def checkpoint_note(self) -> bytes:
        """The newest checkpoint as it is shown; `open` judges it."""
        self.shown = self.required("checkpoint")
        return self.shown

    def checkpoint(self) -> Checkpoint:
        """The newest checkpoint, signed by the log key.

        Raises:
            LogIntegrityError: `log.checkpoint` if it is not; `log.file_missing` if there is none.
            UnavailableError, IdentityError: the hub cannot be reached, or is another.
        """
        return self.open(self.checkpoint_note(), "checkpoint")

    def check_extends(self, old: Checkpoint) -> Checkpoint:
        """The newest checkpoint, once it is shown to extend an older one.

        Raises:
            LogIntegrityError: `log.rewound` or `log.fork`. And what `checkpoint` raises.
        """
        new = self.checkpoint()
        if new.size < old.size:
            raise rewound(self.place, old.size, new.size)
        proof = self.consistency(old.size, new.size)
        try:
            verify_consistency(old_size=old.size, new_size=new.size, old_root=old.root, new_root=new.root, proof=proof)
        except VerificationError as error:
            raise LogIntegrityError(
                "log.fork",
                f"the log of {new.size} entries at {self.place} does not extend the one of {old.size} that was signed "
                "before",
                hint="the log was rewritten: keep the receipt or checkpoint, it proves that",
            ) from error
        return new

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that one tree extends another, from the tiles as they are; whoever gets it checks it.

        Raises:
            LogIntegrityError: `log.tile` for a tile of another length, `log.file_missing`.
        """
        tiles = {tile: self.tile(tile) for tile in consistency_tiles(old, new)}
        with self._tiles_named():
            return consistency_proof(old, new, tiles)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The proof that an entry stands in a tree; as `consistency`."""
        tiles = {tile: self.tile(tile) for tile in inclusion_tiles(index, size)}
        with self._tiles_named():
            return inclusion_proof(index, size, tiles)

    @contextmanager
    def _tiles_named(self) -> Iterator[None]:
        try:
            yield
        except MalformedInputError as error:
            raise LogIntegrityError("log.tile", f"{self.place}: {error}") from error

    def required(self, path: str) -> bytes:
        """A file that the log must have.

        Raises:
            LogIntegrityError: `log.file_missing`.
        """
        data = self.source.read(path)
        if data is None:
            raise LogIntegrityError(
                "log.file_missing",
                f"{self.place} has no {path}",
                hint="if it is an export, write it again: privyseal log export; else something was taken away",
            )
        return data

    def tile(self, tile: Tile) -> bytes:
        """The content of a tile; of a partial one that was removed, the beginning of the full one (tlog-tiles)."""
        if tile.width == TILE_WIDTH:
            return self.required(tile.path)
        data = self.source.read(tile.path)
        if data is None:
            data = self.required(Tile(level=tile.level, index=tile.index).path)[: tile.size_bytes]
        return data

    def bundle(self, number: int, width: int) -> tuple[bytes, ...]:
        """The first `width` entries of a bundle.

        Raises:
            LogIntegrityError: `log.bundle` if what stands there is no entry bundle of that width, `log.file_missing`.
        """
        place = EntryBundle(index=number, width=width)
        data = self.source.read(place.path) if width < TILE_WIDTH else None
        if data is None:
            place = EntryBundle(index=number)
            data = self.required(place.path)
        try:
            return decode_bundle(data, width=place.width)[:width]
        except MalformedInputError as error:
            raise LogIntegrityError("log.bundle", f"{self.place}, {place.path}: {error}") from error

    def entries(self, start: int, size: int) -> Iterator[tuple[int, bytes]]:
        """(index, bytes) of the entries from `start` in a tree of `size`.

        Raises:
            LogIntegrityError: `log.bundle` if what is served is no entry bundle.
        """
        for number in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
            first = number * TILE_WIDTH
            bundle = self.bundle(number, min(TILE_WIDTH, size - first))
            yield from ((first + place, entry) for place, entry in enumerate(bundle) if first + place >= start)

    def pruned_leaves(self, size: int) -> Iterator[bytes]:
        """Leaf hashes of the entries from the beginning on that are not there, from tiles; nothing says yet why.

        Raises:
            LogIntegrityError: `log.tile`, `log.file_missing` if their tiles are not there either.
        """
        for number in range(size // TILE_WIDTH):
            if self.source.read(EntryBundle(index=number).path) is not None:
                return
            tile = Tile(level=0, index=number)
            data = self.tile(tile)
            if len(data) != tile.size_bytes:
                raise LogIntegrityError("log.tile", f"{self.place}, {tile.path}: {len(data)} bytes")
            yield from (data[place : place + HASH_BYTES] for place in range(0, len(data), HASH_BYTES))

    def rows(self, size: int, *, within: int) -> TileRows:
        """The tree of the first `size` entries, out of the tiles of the tree of `within`; nothing vouches for it yet.

        Raises:
            LogIntegrityError: `log.tile` for a tile of another length, `log.file_missing`.
        """
        tiles: dict[Tile, bytes] = {}
        for tile in frontier_tiles(size):
            wider = tile_at(level=tile.level, hash_index=tile.index * TILE_WIDTH, tree_size=within)
            tiles[tile] = self.tile(wider)[: tile.size_bytes]
        with self._tiles_named():
            return TileRows.at(size, tiles)

    def checked_entries(self, check: LogCheck, checkpoint: Checkpoint) -> Iterator[tuple[int, Entry]]:
        """All entries but pruned ones, in their order; where this ends, they were exactly what the checkpoint signs.

        Raises:
            LogIntegrityError: naming the place.
        """
        for leaf in self.pruned_leaves(checkpoint.size):
            check.skip(leaf)
        for index, data in self.entries(check.size, checkpoint.size):
            yield index, check.feed(data)
        check.end(checkpoint)


def rewound(place: str, old_size: int, new_size: int) -> LogIntegrityError:
    """The error for a log that has become shorter."""
    return LogIntegrityError(
        "log.rewound",
        f"a checkpoint shows a log of {old_size} entries; {place} now shows {new_size}",
        hint="the log was cut: keep the receipt or checkpoint, it proves that",
    )


def check_root(rows: TileRows, checkpoint: Checkpoint, place: str) -> None:
    """Hold a recomputed tree against the checkpoint of its size.

    Raises:
        LogIntegrityError: `log.root`.
    """
    if (rows.size, rows.root) != (checkpoint.size, checkpoint.root):
        raise LogIntegrityError(
            "log.root", f"the checkpoint of {checkpoint.size} entries has another root than the entries at {place}"
        )


class LogReader(PublicLog):
    """The log of the hub that a client has joined."""

    def __init__(self, config: ClientConfig) -> None:
        bundle = config.load_bundle()
        super().__init__(
            HubSource(web_cell(config)), key=bundle.log_key, origin=bundle.origin, also=(bundle.log_mldsa_key,)
        )
