# SPDX-License-Identifier: Apache-2.0
"""One connection to PostgreSQL, made anew when it was lost, and the calls that are carried out on it.

Several hub processes may use one database. Writers exclude each other by an advisory lock that belongs to the
transaction: it ends with the transaction, however that ends.
"""

import asyncio
import re
from collections.abc import Coroutine
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar

import asyncpg

from privyseal.errors import ConfigError, MalformedInputError
from privyseal.storage.batches import conflict
from privyseal.storage.calls import ROLL_BACK, SAVEPOINT, Call, Control, Insert, Query, Row, carry_out_async

__all__ = ["FAULTS", "READING", "SETTINGS", "WRITING", "Session", "connected_hubs", "database_ms", "judge_postgres"]

T = TypeVar("T")

#: What the driver raises; also a lost connection and a statement that took too long.
FAULTS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
#: The lock's number is the application id of a hub database. READ COMMITTED: what is read after the lock was got
#: is what its last holder committed.
WRITING: Final = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock(1347647816)"

_CONNECT_SECONDS: Final = 10.0
_STATEMENT_SECONDS: Final = 30.0
#: Rows from which on COPY is quicker than INSERT.
_COPY_ROWS: Final = 5
_OLDEST_SERVER: Final = 130_000
_APPLICATION: Final = "privyseal hub"
_CONNECTED: Final = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = ? AND pid <> pg_backend_pid()"
)
_CLOCK: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
SETTINGS: Final = {
    "application_name": _APPLICATION,
    "synchronous_commit": "on",
    # Less than _STATEMENT_SECONDS: the server's answer says more than a silence.
    "lock_timeout": "20s",
    # A hub that hangs in the middle of a transaction loses the lock that all others wait for, before they give up.
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
}
_SERVER: Final = (
    "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),"
    " current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery()"
)
#: The first eight digits of a WAL file's name are the timeline, which changes whenever a standby takes over.
_TIMELINE: Final = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"


async def database_ms() -> int:
    """The server's clock, milliseconds since the epoch."""
    ((now_ms,),) = await Query(_CLOCK)
    return int(now_ms)


async def connected_hubs() -> int:
    """How many other connections a hub has to this database, as far as this account is shown them."""
    ((count,),) = await Query(_CONNECTED, (_APPLICATION,))
    return int(count)


def judge_postgres(error: BaseException) -> BaseException | None:
    """What an operation's caller hears of an error; None if it ends the whole transaction."""
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return conflict(error)
    if isinstance(error, asyncpg.DataError):
        told = MalformedInputError("store.value", f"the database cannot hold a value: {error}")
        told.__cause__ = error
        return told
    if isinstance(error, asyncpg.SyntaxOrAccessError) and not isinstance(error, asyncpg.InsufficientPrivilegeError):
        return error
    return None if isinstance(error, FAULTS) else error


@cache
def _numbered(sql: str) -> str:
    """A portable statement with PostgreSQL's names for its values."""
    places = iter(range(1, sql.count("?") + 1))
    return re.sub(r"\?(\d*)", lambda match: f"${match[1] or next(places)}", sql)


@cache
def _insert(table: str, columns: tuple[str, ...]) -> str:
    marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names from this package


class Session:
    """A connection and its open transaction. All calls come from one event loop, one after the other.

    Attributes:
        timeline: The server's, when the connection was made.
        connections: How many connections were made so far.
    """

    def __init__(self, url: str, begin: str) -> None:
        self._url: Final = url
        self._begin: Final = begin
        self._connection: asyncpg.Connection[Any] | None = None
        self._released = True
        self._warnings: list[str] = []
        self.timeline = ""
        self.connections = 0

    async def begin(self) -> None:
        """Begin a transaction; on a new connection if there is none, or the one there was has been lost.

        Raises:
            ConfigError: `store.settings`.
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: as they come.
        """
        if self._connection is not None:
            try:
                await self._execute(self._begin)
            except FAULTS:
                if not self._connection.is_closed():
                    raise
                self.drop()
            else:
                return
        self._connection = await self._connect()
        await self._execute(self._begin)

    async def _connect(self) -> "asyncpg.Connection[Any]":
        connection = await asyncpg.connect(
            self._url, timeout=_CONNECT_SECONDS, statement_cache_size=256, server_settings=SETTINGS
        )
        self._released = True
        self.connections += 1
        connection.add_log_listener(self._hear)
        try:
            await self._check_server(connection)
        except (*FAULTS, ConfigError):
            connection.terminate()
            raise
        return connection

    async def _check_server(self, connection: "asyncpg.Connection[Any]") -> None:
        (row,) = await connection.fetch(_SERVER, timeout=_STATEMENT_SECONDS)
        version, encoding, *durable, standby = row
        if standby:
            raise ConnectionError("the server is a standby, which takes no writes")
        wrong = []
        if version < _OLDEST_SERVER:
            wrong.append("a version before 13")
        if encoding != "UTF8":
            wrong.append(f"encoding {encoding} instead of UTF8")
        if durable != ["on", "on"]:
            wrong.append("fsync or full_page_writes switched off: a commit there is no promise")
        if wrong:
            raise ConfigError(
                "store.settings",
                f"the PostgreSQL server cannot hold a log: {'; '.join(wrong)}",
                hint="docs/postgresql.md says what a hub needs",
            )
        self.timeline = await connection.fetchval(_TIMELINE, timeout=_STATEMENT_SECONDS)

    def _hear(self, _connection: object, message: Any) -> None:
        if message.severity_en == "WARNING":
            self._warnings.append(str(message))

    @property
    def _open(self) -> "asyncpg.Connection[Any]":
        if self._connection is None:
            raise ConnectionError("the connection was lost")
        return self._connection

    async def _execute(self, sql: str) -> str:
        return await self._open.execute(sql, timeout=_STATEMENT_SECONDS)

    async def ask(self, work: Coroutine[Call, Any, T]) -> T:
        """Carry out what a coroutine asks of the database.

        Raises:
            BaseException: whatever the coroutine raises, the errors of the driver among it.
        """
        return await carry_out_async(work, self._perform, FAULTS)

    async def _perform(self, call: Call) -> list[Row]:
        match call:
            case Query():
                found: list[Row] = await self._open.fetch(_numbered(call.sql), *call.values, timeout=_STATEMENT_SECONDS)
                return found
            case Insert():
                await self._insert(call)
            case Control():
                await self._control(call)
        return []

    async def _insert(self, call: Insert) -> None:
        if len(call.rows) < _COPY_ROWS:
            await self._open.executemany(_insert(call.table, call.columns), call.rows, timeout=_STATEMENT_SECONDS)
        else:
            await self._open.copy_records_to_table(
                call.table, records=call.rows, columns=call.columns, timeout=_STATEMENT_SECONDS
            )

    async def _control(self, call: Control) -> None:
        """RELEASE waits for the next SAVEPOINT, and travels with it. A transaction that only reads has none."""
        if self._begin == READING:
            if call is ROLL_BACK:
                await self._execute(f"ROLLBACK; {READING}")
        elif call is SAVEPOINT:
            await self._execute(call.sql if self._released else f"RELEASE operation; {call.sql}")
            self._released = False
        elif call is ROLL_BACK:
            await self._execute(call.sql)

    async def commit(self, seconds: float) -> bool | None:
        """Commit; False if the server undid the transaction instead, None if it is not known what it did."""
        self._warnings.clear()
        self._released = True
        # Never cancelled: a wait for a standby that is cancelled ends in a commit on this server alone.
        answer = asyncio.ensure_future(self._open.execute("COMMIT"))
        await asyncio.wait({answer}, timeout=seconds)
        if not answer.done():
            self.drop()
        try:
            tag = await answer
        except FAULTS:
            self.drop()
            return None
        return None if self._warnings else tag == "COMMIT"

    async def roll_back(self) -> None:
        """End the open transaction; a connection on which that fails is given up."""
        self._released = True
        if self._connection is not None:
            try:
                if self._connection.is_in_transaction():
                    await self._execute("ROLLBACK")
            except FAULTS:
                self.drop()

    def drop(self) -> None:
        """Give the connection up; the server undoes what was not committed."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with suppress(*FAULTS):
                await self._connection.close(timeout=_STATEMENT_SECONDS)
            self.drop()
