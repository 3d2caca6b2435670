# SPDX-License-Identifier: Apache-2.0
"""Cosignatures of witnesses on checkpoints (C2SP tlog-cosignature), timestamped, with Ed25519 (signature type 0x04).

A cosignature says that at its time this was the largest tree of the log that the witness had seen, and that it
extended all that it had seen before. It says nothing about a checkpoint's extension lines.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.tlog.note import Note, NoteSignature, check_key_name, encode_base64, key_id, read_vkey

__all__ = ["Cosignature", "Cosigner", "CosignerKey", "cosignatures", "parse_cosigner_vkey"]

#: Signature type of a timestamped Ed25519 cosignature.
COSIGNATURE_V1: Final = 0x04

_MAX_SECONDS: Final = 2**63 - 1
_TIMESTAMP_BYTES: Final = 8
_PUBLIC_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignerKey:
    """A witness's public key with its name.

    Attributes:
        public_key: 32 bytes (RFC 8032). One key has one name: the signed message does not hold it.
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name, "vkey.malformed")
        if len(self.public_key) != _PUBLIC_KEY_BYTES:
            raise MalformedInputError(
                "vkey.malformed", f"a witness's Ed25519 key has 32 bytes, not {len(self.public_key)}"
            )

    @property
    def key_id(self) -> bytes:
        """4 bytes; another than the same key has as a log's."""
        return key_id(self.name, COSIGNATURE_V1, self.public_key)

    @property
    def vkey(self) -> str:
        """The key as text: `<name>+<key ID in hex>+<base64(0x04 || public key)>`."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([COSIGNATURE_V1]) + self.public_key)}"

    def verify(self, text: str, signature: bytes) -> int:
        """Check one cosignature over a checkpoint's text.

        Returns:
            Its time, in seconds since the epoch, by the witness's clock.

        Raises:
            VerificationError: `note.signature`.
        """
        seconds = int.from_bytes(signature[:_TIMESTAMP_BYTES], "big")
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public_key)
            key.verify(signature[_TIMESTAMP_BYTES:], _message(text, seconds))
        except (InvalidSignature, ValueError) as error:
            raise VerificationError("note.signature", f"the cosignature by {self.name} does not verify") from error
        if seconds > _MAX_SECONDS:
            raise VerificationError("note.signature", f"the cosignature by {self.name} has a time above 2^63-1")
        return seconds


class Cosigner:
    """A witness's private key with its name.

    Attributes:
        verifier: The public half.
    """

    __slots__ = ("_key", "verifier")

    def __init__(self, *, name: str, key: Ed25519PrivateKey) -> None:
        self.verifier: Final = CosignerKey(name=name, public_key=key.public_key().public_bytes_raw())
        self._key: Final = key

    def sign(self, text: str, seconds: int) -> NoteSignature:
        """The cosignature over a checkpoint's text; the caller has made sure that the checkpoint deserves it.

        Args:
            text: Text of the checkpoint's note, from a note that was parsed.
            seconds: Now, since the epoch.

        Raises:
            MalformedInputError: `cosignature.time`.
        """
        if not 0 <= seconds <= _MAX_SECONDS:
            raise MalformedInputError("cosignature.time", f"{seconds} is no time in seconds since the epoch")
        signature = seconds.to_bytes(_TIMESTAMP_BYTES, "big") + self._key.sign(_message(text, seconds))
        return NoteSignature(name=self.verifier.name, key_id=self.verifier.key_id, signature=signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """A cosignature that holds.

    Attributes:
        seconds: When, since the epoch, by the witness's clock.
    """

    key: CosignerKey
    seconds: int


def _message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def parse_cosigner_vkey(vkey: str) -> CosignerKey:
    """A witness's key from its text.

    Raises:
        MalformedInputError: `vkey.malformed`, also for other signature types and a key ID that does not fit.
    """
    name, signature_type, public_key = read_vkey(vkey)
    if signature_type != COSIGNATURE_V1:
        raise MalformedInputError(
            "vkey.malformed",
            f"the key of {name[:80]} is of signature type 0x{signature_type:02x}, not 0x04 (a witness's Ed25519 key)",
        )
    return CosignerKey(name=name, public_key=public_key)


def cosignatures(note: Note, keys: tuple[CosignerKey, ...]) -> tuple[Cosignature, ...]:
    """The known witnesses' cosignatures on a checkpoint; lines of others are ignored.

    Each line of a known key must hold (C2SP signed-note); of a witness that signed several times, the newest counts.

    Args:
        note: A parsed note.
        keys: The known witnesses.

    Returns:
        At most one for each key, in the order of `keys`; perhaps none.

    Raises:
        VerificationError: `note.signature`.
    """
    found: list[Cosignature] = []
    for key in keys:
        known = (key.name, key.key_id)
        lines = {line.signature for line in note.signatures if (line.name, line.key_id) == known}
        if lines:
            found.append(Cosignature(key=key, seconds=max(key.verify(note.text, line) for line in lines)))
    return tuple(found)
