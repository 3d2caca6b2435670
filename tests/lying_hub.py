# SPDX-License-Identifier: Apache-2.0
"""A hub that may lie: it holds the log key and the TLS CA of a real trust bundle, but no authority key.

Its log is kept in memory with the project's own tree; what it sends are real jobs. By itself it is honest: a test takes
an honest job and changes what it wants to lie about.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from pe_samples import make_pe
from privyseal.formats.model import Format, Preimage, SignOptions
from privyseal.formats.registry import FORMATS, format_named
from privyseal.identity.authority import GrantStatement, seal_authority
from privyseal.identity.bundle import AuthorityKey, BundleStatement, TrustBundle, seal_bundle
from privyseal.identity.ca import make_ca
from privyseal.pki.mechanism import mechanism_for
from privyseal.tlog.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.entry import (
    Admin,
    ArtifactDigest,
    Claimed,
    Enrol,
    Entry,
    Intent,
    canonical_json,
    encode_entry,
    parse_entry,
)
from privyseal.tlog.note import NoteSigner, parse_note
from privyseal.tlog.proof import consistency_proof, consistency_tiles, inclusion_proof, inclusion_tiles
from privyseal.tlog.tile import Tile
from privyseal.tlog.tree import Frontier, leaf_hash
from privyseal.tlog.witness import AddCheckpoint
from privyseal.wire.jobs import Job, JobItem, JobPart, Membership
from privyseal.wire.statement import ClaimedFile, RequestItem, RequestStatement, seal_request, statement_id

__all__ = [
    "HOUR_MS",
    "HUB",
    "LEASE_MS",
    "NOW",
    "NOW_MS",
    "PROFILE",
    "TOKEN",
    "Ask",
    "Key",
    "LyingHub",
    "Member",
    "MemoryLog",
    "Trust",
    "make_trust",
    "pe_preimage",
    "raw_key",
    "sha256",
]

HUB = "hub.example/log"
PROFILE = "release"
TOKEN = "lab"
LEASE_MS = 60_000
NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
HOUR_MS = 3_600_000


def sha256(data: bytes) -> str:
    """SHA-256 as it stands in entries."""
    return hashlib.sha256(data).hexdigest()


def raw_key(key: Ed25519PrivateKey) -> bytes:
    """The public half, 32 bytes."""
    return key.public_key().public_bytes_raw()


@cache
def pe_preimage(seed: int = 0) -> Preimage:
    """The preimage of a program that differs with the seed."""
    pe = format_named("authenticode-pe")
    scanned = pe.scan(io.BytesIO(make_pe(sections=(bytes([seed]) * 512,))), SignOptions())
    return pe.preimage(scanned, (), SignOptions())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A trust bundle with all private keys behind it; the hub gets all but `authority`."""

    bundle: TrustBundle
    ca: x509.Certificate
    ca_key: ec.EllipticCurvePrivateKey
    log_key: Ed25519PrivateKey
    log_mldsa_key: MLDSA44PrivateKey
    authority: tuple[Ed25519PrivateKey, ...]

    def grant(self, member: "Member", *, by: tuple[Ed25519PrivateKey, ...] | None = None, **changes: Any) -> bytes:
        """A grant for this client, signed by the authority keys if not by others."""
        statement = GrantStatement(
            hub=self.bundle.hub,
            issued=NOW_MS - HOUR_MS,
            not_after=NOW_MS + HOUR_MS,
            request_key=raw_key(member.key),
            profile=PROFILE,
            formats=("authenticode-pe",),
        )
        return seal_authority(replace(statement, **changes), self.authority if by is None else by)


def make_trust(*, authorities: int = 1, quorum: int = 1, now: datetime = NOW) -> Trust:
    """A new hub's keys, and the bundle that names them."""
    ca_key, log_key = ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()
    log_mldsa_key = MLDSA44PrivateKey.generate()
    keys = tuple(Ed25519PrivateKey.generate() for _ in range(authorities))
    ca = make_ca(HUB, ca_key, now - timedelta(days=1))
    statement = BundleStatement(
        serial=1,
        hub=HUB,
        ca=ca.public_bytes(Encoding.PEM).decode(),
        log_key=NoteSigner(name=HUB, key=log_key).verifier.vkey,
        log_mldsa_key=Cosigner(name=HUB, key=log_mldsa_key).verifier.vkey,
        authorities=tuple(AuthorityKey(name=f"key {place}", key=raw_key(key)) for place, key in enumerate(keys)),
        quorum=quorum,
    )
    bundle = seal_bundle(statement, keys)
    return Trust(bundle=bundle, ca=ca, ca_key=ca_key, log_key=log_key, log_mldsa_key=log_mldsa_key, authority=keys)


class MemoryLog:
    """A log of at most 256 entries: one tile."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    @property
    def size(self) -> int:
        return len(self.entries)

    def append(self, entry: Entry | bytes) -> int:
        self.entries.append(entry if isinstance(entry, bytes) else encode_entry(entry))
        assert self.size <= 256
        return self.size - 1

    def _tiles(self, tiles: tuple[Tile, ...]) -> dict[Tile, bytes]:
        leaves = [leaf_hash(entry) for entry in self.entries]
        return {tile: b"".join(leaves[: tile.width]) for tile in tiles}

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        return inclusion_proof(index, self.size, self._tiles(inclusion_tiles(index, self.size)))

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        return consistency_proof(old_size, self.size, self._tiles(consistency_tiles(old_size, self.size)))

    def root(self, size: int | None = None) -> bytes:
        frontier = Frontier()
        for entry in self.entries[:size]:
            frontier = frontier.append(leaf_hash(entry)).frontier
        return frontier.root


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A client, and where its `enrol` entry stands."""

    key: Ed25519PrivateKey
    entry: bytes
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a client asked for."""

    member: Member
    statement: RequestStatement
    envelope: bytes
    preimages: tuple[Preimage, ...]

    @property
    def request_id(self) -> str:
        return statement_id(raw_key(self.member.key), canonical_json(self.statement))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What the hub knows of the key profile and its agent."""

    spki: bytes
    agent: bytes


class LyingHub:
    """Makes honest jobs; `log` is its own to change, `held_size` is what it believes the agent to hold."""

    def __init__(self, trust: Trust, key: Key, *, now_ms: int = NOW_MS, formats: tuple[Format, ...] = FORMATS) -> None:
        self.trust = trust
        self.key = key
        self.now_ms = now_ms
        self.formats = formats
        self.held_size = 0
        self.signer = NoteSigner(name=HUB, key=trust.log_key)
        self.log = MemoryLog()
        self.log.append(Admin(ts=now_ms, action="genesis", bundle=trust.bundle.sha256.hex()))

    def fork(self, size: int) -> "LyingHub":
        """The same hub with a second log that shares the first `size` entries with this one."""
        other = LyingHub(self.trust, self.key, now_ms=self.now_ms, formats=self.formats)
        other.log.entries[:] = self.log.entries[:size]
        other.held_size = self.held_size
        return other

    def beside(self) -> "LyingHub":
        """Another process of the same hub, over the same log."""
        other = LyingHub(self.trust, self.key, now_ms=self.now_ms, formats=self.formats)
        other.log, other.held_size = self.log, self.held_size
        return other

    def enrol(self, **changes: Any) -> Member:
        """Write an `enrol` entry for a new request key."""
        key = Ed25519PrivateKey.generate()
        entry = Enrol(
            ts=self.now_ms,
            action="join",
            role="client",
            name=sha256(b"salt" + raw_key(key)),
            key=sha256(raw_key(key)),
            certificate=sha256(b"a certificate"),
            profiles=(PROFILE,),
            statement=sha256(b"an invitation"),
        )
        data = encode_entry(replace(entry, **changes))
        return Member(key=key, entry=data, index=self.log.append(data))

    def ask(self, member: Member, *preimages: Preimage, **changes: Any) -> Ask:
        """A client's request for these preimages, or for one of a program."""
        preimages = preimages or (pe_preimage(),)
        name = changes.get("format", "authenticode-pe")
        statement = RequestStatement(
            hub=HUB,
            profile=PROFILE,
            format=name,
            items=tuple(self._item(preimage, name) for preimage in preimages),
            idempotency_key="build 1",
            created=self.now_ms,
            not_after=self.now_ms + HOUR_MS,
        )
        statement = replace(statement, **changes)
        return Ask(
            member=member,
            statement=statement,
            envelope=seal_request(statement, member.key),
            preimages=preimages,
        )

    def _item(self, preimage: Preimage, name: str) -> RequestItem:
        known = [one for one in self.formats if one.name == name]
        digest = known[0].parse_preimage(preimage).artifact.digest.hex() if known else ""
        return RequestItem(
            preimage=sha256(preimage.signed),
            artifact=ArtifactDigest(alg="sha256", digest=digest),
            claimed=ClaimedFile(name="app.exe", sha256=sha256(b"app"), size=3),
        )

    def intent(self, ask: Ask, item: int, fence: int) -> Intent:
        """What an honest hub writes."""
        statement = ask.statement
        asked = statement.items[item]
        return Intent(
            ts=self.now_ms,
            request=ask.request_id,
            item=item,
            profile=statement.profile,
            key=sha256(self.key.spki),
            format=statement.format,
            binding=format_named(statement.format, self.formats).binding.value,
            mechanism=mechanism_for(self.key.spki, "sha256").value,
            preimage=asked.preimage,
            digest=format_named(statement.format, self.formats).parse_preimage(ask.preimages[item]).digest.hex(),
            artifact=asked.artifact,
            claimed=Claimed(sha256=asked.claimed.sha256, size=asked.claimed.size),
            client=sha256(raw_key(ask.member.key)),
            agent=sha256(self.key.agent),
            authority=ask.member.index,
            fence=fence,
        )

    def job(
        self,
        *asks: Ask,
        fence: int = 1,
        grant: bytes = b"",
        change: Callable[[Intent], Entry | bytes] | None = None,
        **changes: Any,
    ) -> Job:
        """Write the INTENT entries, changed where a test wants it, and make the job that shows them."""
        entries = [[self.intent(ask, item, fence) for item in range(len(ask.statement.items))] for ask in asks]
        indexes = [[self.log.append(entry if change is None else change(entry)) for entry in part] for part in entries]
        job = Job(
            profile=asks[0].statement.profile if asks else PROFILE,
            token=TOKEN,
            fence=fence,
            lease_ms=LEASE_MS,
            checkpoint=self.checkpoint(),
            old_size=self.held_size,
            consistency=self.log.consistency(self.held_size),
            parts=tuple(self._part(ask, places, grant) for ask, places in zip(asks, indexes, strict=True)),
        )
        self.held_size = self.log.size
        return replace(job, **changes)

    def _part(self, ask: Ask, indexes: list[int], grant: bytes) -> JobPart:
        return JobPart(
            envelope=ask.envelope,
            membership=Membership(
                entry=ask.member.entry,
                index=ask.member.index,
                inclusion=self.log.inclusion(ask.member.index),
                request_key=raw_key(ask.member.key),
                grant=grant,
            ),
            items=tuple(self._job_item(ask, item, index) for item, index in enumerate(indexes)),
        )

    def _job_item(self, ask: Ask, item: int, index: int) -> JobItem:
        preimage = ask.preimages[item]
        return JobItem(
            item=item,
            signed=preimage.signed,
            detail=preimage.detail,
            entry=self.log.entries[index],
            index=index,
            inclusion=self.log.inclusion(index),
        )

    def intent_of(self, job: Job) -> Intent:
        """The INTENT of a job's first item."""
        entry = parse_entry(job.parts[0].items[0].entry)
        assert isinstance(entry, Intent)
        return entry

    def add_checkpoint(self, old_size: int) -> str:
        """What asks a witness to cosign all of the log."""
        note = parse_note(self.checkpoint())
        proof, checkpoint = self.log.consistency(old_size), parse_checkpoint(note.text)
        return AddCheckpoint(old_size=old_size, proof=proof, note=note, checkpoint=checkpoint).encode()

    def checkpoint(self, *, origin: str = HUB, signer: NoteSigner | None = None) -> str:
        """The log's checkpoint, under the pinned key if not under another."""
        checkpoint = Checkpoint(origin=origin, size=self.log.size, root=self.log.root())
        return sign_checkpoint(checkpoint, signer or self.signer)
