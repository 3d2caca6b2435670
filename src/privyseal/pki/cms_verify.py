# SPDX-License-Identifier: Apache-2.0
"""Verify one signer of a SignedData, and build one (RFC 5652 §5.4, §5.6).

The signature algorithms are RSASSA-PKCS1-v1_5 and ECDSA with SHA-2. Whether the certificate deserves trust
is not judged here; that is `x509.build_path`.
"""

import hashlib

from privyseal.errors import MalformedInputError, UnsupportedInputError, VerificationError
from privyseal.pki import der, oids
from privyseal.pki.cms import (
    NULL_PARAMETERS,
    AlgorithmIdentifier,
    Attribute,
    SignedData,
    SignerInfo,
    attribute_values,
    read_signed_attributes,
)
from privyseal.pki.mechanism import DIGEST_SIZES, Mechanism, mechanism_for, verify_digest
from privyseal.pki.x509 import MAX_CERTIFICATES, Certificate, parse_certificate

__all__ = ["digest_algorithm_name", "make_signer_info", "signer_certificate", "verify_signer"]

_VERSIONS = (1, 3, 4, 5)
# What may stand in `signatureAlgorithm` beside an RSA or an EC key: the bare key type, or key type and
# digest.
_RSA_ALGORITHMS = {oids.RSA_ENCRYPTION: "", **{oid: name for name, oid in oids.RSA_WITH_SHA2.items()}}
_EC_ALGORITHMS = {oids.ID_EC_PUBLIC_KEY: "", **{oid: name for name, oid in oids.ECDSA_WITH_SHA2.items()}}


def make_signer_info(
    *,
    certificate: bytes,
    digest_algorithm: str,
    signed_attributes: bytes,
    signature: bytes,
    unsigned_attributes: tuple[Attribute, ...] = (),
) -> SignerInfo:
    """A version 1 SignerInfo that names its signer by issuer and serial number (RFC 5652 §5.3).

    Args:
        certificate: The signer's, DER.
        digest_algorithm: `sha256`, `sha384` or `sha512`.
        signed_attributes: The SET OF Attribute that was signed.
        signature: RSA block or DER ECDSA-Sig-Value.
        unsigned_attributes: For example a timestamp.

    Raises:
        MalformedInputError: `certificate.malformed`.
        UnsupportedInputError: `digest.unsupported`, `key.unsupported`.
    """
    signer = parse_certificate(certificate)
    if mechanism_for(signer.spki, digest_algorithm).is_rsa:
        # Authenticode signers write the bare key type (PKCS #7 v1.5 §9.2), and every verifier knows it.
        signature_algorithm = AlgorithmIdentifier(algorithm=oids.RSA_ENCRYPTION, parameters=NULL_PARAMETERS)
    else:
        signature_algorithm = AlgorithmIdentifier(algorithm=oids.ECDSA_WITH_SHA2[digest_algorithm])
    return SignerInfo(
        version=1,
        issuer=signer.issuer_name,
        serial_number=signer.serial_number,
        digest_algorithm=AlgorithmIdentifier(algorithm=oids.DIGEST_OIDS[digest_algorithm], parameters=NULL_PARAMETERS),
        signed_attributes=signed_attributes,
        signature_algorithm=signature_algorithm,
        signature=signature,
        unsigned_attributes=unsigned_attributes,
    )


def signer_certificate(signed_data: SignedData, signer_info: SignerInfo) -> Certificate:
    """The certificate in the SignedData that a SignerInfo names.

    Raises:
        VerificationError: `cms.signer_certificate` if it is not there.
    """
    for encoded in signed_data.certificates[:MAX_CERTIFICATES]:
        try:
            certificate = parse_certificate(encoded)
        except MalformedInputError:
            continue
        if _is_named(certificate, signer_info):
            return certificate
    raise VerificationError(
        "cms.signer_certificate",
        f"the signer's certificate (serial number {signer_info.serial_number:x}) is missing",
    )


def verify_signer(signed_data: SignedData, signer_info: SignerInfo, certificate: Certificate) -> None:
    """Check that a signer signed the encapsulated content, with the key of this certificate.

    Raises:
        MalformedInputError: `cms.signed_attributes`, `der.malformed`.
        VerificationError: `cms.version`, `cms.weak_digest`, `cms.digest_algorithm`, `cms.signature_algorithm`,
            `cms.content_type`, `cms.message_digest`, `cms.signed_attributes_missing`,
            `signature.invalid`.
    """
    _check_versions(signed_data, signer_info)
    name = digest_algorithm_name(signer_info.digest_algorithm)
    if name not in {oids.DIGEST_NAMES.get(one.algorithm) for one in signed_data.digest_algorithms if _is_bare(one)}:
        raise VerificationError(
            "cms.digest_algorithm", f"the signer uses {name}, which the SignedData does not announce"
        )
    digest = hashlib.new(name, signed_data.content_octets).digest()
    if not signer_info.signed_attributes:
        # RFC 5652 §5.3 asks for them with every content type but id-data, which nothing here signs.
        raise VerificationError("cms.signed_attributes_missing", "the signature covers no signed attributes")
    attributes = read_signed_attributes(signer_info.signed_attributes)
    _check_attributes(attributes, signed_data.content_type, digest)
    verify_digest(
        certificate.spki,
        _mechanism(signer_info, certificate, name),
        hashlib.new(name, signer_info.signed_attributes).digest(),
        signer_info.signature,
    )


def digest_algorithm_name(algorithm: AlgorithmIdentifier) -> str:
    """`sha256`, `sha384` or `sha512` of an algorithm identifier.

    Raises:
        VerificationError: `cms.weak_digest` for SHA-1 and MD5, `cms.digest_algorithm` for an unknown one.
    """
    name = oids.DIGEST_NAMES.get(algorithm.algorithm)
    if name is None:
        raise VerificationError(
            "cms.digest_algorithm",
            f"digest algorithm {algorithm.algorithm} is not one of SHA-256, -384 and -512",
        )
    if name not in DIGEST_SIZES:
        raise VerificationError("cms.weak_digest", f"{name.upper()} is too weak to prove anything")
    if not _is_bare(algorithm):
        raise VerificationError("cms.digest_algorithm", f"{name.upper()} has parameters, which it does not know")
    return name


def _is_bare(algorithm: AlgorithmIdentifier) -> bool:
    # Absent or NULL: RFC 5754 §2, RFC 4055 §2.1. Nothing covers them in a SignerInfo.
    return algorithm.parameters in (None, NULL_PARAMETERS)


def _is_named(certificate: Certificate, signer_info: SignerInfo) -> bool:
    if signer_info.issuer:
        return certificate.issuer_name == signer_info.issuer and certificate.serial_number == signer_info.serial_number
    identifier = signer_info.subject_key_identifier
    return bool(identifier) and certificate.subject_key_identifier == identifier


def _check_versions(signed_data: SignedData, signer_info: SignerInfo) -> None:
    # RFC 5652 §5.1, §5.3; Authenticode and some authorities keep to version 1 of PKCS #7.
    expected = 1 if signer_info.issuer else 3
    if signed_data.version not in _VERSIONS or signer_info.version != expected:
        raise VerificationError(
            "cms.version",
            f"SignedData and SignerInfo have versions {signed_data.version} and {signer_info.version}; "
            f"{_VERSIONS} and {expected} are expected",
        )


def _check_attributes(attributes: tuple[Attribute, ...], content_type: str, digest: bytes) -> None:
    types = attribute_values(attributes, oids.ID_CONTENT_TYPE)
    if types != (der.encode_oid(content_type),):
        raise VerificationError(
            "cms.content_type", f"the signed contentType is not that of the content, {content_type}"
        )
    if attribute_values(attributes, oids.ID_MESSAGE_DIGEST) != (der.encode_tlv(der.TAG_OCTET_STRING, digest),):
        raise VerificationError("cms.message_digest", "the signed messageDigest is not that of the content")


def _mechanism(signer_info: SignerInfo, certificate: Certificate, digest_name: str) -> Mechanism:
    try:
        mechanism = mechanism_for(certificate.spki, digest_name)
    except UnsupportedInputError as error:
        raise VerificationError("cms.signature_algorithm", error.message) from error
    allowed = _RSA_ALGORITHMS if mechanism.is_rsa else _EC_ALGORITHMS
    named = signer_info.signature_algorithm.algorithm
    if allowed.get(named) not in {"", digest_name} or not _is_bare(signer_info.signature_algorithm):
        raise VerificationError(
            "cms.signature_algorithm",
            f"signature algorithm {named} does not fit key and digest, which ask for {mechanism.value}",
        )
    return mechanism
