# SPDX-License-Identifier: Apache-2.0
"""Sealing a secret so that one key alone opens it: HPKE (RFC 9180), X25519 with HKDF-SHA256 and ChaCha20-Poly1305.

An authority key is Ed25519; what is sealed to it is sealed to the X25519 key that follows from it (ADR 0026): the same
curve by another coordinate, u = (1 + y) / (1 - y) (RFC 7748 §4.1), and the scalar that RFC 8032 §5.1.5 makes of a seed.
"""

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from privyseal.errors import ConfigError, VerificationError
from privyseal.identity.keyfile import read_private

__all__ = [
    "authority_sealing_key",
    "authority_sealing_public_key",
    "load_sealing_key",
    "open_sealed",
    "parse_sealing_key",
    "seal_to",
    "sealing_key_text",
]

_PREFIX: Final = "x25519:"
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


def load_sealing_key(path: Path) -> X25519PrivateKey:
    """Load an X25519 key.

    Raises:
        ConfigError: `file.missing`, `file.too_open`, `file.not_a_key`.
    """
    try:
        key = serialization.load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError("file.not_a_key", f"{path} is not a PEM private key") from error
    if not isinstance(key, X25519PrivateKey):
        raise ConfigError("file.not_a_key", f"{path} is not an X25519 key")
    return key


def sealing_key_text(raw: bytes) -> str:
    """`x25519:` and base64, as people pass it around."""
    return _PREFIX + base64.b64encode(raw).decode()


def parse_sealing_key(text: str) -> bytes:
    """The 32 raw bytes behind `x25519:…`.

    Raises:
        ConfigError: `key.text`.
    """
    try:
        raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not text.startswith(_PREFIX) or len(raw) != 32:
        raise ConfigError("key.text", f"{text!r} is not a sealing key of the form x25519:BASE64")
    return raw
