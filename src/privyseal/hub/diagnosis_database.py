# SPDX-License-Identifier: Apache-2.0
"""What `privyseal doctor` looks at in a hub's database; it writes nothing and takes no lock for long."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any, Final, TypeVar

from privyseal.errors import LogIntegrityError, UnavailableError
from privyseal.hub.config import HubConfig, HubFiles
from privyseal.identity.bundle import load_bundle
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import Clock
from privyseal.ports.diagnosis import Row, look, passed, skipped, warned
from privyseal.ports.store import LogHead
from privyseal.storage.calls import Call, Query
from privyseal.storage.connection import connect_to_read
from privyseal.storage.durable_file import PosixFileSystem
from privyseal.storage.head import LogSeal
from privyseal.storage.head_file import HeadFile
from privyseal.storage.log_tables import LogTables
from privyseal.storage.postgres_session import FAULTS, READING, Session
from privyseal.storage.postgres_url import database_place
from privyseal.storage.schema import found_revision
from privyseal.storage.sqlite_committer import ask_sqlite
from privyseal.tlog.note import NoteSigner

__all__ = ["database_rows"]

_LOOKS: Final = 5
_DATABASE: Final = "database"
_HEAD: Final = "log head"
_RESTORE: Final = "stop the hub, keep this database for inspection, and bring back an undamaged copy of the newest one"

T = TypeVar("T")

#: Carries out reads in one transaction.
_Ask = Callable[[Coroutine[Call, Any, LogHead]], LogHead]


def database_rows(files: HubFiles, config: HubConfig, clock: Clock) -> tuple[Row, ...]:
    """Whether the database is sound, and the newest one."""
    if config.database:
        url = config.database
        rows = (
            look(_DATABASE, lambda: _check_postgres(url)),
            look(_HEAD, lambda: _check_postgres_head(url, files, clock)),
        )
        return (*rows, _unfinished(files)) if files.database.exists() else rows
    return (
        look(_DATABASE, lambda: _check_sqlite(files)),
        look(_HEAD, lambda: _check_sqlite_head(files, clock)),
    )


# -- PostgreSQL -----------------------------------------------------------------------------------------------------


def _ask_postgres(url: str, work: Coroutine[Call, Any, T]) -> T:
    async def ask() -> T:
        session = Session(url, READING)
        try:
            await session.begin()
            return await session.ask(work)
        except FAULTS as error:
            raise UnavailableError(
                "store.unavailable",
                f"the {database_place(url)} cannot be read: {error}",
                hint="does the server run, and does it let this account in? docs/postgresql.md",
            ) from error
        finally:
            work.close()
            await session.close()

    return asyncio.run(ask())


def _check_postgres(url: str) -> Row:
    """The server's settings are held against what a log needs with each connection; here only the standby is."""

    async def standby() -> str:
        ((names,),) = await Query("SELECT current_setting('synchronous_standby_names')")
        return str(names)

    place = database_place(url)
    if not _ask_postgres(url, standby()):
        return warned(
            _DATABASE,
            f"{place}: its settings fit, and it has no synchronous standby",
            "let nothing promote another server by itself: it would lack the newest entries (docs/postgresql.md)",
        )
    return passed(_DATABASE, f"{place}: its settings fit, and a standby has each commit before it is acknowledged")


def _check_postgres_head(url: str, files: HubFiles, clock: Clock) -> Row:
    if _ask_postgres(url, found_revision("postgresql")) is None:
        return skipped(_HEAD, "the database is empty", "privyseal hub run")
    return _check_head(lambda work: _ask_postgres(url, work), files, clock)


def _unfinished(files: HubFiles) -> Row:
    return warned(
        files.database.name,
        f"{files.database} is here, but {files.config.name} names a PostgreSQL database: a move was interrupted?",
        "stop the hub, then complete it: privyseal hub migrate --dir DIR --to URL, with the URL of hub.toml",
    )


# -- SQLite ---------------------------------------------------------------------------------------------------------


def _unavailable(files: HubFiles, error: sqlite3.Error) -> UnavailableError:
    return UnavailableError(
        "store.unavailable",
        f"the database {files.database} cannot be read: {error}",
        hint="check path, permissions and free space",
    )


def _check_sqlite(files: HubFiles) -> Row:
    """PRAGMA quick_check, beside a running hub if need be: WAL lets readers in."""
    if not files.database.exists():
        return skipped(_DATABASE, f"{files.database} is not there: this hub was never started", "privyseal hub run")
    try:
        with closing(connect_to_read(files.database)) as connection:
            problems = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise _unavailable(files, error) from error
        problems = [str(error)]
    if problems != ["ok"]:
        raise LogIntegrityError(
            "log.corrupt", f"the database {files.database} is damaged: {'; '.join(problems)[:300]}", hint=_RESTORE
        )
    return passed(_DATABASE, f"{files.database}: quick_check finds nothing")


def _check_sqlite_head(files: HubFiles, clock: Clock) -> Row:
    if not files.database.exists():
        return skipped(_HEAD, "there is no database yet", "privyseal hub run")
    try:
        with closing(connect_to_read(files.database)) as connection:

            def ask(work: Coroutine[Call, Any, LogHead]) -> LogHead:
                connection.execute("BEGIN")
                try:
                    return ask_sqlite(connection, work)
                finally:
                    connection.execute("ROLLBACK")

            return _check_head(ask, files, clock)
    except sqlite3.Error as error:
        raise _unavailable(files, error) from error


# -- either ---------------------------------------------------------------------------------------------------------


def _check_head(ask: _Ask, files: HubFiles, clock: Clock) -> Row:
    """The tree, the signed head and head.checkpoint agree, as the hub itself asks at its start (DESIGN §5)."""
    origin = load_bundle(files.bundle).origin
    signer = NoteSigner(name=origin, key=load_ed25519(files.log_key))
    seal = LogSeal(origin=origin, signer=signer, clock=clock)
    head_file = HeadFile(path=files.head, files=PosixFileSystem(), origin=origin, log_key=signer.verifier)

    async def agreed() -> LogHead:
        log = LogTables()
        head = await seal.load(log)
        await head_file.check(head, log)
        return head

    # A hub that runs meanwhile may replace the file after the database was read: then both are read again.
    for last in (*(False,) * (_LOOKS - 1), True):
        try:
            head = ask(agreed())
        except LogIntegrityError as error:
            if last or error.code != "log.rollback":
                raise
        else:
            return passed(_HEAD, f"{head.size} entries; tree, signed head and {files.head.name} agree")
    raise AssertionError  # the loop returns or raises
