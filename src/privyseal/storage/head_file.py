# SPDX-License-Identifier: Apache-2.0
"""`head.checkpoint`: the newest checkpoint apart from the database; it shows a restored backup (DESIGN §5).

The file stays out of backup sets. A database that does not extend it is older than what was shown to others.
"""

import threading
from pathlib import Path
from typing import Final, Self

from privyseal.errors import LogIntegrityError, PrivysealError
from privyseal.ports.store import LogHead
from privyseal.storage.durable_file import FileSystem, PosixFileSystem, replace_durably
from privyseal.storage.head import check_extends
from privyseal.storage.log_tables import LogTables
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.note import MAX_NOTE_BYTES, NoteSigner, VerifierKey

__all__ = ["HeadFile", "HeadKeeper"]

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

    async def check(self, head: LogHead, log: LogTables) -> None:
        """Check that the database extends what the file holds.

        Args:
            head: The database's head, already checked against its own tree.
            log: Its tree.

        Raises:
            LogIntegrityError: `log.head_missing`, `log.head_unreadable`, or `log.rollback`.
            OSError: if the file cannot be read.
        """
        kept = self._read()
        if kept is not None:
            await check_extends(log, head, size=kept.size, root=kept.root, seen=str(self._path))
        elif head.size:
            raise LogIntegrityError(
                "log.head_missing",
                f"the log holds {head.size} entries, but {self._path} is missing",
                hint=_MISSING_HINT,
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


class HeadKeeper:
    """The newest head that this process knows: in `head.checkpoint` before anybody is shown it. Any thread may call.

    Attributes:
        head: The newest checkpoint whose commit is known.
    """

    def __init__(self, file: HeadFile | None) -> None:
        self._file: Final = file
        self._lock: Final = threading.Lock()
        self.head: LogHead

    @classmethod
    def at(cls, path: Path | None, files: FileSystem | None, signer: NoteSigner) -> Self:
        """The keeper of a log's head; without a file if `path` is None: only for a log that nobody relies on."""
        if path is None:
            return cls(None)
        files = files or PosixFileSystem()
        return cls(HeadFile(path=path, files=files, origin=signer.verifier.name, log_key=signer.verifier))

    async def check(self, head: LogHead, log: LogTables) -> None:
        """Hold a database's head against the file, as `HeadFile.check`."""
        if self._file is not None:
            await self._file.check(head, log)

    def start(self, head: LogHead) -> None:
        """Take the head that the database was opened with.

        After a crash the file may be one commit behind; and it must stand there before the first entry.

        Raises:
            OSError: as `replace_durably`.
        """
        with self._lock:
            self._replace(head)

    def advance(self, head: LogHead) -> None:
        """Take a head whose commit is known, unless a newer one is known already.

        Raises:
            OSError: as `replace_durably`; the head stays what it was.
        """
        with self._lock:
            if head.size > self.head.size:
                self._replace(head)

    def _replace(self, head: LogHead) -> None:
        if self._file is not None:
            self._file.replace(head)
        self.head = head
