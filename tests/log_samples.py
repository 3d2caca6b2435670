# SPDX-License-Identifier: Apache-2.0
"""Logs as files, of any length: grown like a hub grows its own, read through the same port as a hub's."""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.client.log import PublicLog
from privyseal.client.log_files import encode_notes
from privyseal.client.log_source import StoredNotes
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.entry import Admin, ArtifactDigest, Claimed, Deny, Entry, Intent, Result, encode_entry
from privyseal.tlog.note import NoteSigner
from privyseal.tlog.rows import TileRows
from privyseal.tlog.tile import EntryBundle, Tile, encode_bundle, parse_path
from privyseal.tlog.tree import leaf_hash

__all__ = ["ORIGIN", "SIGNER", "GrownLog", "genesis", "intent_at", "result_of", "sha"]

ORIGIN = "hub.example/log"
SIGNER = NoteSigner(name=ORIGIN, key=Ed25519PrivateKey.from_private_bytes(b"l" * 32))


def sha(number: int) -> str:
    return f"{number:064x}"


def genesis() -> Admin:
    return Admin(ts=1, action="genesis", bundle=sha(0))


def intent_at(ts: int, number: int, *, profile: str = "release", key: int = 3) -> Intent:
    return Intent(
        ts=ts,
        request=sha(number),
        item=0,
        profile=profile,
        key=sha(key),
        format="authenticode-pe",
        binding="bound",
        mechanism="CKM_ECDSA_SHA256",
        preimage=sha(number + 1_000_000),
        digest=sha(number + 2_000_000),
        artifact=ArtifactDigest(alg="sha256", digest=sha(number + 3_000_000)),
        claimed=Claimed(sha256=sha(number + 4_000_000), size=number),
        client=sha(7),
        agent=sha(8),
        authority=0,
        fence=1,
    )


def result_of(ts: int, index: int, intent: Intent, outcome: str = "ok") -> Result:
    return Result(
        ts=ts,
        intent=index,
        request=intent.request,
        item=intent.item,
        profile=intent.profile,
        key=intent.key,
        format=intent.format,
        artifact=intent.artifact,
        fence=intent.fence,
        outcome=outcome,
        signature=sha(int(intent.request, 16) + 5_000_000) if outcome == "ok" else "",
        code="" if outcome == "ok" else "token.failed",
    )


@dataclass(kw_only=True)
class GrownLog:
    """A log with a checkpoint after each commit; it is its own source, and counts what was read of it."""

    place: str = "the hub"
    origin: str = ORIGIN
    signer: NoteSigner = SIGNER
    entries: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    _rows: TileRows = field(default_factory=TileRows)

    def commit(self, *entries: Entry | bytes) -> None:
        for entry in entries:
            data = entry if isinstance(entry, bytes) else encode_entry(entry)
            self._rows.append(leaf_hash(data))
            self.entries.append(data)
        self.notes.append(sign_checkpoint(self.newest, self.signer))

    def grow_to(self, size: int, *, commit: int = 7) -> "GrownLog":
        """Entries of the shortest form."""
        if not self.entries:
            self.commit(genesis())
        while len(self.entries) < size:
            missing = min(commit, size - len(self.entries))
            first = len(self.entries)
            self.commit(
                *(Deny(ts=first + n, client="", profile="", request=sha(first + n), code="") for n in range(missing))
            )
        return self

    def beginning(self, size: int) -> "GrownLog":
        """The log as it was, committed at once."""
        log = GrownLog(origin=self.origin, signer=self.signer)
        log.commit(*self.entries[:size])
        return log

    @property
    def newest(self) -> Checkpoint:
        return Checkpoint(origin=self.origin, size=len(self.entries), root=self._rows.root)

    def public(self) -> PublicLog:
        return PublicLog(self, key=self.signer.verifier, origin=self.origin)

    def read(self, path: str) -> bytes | None:
        self.reads.append(path)
        if path == "checkpoint":
            return self.notes[-1].encode()
        if path.startswith("checkpoints/"):
            first = int(path.removeprefix("checkpoints/"))
            return encode_notes(tuple(self.notes[first : first + 256]))
        place = parse_path(path)
        if isinstance(place, EntryBundle):
            first = place.index * 256
            found = tuple(self.entries[first : first + place.width])
            return encode_bundle(found) if len(found) == place.width else None
        return self._tiles().get(place)

    def read_vkey(self) -> None:
        """As a hub: it says nothing of that."""

    def read_checkpoints(self, number: int) -> StoredNotes:
        path = f"checkpoints/{number * 256}"
        return StoredNotes(path=path, data=self.read(path) or b"")

    def _tiles(self) -> dict[Tile, bytes]:
        rows = TileRows()
        tiles: dict[Tile, bytes] = {}
        for entry in self.entries:
            tiles |= dict(rows.append(leaf_hash(entry)))
        return tiles | dict(rows.unfinished())
