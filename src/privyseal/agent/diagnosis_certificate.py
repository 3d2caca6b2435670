# SPDX-License-Identifier: Apache-2.0
"""A key profile's certificates, judged before a signature depends on them (RFC 5280; CA/Browser Forum, code signing).

The CA/Browser Forum's rules hold for certificates that name its policies; a company's own CA may do as it likes.
"""

import datetime as dt
import itertools
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from privyseal.errors import ConfigError, MalformedInputError, VerificationError
from privyseal.identity.diagnosis import days_left
from privyseal.pki import oids
from privyseal.pki.x509 import build_path, parse_certificate
from privyseal.ports.diagnosis import Row, failed, look, passed, skipped, warned

__all__ = ["certificate_rows"]

#: Reserved policy identifiers (CA/Browser Forum, Baseline Requirements for code signing, §7.1.6.1): OV and EV.
_PUBLIC_POLICIES: Final = frozenset({"2.23.140.1.4.1", "2.23.140.1.3"})
#: §6.3.2: certificates issued from this day on are valid for 460 days at most.
_SHORT_SINCE: Final = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
_SHORT_DAYS: Final = 460
#: §6.1.5.
_PUBLIC_RSA_BITS: Final = 3072
_DAYS_BEFORE_EXPIRY: Final = 30


def certificate_rows(
    profile: str, chain: tuple[bytes, ...], now: dt.datetime, *, spki: bytes | None = None
) -> tuple[Row, ...]:
    """Dates, path, purpose and key of a key profile's certificates.

    Args:
        profile: Its name.
        chain: DER, leaf first; not empty.
        now: The time to judge at.
        spki: The token's public key, if the token was asked for it.
    """
    whole = f"certificate of {profile}"
    try:
        for one in chain:
            parse_certificate(one)  # reads all of it: nothing that is looked at later can be broken
    except MalformedInputError as error:
        return (failed(whole, error),)
    certificates = tuple(x509.load_der_x509_certificate(one) for one in chain)
    leaf = certificates[0]
    return (
        look(f"{whole}: dates", lambda: _check_dates(whole, leaf, now)),
        look(f"{whole}: path", lambda: _check_path(whole, chain, certificates, now)),
        look(f"{whole}: size of key", lambda: _check_size(whole, leaf)),
        look(f"{whole}: key on token", lambda: _check_key(whole, leaf, spki)),
    )


def _check_dates(whole: str, leaf: x509.Certificate, now: dt.datetime) -> Row:
    subject = f"{whole}: dates"
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    name = leaf.subject.rfc4514_string()
    if now > ends:
        raise VerificationError(
            "chain.expired",
            f"{name} was valid until {ends:%Y-%m-%d %H:%M} UTC",
            hint="put the renewed certificate on the token or into the chain file, and restart the agent",
        )
    if now < begins:
        raise VerificationError(
            "chain.not_yet_valid",
            f"{name} is valid from {begins:%Y-%m-%d %H:%M} UTC on; this clock says {now:%Y-%m-%d %H:%M}",
            hint="set this machine's clock (NTP), or wait",
        )
    left = days_left(ends, now)
    found = f"{name} is valid until {ends:%Y-%m-%d}, {left} days"
    if left < _DAYS_BEFORE_EXPIRY:
        return warned(subject, found, "order the renewed certificate now")
    validity = ends - begins
    if _is_public(leaf) and begins >= _SHORT_SINCE and validity > dt.timedelta(days=_SHORT_DAYS):
        return warned(
            subject,
            f"{found}; issued on {begins:%Y-%m-%d} for {validity.days} days, but public CAs may issue "
            f"{_SHORT_DAYS} at most since {_SHORT_SINCE:%Y-%m-%d}",
            "ask the CA: it may have to revoke it",
        )
    return passed(subject, found)


def _is_public(leaf: x509.Certificate) -> bool:
    try:
        policies = leaf.extensions.get_extension_for_class(x509.CertificatePolicies).value
    except x509.ExtensionNotFound:
        return False
    return any(one.policy_identifier.dotted_string in _PUBLIC_POLICIES for one in policies)


def _check_path(
    whole: str, chain: tuple[bytes, ...], certificates: tuple[x509.Certificate, ...], now: dt.datetime
) -> Row:
    subject = f"{whole}: path"
    for number, (one, issuer) in enumerate(itertools.pairwise(certificates), 1):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise ConfigError(
                "config.chain",
                f"certificate {number} of the chain ({one.subject.rfc4514_string()}) was not issued by the next one "
                f"({issuer.subject.rfc4514_string()})",
                hint="put the certificates in order, leaf first, each followed by its issuer",
            ) from error
    last = certificates[-1]
    if oids.EKU_CODE_SIGNING not in (parse_certificate(chain[0]).extended_key_usage or ()):
        raise VerificationError(
            "chain.eku",
            f"{certificates[0].subject.rfc4514_string()} is not for code signing (extendedKeyUsage)",
            hint="this is the wrong certificate for signing programs: order one for code signing",
        )
    if last.issuer != last.subject:
        return warned(
            subject,
            f"it ends at {last.subject.rfc4514_string()}; the issuer {last.issuer.rfc4514_string()} is missing",
            "add the missing certificates, up to the self-signed root, to the chain file of the [[key]]",
        )
    build_path(chain[0], chain[1:], (chain[-1],), now, oids.EKU_CODE_SIGNING)
    return passed(subject, f"{len(chain)} certificates, for code signing, up to {last.subject.rfc4514_string()}")


def _check_size(whole: str, leaf: x509.Certificate) -> Row:
    subject = f"{whole}: size of key"
    key = leaf.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return passed(subject, f"not RSA ({type(key).__name__.removesuffix('PublicKey')})")
    found = f"RSA with {key.key_size} bits"
    if key.key_size < _PUBLIC_RSA_BITS and _is_public(leaf):
        return warned(
            subject,
            f"{found}; publicly trusted code signing asks for {_PUBLIC_RSA_BITS} at least",
            "make a larger key with the next certificate: public CAs certify this one no more",
        )
    return passed(subject, found)


def _check_key(whole: str, leaf: x509.Certificate, spki: bytes | None) -> Row:
    subject = f"{whole}: key on token"
    if spki is None:
        return skipped(
            subject, "the token was not asked for its keys", "--login asks it (one login, with the PIN file)"
        )
    if leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
        raise ConfigError(
            "config.chain",
            f"the first certificate ({leaf.subject.rfc4514_string()}) has another key than the token",
            hint="put the certificate of this key first in the chain file",
        )
    return passed(subject, "the certificate is for the token's key")
