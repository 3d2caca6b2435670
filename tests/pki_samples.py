# SPDX-License-Identifier: Apache-2.0
"""Certificates and keys for tests: a small authority, and signers below it."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privyseal.pki import cms, cms_verify, der, oids, tsp
from privyseal.pki.mechanism import hash_algorithm

__all__ = ["NOW", "Issued", "Signer", "authority", "issue", "make_token", "signer", "tsa"]

#: When the tests happen. Programs that judge our files use the clock, so certificates are valid for long.
NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
YEAR = timedelta(days=365)

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A signer, and the certificates between it and its root."""

    leaf: Issued
    intermediate: Issued
    root: Issued

    @property
    def chain(self) -> tuple[bytes, ...]:
        return (self.leaf.der, self.intermediate.der)

    def sign(self, data: bytes, algorithm: str = "sha256") -> bytes:
        """Sign as a token does: it sees the digest only."""
        digest = hashlib.new(algorithm, data).digest()
        prehashed = Prehashed(hash_algorithm(algorithm))
        if isinstance(self.leaf.key, rsa.RSAPrivateKey):
            return self.leaf.key.sign(digest, padding.PKCS1v15(), prehashed)
        return self.leaf.key.sign(digest, ec.ECDSA(prehashed))


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    key: Key | None = None,
    ca: bool = False,
    path_length: int | None = None,
    eku: tuple[x509.ObjectIdentifier, ...] = (),
    eku_critical: bool = False,
    not_before: datetime = NOW - YEAR,
    not_after: datetime = NOW + 20 * YEAR,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> Issued:
    """A certificate; self-signed without an issuer."""
    subject_key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(subject_key.public_key())
        .serial_number(x509.random_serial_number() | 1 << 158)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    if eku:
        builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=eku_critical)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Issued(certificate=builder.sign(issuer.key if issuer else subject_key, hashes.SHA256()), key=subject_key)


@cache
def authority(name: str = "Test Root") -> Issued:
    """A root that is made once for each name."""
    return issue(name, ca=True)


@cache
def signer(kind: str = "ec") -> Signer:
    """A code signer with an RSA-3072 (`rsa`) or P-256 (`ec`) key, below an intermediate authority."""
    key: Key = rsa.generate_private_key(65537, 3072) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    intermediate = issue(f"Test Intermediate {kind}", authority(), ca=True, path_length=0)
    leaf = issue(f"Test Signer {kind}", intermediate, key=key, eku=(ExtendedKeyUsageOID.CODE_SIGNING,))
    return Signer(leaf=leaf, intermediate=intermediate, root=authority())


@cache
def tsa() -> Signer:
    """A time-stamping authority below a root of its own."""
    root = authority("Test TSA Root")
    leaf = issue(
        "Test TSA",
        root,
        key=rsa.generate_private_key(65537, 2048),
        eku=(ExtendedKeyUsageOID.TIME_STAMPING,),
        eku_critical=True,
    )
    return Signer(leaf=leaf, intermediate=root, root=root)


def make_token(
    data: bytes,
    *,
    by: Signer | None = None,
    gen_time: bytes = b"20260601120000Z",
    name_certificate: bool = True,
    extra: bytes = b"",
    imprint: bytes = b"",
) -> bytes:
    """A timestamp token, written by hand so that it can be wrong on purpose (RFC 3161 §2.4.2).

    Args:
        data: What the timestamp is over.
        by: Who signs; `tsa()` if not given.
        gen_time: The characters of genTime.
        name_certificate: Whether to write the signing-certificate-v2 attribute.
        extra: Encoded fields that follow genTime.
        imprint: SHA-256 of what the timestamp is over, instead of `data`.
    """
    by = by or tsa()
    sha256 = der.encode_tlv(0x30, der.encode_oid(oids.DIGEST_OIDS["sha256"]) + b"\x05\x00")
    hashed = der.encode_tlv(0x30, sha256 + der.encode_tlv(0x04, imprint or hashlib.sha256(data).digest()))
    info = b"\x02\x01\x01" + der.encode_oid("1.2.3") + hashed + b"\x02\x01\x07"
    info = der.encode_tlv(0x30, info + der.encode_tlv(der.TAG_GENERALIZED_TIME, gen_time) + extra)
    attributes = [
        cms.Attribute(type=oids.ID_CONTENT_TYPE, values=(der.encode_oid(oids.ID_CT_TST_INFO),)),
        cms.Attribute(type=oids.ID_MESSAGE_DIGEST, values=(der.encode_tlv(0x04, hashlib.sha256(info).digest()),)),
    ]
    if name_certificate:
        cert_hash = der.encode_tlv(0x04, hashlib.sha256(by.leaf.der).digest())
        ess = der.encode_tlv(0x30, der.encode_tlv(0x30, der.encode_tlv(0x30, cert_hash)))
        attributes.append(cms.Attribute(type=oids.ID_SIGNING_CERTIFICATE_V2, values=(ess,)))
    signed_attributes = cms.encode_signed_attributes(attributes)
    signer_info = cms_verify.make_signer_info(
        certificate=by.leaf.der,
        digest_algorithm="sha256",
        signed_attributes=signed_attributes,
        signature=by.sign(signed_attributes),
    )
    token = cms.encode_signed_data(
        cms.SignedData(
            version=3,
            digest_algorithms=(signer_info.digest_algorithm,),
            content_type=oids.ID_CT_TST_INFO,
            content=der.encode_tlv(0x04, info),
            certificates=(by.leaf.der,),
            signer_infos=(signer_info,),
        )
    )
    assert tsp.parse_token(token).serial_number == 7
    return token
