# SPDX-License-Identifier: Apache-2.0
"""`hub migrate --to`: moving a hub from its SQLite file into a PostgreSQL database, with everything that it has.

hub.toml decides which of the two is in force, and it is replaced in one step, after the copy is committed and verified.
This process has the SQLite database alone from its first look to the end. A copy that was committed and not named in
hub.toml is marked as such; the next run throws it away and begins anew. After hub.toml was replaced the move is only to
be completed: an `admin` entry in the log, and hub.db under another name. A hub may run in between.
"""

import asyncio
import datetime as dt
import os
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.hub.config import HubConfig, HubFiles, load_hub_config
from privyseal.hub.database import open_store
from privyseal.hub.database_line import with_database
from privyseal.hub.idle_database import idle_database
from privyseal.identity.bundle import load_bundle
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import Clock, system_clock
from privyseal.ports.store import LogHead, ReadTx, Store, Tx
from privyseal.storage.calls import Call
from privyseal.storage.connection import alone
from privyseal.storage.copying import TableRows, check_target, copy_tables, count_rows, discard_copy, sqlite_tables
from privyseal.storage.durable_file import FileSystem, PosixFileSystem, replace_durably
from privyseal.storage.head import LogSeal, check_extends
from privyseal.storage.head_file import HeadFile
from privyseal.storage.log_tables import LogTables
from privyseal.storage.postgres_session import FAULTS, READING, WRITING, Session
from privyseal.storage.postgres_url import check_database_url, database_place
from privyseal.storage.schema import check_revision, found_revision
from privyseal.storage.sqlite_committer import ask_sqlite
from privyseal.storage.whole_log import check_whole_log
from privyseal.tlog.entry import Admin, encode_entry, parse_entry
from privyseal.tlog.note import NoteSigner
from privyseal.tlog.tile import TILE_WIDTH

__all__ = ["Moved", "Stage", "move_hub"]

T = TypeVar("T")

_COMMIT_SECONDS: Final = 600.0
_AGAIN: Final = "run the same command again"
_DAMAGED: Final = "keep this database for inspection and bring back an undamaged copy of the newest one"


class Stage(StrEnum):
    """What has been done, in this order."""

    SOURCE = "the SQLite database is whole, and used by nobody else"
    TARGET = "the PostgreSQL database is empty"
    COPIED = "every row was copied and read back"
    VERIFIED = "the log was recomputed from the copy"
    COMMITTED = "the copy is committed"
    SWITCHED = "hub.toml names the PostgreSQL database"
    RECORDED = "the log says so"
    ASIDE = "the SQLite database is put aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What was done, or would be.

    Attributes:
        place: The PostgreSQL database, for people.
        tables: (name, number of rows) of each table; empty if an earlier run had copied them.
        entries: How many entries the log had.
        index: Of the entry that tells of the move; None after a dry run.
        aside: Where the SQLite database is now; None after a dry run.
        seconds: How long it took.
    """

    place: str
    tables: tuple[tuple[str, int], ...]
    entries: int
    index: int | None
    aside: Path | None
    seconds: float


class _SameOwner(PosixFileSystem):
    """Gives a file owner and mode of the one that it replaces."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file the name of another, in one step."""
        if target.exists():
            found = target.stat()
            os.chown(source, found.st_uid, found.st_gid)
            source.chmod(found.st_mode & 0o777)
        super().rename(source, target)


async def move_hub(
    directory: Path,
    url: str,
    *,
    dry_run: bool = False,
    told: Callable[[Stage], None] = lambda _: None,
    files: FileSystem | None = None,
    clock: Clock = system_clock,
) -> Moved:
    """Move the hub in a directory, which must not run.

    Args:
        directory: The hub's.
        url: Of an empty database, as hub.toml may have it.
        dry_run: Only look at both.
        told: Called as each stage is reached.
        files: Replaces hub.toml and names files.
        clock: Dates the entry that tells of the move.

    Raises:
        ConfigError: `config.database`, `store.in_use`, `store.old_schema`, `move.already`, `move.nothing`,
            `move.other_log`, `move.not_empty`, `move.tables`; what is missing or malformed.
        LogIntegrityError: `log.corrupt`, `log.rollback` and their like for the SQLite database; `move.differs`.
        UnavailableError: `store.unavailable` before the switch: then nothing was changed. `move.unfinished` behind it.
        MalformedInputError: `store.value`.
    """
    check_database_url(url)
    started_s = time.monotonic()
    path = HubFiles(directory).database
    if not path.exists():
        config = load_hub_config(directory)
        raise _already(directory, config) if config.database else _nothing(path)
    try:
        with alone(path) as connection:
            move = _Move(directory, url, connection, told=told, files=files or _SameOwner(), clock=clock)
            return await move.run(started_s, dry_run=dry_run)
    except sqlite3.DatabaseError as error:
        raise LogIntegrityError("log.corrupt", f"the database {path} is damaged: {error}", hint=_DAMAGED) from error


class _Move:
    """One run, with the SQLite database held."""

    def __init__(
        self,
        directory: Path,
        url: str,
        connection: sqlite3.Connection,
        *,
        told: Callable[[Stage], None],
        files: FileSystem,
        clock: Clock,
    ) -> None:
        self._directory: Final = directory
        self._url: Final = url
        self._place: Final = database_place(url)
        self._connection: Final = connection
        self._told: Final = told
        self._files: Final = files
        self._clock: Final = clock
        self._hub: Final = HubFiles(directory)
        self._origin: Final = load_bundle(self._hub.bundle).origin
        self._signer: Final = NoteSigner(name=self._origin, key=load_ed25519(self._hub.log_key))

    async def run(self, started_s: float, *, dry_run: bool) -> Moved:
        config = load_hub_config(self._directory)
        if config.database not in ("", self._url):
            raise _already(self._directory, config)
        head = self._check_source(beside_copy=bool(config.database))
        self._told(Stage.SOURCE)
        tables: tuple[TableRows, ...] = ()
        if config.database:
            await self._ask(self._check_copy(head), READING)
        else:
            await self._ask(check_target(self._origin), READING)
            if not dry_run:
                await self._ask(discard_copy())
            self._told(Stage.TARGET)
            tables = self._counted() if dry_run else await self._copy_and_switch(head)
        index, aside = (None, None) if dry_run else await self._complete(head, config)
        return Moved(
            place=self._place,
            tables=tuple((one.table.name, one.count) for one in tables),
            entries=head.size,
            index=index,
            aside=aside,
            seconds=time.monotonic() - started_s,
        )

    # -- the SQLite database ----------------------------------------------------------------------------------------

    def _check_source(self, *, beside_copy: bool) -> LogHead:
        """Its head, once it is known to be whole, and the newest unless a copy has gone on from it."""
        revision = ask_sqlite(self._connection, found_revision("sqlite"))
        if revision is None:
            raise _nothing(self._hub.database)
        check_revision("sqlite", revision)
        problems = [str(row[0]) for row in self._connection.execute("PRAGMA quick_check(3)")]
        if problems != ["ok"]:
            raise LogIntegrityError(
                "log.corrupt",
                f"the database {self._hub.database} is damaged: {'; '.join(problems)[:300]}",
                hint=_DAMAGED,
            )
        self._connection.execute("BEGIN")
        try:
            head = ask_sqlite(self._connection, self._checked_head(beside_copy=beside_copy))
        finally:
            self._connection.execute("ROLLBACK")
        if not head.size:
            raise _nothing(self._hub.database)
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the file alone is the database
        return head

    async def _checked_head(self, *, beside_copy: bool = False) -> LogHead:
        """The head of a database's log as a hub checks it at its start."""
        log = LogTables()
        head = await self._seal().load(log)
        if not beside_copy:
            await self._head_file().check(head, log)
        return head

    def _seal(self) -> LogSeal:
        return LogSeal(origin=self._origin, signer=self._signer, clock=self._clock)

    def _head_file(self) -> HeadFile:
        return HeadFile(path=self._hub.head, files=self._files, origin=self._origin, log_key=self._signer.verifier)

    def _counted(self) -> tuple[TableRows, ...]:
        tables = sqlite_tables(self._connection)
        return tuple(count_rows(self._connection, tables[name]) for name in sorted(tables))

    # -- the copy, and the switch -----------------------------------------------------------------------------------

    async def _copy_and_switch(self, head: LogHead) -> tuple[TableRows, ...]:
        switched = False
        try:
            tables = await self._ask(self._copy(head))
            self._told(Stage.COMMITTED)
            self._name_database()
            switched = True
        finally:
            if not switched:
                await self._undo()
        self._told(Stage.SWITCHED)
        return tables

    async def _copy(self, head: LogHead) -> tuple[TableRows, ...]:
        await check_target(self._origin)  # again, under the lock
        tables = await copy_tables(self._connection)
        self._told(Stage.COPIED)
        copied = await self._checked_head()
        if copied != head:
            raise LogIntegrityError(
                "move.differs", f"the copy's head is not that of the log, at size {head.size}", hint=_AGAIN
            )
        await check_whole_log(LogTables(), copied)
        self._told(Stage.VERIFIED)
        return tables

    def _name_database(self) -> None:
        path = self._hub.config
        try:
            text = with_database(path.read_bytes().decode(), self._url)
            replace_durably(self._files, path, text.encode())
        except OSError as error:
            raise UnavailableError(
                "store.unavailable",
                f"{path} could not be replaced: {error}",
                hint=f"make room, let this account write there, and {_AGAIN}",
            ) from error

    async def _undo(self) -> None:
        """Throw the copy away, unless hub.toml was replaced after all. If even that fails, the next run does it."""
        with suppress(PrivysealError):
            if load_hub_config(self._directory).database != self._url:
                await self._ask(discard_copy())

    async def _ask(self, work: Coroutine[Call, Any, T], begin: str = WRITING) -> T:
        """Carry work out in one transaction of the PostgreSQL database."""
        session = Session(self._url, begin)
        try:
            await session.begin()
            value = await session.ask(work)
            if not await session.commit(_COMMIT_SECONDS):
                raise ConnectionError("it is not known whether it has committed the copy")
        except FAULTS as error:
            raise UnavailableError(
                "store.unavailable",
                f"the {self._place} cannot be used: {error}",
                hint="does the server run, and does it let this account in? docs/postgresql.md",
            ) from error
        finally:
            work.close()
            await session.close()
        return value

    # -- behind the switch ------------------------------------------------------------------------------------------

    async def _check_copy(self, head: LogHead) -> None:
        """See that hub.toml names a database that goes on from this one."""
        if await found_revision("postgresql") is None:
            raise ConfigError(
                "move.already",
                f"{self._hub.config} names the {self._place} already, which is empty",
                hint="take the line `database` out: this command writes it once everything is there",
            )
        log = LogTables()
        copied = await self._seal().load(log)
        await check_extends(log, copied, size=head.size, root=head.root, seen=str(self._hub.database))

    async def _complete(self, head: LogHead, before: HubConfig) -> tuple[int, Path]:
        try:
            if before.database:
                await asyncio.to_thread(idle_database(self._hub, before).ensure_unused)
                self._files.sync_directory(self._directory)
            index = await self._record(head)
            self._told(Stage.RECORDED)
            aside = self._put_aside()
            self._told(Stage.ASIDE)
        except (PrivysealError, OSError) as error:
            raise UnavailableError(
                "move.unfinished",
                f"{self._hub.config} names the {self._place} now, but the move is not complete: {error}",
                hint=f"{_AGAIN}; the hub may run meanwhile",
            ) from error
        return index, aside

    async def _record(self, head: LogHead) -> int:
        """Say in the log that it was moved, once; the entry's index."""
        store = await open_store(load_hub_config(self._directory), self._origin, self._hub, self._clock)

        async def say(tx: Tx) -> int:
            entry = Admin(
                ts=await tx.now_ms(), action="move", bundle="", entries=head.size, reason="SQLite to PostgreSQL"
            )
            return await tx.append(encode_entry(entry))

        try:
            found = await _move_entry(store, head.size)
            return await store.write(say) if found is None else found
        finally:
            await store.close()

    def _put_aside(self) -> Path:
        path = self._hub.database
        now = dt.datetime.fromtimestamp(self._clock() / 1000, dt.UTC)
        aside = path.with_name(f"{path.name}.moved-{now:%Y%m%dT%H%M%SZ}")
        self._files.rename(path, aside)
        # Empty since the look at the beginning; SQLite leaves them to a database that has another name now.
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        self._files.sync_directory(self._directory)
        return aside


async def _move_entry(store: Store, size: int) -> int | None:
    """The index of the entry that tells of the move of a log of that size."""
    for first in range(size, store.head.size, TILE_WIDTH):

        async def read(tx: ReadTx, start: int = first) -> tuple[bytes, ...]:
            return await tx.entries(start, TILE_WIDTH)

        for index, data in enumerate(await store.read(read), start=first):
            match parse_entry(data):
                case Admin(action="move", entries=entries) if entries == size:
                    return index
    return None


def _already(directory: Path, config: HubConfig) -> ConfigError:
    return ConfigError(
        "move.already",
        f"the hub in {directory} has its log in the {database_place(config.database)} already",
        hint="nothing is to be moved: privyseal hub run starts it there",
    )


def _nothing(path: Path) -> ConfigError:
    return ConfigError(
        "move.nothing",
        f"there is no log in {path} that could be moved",
        hint="name the PostgreSQL database in hub.toml, then start the hub: it begins its log there",
    )
