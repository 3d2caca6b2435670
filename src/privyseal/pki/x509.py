# SPDX-License-Identifier: Apache-2.0
"""Certificates and their paths at a given time, for code signing and time stamping (RFC 5280 §6).

Paths are found by `cryptography.x509.verification`, which knows signatures, dates, name constraints, path
lengths and unknown critical extensions; what extensions must say stands in `purposes`. No revocation is checked.

Certificates and paths that were looked at before are remembered, bounded in number and size: the same few stand
in file after file.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import verification

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.pki import der, oids
from privyseal.pki.purposes import PURPOSES, ca_allows, ca_policy, dotted, leaf_allows, leaf_policy

__all__ = ["MAX_CERTIFICATES", "Certificate", "build_path", "chain_by_names", "parse_certificate"]

#: More certificates of a file than that are not looked at: path building grows with their number.
MAX_CERTIFICATES: Final = 64
_MAX_CHAIN_DEPTH: Final = 8
_MIN_RSA_BITS: Final = 2048
_VERSION_TAG: Final = 0xA0
#: What is larger is not remembered, so that hostile files cannot fill the memory.
_REMEMBERED_SIZE_BYTES: Final = 16 * 1024

#: What the library raises for certificates that are broken in their depth.
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the rest of the product needs to know of an X.509 certificate.

    Attributes:
        subject, issuer: RFC 4514.
        issuer_name: The issuer's Name, DER.
        subject_name: The subject's Name, DER.
        spki: SubjectPublicKeyInfo, DER.
        subject_key_identifier: Empty if the certificate has none.
        extended_key_usage: Dotted OIDs; None if the extension is absent.
        signature_algorithm: Dotted OID of how the issuer signed it.
    """

    der: bytes
    subject: str
    issuer: str
    issuer_name: bytes
    subject_name: bytes
    serial_number: int
    spki: bytes
    not_before: datetime
    not_after: datetime
    subject_key_identifier: bytes
    extended_key_usage: tuple[str, ...] | None
    signature_algorithm: str


def parse_certificate(encoded: bytes) -> Certificate:
    """Read one X.509 certificate (DER).

    Raises:
        MalformedInputError: `certificate.malformed`.
    """
    return _load(encoded)[1]


def build_path(
    leaf: bytes, intermediates: tuple[bytes, ...], anchors: tuple[bytes, ...], at: datetime, eku: str
) -> tuple[bytes, ...]:
    """Find a path from a certificate to a trust anchor that holds at a given time.

    Args:
        leaf: The signer's certificate, DER.
        intermediates: Certificates that may stand between; others among them do no harm.
        anchors: Trusted root certificates, DER; the leaf itself may be one. Those that cannot be read count for
            nothing.
        at: Moment at which every certificate of the path must be valid, with a time zone.
        eku: `EKU_CODE_SIGNING` or `EKU_TIME_STAMPING`.

    Returns:
        DER certificates, leaf first, anchor last.

    Raises:
        MalformedInputError: `certificate.malformed` for the leaf.
        VerificationError: `chain.expired`, `chain.not_yet_valid`, `chain.eku`, `chain.weak_key`,
            `chain.weak_digest`, `chain.untrusted`.
    """
    facts = _load(leaf)[1]
    if not anchors:
        raise _untrusted(facts, eku, "no trusted root was given for this purpose")
    pool = _reachable(facts, _usable(intermediates[:MAX_CERTIFICATES]))
    roots = _candidates((facts, *pool), anchors)
    everyone = (facts, *pool, *roots)
    if not roots:
        last = _upwards(facts, pool)[-1]
        issuer = "" if last.subject_name == last.issuer_name else f", nor is its issuer {last.issuer}"
        reason = f"{last.subject} is not trusted{issuer}"
        raise _explained(everyone, roots, at, eku, reason)
    is_small = sum(len(one.der) for one in everyone) <= _REMEMBERED_SIZE_BYTES * _MAX_CHAIN_DEPTH
    find = _find_path if is_small else _find_path.__wrapped__
    try:
        return find(leaf, _ders(pool), _ders(roots), _representative(at, everyone), eku)
    except verification.VerificationError as error:
        raise _explained(everyone, roots, at, eku, str(error)) from error


def chain_by_names(leaf: bytes, intermediates: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """How far a chain can be followed by names alone, whether it holds or not: DER, leaf first.

    Raises:
        MalformedInputError: `certificate.malformed` for the leaf.
    """
    pool = _usable(intermediates[:MAX_CERTIFICATES])
    return _ders(_upwards(_load(leaf)[1], pool))


@lru_cache(maxsize=256)
def _find_path(
    leaf: bytes, intermediates: tuple[bytes, ...], roots: tuple[bytes, ...], at: datetime, eku: str
) -> tuple[bytes, ...]:
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([_load(one)[0] for one in roots]))
        .time(at.astimezone(UTC).replace(tzinfo=None))
        .max_chain_depth(_MAX_CHAIN_DEPTH)
        .extension_policies(ca_policy=ca_policy(eku), ee_policy=leaf_policy(eku))
        .build_client_verifier()
    )
    chain = verifier.verify(_load(leaf)[0], [_load(one)[0] for one in intermediates]).chain
    for one in chain:
        _check_key_size(one)
    return tuple(one.public_bytes(Encoding.DER) for one in chain)


def _representative(at: datetime, certificates: tuple[Certificate, ...]) -> datetime:
    """The last moment up to `at` at which a validity began or had ended: between two of them no verdict changes."""
    moment = at.replace(microsecond=0)
    begun = [one.not_before for one in certificates if one.not_before <= moment]
    ended = [one.not_after + timedelta(seconds=1) for one in certificates if one.not_after < moment]
    return max(begun + ended, default=moment)


def _reachable(leaf: Certificate, pool: list[Certificate]) -> tuple[Certificate, ...]:
    """Those of a pool through which a path from the leaf could lead, by their names."""
    found: dict[bytes, Certificate] = {}
    names = [leaf.issuer_name]
    for name in names:
        for one in pool:
            if one.subject_name == name and one.der not in found:
                found[one.der] = one
                if one.issuer_name not in names:
                    names.append(one.issuer_name)
    return tuple(found.values())


def _candidates(certificates: tuple[Certificate, ...], anchors: tuple[bytes, ...]) -> tuple[Certificate, ...]:
    """The anchors at which a path through these certificates could end: only they are read completely."""
    by_subject = _by_subject(anchors)
    names = dict.fromkeys((certificates[0].subject_name, *(one.issuer_name for one in certificates)))
    # Anchors are the caller's own, often a whole bundle: all of them count, and one that is odd does not spoil it.
    return tuple(_usable(encoded for name in names for encoded in by_subject.get(name, ())))


@lru_cache(maxsize=8)
def _by_subject(anchors: tuple[bytes, ...]) -> Mapping[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for encoded in anchors:
        try:
            tbs_certificate = der.children(der.read_single(encoded, "a root"), "a root")[0]
            name = _names(tbs_certificate.der)[1]
        except (MalformedInputError, IndexError):
            continue
        found.setdefault(name, []).append(encoded)
    return found


def _ders(certificates: Iterable[Certificate]) -> tuple[bytes, ...]:
    return tuple(one.der for one in certificates)


def _check_key_size(certificate: x509.Certificate) -> None:
    # The verifier asks this of issuers only.
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        raise VerificationError(
            "chain.weak_key", f"{_name(certificate)} has an RSA key of {key.key_size} bits, less than {_MIN_RSA_BITS}"
        )


def _explained(
    certificates: tuple[Certificate, ...], roots: tuple[Certificate, ...], at: datetime, eku: str, reason: str
) -> VerificationError:
    """The first date, purpose or digest that fails on the way up by names: more useful than the verifier's words."""
    leaf = certificates[0]
    for current in _upwards(leaf, certificates):
        if at < current.not_before:
            return VerificationError(
                "chain.not_yet_valid",
                f"{current.subject} is valid from {current.not_before:%Y-%m-%d %H:%M:%SZ} on, "
                f"after {at:%Y-%m-%d %H:%M:%SZ}",
            )
        if at > current.not_after:
            return VerificationError(
                "chain.expired",
                f"{current.subject} was valid until {current.not_after:%Y-%m-%d %H:%M:%SZ}, "
                f"before {at:%Y-%m-%d %H:%M:%SZ}",
                hint="a timestamp made while the certificate was valid keeps a signature valid",
            )
        purposes = current.extended_key_usage
        if not (leaf_allows(purposes, eku) if current is leaf else ca_allows(purposes, eku)):
            return VerificationError("chain.eku", f"{current.subject} is not for {PURPOSES[eku]}")
        weak = oids.WEAK_SIGNATURES.get(current.signature_algorithm)
        # What an anchor says of itself is not what it is trusted for.
        if weak is not None and roots and current not in roots:
            return VerificationError(
                "chain.weak_digest", f"{current.subject} was issued with a {weak} signature, which proves nothing"
            )
    return _untrusted(leaf, eku, reason)


def _upwards(leaf: Certificate, pool: Iterable[Certificate]) -> list[Certificate]:
    """From a certificate to the last one whose name follows from the one before."""
    by_subject: dict[bytes, Certificate] = {}
    for one in pool:
        by_subject.setdefault(one.subject_name, one)
    way = [leaf]
    seen = {leaf.subject_name}
    while (following := by_subject.get(way[-1].issuer_name)) is not None and following.subject_name not in seen:
        way.append(following)
        seen.add(following.subject_name)
    return way


def _untrusted(leaf: Certificate, eku: str, reason: str) -> VerificationError:
    return VerificationError(
        "chain.untrusted",
        f"no path leads from {leaf.subject} to a root that is trusted for {PURPOSES[eku]}: {reason}",
        hint="name its root certificate as trusted, and see that the intermediates are in the file",
    )


def _usable(ders: Iterable[bytes]) -> list[Certificate]:
    """Those of the certificates that can be read; the others cannot be part of a path."""
    found = []
    for encoded in ders:
        try:
            found.append(_load(encoded)[1])
        except MalformedInputError:
            continue
    return found


def _load(encoded: bytes) -> tuple[x509.Certificate, Certificate]:
    return (_read if len(encoded) <= _REMEMBERED_SIZE_BYTES else _read.__wrapped__)(encoded)


@lru_cache(maxsize=1024)
def _read(encoded: bytes) -> tuple[x509.Certificate, Certificate]:
    """A certificate whose lazily parsed parts have all been parsed once: nothing later can fail."""
    try:
        with warnings.catch_warnings():
            # The library talks to developers about odd names and numbers, in words that say nothing to our callers.
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(encoded)
            facts = _facts(certificate)
    except _UNREADABLE as error:
        raise MalformedInputError(
            "certificate.malformed", f"an X.509 certificate of {len(encoded)} bytes cannot be read: {error}"
        ) from error
    signature = der.children(der.read_single(facts.der, "a certificate"), "a certificate")[2]
    if signature.content[:1] != b"\0":
        # A count of unused bits other than zero: nothing covers it, and others refuse it.
        raise MalformedInputError("certificate.malformed", f"the signature on {facts.subject} is not whole octets")
    if facts.serial_number <= 0:
        raise MalformedInputError(
            "certificate.malformed", f"{facts.subject} has a serial number that is not positive (RFC 5280 §4.1.2.2)"
        )
    return certificate, facts


def _facts(certificate: x509.Certificate) -> Certificate:
    try:
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        identifier = b""
    issuer_name, subject_name = _names(certificate.tbs_certificate_bytes)
    return Certificate(
        der=certificate.public_bytes(Encoding.DER),
        subject=_name(certificate),
        issuer=certificate.issuer.rfc4514_string(),
        issuer_name=issuer_name,
        subject_name=subject_name,
        serial_number=certificate.serial_number,
        spki=certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        subject_key_identifier=identifier,
        extended_key_usage=dotted(_extended_key_usage(certificate)),
        signature_algorithm=certificate.signature_algorithm_oid.dotted_string,
    )


def _names(tbs_certificate: bytes) -> tuple[bytes, bytes]:
    """Issuer and subject as they stand in the certificate: a SignerInfo must repeat the issuer byte for byte."""
    what = "the TBSCertificate"
    fields = der.children(der.read_single(tbs_certificate, what), what)
    first = 1 if fields[0].tag == _VERSION_TAG else 0
    return fields[first + 2].der, fields[first + 4].der


def _extended_key_usage(certificate: x509.Certificate) -> x509.ExtendedKeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"certificate {certificate.serial_number:x}"
