# SPDX-License-Identifier: Apache-2.0
"""Tables of the agent's journal beside the operations: events on their way to the log, and what it must not forget."""

import sqlite3
from typing import Final

from privyseal.ports.journal import JournalEvent

__all__ = ["NOTES_STATEMENTS", "JournalNotes"]

NOTES_STATEMENTS: Final = (
    # AUTOINCREMENT: a number is never given twice, also when the newest event has gone.
    """
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        entry BLOB NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE memory (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
)

_ADD_EVENT: Final = "INSERT INTO event (entry) VALUES (?)"
_EVENTS: Final = "SELECT seq, entry FROM event ORDER BY seq LIMIT ?"
_LAST_GIVEN: Final = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)"
_RECORDED: Final = "DELETE FROM event WHERE seq <= ?"
_CLEAR: Final = "DELETE FROM event"
_PLACE: Final = "INSERT INTO event (seq, entry) VALUES (?, ?)"
_FORGET_LAST: Final = "DELETE FROM sqlite_sequence WHERE name = 'event'"
_GIVE_LAST: Final = "INSERT INTO sqlite_sequence (name, seq) VALUES ('event', ?)"
_REMEMBER: Final = "INSERT OR REPLACE INTO memory (name, value) VALUES (?, ?)"
_RECALL: Final = "SELECT value FROM memory WHERE name = ?"


class JournalNotes:
    """Reads and writes; the caller owns the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection

    def add_event(self, entry: bytes) -> None:
        """Give an event the next number."""
        self._connection.execute(_ADD_EVENT, (entry,))

    def events(self, count: int) -> tuple[JournalEvent, ...]:
        """The oldest ones."""
        rows = self._connection.execute(_EVENTS, (count,))
        return tuple(JournalEvent(seq=seq, entry=entry) for seq, entry in rows)

    def events_recorded(self, through: int) -> None:
        """Drop what is on record; number anew what another journal's numbers would hide."""
        (last_given,) = self._connection.execute(_LAST_GIVEN).fetchone()
        if through <= last_given:
            self._connection.execute(_RECORDED, (through,))
            return
        entries = [entry for _, entry in self._connection.execute(_EVENTS, (-1,))]
        self._connection.execute(_CLEAR)
        self._connection.execute(_FORGET_LAST)
        self._connection.execute(_GIVE_LAST, (through,))
        self._connection.executemany(_PLACE, enumerate(entries, through + 1))

    def remember(self, name: str, value: bytes) -> None:
        """Keep a value."""
        self._connection.execute(_REMEMBER, (name, value))

    def recall(self, name: str) -> bytes | None:
        """A value that was kept."""
        row = self._connection.execute(_RECALL, (name,)).fetchone()
        return None if row is None else bytes(row[0])
