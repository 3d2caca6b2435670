# SPDX-License-Identifier: Apache-2.0
"""The Store port on PostgreSQL: any number of hub processes over one database and log.

The order of a batch (DESIGN §5): BEGIN, the log's advisory lock, head and tree taken from the database if another
process has moved them, each operation in its own savepoint, entries and tile hashes by COPY, signed checkpoint, head
moved by compare-and-swap, COMMIT, `head.checkpoint` replaced; only then are the callers answered.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import UnavailableError
from privyseal.ports.clock import Clock
from privyseal.ports.store import LogHead, ReadTx, Tx
from privyseal.storage.durable_file import FileSystem
from privyseal.storage.head import LogSeal
from privyseal.storage.head_file import HeadKeeper
from privyseal.storage.postgres_committer import PostgresCommitter
from privyseal.storage.postgres_listener import PostgresListener
from privyseal.storage.postgres_reader import PostgresReader
from privyseal.storage.postgres_session import FAULTS
from privyseal.storage.postgres_url import check_database_url, database_place
from privyseal.storage.worker import Worker
from privyseal.tlog.note import NoteSigner

__all__ = ["PostgresStore"]

T = TypeVar("T")

_DOUBT_SECONDS: Final = 30.0


class PostgresStore:
    """A hub's database in PostgreSQL; `Store` says what each call promises. Made by `open`.

    Writes and reads have a connection and a thread each: what reads does not wait for a commit.
    """

    def __init__(
        self,
        committer: PostgresCommitter,
        reader: PostgresReader,
        keeper: HeadKeeper,
        listener: PostgresListener,
    ) -> None:
        self._keeper: Final = keeper
        self._listener: Final = listener
        self._writes: Final = Worker(committer, name="privyseal-store")
        self._reads: Final = Worker(reader, name="privyseal-reads")

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        origin: str,
        log_key: Ed25519PrivateKey,
        clock: Clock,
        head_path: Path | None,
        files: FileSystem | None = None,
        doubt_seconds: float = _DOUBT_SECONDS,
    ) -> "PostgresStore":
        """Open the database, make or upgrade its tables, check that its log is whole and no older than the file.

        Args:
            url: As `check_database_url` accepts it.
            origin: The log's origin, also the name of its key.
            log_key: Signs checkpoints; the same for all processes.
            clock: Dates checkpoints in the database; the tree does not depend on it.
            head_path: `head.checkpoint`; None only for a log that nobody relies on.
            files: Replaces `head.checkpoint`.
            doubt_seconds: How long COMMIT may take, and how long its outcome is asked for after the answer was lost.

        Raises:
            LogIntegrityError: `log.rollback`, `log.head_missing`, `log.head_unreadable`, `log.corrupt`,
                `log.missing_hash`.
            ConfigError: `config.database`, `log.origin`, `log.key`, `store.foreign`, `store.schema`,
                `store.settings`.
            UnavailableError: `store.unavailable` if the database or the file cannot be opened.
        """
        check_database_url(url)
        signer = NoteSigner(name=origin, key=log_key)
        keeper = HeadKeeper.at(head_path, files, signer)

        def seal() -> LogSeal:
            return LogSeal(origin=origin, signer=signer, clock=clock)

        process = secrets.token_hex(8)
        committer = PostgresCommitter(url, process=process, seal=seal(), keeper=keeper, doubt_seconds=doubt_seconds)
        await asyncio.to_thread(_start, committer, database_place(url))
        reader = PostgresReader(url, seal=seal(), keeper=keeper)
        return cls(committer, reader, keeper, PostgresListener(url, process))

    async def write(self, operation: Callable[[Tx], Awaitable[T]]) -> T:
        """Run an operation in a transaction and answer with its value once the commit is durable.

        A caller that is cancelled does not take its operation back.

        Raises:
            PrivysealError: whatever the operation raised; its writes are undone, those of others are not.
            UnavailableError: `store.unavailable` if nothing was committed, `store.closed` after `close`.
            LogIntegrityError: `log.rollback` if the database is not the one it was, or `store.commit_unknown`; from
                then on for every write.
        """
        return await self._writes.run(operation, writes=True)

    async def read(self, operation: Callable[[ReadTx], Awaitable[T]]) -> T:
        """Run reads on the newest committed state, also of other processes.

        Raises:
            PrivysealError: whatever the operation raised.
            UnavailableError: `store.unavailable` if the database could not be read, `store.closed`.
            LogIntegrityError: `log.rollback` if the database is not the one it was.
        """
        return await self._reads.run(operation, writes=False)

    def listen(self, heard: Callable[[tuple[str, ...]], None]) -> None:
        """Call back with the ids of requests that other processes changed; with none if any may have changed."""
        self._listener.start(heard)

    @property
    def head(self) -> LogHead:
        """The newest checkpoint whose commit is known."""
        return self._keeper.head

    async def close(self) -> None:
        """Wait for what was handed in, then close the database. May be called twice."""
        await self._listener.stop()
        await self._writes.stop()
        await self._reads.stop()


def _start(committer: PostgresCommitter, place: str) -> None:
    try:
        with ExitStack() as undo:
            undo.callback(committer.close)
            committer.start()
            undo.pop_all()
    except FAULTS as error:
        raise UnavailableError(
            "store.unavailable",
            f"the {place}, or head.checkpoint, could not be opened: {error}",
            hint="does the server run, and does it let this account in? docs/postgresql.md",
        ) from error
