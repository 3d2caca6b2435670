# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that were kept elsewhere, such as a hub's `head.checkpoint`, held against the log that is shown."""

from pathlib import Path
from typing import Final

from privyseal.client.log import PublicLog
from privyseal.client.quorum_file import read_bounded
from privyseal.errors import LogIntegrityError, MalformedInputError, VerificationError
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.entry import Entry
from privyseal.tlog.note import MAX_NOTE_BYTES

__all__ = ["KeptCheckpoint"]


class KeptCheckpoint:
    """A follower that checks that the log extends a checkpoint: it has the root that its entries give at that size.

    Attributes:
        path: Where the checkpoint was kept.
        checkpoint: What it says.
    """

    def __init__(self, log: PublicLog, path: Path) -> None:
        """Read and open the checkpoint.

        Raises:
            ConfigError: `file.missing`.
            LogIntegrityError: `log.checkpoint` if it is none of this log.
        """
        self.path: Final = path
        self.checkpoint: Final = _opened(log, path)
        self._place: Final = log.place

    def follow(self, check: LogCheck, _index: int, _entry: Entry | None) -> None:
        """Hold the checkpoint against the log once that is as long.

        Raises:
            LogIntegrityError: `log.fork`.
        """
        if check.size != self.checkpoint.size:
            return
        try:
            check.check_checkpoint(self.checkpoint)
        except LogIntegrityError as error:
            raise LogIntegrityError(
                "log.fork",
                f"{self.path} was signed by the key of this log, but {self._place} does not extend it: {error.message}",
                hint="keep both: they prove that the log was rewritten",
            ) from error

    def finish(self, checkpoint: Checkpoint) -> None:
        """Check that the log reached it.

        Raises:
            LogIntegrityError: `log.rewound`.
        """
        if checkpoint.size < self.checkpoint.size:
            raise LogIntegrityError(
                "log.rewound",
                f"{self.path} shows a log of {self.checkpoint.size} entries; {self._place} has {checkpoint.size}",
                hint="bring a copy of the log up to date with privyseal log export; if the hub shows this, its log"
                " was cut: keep the checkpoint, it proves that",
            )


def _opened(log: PublicLog, path: Path) -> Checkpoint:
    note = read_bounded(path, MAX_NOTE_BYTES)
    try:
        return open_checkpoint(note, origin=log.origin, verifiers=(log.key,), also=log.also)
    except (MalformedInputError, VerificationError) as error:
        raise LogIntegrityError(
            "log.checkpoint",
            f"{path} is no checkpoint of log {log.origin!r}: {error.message}",
            hint="name a file with one signed note, such as the hub's head.checkpoint",
        ) from error
