# SPDX-License-Identifier: Apache-2.0
"""DSSE envelopes (Dead Simple Signing Envelope v1) signed with Ed25519.

A key is named by the SHA-256 of its 32 raw bytes. The payload's bytes are signed as they stand; nobody re-encodes
them, and an envelope is passed on verbatim.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privyseal.errors import MalformedInputError, VerificationError

__all__ = ["Envelope", "key_id", "open_envelope", "parse_envelope", "seal", "signers"]

_MAX_ENVELOPE_BYTES: Final = 8 * 1024 * 1024
_MAX_SIGNATURES: Final = 16


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: bytes


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A DSSE envelope; msgspec carries `bytes` as base64."""

    payload: bytes
    payloadType: str  # noqa: N815 - the name in the DSSE specification
    signatures: tuple[_Signature, ...]


def key_id(public_key: bytes) -> str:
    """Name of a raw Ed25519 public key: SHA-256, hex."""
    return hashlib.sha256(public_key).hexdigest()


def _pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: it binds the payload to its type."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """Sign a payload with each of the keys and answer with the envelope as JSON."""
    pae = _pae(payload_type, payload)
    signatures = tuple(_Signature(key_id(key.public_key().public_bytes_raw()), key.sign(pae)) for key in keys)
    return msgspec.json.encode(Envelope(payload, payload_type, signatures), order="sorted")


def parse_envelope(data: bytes, payload_type: str) -> Envelope:
    """Read an envelope without judging its signatures.

    Raises:
        MalformedInputError: `envelope.malformed`, also for another payload type or too many signatures.
    """
    if len(data) > _MAX_ENVELOPE_BYTES:
        raise MalformedInputError("envelope.malformed", f"a DSSE envelope of {len(data)} bytes is too large")
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedInputError("envelope.malformed", f"not a DSSE envelope: {error}") from error
    if envelope.payloadType != payload_type:
        raise MalformedInputError(
            "envelope.malformed",
            f"a DSSE payload of type {envelope.payloadType!r}, expected {payload_type!r}",
        )
    if len(envelope.signatures) > _MAX_SIGNATURES:
        raise MalformedInputError("envelope.malformed", f"a DSSE envelope with {len(envelope.signatures)} signatures")
    return envelope


def signers(envelope: Envelope, keys: Iterable[bytes]) -> frozenset[bytes]:
    """Which of these raw public keys have a valid signature on the envelope; every other signature is ignored."""
    pae = _pae(envelope.payloadType, envelope.payload)
    valid = set()
    for key in keys:
        name = key_id(key)
        for signature in envelope.signatures:
            if signature.keyid != name:
                continue
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(signature.sig, pae)
            except (InvalidSignature, ValueError):  # ValueError: the bytes are no Ed25519 key
                continue
            valid.add(key)
    return frozenset(valid)


def open_envelope(data: bytes, payload_type: str, key: bytes) -> bytes:
    """The payload of an envelope that this one raw public key has signed.

    Raises:
        MalformedInputError: `envelope.malformed`.
        VerificationError: `envelope.signature` if the key has not signed it.
    """
    envelope = parse_envelope(data, payload_type)
    if not signers(envelope, (key,)):
        raise VerificationError(
            "envelope.signature",
            f"no valid signature by key {key_id(key)[:16]}… on a {payload_type} envelope",
        )
    return envelope.payload
