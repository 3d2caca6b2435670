# SPDX-License-Identifier: Apache-2.0
"""Judge Authenticode signatures of any kind of file, strictly and without help of what made them.

Every signature is judged: nested ones (1.3.6.1.4.1.311.2.4.1) count as signatures of their own. An RFC 3161
timestamp moves the moment at which certificates must be valid to its genTime; if no root is trusted for time
stamping, it counts for nothing, but must still fit. PKCS #9 countersignatures count for nothing. No
revocation is checked.

One thing that does not hold hides no other: whatever can be judged without it is judged all the same.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from privyseal.errors import MalformedInputError, PrivysealError, VerificationError
from privyseal.formats.authenticode import spc
from privyseal.formats.authenticode.windows import windows_verdict
from privyseal.formats.model import (
    Artifact,
    Finding,
    PageHashState,
    Severity,
    SignatureKind,
    SignatureReport,
    TimestampReport,
    TrustAnchors,
)
from privyseal.pki import cms, cms_verify, der, oids, tsp, x509
from privyseal.pki.mechanism import DIGEST_SIZES

__all__ = ["DataCheck", "Found", "find_signatures", "judge", "needed_digests"]

_MAX_SIGNATURES: Final = 32
_MAX_PADDING_BYTES: Final = 7
_MAX_TIMESTAMPS: Final = 4

#: Unsigned attributes whose meaning is known; the sealing ones are not judged, as they prove nothing about the file.
_KNOWN_ATTRIBUTES: Final = frozenset(
    (
        oids.ID_COUNTERSIGNATURE,
        oids.SPC_NESTED_SIGNATURE,
        oids.SPC_RFC3161_TIMESTAMP,
        oids.SPC_INTENT_TO_SEAL,
        oids.SPC_SEALING_SIGNATURE,
        oids.SPC_SEALING_TIMESTAMP,
    )
)

#: Raises VerificationError if what SpcIndirectDataContent says beyond the digest does not fit the file.
DataCheck = Callable[[spc.SpcIndirectDataContent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A signature as it stands in a file, read as far as it could be.

    Attributes:
        problem: Why it could not be read completely, or None.
    """

    kind: SignatureKind = SignatureKind.PRIMARY
    signed_data: cms.SignedData | None = None
    content: spc.SpcIndirectDataContent | None = None
    problem: PrivysealError | None = None

    @property
    def artifact(self) -> Artifact:
        """What the signature says of the file."""
        if self.content is None:
            return Artifact(algorithm="", digest=b"")
        oid = self.content.digest_algorithm.algorithm
        return Artifact(algorithm=oids.DIGEST_NAMES.get(oid, oid), digest=self.content.digest)


@dataclass(slots=True, kw_only=True)
class _Draft:
    """What is known of one signature while it is judged."""

    found: Found
    signature_sha256: bytes = b""
    digest_algorithm: str = ""
    certificate: x509.Certificate | None = None
    chain: tuple[bytes, ...] = ()
    anchored: bool = False
    page_hashes: PageHashState = PageHashState.ABSENT
    timestamps: list[TimestampReport] = field(default_factory=list)
    timestamped_at: datetime | None = None
    countersignatures: int = 0
    findings: list[Finding] = field(default_factory=list)

    def problem(self, error: PrivysealError) -> None:
        finding = Finding(severity=Severity.PROBLEM, code=error.code, message=error.message, hint=error.hint)
        self.findings.append(finding)

    def warning(self, code: str, message: str, hint: str = "") -> None:
        self.findings.append(Finding(severity=Severity.WARNING, code=code, message=message, hint=hint))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What the block raises becomes a finding."""
        try:
            yield
        except PrivysealError as error:
            self.problem(error)

    def report(self) -> SignatureReport:
        certificate = self.certificate
        return SignatureReport(
            subject="" if certificate is None else certificate.subject,
            spki_sha256=b"" if certificate is None else hashlib.sha256(certificate.spki).digest(),
            signature_sha256=self.signature_sha256,
            artifact=self.found.artifact,
            kind=self.found.kind,
            digest_algorithm=self.digest_algorithm,
            chain=self.chain,
            anchored=self.anchored,
            page_hashes=self.page_hashes,
            timestamped_at=self.timestamped_at,
            timestamps=tuple(self.timestamps),
            countersignatures=self.countersignatures,
            findings=tuple(self.findings),
        )


def find_signatures(encoded: bytes, kind: SignatureKind = SignatureKind.PRIMARY) -> tuple[Found, ...]:
    """A signature and those nested in it, outer one first.

    Args:
        encoded: A ContentInfo; up to seven zero bytes may follow it.
        kind: Of the outer one.
    """
    found: list[Found] = []
    waiting = [encoded]
    while waiting and len(found) < _MAX_SIGNATURES:
        current = _read(waiting.pop(0), SignatureKind.NESTED if found else kind)
        found.append(current)
        for signer_info in current.signed_data.signer_infos if current.signed_data is not None else ():
            waiting.extend(cms.attribute_values(signer_info.unsigned_attributes, oids.SPC_NESTED_SIGNATURE))
    if waiting:
        found.append(
            Found(
                kind=SignatureKind.NESTED,
                problem=VerificationError(
                    "authenticode.too_many_signatures",
                    f"only {_MAX_SIGNATURES} signatures of a file are judged",
                ),
            )
        )
    return tuple(found)


def needed_digests(found: tuple[Found, ...]) -> frozenset[str]:
    """With which algorithms the file must be hashed to judge these signatures."""
    return frozenset(one.artifact.algorithm for one in found if one.artifact.algorithm in DIGEST_SIZES)


def judge(
    found: Found, digests: dict[str, bytes], check_data: DataCheck, anchors: TrustAnchors, at: datetime
) -> SignatureReport:
    """Everything that must hold of one signature, and what somebody should know about it.

    Args:
        found: The signature.
        digests: The file's digests by algorithm, at least `needed_digests`.
        check_data: What the kind of file asks for beyond the digest.
        anchors: Trusted roots.
        at: When certificates must be valid, unless a timestamp says otherwise.
    """
    draft = _Draft(found=found)
    signed_data = found.signed_data
    if signed_data is None and found.problem is not None:
        draft.problem(found.problem)
    elif signed_data is None or len(signed_data.signer_infos) != 1:
        signers = "an Authenticode signature has exactly one signer"
        draft.problem(VerificationError("authenticode.signers", signers))
    else:
        _judge_signer(draft, signed_data, signed_data.signer_infos[0], digests)
        _judge_timestamps(draft, signed_data, signed_data.signer_infos[0], anchors)
        _judge_chain(draft, signed_data, anchors, at)
        _judge_data(draft, check_data)
        _warn(draft, signed_data, signed_data.signer_infos[0])
    report = draft.report()
    return replace(report, windows=windows_verdict(report))


def _read(encoded: bytes, kind: SignatureKind) -> Found:
    try:
        tlv = der.read_tlv(encoded, 0, "the signature")
        signed_data = cms.parse_signed_data(tlv.der, "the signature")
    except MalformedInputError as error:
        return Found(kind=kind, problem=error)
    try:
        content = _content(signed_data)
    except PrivysealError as error:
        return Found(kind=kind, signed_data=signed_data, problem=error)
    surplus = encoded[len(tlv.der) :]
    problem = None
    if len(surplus) > _MAX_PADDING_BYTES or any(surplus):
        # The signature does not cover them, so anybody may change them (CVE-2013-3900).
        problem = VerificationError(
            "authenticode.trailing_bytes",
            f"{len(surplus)} bytes behind the signature are covered by nothing (CVE-2013-3900)",
            hint="take them out, or do not trust what reads them: anybody can change them unnoticed",
        )
    return Found(kind=kind, signed_data=signed_data, content=content, problem=problem)


def _content(signed_data: cms.SignedData) -> spc.SpcIndirectDataContent:
    if signed_data.content_type != oids.SPC_INDIRECT_DATA or not signed_data.content:
        raise VerificationError(
            "authenticode.content_type",
            f"the signature is over content of type {signed_data.content_type}, not SpcIndirectDataContent",
        )
    return spc.parse_indirect_data(signed_data.content)


def _judge_signer(
    draft: _Draft, signed_data: cms.SignedData, signer_info: cms.SignerInfo, digests: dict[str, bytes]
) -> None:
    algorithm = signer_info.digest_algorithm.algorithm
    draft.digest_algorithm = oids.DIGEST_NAMES.get(algorithm, algorithm)
    draft.signature_sha256 = hashlib.sha256(signer_info.signature).digest()
    try:
        draft.certificate = cms_verify.signer_certificate(signed_data, signer_info)
    except VerificationError as error:
        draft.problem(error)
    if draft.found.problem is not None:
        draft.problem(draft.found.problem)
    if draft.found.content is not None:
        with draft.noting():
            _check_digest(draft.found, digests)
    if draft.certificate is not None and draft.found.content is not None:
        with draft.noting():
            cms_verify.verify_signer(signed_data, signer_info, draft.certificate)


def _check_digest(found: Found, digests: dict[str, bytes]) -> None:
    artifact = found.artifact
    if artifact.algorithm not in DIGEST_SIZES:
        raise VerificationError(
            "cms.weak_digest",
            f"the signature names the file by its {artifact.algorithm} digest, which proves nothing",
        )
    if digests[artifact.algorithm] != artifact.digest:
        raise VerificationError("authenticode.digest_mismatch", "the file is not the one that was signed")


def _judge_timestamps(
    draft: _Draft, signed_data: cms.SignedData, signer_info: cms.SignerInfo, anchors: TrustAnchors
) -> None:
    tokens = cms.attribute_values(signer_info.unsigned_attributes, oids.SPC_RFC3161_TIMESTAMP)
    if len(tokens) > _MAX_TIMESTAMPS:
        many = f"the signature has {len(tokens)} timestamps, not one"
        draft.problem(VerificationError("authenticode.too_many_timestamps", many))
        return
    for token in tokens:
        gen_time, problem = None, None
        try:
            gen_time = tsp.verify_token(
                token, signer_info.signature, anchors.time_stamping, intermediates=signed_data.certificates
            )
        except PrivysealError as error:
            problem = error
            if error.code == "chain.untrusted" and not anchors.time_stamping:
                draft.warning("timestamp.untrusted", f"the timestamp counts for nothing: {error.message}", error.hint)
            else:
                draft.problem(VerificationError(error.code, f"the timestamp: {error.message}", hint=error.hint))
        draft.timestamped_at = draft.timestamped_at or gen_time
        draft.timestamps.append(_described(token, signed_data, gen_time, problem))


def _described(
    token: bytes, signed_data: cms.SignedData, gen_time: datetime | None, problem: PrivysealError | None
) -> TimestampReport:
    subject = ""
    try:
        gen_time = gen_time or tsp.parse_token(token).gen_time
        parsed = cms.with_certificates(cms.parse_signed_data(token, "the timestamp token"), signed_data.certificates)
        if parsed.signer_infos:
            subject = cms_verify.signer_certificate(parsed, parsed.signer_infos[0]).subject
    except (MalformedInputError, VerificationError):
        pass  # why it does not hold is known already
    return TimestampReport(
        gen_time=gen_time,
        subject=subject,
        problem_code="" if problem is None else problem.code,
        problem="" if problem is None else problem.message,
    )


def _judge_chain(draft: _Draft, signed_data: cms.SignedData, anchors: TrustAnchors, at: datetime) -> None:
    certificate = draft.certificate
    if certificate is None:
        return
    if draft.timestamped_at is not None and not _is_lifetime(certificate):
        at = draft.timestamped_at
    pool = signed_data.certificates
    try:
        draft.chain = x509.build_path(certificate.der, pool, anchors.code_signing, at, oids.EKU_CODE_SIGNING)
        draft.anchored = True
    except VerificationError as error:
        draft.chain = x509.chain_by_names(certificate.der, pool)
        draft.problem(error)


def _is_lifetime(certificate: x509.Certificate) -> bool:
    return oids.EKU_LIFETIME_SIGNING in (certificate.extended_key_usage or ())


def _judge_data(draft: _Draft, check_data: DataCheck) -> None:
    content = draft.found.content
    if content is None:
        return
    if content.data_type == oids.SPC_PE_IMAGE_DATA and content.data not in (b"", spc.PE_IMAGE_DATA):
        with draft.noting():
            if spc.parse_page_hashes(content.data) is not None:
                draft.page_hashes = PageHashState.UNCHECKED
    # Last, because it may read the file again: only a trusted signer can ask for that.
    if any(one.severity is Severity.PROBLEM for one in draft.findings):
        return
    try:
        check_data(content)
        if draft.page_hashes is PageHashState.UNCHECKED:
            draft.page_hashes = PageHashState.CHECKED
    except PrivysealError as error:
        draft.problem(error)
        if error.code == "authenticode.page_hash_mismatch":
            draft.page_hashes = PageHashState.WRONG


def _warn(draft: _Draft, signed_data: cms.SignedData, signer_info: cms.SignerInfo) -> None:
    certificate = draft.certificate
    if certificate is not None and not draft.timestamps:
        ends = f"{certificate.not_after:%Y-%m-%d}"
        draft.warning(
            "timestamp.missing",
            f"there is no timestamp: the signature ends with the certificate on {ends}",
            "sign with a timestamp",
        )
    elif certificate is not None and _is_lifetime(certificate):
        ends = f"{certificate.not_after:%Y-%m-%d}"
        draft.warning(
            "certificate.lifetime_signing",
            f"the certificate is for lifetime signing: in spite of its timestamp the signature ends on {ends}",
        )
    values = cms.attribute_values(signer_info.unsigned_attributes, oids.ID_COUNTERSIGNATURE)
    draft.countersignatures = len(values)
    if values:
        draft.warning("timestamp.countersignature", "there is a PKCS #9 countersignature; it is not judged")
    for one in signer_info.unsigned_attributes:
        if one.type not in _KNOWN_ATTRIBUTES:
            size_bytes = sum(map(len, one.values))
            draft.warning(
                "authenticode.unknown_attribute",
                f"{size_bytes} bytes in the unsigned attribute {one.type} are covered by nothing",
                "do not trust what reads them: anybody can change them unnoticed",
            )
    unread = sum(1 for one in signed_data.certificates[: x509.MAX_CERTIFICATES] if not _is_certificate(one))
    unread += len(signed_data.certificates[x509.MAX_CERTIFICATES :])
    if unread:
        draft.warning(
            "authenticode.unread_certificate",
            f"{unread} of the {len(signed_data.certificates)} certificates beside the signature cannot be read",
            "do not trust what reads them: anybody can change them unnoticed",
        )


def _is_certificate(encoded: bytes) -> bool:
    try:
        x509.parse_certificate(encoded)
    except MalformedInputError:
        return False
    return True
