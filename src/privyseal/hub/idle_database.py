# SPDX-License-Identifier: Apache-2.0
"""A hub's database while no hub uses it: what `log reopen`, `log prune` and `hub migrate` do there."""

import asyncio
import sqlite3
import time
from collections.abc import Coroutine, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from privyseal.errors import UnavailableError
from privyseal.hub.config import HubConfig, HubFiles
from privyseal.storage.calls import Call
from privyseal.storage.connection import alone, configure, connect, connect_to_read, in_use
from privyseal.storage.giving_up import copy_log, empty_log, stored_head
from privyseal.storage.postgres_session import FAULTS, READING, WRITING, Session, connected_hubs
from privyseal.storage.pruning import drop_bodies
from privyseal.storage.schema import found_revision, upgrade_hub
from privyseal.storage.sqlite_committer import ask_sqlite

__all__ = ["IdleDatabase", "idle_database"]

T = TypeVar("T")
_COMMIT_SECONDS: Final = 60.0
_OTHERS_SECONDS: Final = 2.0
_ASK_AGAIN_SECONDS: Final = 0.1
_HINT: Final = "stop the hub, check the database, free space and permissions, and run the same command again"


class IdleDatabase(Protocol):
    """Where a hub's log is. Every call raises UnavailableError `store.unavailable` if the database failed."""

    def ensure_unused(self) -> None:
        """Refuse a database that a hub has open.

        Raises:
            ConfigError: `store.in_use`.
        """
        ...

    def revision(self) -> str | None:
        """The revision of its tables; None if it is empty. A hub may use it meanwhile.

        Raises:
            ConfigError: `store.foreign`.
        """
        ...

    def upgrade(self) -> str | None:
        """Bring its tables to the newest revision; the one that they had.

        Raises:
            ConfigError: `store.foreign`, `store.schema`.
        """
        ...

    def head(self) -> tuple[str, str] | None:
        """Origin and newest checkpoint of the log in it; None if it holds none."""
        ...

    def begin_another(self, archive: Path, serial: int, *, origin: str, note: str) -> None:
        """Keep a copy of the log under the name of its trust bundle's serial, and put an empty one in its place."""
        ...

    def drop_bodies(self, indexes: Iterable[int]) -> None:
        """Drop entries' bodies, all or none, and let the room be used again."""
        ...


def idle_database(files: HubFiles, config: HubConfig) -> IdleDatabase:
    """The database of the hub in a directory."""
    return _Postgres(config.database) if config.database else _Sqlite(files.database)


class _Sqlite:
    """The copy is a file: a hub that is started beside it can show the former log to auditors."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def ensure_unused(self) -> None:
        with alone(self._path):
            pass

    def revision(self) -> str | None:
        if not self._path.exists():
            return None
        try:
            with closing(connect_to_read(self._path)) as connection:
                return ask_sqlite(connection, found_revision("sqlite"))
        except sqlite3.Error as error:
            raise UnavailableError(
                "store.unavailable", f"the database {self._path} cannot be read: {error}", hint=_HINT
            ) from error

    def upgrade(self) -> str | None:
        with alone(self._path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            before = ask_sqlite(connection, upgrade_hub("sqlite"))
            connection.execute("COMMIT")
            return before

    def head(self) -> tuple[str, str] | None:
        return self._run(stored_head())

    def begin_another(self, archive: Path, serial: int, *, origin: str, note: str) -> None:
        del serial
        with (
            closing(connect(str(self._path))) as connection,
            closing(sqlite3.connect(archive / self._path.name)) as copy,
        ):
            connection.backup(copy)
        self._run(empty_log(origin, note))

    def drop_bodies(self, indexes: Iterable[int]) -> None:
        with alone(self._path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            ask_sqlite(connection, drop_bodies(indexes))
            connection.execute("COMMIT")
            connection.execute("VACUUM")

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

    def ensure_unused(self) -> None:
        asyncio.run(self._wait_for_others())

    async def _wait_for_others(self) -> None:
        """A server sees the end of a hub a moment after the hub."""
        end = time.monotonic() + _OTHERS_SECONDS
        while count := await self._run(connected_hubs()):
            if time.monotonic() > end:
                raise in_use(f"the PostgreSQL database has {count} connections of a hub")
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    def revision(self) -> str | None:
        return asyncio.run(self._run(found_revision("postgresql"), READING))

    def upgrade(self) -> str | None:
        return asyncio.run(self._run(upgrade_hub("postgresql")))

    def head(self) -> tuple[str, str] | None:
        return asyncio.run(self._run(stored_head()))

    def begin_another(self, archive: Path, serial: int, *, origin: str, note: str) -> None:
        del archive

        async def work() -> None:
            await copy_log(f"closed_{serial:d}")
            await empty_log(origin, note)

        asyncio.run(self._run(work()))

    def drop_bodies(self, indexes: Iterable[int]) -> None:
        asyncio.run(self._run(drop_bodies(indexes)))

    async def _run(self, work: Coroutine[Call, Any, T], begin: str = WRITING) -> T:
        session = Session(self._url, begin)
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
