# SPDX-License-Identifier: Apache-2.0
"""Checking a log as files: entries, every tile, and every checkpoint that lies there.

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
from typing import Final, NoReturn

from privyseal.client.log import Follower, PublicLog, VerifiedLog, rewound
from privyseal.client.log_source import FolderSource
from privyseal.errors import LogIntegrityError, MalformedInputError
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.rows import TileRows
from privyseal.tlog.tile import TILE_WIDTH, EntryBundle, Tile, decode_bundle, parse_path
from privyseal.tlog.tree import TILE_HEIGHT

__all__ = [
    "CHECKPOINTS_PER_FILE",
    "TAIL",
    "VKEY",
    "VerifiedFiles",
    "checkpoints_path",
    "encode_notes",
    "parse_notes",
    "verify_files",
]

CHECKPOINTS_PER_FILE: Final = 256
TAIL: Final = "checkpoints/tail"
VKEY: Final = "vkey"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFiles(VerifiedLog):
    """A log whose files agree with each other.

    Attributes:
        tiles: How many tiles of hashes were compared.
        checkpoints: How many stored checkpoints were held against the entries.
        beyond: Files of a directory that lie beyond its checkpoint, so that nothing vouches for them: an export that
            was cut off leaves such.
    """

    tiles: int
    checkpoints: int
    beyond: int = 0


def checkpoints_path(number: int) -> str:
    """Where the `number`-th 256 stored checkpoints lie."""
    return EntryBundle(index=number).path.replace("tile/entries", "checkpoints", 1)


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
        path = checkpoints_path(number)
        data = log.source.read(path)
        is_tail = data is None
        if data is None:
            path, data = TAIL, log.source.read(TAIL) or b""
        notes = parse_notes(data, f"{log.place}, {path}")
        if not is_tail and len(notes) != CHECKPOINTS_PER_FILE:
            raise LogIntegrityError("log.checkpoint", f"{log.place}, {path}: {len(notes)} checkpoints; expected 256")
        for note in notes:
            checkpoint = log.open(note)
            if checkpoint.size <= last:
                raise LogIntegrityError(
                    "log.checkpoint", f"{log.place}, {path}: checkpoints are not in the order of their sizes"
                )
            last = checkpoint.size
            yield checkpoint
        if is_tail:
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

    def compare(self, tiles: tuple[tuple[Tile, bytes], ...]) -> None:
        """Hold tiles that were recomputed against those that lie there."""
        for tile, content in tiles:
            if self._log.tile(tile) != content:
                raise LogIntegrityError(
                    "log.tile", f"{self._log.place}, {tile.path}: other hashes than its entries give"
                )
            self.tiles += 1

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

    def end(self, checkpoint: Checkpoint, *, is_export: bool) -> None:
        """Hold the newest checkpoint, and the size of the last one that is stored, against the entries.

        What is stored beyond the newest checkpoint must have been signed since that was read.
        """
        self.check.check_checkpoint(checkpoint)
        while self._next is not None:
            self._advance()
        if self._last_size > checkpoint.size and (newest := self._log.checkpoint()).size < self._last_size:
            raise rewound(self._log.place, self._last_size, newest.size)
        if is_export and self._last_size < checkpoint.size:
            raise LogIntegrityError(
                "log.checkpoint", f"{self._log.place}: the stored checkpoints end before the newest one"
            )


def verify_files(log: PublicLog, followers: tuple[Follower, ...] = ()) -> VerifiedFiles:
    """Recompute a log from its entries and hold everything else that lies there against it.

    Raises:
        LogIntegrityError: naming the file or entry.
        UnavailableError: it cannot be read.
    """
    vkey = log.source.read(VKEY)
    if vkey is not None and vkey != (log.key.vkey + "\n").encode():
        raise LogIntegrityError("log.vkey", f"{log.place}, {VKEY}: another key than the one that was given")
    checkpoint = log.checkpoint()
    comparison, rows = _Comparison(log), TileRows()
    comparison.pass_checkpoints()
    for index, data in log.entries(0, checkpoint.size):
        entry = comparison.check.feed(data)
        comparison.compare(rows.append(comparison.check.leaf))
        comparison.pass_checkpoints()
        for follower in followers:
            follower.follow(comparison.check, index, entry)
    comparison.compare(rows.unfinished())
    comparison.end(checkpoint, is_export=vkey is not None)
    for follower in followers:
        follower.finish(checkpoint)
    beyond = _check_others(log, log.source.folder, checkpoint.size) if isinstance(log.source, FolderSource) else 0
    return VerifiedFiles(
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
