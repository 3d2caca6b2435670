# SPDX-License-Identifier: Apache-2.0
"""Reads on PostgreSQL, beside the writes: each batch sees one committed state."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from privyseal.errors import PrivysealError
from privyseal.storage.batches import fail_all, run_batch, unavailable
from privyseal.storage.head import LogSeal, check_extends
from privyseal.storage.head_file import HeadKeeper
from privyseal.storage.log_tables import LogTables
from privyseal.storage.postgres_session import FAULTS, READING, Session, database_ms, judge_postgres
from privyseal.storage.transaction import StoreReadTx
from privyseal.storage.worker import Task

__all__ = ["PostgresReader"]


class PostgresReader:
    """The engine of reads. Every call belongs to one thread at a time."""

    def __init__(self, url: str, *, seal: LogSeal, keeper: HeadKeeper) -> None:
        self._loop: Final = asyncio.new_event_loop()
        self._session: Final = Session(url, READING)
        self._seal: Final = seal
        self._keeper: Final = keeper
        self._log: Final = LogTables()
        self._tx: Final = StoreReadTx(self._log, database_ms)

    def process(self, tasks: list[Task[Any]]) -> Iterator[list[Task[Any]]]:
        """Run reads on the newest committed state."""
        self._loop.run_until_complete(self._read(tasks))
        yield tasks

    async def _read(self, tasks: list[Task[Any]]) -> None:
        try:
            await self._session.begin()
            await self._session.ask(self._follow_head())
            await self._session.ask(run_batch(tasks, self._tx, self._log, judge_postgres))
            await self._session.roll_back()
        except FAULTS as error:
            await self._session.roll_back()
            fail_all(tasks, unavailable("could not be read", error), error)
        except PrivysealError as error:
            await self._session.roll_back()
            fail_all(tasks, error)

    async def _follow_head(self) -> None:
        """Take note of what other processes have committed: who reads then finds the head no older than that."""
        known = self._keeper.head
        if not await self._seal.holds(known):
            head = await self._seal.load(self._log)
            await check_extends(self._log, head, size=known.size, root=known.root, seen="this process")
            self._keeper.advance(head)

    def close(self) -> None:
        """Let go of the connection."""
        self._loop.run_until_complete(self._session.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
