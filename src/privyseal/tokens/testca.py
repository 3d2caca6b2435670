# SPDX-License-Identifier: Apache-2.0
"""A self-made test root and code-signing certificates under it (RFC 5280), for trying things out.

Nothing trusts this root unless somebody tells it to, and its name says so.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privyseal.errors import ConfigError, UnsupportedInputError

__all__ = ["ROOT_NAME", "SelfMadeCa", "make_test_ca"]

ROOT_NAME: Final = "Privyseal test root (not trusted)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfMadeCa:
    """A test root. Let it go once its certificates are issued: then nobody can issue more."""

    private_key: ec.EllipticCurvePrivateKey
    certificate: bytes

    def issue_code_signing(
        self, *, spki: bytes, common_name: str, not_before: datetime, not_after: datetime
    ) -> tuple[bytes, ...]:
        """A code-signing certificate for a token's key.

        Args:
            spki: The key's SubjectPublicKeyInfo, DER.
            common_name: The subject's common name, 1 to 64 characters.
            not_before: Start of validity, with a time zone; must lie in the root's own validity.
            not_after: End of validity, likewise.

        Returns:
            DER certificates: the leaf, then the root.

        Raises:
            UnsupportedInputError: `key.unsupported` if the key is neither RSA nor ECDSA.
            ConfigError: `config.test_ca` if name or dates cannot stand in a certificate.
        """
        builder = _builder(common_name, not_before=not_before, not_after=not_after)
        root = x509.load_der_x509_certificate(self.certificate)
        public_key = serialization.load_der_public_key(spki)
        if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise UnsupportedInputError("key.unsupported", "a code-signing certificate needs an RSA or ECDSA key")
        if not root.not_valid_before_utc <= not_before <= not_after <= root.not_valid_after_utc:
            raise ConfigError("config.test_ca", "the certificate's dates do not lie in those of its test root")
        authority = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            builder.issuer_name(root.subject)
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
        )
        leaf = builder.sign(self.private_key, hashes.SHA256())
        return leaf.public_bytes(serialization.Encoding.DER), self.certificate


def make_test_ca(*, not_before: datetime, not_after: datetime) -> SelfMadeCa:
    """A new self-signed P-256 test root.

    Raises:
        ConfigError: `config.test_ca` if the dates cannot stand in a certificate.
    """
    private_key = ec.generate_private_key(ec.SECP256R1())
    public_key = private_key.public_key()
    builder = _builder(ROOT_NAME, not_before=not_before, not_after=not_after)
    builder = (
        builder.issuer_name(_name(ROOT_NAME))
        .public_key(public_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    certificate = builder.sign(private_key, hashes.SHA256())
    return SelfMadeCa(private_key=private_key, certificate=certificate.public_bytes(serialization.Encoding.DER))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(common_name: str, *, not_before: datetime, not_after: datetime) -> x509.CertificateBuilder:
    if not_before.tzinfo is None or not_after.tzinfo is None:
        raise ConfigError("config.test_ca", "a certificate's dates need a time zone")
    try:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
        )
    except ValueError as error:
        raise ConfigError("config.test_ca", f"no certificate can be made for {common_name!r}: {error}") from error


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )
