# SPDX-License-Identifier: Apache-2.0
"""Tables of the agent's journal, kept by the rules of `journal_rules`."""

import sqlite3
from dataclasses import dataclass
from typing import Final

from privyseal.errors import ConflictError
from privyseal.ports.journal import JournalEntry, JournalPart, JournalState, JournalUse, Outcome, OutcomeState
from privyseal.storage.connection import Schema
from privyseal.storage.journal_notes import NOTES_STATEMENTS
from privyseal.storage.journal_rules import (
    Begun,
    End,
    Key,
    check_begin,
    check_fence,
    check_finish,
    check_held,
    outcome_of,
)
from privyseal.tlog.tree import EMPTY_ROOT

__all__ = ["JOURNAL_SCHEMA", "Checkpointed", "JournalTables"]

JOURNAL_SCHEMA: Final = Schema(
    name="agent journal",
    application_id=0x5053794A,
    version=3,
    statements=(
        """
        CREATE TABLE held_checkpoint (
            origin TEXT PRIMARY KEY,
            note TEXT NOT NULL,
            size INTEGER NOT NULL,
            root BLOB NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE token_fence (
            origin TEXT NOT NULL,
            token TEXT NOT NULL,
            fence INTEGER NOT NULL,
            PRIMARY KEY (origin, token)
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
        *NOTES_STATEMENTS,
    ),
)

_STATE: Final = "SELECT note, size, root FROM held_checkpoint WHERE origin = ?"
_HOLD: Final = "INSERT OR REPLACE INTO held_checkpoint (origin, note, size, root) VALUES (?, ?, ?, ?)"
_FENCE: Final = "SELECT fence FROM token_fence WHERE origin = ? AND token = ?"
_RAISE_FENCE: Final = "INSERT OR REPLACE INTO token_fence (origin, token, fence) VALUES (?, ?, ?)"
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
_USES: Final = (
    "SELECT number, entry, length(signature) FROM operation LEFT JOIN operation_end USING (number)"
    " WHERE number > ? ORDER BY number LIMIT ?"
)
_LAST_USE: Final = "SELECT coalesce(max(number), 0) FROM operation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointed:
    """A checkpoint as it is held: its note, and what that says."""

    note: str
    size: int
    root: bytes


class JournalTables:
    """Reads and writes of the journal; the caller owns the transaction.

    Attributes:
        origin: The log whose checkpoints and fences count. What was signed is signed under any log.
    """

    def __init__(self, connection: sqlite3.Connection, origin: str) -> None:
        self._connection: Final = connection
        self.origin = origin

    def state(self) -> JournalState:
        """The newest checkpoint that was accepted."""
        row = self._connection.execute(_STATE, (self.origin,)).fetchone()
        if row is None:
            return JournalState(checkpoint_note=None, size=0, root=EMPTY_ROOT)
        note, size, root = row
        return JournalState(checkpoint_note=note, size=size, root=root)

    def max_fence(self, token: str) -> int:
        """The highest fence of a token, or 0."""
        row = self._connection.execute(_FENCE, (self.origin, token)).fetchone()
        return 0 if row is None else int(row[0])

    def hold(self, checkpoint: Checkpointed) -> None:
        """Hold a checkpoint that extends the one held.

        Raises:
            LogIntegrityError: `journal.rewound`.
        """
        if check_held(self.state(), checkpoint.size, checkpoint.root):
            self._connection.execute(_HOLD, (self.origin, checkpoint.note, checkpoint.size, checkpoint.root))

    def is_new_fence(self, token: str, fence: int) -> bool:
        """Whether a fence is the token's new highest.

        Raises:
            DeniedError: `journal.stale_fence`.
        """
        return check_fence(token, fence, self.max_fence(token))

    def raise_fence(self, token: str, fence: int) -> None:
        """Remember the fence as the token's highest."""
        self._connection.execute(_RAISE_FENCE, (self.origin, token, fence))

    def begin(self, checkpoint: Checkpointed, profile: str, fence: int, part: JournalPart) -> ConflictError | None:
        """Mark each (request, item, fence) of a part as used, or none of them: then the answer is why."""
        keys: set[Key] = set()
        for item, _ in part.items:
            key = (part.request_id, item, fence)
            try:
                check_begin(key, self._begun(key, same=key in keys))
            except ConflictError as conflict:
                return conflict
            keys.add(key)
        for item, entry in part.items:
            self._connection.execute(_BEGIN, (part.request_id, item, fence, profile, entry, checkpoint.note))
        return None

    def _begun(self, key: Key, *, same: bool) -> Begun:
        same = same or self._connection.execute(_FIND, key).fetchone() is not None
        signed = self._connection.execute(_SIGNED, key[:2]).fetchone()
        return Begun(same=same, signed_fence=None if signed is None else signed[0])

    def finish(self, key: Key, end: End) -> None:
        """Write down how an operation ended.

        Raises:
            ConflictError: `journal.not_begun`, `journal.finished`.
        """
        row = self._connection.execute(_FIND, key).fetchone()
        known = None if row is None else self._connection.execute(_END, row).fetchone()
        if check_finish(key, begun=row is not None, known=known, end=end):
            self._connection.execute(_FINISH, (*row, *end))

    def outcome(self, key: Key) -> Outcome | None:
        """What is known of an operation."""
        row = self._connection.execute(_FIND, key).fetchone()
        return None if row is None else outcome_of(self._connection.execute(_END, row).fetchone())

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

    def uses(self, after: int, count: int) -> tuple[JournalUse, ...]:
        """Operations by their numbers."""
        return tuple(
            JournalUse(number=number, entry=entry, state=_state(signature_bytes))
            for number, entry, signature_bytes in self._connection.execute(_USES, (after, count))
        )

    def last_use(self) -> int:
        """The number of the operation that was begun last."""
        (number,) = self._connection.execute(_LAST_USE).fetchone()
        return int(number)


def _state(signature_bytes: int | None) -> OutcomeState:
    if signature_bytes is None:
        return OutcomeState.BEGUN
    return OutcomeState.SIGNED if signature_bytes else OutcomeState.FAILED
