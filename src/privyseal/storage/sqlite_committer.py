# SPDX-License-Identifier: Apache-2.0
"""Batches as transactions of SQLite: what the store's writer thread does.

Three kinds of trouble are kept apart. An operation's own error undoes that operation. A database error before
COMMIT undoes the batch, and nothing was lost. An error of COMMIT itself, or of `head.checkpoint` behind it,
leaves open what is durable: from then on nothing is written, and nothing is read that might not be committed.
"""

import sqlite3
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar

from privyseal.errors import LogIntegrityError, PrivysealError
from privyseal.ports.store import LogHead
from privyseal.storage.batches import conflict, fail_all, run_batch, unavailable
from privyseal.storage.calls import Call, Control, Insert, Query, Row, carry_out
from privyseal.storage.head import LogSeal, head_moved
from privyseal.storage.head_file import HeadKeeper
from privyseal.storage.log_tables import LogTables
from privyseal.storage.schema import prepare_hub
from privyseal.storage.transaction import StoreReadTx, StoreTx
from privyseal.storage.worker import Task
from privyseal.tlog.tree import Frontier

__all__ = ["SqliteCommitter", "ask_sqlite"]

T = TypeVar("T")

#: Errors that speak of one statement or its values; all others speak of the database.
_STATEMENT_ERRORS: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.NotSupportedError,
)


def ask_sqlite(connection: sqlite3.Connection, work: Coroutine[Call, Any, T]) -> T:
    """Carry out what a coroutine asks of a database.

    Raises:
        BaseException: whatever the coroutine raises.
        sqlite3.Error: as it comes.
    """

    def perform(call: Call) -> list[Row]:
        match call:
            case Query():
                return connection.execute(call.sql, call.values).fetchall()
            case Insert():
                connection.executemany(_insert(call.table, call.columns), call.rows)
            case Control():
                connection.execute(call.sql)
        return []

    return carry_out(work, perform, (sqlite3.Error,))


@cache
def _insert(table: str, columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names from this package


def _judge(error: BaseException) -> BaseException | None:
    if isinstance(error, sqlite3.IntegrityError):
        return conflict(error)
    if isinstance(error, sqlite3.Error) and not isinstance(error, _STATEMENT_ERRORS):
        return None
    return error


class SqliteCommitter:
    """The store's engine. Every call belongs to one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, *, seal: LogSeal, keeper: HeadKeeper) -> None:
        self._connection: Final = connection
        self._seal: Final = seal
        self._keeper: Final = keeper
        self._log: Final = LogTables()
        self._read_tx: Final = StoreReadTx(self._log, seal.database_ms)
        self._tx: Final = StoreTx(self._log, seal, seal.database_ms)
        self._committed = Frontier()
        self._write_refusal: PrivysealError | None = None
        self._read_refusal: PrivysealError | None = None

    def start(self) -> None:
        """Create or check tables, head and `head.checkpoint`.

        Raises:
            ConfigError, LogIntegrityError: as `SqliteStore.open`.
            sqlite3.Error, OSError: as they come.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        head = ask_sqlite(self._connection, self._load())
        self._committed = self._log.frontier
        self._connection.execute("COMMIT")
        self._keeper.start(head)

    async def _load(self) -> LogHead:
        await prepare_hub("sqlite")
        head = await self._seal.load(self._log)
        await self._keeper.check(head, self._log)
        return head

    def process(self, tasks: list[Task[Any]]) -> Iterator[list[Task[Any]]]:
        """Reads first: they need not wait for the commit."""
        reads = [task for task in tasks if not task.writes]
        writes = [task for task in tasks if task.writes]
        if reads:
            self._read(reads)
            yield reads
        if writes:
            self._write(writes)
            yield writes

    def _read(self, tasks: list[Task[Any]]) -> None:
        """Run reads on the newest committed state."""
        if self._read_refusal is not None:
            fail_all(tasks, self._read_refusal)
            return
        try:
            self._reset()
            self._connection.execute("BEGIN")
            ask_sqlite(self._connection, run_batch(tasks, self._read_tx, self._log, _judge))
        except sqlite3.Error as error:
            fail_all(tasks, unavailable("could not be read", error), error)
        # Whatever this leaves open, the next batch ends.
        with suppress(sqlite3.Error):
            self._reset()

    def _write(self, tasks: list[Task[Any]]) -> None:
        """Run operations in one transaction, move the head if the log grew, commit."""
        if self._write_refusal is not None:
            fail_all(tasks, self._write_refusal)
            return
        try:
            self._reset()
            self._connection.execute("BEGIN IMMEDIATE")
            head = ask_sqlite(self._connection, self._prepare_batch(tasks))
        except sqlite3.Error as error:
            self._roll_back()
            fail_all(tasks, unavailable("took nothing of this batch", error), error)
            return
        except LogIntegrityError as error:
            self._roll_back()
            self._write_refusal = error
            fail_all(tasks, error)
            return
        try:
            self._commit(head)
        except (sqlite3.Error, OSError) as error:
            self._poison(tasks, error)

    async def _prepare_batch(self, tasks: list[Task[Any]]) -> LogHead:
        """Everything before COMMIT; the head that the batch will have."""
        head = self._keeper.head
        if not await self._seal.holds(head):
            raise head_moved(head)
        self._tx.take_told()  # there is nobody else to be told
        await run_batch(tasks, self._tx, self._log, _judge)
        await self._log.flush()
        return head if self._log.size == head.size else await self._seal.move(head, self._log)

    def _commit(self, head: LogHead) -> None:
        self._connection.execute("COMMIT")
        self._keeper.advance(head)
        self._committed = self._log.frontier

    def _poison(self, tasks: list[Task[Any]], cause: sqlite3.Error | OSError) -> None:
        """Refuse to write from now on; go on reading only if the connection surely shows the state before."""
        refusal = LogIntegrityError(
            "store.commit_unknown",
            f"it is not known whether the last commit is durable: {cause}",
            hint="start the process again: it reads from the database what became of it",
        )
        undone = self._connection.in_transaction and self._roll_back()
        self._write_refusal = refusal
        self._read_refusal = None if undone else refusal
        fail_all(tasks, refusal, cause)

    def _reset(self) -> None:
        """End the transaction that a failed rollback left open."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _roll_back(self) -> bool:
        """Undo the open transaction; where even that fails, the next batch tries again before all else."""
        self._log.restart(self._committed)
        with suppress(sqlite3.Error):
            self._reset()
        return not self._connection.in_transaction

    def close(self) -> None:
        """Close the database; what was acknowledged is durable already."""
        with suppress(sqlite3.Error):
            self._connection.close()
