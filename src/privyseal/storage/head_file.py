# SPDX-License-Identifier: Apache-2.0
"""`head.checkpoint`: the newest checkpoint apart from the database; it shows a restored backup (DESIGN §5).

The file stays out of backup sets. A database that does not extend it is older than what was shown to others.
"""

from pathlib import Path
from typing import Final

from privyseal.errors import LogIntegrityError, PrivysealError
from privyseal.ports.store import LogHead
from privyseal.storage.durable_file import FileSystem, replace_durably
from privyseal.storage.log_tables import LogTables
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.note import MAX_NOTE_BYTES, VerifierKey

__all__ = ["HeadFile"]

_ROLLBACK_HINT: Final = (
    "the database was restored or replaced: bring back the newest one; if it is lost, the log must be given"
    " up and a new one begun under another origin"
)
_MISSING_HINT: Final = (
    "put the file back; if it is lost, make sure with an agent or a witness that this database is the newest,"
    " then write the newest checkpoint that they hold into the file"
)


class HeadFile:
    """Reads, judges and replaces the file."""

    def __init__(self, *, path: Path, files: FileSystem, origin: str, log_key: VerifierKey) -> None:
        self._path: Final = path
        self._files: Final = files
        self._origin: Final = origin
        self._log_key: Final = log_key

    def replace(self, head: LogHead) -> None:
        """Put a newer checkpoint there, durably.

        Raises:
            OSError: as `replace_durably`.
        """
        replace_durably(self._files, self._path, head.note.encode())

    def check(self, head: LogHead, log: LogTables) -> None:
        """Check that the database extends what the file holds.

        Args:
            head: The database's head, already checked against its own tree.
            log: Its tree.

        Raises:
            LogIntegrityError: `log.head_missing`, `log.head_unreadable`, or `log.rollback`.
            OSError: if the file cannot be read.
        """
        kept = self._read()
        if kept is None:
            if head.size:
                raise LogIntegrityError(
                    "log.head_missing",
                    f"the log holds {head.size} entries, but {self._path} is missing",
                    hint=_MISSING_HINT,
                )
            return
        if kept.size > head.size:
            raise LogIntegrityError(
                "log.rollback",
                f"the log holds {head.size} entries, fewer than the {kept.size} of {self._path}",
                hint=_ROLLBACK_HINT,
            )
        if log.stored_frontier(kept.size).root != kept.root:
            raise LogIntegrityError(
                "log.rollback",
                f"the log's first {kept.size} entries are not those of {self._path}",
                hint=_ROLLBACK_HINT,
            )

    def _read(self) -> Checkpoint | None:
        try:
            with self._path.open("rb") as file:
                note = file.read(MAX_NOTE_BYTES + 1)
        except FileNotFoundError:
            return None
        try:
            return open_checkpoint(note, origin=self._origin, verifiers=(self._log_key,))
        except PrivysealError as error:
            raise LogIntegrityError(
                "log.head_unreadable",
                f"{self._path} is not a checkpoint of log {self._origin!r} by its key: {error.message}",
                hint=_MISSING_HINT,
            ) from error
