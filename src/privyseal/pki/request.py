# SPDX-License-Identifier: Apache-2.0
"""PKCS#10 certification requests (RFC 2986), signed by a key that may be elsewhere."""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.pki.remote_key import RemoteKey

__all__ = ["certification_request", "parse_subject"]

_P256_BITS: Final = 256


def parse_subject(text: str) -> x509.Name:
    """A subject in the form of RFC 4514, most specific part first: `CN=ACME Ltd,O=ACME Ltd,C=DE`.

    Raises:
        MalformedInputError: `csr.subject`.
    """
    try:
        name = x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        name, reason = x509.Name([]), f": {error}" if str(error) else ""
    else:
        reason = ": it is empty"
    if not name.rdns:
        raise MalformedInputError(
            "csr.subject",
            f"{text!r} is not a subject name after RFC 4514{reason}",
            hint='for example --subject "CN=ACME Ltd,O=ACME Ltd,L=Berlin,C=DE"; a comma inside a value is written \\,',
        )
    return name


def certification_request(subject: x509.Name, key: RemoteKey) -> bytes:
    """A request for a certificate, PEM: SHA-256, or SHA-384 for curves above P-256.

    Raises:
        VerificationError: `csr.signature` if what the key's holder signed does not hold.
    """
    is_large_curve = isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > _P256_BITS
    algorithm = hashes.SHA384() if is_large_curve else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm)
    if not request.is_signature_valid:
        raise VerificationError("csr.signature", "the token's signature on the request does not verify with its key")
    return request.public_bytes(Encoding.PEM)
