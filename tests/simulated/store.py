# SPDX-License-Identifier: Apache-2.0
"""The Store port on the project's own engine (`SqliteCommitter`), without its thread.

What the thread does is done by callbacks of the loop: a batch is whatever has gathered while the last one was under
way, and it happens at one moment, drawn.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.ports.clock import Clock
from privyseal.ports.store import LogHead, ReadTx, Tx
from privyseal.storage.connection import configure
from privyseal.storage.head import LogSeal
from privyseal.storage.head_file import HeadKeeper
from privyseal.storage.sqlite_committer import SqliteCommitter
from privyseal.storage.worker import MAX_BATCH, Task
from privyseal.tlog.note import NoteSigner
from simulated.disk import Database, HeadDisk
from simulated.loop import Killed, Process, SimLoop

__all__ = ["SimStore", "open_store"]

T = TypeVar("T")


class SimStore:
    """One life of a hub's database."""

    def __init__(self, committer: SqliteCommitter, keeper: HeadKeeper, loop: SimLoop) -> None:
        self._committer = committer
        self._keeper = keeper
        self._loop = loop
        self._waiting: deque[Task[Any]] = deque()
        self._busy = False

    async def write(self, operation: Callable[[Tx], Awaitable[T]]) -> T:
        return await self._run(operation, writes=True)

    async def read(self, operation: Callable[[ReadTx], Awaitable[T]]) -> T:
        return await self._run(operation, writes=False)

    async def _run(self, operation: Callable[[Any], Awaitable[T]], *, writes: bool) -> T:
        task = Task(operation, writes=writes)
        self._waiting.append(task)
        if not self._busy:
            self._busy = True
            self._loop.call_later(self._loop.short_delay(), self._batch)
        return await task.future

    def _batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        writes = [task for task in batch if task.writes]
        self._process([task for task in batch if not task.writes])
        # Whoever has read goes on while the others' commit is under way.
        self._loop.call_later(self._loop.short_delay() if writes else 0.0, self._commit, writes)

    def _commit(self, writes: list[Task[Any]]) -> None:
        try:
            self._process(writes)
        except Killed:
            return
        self._busy = bool(self._waiting)
        if self._busy:
            self._loop.call_later(self._loop.short_delay(), self._batch)

    def _process(self, tasks: list[Task[Any]]) -> None:
        for answered in self._committer.process(tasks):
            for task in answered:
                task.settle()

    def listen(self, heard: Callable[[tuple[str, ...]], None]) -> None:
        """One process writes to this database."""

    @property
    def head(self) -> LogHead:
        return self._keeper.head

    async def close(self) -> None:
        self._committer.close()


def open_store(
    database: Database, head: HeadDisk, process: Process, *, origin: str, log_key: Ed25519PrivateKey, clock: Clock
) -> SimStore:
    """Open the database as `SqliteStore.open` does, on the calling process's loop.

    Raises:
        PrivysealError, sqlite3.Error: as `SqliteCommitter.start`.
    """
    head.begin_life(process)
    connection = database.open(process)("")
    configure(connection, ":memory:")
    signer = NoteSigner(name=origin, key=log_key)
    keeper = HeadKeeper.at(head.path, head, signer)
    committer = SqliteCommitter(connection, seal=LogSeal(origin=origin, signer=signer, clock=clock), keeper=keeper)
    committer.start()
    return SimStore(committer, keeper, process.loop)
