# SPDX-License-Identifier: Apache-2.0
"""A hub's database while no hub uses it: what `log reopen` and `log prune` do there."""

import asyncio
import sqlite3
import time
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from privyseal.errors import ConfigError, UnavailableError
from privyseal.hub.config import HubConfig, HubFiles
from privyseal.storage.calls import Call
from privyseal.storage.connection import configure, connect
from privyseal.storage.giving_up import copy_log, empty_log, stored_head
from privyseal.storage.postgres_session import FAULTS, WRITING, Session, connected_hubs
from privyseal.storage.pruning import drop_bodies
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
        with self._alone():
            pass

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
        with self._alone() as connection:
            connection.execute("BEGIN IMMEDIATE")
            ask_sqlite(connection, drop_bodies(indexes))
            connection.execute("COMMIT")
            connection.execute("VACUUM")

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """A connection beside which there is no other."""
        try:
            with closing(connect(str(self._path))) as connection:
                # Whoever has the database open in WAL mode holds a lock that this asks for; nothing may come between.
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                connection.execute("PRAGMA busy_timeout = 0")
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("COMMIT")
                configure(connection, str(self._path))
                yield connection
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise _in_use(f"another process has {self._path} open") from error
            raise UnavailableError(
                "store.unavailable", f"the database {self._path} cannot be used: {error}", hint=_HINT
            ) from error

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
                raise _in_use(f"the PostgreSQL database has {count} connections of a hub")
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

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


def _in_use(why: str) -> ConfigError:
    return ConfigError("store.in_use", why, hint="stop the hub; it can start again afterwards")
