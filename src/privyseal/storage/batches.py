# SPDX-License-Identifier: Apache-2.0
"""A batch of operations within one transaction: each in its own savepoint, so that its own error undoes it alone.

Whoever runs a batch begins and ends the transaction. The savepoint is set before an operation's first call: one
that only appends to the log needs none.
"""

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from privyseal.errors import ConflictError, PrivysealError, UnavailableError
from privyseal.storage.calls import RELEASE, ROLL_BACK, SAVEPOINT, Call, Row
from privyseal.storage.log_tables import LogTables
from privyseal.storage.worker import Task

__all__ = ["Judge", "conflict", "fail_all", "run_batch", "unavailable"]

T = TypeVar("T")

#: Sorts an error: what the operation's caller hears of it, or None if it speaks of the database and not of one
#: operation.
Judge = Callable[[BaseException], BaseException | None]


async def run_batch(tasks: list[Task[Any]], tx: object, log: LogTables, judge: Judge) -> None:
    """Run each operation with `tx`, and give it its value or its error.

    Raises:
        Exception: the driver's error, if it ends the whole transaction.
    """
    for task in tasks:
        savepoint = _Savepoint(task, log, judge)
        async with savepoint:
            task.succeed(await _Operation(task.operation(tx), savepoint))


class _Savepoint:
    """Undoes one operation on its own error."""

    def __init__(self, task: Task[Any], log: LogTables, judge: Judge) -> None:
        self._task: Final = task
        self._log: Final = log
        self._judge: Final = judge
        self._before: Final = log.mark()
        self.is_set = False

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            if self.is_set:
                await RELEASE
            return False
        told = self._judge(error)
        if told is None or isinstance(error, GeneratorExit):
            return False
        if self.is_set:
            # If the database has already ended the transaction by itself, this fails, and with it the batch.
            await ROLL_BACK
            await RELEASE
        self._log.go_back(self._before)
        self._task.fail(told)
        return True


class _Operation(Generic[T]):
    """An operation under way: nothing but calls leaves it."""

    def __init__(self, operation: Awaitable[T], savepoint: _Savepoint) -> None:
        self._operation: Final = operation
        self._savepoint: Final = savepoint

    def __await__(self) -> Generator[Call, list[Row], T]:
        steps: Generator[Any, Any, T] = self._operation.__await__()
        try:
            call = next(steps)
            while isinstance(call, Call):
                if not self._savepoint.is_set:
                    yield SAVEPOINT
                    self._savepoint.is_set = True
                call = steps.send((yield call))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            # An error of the database is not for the operation: it could only hide that its writes are undone.
            steps.close()
        raise RuntimeError("a store operation awaited something else than the transaction it was given")


def fail_all(tasks: list[Task[Any]], failure: PrivysealError, cause: BaseException | None = None) -> None:
    """Give each task an error of its own: tracebacks of different callers must not grow into one another."""
    for task in tasks:
        own = type(failure)(failure.code, failure.message, hint=failure.hint)
        own.__cause__ = cause
        task.fail(own)


def conflict(cause: BaseException) -> ConflictError:
    """The error for a write that a constraint refused."""
    error = ConflictError("store.conflict", f"the write contradicts what is stored: {cause}")
    error.__cause__ = cause
    return error


def unavailable(what: str, cause: BaseException) -> UnavailableError:
    """The error for a database that took nothing."""
    return UnavailableError(
        "store.unavailable",
        f"the database {what}: {cause}",
        hint="look at the database's free space, its medium, and its server if it has one; then try again",
    )
