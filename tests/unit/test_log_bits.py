# SPDX-License-Identifier: Apache-2.0
"""Every bit of a log counts: whichever one is flipped, in an exported file or in a row of the hub's database, `log
verify` or the start of the hub names the place."""

import itertools
import multiprocessing
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from log_samples import ORIGIN, SIGNER, GrownLog, genesis, intent_at, result_of
from privyseal.client.log import PublicLog
from privyseal.client.log_export import export_log
from privyseal.client.log_files import encode_notes, verify_log
from privyseal.client.log_source import FolderSource, StoredNotes
from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError
from privyseal.storage.connection import configure, connect
from privyseal.storage.head import LogSeal
from privyseal.storage.log_tables import LogTables
from privyseal.storage.schema import prepare_hub
from privyseal.storage.sqlite_committer import ask_sqlite
from privyseal.tlog.entry import Deny, Entry, encode_entry
from privyseal.tlog.tile import EntryBundle, encode_bundle, parse_path

#: Which bits are flipped: (content) -> (byte, bit).
Bits = Callable[[bytes], Iterator[tuple[int, int]]]


def every_bit(data: bytes) -> Iterator[tuple[int, int]]:
    return ((place, bit) for place in range(len(data)) for bit in range(8))


def a_bit_of_every_byte(data: bytes) -> Iterator[tuple[int, int]]:
    chosen = random.Random(len(data))
    return ((place, chosen.randrange(8)) for place in range(len(data)))


def sample(size: int, commits: int) -> GrownLog:
    """A log of the shortest entries, with one signature at its end."""
    log, intent = GrownLog(), intent_at(size, 1)
    entries: list[Entry] = [genesis()]
    entries += [Deny(ts=1 + number, client="", profile="", request="", code="") for number in range(size - 3)]
    entries += [intent, result_of(size, size - 2, intent)]
    step = -(-size // commits)
    for first in range(0, size, step):
        log.commit(*entries[first : first + step])
    return log


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


#: Tens of thousands of logs are verified in each of some tests.
pytestmark = pytest.mark.timeout(900)

PARTS: Final = os.cpu_count() or 1


def mine(flips: Iterator[tuple[int, int]], part: int) -> Iterator[tuple[int, int]]:
    """The flips that fall to one of several processes."""
    return itertools.islice(flips, part, None, PARTS)


def everywhere(work: Callable[..., list[str]], *arguments: object) -> list[str]:
    """What all processes have found."""
    with ProcessPoolExecutor(PARTS, mp_context=multiprocessing.get_context("fork")) as pool:
        return [found for part in pool.map(work, range(PARTS), *([one] * PARTS for one in arguments)) for found in part]


LOGS = {"32 entries": (32, 2, every_bit), "200 entries": (200, 3, a_bit_of_every_byte)}


# -- in exported files ------------------------------------------------------------------------------------------------


def folder_log(folder: Path) -> PublicLog:
    return PublicLog(FolderSource(folder), key=SIGNER.verifier, origin=ORIGIN)


@pytest.mark.parametrize("kind", LOGS)
def test_a_bit_of_an_exported_file(kind: str, tmp_path: Path) -> None:
    size, commits, _ = LOGS[kind]
    log = sample(size, commits)
    export_log(log.beginning(7).public(), tmp_path)  # leaves partial tiles of an earlier size
    export_log(log.public(), tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"checkpoint", "vkey", "checkpoints/tail", f"tile/0/000.p/{size}", "tile/entries/000.p/7"} <= names

    assert everywhere(unnamed_in_files, tmp_path, kind) == []
    assert verify_log(folder_log(tmp_path)).summary.size == size


def unnamed_in_files(part: int, original: Path, kind: str) -> list[str]:
    """What one process has to tell of its part of all flips, over a copy of its own."""
    folder = original.with_name(f"{original.name}-{part}")
    shutil.copytree(original, folder)
    unnamed = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        for place, bit in mine(LOGS[kind][2](data), part):
            path.write_bytes(flipped(data, place, bit))
            try:
                verify_log(folder_log(folder))
            except LogIntegrityError as error:
                if name in error.message or names_entry(error, name):
                    continue
                unnamed.append(f"{name} {place} {bit}: {error.message}")
            else:
                unnamed.append(f"{name} {place} {bit}: nothing")
        path.write_bytes(data)
    return unnamed


def names_entry(error: PrivysealError, name: str) -> bool:
    return name.startswith("tile/entries/") and "entry " in error.message


# -- in rows of the database ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tables:
    """A hub's tables with a log in them, and what the hub serves of them: `hub/http/log.py` over `LogTables`."""

    connection: sqlite3.Connection
    place: str = "the hub"

    def start(self) -> None:
        """What the hub checks when it starts, and the head that it then serves."""
        ask_sqlite(self.connection, LogSeal(origin=ORIGIN, signer=SIGNER, clock=lambda: 9).load(LogTables()))

    def read(self, path: str) -> bytes | None:
        tables = LogTables()
        if path == "checkpoint":
            return str(self.connection.execute("SELECT note FROM log_head").fetchone()[0]).encode()
        place = parse_path(path)
        if isinstance(place, EntryBundle):
            return encode_bundle(ask_sqlite(self.connection, tables.entries(place.index * 256, place.width)))
        return ask_sqlite(self.connection, tables.tile(place.level, place.index, place.width))

    def read_vkey(self) -> None:
        """A hub does not say."""

    def read_checkpoints(self, number: int) -> StoredNotes:
        notes = ask_sqlite(self.connection, LogTables().checkpoints(number * 256, 256))
        return StoredNotes(path=f"checkpoints/{number * 256}", data=encode_notes(notes))

    def judge(self) -> None:
        """Start the hub, then verify its log as a client."""
        self.start()
        verify_log(PublicLog(self, key=SIGNER.verifier, origin=ORIGIN))


def stored(log: GrownLog) -> Tables:
    connection = connect(":memory:")
    configure(connection, ":memory:")
    connection.execute("BEGIN")
    ask_sqlite(connection, _fill(log))
    connection.execute("COMMIT")
    return Tables(connection=connection)


async def _fill(log: GrownLog) -> None:
    await prepare_hub("sqlite")
    seal, tables = LogSeal(origin=ORIGIN, signer=SIGNER, clock=lambda: 9), LogTables()
    head = await seal.load(tables)
    sizes = [int(note.split("\n")[1]) for note in log.notes]
    for index, entry in enumerate(log.entries, start=1):
        tables.append(entry)
        if index in sizes:
            await tables.flush()
            head = await seal.move(head, tables)


BLOBS = [
    ("log_entry", "entry_index", "body"),
    ("log_entry", "entry_index", "leaf_hash"),
    ("log_node", "hash_index", "hash"),
    ("log_checkpoint", "number", "note"),
    ("log_checkpoint", "number", "root"),
    ("log_head", "id", "note"),
    ("log_head", "id", "root"),
    ("log_head", "id", "origin"),
]
TEXTS = {"note", "origin"}


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize(("table", "row", "column"), BLOBS, ids=[f"{table}.{column}" for table, _, column in BLOBS])
def test_a_bit_of_a_value_in_a_row(table: str, row: str, column: str, kind: str) -> None:
    assert everywhere(unnamed_in_rows, table, row, column, kind) == []


def unnamed_in_rows(part: int, table: str, row: str, column: str, kind: str) -> list[str]:
    """What one process has to tell of its part of all flips, over a database of its own."""
    size, commits, bits = LOGS[kind]
    if table == "log_node":  # there is none below 256 entries
        size, commits, bits = 600, 2, every_bit
    tables, unnamed = stored(sample(size, commits)), []
    with closing(tables.connection) as connection:
        tables.judge()
        as_kind = "CAST(? AS TEXT)" if column in TEXTS else "?"
        change = f"UPDATE {table} SET {column} = {as_kind} WHERE {row} = ?"
        values = connection.execute(f"SELECT {row}, CAST({column} AS BLOB) FROM {table}").fetchall()
        assert values
        for number, value in values:
            for place, bit in mine(bits(value), part):
                connection.execute(change, (flipped(value, place, bit), number))
                if not names_row(refusal(tables), table, number):
                    unnamed.append(f"{number} {place} {bit}: {refusal(tables)}")
            connection.execute(change, (value, number))
        tables.judge()
    return unnamed


@pytest.mark.parametrize(("table", "row"), [("log_head", "id"), ("log_checkpoint", "number")])
def test_a_bit_of_a_size(table: str, row: str) -> None:
    tables = stored(sample(32, 3))
    with closing(tables.connection) as connection:
        for number, size in connection.execute(f"SELECT {row}, size FROM {table}").fetchall():
            for bit in range(63):
                if (size ^ 1 << bit,) in connection.execute(f"SELECT size FROM {table}").fetchall():
                    continue  # the table holds each size once
                connection.execute(f"UPDATE {table} SET size = ? WHERE {row} = ?", (size ^ 1 << bit, number))
                assert names_row(refusal(tables), table, number), refusal(tables)
            connection.execute(f"UPDATE {table} SET size = ? WHERE {row} = ?", (size, number))
        tables.judge()


def refusal(tables: Tables) -> str:
    """Why the hub does not start, or its log does not verify; empty if both go well."""
    try:
        tables.judge()
    except (LogIntegrityError, ConfigError) as error:
        return error.message
    except sqlite3.OperationalError as error:  # which the store tells as `store.unavailable`
        return str(error)
    return ""


def names_row(message: str, table: str, number: int) -> bool:
    names = {
        "log_entry": (f"entry {number}:", f"entry {number} ", "tile/entries/000"),
        "log_node": ("tile/1/000", "head"),
        "log_checkpoint": ("checkpoints/0", "log_checkpoint"),
        "log_head": ("head", "log ", "UTF-8"),
    }
    return any(name in message for name in names[table])


def test_the_shortest_entries_are_still_entries() -> None:
    assert len(encode_entry(Deny(ts=4, client="", profile="", request="", code=""))) < 90
