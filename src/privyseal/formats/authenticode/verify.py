# SPDX-License-Identifier: Apache-2.0
"""Judge Authenticode signatures of any kind of file, strictly and without help of what made them.

Every signature is judged: nested ones (1.3.6.1.4.1.311.2.4.1) count as signatures of their own. An RFC 3161
timestamp moves the moment at which certificates must be valid to its genTime; if no root is trusted for time
stamping, it counts for nothing, but must still fit. PKCS #9 countersignatures count for nothing. No
revocation is checked.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from privyseal.errors import MalformedInputError, PrivysealError, VerificationError
from privyseal.formats.authenticode import spc
from privyseal.formats.model import Artifact, SignatureReport, TrustAnchors
from privyseal.pki import cms, cms_verify, der, oids, tsp, x509
from privyseal.pki.mechanism import DIGEST_SIZES

__all__ = ["DataCheck", "Found", "find_signatures", "judge", "needed_digests"]

_MAX_SIGNATURES: Final = 32
_MAX_PADDING_BYTES: Final = 7
_MAX_TIMESTAMPS: Final = 4

#: Raises VerificationError if what SpcIndirectDataContent says beyond the digest does not fit the file.
DataCheck = Callable[[spc.SpcIndirectDataContent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A signature as it stands in a file, read as far as it could be.

    Attributes:
        problem: Why it could not be read completely, or None.
    """

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


def find_signatures(encoded: bytes) -> tuple[Found, ...]:
    """A signature and those nested in it, outer one first.

    Args:
        encoded: A ContentInfo; up to seven zero bytes may follow it.
    """
    found: list[Found] = []
    waiting = [encoded]
    while waiting and len(found) < _MAX_SIGNATURES:
        current = _read(waiting.pop(0))
        found.append(current)
        for signer_info in current.signed_data.signer_infos if current.signed_data is not None else ():
            waiting.extend(cms.attribute_values(signer_info.unsigned_attributes, oids.SPC_NESTED_SIGNATURE))
    if waiting:
        found.append(
            Found(
                problem=VerificationError(
                    "authenticode.too_many_signatures",
                    f"only {_MAX_SIGNATURES} signatures of a file are judged",
                )
            )
        )
    return tuple(found)


def needed_digests(found: tuple[Found, ...]) -> frozenset[str]:
    """With which algorithms the file must be hashed to judge these signatures."""
    return frozenset(one.artifact.algorithm for one in found if one.artifact.algorithm in DIGEST_SIZES)


def judge(
    found: Found, digests: dict[str, bytes], check_data: DataCheck, anchors: TrustAnchors, at: datetime
) -> SignatureReport:
    """Everything that must hold of one signature; the report names the first thing that does not.

    Args:
        found: The signature.
        digests: The file's digests by algorithm, at least `needed_digests`.
        check_data: What the kind of file asks for beyond the digest.
        anchors: Trusted roots.
        at: When certificates must be valid, unless a timestamp says otherwise.
    """
    report = SignatureReport(subject="", spki_sha256=b"", signature_sha256=b"", artifact=found.artifact)
    try:
        for stage in _stages(report, found, digests=digests, check_data=check_data, anchors=anchors, at=at):
            report = stage
    except PrivysealError as error:
        return replace(report, problem_code=error.code, problem=error.message)
    return report


def _stages(
    report: SignatureReport,
    found: Found,
    *,
    digests: dict[str, bytes],
    check_data: DataCheck,
    anchors: TrustAnchors,
    at: datetime,
) -> Iterator[SignatureReport]:
    """The report, each time with what was learned; raises at the first thing that does not hold."""
    if found.problem is not None and found.signed_data is None:
        raise found.problem
    signed_data = found.signed_data
    if signed_data is None or len(signed_data.signer_infos) != 1:
        raise VerificationError("authenticode.signers", "an Authenticode signature has exactly one signer")
    signer_info = signed_data.signer_infos[0]
    report = replace(report, signature_sha256=hashlib.sha256(signer_info.signature).digest())
    yield report
    certificate = cms_verify.signer_certificate(signed_data, signer_info)
    report = replace(
        report,
        subject=certificate.subject,
        spki_sha256=hashlib.sha256(certificate.spki).digest(),
        chain=(certificate.der,),
    )
    yield report
    if found.problem is not None:
        raise found.problem
    _check_digest(found, digests)
    cms_verify.verify_signer(signed_data, signer_info, certificate)
    timestamped_at = _timestamp(signed_data, signer_info, anchors)
    report = replace(report, timestamped_at=timestamped_at)
    yield report
    if timestamped_at is not None and oids.EKU_LIFETIME_SIGNING not in (certificate.extended_key_usage or ()):
        at = timestamped_at
    path = x509.build_path(certificate.der, signed_data.certificates, anchors.code_signing, at, oids.EKU_CODE_SIGNING)
    yield replace(report, chain=path)
    # Last, because it may read the file again: only a trusted signer can ask for that.
    if found.content is not None:
        check_data(found.content)


def _read(encoded: bytes) -> Found:
    try:
        tlv = der.read_tlv(encoded, 0, "the signature")
        signed_data = cms.parse_signed_data(tlv.der, "the signature")
    except MalformedInputError as error:
        return Found(problem=error)
    try:
        content = _content(signed_data)
    except PrivysealError as error:
        return Found(signed_data=signed_data, problem=error)
    surplus = encoded[len(tlv.der) :]
    problem = None
    if len(surplus) > _MAX_PADDING_BYTES or any(surplus):
        # The signature does not cover them, so anybody may change them (CVE-2013-3900).
        problem = VerificationError(
            "authenticode.trailing_bytes", f"{len(surplus)} bytes behind the signature are covered by nothing"
        )
    return Found(signed_data=signed_data, content=content, problem=problem)


def _content(signed_data: cms.SignedData) -> spc.SpcIndirectDataContent:
    if signed_data.content_type != oids.SPC_INDIRECT_DATA or not signed_data.content:
        raise VerificationError(
            "authenticode.content_type",
            f"the signature is over content of type {signed_data.content_type}, not SpcIndirectDataContent",
        )
    return spc.parse_indirect_data(signed_data.content)


def _check_digest(found: Found, digests: dict[str, bytes]) -> None:
    artifact = found.artifact
    if artifact.algorithm not in DIGEST_SIZES:
        raise VerificationError(
            "cms.weak_digest",
            f"the signature names the file by its {artifact.algorithm} digest, which proves nothing",
        )
    if digests[artifact.algorithm] != artifact.digest:
        raise VerificationError("authenticode.digest_mismatch", "the file is not the one that was signed")


def _timestamp(signed_data: cms.SignedData, signer_info: cms.SignerInfo, anchors: TrustAnchors) -> datetime | None:
    tokens = cms.attribute_values(signer_info.unsigned_attributes, oids.SPC_RFC3161_TIMESTAMP)
    if len(tokens) > _MAX_TIMESTAMPS:
        raise VerificationError(
            "authenticode.too_many_timestamps", f"the signature has {len(tokens)} timestamps, not one"
        )
    times = []
    for token in tokens:
        try:
            times.append(
                tsp.verify_token(
                    token,
                    signer_info.signature,
                    anchors.time_stamping,
                    intermediates=signed_data.certificates,
                )
            )
        except VerificationError as error:
            if error.code == "chain.untrusted" and not anchors.time_stamping:
                continue
            raise VerificationError(error.code, f"the timestamp: {error.message}", hint=error.hint) from error
    return times[0] if times else None
