# SPDX-License-Identifier: Apache-2.0
"""A hub that lies: it holds CA and log key, and makes jobs for a real executor with a real token and a real journal.

It does not hold the authority key. What it makes is well-formed and true to its log unless a test spoils it. Its tree
is computed by the words of RFC 6962, not by the product's code.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from privyseal.agent.check import KeyProfile
from privyseal.agent.executor import Executor, ServedKey
from privyseal.formats.authenticode import PE
from privyseal.formats.authenticode.pe import _KIND
from privyseal.formats.authenticode.signature import make_preimage
from privyseal.formats.model import Artifact, Format, Preimage, SignOptions
from privyseal.identity.authority import GrantStatement, seal_authority
from privyseal.identity.bundle import AuthorityKey, BundleStatement, TrustBundle, seal_bundle
from privyseal.identity.ca import make_ca, new_tls_key
from privyseal.pki.mechanism import mechanism_for, verify_digest
from privyseal.ports.token import Token
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.entry import Admin, ArtifactDigest, Claimed, Enrol, Entry, Intent, canonical_json, encode_entry
from privyseal.tlog.note import NoteSigner, VerifierKey
from privyseal.wire.link import AgentMessage, ItemDone, ItemRefused, Job, JobItem, Membership
from privyseal.wire.statement import ClaimedFile, RequestItem, RequestStatement, seal_request

ORIGIN = "hub.example/lies"
NOW_MS = 1_795_000_000_000
HOUR_MS = 3_600_000
PROFILE = "acme"


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _half(leaves: list[bytes]) -> int:
    return 1 << ((len(leaves) - 1).bit_length() - 1)


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1."""
    if len(leaves) == 1:
        return leaves[0]
    half = _half(leaves)
    return hashlib.sha256(b"\1" + tree_root(leaves[:half]) + tree_root(leaves[half:])).digest()


def inclusion(index: int, leaves: list[bytes]) -> tuple[bytes, ...]:
    """RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return ()
    half = _half(leaves)
    if index < half:
        return (*inclusion(index, leaves[:half]), tree_root(leaves[half:]))
    return (*inclusion(index - half, leaves[half:]), tree_root(leaves[:half]))


def consistency(old: int, leaves: list[bytes], *, known: bool = True) -> tuple[bytes, ...]:
    """RFC 6962 §2.1.2; a log that was cut has none."""
    if (known and old == 0) or old > len(leaves):
        return ()
    if old == len(leaves):
        return () if known else (tree_root(leaves),)
    half = _half(leaves)
    if old <= half:
        return (*consistency(old, leaves[:half], known=known), tree_root(leaves[half:]))
    return (*consistency(old - half, leaves[half:], known=False), tree_root(leaves[:half]))


class Log:
    """A list whose owner may rewrite it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.signer = NoteSigner(name=ORIGIN, key=key)
        self.origin = ORIGIN
        self.entries = [encode_entry(Admin(ts=NOW_MS, action="genesis", bundle="00" * 32))]

    def append(self, entry: Entry | bytes) -> int:
        self.entries.append(entry if isinstance(entry, bytes) else encode_entry(entry))
        return len(self.entries) - 1

    @property
    def leaves(self) -> list[bytes]:
        return [hashlib.sha256(b"\0" + entry).digest() for entry in self.entries]

    def checkpoint(self) -> str:
        leaves = self.leaves
        return sign_checkpoint(Checkpoint(origin=self.origin, size=len(leaves), root=tree_root(leaves)), self.signer)


@dataclass(kw_only=True)
class Draft:
    """A request and its entries before they are logged; a test spoils what it likes."""

    preimages: list[Preimage]
    intents: list[Intent]
    envelope: bytes
    member: int
    fence: int = 1
    grant: bytes = b""


@dataclass(kw_only=True)
class LyingHub:
    """What a taken-over hub has in its hands."""

    bundle: TrustBundle
    authority: Ed25519PrivateKey
    log: Log
    client: Ed25519PrivateKey
    agent: Ed25519PrivateKey
    spki: bytes
    member: int = 0
    held: int = 0
    sent: int = 0

    def enrol(self, member: Ed25519PrivateKey, /, **changes: Any) -> int:
        entry = Enrol(
            ts=NOW_MS,
            action="join",
            role="client",
            name="11" * 32,
            key=sha256(raw(member)),
            certificate="22" * 32,
            profiles=("*",),
            statement="33" * 32,
        )
        return self.log.append(msgspec.structs.replace(entry, **changes))

    def preimage(self, content: bytes) -> Preimage:
        artifact = Artifact(algorithm="sha256", digest=hashlib.sha256(content).digest())
        return make_preimage(_KIND, artifact, SignOptions())

    def _item(self, preimage: Preimage) -> RequestItem:
        artifact = PE.parse_preimage(preimage).artifact
        return RequestItem(
            preimage=sha256(preimage.signed),
            artifact=ArtifactDigest(alg=artifact.algorithm, digest=artifact.digest.hex()),
            claimed=ClaimedFile(name="app.exe", sha256="44" * 32, size=7),
        )

    def draft(self, *contents: bytes, client: Ed25519PrivateKey | None = None, **changes: Any) -> Draft:
        """An honest request and its honest entries; `changes` are made to the statement before it is signed."""
        preimages = [self.preimage(content) for content in contents or (b"program",)]
        self.sent += 1
        statement = RequestStatement(
            hub=ORIGIN,
            profile=PROFILE,
            format=PE.name,
            items=tuple(self._item(preimage) for preimage in preimages),
            idempotency_key=f"key-{self.sent}",
            created=NOW_MS,
            not_after=NOW_MS + HOUR_MS,
        )
        statement = msgspec.structs.replace(statement, **changes)
        signer = client or self.client
        intents = [
            Intent(
                ts=NOW_MS,
                request=sha256(canonical_json(statement)),
                item=place,
                profile=PROFILE,
                key=sha256(self.spki),
                format=PE.name,
                binding="bound",
                mechanism=mechanism_for(self.spki, "sha256").value,
                preimage=sha256(preimage.signed),
                digest=sha256(preimage.signed),
                artifact=statement.items[place].artifact,
                claimed=Claimed(sha256="44" * 32, size=7),
                client=sha256(raw(signer)),
                agent=sha256(raw(self.agent)),
                authority=self.member,
                fence=1,
            )
            for place, preimage in enumerate(preimages)
        ]
        envelope = seal_request(statement, signer)
        return Draft(preimages=preimages, intents=intents, envelope=envelope, member=self.member)

    def job(self, draft: Draft, *, client: Ed25519PrivateKey | None = None) -> Job:
        """Log the entries and make the job, all proofs true to this log."""
        indexes = [self.log.append(intent) for intent in draft.intents]
        leaves = self.log.leaves
        return Job(
            profile=PROFILE,
            fence=draft.fence,
            envelope=draft.envelope,
            membership=Membership(
                entry=self.log.entries[draft.member],
                index=draft.member,
                inclusion=inclusion(draft.member, leaves),
                request_key=raw(client or self.client),
                grant=draft.grant,
            ),
            checkpoint=self.log.checkpoint(),
            old_size=self.held,
            consistency=consistency(self.held, leaves),
            items=tuple(
                JobItem(
                    item=intent.item,
                    signed=preimage.signed,
                    detail=preimage.detail,
                    entry=self.log.entries[index],
                    index=index,
                    inclusion=inclusion(index, leaves),
                )
                for intent, preimage, index in zip(draft.intents, draft.preimages, indexes, strict=True)
            ),
        )

    def grant(self, *, by: Ed25519PrivateKey | None = None, **changes: Any) -> bytes:
        statement = GrantStatement(
            hub=ORIGIN,
            issued=NOW_MS,
            not_after=NOW_MS + HOUR_MS,
            request_key=raw(self.client),
            profile=PROFILE,
            formats=("*",),
        )
        return seal_authority(msgspec.structs.replace(statement, **changes), (by or self.authority,))


def make_hub(spki: bytes) -> LyingHub:
    authority, log_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    ca = make_ca(ORIGIN, new_tls_key(), datetime.fromtimestamp(NOW_MS / 1000, UTC))
    statement = BundleStatement(
        serial=1,
        hub=ORIGIN,
        ca=ca.public_bytes(Encoding.PEM).decode(),
        log_key=VerifierKey(name=ORIGIN, public_key=raw(log_key)).vkey,
        authorities=(AuthorityKey(name="operator", key=raw(authority)),),
        quorum=1,
    )
    hub = LyingHub(
        bundle=seal_bundle(statement, (authority,)),
        authority=authority,
        log=Log(log_key),
        client=Ed25519PrivateKey.generate(),
        agent=Ed25519PrivateKey.generate(),
        spki=spki,
    )
    hub.member = hub.enrol(hub.client)
    return hub


@dataclass(kw_only=True)
class Victim:
    """A real agent without its socket: executor, journal on disk, token in its own process."""

    hub: LyingHub
    journal: SqliteJournal
    executor: Executor

    async def take(self, job: Job) -> list[AgentMessage]:
        """Hand a job over; what the agent answered."""
        answers: list[AgentMessage] = []

        async def answer(message: AgentMessage) -> None:
            answers.append(message)

        rest = await self.executor.accept(job, answer)
        if rest is not None:
            await rest
        self.hub.held = self.executor.held.size
        return answers

    async def signed(self, job: Job) -> bytes:
        """Hand over a job that must be signed; the first signature, once it verifies."""
        answers = await self.take(job)
        assert [type(answer) for answer in answers] == [ItemDone] * len(job.items), answers
        first = answers[0]
        assert isinstance(first, ItemDone)
        mechanism = mechanism_for(self.hub.spki, "sha256")
        verify_digest(self.hub.spki, mechanism, hashlib.sha256(job.items[0].signed).digest(), first.signature)
        return first.signature

    async def refused(self, job: Job, code: str) -> None:
        """Hand over a job that must be refused for this reason, with nothing in the journal."""
        before = await self.journal.entries(0, 1000)
        answers = await self.take(job)
        assert answers, "no answer"
        for answer in answers:
            assert isinstance(answer, ItemRefused), answer
            assert (answer.code, answer.unknown) == (code, False), answer.message
        assert await self.journal.entries(0, 1000) == before


async def make_victim(
    hub: LyingHub,
    token: Token,
    journal_path: Path,
    *,
    level: str = "traced",
    opaque: tuple[str, ...] = (),
    formats: tuple[Format, ...] = (PE,),
    clock: Callable[[], int] = lambda: NOW_MS,
) -> Victim:
    journal = await SqliteJournal.open(journal_path)
    executor = Executor(bundle=hub.bundle, request_key=raw(hub.agent), journal=journal, clock=clock, formats=formats)
    hub.held = (await executor.load()).size
    (key,) = await token.keys()
    profile = KeyProfile(
        name=PROFILE,
        spki=key.spki,
        level=level,
        opaque=opaque,
        not_before_ms=NOW_MS - HOUR_MS,
        not_after_ms=NOW_MS + 24 * HOUR_MS,
    )
    executor.serve((ServedKey(profile=profile, token=token, key_id=key.key_id),))
    return Victim(hub=hub, journal=journal, executor=executor)
