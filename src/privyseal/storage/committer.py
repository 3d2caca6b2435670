# SPDX-License-Identifier: Apache-2.0
"""Batches of operations as transactions: what the store's writer thread does.

Three kinds of trouble are kept apart. An operation's own error undoes that operation. A database error before
COMMIT undoes the batch, and nothing was lost. An error of COMMIT itself, or of `head.checkpoint` behind it,
leaves open what is durable: from then on nothing is written, and nothing is read that might not be committed.
"""

import sqlite3
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from privyseal.errors import ConflictError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.ports.store import LogHead
from privyseal.storage.connection import prepare
from privyseal.storage.head import LogSeal
from privyseal.storage.head_file import HeadFile
from privyseal.storage.log_tables import LogTables
from privyseal.storage.schema import HUB_SCHEMA
from privyseal.storage.transaction import SqliteReadTx, SqliteTx
from privyseal.storage.worker import Task
from privyseal.tlog.tree import Frontier

__all__ = ["Committer"]

#: Errors that speak of one statement or its values; all others speak of the database.
_STATEMENT_ERRORS: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.NotSupportedError,
)


class _Attempt:
    """One operation within the transaction: its own error undoes its writes and goes to its caller.

    An error of the database leaves the block: it ends the whole transaction.
    """

    def __init__(self, connection: sqlite3.Connection, log: LogTables, task: Task[Any]) -> None:
        self._connection: Final = connection
        self._log: Final = log
        self._task: Final = task
        self._before: Final[Frontier] = log.frontier

    def __enter__(self) -> None:
        self._connection.execute("SAVEPOINT operation")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._connection.execute("RELEASE operation")
            return False
        if isinstance(error, sqlite3.Error) and not isinstance(error, _STATEMENT_ERRORS):
            return False
        # If SQLite has already ended the transaction by itself, this fails, and with it the batch.
        self._connection.execute("ROLLBACK TO operation")
        self._connection.execute("RELEASE operation")
        self._log.frontier = self._before
        self._task.fail(_conflict(error) if isinstance(error, sqlite3.IntegrityError) else error)
        return True


class _ReadAttempt:
    """One read: its own error goes to its caller."""

    def __init__(self, task: Task[Any]) -> None:
        self._task: Final = task

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or (isinstance(error, sqlite3.Error) and not isinstance(error, _STATEMENT_ERRORS)):
            return False
        self._task.fail(error)
        return True


class Committer:
    """The store's engine. Every call belongs to one thread at a time.

    Attributes:
        head: The newest checkpoint whose commit is known.
    """

    def __init__(self, connection: sqlite3.Connection, *, seal: LogSeal, head_file: HeadFile | None) -> None:
        self._connection: Final = connection
        self._seal: Final = seal
        self._head_file: Final = head_file
        self._log: Final = LogTables(connection)
        self._read_tx: Final = SqliteReadTx(connection, self._log)
        self._tx: Final = SqliteTx(connection, self._log, seal)
        self._committed = Frontier()
        self._write_refusal: PrivysealError | None = None
        self._read_refusal: PrivysealError | None = None
        self.head: LogHead

    def start(self) -> None:
        """Create or check tables, head and `head.checkpoint`.

        Raises:
            ConfigError, LogIntegrityError: as `SqliteStore.open`.
            sqlite3.Error, OSError: as they come.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        prepare(self._connection, HUB_SCHEMA)
        self.head = self._seal.load(self._connection, self._log)
        self._committed = self._log.frontier
        if self._head_file is not None:
            self._head_file.check(self.head, self._log)
        self._connection.execute("COMMIT")
        # After a crash the file may be one commit behind; and it must stand there before the first entry.
        if self._head_file is not None:
            self._head_file.replace(self.head)

    def read(self, tasks: list[Task[Any]]) -> None:
        """Run reads on the newest committed state."""
        if self._read_refusal is not None:
            _fail_all(tasks, self._read_refusal)
            return
        try:
            self._reset()
            self._connection.execute("BEGIN")
            for task in tasks:
                with _ReadAttempt(task):
                    task.run(self._read_tx)
        except sqlite3.Error as error:
            _fail_all(tasks, _unavailable("could not be read", error), error)
        # Whatever this leaves open, the next batch ends.
        with suppress(sqlite3.Error):
            self._reset()

    def write(self, tasks: list[Task[Any]]) -> None:
        """Run operations in one transaction, move the head if the log grew, commit."""
        if self._write_refusal is not None:
            _fail_all(tasks, self._write_refusal)
            return
        try:
            head = self._prepare_batch(tasks)
        except sqlite3.Error as error:
            self._roll_back()
            _fail_all(tasks, _unavailable("took nothing of this batch", error), error)
            return
        except LogIntegrityError as error:
            self._roll_back()
            self._write_refusal = error
            _fail_all(tasks, error)
            return
        try:
            self._commit(head)
        except (sqlite3.Error, OSError) as error:
            self._poison(tasks, error)

    def _prepare_batch(self, tasks: list[Task[Any]]) -> LogHead:
        """Everything before COMMIT; the head that the batch will have."""
        self._reset()
        self._connection.execute("BEGIN IMMEDIATE")
        self._seal.guard(self._connection, self.head)
        for task in tasks:
            with _Attempt(self._connection, self._log, task):
                task.run(self._tx)
        if self._log.frontier.size == self.head.size:
            return self.head
        return self._seal.move(self._connection, self.head, self._log.frontier)

    def _commit(self, head: LogHead) -> None:
        self._connection.execute("COMMIT")
        if head is self.head:
            return
        if self._head_file is not None:
            self._head_file.replace(head)
        self.head = head
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
        _fail_all(tasks, refusal, cause)

    def _reset(self) -> None:
        """End the transaction that a failed rollback left open."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _roll_back(self) -> bool:
        """Undo the open transaction; where even that fails, the next batch tries again before all else."""
        self._log.frontier = self._committed
        with suppress(sqlite3.Error):
            self._reset()
        return not self._connection.in_transaction

    def close(self) -> None:
        """Close the database; what was acknowledged is durable already."""
        with suppress(sqlite3.Error):
            self._connection.close()


def _fail_all(tasks: list[Task[Any]], failure: PrivysealError, cause: BaseException | None = None) -> None:
    """Give each task an error of its own: tracebacks of different callers must not grow into one another."""
    for task in tasks:
        own = type(failure)(failure.code, failure.message, hint=failure.hint)
        own.__cause__ = cause
        task.fail(own)


def _conflict(error: BaseException) -> ConflictError:
    conflict = ConflictError("store.conflict", f"the write contradicts what is stored: {error}")
    conflict.__cause__ = error
    return conflict


def _unavailable(what: str, cause: BaseException) -> UnavailableError:
    return UnavailableError(
        "store.unavailable",
        f"the database {what}: {cause}",
        hint="check free space and the medium, then try again",
    )
