# SPDX-License-Identifier: Apache-2.0
"""Reading a whole agent journal beside the agent that writes it: one snapshot, and nothing is held in memory."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.errors import ConfigError, UnavailableError
from privyseal.storage.journal_tables import JOURNAL_SCHEMA

__all__ = ["JournalSnapshot", "PastOperation", "reading_journal"]

_OF_LOG: Final = "substr(checkpoint_note, 1, length(?)) = ?"
_COUNT: Final = f"SELECT count(*) FROM operation WHERE {_OF_LOG}"  # noqa: S608 - a constant
_OPERATIONS: Final = (
    "SELECT entry, checkpoint_note, signature FROM operation LEFT JOIN operation_end USING (number)"  # noqa: S608
    f" WHERE {_OF_LOG} ORDER BY number"
)
_HELD: Final = "SELECT note FROM held_checkpoint WHERE origin = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastOperation:
    """A token operation that was begun.

    Attributes:
        entry: The INTENT entry, verbatim.
        checkpoint_note: The signed checkpoint under which it was proven.
        signature: Empty if it failed; None if nothing is known of its end.
    """

    entry: bytes
    checkpoint_note: str
    signature: bytes | None


class JournalSnapshot:
    """A journal as it was at one moment."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection

    def count(self, origin: str) -> int:
        """How many operations were begun under checkpoints of a log."""
        (count,) = self._connection.execute(_COUNT, (_prefix(origin),) * 2).fetchone()
        return int(count)

    def held(self, origin: str) -> str | None:
        """The newest checkpoint of a log that was accepted."""
        row = self._connection.execute(_HELD, (origin,)).fetchone()
        return None if row is None else str(row[0])

    def operations(self, origin: str) -> Iterator[PastOperation]:
        """What was begun under checkpoints of a log, in that order: it is that of the checkpoints' sizes, too."""
        for entry, note, signature in self._connection.execute(_OPERATIONS, (_prefix(origin),) * 2):
            yield PastOperation(entry=entry, checkpoint_note=note, signature=signature)


def _prefix(origin: str) -> str:
    """How a checkpoint of a log begins."""
    return origin + "\n"


@contextmanager
def reading_journal(path: Path) -> Iterator[JournalSnapshot]:
    """A snapshot of the journal; whoever writes it is not held up.

    Raises:
        ConfigError: `file.missing` if there is none; `store.foreign`, `store.schema` for another database.
        UnavailableError: `journal.unavailable` if it cannot be read.
    """
    if not path.is_file():
        raise ConfigError("file.missing", f"there is no journal at {path}", hint="name the agent's directory: --dir")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as found:
            found.execute("BEGIN")
            _check_kind(found, path)
            yield JournalSnapshot(found)
    except sqlite3.Error as error:
        raise UnavailableError("journal.unavailable", f"the journal {path} cannot be read: {error}") from error


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != JOURNAL_SCHEMA.application_id:
        raise ConfigError("store.foreign", f"{path} is not an {JOURNAL_SCHEMA.name}")
    if version != JOURNAL_SCHEMA.version:
        raise ConfigError(
            "store.schema",
            f"the {JOURNAL_SCHEMA.name} has schema version {version}; this release reads version "
            f"{JOURNAL_SCHEMA.version}",
            hint="use the release that wrote it",
        )
