# SPDX-License-Identifier: Apache-2.0
"""Writing out what this agent signed under, for `privyseal log verify --agent`; the agent may be running."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from privyseal.agent.config import AgentFiles
from privyseal.identity.bundle import load_bundle
from privyseal.identity.keyfile import load_ed25519
from privyseal.storage.journal_reading import JournalSnapshot, PastOperation, reading_journal
from privyseal.tlog.agent_record import Held, Operation, RecordHead, RecordLine, encode_line

__all__ = ["export_record"]


def export_record(directory: Path, target: Path) -> RecordHead:
    """Write the record of the agent in a directory into a file, whole or not at all.

    Raises:
        ConfigError: `file.missing`, `store.foreign`, `store.schema`.
        UnavailableError: `journal.unavailable`.
        OSError: the file cannot be written.
    """
    files = AgentFiles(directory)
    origin = load_bundle(files.bundle).origin
    agent = hashlib.sha256(load_ed25519(files.request_key).public_key().public_bytes_raw()).hexdigest()
    with reading_journal(files.journal) as journal:
        head = RecordHead(agent=agent, origin=origin, operations=journal.count(origin))
        _write(target, (encode_line(line) for line in _lines(head, journal)))
    return head


def _lines(head: RecordHead, journal: JournalSnapshot) -> Iterator[RecordLine]:
    yield head
    yield from map(_operation, journal.operations(head.origin))
    held = journal.held(head.origin)
    if held is not None:
        yield Held(checkpoint=held)


def _operation(past: PastOperation) -> Operation:
    return Operation(
        checkpoint=past.checkpoint_note,
        entry=past.entry.decode(),
        outcome="begun" if past.signature is None else "signed" if past.signature else "failed",
        signature=hashlib.sha256(past.signature).hexdigest() if past.signature else "",
    )


def _write(target: Path, lines: Iterator[bytes]) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as stream:
        draft = Path(stream.name)
        try:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
