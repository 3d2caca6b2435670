# SPDX-License-Identifier: Apache-2.0
"""The agent's own check of a job (DESIGN §4, promises 1 to 3). Pure: everything it believes is an argument.

The hub is trusted for availability only. A job is signed when its checkpoint extends the newest one this agent holds,
its INTENT entries stand under that checkpoint, every field of them follows from the request statement and the preimage
that came along, and the client's standing is on record (`traced`) or granted by authority keys (`pinned`).

A job has a part for each request; one that does not hold takes no other down.
"""

import hashlib
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from privyseal.errors import (
    DeniedError,
    LogIntegrityError,
    MalformedInputError,
    PrivysealError,
    UnavailableError,
    VerificationError,
)
from privyseal.formats.model import Binding, Format, Preimage, PreimageFacts
from privyseal.formats.registry import FORMATS, format_named, read_preimage
from privyseal.formats.usb import LEASE
from privyseal.identity.authority import AuthorityStatement, GrantStatement, open_authority
from privyseal.identity.bundle import TrustBundle
from privyseal.pki.mechanism import Mechanism, mechanism_for
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.entry import Claimed, Enrol, Intent, parse_entry
from privyseal.tlog.proof import verify_consistency, verify_inclusion
from privyseal.tlog.tree import leaf_hash
from privyseal.wire.jobs import Job, JobItem, JobPart, Membership
from privyseal.wire.statement import RequestStatement, open_request

__all__ = ["CheckedItem", "CheckedPart", "Held", "KeyProfile", "check_checkpoint", "check_job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The newest checkpoint that the agent holds."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProfile:
    """What the agent's own configuration says of a key profile.

    Attributes:
        token: Name of its token in agent.toml.
        spki: SubjectPublicKeyInfo of the key, DER; empty for a USB device, of which only leases are given.
        not_before_ms, not_after_ms: Validity of its certificate.
        witness: Whether witnesses must cosign: `off`, `async`, `before-release` or `before-use`.
    """

    name: str
    token: str
    spki: bytes
    level: str
    opaque: tuple[str, ...]
    not_before_ms: int
    not_after_ms: int
    witness: str = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedItem:
    """One item that may be signed, or one lease that may be given: the order for the token.

    Attributes:
        mechanism: None for a lease.
        signed: The preimage: the lease's order.
        idempotency_key: Of the request's statement.
    """

    item: int
    mechanism: Mechanism | None
    digest: bytes
    entry: bytes
    signed: bytes
    idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPart:
    """What may be signed for one request."""

    request_id: str
    items: tuple[CheckedItem, ...]


def check_checkpoint(job: Job, held: Held, bundle: TrustBundle, *, shown_size: int | None = None) -> Checkpoint:
    """The job's checkpoint, once it is signed by the pinned log key and extends what the agent holds.

    Args:
        job: The job.
        held: What the agent holds.
        bundle: Names the log and its key.
        shown_size: None for the agent of one hub. Where there are several, a job may cross what another hub has shown
            meanwhile: then it proves nothing, and nothing is made of it but that it came too late. This is the size
            of which the job's own hub does know.

    Raises:
        MalformedInputError: `note.malformed`, `checkpoint.malformed`.
        VerificationError: `note.signature`, `note.unsigned`, `checkpoint.origin`.
        LogIntegrityError: `log.rewound` or `log.fork`.
        UnavailableError: `job.checkpoint_behind`.
    """
    checkpoint = open_checkpoint(job.checkpoint, origin=bundle.origin, verifiers=(bundle.log_key,))
    known = held.size if shown_size is None else shown_size
    if checkpoint.size < known:
        raise LogIntegrityError(
            "log.rewound",
            f"the hub shows a log of {checkpoint.size} entries; this agent has seen {known}",
        )
    if checkpoint.size == held.size and checkpoint.root != held.root:
        raise LogIntegrityError("log.fork", f"the hub shows another log of {held.size} entries than was seen here")
    if shown_size is not None and (job.old_size != held.size or checkpoint.size < held.size):
        raise UnavailableError(
            "job.checkpoint_behind",
            f"the job's proof leads from {job.old_size} to {checkpoint.size} entries; over another hub's link this"
            f" agent has come to hold {held.size}",
            hint="the hub queues it again, and proves from there",
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
) -> Generator[None, None, tuple[CheckedPart | PrivysealError, ...]]:
    """Hold everything in a job against everything else, in steps: there may be many parts, and a token to serve beside.

    Returns:
        For each part its orders for the token; or why nothing of it is signed: a VerificationError where a signature or
        proof does not hold, or `job.entry` names the field that differs; a DeniedError `job.client`, `job.grant`,
        `job.opaque`, `job.expired`; a MalformedInputError where an entry, the statement or a preimage is not what it
        should be.

    Raises:
        VerificationError: `job.token`, `job.items` if there is no part.
        DeniedError: `certificate.expired`.
    """
    if job.token != profile.token:
        raise VerificationError(
            "job.token", f"the job is under the lease of token {job.token!r}; {profile.name!r} is on {profile.token!r}"
        )
    if not job.parts:
        raise VerificationError("job.items", "the job names no item")
    if not profile.not_before_ms <= now_ms <= profile.not_after_ms:
        raise DeniedError("certificate.expired", f"the certificate of key profile {profile.name!r} is not valid now")
    check = _JobCheck(
        checkpoint,
        profile=profile,
        bundle=bundle,
        agent=hashlib.sha256(agent_key).hexdigest(),
        now_ms=now_ms,
        fence=job.fence,
        formats=formats,
    )
    return (yield from check.parts(job.parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    """What every INTENT of a part must say."""

    statement: RequestStatement
    request_id: str
    binding: str
    client: str
    authority: int | None


class _JobCheck:
    """Checks parts under one checkpoint. What several parts show (an enrolment, a grant) is verified once."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        profile: KeyProfile,
        bundle: TrustBundle,
        agent: str,
        now_ms: int,
        fence: int,
        formats: tuple[Format, ...],
    ) -> None:
        self._checkpoint: Final = checkpoint
        self._profile: Final = profile
        self._bundle: Final = bundle
        self._agent: Final = agent
        self._key: Final = hashlib.sha256(profile.spki).hexdigest() if profile.spki else ""
        self._now_ms: Final = now_ms
        self._fence: Final = fence
        self._formats: Final = formats
        self._requests: Counter[str] = Counter()
        self._enrolments: dict[tuple[int, bytes], Enrol | None] = {}
        self._grants: dict[bytes, AuthorityStatement] = {}

    def parts(self, parts: tuple[JobPart, ...]) -> Generator[None, None, tuple[CheckedPart | PrivysealError, ...]]:
        """Each part by itself; of a request that stands in two of them neither holds."""
        checked = []
        for part in parts:
            checked.append(self._part_or_error(part))
            yield
        twice = VerificationError("job.items", "the job has two parts of one request")
        return tuple(
            twice if isinstance(one, CheckedPart) and self._requests[one.request_id] > 1 else one for one in checked
        )

    def _part_or_error(self, part: JobPart) -> CheckedPart | PrivysealError:
        try:
            return self._part(part)
        except PrivysealError as error:
            return error

    def _part(self, part: JobPart) -> CheckedPart:
        statement, request_id = open_request(part.envelope, part.membership.request_key)
        self._requests[request_id] += 1
        if statement.hub != self._bundle.hub or statement.profile != self._profile.name:
            raise VerificationError("job.statement", "the client's statement is for another hub or key profile")
        if self._now_ms > statement.not_after:
            raise DeniedError("job.expired", "the client's request has passed its own not_after")
        binding = format_named(statement.format, self._formats).binding
        allowed = self._profile.opaque
        if binding is Binding.OPAQUE and "*" not in allowed and statement.format not in allowed:
            raise DeniedError("job.opaque", f"key profile {self._profile.name!r} does not sign {statement.format} here")
        if (statement.format == LEASE.name) != (not self._profile.spki):
            raise DeniedError(
                "job.opaque", f"{self._profile.name!r} is {'a key' if self._profile.spki else 'a USB device'} here"
            )
        expected = _Expected(
            statement=statement,
            request_id=request_id,
            binding=binding.value,
            client=hashlib.sha256(part.membership.request_key).hexdigest(),
            authority=self._client(part.membership, statement),
        )
        if not part.items or len({item.item for item in part.items}) != len(part.items):
            raise VerificationError("job.items", "the job names no item of a request, or one item twice")
        return CheckedPart(request_id=request_id, items=tuple(self._item(item, expected) for item in part.items))

    # -- the client ---------------------------------------------------------------------------------------------

    def _client(self, member: Membership, statement: RequestStatement) -> int | None:
        """The client stands in the log, may use the profile, and for a pinned one holds a grant.

        Returns:
            Index of the `enrol` entry, which the INTENT must name; None if a grant's own index stands there instead.
        """
        name, entry = self._profile.name, self._enrolment(member)
        if (
            entry is None
            or (entry.action, entry.role) != ("join", "client")
            or entry.key != hashlib.sha256(member.request_key).hexdigest()
        ):
            raise DeniedError("job.client", "the log has no enrolment of the request key that signed the statement")
        covers_all = "*" in entry.profiles and bool(self._profile.spki)  # key profiles, and no device
        if not covers_all and name not in entry.profiles:
            raise DeniedError("job.client", f"the client's enrolment does not name key profile {name!r}")
        if self._profile.level != "pinned":
            return member.index
        self._check_grant(member, statement)
        return None

    def _enrolment(self, member: Membership) -> Enrol | None:
        """What stands in the log at the membership's place; None if that is no enrolment."""
        place = (member.index, member.entry)
        if place not in self._enrolments:
            self._check_inclusion(member.entry, member.index, member.inclusion)
            entry = parse_entry(member.entry)
            self._enrolments[place] = entry if isinstance(entry, Enrol) else None
        return self._enrolments[place]

    def _check_grant(self, member: Membership, statement: RequestStatement) -> None:
        name = self._profile.name
        try:
            if member.grant not in self._grants:
                self._grants[member.grant] = open_authority(member.grant, self._bundle, self._now_ms).statement
        except (MalformedInputError, VerificationError) as error:
            raise DeniedError(
                "job.grant", f"key profile {name!r} is pinned, and the client's grant does not hold: {error}"
            ) from error
        grant = self._grants[member.grant]
        if (
            not isinstance(grant, GrantStatement)
            or grant.request_key != member.request_key
            or grant.profile != name
            or ("*" not in grant.formats and statement.format not in grant.formats)
        ):
            raise DeniedError("job.grant", f"the grant is not for this client, key profile {name!r} and format")

    # -- items --------------------------------------------------------------------------------------------------

    def _item(self, item: JobItem, expected: _Expected) -> CheckedItem:
        """One INTENT entry: on record, and in every field what statement and preimage say."""
        if not 0 <= item.item < len(expected.statement.items):
            raise VerificationError("job.items", f"the statement has no item {item.item}")
        self._check_inclusion(item.entry, item.index, item.inclusion)
        facts = self._preimage(item, expected)
        entry = parse_entry(item.entry)
        if not isinstance(entry, Intent):
            raise VerificationError("job.entry", "the entry that the job shows is not an INTENT")
        spki = self._profile.spki
        mechanism = mechanism_for(spki, facts.digest_algorithm) if spki else None
        wanted = self._intent(item, expected, entry, mechanism, facts.digest)
        for field in Intent.__struct_fields__:
            if getattr(entry, field) != getattr(wanted, field):
                raise VerificationError("job.entry", f"the INTENT entry differs from the job in `{field}`")
        return CheckedItem(
            item=item.item,
            mechanism=mechanism,
            digest=facts.digest,
            entry=item.entry,
            signed=item.signed,
            idempotency_key=expected.statement.idempotency_key,
        )

    def _check_inclusion(self, entry: bytes, index: int, proof: tuple[bytes, ...]) -> None:
        verify_inclusion(
            leaf=leaf_hash(entry),
            index=index,
            size=self._checkpoint.size,
            proof=proof,
            root=self._checkpoint.root,
        )

    def _preimage(self, item: JobItem, expected: _Expected) -> PreimageFacts:
        """The preimage is the one that the client's statement asks for."""
        asked = expected.statement.items[item.item]
        preimage = Preimage(signed=item.signed, detail=item.detail)
        facts = read_preimage(expected.statement.format, preimage, self._formats)
        if (facts.artifact.algorithm, facts.artifact.digest.hex()) != (asked.artifact.alg, asked.artifact.digest):
            raise VerificationError("job.artifact", "the preimage names another artifact than the client's statement")
        if hashlib.sha256(item.signed).hexdigest() != asked.preimage:
            raise VerificationError("job.preimage", "the preimage is not the one in the client's statement")
        return facts

    def _intent(
        self, item: JobItem, expected: _Expected, entry: Intent, mechanism: Mechanism | None, digest: bytes
    ) -> Intent:
        """What the INTENT must say; only its time, and the index of a grant, are the hub's to choose."""
        asked = expected.statement.items[item.item]
        return Intent(
            ts=entry.ts,
            request=expected.request_id,
            item=item.item,
            profile=self._profile.name,
            key=self._key,
            format=expected.statement.format,
            binding=expected.binding,
            mechanism="" if mechanism is None else mechanism.value,
            preimage=asked.preimage,
            digest=digest.hex(),
            artifact=asked.artifact,
            claimed=Claimed(sha256=asked.claimed.sha256, size=asked.claimed.size),
            client=expected.client,
            agent=self._agent,
            authority=entry.authority if expected.authority is None else expected.authority,
            fence=self._fence,
        )
