# SPDX-License-Identifier: Apache-2.0
"""Signature mechanisms by their PKCS#11 names, and checking a signature over a digest.

A mechanism names the whole scheme (hash included). The token itself only ever sees a digest: `CKM_RSA_PKCS` over
a DigestInfo (RFC 8017 §9.2), or `CKM_ECDSA` over the bare digest.
"""

from enum import Enum
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from privyseal.errors import UnsupportedInputError, VerificationError

__all__ = ["DIGEST_SIZES", "Mechanism", "hash_algorithm", "mechanism_for", "verify_digest"]

#: Digest algorithms that Privyseal signs with, and their length in bytes. SHA-1 is refused on purpose.
DIGEST_SIZES: Final = {"sha256": 32, "sha384": 48, "sha512": 64}

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
#: The curves over prime fields of SP 800-186 that certificates for code signing may use.
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class Mechanism(Enum):
    """A signature scheme; the value is its PKCS#11 v3.1 name."""

    RSA_SHA256 = "CKM_SHA256_RSA_PKCS"
    RSA_SHA384 = "CKM_SHA384_RSA_PKCS"
    RSA_SHA512 = "CKM_SHA512_RSA_PKCS"
    ECDSA_SHA256 = "CKM_ECDSA_SHA256"
    ECDSA_SHA384 = "CKM_ECDSA_SHA384"
    ECDSA_SHA512 = "CKM_ECDSA_SHA512"

    @property
    def digest_algorithm(self) -> str:
        """`sha256`, `sha384` or `sha512`."""
        return "sha" + self.name.rsplit("SHA", 1)[1]

    @property
    def is_rsa(self) -> bool:
        """Whether the scheme is RSASSA-PKCS1-v1_5 (otherwise ECDSA)."""
        return self.name.startswith("RSA")


def hash_algorithm(name: str) -> hashes.HashAlgorithm:
    """The library's object for `sha256`, `sha384` or `sha512`.

    Raises:
        UnsupportedInputError: `digest.unsupported` for anything else, SHA-1 included.
    """
    try:
        return _HASHES[name]
    except KeyError:
        raise UnsupportedInputError(
            "digest.unsupported",
            f"digest algorithm {name!r} is not supported",
            hint="use sha256, sha384 or sha512; SHA-1 and MD5 signatures are refused",
        ) from None


def mechanism_for(spki: bytes, digest_algorithm: str) -> Mechanism:
    """The mechanism by which the key of this SubjectPublicKeyInfo (DER) signs a digest of that algorithm.

    Raises:
        UnsupportedInputError: `key.unsupported` if the key is neither RSA nor on NIST P-256, P-384 or P-521.
    """
    hash_algorithm(digest_algorithm)
    public_key = _load(spki)
    if isinstance(public_key, rsa.RSAPublicKey):
        family = "RSA"
    elif isinstance(public_key, ec.EllipticCurvePublicKey):
        if not isinstance(public_key.curve, _CURVES):
            raise UnsupportedInputError(
                "key.unsupported", f"a key on the curve {public_key.curve.name} cannot sign; P-256, P-384 and P-521 can"
            )
        family = "ECDSA"
    else:
        raise UnsupportedInputError(
            "key.unsupported", f"a {type(public_key).__name__} cannot sign code; RSA and ECDSA keys can"
        )
    return Mechanism[f"{family}_{digest_algorithm.upper()}"]


def verify_digest(spki: bytes, mechanism: Mechanism, digest: bytes, signature: bytes) -> None:
    """Check `signature` (RSA block, or DER ECDSA-Sig-Value) over `digest` with a SubjectPublicKeyInfo (DER).

    Raises:
        UnsupportedInputError: `key.unsupported` if the key cannot be read.
        VerificationError: `signature.invalid` if it does not hold, or `signature.mechanism` if the key is of
            another kind than the mechanism.
    """
    public_key = _load(spki)
    algorithm = Prehashed(hash_algorithm(mechanism.digest_algorithm))
    try:
        if mechanism.is_rsa and isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(signature, digest, padding.PKCS1v15(), algorithm)
            return
        if not mechanism.is_rsa and isinstance(public_key, ec.EllipticCurvePublicKey):
            public_key.verify(signature, digest, ec.ECDSA(algorithm))
            return
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(
            "signature.invalid", "the signature does not verify with the certificate's public key"
        ) from error
    raise VerificationError("signature.mechanism", f"{mechanism.value} does not fit the certificate's public key")


def _load(spki: bytes) -> object:
    try:
        return serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnsupportedInputError("key.unsupported", "the public key cannot be read") from error
