# SPDX-License-Identifier: Apache-2.0
"""What all schedules share, made once: keys, members, the databases on the first day, and what clients ask for."""

import asyncio
import datetime as dt
import random
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lying_hub import HOUR_MS, HUB, NOW, NOW_MS, Trust, make_trust, pe_preimage, raw_key, sha256
from privyseal.agent.check import KeyProfile
from privyseal.formats.registry import read_preimage
from privyseal.hub.entries import enrol_entry
from privyseal.ports.queue import Job
from privyseal.ports.store import Enrolment, Tx
from privyseal.tlog.entry import Admin, ArtifactDigest, canonical_json, encode_entry
from privyseal.tokens.testca import make_test_ca
from privyseal.wire.api import SignatureItem, SignatureRequest
from privyseal.wire.link import ProfileAnnouncement
from privyseal.wire.statement import (
    ClaimedFile,
    RequestItem,
    RequestStatement,
    accepted_statement,
    seal_request,
    statement_id,
)
from simulated.chaos import Chaos
from simulated.disk import Database, HeadDisk
from simulated.loop import SimLoop
from simulated.store import open_store

__all__ = ["CLIENTS", "FORMAT", "PROFILES", "Asked", "FirstDay", "asked", "first_day"]

CLIENTS = 3
FORMAT = "authenticode-pe"
PROFILES = ("release", "nightly")  # one token for both: their jobs take turns
_PREIMAGES = 24
_SALT = b"s" * 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as its client sends it."""

    client: int
    request_id: str
    body: SignatureRequest
    digests: tuple[bytes, ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Its items as a hub queues them."""
        profile = accepted_statement(self.body.envelope).profile
        return tuple(
            Job(request_id=self.request_id, item=place, profile=profile, signed=sent.signed, detail=sent.detail)
            for place, sent in enumerate(self.body.preimages)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstDay:
    """A site on which nothing was signed yet."""

    trust: Trust
    token_key: ec.EllipticCurvePrivateKey
    agent: Enrolment
    clients: tuple[Enrolment, ...]
    client_keys: tuple[Ed25519PrivateKey, ...]
    profiles: tuple[KeyProfile, ...]
    announcements: tuple[ProfileAnnouncement, ...]
    hub_image: bytes
    head_file: bytes


def _enrolment(role: str, name: str, index: int, key: Ed25519PrivateKey) -> Enrolment:
    certificate = sha256(f"certificate of {name}".encode())
    return Enrolment(
        role=role,
        name=name,
        certificate_sha256=bytes.fromhex(certificate),
        request_key=raw_key(key),
        profiles=("*",) if role == "client" else (),
        salt=_SALT,
        entry_index=index,
    )


async def _fill(trust: Trust, members: tuple[Enrolment, ...], loop: SimLoop) -> tuple[bytes, bytes]:
    chaos = Chaos(choice=random.Random(0), active=False)
    database, head = Database(name="hub database", chaos=chaos), HeadDisk(chaos)
    process = loop.world
    store = open_store(database, head, process, origin=HUB, log_key=trust.log_key, clock=lambda: NOW_MS - HOUR_MS)

    async def write(tx: Tx) -> None:
        now_ms = await tx.now_ms()
        await tx.append(encode_entry(Admin(ts=now_ms, action="genesis", bundle=trust.bundle.sha256.hex())))
        for member in members:
            assert await tx.append(encode_entry(enrol_entry(member, "join", b"\0" * 32, now_ms))) == member.entry_index
            await tx.add_enrolment(member)

    await store.write(write)
    return database.image, head.content


@cache
def first_day() -> FirstDay:
    """The site."""
    trust = make_trust()
    token_key = ec.generate_private_key(ec.SECP256R1())
    spki = token_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ca = make_test_ca(not_before=NOW - dt.timedelta(days=9), not_after=NOW + dt.timedelta(days=9))
    chain = ca.issue_code_signing(
        spki=spki,
        common_name="Lab",
        not_before=NOW - dt.timedelta(days=8),
        not_after=NOW + dt.timedelta(days=8),
    )
    keys = tuple(Ed25519PrivateKey.generate() for _ in range(CLIENTS + 1))
    agent = _enrolment("agent", "agent", 1, keys[-1])
    clients = tuple(_enrolment("client", f"client {n}", n + 2, keys[n]) for n in range(CLIENTS))
    loop = SimLoop(random.Random(0))
    filling: asyncio.Task[tuple[bytes, bytes]] = loop.world.spawn(_fill(trust, (agent, *clients), loop))
    assert loop.run(filling.done, until=1e9)
    loop.end()
    day_ms = 24 * HOUR_MS
    return FirstDay(
        trust=trust,
        token_key=token_key,
        agent=agent,
        clients=clients,
        client_keys=keys[:-1],
        profiles=tuple(
            KeyProfile(
                name=name,
                token="lab",
                spki=spki,
                level="traced",
                opaque=(),
                not_before_ms=NOW_MS - 8 * day_ms,
                not_after_ms=NOW_MS + 8 * day_ms,
            )
            for name in PROFILES
        ),
        announcements=tuple(
            ProfileAnnouncement(
                name=name,
                token="lab",
                chain=chain,
                level="traced",
                opaque=(),
                token_label="lab",
                token_serial="1",
                hardware=False,
            )
            for name in PROFILES
        ),
        hub_image=filling.result()[0],
        head_file=filling.result()[1],
    )


@cache
def _item(preimage: int) -> tuple[SignatureItem, RequestItem, bytes]:
    made = pe_preimage(preimage)
    facts = read_preimage(FORMAT, made)
    artifact = ArtifactDigest(alg=facts.artifact.algorithm, digest=facts.artifact.digest.hex())
    claimed = ClaimedFile(name="app.exe", sha256=sha256(b"app"), size=3)
    item = RequestItem(preimage=sha256(made.signed), artifact=artifact, claimed=claimed)
    return SignatureItem(signed=made.signed, detail=made.detail), item, facts.digest


@cache
def asked(client: int, first: int, count: int, profile: str, lives_seconds: int) -> Asked:
    """A client's request for `count` signatures, from preimage `first` on. No two of a schedule share a preimage."""
    assert first + count <= _PREIMAGES
    day = first_day()
    items = tuple(_item(first + place) for place in range(count))
    statement = RequestStatement(
        hub=HUB,
        profile=profile,
        format=FORMAT,
        items=tuple(item for _, item, _ in items),
        idempotency_key=f"build {first}",
        created=NOW_MS,
        not_after=NOW_MS + lives_seconds * 1000,
    )
    envelope = seal_request(statement, day.client_keys[client])
    return Asked(
        client=client,
        request_id=statement_id(raw_key(day.client_keys[client]), canonical_json(statement)),
        body=SignatureRequest(envelope=envelope, preimages=tuple(sent for sent, _, _ in items)),
        digests=tuple(digest for _, _, digest in items),
    )
