# SPDX-License-Identifier: Apache-2.0
"""Sealing a secret so that one key alone opens it: HPKE (RFC 9180), X25519 with HKDF-SHA256 and ChaCha20-Poly1305.

An authority key is Ed25519; what is sealed to it is sealed to the X25519 key that follows from it (ADR 0026): the same
curve by another coordinate, u = (1 + y) / (1 - y) (RFC 7748 §4.1), and the scalar that RFC 8032 §5.1.5 makes of a seed.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from privyseal.errors import ConfigError, VerificationError

__all__ = ["authority_sealing_key", "authority_sealing_public_key", "open_sealed", "seal_to"]

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)

#: The field, and d of the curve (RFC 8032 §5.1).
_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P


def seal_to(public_key: bytes, secret: bytes | bytearray | memoryview, info: bytes) -> bytes:
    """Seal a secret to a raw X25519 key; it opens only with the same `info`.

    Raises:
        ConfigError: `key.text` if nothing can be sealed to that key.
    """
    try:
        return _SUITE.encrypt(secret, X25519PublicKey.from_public_bytes(public_key), info)
    except ValueError as error:
        raise ConfigError("key.text", "nothing can be sealed to this key: it is none") from error


def open_sealed(key: X25519PrivateKey, sealed: bytes, info: bytes) -> bytes:
    """What was sealed. Python holds it as an object that cannot be wiped; whoever opens a PIN drops it at once.

    Raises:
        VerificationError: `sealed.closed` if it was sealed to another key, for something else, or was changed.
    """
    try:
        return _SUITE.decrypt(sealed, key, info)
    except (InvalidTag, ValueError) as error:
        raise VerificationError("sealed.closed", "what was sealed does not open with this key, for this use") from error


def authority_sealing_public_key(public_key: bytes) -> bytes:
    """The X25519 key of an authority key, both raw.

    Raises:
        ConfigError: `key.text` if it is no point of the curve.
    """
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if len(public_key) != 32 or y >= _P or pow(x_squared, (_P - 1) // 2, _P) != 1:
        raise ConfigError("key.text", "that is no Ed25519 key that anything could be sealed to")
    return ((1 + y) * pow(1 - y, -1, _P) % _P).to_bytes(32, "little")


def authority_sealing_key(key: Ed25519PrivateKey) -> X25519PrivateKey:
    """The same of the private key."""
    return X25519PrivateKey.from_private_bytes(hashlib.sha512(key.private_bytes_raw()).digest()[:32])
