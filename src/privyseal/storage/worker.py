# SPDX-License-Identifier: Apache-2.0
"""The one thread that owns a database connection, and how asyncio callers hand it work.

Group commit without a timer (DESIGN §5): a batch is whatever has gathered while the last one was under way,
at most `MAX_BATCH` operations.
"""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Generic, Protocol, TypeVar

from privyseal.errors import LogIntegrityError, UnavailableError

__all__ = ["MAX_BATCH", "Engine", "Task", "Worker"]

MAX_BATCH: Final = 256

T = TypeVar("T")


class Task(Generic[T]):
    """An operation, and the future of the caller that waits for it. Made on the caller's event loop."""

    __slots__ = ("_failure", "_value", "future", "loop", "operation", "writes")

    def __init__(self, operation: Callable[[Any], Awaitable[T]], *, writes: bool) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.future: Final[asyncio.Future[T]] = self.loop.create_future()
        self.writes: Final = writes
        self.operation: Final = operation
        self._value: list[T] = []
        self._failure: BaseException | None = None

    def succeed(self, value: T) -> None:
        """Answer with what the operation gave, unless `fail` is called before `settle`."""
        self._value = [value]

    def fail(self, failure: BaseException) -> None:
        """Answer with an error, whatever the operation gave; a failure of its own stays."""
        if self._failure is None:
            self._failure = failure

    def settle(self) -> None:
        """Wake the caller. On its event loop; nothing happens if it was cancelled meanwhile."""
        if self.future.done():
            return
        if self._failure is not None:
            self.future.set_exception(self._failure)
        else:
            self.future.set_result(self._value[0])


class Engine(Protocol):
    """What the thread runs."""

    def process(self, tasks: list[Task[Any]]) -> Iterator[list[Task[Any]]]:
        """Answer to every task by `Task.succeed` or `Task.fail`, in groups that can be told as soon as they come.

        Must not raise. Writes are run in their order.
        """
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


class Worker:
    """Runs an engine's tasks on a thread of its own."""

    def __init__(self, engine: Engine, *, name: str) -> None:
        self._engine: Final = engine
        self._queue: Final[queue.SimpleQueue[Task[Any] | None]] = queue.SimpleQueue()
        self._lock: Final = threading.Lock()
        self._closed = False
        # A daemon: a process that ends without `stop` is a crash like any other, and loses nothing.
        self._thread: Final = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, operation: Callable[[Any], Awaitable[T]], *, writes: bool) -> T:
        """Hand in an operation and wait for its answer. Being cancelled does not take it back.

        Raises:
            UnavailableError: `store.closed`.
        """
        task = Task(operation, writes=writes)
        with self._lock:
            if self._closed:
                raise _closed()
            self._queue.put(task)
        return await task.future

    async def stop(self) -> None:
        """Let the thread finish what was handed in and end. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        batch: list[Task[Any]] = []
        try:
            while self._gather(batch):
                self._process(batch)
                batch.clear()
            self._process(batch)
            batch.clear()
        finally:
            # Also after a bug in the engine: nobody may wait forever.
            self._abandon(batch)
            self._engine.close()

    def _gather(self, batch: list[Task[Any]]) -> bool:
        """Wait for work and take what is there; False once the end was asked for."""
        task = self._queue.get()
        while task is not None:
            batch.append(task)
            if len(batch) == MAX_BATCH or self._queue.empty():
                return True
            task = self._queue.get()
        return False

    def _process(self, batch: list[Task[Any]]) -> None:
        for answered in self._engine.process(batch):
            _wake(answered)

    def _abandon(self, batch: list[Task[Any]]) -> None:
        with self._lock:
            self._closed = True
        for task in batch:
            task.fail(LogIntegrityError("store.commit_unknown", "the database's thread ended in the middle of a batch"))
        _wake(batch)
        rest: list[Task[Any]] = []
        while not self._queue.empty():
            left = self._queue.get()
            if left is not None:
                left.fail(_closed())
                rest.append(left)
        _wake(rest)


def _closed() -> UnavailableError:
    return UnavailableError("store.closed", "the database was closed")


def _wake(tasks: list[Task[Any]]) -> None:
    """Settle tasks on their event loops, with one call into each loop."""
    waiting: dict[asyncio.AbstractEventLoop, list[Task[Any]]] = {}
    for task in tasks:
        waiting.setdefault(task.loop, []).append(task)
    for loop, own in waiting.items():
        try:
            loop.call_soon_threadsafe(_settle, own)
        except RuntimeError:
            # The loop was closed, and its callers are gone with it.
            if not loop.is_closed():
                raise


def _settle(tasks: list[Task[Any]]) -> None:
    for task in tasks:
        task.settle()
