# SPDX-License-Identifier: Apache-2.0
"""The log's head in the database: signed, moved by compare-and-swap, checked against the tree."""

from typing import Final

from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError
from privyseal.ports.clock import Clock
from privyseal.ports.store import LogHead
from privyseal.storage.calls import Query
from privyseal.storage.log_tables import LogTables
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from privyseal.tlog.note import NoteSigner
from privyseal.tlog.tree import EMPTY_ROOT

__all__ = ["LogSeal", "check_extends", "head_moved"]

_CREATE: Final = "INSERT INTO log_head (id, origin, size, root, note) VALUES (1, ?, 0, ?, ?)"
_READ: Final = "SELECT origin, size, root, note FROM log_head"
_GUARD: Final = "SELECT 1 FROM log_head WHERE size = ? AND root = ?"
_MOVE: Final = "UPDATE log_head SET size = ?, root = ?, note = ? WHERE size = ? AND root = ? RETURNING 1"
_LAST_MS: Final = "SELECT created_ms FROM log_checkpoint ORDER BY number DESC LIMIT 1"
# Numbered without a gap, whatever was rolled back: they are read by their place.
_KEEP: Final = (
    "INSERT INTO log_checkpoint (number, size, root, note, created_ms)"
    " VALUES ((SELECT coalesce(max(number), 0) + 1 FROM log_checkpoint), ?, ?, ?, ?)"
)

_ROLLBACK_HINT: Final = (
    "the database was restored or replaced: bring back the newest one; if it is lost, give the log up with"
    " privyseal log reopen"
)


class LogSeal:
    """Signs checkpoints of one log and keeps its head row."""

    def __init__(self, *, origin: str, signer: NoteSigner, clock: Clock) -> None:
        self._origin: Final = origin
        self._signer: Final = signer
        self._clock: Final = clock
        self._last_ms = 0

    def now_ms(self) -> int:
        """The clock, but never before what was told or stored earlier: entries are in the order of their times."""
        self._last_ms = max(self._clock(), self._last_ms)
        return self._last_ms

    async def database_ms(self) -> int:
        """The clock itself: where one process has the database, it is the clock that all of them share."""
        return self._clock()

    async def load(self, log: LogTables) -> LogHead:
        """The head, once it is known to fit the stored tree; an empty log gets its first.

        Raises:
            ConfigError: `log.origin` for the database of another log, `log.key` for another key.
            LogIntegrityError: `log.corrupt` or `log.missing_hash` if head and tree do not fit.
        """
        rows = await Query(_READ)
        if not rows:
            note = self._sign(0, EMPTY_ROOT)
            await Query(_CREATE, (self._origin, EMPTY_ROOT, note))
            return LogHead(size=0, root=EMPTY_ROOT, note=note)
        ((origin, size, root, note),) = rows
        if origin != self._origin:
            raise ConfigError("log.origin", f"the database holds log {origin!r}; expected {self._origin!r}")
        head = LogHead(size=size, root=root, note=note)
        self._check_note(head)
        for (last_ms,) in await Query(_LAST_MS):
            self._last_ms = max(self._last_ms, last_ms)
        log.restart(await log.stored_frontier(size))
        if await log.stored_size() != size or log.frontier.root != root:
            damaged = await log.damaged_entry()
            named = "" if damaged is None else f": entry {damaged} does not give the hash that is stored beside it"
            raise LogIntegrityError(
                "log.corrupt",
                f"the stored entries do not give the log's head at size {size}{named}",
                hint="keep this database for inspection and bring back an undamaged copy of the newest one",
            )
        return head

    def _check_note(self, head: LogHead) -> None:
        try:
            checkpoint = open_checkpoint(head.note, origin=self._origin, verifiers=(self._signer.verifier,))
        except PrivysealError as error:
            raise ConfigError(
                "log.key",
                f"the head of log {self._origin!r} is not signed by the given log key: {error.message}",
                hint="bring back the log key that this database was written with",
            ) from error
        if (checkpoint.size, checkpoint.root) != (head.size, head.root):
            raise LogIntegrityError("log.corrupt", "the log's head and its signed checkpoint differ")

    async def holds(self, head: LogHead) -> bool:
        """Whether the head is still the one that the database has."""
        return bool(await Query(_GUARD, (head.size, head.root)))

    async def move(self, head: LogHead, log: LogTables) -> LogHead:
        """Sign a checkpoint over the grown tree and move the head to it, by compare-and-swap.

        Raises:
            LogIntegrityError: `log.head_moved`.
        """
        size, root = log.frontier.size, log.frontier.root
        note = self._sign(size, root)
        if not await Query(_MOVE, (size, root, note, head.size, head.root)):
            raise head_moved(head)
        await Query(_KEEP, (size, root, note, self.now_ms()))
        return LogHead(size=size, root=root, note=note)

    def _sign(self, size: int, root: bytes) -> str:
        return sign_checkpoint(Checkpoint(origin=self._origin, size=size, root=root), self._signer)


async def check_extends(log: LogTables, head: LogHead, *, size: int, root: bytes, seen: str) -> None:
    """Check that the database extends a tree that was seen before.

    Args:
        log: The database's tree.
        head: Its head, already checked against the tree.
        size: Size of the tree that was seen.
        root: Its root.
        seen: Where, for messages.

    Raises:
        LogIntegrityError: `log.rollback`.
    """
    if size > head.size:
        raise LogIntegrityError(
            "log.rollback",
            f"the log holds {head.size} entries, fewer than the {size} of {seen}",
            hint=_ROLLBACK_HINT,
        )
    if (await log.stored_frontier(size)).root != root:
        raise LogIntegrityError(
            "log.rollback", f"the log's first {size} entries are not those of {seen}", hint=_ROLLBACK_HINT
        )


def head_moved(head: LogHead) -> LogIntegrityError:
    """The error for a head that another writer moved."""
    return LogIntegrityError(
        "log.head_moved",
        f"another writer moved the log's head from size {head.size}",
        hint="only one process may write to this database: find the other one, then start again",
    )
