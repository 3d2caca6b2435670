# SPDX-License-Identifier: Apache-2.0
"""Signed notes and verifier keys (C2SP signed-note), signed with Ed25519 (signature type 0x01).

A note's text means nothing until `verify_note` has answered. Other signature types on a note are kept as they
are; each needs a `NoteVerifier` of its own, as `cosignature` has for those of witnesses.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privyseal.errors import MalformedInputError, VerificationError

__all__ = [
    "MAX_NOTE_BYTES",
    "MAX_SIGNATURES",
    "Note",
    "NoteSignature",
    "NoteSigner",
    "NoteVerifier",
    "VerifierKey",
    "check_key_name",
    "decode_base64",
    "decode_text",
    "encode_base64",
    "key_id",
    "parse_note",
    "parse_vkey",
    "read_vkey",
    "verify_note",
    "write_vkey",
]

#: Signature type of a plain Ed25519 note signature.
ED25519: Final = 0x01

#: Verifiers must accept 16 signatures (of up to 5 kB each); more than these two limits are refused unread.
MAX_SIGNATURES: Final = 64
MAX_NOTE_BYTES: Final = 512 * 1024

_MAX_VKEY_CHARS: Final = 4096
_KEY_ID_BYTES: Final = 4
_PUBLIC_KEY_BYTES: Final = 32
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_ID_HEX: Final = re.compile(r"[0-9a-fA-F]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line of a note.

    Attributes:
        name: Key name.
        key_id: 4 bytes; with the name they tell which key and algorithm this is.
        signature: What the algorithm gave.
    """

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The signature line with its newline."""
        return f"— {self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note as parsed: nothing is verified yet.

    Attributes:
        text: The signed text with its final newline.
        signatures: In their order; at least one.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> str:
        """The note as text; `parse_note` gives the same note again."""
        return self.text + "\n" + "".join(signature.line for signature in self.signatures)

    def signatures_by(self, name: str, key_id: bytes) -> tuple[NoteSignature, ...]:
        """The lines that one key claims; perhaps none."""
        return tuple(line for line in self.signatures if (line.name, line.key_id) == (name, key_id))


class NoteVerifier(Protocol):
    """A known key: whoever implements it also says which signature algorithm the key ID stands for."""

    @property
    def name(self) -> str:
        """Key name."""
        ...

    @property
    def key_id(self) -> bytes:
        """4 bytes."""
        ...

    def verify(self, text: str, signature: bytes) -> object:
        """Check one signature over a note's text; what it answers with is between a key and those who know its type.

        Raises:
            VerificationError: `note.signature`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """An Ed25519 public key with its name (signature type 0x01): a `NoteVerifier`.

    Attributes:
        public_key: 32 bytes (RFC 8032).
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name, "vkey.malformed")
        if len(self.public_key) != _PUBLIC_KEY_BYTES:
            raise MalformedInputError(
                "vkey.malformed", f"an Ed25519 public key has 32 bytes, not {len(self.public_key)}"
            )

    @property
    def key_id(self) -> bytes:
        """4 bytes."""
        return key_id(self.name, ED25519, self.public_key)

    @property
    def vkey(self) -> str:
        """The key as text: `<name>+<key ID in hex>+<base64(0x01 || public key)>`."""
        return write_vkey(self.name, ED25519, self.public_key)

    def verify(self, text: str, signature: bytes) -> None:
        """Check one signature over a note's text.

        Raises:
            VerificationError: `note.signature`.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text.encode())
        except (InvalidSignature, ValueError) as error:
            raise VerificationError("note.signature", f"the note's signature by {self.name} does not verify") from error


class NoteSigner:
    """An Ed25519 private key with its name, ready to sign notes.

    Attributes:
        verifier: The public half.
    """

    __slots__ = ("_key", "_key_id", "verifier")

    def __init__(self, *, name: str, key: Ed25519PrivateKey) -> None:
        self.verifier: Final = VerifierKey(name=name, public_key=key.public_key().public_bytes_raw())
        self._key_id: Final = self.verifier.key_id
        self._key: Final = key

    def sign(self, text: str) -> NoteSignature:
        """The signature over a note's text.

        Raises:
            MalformedInputError: `note.malformed` if the text cannot stand in a note.
        """
        message = _check_text(text)
        return NoteSignature(name=self.verifier.name, key_id=self._key_id, signature=self._key.sign(message))


def key_id(name: str, signature_type: int, public_key: bytes) -> bytes:
    """SHA-256(key name || 0x0A || signature type || public key)[:4]."""
    preimage = name.encode() + b"\n" + bytes([signature_type]) + public_key
    return hashlib.sha256(preimage).digest()[:_KEY_ID_BYTES]


def encode_base64(value: bytes) -> str:
    """Standard base64 with padding (RFC 4648 §4)."""
    return base64.b64encode(value).decode("ascii")


def decode_base64(text: str, code: str, what: str) -> bytes:
    """The bytes of canonical standard base64: what encodes to exactly this text.

    Raises:
        MalformedInputError: with `code`.
    """
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error, and non-ASCII text
        raise MalformedInputError(code, f"{what} is not base64") from error
    if encode_base64(value) != text:
        raise MalformedInputError(code, f"{what} is not canonical base64")
    return value


def decode_text(text: str | bytes, *, limit_bytes: int, code: str, what: str) -> str:
    """Text from outside as `str`, at most `limit_bytes` long in UTF-8.

    Raises:
        MalformedInputError: with `code` if it is longer or not valid UTF-8.
    """
    if len(text) > limit_bytes:
        raise MalformedInputError(code, f"{what} is longer than {limit_bytes} bytes")
    try:
        encoded = text.encode() if isinstance(text, str) else text
        decoded = encoded.decode()
    except UnicodeError as error:
        raise MalformedInputError(code, f"{what} is not valid UTF-8") from error
    if len(encoded) > limit_bytes:
        raise MalformedInputError(code, f"{what} is longer than {limit_bytes} bytes")
    return decoded


def check_key_name(name: str, code: str) -> None:
    """A key's name stands in signature lines and verifier keys, and must not end either of them.

    Raises:
        MalformedInputError: with `code`.
    """
    if not name or "+" in name or any(char.isspace() for char in name) or _CONTROL.search(name):
        raise MalformedInputError(code, f"{name[:80]!r} is not a key name: no spaces, no plus, not empty")
    decode_text(name, limit_bytes=_MAX_VKEY_CHARS, code=code, what="the key name")


def _check_text(text: str) -> bytes:
    decode_text(text, limit_bytes=MAX_NOTE_BYTES, code="note.malformed", what="the note's text")
    if not text.endswith("\n") or _CONTROL.search(text):
        raise MalformedInputError(
            "note.malformed", "a note's text ends in a newline and has no other control characters"
        )
    return text.encode()


def parse_note(note: str | bytes) -> Note:
    """A signed note by its form; no signature is checked.

    Raises:
        MalformedInputError: `note.malformed`.
    """
    whole = decode_text(note, limit_bytes=MAX_NOTE_BYTES, code="note.malformed", what="the note")
    if _CONTROL.search(whole):
        raise MalformedInputError("note.malformed", "the note has control characters other than newline")
    # The last empty line divides: the text itself may hold empty lines.
    text, separator, signature_lines = whole.rpartition("\n\n")
    if not separator or not signature_lines.endswith("\n"):
        raise MalformedInputError(
            "note.malformed", "a note is a text, an empty line and signature lines, each ending in a newline"
        )
    lines = signature_lines[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedInputError("note.malformed", f"the note has more than {MAX_SIGNATURES} signatures")
    return Note(text=text + "\n", signatures=tuple(_parse_signature(line) for line in lines))


def _parse_signature(line: str) -> NoteSignature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—":
        raise MalformedInputError("note.malformed", "a signature line begins with an em dash and a space")
    check_key_name(name, "note.malformed")
    value = decode_base64(encoded, "note.malformed", f"the signature by {name[:80]}")
    if len(value) <= _KEY_ID_BYTES:
        raise MalformedInputError("note.malformed", f"the signature by {name[:80]} is too short")
    return NoteSignature(name=name, key_id=value[:_KEY_ID_BYTES], signature=value[_KEY_ID_BYTES:])


def verify_note(
    note: Note, verifiers: tuple[NoteVerifier, ...], *, also: tuple[NoteVerifier, ...] = ()
) -> tuple[NoteVerifier, ...]:
    """Check the signatures of all known keys; those of others are ignored.

    Each line of a known key must hold, also where a key signed twice; the key counts once.

    Args:
        note: A parsed note.
        verifiers: The known keys, of which one must have signed.
        also: Further known keys. Their lines must hold where they stand, and alone are not enough.

    Returns:
        The keys that signed, in the order of `verifiers`; at least one.

    Raises:
        VerificationError: `note.signature` if a known key's signature does not hold, `note.unsigned` if none of
            `verifiers` signed.
    """
    found = tuple(verifier for verifier in verifiers if _has_signed(note, verifier))
    for verifier in also:
        _has_signed(note, verifier)
    if not found:
        raise VerificationError(
            "note.unsigned",
            "the note is not signed by a known key",
            hint="compare the log's key with the trust bundle",
        )
    return found


def _has_signed(note: Note, verifier: NoteVerifier) -> bool:
    # Twice the same line says nothing new, and must not cost a second verification.
    signatures = {line.signature for line in note.signatures_by(verifier.name, verifier.key_id)}
    for signature in signatures:
        verifier.verify(note.text, signature)
    return bool(signatures)


def write_vkey(name: str, signature_type: int, public_key: bytes) -> str:
    """A verifier key as text: `<name>+<key ID in hex>+<base64(signature type || public key)>`."""
    identifier = key_id(name, signature_type, public_key).hex()
    return f"{name}+{identifier}+{encode_base64(bytes([signature_type]) + public_key)}"


def read_vkey(vkey: str) -> tuple[str, int, bytes]:
    """Name, signature type and public key of a verifier key of any type; its key ID fits them.

    Raises:
        MalformedInputError: `vkey.malformed`.
    """
    if len(vkey) > _MAX_VKEY_CHARS:
        raise MalformedInputError("vkey.malformed", f"the key is longer than {_MAX_VKEY_CHARS} characters")
    # Neither name nor key ID has a plus; base64 may.
    name, _, rest = vkey.partition("+")
    identifier, _, encoded = rest.partition("+")
    if not _KEY_ID_HEX.fullmatch(identifier):
        raise MalformedInputError("vkey.malformed", "a verifier key is <name>+<8 hex digits>+<base64>")
    check_key_name(name, "vkey.malformed")
    material = decode_base64(encoded, "vkey.malformed", "the key material")
    if not material:
        raise MalformedInputError("vkey.malformed", f"the key of {name[:80]} is empty")
    if key_id(name, material[0], material[1:]) != bytes.fromhex(identifier):
        raise MalformedInputError("vkey.malformed", f"the key ID of {name[:80]} does not fit its name and key")
    return name, material[0], material[1:]


def parse_vkey(vkey: str) -> VerifierKey:
    """An Ed25519 verifier key from its text.

    Raises:
        MalformedInputError: `vkey.malformed`, also for other signature types and a key ID that does not fit.
    """
    name, signature_type, public_key = read_vkey(vkey)
    if signature_type != ED25519:
        raise MalformedInputError("vkey.malformed", "the key is not of signature type 0x01 (Ed25519)")
    return VerifierKey(name=name, public_key=public_key)
