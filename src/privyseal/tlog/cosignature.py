# SPDX-License-Identifier: Apache-2.0
"""Cosignatures on checkpoints (C2SP tlog-cosignature): Ed25519 (signature type 0x04) and ML-DSA-44 (0x06).

A cosignature says that at its time this was the largest tree of the log that the witness had seen, and that it
extended all that it had seen before. It says nothing about a checkpoint's extension lines; ML-DSA-44 does not even
cover them. A log signs its own checkpoints with ML-DSA-44 in the same form.

Both types sign a time and a message of their own. Whatever differs between them stands in one table; everything else,
and everybody who uses this, treats them alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from privyseal.errors import ConfigError, MalformedInputError, VerificationError
from privyseal.tlog.checkpoint import parse_checkpoint
from privyseal.tlog.note import (
    Note,
    NoteSignature,
    VerifierKey,
    check_key_name,
    key_id,
    parse_vkey,
    read_vkey,
    write_vkey,
)

__all__ = [
    "ED25519_COSIGNATURE",
    "ML_DSA_44_COSIGNATURE",
    "Cosignature",
    "Cosigner",
    "CosignerKey",
    "LogKey",
    "cosignatures",
    "parse_cosigner_vkey",
    "parse_log_vkey",
]

#: Signature types.
ED25519_COSIGNATURE: Final = 0x04
ML_DSA_44_COSIGNATURE: Final = 0x06

_MAX_SECONDS: Final = 2**63 - 1
_TIMESTAMP_BYTES: Final = 8
_SUBTREE_LABEL: Final = b"subtree/v1\n\0"
_MAX_NAME_BYTES: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scheme:
    """One signature type.

    Attributes:
        message: What is signed, from the cosigner's name, the checkpoint's text and the time.
    """

    algorithm: str
    public_key_bytes: int
    signature_bytes: int
    load: Callable[[bytes], Ed25519PublicKey | MLDSA44PublicKey]
    message: Callable[[str, str, int], bytes]


def _whole_text(_name: str, text: str, seconds: int) -> bytes:
    """Message of type 0x04: it does not hold the cosigner's name, so one key must have one name."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _whole_tree(name: str, text: str, seconds: int) -> bytes:
    """Message of type 0x06, a `cosigned_message` of RFC 8446 §3 over the subtree from 0 to the checkpoint's size."""
    checkpoint = parse_checkpoint(text)
    start, end = 0, checkpoint.size
    return b"".join(
        (
            _SUBTREE_LABEL,
            _short("the cosigner's name", name, "vkey.malformed"),
            seconds.to_bytes(_TIMESTAMP_BYTES, "big"),
            _short("the log's origin", checkpoint.origin, "checkpoint.malformed"),
            start.to_bytes(8, "big"),
            end.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def _short(what: str, text: str, code: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > _MAX_NAME_BYTES:
        raise MalformedInputError(code, f"{what} has {len(encoded)} bytes; ML-DSA-44 cosignatures have room for 255")
    return bytes([len(encoded)]) + encoded


_SCHEMES: Final = MappingProxyType(
    {
        ED25519_COSIGNATURE: _Scheme(
            algorithm="Ed25519",
            public_key_bytes=32,
            signature_bytes=64,
            load=Ed25519PublicKey.from_public_bytes,
            message=_whole_text,
        ),
        ML_DSA_44_COSIGNATURE: _Scheme(
            algorithm="ML-DSA-44",
            public_key_bytes=1312,
            signature_bytes=2420,
            load=MLDSA44PublicKey.from_public_bytes,
            message=_whole_tree,
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignerKey:
    """A cosigner's public key with its name: a `NoteVerifier`.

    Attributes:
        signature_type: 0x04 or 0x06; it goes into the key ID.
        public_key: 32 bytes (RFC 8032) or 1312 bytes (FIPS 204).
    """

    name: str
    signature_type: int
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name, "vkey.malformed")
        scheme = _SCHEMES.get(self.signature_type)
        if scheme is None:
            raise MalformedInputError(
                "vkey.malformed",
                f"the key of {self.name[:80]} is of signature type 0x{self.signature_type:02x}; a cosigner's is 0x04 "
                "(Ed25519) or 0x06 (ML-DSA-44)",
            )
        if len(self.public_key) != scheme.public_key_bytes:
            raise MalformedInputError(
                "vkey.malformed",
                f"an {scheme.algorithm} public key has {scheme.public_key_bytes} bytes; that of {self.name[:80]} has "
                f"{len(self.public_key)}",
            )
        if self.signature_type == ML_DSA_44_COSIGNATURE:
            _short("the cosigner's name", self.name, "vkey.malformed")

    @property
    def algorithm(self) -> str:
        """For people."""
        return _SCHEMES[self.signature_type].algorithm

    @property
    def key_id(self) -> bytes:
        """4 bytes; another than the same key has as a log's."""
        return key_id(self.name, self.signature_type, self.public_key)

    @property
    def vkey(self) -> str:
        """The key as text: `<name>+<key ID in hex>+<base64(signature type || public key)>`."""
        return write_vkey(self.name, self.signature_type, self.public_key)

    def verify(self, text: str, signature: bytes) -> int:
        """Check one cosignature over a checkpoint's text.

        Returns:
            Its time, in seconds since the epoch, by the cosigner's clock. With 0 it speaks of no time.

        Raises:
            VerificationError: `note.signature`.
            ConfigError: `mldsa.unsupported`.
        """
        scheme = _SCHEMES[self.signature_type]
        expected = _TIMESTAMP_BYTES + scheme.signature_bytes
        if len(signature) != expected:
            raise VerificationError(
                "note.signature",
                f"the cosignature by {self.name} has {len(signature)} bytes; of {scheme.algorithm} it has {expected}",
            )
        seconds = int.from_bytes(signature[:_TIMESTAMP_BYTES], "big")
        if seconds > _MAX_SECONDS:
            raise VerificationError("note.signature", f"the cosignature by {self.name} has a time above 2^63-1")
        try:
            key = scheme.load(self.public_key)
            key.verify(signature[_TIMESTAMP_BYTES:], scheme.message(self.name, text, seconds))
        except (InvalidSignature, ValueError) as error:
            raise VerificationError("note.signature", f"the cosignature by {self.name} does not verify") from error
        except MalformedInputError as error:
            raise VerificationError(
                "note.signature", f"the cosignature by {self.name} cannot be one: {error.message}"
            ) from error
        except UnsupportedAlgorithm as error:
            raise ConfigError(
                "mldsa.unsupported",
                f"the cosignature by {self.name} cannot be checked: no {scheme.algorithm} in this installation",
                hint="install the package `cryptography` from PyPI's wheels, or build it with OpenSSL 3.5 or newer",
            ) from error
        return seconds


#: A log signs with Ed25519 (0x01), or with ML-DSA-44 in the form of a cosignature (0x06).
LogKey = VerifierKey | CosignerKey


class Cosigner:
    """A cosigner's private key with its name; the key's kind says which signature type it makes.

    Attributes:
        verifier: The public half.
    """

    __slots__ = ("_key", "_scheme", "verifier")

    def __init__(self, *, name: str, key: Ed25519PrivateKey | MLDSA44PrivateKey) -> None:
        kind = ED25519_COSIGNATURE if isinstance(key, Ed25519PrivateKey) else ML_DSA_44_COSIGNATURE
        public_key = key.public_key().public_bytes_raw()
        self.verifier: Final = CosignerKey(name=name, signature_type=kind, public_key=public_key)
        self._scheme: Final = _SCHEMES[kind]
        self._key: Final = key

    def sign(self, text: str, seconds: int) -> NoteSignature:
        """The cosignature over a checkpoint's text; the caller has made sure that the checkpoint deserves it.

        Args:
            text: Text of the checkpoint's note, from a note that was parsed.
            seconds: Now, since the epoch; 0 to say only that the tree extends all that was seen of the log.

        Raises:
            MalformedInputError: `cosignature.time`; with ML-DSA-44 also `checkpoint.malformed`, where the text is
                no checkpoint or its origin is longer than 255 bytes.
        """
        if not 0 <= seconds <= _MAX_SECONDS:
            raise MalformedInputError("cosignature.time", f"{seconds} is no time in seconds since the epoch")
        signature = self._key.sign(self._scheme.message(self.verifier.name, text, seconds))
        return NoteSignature(
            name=self.verifier.name,
            key_id=self.verifier.key_id,
            signature=seconds.to_bytes(_TIMESTAMP_BYTES, "big") + signature,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """A cosignature that holds.

    Attributes:
        seconds: When, since the epoch, by the cosigner's clock; 0 if it does not say that the tree was the largest
            at any time.
    """

    key: CosignerKey
    seconds: int


def parse_cosigner_vkey(vkey: str) -> CosignerKey:
    """A cosigner's key from its text.

    Raises:
        MalformedInputError: `vkey.malformed`, also for other signature types and a key ID that does not fit.
    """
    name, signature_type, public_key = read_vkey(vkey)
    return CosignerKey(name=name, signature_type=signature_type, public_key=public_key)


def parse_log_vkey(vkey: str) -> LogKey:
    """The key of any log of the C2SP family from its text: Ed25519 (0x01) or ML-DSA-44 (0x06).

    Raises:
        MalformedInputError: `vkey.malformed`, also for other signature types and a key ID that does not fit.
    """
    if read_vkey(vkey)[1] == ML_DSA_44_COSIGNATURE:
        return parse_cosigner_vkey(vkey)
    return parse_vkey(vkey)


def cosignatures(note: Note, keys: tuple[CosignerKey, ...]) -> tuple[Cosignature, ...]:
    """The known cosigners' cosignatures on a checkpoint; lines of others are ignored.

    Each line of a known key must hold (C2SP signed-note); of a key that signed several times, the newest counts.

    Args:
        note: A parsed note.
        keys: The known cosigners; a witness with keys of both types is known by either or both.

    Returns:
        At most one for each key, in the order of `keys`; perhaps none.

    Raises:
        VerificationError: `note.signature`.
        ConfigError: `mldsa.unsupported`.
    """
    found: list[Cosignature] = []
    for key in keys:
        lines = {line.signature for line in note.signatures_by(key.name, key.key_id)}
        if lines:
            found.append(Cosignature(key=key, seconds=max(key.verify(note.text, line) for line in lines)))
    return tuple(found)
