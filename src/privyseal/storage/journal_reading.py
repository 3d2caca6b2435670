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

_COUNT: Final = "SELECT count(*) FROM operation"
_OPERATIONS: Final = (
    "SELECT entry, checkpoint_note, signature FROM operation LEFT JOIN operation_end USING (number) ORDER BY number"
)
_HELD: Final = "SELECT note FROM held_checkpoint"


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

    @property
    def count(self) -> int:
        """How many operations there are."""
        (count,) = self._connection.execute(_COUNT).fetchone()
        return int(count)

    @property
    def held(self) -> str | None:
        """The newest checkpoint that was accepted."""
        row = self._connection.execute(_HELD).fetchone()
        return None if row is None else str(row[0])

    def operations(self) -> Iterator[PastOperation]:
        """What was begun, in that order, which is the order of the checkpoints' sizes, too."""
        for entry, note, signature in self._connection.execute(_OPERATIONS):
            yield PastOperation(entry=entry, checkpoint_note=note, signature=signature)


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
