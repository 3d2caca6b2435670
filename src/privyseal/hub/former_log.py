# SPDX-License-Identifier: Apache-2.0
"""The database of a log that is given up, while no hub uses it: reading its head, and putting it aside for another."""

import asyncio
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from privyseal.errors import UnavailableError
from privyseal.hub.config import HubConfig, HubFiles
from privyseal.storage.calls import Call
from privyseal.storage.connection import configure, connect
from privyseal.storage.giving_up import copy_log, empty_log, stored_head
from privyseal.storage.postgres_session import FAULTS, WRITING, Session
from privyseal.storage.pruning import ensure_unused
from privyseal.storage.sqlite_committer import ask_sqlite

__all__ = ["FormerDatabase", "former_database"]

T = TypeVar("T")
_COMMIT_SECONDS: Final = 60.0
_HINT: Final = "stop the hub, check the database, free space and permissions, and run the same command again"


class FormerDatabase(Protocol):
    """Where a hub's log is. Every call raises UnavailableError `store.unavailable` if the database failed."""

    def head(self) -> tuple[str, str] | None:
        """Origin and newest checkpoint of the log in it; None if it holds none.

        Raises:
            ConfigError: `store.in_use` while a hub runs, where that can be seen.
        """
        ...

    def begin_another(self, archive: Path, serial: int, *, origin: str, note: str) -> None:
        """Keep a copy of the log under the name of its trust bundle's serial, and put an empty one in its place."""
        ...


def former_database(files: HubFiles, config: HubConfig) -> FormerDatabase:
    """The database of the hub in a directory."""
    return _Postgres(config.database) if config.database else _Sqlite(files.database)


class _Sqlite:
    """The copy is a file: a hub that is started beside it can show the former log to auditors."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def head(self) -> tuple[str, str] | None:
        ensure_unused(self._path)
        return self._run(stored_head())

    def begin_another(self, archive: Path, serial: int, *, origin: str, note: str) -> None:
        del serial
        with (
            closing(connect(str(self._path))) as connection,
            closing(sqlite3.connect(archive / self._path.name)) as copy,
        ):
            connection.backup(copy)
        self._run(empty_log(origin, note))

    def _run(self, work: Coroutine[Call, Any, T]) -> T:
        with closing(connect(str(self._path))) as connection:
            configure(connection, str(self._path))
            connection.execute("BEGIN IMMEDIATE")
            value = ask_sqlite(connection, work)
            connection.execute("COMMIT")
            return value


class _Postgres:
    """The copy is tables `closed_<serial>_…` in the same database."""

    def __init__(self, url: str) -> None:
        self._url: Final = url

    def head(self) -> tuple[str, str] | None:
        return asyncio.run(self._run(stored_head()))

    def begin_another(self, archive: Path, serial: int, *, origin: str, note: str) -> None:
        del archive

        async def work() -> None:
            await copy_log(f"closed_{serial:d}")
            await empty_log(origin, note)

        asyncio.run(self._run(work()))

    async def _run(self, work: Coroutine[Call, Any, T]) -> T:
        session = Session(self._url, WRITING)
        try:
            await session.begin()
            value = await session.ask(work)
            if not await session.commit(_COMMIT_SECONDS):
                raise UnavailableError(
                    "store.unavailable", "it is not known whether the database took the change", hint=_HINT
                )
        except FAULTS as error:
            raise UnavailableError("store.unavailable", f"the database cannot be used: {error}", hint=_HINT) from error
        finally:
            work.close()
            await session.close()
        return value
