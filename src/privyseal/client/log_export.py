# SPDX-License-Identifier: Apache-2.0
"""Writing a hub's log into a directory as C2SP tlog-tiles lays it out, for any web server that serves files.

Only entries and checkpoints are taken from the hub; every tile is recomputed, and the new checkpoint is put in place
last, once the entries give its root. What a published checkpoint covers is never written again.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from privyseal.client.log import PublicLog, check_root, rewound
from privyseal.client.log_files import encode_notes, parse_notes
from privyseal.client.log_source import CHECKPOINTS_PER_FILE, TAIL, VKEY, FolderSource, checkpoints_path
from privyseal.errors import ConfigError, LogIntegrityError
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.rows import TileRows
from privyseal.tlog.tile import TILE_WIDTH, EntryBundle, encode_bundle
from privyseal.tlog.tree import leaf_hash

__all__ = ["Exported", "export_log"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export did.

    Attributes:
        size: Entries in the directory now.
        added: How many of them are new.
        checkpoints: Stored checkpoints in the directory now.
    """

    origin: str
    size: int
    added: int
    checkpoints: int


class _Folder:
    """The directory that is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filled: list[str] = []

    def has(self, path: str) -> bool:
        """Whether a file is there."""
        return (self._folder / path).is_file()

    def put(self, path: str, data: bytes) -> None:
        """Write a file whole or not at all; one that says the same already is left alone."""
        target = self._folder / path
        try:
            if target.read_bytes() == data:
                return
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".export-", delete=False) as stream:
            draft = Path(stream.name)
            try:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                # Made for its writer alone; what is published is for everybody.
                draft.chmod(0o644)
                draft.replace(target)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise

    def put_full(self, path: str, data: bytes) -> None:
        """Write a full tile or bundle, which makes the partial ones before it dispensable."""
        self.put(path, data)
        self._filled.append(path)

    def drop_partial(self) -> None:
        """Remove partial tiles of which there is a full one (tlog-tiles allows that)."""
        for path in self._filled:
            shutil.rmtree(self._folder / f"{path}.p", ignore_errors=True)


def export_log(reader: PublicLog, folder: Path) -> Exported:
    """Bring a directory up to the hub's newest checkpoint; nothing is published that the log's key did not sign.

    Raises:
        ConfigError: `log.not_an_export` for a directory with other files in it, and none of a log.
        LogIntegrityError: `log.rewound`, `log.fork` or `log.root` if the hub's log does not extend what is there, or
            what is there is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = PublicLog(FolderSource(folder), key=reader.key, origin=reader.origin, also=reader.also)
    old = _published(there, folder)
    note = reader.checkpoint_note()
    new = reader.open(note)
    if new.size < old.size:
        raise rewound(reader.place, old.size, new.size)
    writer = _Folder(folder)
    _put_tree(reader, there, writer, old, new)
    checkpoints = _put_checkpoints(reader, writer, new)
    writer.put(VKEY, (reader.key.vkey + "\n").encode())
    writer.put("checkpoint", note)
    writer.drop_partial()
    return Exported(origin=new.origin, size=new.size, added=new.size - old.size, checkpoints=checkpoints)


def _published(there: PublicLog, folder: Path) -> Checkpoint:
    """The checkpoint that the directory shows so far; that of the empty tree in a new one."""
    if there.source.read("checkpoint") is not None:
        return there.checkpoint()
    known = {"tile", "checkpoints", VKEY}
    strange = sorted(path.name for path in folder.iterdir() if path.name not in known and path.name[0] != ".")
    if strange:
        raise ConfigError(
            "log.not_an_export",
            f"{folder} holds {strange[0]} and no checkpoint of a log",
            hint="name an empty directory, or one that an export wrote",
        )
    return Checkpoint(origin=there.origin, size=0, root=TileRows().root)


def _put_tree(reader: PublicLog, there: PublicLog, writer: _Folder, old: Checkpoint, new: Checkpoint) -> None:
    """Bundles and tiles from the first one on that was not full; the old tree must come out on the way."""
    rows = there.rows(old.size // TILE_WIDTH * TILE_WIDTH, within=old.size)
    for leaf in _put_entries(reader, writer, rows.size, new.size):
        if rows.size == old.size:
            _check_fork(rows, old, reader)
        for tile, content in rows.append(leaf):
            writer.put_full(tile.path, content)
    if rows.size == old.size:
        _check_fork(rows, old, reader)
    for tile, content in rows.unfinished():
        writer.put(tile.path, content)
    check_root(rows, new, reader.place)


def _put_entries(reader: PublicLog, writer: _Folder, start: int, size: int) -> Iterator[bytes]:
    """The leaf hashes from a full bundle's beginning on; each bundle is put into the directory after its own."""
    first = start
    if start == 0:  # what was pruned before it was ever exported has its hashes alone
        for leaf in reader.pruned_leaves(size):
            yield leaf
            first += 1
    for number in range(first // TILE_WIDTH, -(-size // TILE_WIDTH)):
        width = min(TILE_WIDTH, size - number * TILE_WIDTH)
        entries = reader.bundle(number, width)
        yield from map(leaf_hash, entries)
        put = writer.put_full if width == TILE_WIDTH else writer.put
        put(EntryBundle(index=number, width=width).path, encode_bundle(entries))


def _check_fork(rows: TileRows, old: Checkpoint, reader: PublicLog) -> None:
    if rows.root != old.root:
        raise LogIntegrityError(
            "log.fork",
            f"the directory shows another log of {old.size} entries than {reader.place}",
            hint="privyseal log verify DIR tells whether the directory is damaged; else the hub's log was rewritten",
        )


def _put_checkpoints(reader: PublicLog, writer: _Folder, new: Checkpoint) -> int:
    """Stored checkpoints up to the new one; answers with their number."""
    number = 0
    while writer.has(checkpoints_path(number)):
        number += 1
    while True:
        first, stored = number * CHECKPOINTS_PER_FILE, reader.source.read_checkpoints(number)
        told = parse_notes(stored.data, f"{reader.place}, {stored.path}")
        notes = tuple(takewhile(lambda note: reader.open(note).size <= new.size, told))
        if len(notes) < CHECKPOINTS_PER_FILE:
            writer.put(TAIL, encode_notes(notes))
            return first + len(notes)
        writer.put(checkpoints_path(number), encode_notes(notes))
        number += 1
