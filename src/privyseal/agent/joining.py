# SPDX-License-Identifier: Apache-2.0
"""What an agent keeps of its joining: the log as it was then, so that it can tell an older one from the first day."""

from pathlib import Path

from privyseal.agent.config import AgentFiles
from privyseal.identity.bundle import TrustBundle
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.checkpoint import open_checkpoint

__all__ = ["remember_checkpoint"]


async def remember_checkpoint(directory: Path, bundle: TrustBundle, note: str) -> None:
    """Hold the checkpoint that the hub showed to a new agent.

    Raises:
        VerificationError, MalformedInputError: it is none of the log's.
        UnavailableError: `journal.unavailable`.
    """
    checkpoint = open_checkpoint(note, origin=bundle.origin, verifiers=(bundle.log_key,))
    journal = await SqliteJournal.open(AgentFiles(directory).journal, origin=bundle.origin)
    try:
        await journal.see_checkpoint(note, checkpoint.size, checkpoint.root)
    finally:
        await journal.close()
