# SPDX-License-Identifier: Apache-2.0
"""Log entries from the hub's facts. Pure, so that what the agent checks and what the hub writes cannot drift."""

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

from privyseal.errors import MalformedInputError
from privyseal.formats.model import Preimage, PreimageFacts
from privyseal.formats.registry import format_named, read_preimage
from privyseal.pki.mechanism import mechanism_for
from privyseal.pki.tsp_check import FreshToken
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.queue import Job
from privyseal.ports.store import Enrolment, ProfileRow
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.entry import (
    Anchor,
    Claimed,
    Deny,
    Enrol,
    Intent,
    KeyEntry,
    Result,
    TimestampEntry,
    Unknown,
    encode_entry,
)
from privyseal.wire.statement import RequestStatement

__all__ = [
    "IntentFacts",
    "anchor_entry",
    "deny_entry",
    "enrol_entry",
    "hashed_name",
    "intent_entry",
    "key_entry",
    "key_sha256",
    "leaf_spki",
    "preimage_facts",
    "result_entry",
    "timestamp_entry",
    "unknown_entry",
]

_SMALL_BYTES: Final = 4096


@lru_cache(maxsize=64)
def leaf_spki(chain: tuple[bytes, ...]) -> bytes:
    """SubjectPublicKeyInfo (DER) of the first certificate."""
    return _spki(chain[0])


@lru_cache(maxsize=256)
def _spki(certificate: bytes) -> bytes:
    return parse_certificate(certificate).spki


def key_sha256(chain: tuple[bytes, ...]) -> str:
    """SHA-256 of the key of the first certificate in hex: how entries and requests name a key; empty without one."""
    return hashlib.sha256(leaf_spki(chain)).hexdigest() if chain else ""


def hashed_name(salt: bytes, name: str) -> str:
    """How a name stands in the log."""
    return hashlib.sha256(salt + name.encode()).hexdigest()


@lru_cache(maxsize=4096)
def _small_facts(format_name: str, preimage: Preimage) -> PreimageFacts:
    return read_preimage(format_name, preimage)


def preimage_facts(format_name: str, preimage: Preimage) -> PreimageFacts:
    """What `read_preimage` says; a small one is read when it is accepted, and not again when its turn comes."""
    is_small = len(preimage.signed) + len(preimage.detail) <= _SMALL_BYTES
    return _small_facts(format_name, preimage) if is_small else read_preimage(format_name, preimage)


def _key_hash(request_key: bytes) -> str:
    return hashlib.sha256(request_key).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentFacts:
    """What an INTENT is made of beside the job.

    Attributes:
        authority: Index of the `enrol` or `grant` entry on which the permission rests.
        agent_key: Raw request key of the agent.
    """

    statement: RequestStatement
    profile: ProfileRow
    client_key: bytes
    agent_key: bytes
    authority: int
    fence: int
    now_ms: int


def intent_entry(job: Job, facts: IntentFacts) -> Intent:
    """The INTENT of one job.

    Raises:
        PrivysealError: what reading the preimage raises; it was read once before, when the request was accepted.
    """
    item = facts.statement.items[job.item]
    preimage = preimage_facts(facts.statement.format, Preimage(signed=job.signed, detail=job.detail))
    chain = facts.profile.chain  # a USB device has none
    mechanism = mechanism_for(leaf_spki(chain), preimage.digest_algorithm).value if chain else ""
    return Intent(
        ts=facts.now_ms,
        request=job.request_id,
        item=job.item,
        profile=job.profile,
        key=key_sha256(chain),
        format=facts.statement.format,
        binding=format_named(facts.statement.format).binding.value,
        mechanism=mechanism,
        preimage=hashlib.sha256(job.signed).hexdigest(),
        digest=preimage.digest.hex(),
        artifact=item.artifact,
        claimed=Claimed(sha256=item.claimed.sha256, size=item.claimed.size),
        client=_key_hash(facts.client_key),
        agent=_key_hash(facts.agent_key),
        authority=facts.authority,
        fence=facts.fence,
    )


def result_entry(
    job: Job, intent: Intent, now_ms: int, *, signature: bytes = b"", outcome: str = "ok", code: str = ""
) -> Result:
    """The RESULT of one job."""
    return Result(
        ts=now_ms,
        intent=job.intent_index if job.intent_index is not None else -1,
        request=job.request_id,
        item=job.item,
        profile=job.profile,
        key=intent.key,
        format=intent.format,
        artifact=intent.artifact,
        fence=job.fence,
        outcome=outcome,
        signature=hashlib.sha256(signature).hexdigest() if signature else "",
        code=code,
    )


def unknown_entry(job: Job, now_ms: int, code: str) -> Unknown:
    """Nobody knows what became of the job's INTENT."""
    return Unknown(
        ts=now_ms,
        intent=job.intent_index if job.intent_index is not None else -1,
        request=job.request_id,
        item=job.item,
        profile=job.profile,
        fence=job.fence,
        code=code,
    )


def deny_entry(caller: Enrolment, profile: str, request_id: str, code: str, now_ms: int, *, count: int = 1) -> Deny:
    """A refusal of an authenticated caller, or several."""
    client = _key_hash(caller.request_key)
    return Deny(ts=now_ms, client=client, profile=profile, request=request_id, code=code, count=count)


def enrol_entry(enrolment: Enrolment, action: str, statement_sha256: bytes, now_ms: int) -> Enrol:
    """A join or a revocation."""
    return Enrol(
        ts=now_ms,
        action=action,
        role=enrolment.role,
        name=hashed_name(enrolment.salt, enrolment.name),
        key=_key_hash(enrolment.request_key),
        certificate=enrolment.certificate_sha256.hex(),
        profiles=enrolment.profiles,
        statement=statement_sha256.hex(),
    )


def key_entry(profile: ProfileRow, agent_key: bytes, now_ms: int) -> KeyEntry:
    """A key profile as its agent announced it."""
    return KeyEntry(
        ts=now_ms,
        profile=profile.name,
        agent=_key_hash(agent_key),
        key=key_sha256(profile.chain),
        certificate=hashlib.sha256(profile.chain[0]).hexdigest() if profile.chain else "",
        level=profile.level,
        opaque=profile.opaque,
        token=profile.token_serial,
        hardware=profile.hardware,
        witness=profile.witness,
        test=profile.test,
    )


def timestamp_entry(caller: Enrolment, fresh: FreshToken, now_ms: int) -> TimestampEntry:
    """A timestamp token that is about to be given to a client."""
    return TimestampEntry(
        ts=now_ms,
        client=_key_hash(caller.request_key),
        token=hashlib.sha256(fresh.token).hexdigest(),
        imprint=hashlib.sha256(fresh.signed.info.imprint).hexdigest(),
        tsa=fresh.certificate_sha256.hex(),
    )


def anchor_entry(caller: Enrolment | None, checkpoint: Checkpoint, fresh: FreshToken, now_ms: int) -> bytes:
    """A timestamp token over a checkpoint, encoded: with the token itself if that fits.

    Raises:
        MalformedInputError: `entry.malformed`.
    """
    entry = Anchor(
        ts=now_ms,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        imprint=hashlib.sha256(checkpoint.text.encode()).hexdigest(),
        token=hashlib.sha256(fresh.token).hexdigest(),
        der=base64.b64encode(fresh.token).decode(),
        tsa=fresh.certificate_sha256.hex(),
        client="" if caller is None else _key_hash(caller.request_key),
    )
    try:
        return encode_entry(entry)
    except MalformedInputError as error:
        if error.code != "entry.too_large":
            raise
        return encode_entry(msgspec.structs.replace(entry, der=""))
