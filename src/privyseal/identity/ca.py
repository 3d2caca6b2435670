# SPDX-License-Identifier: Apache-2.0
"""The hub's small TLS CA: P-256, one level, certificates for the hub itself, its clients and its agents.

A member's name and role stand in a URI subject alternative name, `privyseal://HUB/ROLE/NAME`; the hub looks the
certificate up by its hash all the same, so that a revoked one ends at once.
"""

import datetime as dt
import ipaddress
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privyseal.errors import MalformedInputError

__all__ = ["check_csr", "issue_member", "issue_server", "make_ca", "make_csr", "member_uri", "new_tls_key"]

_CA_DAYS: Final = 3650
_LEAF_DAYS: Final = 365
_BACKDATE: Final = dt.timedelta(minutes=5)  # clocks of build servers differ


def new_tls_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def member_uri(hub: str, role: str, name: str) -> str:
    """The URI by which a certificate names its holder."""
    return f"privyseal://{hub}/{role}/{name}"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def make_ca(hub: str, key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    """A self-signed CA certificate for ten years."""
    name = _name(f"Privyseal CA of {hub}")
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + dt.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(ski, critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issue(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    *,
    common_name: str,
    names: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    now: dt.datetime,
) -> x509.Certificate:
    aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(ca.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + dt.timedelta(days=_LEAF_DAYS), ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(aki, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def issue_server(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    hosts: tuple[str, ...],
    now: dt.datetime,
) -> x509.Certificate:
    """A server certificate for these host names and addresses."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return _issue(
        ca,
        ca_key,
        public_key,
        common_name=hosts[0],
        names=names,
        usage=ExtendedKeyUsageOID.SERVER_AUTH,
        now=now,
    )


def issue_member(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    uri: str,
    now: dt.datetime,
) -> x509.Certificate:
    """A client certificate for the member named by this URI."""
    return _issue(
        ca,
        ca_key,
        public_key,
        common_name=uri.rsplit("/", 1)[1],
        names=[x509.UniformResourceIdentifier(uri)],
        usage=ExtendedKeyUsageOID.CLIENT_AUTH,
        now=now,
    )


def make_csr(key: ec.EllipticCurvePrivateKey, common_name: str) -> bytes:
    """A PKCS#10 request, DER."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def check_csr(csr: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 public key of a PKCS#10 request whose holder has the private key; nothing else of it is believed.

    Raises:
        MalformedInputError: `join.csr`.
    """
    try:
        request = x509.load_der_x509_csr(csr)
        key = request.public_key()
        sound = request.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise MalformedInputError("join.csr", "the certificate request cannot be read") from error
    if not sound or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedInputError("join.csr", "the certificate request is not signed by a P-256 key of its own")
    return key
