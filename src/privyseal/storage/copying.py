# SPDX-License-Identifier: Apache-2.0
"""Copying a hub's whole database from SQLite into an empty one of PostgreSQL, and seeing that it is the same.

No table and no column is named here: both databases say what they have. Rows pass through in pieces, and are read
back from PostgreSQL; a fingerprint over all rows of a table tells whether they are the same, whatever their order.
"""

# ruff: noqa: S608 - names of tables and columns come from the databases' own catalogues

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Final

import msgspec

from privyseal.errors import ConfigError, LogIntegrityError, MalformedInputError
from privyseal.storage.calls import Insert, Query
from privyseal.storage.schema import COPY_TABLE, table_names, upgrade_hub
from privyseal.storage.sqlite_committer import ask_sqlite

__all__ = ["Table", "TableRows", "check_target", "copy_tables", "count_rows", "discard_copy", "sqlite_tables"]

#: A piece holds rows until one of these is reached; a row has 2 MiB at most.
_PIECE_ROWS: Final = 4096
_PIECE_BYTES: Final = 8 * 1024 * 1024
#: Rows that are read back at once.
_FETCHED_ROWS: Final = 64

_SQLITE_COLUMNS: Final = "SELECT name FROM pragma_table_info(?) ORDER BY cid"
_COLUMNS: Final = (
    "SELECT table_name, column_name FROM information_schema.columns JOIN pg_tables"
    " ON schemaname = table_schema AND tablename = table_name"
    " WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position"
)
_REFERENCES: Final = (
    "SELECT child.relname, parent.relname FROM pg_constraint"
    " JOIN pg_class child ON child.oid = conrelid JOIN pg_class parent ON parent.oid = confrelid"
    " WHERE contype = 'f' AND connamespace = to_regnamespace(current_schema()::text)"
)
_HUB_TABLES: Final = frozenset({"privyseal_schema", "log_head"})
_LOG: Final = "SELECT origin, size FROM log_head"
_COPIED: Final = f"SELECT name FROM {COPY_TABLE}"
_EMPTY_HINT: Final = "make a database for it alone: createdb --owner ROLE --encoding UTF8 --template template0 NAME"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table, and its columns in their order."""

    name: str
    columns: tuple[str, ...]

    @property
    def selection(self) -> str:
        """A statement that gives all rows."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name}"


@dataclass(slots=True, kw_only=True)
class TableRows:
    """What rows a table has: their number, and a fingerprint that does not depend on their order."""

    table: Table
    count: int = 0
    fingerprint: int = 0

    def add(self, row: Iterable[Any]) -> None:
        """Take one row in."""
        digest = hashlib.sha256(msgspec.msgpack.encode(tuple(row))).digest()
        self.fingerprint = (self.fingerprint + int.from_bytes(digest)) % 2**256
        self.count += 1


# -- SQLite ---------------------------------------------------------------------------------------------------------


def sqlite_tables(connection: sqlite3.Connection) -> dict[str, Table]:
    """The tables of a hub's SQLite database, by name.

    Raises:
        sqlite3.Error: as it comes.
    """
    names = ask_sqlite(connection, table_names("sqlite"))
    columns = {name: connection.execute(_SQLITE_COLUMNS, (name,)).fetchall() for name in sorted(names)}
    return {name: Table(name=name, columns=tuple(column for (column,) in found)) for name, found in columns.items()}


def count_rows(connection: sqlite3.Connection, table: Table) -> TableRows:
    """How many rows a table has; without a fingerprint.

    Raises:
        sqlite3.Error: as it comes.
    """
    ((count,),) = connection.execute(f"SELECT count(*) FROM {table.name}")
    return TableRows(table=table, count=count)


def _stored_rows(connection: sqlite3.Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    number = 0
    try:
        for number, row in enumerate(connection.execute(table.selection), start=1):
            _check_texts(row, table, number)
            yield row
    except sqlite3.DatabaseError as error:
        raise _damaged(f"table {table.name} cannot be read behind row {number}: {error}") from error


def _check_texts(row: tuple[Any, ...], table: Table, number: int) -> None:
    """SQLite keeps any bytes as text."""
    for column, value in zip(table.columns, row, strict=True):
        if not isinstance(value, str) or (value.isascii() and "\0" not in value):
            continue
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _damaged(f"row {number} of table {table.name}: {column} is not text") from error
        if "\0" in value:
            raise MalformedInputError(
                "store.value",
                f"row {number} of table {table.name}: {column} has a NUL character, which PostgreSQL cannot hold",
            )


def _damaged(where: str) -> LogIntegrityError:
    return LogIntegrityError(
        "log.corrupt",
        f"the hub's database is damaged: {where}",
        hint="keep this database for inspection and bring back an undamaged copy of the newest one",
    )


def _pieces(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    piece: list[tuple[Any, ...]] = []
    size_bytes = 0
    for row in rows:
        piece.append(row)
        size_bytes += sum(len(value) for value in row if isinstance(value, (bytes, str)))
        if len(piece) >= _PIECE_ROWS or size_bytes >= _PIECE_BYTES:
            yield piece
            piece, size_bytes = [], 0
    if piece:
        yield piece


# -- PostgreSQL -----------------------------------------------------------------------------------------------------


async def check_target(origin: str) -> bool:
    """See that a database is empty but for a copy of this log that no hub has opened; whether there is one.

    Raises:
        ConfigError: `move.other_log` if it holds another log, or this one in use; `move.not_empty` for anything else.
    """
    names = await table_names("postgresql")
    if names >= _HUB_TABLES:
        for found, size in await Query(_LOG):
            if COPY_TABLE in names and found == origin:
                return True
            raise ConfigError(
                "move.other_log",
                f"the PostgreSQL database holds log {found!r} of {size} entries already",
                hint=_EMPTY_HINT,
            )
    if names:
        raise ConfigError(
            "move.not_empty",
            f"the PostgreSQL database is not empty: it has {len(names)} tables, of them {min(names)}",
            hint=_EMPTY_HINT,
        )
    return False


async def discard_copy() -> None:
    """Drop a copy that no hub has opened, if there is one. In one transaction."""
    if COPY_TABLE in await table_names("postgresql"):
        names = sorted([str(name) for (name,) in await Query(_COPIED)])
        await Query(f"DROP TABLE {', '.join((*names, COPY_TABLE))}")


async def copy_tables(connection: sqlite3.Connection) -> tuple[TableRows, ...]:
    """Make the tables in an empty database and fill them with all rows of SQLite's. In one transaction.

    Args:
        connection: To the SQLite database, which has the newest revision.

    Raises:
        ConfigError: `move.tables` if it has tables or columns of its own.
        LogIntegrityError: `log.corrupt` if it cannot be read, `move.differs` if other rows are read back.
        MalformedInputError: `store.value` for a value that PostgreSQL cannot hold.
    """
    await upgrade_hub("postgresql")
    tables = await _made_tables()
    _compare(sqlite_tables(connection), {table.name: table for table in tables})
    await Query(f"CREATE TABLE {COPY_TABLE} (name TEXT PRIMARY KEY)")
    await Insert(table=COPY_TABLE, columns=("name",), rows=[(table.name,) for table in tables])
    # What the revisions themselves have written comes with the copy.
    await Query(f"TRUNCATE {', '.join(table.name for table in tables)}")
    copied = [await _copy(connection, table) for table in tables]
    for rows in copied:
        await _read_back(rows)
    return tuple(copied)


async def _made_tables() -> tuple[Table, ...]:
    """The tables of the open database, each after those that it refers to."""
    columns: defaultdict[str, list[str]] = defaultdict(list)
    for name, column in await Query(_COLUMNS):
        columns[name].append(column)
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(sorted(columns), ()))
    for child, parent in await Query(_REFERENCES):
        if child != parent:
            order.add(child, parent)
    return tuple(Table(name=name, columns=tuple(columns[name])) for name in order.static_order())


def _compare(stored: dict[str, Table], made: dict[str, Table]) -> None:
    for name in sorted(stored.keys() | made.keys()):
        here = set(stored[name].columns) if name in stored else set()
        there = set(made[name].columns) if name in made else set()
        if here != there:
            raise ConfigError(
                "move.tables",
                f"table {name} of the SQLite database does not have the columns that this release knows:"
                f" {', '.join(sorted(here ^ there))}",
                hint="take out what was added to the hub's database by hand",
            )


async def _copy(connection: sqlite3.Connection, table: Table) -> TableRows:
    rows = TableRows(table=table)
    for piece in _pieces(_stored_rows(connection, table)):
        for row in piece:
            rows.add(row)
        await Insert(table=table.name, columns=table.columns, rows=piece)
    return rows


async def _read_back(copied: TableRows) -> None:
    table = copied.table
    found = TableRows(table=table)
    cursor = f"copied_{table.name}"
    await Query(f"DECLARE {cursor} NO SCROLL CURSOR FOR {table.selection}")
    while piece := await Query(f"FETCH {_FETCHED_ROWS} FROM {cursor}"):
        for row in piece:
            found.add(row)
    await Query(f"CLOSE {cursor}")
    if (found.count, found.fingerprint) != (copied.count, copied.fingerprint):
        raise LogIntegrityError(
            "move.differs",
            f"table {table.name} was given {copied.count} rows, and {found.count} others are read back",
            hint="nothing was changed; look at the PostgreSQL server before it is used for anything",
        )
