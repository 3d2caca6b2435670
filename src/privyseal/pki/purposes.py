# SPDX-License-Identifier: Apache-2.0
"""What certificates may be used for: extension policies for code signing and time stamping (RFC 5280 §4.2.1).

They replace those of the web's PKI: a code-signing leaf needs no subjectAltName, a CA no key identifiers, but
basicConstraints and extendedKeyUsage must say what Windows asks of them.
"""

from typing import Final

from cryptography import x509
from cryptography.x509 import verification

from privyseal.pki import oids

__all__ = ["PURPOSES", "ca_allows", "ca_policy", "dotted", "leaf_allows", "leaf_policy"]

PURPOSES: Final = {oids.EKU_CODE_SIGNING: "code signing", oids.EKU_TIME_STAMPING: "time stamping"}


def leaf_policy(eku: str) -> verification.ExtensionPolicy:
    """What the extensions of a signer's certificate must say."""

    def allows_purpose(
        _policy: verification.Policy, _certificate: x509.Certificate, extension: x509.ExtendedKeyUsage | None
    ) -> None:
        if not leaf_allows(dotted(extension), eku):
            raise ValueError(f"it is not for {PURPOSES[eku]}")

    def allows_signatures(
        _policy: verification.Policy, _certificate: x509.Certificate, extension: x509.KeyUsage | None
    ) -> None:
        if extension is not None and not (extension.digital_signature or extension.content_commitment):
            raise ValueError("its keyUsage lacks digitalSignature")

    agnostic = verification.Criticality.AGNOSTIC
    return (
        verification.ExtensionPolicy.permit_all()
        .may_be_present(x509.ExtendedKeyUsage, agnostic, allows_purpose)
        .may_be_present(x509.KeyUsage, agnostic, allows_signatures)
    )


def ca_policy(eku: str) -> verification.ExtensionPolicy:
    """What the extensions of an issuer's certificate must say."""

    def is_ca(_policy: verification.Policy, _certificate: x509.Certificate, extension: x509.BasicConstraints) -> None:
        if not extension.ca:
            raise ValueError("it is not a certificate authority")

    def allows_purpose(
        _policy: verification.Policy, _certificate: x509.Certificate, extension: x509.ExtendedKeyUsage | None
    ) -> None:
        if not ca_allows(dotted(extension), eku):
            raise ValueError(f"it may not issue certificates for {PURPOSES[eku]}")

    def signs_certificates(
        _policy: verification.Policy, _certificate: x509.Certificate, extension: x509.KeyUsage | None
    ) -> None:
        if extension is not None and not extension.key_cert_sign:
            raise ValueError("its keyUsage lacks keyCertSign")

    agnostic = verification.Criticality.AGNOSTIC
    return (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, agnostic, is_ca)
        .may_be_present(x509.ExtendedKeyUsage, agnostic, allows_purpose)
        .may_be_present(x509.KeyUsage, agnostic, signs_certificates)
    )


def leaf_allows(purposes: tuple[str, ...] | None, eku: str) -> bool:
    """Whether a signer's extendedKeyUsage is for this purpose; None if it has none."""
    return purposes is not None and eku in purposes


def ca_allows(purposes: tuple[str, ...] | None, eku: str) -> bool:
    """Whether an issuer's extendedKeyUsage lets it issue for this purpose; None if it has none."""
    # On a CA the extension narrows what it may issue for; anyExtendedKeyUsage lifts that (RFC 5280 §4.2.1.12).
    return purposes is None or eku in purposes or oids.ANY_EXTENDED_KEY_USAGE in purposes


def dotted(extension: x509.ExtendedKeyUsage | None) -> tuple[str, ...] | None:
    """The purposes of the extension; None if it is absent."""
    return None if extension is None else tuple(one.dotted_string for one in extension)
