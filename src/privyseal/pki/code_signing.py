# SPDX-License-Identifier: Apache-2.0
"""What a certificate must be before it stands beside a code-signing key, and how a public CA's is known.

Follows RFC 5280 and the CA/Browser Forum's Baseline Requirements for Code Signing Certificates (§6.1.5 key sizes,
§6.3.2 validity, §7.1.6 policy identifiers).
"""

import contextlib
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.pki import oids
from privyseal.pki.x509 import MAX_CERTIFICATES, Certificate, build_path, parse_certificate

__all__ = ["PUBLIC_RSA_BITS", "CheckedChain", "check_chain", "public_ca_sign"]

#: Least RSA size of a publicly trusted code-signing certificate since June 2021.
PUBLIC_RSA_BITS: Final = 3072
_PUBLIC_DAYS: Final = 460
_PUBLIC_POLICIES: Final = {
    oids.CABF_CODE_SIGNING: "the CA/Browser Forum's policy for code signing",
    oids.CABF_EV_CODE_SIGNING: "the CA/Browser Forum's policy for EV code signing",
}
_SOON: Final = timedelta(days=30)
_UNVERIFIABLE: Final = (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedChain:
    """A chain that holds.

    Attributes:
        certificates: Leaf first, root last.
        remarks: What is no reason to refuse, and what its owner should know all the same.
    """

    certificates: tuple[Certificate, ...]
    remarks: tuple[str, ...]


def check_chain(given: tuple[bytes, ...], *, spki: bytes, roots: tuple[bytes, ...], at: datetime) -> CheckedChain:
    """Judge certificates that are to stand beside a key.

    Args:
        given: DER certificates in any order: the key's, its issuers, and the root unless it is among `roots`.
        spki: The key's SubjectPublicKeyInfo, DER.
        roots: Known roots, DER.
        at: Now, with a time zone.

    Raises:
        MalformedInputError: `certificate.malformed`, `certificate.too_many`.
        VerificationError: `certificate.other_key`, `chain.incomplete`; as `build_path`.
    """
    if len(given) > MAX_CERTIFICATES:
        raise MalformedInputError(
            "certificate.too_many", f"{len(given)} certificates were given; a chain has at most {MAX_CERTIFICATES}"
        )
    certificates = tuple(parse_certificate(encoded) for encoded in given)
    leaf = next((one for one in certificates if one.spki == spki), None)
    if leaf is None:
        raise VerificationError(
            "certificate.other_key",
            f"none of {', '.join(one.subject for one in certificates) or 'no certificates'} is for this key",
            hint="compare the request that was sent to the CA with the key: `privyseal key list` shows the key's hash",
        )
    own_roots = tuple(one.der for one in certificates if _is_issued_by(one, one))
    try:
        path = build_path(
            leaf.der,
            tuple(one.der for one in certificates if one is not leaf),
            (*own_roots, *roots),
            at,
            oids.EKU_CODE_SIGNING,
        )
    except VerificationError as error:
        if missing := _incomplete(leaf, certificates, roots):
            raise missing from error
        if error.code == "chain.expired":  # no timestamp helps a certificate that is still to sign
            raise VerificationError(error.code, error.message, hint="ask the CA for a new certificate") from error
        raise
    chain = tuple(parse_certificate(encoded) for encoded in path)
    return CheckedChain(certificates=chain, remarks=_remarks(chain, certificates, at))


def public_ca_sign(chain: tuple[bytes, ...], roots: tuple[bytes, ...]) -> str:
    """How a chain (DER, leaf first) shows that a public CA made it; empty if it does not.

    Args:
        chain: DER, leaf first.
        roots: Roots that the system trusts, DER.

    Raises:
        MalformedInputError: `certificate.malformed` if one of the chain cannot be read.
    """
    if not chain:
        return ""
    certificates = [parse_certificate(encoded) for encoded in chain]
    for policy in _policies(chain[0]):
        if policy in _PUBLIC_POLICIES:
            return f"its certificate names {_PUBLIC_POLICIES[policy]} ({policy})"
    for certificate in certificates:
        if certificate.der in roots:
            return f"{certificate.subject} is trusted by this system"
    for root in _readable(roots):
        if _is_issued_by(certificates[-1], root):
            return f"it was issued under {root.subject}, which this system trusts"
    return ""


def _policies(encoded: bytes) -> tuple[str, ...]:
    try:
        policies = _load(encoded).extensions.get_extension_for_class(x509.CertificatePolicies).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(policy.policy_identifier.dotted_string for policy in policies)


def _load(encoded: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x509.load_der_x509_certificate(encoded)


def _is_issued_by(subject: Certificate, issuer: Certificate) -> bool:
    if subject.issuer_name != issuer.subject_name:
        return False
    try:
        _load(subject.der).verify_directly_issued_by(_load(issuer.der))
    except _UNVERIFIABLE:
        return False
    return True


def _incomplete(
    leaf: Certificate, given: tuple[Certificate, ...], roots: tuple[bytes, ...]
) -> VerificationError | None:
    """Which issuer is missing; None if none is, so that something else is wrong."""
    known = {one.subject_name: one for one in (*_readable(roots), *given)}
    top, seen = leaf, {leaf.subject_name}
    while top.issuer_name in known and top.issuer_name not in seen:
        top = known[top.issuer_name]
        seen.add(top.subject_name)
    if top.issuer_name in seen:
        return None
    issuer = _load(top.der).issuer.rfc4514_string()
    return VerificationError(
        "chain.incomplete",
        f"the chain ends at {top.subject}; the certificate of its issuer {issuer} is missing",
        hint="add the CA's intermediate and root certificates after the first file",
    )


def _readable(roots: tuple[bytes, ...]) -> list[Certificate]:
    """An odd one among the system's roots says nothing about a chain."""
    found = []
    for encoded in roots:
        with contextlib.suppress(MalformedInputError):
            found.append(parse_certificate(encoded))
    return found


def _remarks(chain: tuple[Certificate, ...], given: tuple[Certificate, ...], at: datetime) -> tuple[str, ...]:
    leaf = chain[0]
    found = []
    days = (leaf.not_after - leaf.not_before).days
    if days > _PUBLIC_DAYS:
        found.append(f"valid for {days} days; public CAs issue for at most {_PUBLIC_DAYS} since March 2026")
    if leaf.not_after - at < _SOON:
        found.append(f"expires soon, on {leaf.not_after:%Y-%m-%d}")
    key = serialization.load_der_public_key(leaf.spki)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < PUBLIC_RSA_BITS:
        found.append(
            f"an RSA key of {key.key_size} bits; publicly trusted code signing needs at least {PUBLIC_RSA_BITS}"
        )
    used = {one.der for one in chain}
    found += [f"not part of the chain, left out: {one.subject}" for one in given if one.der not in used]
    return tuple(found)
