# SPDX-License-Identifier: Apache-2.0
"""Dropping the bodies of old entries from a hub's SQLite database while no hub uses it. Their leaf hashes stay."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from privyseal.errors import ConfigError, UnavailableError
from privyseal.storage.connection import configure, connect

__all__ = ["drop_bodies", "ensure_unused"]

_DROP: Final = "UPDATE log_entry SET body = x'' WHERE entry_index = ?"


@contextmanager
def _alone(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection beside which there is no other."""
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
            raise ConfigError(
                "store.in_use", f"another process has {path} open", hint="stop the hub; it can start again afterwards"
            ) from error
        raise UnavailableError("store.unavailable", f"the database {path} cannot be used: {error}") from error


def ensure_unused(path: Path) -> None:
    """Refuse a database that somebody has open.

    Raises:
        ConfigError: `store.in_use`.
        UnavailableError: `store.unavailable`.
    """
    with _alone(path):
        pass


def drop_bodies(path: Path, indexes: Iterable[int]) -> None:
    """Drop entries' bodies, all or none, and give the room back.

    Raises:
        ConfigError: `store.in_use`.
        UnavailableError: `store.unavailable`.
    """
    with _alone(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_DROP, ((index,) for index in indexes))
        connection.execute("COMMIT")
        connection.execute("VACUUM")
