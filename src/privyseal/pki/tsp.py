# SPDX-License-Identifier: Apache-2.0
"""Time-Stamp Protocol: requests, responses and timestamp tokens (RFC 3161, RFC 5816).

Reading is lenient about what time-stamping authorities get wrong (sets out of order, an encoded DEFAULT,
times without seconds), verifying is not: imprint, signature, signing certificate, path and purpose must all
hold.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from cryptography.hazmat import asn1
from cryptography.hazmat.asn1 import TLV, BitString, Default, Implicit, Null
from cryptography.x509 import ObjectIdentifier

from privyseal.errors import MalformedInputError, UnavailableError, UnsupportedInputError, VerificationError
from privyseal.pki import cms, cms_verify, der, oids, x509

__all__ = [
    "SignedTst",
    "TimeStampReq",
    "TstInfo",
    "encode_request",
    "open_token",
    "parse_request",
    "parse_response",
    "parse_token",
    "verify_token",
]

_GRANTED: Final = (0, 1)  # granted, grantedWithMods (RFC 3161 §2.4.2)
#: PKIFailureInfo (§2.4.2): bit, name, and whether the same request may be granted later.
_FAILURES: Final = (
    (0, "badAlg", False),
    (2, "badRequest", False),
    (5, "badDataFormat", False),
    (14, "timeNotAvailable", True),
    (15, "unacceptedPolicy", False),
    (16, "unacceptedExtension", False),
    (17, "addInfoNotAvailable", False),
    (25, "systemFailure", True),
)
_MAX_SAID: Final = 500
_GENERALIZED_TIME: Final = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:[.,](\d{1,9}))?)?Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeStampReq:
    """What a time-stamping authority is asked (§2.4.1)."""

    digest_algorithm: str
    imprint: bytes
    nonce: int | None = None
    cert_req: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TstInfo:
    """What a timestamp token says (§2.4.2).

    Attributes:
        digest_algorithm: Dotted OID of the imprint's digest algorithm.
        gen_time: UTC.
        nonce: That of the request, or None.
    """

    policy: str
    digest_algorithm: str
    imprint: bytes
    serial_number: int
    gen_time: datetime
    nonce: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTst:
    """What a timestamp token says, and who signed it; whether that signer deserves trust is another question.

    Attributes:
        certificate: The signer's.
        certificates: DER certificates that may stand on its path.
    """

    info: TstInfo
    certificate: x509.Certificate
    certificates: tuple[bytes, ...]


@asn1.sequence
class _AlgorithmIdentifier:
    algorithm: ObjectIdentifier
    parameters: Null | TLV | None


@asn1.sequence
class _MessageImprint:
    hash_algorithm: _AlgorithmIdentifier
    hashed_message: bytes


@asn1.sequence
class _TimeStampReq:
    version: int
    message_imprint: _MessageImprint
    req_policy: ObjectIdentifier | None
    nonce: int | None
    cert_req: Annotated[bool, Default(value=False)]
    extensions: Annotated[list[TLV] | None, Implicit(0)]


@asn1.sequence
class _PkiStatusInfo:
    status: int
    status_string: list[TLV] | None
    fail_info: BitString | None


@asn1.sequence
class _TimeStampResp:
    status: _PkiStatusInfo
    time_stamp_token: Null | TLV | None


@asn1.sequence
class _Accuracy:
    seconds: int | None
    millis: Annotated[int | None, Implicit(0)]
    micros: Annotated[int | None, Implicit(1)]


# `ordering` is DEFAULT FALSE; as OPTIONAL it may also be encoded when it is false. `tsa` holds a CHOICE.
@asn1.sequence
class _GeneralName:
    value: TLV


@asn1.sequence
class _TstInfo:
    version: int
    policy: ObjectIdentifier
    message_imprint: _MessageImprint
    serial_number: int
    gen_time: TLV
    accuracy: _Accuracy | None
    ordering: bool | None
    nonce: int | None
    tsa: Annotated[_GeneralName | None, Implicit(0)]
    extensions: Annotated[list[TLV] | None, Implicit(1)]


@asn1.sequence
class _EssCertId:
    cert_hash: bytes
    issuer_serial: Null | TLV | None


@asn1.sequence
class _SigningCertificate:
    certs: list[_EssCertId]
    policies: Null | TLV | None


@asn1.sequence
class _EssCertIdV2:
    hash_algorithm: _AlgorithmIdentifier | None
    cert_hash: bytes
    issuer_serial: Null | TLV | None


@asn1.sequence
class _SigningCertificateV2:
    certs: list[_EssCertIdV2]
    policies: Null | TLV | None


def encode_request(request: TimeStampReq) -> bytes:
    """The TimeStampReq (DER) that asks for a timestamp of an imprint.

    Raises:
        MalformedInputError: `tsp.digest_algorithm` for anything but SHA-256, -384 and -512.
    """
    oid = oids.DIGEST_OIDS.get(request.digest_algorithm)
    if oid is None:
        raise MalformedInputError(
            "tsp.digest_algorithm", f"no timestamp is asked for over a {request.digest_algorithm} imprint"
        )
    raw = _TimeStampReq(
        version=1,
        message_imprint=_MessageImprint(
            hash_algorithm=_AlgorithmIdentifier(algorithm=ObjectIdentifier(oid), parameters=Null()),
            hashed_message=request.imprint,
        ),
        req_policy=None,
        nonce=request.nonce,
        cert_req=request.cert_req,
        extensions=None,
    )
    return der.encode(raw, "the timestamp request")


def parse_request(data: bytes) -> TimeStampReq:
    """Read a TimeStampReq.

    Raises:
        MalformedInputError: `der.malformed`, `tsp.digest_algorithm`.
    """
    raw = der.decode(_TimeStampReq, data, "the timestamp request")
    oid = raw.message_imprint.hash_algorithm.algorithm.dotted_string
    name = oids.DIGEST_NAMES.get(oid)
    if name is None:
        raise MalformedInputError("tsp.digest_algorithm", f"the imprint's digest algorithm {oid} is unknown")
    return TimeStampReq(
        digest_algorithm=name,
        imprint=raw.message_imprint.hashed_message,
        nonce=raw.nonce,
        cert_req=raw.cert_req,
    )


def parse_response(data: bytes) -> bytes:
    """The timestamp token (ContentInfo, DER) of a TimeStampResp.

    Raises:
        MalformedInputError: `der.malformed` if it is not a TimeStampResp.
        UnavailableError: `tsp.rejected` if the authority did not grant the request, with its words.
        UnsupportedInputError: `tsp.refused` if it says that it will not grant this request at any time.
    """
    what = "the timestamp response"
    try:
        raw = der.decode(_TimeStampResp, data, what)
    except MalformedInputError:
        raw = der.decode(_TimeStampResp, der.normalise(data, what), what)
    if raw.status.status not in _GRANTED or not isinstance(raw.time_stamp_token, TLV):
        raise _refusal(raw.status)
    return asn1.encode_der(raw.time_stamp_token)


def _refusal(status: _PkiStatusInfo) -> UnavailableError | UnsupportedInputError:
    failures = [one for one in _FAILURES if _has_bit(status.fail_info, one[0])]
    names = [name for _, name, _ in failures]
    said = [bytes(text.data).decode("utf-8", "replace") for text in status.status_string or ()]
    reason = "; ".join([*names, *said])[:_MAX_SAID] or "no reason given"
    message = f"the time-stamping authority gave no timestamp, but status {status.status}: {reason}"
    hint = "try another time-stamping authority"
    if failures and not any(later for _, _, later in failures):
        return UnsupportedInputError("tsp.refused", message, hint=hint)
    return UnavailableError("tsp.rejected", message, hint=hint)


def _has_bit(bits: BitString | None, place: int) -> bool:
    octets = b"" if bits is None else bits.as_bytes()
    return place // 8 < len(octets) and bool(octets[place // 8] & 0x80 >> place % 8)


def parse_token(token: bytes) -> TstInfo:
    """What a timestamp token says, unverified.

    Raises:
        MalformedInputError: `tsp.not_tst_info`, `tsp.gen_time`, or what `cms.parse_signed_data` raises.
    """
    return _tst_info(cms.parse_signed_data(token, "the timestamp token"))


def verify_token(
    token: bytes,
    data: bytes,
    anchors: tuple[bytes, ...],
    *,
    intermediates: tuple[bytes, ...] = (),
    nonce: int | None = None,
) -> datetime:
    """Verify a timestamp token over `data`.

    Args:
        token: ContentInfo, DER.
        data: What was timestamped (the signature value of a SignerInfo), before hashing.
        anchors: Root certificates (DER) that are trusted for time stamping.
        intermediates: Certificates (DER) that may be needed and need not be in the token.
        nonce: The request's, if the token must carry it.

    Returns:
        genTime, UTC. The authority's certificate path holds at that time.

    Raises:
        MalformedInputError: if the token cannot be read (`tsp.*`, `cms.*`, `der.*`).
        VerificationError: `tsp.imprint`, `tsp.nonce`, `tsp.signers`, `tsp.signing_certificate`, or what
            `cms_verify.verify_signer` and `x509.build_path` raise.
    """
    signed = open_token(token, intermediates)
    info = signed.info
    name = cms_verify.digest_algorithm_name(cms.AlgorithmIdentifier(algorithm=info.digest_algorithm))
    if hashlib.new(name, data).digest() != info.imprint:
        raise VerificationError("tsp.imprint", "the timestamp was made for another signature than this one")
    if nonce is not None and info.nonce != nonce:
        raise VerificationError("tsp.nonce", "the timestamp does not carry the nonce of the request")
    x509.build_path(signed.certificate.der, signed.certificates, anchors, info.gen_time, oids.EKU_TIME_STAMPING)
    return info.gen_time


def open_token(token: bytes, intermediates: tuple[bytes, ...] = ()) -> SignedTst:
    """Open a timestamp token whose signature holds with the certificate that it names.

    Args:
        token: ContentInfo, DER.
        intermediates: Certificates (DER) that need not be in the token.

    Raises:
        MalformedInputError: if the token cannot be read (`tsp.*`, `cms.*`, `der.*`).
        VerificationError: `tsp.signers`, `tsp.signing_certificate`, or what `cms_verify.verify_signer` raises.
    """
    signed_data = cms.parse_signed_data(token, "the timestamp token")
    info = _tst_info(signed_data)
    if len(signed_data.signer_infos) != 1:
        raise VerificationError(
            "tsp.signers", f"the timestamp has {len(signed_data.signer_infos)} signers; one is expected"
        )
    signer_info = signed_data.signer_infos[0]
    # A token that was asked for without certificates is verified with those that the caller has.
    pool = cms.with_certificates(signed_data, intermediates)
    certificate = cms_verify.signer_certificate(pool, signer_info)
    cms_verify.verify_signer(signed_data, signer_info, certificate)
    _check_signing_certificate(signer_info, certificate.der)
    return SignedTst(info=info, certificate=certificate, certificates=pool.certificates)


def _tst_info(signed_data: cms.SignedData) -> TstInfo:
    if signed_data.content_type != oids.ID_CT_TST_INFO or not signed_data.content:
        raise MalformedInputError(
            "tsp.not_tst_info", f"the timestamp token holds a {signed_data.content_type}, not a TSTInfo"
        )
    if signed_data.content[0] != der.TAG_OCTET_STRING:
        # messageDigest covers the octets alone, so nothing else would notice another tag.
        raise MalformedInputError("tsp.not_tst_info", "the timestamp token's TSTInfo is not in an OCTET STRING")
    raw = der.decode(_TstInfo, signed_data.content_octets, "the TSTInfo")
    return TstInfo(
        policy=raw.policy.dotted_string,
        digest_algorithm=raw.message_imprint.hash_algorithm.algorithm.dotted_string,
        imprint=raw.message_imprint.hashed_message,
        serial_number=raw.serial_number,
        gen_time=_gen_time(asn1.encode_der(raw.gen_time)),
        nonce=raw.nonce,
    )


def _gen_time(encoded: bytes) -> datetime:
    """A GeneralizedTime in UTC; against X.690 §11.7 fractions may end in zeros, and seconds be missing."""
    tlv = der.read_single(encoded, "genTime")
    match = _GENERALIZED_TIME.fullmatch(tlv.content)
    if tlv.tag != der.TAG_GENERALIZED_TIME or match is None:
        raise MalformedInputError("tsp.gen_time", "genTime of the timestamp is not a GeneralizedTime in UTC")
    year, month, day, hour, minute, second = (int(group or 0) for group in match.groups()[:6])
    microseconds = int((match.group(7) or b"0").ljust(6, b"0")[:6])
    try:
        whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise MalformedInputError("tsp.gen_time", f"genTime of the timestamp is no date: {error}") from error
    return whole + timedelta(microseconds=microseconds)


def _check_signing_certificate(signer_info: cms.SignerInfo, certificate: bytes) -> None:
    """The token must name its signer's certificate by hash (RFC 3161 §2.4.1, RFC 5816 §2.2.1)."""
    attributes = cms.read_signed_attributes(signer_info.signed_attributes)
    second = cms.attribute_values(attributes, oids.ID_SIGNING_CERTIFICATE_V2)
    first = cms.attribute_values(attributes, oids.ID_SIGNING_CERTIFICATE)
    if second:
        certs = der.decode(_SigningCertificateV2, second[0], "the signing-certificate-v2 attribute").certs
        algorithm = certs[0].hash_algorithm if certs else None
        oid = algorithm.algorithm.dotted_string if algorithm is not None else oids.DIGEST_OIDS["sha256"]
        name, named = oids.DIGEST_NAMES.get(oid, ""), certs[0].cert_hash if certs else b""
    elif first:
        # SHA-1 is fixed by RFC 2634 §5.4; the certificate is in the signature's reach by its key, too.
        ess = der.decode(_SigningCertificate, first[0], "the signing-certificate attribute").certs
        name, named = "sha1", ess[0].cert_hash if ess else b""
    else:
        raise VerificationError("tsp.signing_certificate", "the timestamp names no signer's certificate")
    if not name or hashlib.new(name, certificate, usedforsecurity=False).digest() != named:
        raise VerificationError("tsp.signing_certificate", "the timestamp names another signer's certificate")
