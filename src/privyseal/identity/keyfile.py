# SPDX-License-Identifier: Apache-2.0
"""Private key files: written 0600, refused when others could read them; and the text form of public keys."""

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privyseal.errors import ConfigError
from privyseal.identity.windows_acl import protect, refuse_if_open

__all__ = [
    "load_ed25519",
    "load_ml_dsa_44",
    "load_tls_key",
    "load_x25519",
    "new_ml_dsa_44",
    "parse_public_key",
    "parse_sealing_key",
    "public_key_text",
    "read_private",
    "save_private_key",
    "sealing_key_text",
    "write_private",
    "write_public",
]

_OWNER_ONLY: Final = 0o600
_MODES_COUNT: Final = os.name == "posix"


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file as a whole: temporary file beside it, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if mode == _OWNER_ONLY and not _MODES_COUNT:
                protect(temporary)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except (OSError, ConfigError):
        temporary.unlink(missing_ok=True)
        raise


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read.

    Raises:
        ConfigError: `file.unprotected` on a Windows volume without access control. OSError: as it comes.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(path, data, _OWNER_ONLY)


def write_public(path: Path, data: bytes) -> None:
    """Write a file that anybody may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, data, 0o644)


def read_private(path: Path) -> bytes:
    """Read a private file.

    Raises:
        ConfigError: `file.missing`, `file.too_open` if group or others can read it, or `file.unprotected` if Windows
            does not tell.
    """
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError("file.missing", f"cannot read {path}: {error.strerror}") from error
    if not _MODES_COUNT:
        refuse_if_open(path)
    elif stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            "file.too_open",
            f"{path} can be read by others (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}; if others could have copied it, make a new one",
        )
    return data


def save_private_key(
    path: Path, key: Ed25519PrivateKey | X25519PrivateKey | MLDSA44PrivateKey | ec.EllipticCurvePrivateKey
) -> None:
    """Store a key as unencrypted PKCS#8 PEM, mode 0600; of ML-DSA-44 that is its seed (RFC 9881)."""
    write_private(
        path,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _load(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("file.not_a_key", f"{path} is not a PEM private key") from error


def load_ed25519(path: Path) -> Ed25519PrivateKey:
    """Load an Ed25519 key (log key, request key, authority key).

    Raises:
        ConfigError: `file.missing`, `file.too_open`, `file.not_a_key`.
    """
    key = _load(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("file.not_a_key", f"{path} is not an Ed25519 key")
    return key


def new_ml_dsa_44() -> MLDSA44PrivateKey:
    """A new ML-DSA-44 key.

    Raises:
        ConfigError: `mldsa.unsupported`.
    """
    try:
        return MLDSA44PrivateKey.generate()
    except UnsupportedAlgorithm as error:
        raise ConfigError(
            "mldsa.unsupported",
            "no ML-DSA-44 key can be made: there is no ML-DSA-44 in this installation",
            hint="install the package `cryptography` from PyPI's wheels, or build it with OpenSSL 3.5 or newer",
        ) from error


def load_ml_dsa_44(path: Path) -> MLDSA44PrivateKey:
    """Load an ML-DSA-44 key (of a log or a witness).

    Raises:
        ConfigError: `file.missing`, `file.too_open`, `file.not_a_key`.
    """
    key = _load(path)
    if not isinstance(key, MLDSA44PrivateKey):
        raise ConfigError("file.not_a_key", f"{path} is not an ML-DSA-44 key")
    return key


def load_tls_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load a P-256 key.

    Raises:
        ConfigError: `file.missing`, `file.too_open`, `file.not_a_key`.
    """
    key = _load(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError("file.not_a_key", f"{path} is not a P-256 key")
    return key


def load_x25519(path: Path) -> X25519PrivateKey:
    """Load an X25519 key (an agent's sealing key).

    Raises:
        ConfigError: `file.missing`, `file.too_open`, `file.not_a_key`.
    """
    key = _load(path)
    if not isinstance(key, X25519PrivateKey):
        raise ConfigError("file.not_a_key", f"{path} is not an X25519 key")
    return key


def public_key_text(raw: bytes) -> str:
    """`ed25519:` and base64, as people pass it around."""
    return _key_text("ed25519", raw)


def parse_public_key(text: str) -> bytes:
    """The 32 raw bytes behind `ed25519:…`.

    Raises:
        ConfigError: `key.text`.
    """
    return _parse_key_text("ed25519", text, "public")


def sealing_key_text(raw: bytes) -> str:
    """`x25519:` and base64, as people pass it around."""
    return _key_text("x25519", raw)


def parse_sealing_key(text: str) -> bytes:
    """The 32 raw bytes behind `x25519:…`.

    Raises:
        ConfigError: `key.text`.
    """
    return _parse_key_text("x25519", text, "sealing")


def _key_text(kind: str, raw: bytes) -> str:
    return f"{kind}:{base64.b64encode(raw).decode()}"


def _parse_key_text(kind: str, text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text.removeprefix(f"{kind}:"), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not text.startswith(f"{kind}:") or len(raw) != 32:
        raise ConfigError("key.text", f"{text!r} is not a {what} key of the form {kind}:BASE64")
    return raw
