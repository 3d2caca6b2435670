# SPDX-License-Identifier: Apache-2.0
"""The agent's own check of a job (DESIGN §4, promises 1 to 3). Pure: everything it believes is an argument.

The hub is trusted for availability only. A job is signed when its checkpoint extends the newest one this agent holds,
its INTENT entries stand under that checkpoint, every field of them follows from the request statement and the preimage
that came along, and the client's standing is on record (`traced`) or granted by authority keys (`pinned`).
"""

import hashlib
from dataclasses import dataclass

from privyseal.errors import DeniedError, LogIntegrityError, MalformedInputError, VerificationError
from privyseal.formats.model import Binding, Format, Preimage, PreimageFacts
from privyseal.formats.registry import FORMATS, format_named, read_preimage
from privyseal.identity.authority import GrantStatement, open_authority
from privyseal.identity.bundle import TrustBundle
from privyseal.pki.mechanism import Mechanism, mechanism_for
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.entry import Claimed, Enrol, Intent, parse_entry
from privyseal.tlog.proof import verify_consistency, verify_inclusion
from privyseal.tlog.tree import leaf_hash
from privyseal.wire.jobs import Job, JobItem
from privyseal.wire.statement import RequestStatement, open_request

__all__ = ["CheckedItem", "Held", "KeyProfile", "check_checkpoint", "check_job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The newest checkpoint that the agent holds."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProfile:
    """What the agent's own configuration says of a key profile.

    Attributes:
        spki: SubjectPublicKeyInfo of the key, DER.
        not_before_ms, not_after_ms: Validity of its certificate.
        witness: Whether witnesses must cosign: `off`, `async`, `before-release` or `before-use`.
    """

    name: str
    spki: bytes
    level: str
    opaque: tuple[str, ...]
    not_before_ms: int
    not_after_ms: int
    witness: str = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedItem:
    """One item that may be signed: the order for the token."""

    item: int
    mechanism: Mechanism
    digest: bytes
    entry: bytes


def check_checkpoint(job: Job, held: Held, bundle: TrustBundle) -> Checkpoint:
    """The job's checkpoint, once it is signed by the pinned log key and extends what the agent holds.

    Raises:
        MalformedInputError: `note.malformed`, `checkpoint.malformed`.
        VerificationError: `note.signature`, `note.unsigned`, `checkpoint.origin`.
        LogIntegrityError: `log.rewound` or `log.fork`.
    """
    checkpoint = open_checkpoint(job.checkpoint, origin=bundle.origin, verifiers=(bundle.log_key,))
    if checkpoint.size < held.size:
        raise LogIntegrityError(
            "log.rewound",
            f"the hub shows a log of {checkpoint.size} entries; this agent has seen {held.size}",
        )
    if job.old_size != held.size:
        raise LogIntegrityError(
            "log.fork",
            f"the hub proves consistency from {job.old_size} entries; this agent holds {held.size}",
        )
    try:
        verify_consistency(
            old_size=held.size,
            old_root=held.root,
            new_size=checkpoint.size,
            new_root=checkpoint.root,
            proof=job.consistency,
        )
    except VerificationError as error:
        raise LogIntegrityError(
            "log.fork",
            f"the hub's log of {checkpoint.size} entries does not extend the {held.size} that this agent has seen",
        ) from error
    return checkpoint


def check_job(
    job: Job,
    checkpoint: Checkpoint,
    *,
    profile: KeyProfile,
    bundle: TrustBundle,
    agent_key: bytes,
    now_ms: int,
    formats: tuple[Format, ...] = FORMATS,
) -> tuple[CheckedItem, ...]:
    """Hold everything in a job against everything else.

    Raises:
        VerificationError: a signature or proof does not hold, or `job.entry` names the field that differs.
        DeniedError: `job.client`, `job.grant`, `job.opaque`, `job.expired`, `certificate.expired`.
        MalformedInputError: an entry, the statement or a preimage is not what it should be.
    """
    statement, request_id = open_request(job.envelope, job.membership.request_key)
    if statement.hub != bundle.hub or statement.profile != profile.name or job.profile != profile.name:
        raise VerificationError("job.statement", "the client's statement is for another hub or key profile")
    if now_ms > statement.not_after:
        raise DeniedError("job.expired", "the client's request has passed its own not_after")
    if not profile.not_before_ms <= now_ms <= profile.not_after_ms:
        raise DeniedError("certificate.expired", f"the certificate of key profile {profile.name!r} is not valid now")
    _check_opaque(statement, profile, formats)
    authority = _check_client(job, checkpoint, statement, profile=profile, bundle=bundle, now_ms=now_ms)
    expected = _Expected(
        job=job,
        statement=statement,
        request_id=request_id,
        profile=profile,
        agent=hashlib.sha256(agent_key).hexdigest(),
        authority=authority,
        formats=formats,
    )
    if not job.items or len({item.item for item in job.items}) != len(job.items):
        raise VerificationError("job.items", "the job names no item, or one item twice")
    return tuple(_check_item(item, checkpoint, expected) for item in job.items)


def _check_opaque(statement: RequestStatement, profile: KeyProfile, formats: tuple[Format, ...]) -> None:
    opaque = format_named(statement.format, formats).binding is Binding.OPAQUE
    if opaque and "*" not in profile.opaque and statement.format not in profile.opaque:
        raise DeniedError("job.opaque", f"key profile {profile.name!r} does not sign {statement.format} here")


def _check_client(
    job: Job,
    checkpoint: Checkpoint,
    statement: RequestStatement,
    *,
    profile: KeyProfile,
    bundle: TrustBundle,
    now_ms: int,
) -> int | None:
    """The client stands in the log, may use the profile, and for a pinned one holds a grant.

    Returns:
        Index of the `enrol` entry, which the INTENT must name; None if a grant's own index stands there instead.
    """
    member = job.membership
    verify_inclusion(
        leaf=leaf_hash(member.entry),
        index=member.index,
        size=checkpoint.size,
        proof=member.inclusion,
        root=checkpoint.root,
    )
    entry = parse_entry(member.entry)
    if (
        not isinstance(entry, Enrol)
        or (entry.action, entry.role) != ("join", "client")
        or entry.key != hashlib.sha256(member.request_key).hexdigest()
    ):
        raise DeniedError("job.client", "the log has no enrolment of the request key that signed the statement")
    if "*" not in entry.profiles and profile.name not in entry.profiles:
        raise DeniedError("job.client", f"the client's enrolment does not name key profile {profile.name!r}")
    if profile.level != "pinned":
        return member.index
    _check_grant(job, statement, profile, bundle, now_ms)
    return None


def _check_grant(job: Job, statement: RequestStatement, profile: KeyProfile, bundle: TrustBundle, now_ms: int) -> None:
    try:
        grant = open_authority(job.membership.grant, bundle, now_ms).statement
    except (MalformedInputError, VerificationError) as error:
        raise DeniedError(
            "job.grant",
            f"key profile {profile.name!r} is pinned, and the client's grant does not hold: {error}",
        ) from error
    if (
        not isinstance(grant, GrantStatement)
        or grant.request_key != job.membership.request_key
        or grant.profile != profile.name
        or ("*" not in grant.formats and statement.format not in grant.formats)
    ):
        raise DeniedError("job.grant", f"the grant is not for this client, key profile {profile.name!r} and format")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    job: Job
    statement: RequestStatement
    request_id: str
    profile: KeyProfile
    agent: str
    authority: int | None
    formats: tuple[Format, ...]


def _check_item(item: JobItem, checkpoint: Checkpoint, expected: _Expected) -> CheckedItem:
    """One INTENT entry: on record, and in every field what statement and preimage say."""
    statement = expected.statement
    if not 0 <= item.item < len(statement.items):
        raise VerificationError("job.items", f"the statement has no item {item.item}")
    verify_inclusion(
        leaf=leaf_hash(item.entry),
        index=item.index,
        size=checkpoint.size,
        proof=item.inclusion,
        root=checkpoint.root,
    )
    facts = _check_preimage(item, expected)
    entry = parse_entry(item.entry)
    if not isinstance(entry, Intent):
        raise VerificationError("job.entry", "the entry that the job shows is not an INTENT")
    mechanism = mechanism_for(expected.profile.spki, facts.digest_algorithm)
    wanted = _wanted_intent(item, expected, entry, mechanism, facts.digest)
    for field in Intent.__struct_fields__:
        if getattr(entry, field) != getattr(wanted, field):
            raise VerificationError("job.entry", f"the INTENT entry differs from the job in `{field}`")
    return CheckedItem(item=item.item, mechanism=mechanism, digest=facts.digest, entry=item.entry)


def _check_preimage(item: JobItem, expected: _Expected) -> PreimageFacts:
    """The preimage is the one that the client's statement asks for."""
    asked = expected.statement.items[item.item]
    preimage = Preimage(signed=item.signed, detail=item.detail)
    facts = read_preimage(expected.statement.format, preimage, expected.formats)
    if (facts.artifact.algorithm, facts.artifact.digest.hex()) != (asked.artifact.alg, asked.artifact.digest):
        raise VerificationError("job.artifact", "the preimage names another artifact than the client's statement")
    if hashlib.sha256(item.signed).hexdigest() != asked.preimage:
        raise VerificationError("job.preimage", "the preimage is not the one in the client's statement")
    return facts


def _wanted_intent(item: JobItem, expected: _Expected, entry: Intent, mechanism: Mechanism, digest: bytes) -> Intent:
    """What the INTENT must say; only its time, and the index of a grant, are the hub's to choose."""
    statement = expected.statement
    asked = statement.items[item.item]
    return Intent(
        ts=entry.ts,
        request=expected.request_id,
        item=item.item,
        profile=expected.profile.name,
        key=hashlib.sha256(expected.profile.spki).hexdigest(),
        format=statement.format,
        binding=format_named(statement.format, expected.formats).binding.value,
        mechanism=mechanism.value,
        preimage=asked.preimage,
        digest=digest.hex(),
        artifact=asked.artifact,
        claimed=Claimed(sha256=asked.claimed.sha256, size=asked.claimed.size),
        client=hashlib.sha256(expected.job.membership.request_key).hexdigest(),
        agent=expected.agent,
        authority=entry.authority if expected.authority is None else expected.authority,
        fence=expected.job.fence,
    )
