# SPDX-License-Identifier: Apache-2.0
"""Checking a whole log: entries, every tile, and every checkpoint that was signed on the way.

Beside what C2SP tlog-tiles lays out, an export holds `vkey` (the log's verifier key) and the checkpoints that were
signed on the way, up to the newest: `checkpoints/<N>` holds 256 of them in the order of their size (<N> as in tile
paths), `checkpoints/tail` the rest; each line is one signed note as a JSON string.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NoReturn

from privyseal.client.log import Follower, PublicLog, rewound
from privyseal.client.log_source import CHECKPOINTS_PER_FILE, VKEY, FolderSource, HubSource
from privyseal.errors import LogIntegrityError, MalformedInputError
from privyseal.tlog.audit import LogCheck, LogSummary
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.tile import TILE_WIDTH, EntryBundle, Tile, decode_bundle, parse_path, tile_at
from privyseal.tlog.tree import HASH_BYTES, TILE_HEIGHT

__all__ = ["VerifiedLog", "encode_notes", "parse_notes", "verify_log"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLog:
    """A log that was recomputed from its first entry to a signed checkpoint, and whose files agree with each other.

    Attributes:
        tiles: How many tiles of hashes were compared.
        checkpoints: How many stored checkpoints were held against the entries.
        beyond: Files of a directory that lie beyond its checkpoint, so that nothing vouches for them: an export that
            was cut off leaves such.
    """

    origin: str
    summary: LogSummary
    tiles: int
    checkpoints: int
    beyond: int = 0


def encode_notes(notes: tuple[str, ...]) -> bytes:
    """Signed notes as JSON strings, one a line."""
    return "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in notes).encode()


def parse_notes(data: bytes, place: str) -> tuple[str, ...]:
    """Signed notes by their form, which `encode_notes` would give again.

    Raises:
        LogIntegrityError: `log.checkpoint`.
    """
    try:
        notes = tuple(json.loads(line) for line in data.decode().split("\n")[:-1])
        fits = len(notes) <= CHECKPOINTS_PER_FILE and all(isinstance(note, str) for note in notes)
        if fits and encode_notes(notes) == data:
            return notes
    except (ValueError, RecursionError):
        pass
    raise LogIntegrityError("log.checkpoint", f"{place} does not hold signed notes, at most 256, one a line")


def stored_checkpoints(log: PublicLog) -> Iterator[Checkpoint]:
    """The stored checkpoints in their order, each signed by the log's key; none if none are stored.

    Raises:
        LogIntegrityError: `log.checkpoint`.
    """
    last = -1
    for number in count():
        stored = log.source.read_checkpoints(number)
        place = f"{log.place}, {stored.path}"
        notes = parse_notes(stored.data, place)
        if len(notes) < CHECKPOINTS_PER_FILE and not stored.may_be_fewer:
            raise LogIntegrityError("log.checkpoint", f"{place}: {len(notes)} checkpoints; expected 256")
        for note in notes:
            checkpoint = log.open(note, stored.path)
            if checkpoint.size <= last:
                raise LogIntegrityError("log.checkpoint", f"{place}: checkpoints are not in the order of their sizes")
            last = checkpoint.size
            yield checkpoint
        if len(notes) < CHECKPOINTS_PER_FILE:
            return


class _Comparison:
    """A check of files that is under way."""

    def __init__(self, log: PublicLog) -> None:
        self._log = log
        self.check = LogCheck()
        self.tiles = 0
        self.checkpoints = 0
        self._stored = stored_checkpoints(log)
        self._next = next(self._stored, None)
        self._last_size = -1
        self._leaves = Tile(level=0, index=0)
        self._hashes = b""

    def begin_leaves(self, tile: Tile) -> None:
        """Take the tile over the entries that come next."""
        self._leaves, self._hashes = tile, self._log.tile(tile)
        if len(self._hashes) != tile.size_bytes:
            raise self._wrong(tile, f"{len(self._hashes)} bytes; expected {tile.size_bytes}")

    def skip(self, leaf: bytes) -> None:
        """Take the hash of an entry that is not there any more."""
        self.check.skip(leaf)
        self.compare_tiles(self.check.filled)
        self.pass_checkpoints()

    def compare(self, index: int) -> None:
        """Hold the entry that was fed last, and the tiles that it filled, against the tiles that lie there."""
        first = index % TILE_WIDTH * HASH_BYTES
        if self._hashes[first : first + HASH_BYTES] != self.check.leaf:
            raise self._wrong(self._leaves, f"its hash of entry {index} is not that of the entry")
        if self.check.filled:
            self.compare_tiles(self.check.filled)

    def compare_tiles(self, grown: tuple[tuple[Tile, bytes], ...]) -> None:
        """Hold tiles that were recomputed against those that lie there."""
        for tile, content in grown:
            if tile.level and self._log.tile(tile) != content:
                raise self._wrong(tile, "other hashes than its entries give")
            self.tiles += 1

    def _wrong(self, tile: Tile, why: str) -> LogIntegrityError:
        return LogIntegrityError("log.tile", f"{self._log.place}, {tile.path}: {why}")

    def pass_checkpoints(self) -> None:
        """Hold the stored checkpoint of just this size against the entries so far, if there is one."""
        while self._next is not None and self._next.size <= self.check.size:
            self.check.check_checkpoint(self._next)
            self.checkpoints += 1
            self._advance()

    def _advance(self) -> None:
        if self._next is not None:
            self._last_size = self._next.size
            self._next = next(self._stored, None)

    def end(self, checkpoint: Checkpoint, *, is_complete: bool) -> None:
        """Hold the newest checkpoint, and the size of the last one that is stored, against the entries.

        What is stored beyond the newest checkpoint must have been signed since that was read.
        """
        self.check.end(checkpoint)
        while self._next is not None:
            self._advance()
        if self._last_size > checkpoint.size and (newest := self._log.checkpoint()).size < self._last_size:
            raise rewound(self._log.place, self._last_size, newest.size)
        if is_complete and self._last_size < checkpoint.size:
            raise LogIntegrityError(
                "log.checkpoint", f"{self._log.place}: the stored checkpoints end before the newest one"
            )


def verify_log(log: PublicLog, followers: tuple[Follower, ...] = ()) -> VerifiedLog:
    """Recompute a log from its entries and hold everything else that is shown of it against it.

    Args:
        log: The log.
        followers: Go through it beside.

    Raises:
        LogIntegrityError: naming the file or entry.
        UnavailableError: it cannot be read.
    """
    vkey = log.source.read_vkey()
    if vkey is not None and vkey != (log.key.vkey + "\n").encode():
        raise LogIntegrityError("log.vkey", f"{log.place}, {VKEY}: another key than the one that was given")
    checkpoint = log.checkpoint()
    comparison = _Comparison(log)
    comparison.pass_checkpoints()
    for leaf in log.pruned_leaves(checkpoint.size):
        comparison.skip(leaf)
        for follower in followers:
            follower.follow(comparison.check, comparison.check.size - 1, None)
    for index, data in log.entries(comparison.check.size, checkpoint.size):
        if index % TILE_WIDTH == 0:
            comparison.begin_leaves(tile_at(level=0, hash_index=index, tree_size=checkpoint.size))
        entry = comparison.check.feed(data)
        comparison.compare(index)
        comparison.pass_checkpoints()
        for follower in followers:
            follower.follow(comparison.check, index, entry)
    comparison.compare_tiles(comparison.check.unfinished())
    comparison.end(checkpoint, is_complete=vkey is not None or isinstance(log.source, HubSource))
    for follower in followers:
        follower.finish(checkpoint)
    beyond = _check_others(log, log.source.folder, checkpoint.size) if isinstance(log.source, FolderSource) else 0
    return VerifiedLog(
        origin=checkpoint.origin,
        summary=comparison.check.summary(),
        tiles=comparison.tiles,
        checkpoints=comparison.checkpoints,
        beyond=beyond,
    )


def _check_others(log: PublicLog, folder: Path, size: int) -> int:
    """Hold partial tiles of earlier sizes against the tiles that were checked; counts what lies beyond them.

    Raises:
        LogIntegrityError: `log.tile`, `log.bundle`, `log.stray`.
    """
    beyond = 0
    for path in _files(folder / "tile"):
        name = path.relative_to(folder).as_posix()
        try:
            place = parse_path(name)
        except MalformedInputError as error:
            raise LogIntegrityError("log.stray", f"{log.place} holds {name}, which is no file of a log") from error
        level = place.level if isinstance(place, Tile) else 0
        present = min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - place.index * TILE_WIDTH)
        if place.width > present:
            beyond += 1
        elif place.width < present:
            _check_beginning(log, place, present)
    return beyond


def _check_beginning(log: PublicLog, place: Tile | EntryBundle, present: int) -> None:
    data = log.required(place.path)
    if isinstance(place, Tile):
        whole = log.tile(Tile(level=place.level, index=place.index, width=present))
        if data != whole[: place.size_bytes]:
            raise LogIntegrityError("log.tile", f"{log.place}, {place.path}: other hashes than its entries give")
        return
    try:
        entries = decode_bundle(data, width=place.width)
    except MalformedInputError as error:
        raise LogIntegrityError("log.bundle", f"{log.place}, {place.path}: {error}") from error
    if entries != log.bundle(place.index, present)[: place.width]:
        raise LogIntegrityError("log.bundle", f"{log.place}, {place.path}: other entries than the log has there")


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _raise(error: OSError) -> NoReturn:
    # A directory that cannot be read must not pass for an empty one.
    raise error
