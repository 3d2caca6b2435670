# SPDX-License-Identifier: Apache-2.0
"""The Store port on the project's own engine (`Committer` over SQLite), without its thread.

What the thread does is done by callbacks of the loop: a batch is whatever has gathered while the last one was under
way, and it happens at one moment, drawn.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.ports.clock import Clock
from privyseal.ports.store import LogHead, ReadTx, Tx
from privyseal.storage.committer import Committer
from privyseal.storage.connection import configure
from privyseal.storage.head import LogSeal
from privyseal.storage.head_file import HeadFile
from privyseal.storage.worker import MAX_BATCH, Task, run_batch
from privyseal.tlog.note import NoteSigner
from simulated.disk import Database, HeadDisk
from simulated.loop import Killed, Process, SimLoop

__all__ = ["SimStore", "open_store"]

T = TypeVar("T")


class SimStore:
    """One life of a hub's database."""

    def __init__(self, committer: Committer, loop: SimLoop) -> None:
        self._committer = committer
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
        try:
            run_batch(self._committer, batch, _settle)
        except Killed:
            return
        self._busy = bool(self._waiting)
        if self._busy:
            self._loop.call_later(self._loop.short_delay(), self._batch)

    @property
    def head(self) -> LogHead:
        return self._committer.head

    async def close(self) -> None:
        self._committer.close()


def _settle(tasks: list[Task[Any]]) -> None:
    for task in tasks:
        task.settle()


def open_store(
    database: Database, head: HeadDisk, process: Process, *, origin: str, log_key: Ed25519PrivateKey, clock: Clock
) -> SimStore:
    """Open the database as `SqliteStore.open` does, on the calling process's loop.

    Raises:
        PrivysealError, sqlite3.Error: as `Committer.start`.
    """
    head.begin_life(process)
    connection = database.open(process)("")
    configure(connection, ":memory:")
    signer = NoteSigner(name=origin, key=log_key)
    head_file = HeadFile(path=head.path, files=head, origin=origin, log_key=signer.verifier)
    committer = Committer(connection, seal=LogSeal(origin=origin, signer=signer, clock=clock), head_file=head_file)
    committer.start()
    return SimStore(committer, process.loop)
