# SPDX-License-Identifier: Apache-2.0
"""The agent's journal in SQLite; `ports/journal.py` says what each call promises."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, TypeVar

from privyseal.errors import ConflictError, LogIntegrityError, MalformedInputError, UnavailableError
from privyseal.ports.journal import JournalEntry, JournalEvent, JournalPart, JournalState, JournalUse, Outcome
from privyseal.storage.connection import Connect, configure, connect, prepare
from privyseal.storage.journal_notes import JournalNotes
from privyseal.storage.journal_tables import JOURNAL_SCHEMA, Checkpointed, JournalTables
from privyseal.tlog.tile import MAX_ENTRY_BYTES
from privyseal.tlog.tree import HASH_BYTES

__all__ = ["SqliteJournal"]

T = TypeVar("T")

_MAX_INTEGER: Final = 2**63 - 1


class SqliteJournal:
    """One agent's journal. Made by `open`."""

    def __init__(self, connection: sqlite3.Connection, origin: str) -> None:
        self._connection: Final = connection
        self._tables: Final = JournalTables(connection, origin)
        self._notes: Final = JournalNotes(connection)
        self._thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="privyseal-journal")
        self._doubt: sqlite3.Error | None = None
        self._closed = False

    @classmethod
    async def open(cls, path: str | Path, *, origin: str, connect: Connect = connect) -> "SqliteJournal":
        """Open or create the journal.

        Args:
            path: File, or `:memory:`.
            origin: The log that the hub keeps.
            connect: Opens the connection.

        Raises:
            ConfigError: `store.foreign`, `store.schema`, `store.no_wal`.
            UnavailableError: `journal.unavailable` if the file cannot be opened.
        """
        return cls(await asyncio.to_thread(_start, str(path), connect), origin)

    async def follow(self, origin: str) -> None:
        """Go by the checkpoints and fences of another log: the hub's authority keys have put it in place of the former.

        Raises:
            UnavailableError: `journal.closed`.
        """

        def change() -> None:
            self._tables.origin = origin

        await self._run(change)

    async def state(self) -> JournalState:
        """The newest checkpoint that was accepted."""
        return await self._run(self._tables.state)

    async def raise_fence(self, token: str, fence: int) -> None:
        """Take note of a token's fence; durable when this returns.

        Raises:
            DeniedError: `journal.stale_fence`.
            LogIntegrityError: `journal.commit_unknown`.
            MalformedInputError: `journal.range`.
            UnavailableError: `journal.unavailable`, `journal.closed`.
        """
        _check_range(fence)

        def write() -> None:
            if self._tables.is_new_fence(token, fence):
                self._commit(lambda: self._tables.raise_fence(token, fence), durable=True)

        await self._run(write)

    async def max_fence(self, token: str) -> int:
        """The highest fence under which something was begun with a token; 0 if nothing was."""
        return await self._run(lambda: self._tables.max_fence(token))

    async def begin(
        self,
        *,
        checkpoint_note: str,
        size: int,
        root: bytes,
        token: str,
        profile: str,
        fence: int,
        parts: tuple[JournalPart, ...],
    ) -> tuple[ConflictError | None, ...]:
        """Write down that the items of one job are about to be signed; durable when this returns.

        Returns:
            For each part None, or why it was not begun: `journal.used`, `journal.signed`.

        Raises:
            DeniedError: `journal.stale_fence`.
            LogIntegrityError: `journal.rewound`, `journal.commit_unknown`.
            MalformedInputError: `journal.range`.
            UnavailableError: `journal.unavailable`, `journal.closed`.
        """
        items = [one for part in parts for one in part.items]
        _check_range(size, fence, *(item for item, _ in items))
        _check_root(root)
        if any(len(entry) > MAX_ENTRY_BYTES for _, entry in items):
            raise MalformedInputError("journal.range", f"an entry is longer than {MAX_ENTRY_BYTES} bytes")
        checkpoint = Checkpointed(note=checkpoint_note, size=size, root=root)

        def write() -> tuple[ConflictError | None, ...]:
            self._tables.hold(checkpoint)
            is_new = self._tables.is_new_fence(token, fence)
            refused = tuple(self._tables.begin(checkpoint, profile, fence, part) for part in parts)
            if is_new and None in refused:
                self._tables.raise_fence(token, fence)
            return refused

        return await self._run(lambda: self._commit(write, durable=True))

    async def finish(
        self,
        request_id: str,
        item: int,
        fence: int,
        *,
        signature: bytes,
        branch: str,
        code: str,
        message: str,
    ) -> None:
        """Write down how one item ended: with a signature, or (if that is empty) with an error.

        Raises:
            ConflictError: `journal.not_begun`, `journal.finished`.
            LogIntegrityError: `journal.commit_unknown`.
            MalformedInputError: `journal.range`.
            UnavailableError: `journal.unavailable`, `journal.closed`.
        """
        _check_range(item, fence)
        key = (request_id, item, fence)
        end = (signature, branch, code, message)
        await self._run(lambda: self._commit(lambda: self._tables.finish(key, end), durable=False))

    async def outcome(self, request_id: str, item: int, fence: int) -> Outcome | None:
        """What is known of a token operation; None if it was never begun.

        Raises:
            MalformedInputError: `journal.range`.
        """
        _check_range(item, fence)
        return await self._run(lambda: self._tables.outcome((request_id, item, fence)))

    async def see_checkpoint(self, note: str, size: int, root: bytes) -> None:
        """Hold a newer checkpoint; durable when this returns.

        Raises:
            LogIntegrityError: `journal.rewound`, `journal.commit_unknown`.
            MalformedInputError: `journal.range`.
            UnavailableError: `journal.unavailable`, `journal.closed`.
        """
        _check_range(size)
        _check_root(root)
        checkpoint = Checkpointed(note=note, size=size, root=root)
        await self._run(lambda: self._commit(lambda: self._tables.hold(checkpoint), durable=True))

    async def add_event(self, entry: bytes) -> None:
        """Write down what the hub must put on record; durable when this returns.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
            MalformedInputError: `journal.range`.
            UnavailableError: `journal.unavailable`, `journal.closed`.
        """
        if len(entry) > MAX_ENTRY_BYTES:
            raise MalformedInputError("journal.range", f"an event is longer than {MAX_ENTRY_BYTES} bytes")
        await self._run(lambda: self._commit(lambda: self._notes.add_event(entry), durable=True))

    async def events(self, count: int) -> tuple[JournalEvent, ...]:
        """The oldest events that are not on record as far as this journal knows: `count` at most.

        Raises:
            MalformedInputError: `journal.range`.
        """
        _check_range(count)
        return await self._run(lambda: self._notes.events(count))

    async def events_recorded(self, through: int) -> None:
        """The hub has all events up to a number on record; see the port.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
            MalformedInputError: `journal.range`.
            UnavailableError: `journal.unavailable`, `journal.closed`.
        """
        _check_range(through)
        await self._run(lambda: self._commit(lambda: self._notes.events_recorded(through), durable=True))

    async def remember(self, name: str, value: bytes) -> None:
        """Keep a value under a name, in place of any other; durable when this returns.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
            UnavailableError: `journal.unavailable`, `journal.closed`.
        """
        await self._run(lambda: self._commit(lambda: self._notes.remember(name, value), durable=True))

    async def recall(self, name: str) -> bytes | None:
        """The value under a name; None if there is none."""
        return await self._run(lambda: self._notes.recall(name))

    async def entries(self, start: int, count: int) -> tuple[JournalEntry, ...]:
        """What was begun, in that order: `count` at most from the `start`-th on.

        Raises:
            MalformedInputError: `journal.range`.
        """
        _check_range(start, count)
        return await self._run(lambda: self._tables.entries(start, count))

    async def uses(self, after: int, count: int) -> tuple[JournalUse, ...]:
        """Operations by their numbers: those above `after`, `count` at most.

        Raises:
            MalformedInputError: `journal.range`.
        """
        _check_range(after, count)
        return await self._run(lambda: self._tables.uses(after, count))

    async def last_use(self) -> int:
        """The number of the operation that was begun last; 0 if none was."""
        return await self._run(self._tables.last_use)

    async def close(self) -> None:
        """Finish what was handed in and close. May be called twice."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)
        with suppress(sqlite3.Error):
            self._connection.close()

    async def _run(self, call: Callable[[], T]) -> T:
        """Run a call on the journal's thread, where it stays also if the caller is cancelled."""
        if self._closed:
            raise UnavailableError("journal.closed", "the journal was closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, call)

    def _guarded(self, call: Callable[[], T]) -> T:
        if self._doubt is not None:
            raise _commit_unknown(self._doubt) from self._doubt
        try:
            self._reset()
            return call()
        except sqlite3.Error as error:
            if self._doubt is not None:
                raise _commit_unknown(error) from error
            raise UnavailableError(
                "journal.unavailable",
                f"the journal's database failed: {error}",
                hint="check free space and the medium, then try again",
            ) from error

    def _commit(self, write: Callable[[], T], *, durable: bool) -> T:
        """Run `write` in a transaction, with an fsync behind it or without one.

        In WAL mode synchronous=NORMAL leaves out the fsync of the commit; the next commit under FULL syncs
        the whole WAL. Whatever a loss of power takes is thus the end of the journal, never its middle.
        """
        self._connection.execute("PRAGMA synchronous = FULL" if durable else "PRAGMA synchronous = NORMAL")
        self._connection.execute("BEGIN IMMEDIATE")
        with ExitStack() as undo:
            undo.callback(self._roll_back)
            written = write()
            undo.pop_all()
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._doubt = error
            self._roll_back()
            raise
        return written

    def _reset(self) -> None:
        """End the transaction that a failed rollback left open."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self._reset()


def _start(path: str, connect: Connect) -> sqlite3.Connection:
    try:
        with ExitStack() as undo:
            connection = connect(path)
            undo.callback(connection.close)
            configure(connection, path)
            connection.execute("BEGIN IMMEDIATE")
            prepare(connection, JOURNAL_SCHEMA)
            connection.execute("COMMIT")
            undo.pop_all()
            return connection
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(
            "journal.unavailable",
            f"the journal {path} could not be opened: {error}",
            hint="check path, permissions and free space",
        ) from error


def _check_range(*values: int) -> None:
    for value in values:
        if not 0 <= value <= _MAX_INTEGER:
            raise MalformedInputError("journal.range", f"{value} is not in 0..2^63-1")


def _check_root(root: bytes) -> None:
    if len(root) != HASH_BYTES:
        raise MalformedInputError("journal.range", f"a root has {HASH_BYTES} bytes, not {len(root)}")


def _commit_unknown(cause: sqlite3.Error) -> LogIntegrityError:
    return LogIntegrityError(
        "journal.commit_unknown",
        f"it is not known whether the journal's last commit is durable: {cause}",
        hint="start the agent again: it reads from the journal what became of it",
    )
