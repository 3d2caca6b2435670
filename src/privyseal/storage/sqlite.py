# SPDX-License-Identifier: Apache-2.0
"""The Store port on SQLite: one writer thread, group commit, and the log's head guarded by compare-and-swap.

The order of a batch (DESIGN §5): BEGIN IMMEDIATE, each operation in its own savepoint, tree hashes, signed
checkpoint, head moved, COMMIT, `head.checkpoint` replaced; only then are the callers answered.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import UnavailableError
from privyseal.ports.clock import Clock
from privyseal.ports.store import LogHead, ReadTx, Tx
from privyseal.storage.connection import Connect, configure, connect
from privyseal.storage.durable_file import FileSystem
from privyseal.storage.head import LogSeal
from privyseal.storage.head_file import HeadKeeper
from privyseal.storage.sqlite_committer import SqliteCommitter
from privyseal.storage.worker import Worker
from privyseal.tlog.note import NoteSigner

__all__ = ["SqliteStore"]

T = TypeVar("T")


class SqliteStore:
    """One hub's database in SQLite; `Store` says what each call promises. Made by `open`."""

    def __init__(self, committer: SqliteCommitter, keeper: HeadKeeper) -> None:
        self._keeper: Final = keeper
        self._worker: Final = Worker(committer, name="privyseal-store")

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        origin: str,
        log_key: Ed25519PrivateKey,
        clock: Clock,
        head_path: Path | None,
        connect: Connect = connect,
        files: FileSystem | None = None,
    ) -> "SqliteStore":
        """Open or create the database, and check that its log is whole and no older than `head.checkpoint`.

        Args:
            path: File, or `:memory:`.
            origin: The log's origin, also the name of its key.
            log_key: Signs checkpoints.
            clock: Dates checkpoints in the database; the tree does not depend on it.
            head_path: `head.checkpoint`; None only for a log that nobody relies on.
            connect: Opens the connection.
            files: Replaces `head.checkpoint`.

        Raises:
            LogIntegrityError: `log.rollback`, `log.head_missing`, `log.head_unreadable`, `log.corrupt`,
                `log.missing_hash`.
            ConfigError: `log.origin`, `log.key`, `store.foreign`, `store.schema`, `store.no_wal`.
            UnavailableError: `store.unavailable` if the database or the file cannot be opened.
        """
        signer = NoteSigner(name=origin, key=log_key)
        keeper = HeadKeeper.at(head_path, files, signer)
        seal = LogSeal(origin=origin, signer=signer, clock=clock)
        return cls(await asyncio.to_thread(_start, str(path), connect, seal, keeper), keeper)

    async def write(self, operation: Callable[[Tx], Awaitable[T]]) -> T:
        """Run an operation in a transaction and answer with its value once the commit is durable.

        A caller that is cancelled does not take its operation back.

        Raises:
            PrivysealError: whatever the operation raised; its writes are undone, those of others are not.
            UnavailableError: `store.unavailable` if nothing was committed, `store.closed` after `close`.
            LogIntegrityError: `log.head_moved` or `store.commit_unknown`, from then on for every write.
        """
        return await self._worker.run(operation, writes=True)

    async def read(self, operation: Callable[[ReadTx], Awaitable[T]]) -> T:
        """Run reads on the newest committed state.

        Raises:
            PrivysealError: whatever the operation raised.
            UnavailableError: `store.unavailable` if the database could not be read, `store.closed`.
            LogIntegrityError: `store.commit_unknown` if what could be read now may never have been committed.
        """
        return await self._worker.run(operation, writes=False)

    def listen(self, heard: Callable[[tuple[str, ...]], None]) -> None:
        """Nobody else writes to this database, so there is nothing to hear."""

    @property
    def head(self) -> LogHead:
        """The newest checkpoint whose commit is known."""
        return self._keeper.head

    async def close(self) -> None:
        """Wait for what was handed in, then close the database. May be called twice."""
        await self._worker.stop()


def _start(path: str, connect: Connect, seal: LogSeal, keeper: HeadKeeper) -> SqliteCommitter:
    try:
        with ExitStack() as undo:
            connection = connect(path)
            undo.callback(connection.close)
            configure(connection, path)
            committer = SqliteCommitter(connection, seal=seal, keeper=keeper)
            committer.start()
            undo.pop_all()
            return committer
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(
            "store.unavailable",
            f"the database {path} or its head.checkpoint could not be opened: {error}",
            hint="check path, permissions and free space",
        ) from error
