# SPDX-License-Identifier: Apache-2.0
"""Opening a SQLite database the way that durability needs it (SQLite: WAL, PRAGMA synchronous)."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.errors import ConfigError, UnavailableError

__all__ = ["IN_MEMORY", "Connect", "Schema", "alone", "configure", "connect", "connect_to_read", "in_use", "prepare"]

IN_MEMORY: Final = ":memory:"

#: Opens a connection by its path; tests give one whose calls fail.
Connect = Callable[[str], sqlite3.Connection]

_OWNER_ONLY: Final = 0o600
_BUSY_SECONDS: Final = 5.0
_CACHED_STATEMENTS: Final = 256

_PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The tables of one kind of database.

    Attributes:
        name: For messages.
        application_id: Written into the file's header (PRAGMA application_id): what kind of database this is.
        version: PRAGMA user_version.
        statements: DDL.
    """

    name: str
    application_id: int
    version: int
    statements: tuple[str, ...]


def connect(path: str) -> sqlite3.Connection:
    """Open a database without implicit transactions; a new file is readable by its owner alone.

    Raises:
        sqlite3.Error, OSError: as they come.
    """
    if path != IN_MEMORY:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY))
    return sqlite3.connect(
        path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        cached_statements=_CACHED_STATEMENTS,
        # Opened on one thread and then given to the only one that uses it.
        check_same_thread=False,
    )


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a database only to read, without making any file: beside a running hub, or one that crashed, or none.

    Raises:
        sqlite3.Error: as it comes.
    """
    has_wal = path.with_name(path.name + "-wal").exists()
    place = f"{path.resolve().as_uri()}?{'mode=ro' if has_wal else 'immutable=1'}"
    return sqlite3.connect(place, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)


@contextmanager
def alone(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection beside which there is no other, and can be none before the block ends.

    Raises:
        ConfigError: `store.in_use` if another process has the database open.
        UnavailableError: `store.unavailable` if it cannot be opened.
    """
    try:
        with closing(connect(str(path))) as connection:
            # Whoever has the database open in WAL mode holds a lock that this asks for; nothing may come between.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            configure(connection, str(path))
            yield connection
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise in_use(f"another process has {path} open") from error
        raise UnavailableError(
            "store.unavailable",
            f"the database {path} cannot be used: {error}",
            hint="stop the hub, check the database, free space and permissions, and run the same command again",
        ) from error


def in_use(why: str) -> ConfigError:
    """The error for a database that is needed alone, and is not."""
    return ConfigError("store.in_use", why, hint="stop the hub; it can start again afterwards")


def _text(data: bytes) -> str:
    """A damaged text may not be UTF-8 any more: it is read all the same, so that its place can be named."""
    return data.decode("utf-8", "surrogateescape")


def configure(connection: sqlite3.Connection, path: str) -> None:
    """Set journal mode and durability of a fresh connection.

    Raises:
        ConfigError: `store.no_wal` if the file system cannot do WAL.
        sqlite3.Error: as it comes.
    """
    connection.text_factory = _text
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if path != IN_MEMORY and mode != "wal":
        raise ConfigError(
            "store.no_wal",
            f"{path} cannot be opened in WAL mode (the database says {mode})",
            hint="put the database on a local file system",
        )
    for pragma in _PRAGMAS:
        connection.execute(pragma)


def prepare(connection: sqlite3.Connection, schema: Schema) -> None:
    """Create the tables in an empty database; refuse one of another kind or version. Inside a transaction.

    Raises:
        ConfigError: `store.foreign` or `store.schema`.
        sqlite3.Error: as it comes.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables == 0 and application_id == 0:
        for statement in schema.statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.application_id:d}")
        connection.execute(f"PRAGMA user_version = {schema.version:d}")
        return
    if application_id != schema.application_id:
        raise ConfigError("store.foreign", f"the database exists and is not a {schema.name}")
    if version != schema.version:
        raise ConfigError(
            "store.schema",
            f"the {schema.name} has schema version {version}; this release reads version {schema.version}",
            hint="use the release that wrote it, or a newer one",
        )
