# SPDX-License-Identifier: Apache-2.0
"""Batches as transactions of PostgreSQL, any number of processes on one log.

An operation's own error undoes that operation. An error before COMMIT undoes the batch, and nothing was lost. After
COMMIT was sent and no answer came, the database is asked: under the log's lock, which the transaction in doubt holds
until its end. What was found committed is committed once more with a write behind it, so that a standby whose
acknowledgement was cut off has it too before anybody is told.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError
from privyseal.ports.store import LogHead
from privyseal.storage.batches import fail_all, run_batch, unavailable
from privyseal.storage.calls import Query
from privyseal.storage.head import LogSeal, check_extends
from privyseal.storage.head_file import HeadKeeper
from privyseal.storage.log_tables import LogTables
from privyseal.storage.postgres_listener import notify
from privyseal.storage.postgres_session import FAULTS, WRITING, Session, database_ms, judge_postgres
from privyseal.storage.schema import check_revision, found_revision, prepare_hub
from privyseal.storage.transaction import StoreTx
from privyseal.storage.worker import Task
from privyseal.tlog.tree import Frontier

__all__ = ["PostgresCommitter"]

_ASK_AGAIN_SECONDS: Final = 0.2

_XID: Final = "SELECT pg_current_xact_id_if_assigned()::text"
_XID_COMMITTED: Final = "SELECT 1 WHERE pg_xact_status(?::text::xid8) = 'committed'"
_HEAD_COMMITTED: Final = "SELECT 1 FROM log_checkpoint WHERE size = ? AND root = ?"
_TOUCH: Final = "UPDATE log_head SET note = note"


class PostgresCommitter:
    """The engine of writes. Every call belongs to one thread at a time."""

    def __init__(self, url: str, *, process: str, seal: LogSeal, keeper: HeadKeeper, doubt_seconds: float) -> None:
        """`process` names this one to those who hear of its changes."""
        self._loop: Final = asyncio.new_event_loop()
        self._session: Final = Session(url, WRITING)
        self._seal: Final = seal
        self._keeper: Final = keeper
        self._doubt_seconds: Final = doubt_seconds
        self._process: Final = process
        self._log: Final = LogTables()
        self._tx: Final = StoreTx(self._log, seal, database_ms)
        self._refusal: PrivysealError | None = None
        #: Where this process left the log, and the tree there.
        self._head: LogHead
        self._frontier = Frontier()
        #: On which of its connections the session found tables of this release.
        self._checked_connection = 0

    def start(self) -> None:
        """Create or check tables, head and `head.checkpoint`; processes that start at once wait for each other.

        Raises:
            ConfigError, LogIntegrityError: as `PostgresStore.open`.
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: as they come.
        """
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        await self._session.begin()
        self._head = await self._session.ask(self._load())
        self._frontier = self._log.frontier
        self._checked_connection = self._session.connections
        if not await self._session.commit(self._doubt_seconds):
            raise ConnectionError("the first commit was not acknowledged")
        self._keeper.start(self._head)

    async def _load(self) -> LogHead:
        await prepare_hub("postgresql")
        head = await self._seal.load(self._log)
        await self._keeper.check(head, self._log)
        return head

    def process(self, tasks: list[Task[Any]]) -> Iterator[list[Task[Any]]]:
        """Run operations in one transaction, move the head if the log grew, commit."""
        if self._refusal is None:
            self._loop.run_until_complete(self._write(tasks))
        else:
            fail_all(tasks, self._refusal)
        yield tasks

    async def _write(self, tasks: list[Task[Any]]) -> None:
        try:
            await self._session.begin()
            head, xid = await self._session.ask(self._prepare_batch(tasks))
        except FAULTS as error:
            await self._session.roll_back()
            fail_all(tasks, unavailable("took nothing of this batch", error), error)
        except LogIntegrityError as error:
            await self._session.roll_back()
            self._refuse(tasks, error)
        except ConfigError as error:
            await self._session.roll_back()
            fail_all(tasks, error)
        else:
            await self._commit(tasks, head, xid)

    async def _prepare_batch(self, tasks: list[Task[Any]]) -> tuple[LogHead, str | None]:
        """Everything before COMMIT; the head that the batch will have, and its transaction's number if it wrote."""
        if self._session.connections != self._checked_connection:
            await self._check_revision()
        self._log.restart(self._frontier)
        if not await self._seal.holds(self._head):
            await self._follow_head()
        self._tx.take_told()  # of a batch that was undone
        await run_batch(tasks, self._tx, self._log, judge_postgres)
        await notify(self._process, self._tx.take_told())
        await self._log.flush()
        head = self._head
        if self._log.size > head.size:
            head = await self._seal.move(head, self._log)
        ((xid,),) = await Query(_XID)
        return head, xid

    async def _check_revision(self) -> None:
        """While the connection was away, the tables may have been upgraded for a newer release."""
        revision = await found_revision("postgresql")
        if revision is not None:
            check_revision("postgresql", revision)
        self._checked_connection = self._session.connections

    async def _follow_head(self) -> None:
        """Go on from where another process has left the log."""
        known = self._keeper.head
        head = await self._seal.load(self._log)
        await check_extends(self._log, head, size=known.size, root=known.root, seen="this process")
        self._head, self._frontier = head, self._log.frontier

    async def _commit(self, tasks: list[Task[Any]], head: LogHead, xid: str | None) -> None:
        committed = await self._session.commit(self._doubt_seconds)
        if committed is None:
            # Where nothing was written there is nothing to be in doubt about.
            committed = False if xid is None else await self._find_out(head, xid)
        if committed is None:
            self._refuse(tasks, _commit_unknown("the database did not come back"))
        elif not committed:
            failure = ConnectionError("the transaction was undone instead of committed")
            fail_all(tasks, unavailable("took nothing of this batch", failure), failure)
        else:
            self._head, self._frontier = head, self._log.frontier
            try:
                self._keeper.advance(head)
            except OSError as error:
                self._refuse(tasks, _commit_unknown(str(error)), error)

    async def _find_out(self, head: LogHead, xid: str) -> bool | None:
        """Whether a transaction that was sent its COMMIT is durable; None if nobody can tell for too long."""
        timeline = self._session.timeline
        self._session.drop()
        end = self._loop.time() + self._doubt_seconds
        while self._loop.time() < end:
            try:
                await self._session.begin()
                # Numbers of transactions are given anew where a standby has taken over.
                if head is self._head and self._session.timeline != timeline:
                    return None
                found = await self._session.ask(self._look_up(head, xid))
                if await self._session.commit(self._doubt_seconds):
                    return found
            except (*FAULTS, ConfigError):
                await self._session.roll_back()
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        return None

    async def _look_up(self, head: LogHead, xid: str) -> bool:
        if head is self._head:
            found = bool(await Query(_XID_COMMITTED, (xid,)))
        else:
            found = bool(await Query(_HEAD_COMMITTED, (head.size, head.root)))
        if found:
            await Query(_TOUCH)
        return found

    def _refuse(self, tasks: list[Task[Any]], refusal: PrivysealError, cause: BaseException | None = None) -> None:
        """Write nothing from now on."""
        self._refusal = refusal
        fail_all(tasks, refusal, cause)

    def close(self) -> None:
        """Let go of the connection; what was acknowledged is durable already."""
        self._loop.run_until_complete(self._session.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


def _commit_unknown(why: str) -> LogIntegrityError:
    return LogIntegrityError(
        "store.commit_unknown",
        f"it is not known whether the last commit is durable: {why}",
        hint="start the process again: it reads from the database what became of it",
    )
