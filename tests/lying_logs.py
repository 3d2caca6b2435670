# SPDX-License-Identifier: Apache-2.0
"""Logs that a hub may show to whom it likes: honest, forked or cut."""

from lying_hub import HUB, MemoryLog
from lying_web import Answer, WebHub
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.note import NoteSignature, NoteSigner
from privyseal.tlog.tile import Tile, parse_path
from privyseal.tlog.tree import leaf_hash

__all__ = ["log_of", "show_log"]


def log_of(*entries: str) -> MemoryLog:
    """A log of these entries."""
    log = MemoryLog()
    for entry in entries:
        log.append(entry.encode())
    return log


def show_log(hub: WebHub, log: MemoryLog, further: tuple[NoteSignature, ...] = ()) -> None:
    """From now on the hub signs this log's checkpoint, adds further lines, and serves its tiles."""
    signer = NoteSigner(name=HUB, key=hub.trust.log_key)
    note = sign_checkpoint(Checkpoint(origin=HUB, size=log.size, root=log.root()), signer)
    note += "".join(signature.line for signature in further)

    def answer(line: str) -> Answer:
        path = line.split()[1].removeprefix("/log/")
        if path == "checkpoint":
            body = note.encode()
        else:
            tile = parse_path(path)
            assert isinstance(tile, Tile)
            body = b"".join(leaf_hash(entry) for entry in log.entries[: tile.width])
        return Answer(headers=(("Content-Length", str(len(body))),), pieces=lambda: iter((body,)))

    hub.answer = answer
