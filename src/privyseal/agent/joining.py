# SPDX-License-Identifier: Apache-2.0
"""What an agent keeps of its joining: the log as it was then, so that it can tell an older one; a key of its own."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privyseal.agent.config import AgentFiles
from privyseal.identity.bundle import TrustBundle
from privyseal.identity.keyfile import load_x25519, save_private_key
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.checkpoint import open_checkpoint

__all__ = ["open_sealing_key", "remember_checkpoint"]


def open_sealing_key(path: Path) -> X25519PrivateKey:
    """The key that PINs for this agent are sealed to, made if there is none yet.

    Raises:
        ConfigError: `file.too_open`, `file.not_a_key`. OSError: if it cannot be written.
    """
    if not path.exists():
        save_private_key(path, X25519PrivateKey.generate())
    return load_x25519(path)


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
