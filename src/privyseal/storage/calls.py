# SPDX-License-Identifier: Apache-2.0
"""What a transaction asks of its database, apart from who carries it out.

Everything that both databases do alike (rows, queue, log, head, batches) is written once, as coroutines that yield
a `Call` for each statement and await nothing else. SQLite carries the calls out in place, PostgreSQL awaits them.
A statement is portable SQL with `?` or `?1` for its values.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

__all__ = [
    "RELEASE",
    "ROLL_BACK",
    "SAVEPOINT",
    "Call",
    "Control",
    "Insert",
    "Query",
    "Row",
    "carry_out",
    "carry_out_async",
]

Row = Sequence[Any]
T = TypeVar("T")


class Call:
    """Something that the database is asked for; awaiting it gives the rows that it answered with."""

    __slots__ = ()

    def __await__(self) -> Generator["Call", list[Row], list[Row]]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Query(Call):
    """One statement."""

    sql: str
    values: Row = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert(Call):
    """Many new rows of one table; no rows answer it."""

    table: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Control(Call):
    """A step of the savepoint around one operation; no rows answer it."""

    sql: str


SAVEPOINT: Final = Control("SAVEPOINT operation")
RELEASE: Final = Control("RELEASE operation")
ROLL_BACK: Final = Control("ROLLBACK TO operation")

#: The errors of a driver: they are thrown into the coroutine at the call that they answer.
Errors = tuple[type[Exception], ...]


def carry_out(work: Coroutine[Call, Any, T], perform: Callable[[Call], list[Row]], errors: Errors) -> T:
    """Run a coroutine to its end, each call in place.

    Raises:
        BaseException: whatever the coroutine raises.
    """
    try:
        call = work.send(None)
        while True:
            try:
                answer = perform(call)
            except errors as error:
                call = work.throw(error)
            else:
                call = work.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        work.close()


async def carry_out_async(
    work: Coroutine[Call, Any, T], perform: Callable[[Call], Awaitable[list[Row]]], errors: Errors
) -> T:
    """Run a coroutine to its end, awaiting each call.

    Raises:
        BaseException: whatever the coroutine raises.
    """
    try:
        call = work.send(None)
        while True:
            try:
                answer = await perform(call)
            except errors as error:
                call = work.throw(error)
            else:
                call = work.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        work.close()
