# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: A002, ARG002 - the methods' parameters are those of the library's base classes
"""A private key that is elsewhere, in the shape of `cryptography`'s own: its builders sign with it unchanged.

The data is hashed here; only the digest goes to whoever holds the key. What would need the key itself is refused.
"""

from collections.abc import Callable
from typing import Final, NoReturn, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed

from privyseal.errors import UnsupportedInputError
from privyseal.pki.mechanism import Mechanism, mechanism_for

__all__ = ["RemoteKey", "SignDigest", "remote_key"]

#: Signs a digest: an RSA block, or a DER ECDSA-Sig-Value.
SignDigest = Callable[[Mechanism, bytes], bytes]

_Buffer = bytes | bytearray | memoryview
_ELSEWHERE: Final = "the private key is on a token and cannot leave it"


def _digest(data: _Buffer, algorithm: object) -> tuple[str, bytes]:
    """Name of the hash, and the digest of the data."""
    if isinstance(algorithm, Prehashed):
        return algorithm._algorithm.name, bytes(data)  # noqa: SLF001 - the class has no other way to tell
    if not isinstance(algorithm, hashes.HashAlgorithm):
        raise UnsupportedInputError("digest.unsupported", "a token signs over SHA-256, SHA-384 or SHA-512")
    context = hashes.Hash(algorithm)
    context.update(data)
    return algorithm.name, context.finalize()


def _refuse() -> NoReturn:
    raise UnsupportedInputError("key.remote", _ELSEWHERE, hint="ask for signatures only")


class _Elsewhere:
    """What both kinds of key answer when they are asked for the key itself, or for a copy."""

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        _refuse()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self


class _RemoteRsaKey(_Elsewhere, rsa.RSAPrivateKey):
    def __init__(self, public_key: rsa.RSAPublicKey, spki: bytes, sign: SignDigest) -> None:
        self._public_key = public_key
        self._spki = spki
        self._sign = sign

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public_key

    def sign(
        self,
        data: _Buffer,
        padding: padding.AsymmetricPadding,
        algorithm: Prehashed | hashes.HashAlgorithm | NoDigestInfo,
    ) -> bytes:
        if padding.name != "EMSA-PKCS1-v1_5":
            raise UnsupportedInputError("key.remote", f"no mechanism here pads with {padding.name}")
        name, digest = _digest(data, algorithm)
        return self._sign(mechanism_for(self._spki, name), digest)

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        _refuse()

    def private_numbers(self) -> rsa.RSAPrivateNumbers:
        _refuse()


class _RemoteEcKey(_Elsewhere, ec.EllipticCurvePrivateKey):
    def __init__(self, public_key: ec.EllipticCurvePublicKey, spki: bytes, sign: SignDigest) -> None:
        self._public_key = public_key
        self._spki = spki
        self._sign = sign

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    def sign(self, data: _Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        name, digest = _digest(data, signature_algorithm.algorithm)
        return self._sign(mechanism_for(self._spki, name), digest)

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        _refuse()

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        _refuse()


RemoteKey = _RemoteRsaKey | _RemoteEcKey


def remote_key(spki: bytes, sign: SignDigest) -> RemoteKey:
    """The private key of a SubjectPublicKeyInfo (DER) that `sign` signs with.

    Raises:
        UnsupportedInputError: `key.unsupported` if the key is neither RSA nor ECDSA. Later, from the key's own methods:
            `key.remote`, `digest.unsupported`, and whatever `sign` raises.
    """
    mechanism_for(spki, "sha256")
    public_key = serialization.load_der_public_key(spki)
    if isinstance(public_key, rsa.RSAPublicKey):
        return _RemoteRsaKey(public_key, spki, sign)
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return _RemoteEcKey(public_key, spki, sign)
    raise UnsupportedInputError("key.unsupported", f"a {type(public_key).__name__} cannot sign code")
