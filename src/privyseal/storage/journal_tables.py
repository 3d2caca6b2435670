# SPDX-License-Identifier: Apache-2.0
"""Tables of the agent's journal, and the rules that they are kept by (DESIGN §4, promise 4)."""

import sqlite3
from dataclasses import dataclass
from typing import Final

from privyseal.errors import ConflictError, DeniedError, LogIntegrityError
from privyseal.ports.journal import JournalEntry, JournalState, Outcome, OutcomeState
from privyseal.storage.connection import Schema
from privyseal.tlog.tree import EMPTY_ROOT

__all__ = ["JOURNAL_SCHEMA", "Checkpointed", "JournalTables"]

JOURNAL_SCHEMA: Final = Schema(
    name="agent journal",
    application_id=0x5053794A,
    version=1,
    statements=(
        """
        CREATE TABLE held_checkpoint (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            note TEXT NOT NULL,
            size INTEGER NOT NULL,
            root BLOB NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE profile_fence (
            profile TEXT PRIMARY KEY,
            fence INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        # Each keeps the checkpoint that it was signed under: the log's own signature is what proves a fork.
        """
        CREATE TABLE operation (
            number INTEGER PRIMARY KEY,
            request_id TEXT NOT NULL,
            item INTEGER NOT NULL,
            fence INTEGER NOT NULL,
            profile TEXT NOT NULL,
            entry BLOB NOT NULL,
            checkpoint_note TEXT NOT NULL,
            UNIQUE (request_id, item, fence)
        ) STRICT
        """,
        """
        CREATE TABLE operation_end (
            number INTEGER PRIMARY KEY REFERENCES operation (number),
            signature BLOB NOT NULL,
            branch TEXT NOT NULL,
            code TEXT NOT NULL,
            message TEXT NOT NULL
        ) STRICT
        """,
    ),
)

_STATE: Final = "SELECT note, size, root FROM held_checkpoint"
_HOLD: Final = "INSERT OR REPLACE INTO held_checkpoint (id, note, size, root) VALUES (1, ?, ?, ?)"
_FENCE: Final = "SELECT fence FROM profile_fence WHERE profile = ?"
_RAISE_FENCE: Final = "INSERT OR REPLACE INTO profile_fence (profile, fence) VALUES (?, ?)"
_FIND: Final = "SELECT number FROM operation WHERE request_id = ? AND item = ? AND fence = ?"
_SIGNED: Final = (
    "SELECT fence FROM operation JOIN operation_end USING (number)"
    " WHERE request_id = ? AND item = ? AND length(signature) > 0"
)
_BEGIN: Final = (
    "INSERT INTO operation (request_id, item, fence, profile, entry, checkpoint_note) VALUES (?, ?, ?, ?, ?, ?)"
)
_END: Final = "SELECT signature, branch, code, message FROM operation_end WHERE number = ?"
_FINISH: Final = "INSERT INTO operation_end (number, signature, branch, code, message) VALUES (?, ?, ?, ?, ?)"
_ENTRIES: Final = (
    "SELECT profile, request_id, item, fence, entry, checkpoint_note FROM operation"
    " WHERE number > ? ORDER BY number LIMIT ?"
)

#: Request id, item, fence.
_Key = tuple[str, int, int]
#: Signature, branch, code, message.
_End = tuple[bytes, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointed:
    """A checkpoint as it is held: its note, and what that says."""

    note: str
    size: int
    root: bytes


class JournalTables:
    """Reads and writes of the journal; the caller owns the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection

    def state(self) -> JournalState:
        """The newest checkpoint that was accepted."""
        row = self._connection.execute(_STATE).fetchone()
        if row is None:
            return JournalState(checkpoint_note=None, size=0, root=EMPTY_ROOT)
        note, size, root = row
        return JournalState(checkpoint_note=note, size=size, root=root)

    def max_fence(self, profile: str) -> int:
        """The highest fence of a profile, or 0."""
        row = self._connection.execute(_FENCE, (profile,)).fetchone()
        return 0 if row is None else int(row[0])

    def hold(self, checkpoint: Checkpointed) -> None:
        """Hold a checkpoint that extends the one held.

        Raises:
            LogIntegrityError: `journal.rewound`.
        """
        held = self.state()
        if checkpoint.size < held.size or (checkpoint.size == held.size and checkpoint.root != held.root):
            raise LogIntegrityError(
                "journal.rewound",
                f"the hub shows a log of size {checkpoint.size} that does not extend the one of size"
                f" {held.size} that this agent holds",
                hint="the hub's database was restored or replaced, or its log was forked",
            )
        if held.checkpoint_note is None or checkpoint.size > held.size:
            self._connection.execute(_HOLD, (checkpoint.note, checkpoint.size, checkpoint.root))

    def raise_fence(self, profile: str, fence: int) -> None:
        """Remember the fence as the profile's highest.

        Raises:
            DeniedError: `journal.stale_fence`.
        """
        highest = self.max_fence(profile)
        if fence < highest:
            raise DeniedError(
                "journal.stale_fence",
                f"fence {fence} of key profile {profile} is stale: this agent has seen {highest}",
            )
        if fence > highest:
            self._connection.execute(_RAISE_FENCE, (profile, fence))

    def begin(self, checkpoint: Checkpointed, profile: str, key: _Key, entry: bytes) -> None:
        """Mark a (request, item, fence) as used.

        Raises:
            ConflictError: `journal.used`, `journal.signed`.
        """
        request_id, item, fence = key
        if self._connection.execute(_FIND, key).fetchone() is not None:
            raise ConflictError(
                "journal.used",
                f"item {item} of request {request_id} was begun under fence {fence} before",
                hint="ask for its outcome instead",
            )
        signed = self._connection.execute(_SIGNED, (request_id, item)).fetchone()
        if signed is not None:
            raise ConflictError(
                "journal.signed",
                f"item {item} of request {request_id} was signed under fence {signed[0]}, and is signed once",
                hint=f"ask for its outcome under fence {signed[0]}",
            )
        self._connection.execute(_BEGIN, (*key, profile, entry, checkpoint.note))

    def finish(self, key: _Key, end: _End) -> None:
        """Write down how an operation ended.

        Raises:
            ConflictError: `journal.not_begun`, `journal.finished`.
        """
        request_id, item, fence = key
        row = self._connection.execute(_FIND, key).fetchone()
        if row is None:
            raise ConflictError(
                "journal.not_begun", f"item {item} of request {request_id} was not begun under fence {fence}"
            )
        old = self._connection.execute(_END, row).fetchone()
        if old is None:
            self._connection.execute(_FINISH, (*row, *end))
        elif tuple(old) != end:
            raise ConflictError(
                "journal.finished", f"item {item} of request {request_id} ended otherwise under fence {fence}"
            )

    def outcome(self, key: _Key) -> Outcome | None:
        """What is known of an operation."""
        row = self._connection.execute(_FIND, key).fetchone()
        if row is None:
            return None
        end = self._connection.execute(_END, row).fetchone()
        if end is None:
            return Outcome(state=OutcomeState.BEGUN)
        signature, branch, code, message = end
        state = OutcomeState.SIGNED if signature else OutcomeState.FAILED
        return Outcome(state=state, signature=signature, branch=branch, code=code, message=message)

    def entries(self, start: int, count: int) -> tuple[JournalEntry, ...]:
        """What was begun, in that order."""
        return tuple(
            JournalEntry(
                profile=profile,
                request_id=request_id,
                item=item,
                fence=fence,
                entry=entry,
                checkpoint_note=note,
            )
            for profile, request_id, item, fence, entry, note in self._connection.execute(_ENTRIES, (start, count))
        )
