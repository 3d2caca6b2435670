# SPDX-License-Identifier: Apache-2.0
"""The recovery copy of a PIN that no person knows: m of n authority keys together open it.

The PIN, padded to one length, is encrypted under a random key; the key is split (`shares`), and each share is sealed to
one authority key (`sealing`), for this token and this set of keys alone.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from privyseal.errors import ConfigError, MalformedInputError, VerificationError
from privyseal.identity.keyfile import public_key_text
from privyseal.identity.sealing import authority_sealing_key, authority_sealing_public_key, open_sealed, seal_to
from privyseal.identity.shares import combine, split
from privyseal.tlog.entry import canonical_json

__all__ = ["MAX_RECOVERY_BYTES", "PinRecovery", "RecoveryHeader", "make_recovery", "open_recovery", "parse_recovery"]

MAX_RECOVERY_BYTES: Final = 64 * 1024
_KIND: Final = "privyseal-pin-recovery"
_KEY_BYTES: Final = 32
_PADDED_BYTES: Final = 256
#: Each key encrypts one PIN.
_NONCE: Final = bytes(12)


class RecoveryHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What everybody may know of a recovery copy.

    Attributes:
        token, serial: Of which token it is.
        created: Milliseconds since the epoch, by the agent's clock.
        threshold: How many of the authority keys it takes.
        authorities: Raw Ed25519 public keys.
    """

    v: int = 1
    kind: str = _KIND
    token: str
    serial: str
    created: int
    threshold: int
    authorities: tuple[bytes, ...]

    @property
    def sha256(self) -> bytes:
        """What shares and PIN are bound to."""
        return hashlib.sha256(canonical_json(self)).digest()


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    header: RecoveryHeader
    shares: tuple[bytes, ...]
    pin: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PinRecovery:
    """A recovery copy that was read.

    Attributes:
        shares: Sealed, in the order of the authority keys.
        pin: Encrypted.
    """

    header: RecoveryHeader
    shares: tuple[bytes, ...]
    pin: bytes


def make_recovery(header: RecoveryHeader, pin: bytes | bytearray | memoryview) -> bytes:
    """The file of a recovery copy.

    Raises:
        ConfigError: `shares.count`; `key.text` if one of the keys is none; `recovery.twice` if one stands there twice.
    """
    if len(set(header.authorities)) != len(header.authorities):
        raise ConfigError("recovery.twice", "one authority key is named twice: its holder would count for two")
    key = secrets.token_bytes(_KEY_BYTES)
    padded = bytearray(_PADDED_BYTES)
    padded[0] = len(pin)
    padded[1 : 1 + len(pin)] = pin
    shares = split(key, threshold=header.threshold, count=len(header.authorities))
    sealed = tuple(
        seal_to(authority_sealing_public_key(authority), bytes([number]) + share, _info(header, authority))
        for number, (authority, share) in enumerate(zip(header.authorities, shares, strict=True), 1)
    )
    encrypted = ChaCha20Poly1305(key).encrypt(_NONCE, padded, header.sha256)
    padded[:] = bytes(len(padded))
    return msgspec.json.format(msgspec.json.encode(_File(header=header, shares=sealed, pin=encrypted))) + b"\n"


def parse_recovery(data: bytes) -> PinRecovery:
    """Read a recovery copy.

    Raises:
        MalformedInputError: `recovery.malformed`.
    """
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInputError("recovery.malformed", f"that is no recovery copy of a PIN: {error}") from error
    header = file.header
    count = len(header.authorities)
    if (header.v, header.kind) != (1, _KIND) or len(file.shares) != count or not 1 <= header.threshold <= count:
        raise MalformedInputError("recovery.malformed", "that is no recovery copy of a PIN that this release knows")
    if len(set(header.authorities)) != count or any(len(key) != 32 for key in header.authorities):
        raise MalformedInputError("recovery.malformed", "the recovery copy's authority keys make no sense")
    return PinRecovery(header=header, shares=file.shares, pin=file.pin)


def open_recovery(recovery: PinRecovery, keys: tuple[Ed25519PrivateKey, ...]) -> bytearray:
    """The PIN, to be overwritten by the caller.

    Raises:
        ConfigError: `recovery.authority` for a key that it was not made for.
        VerificationError: `recovery.threshold` if the keys are too few, `recovery.tampered` if something of it was
            changed.
    """
    header = recovery.header
    shares: dict[int, bytes] = {}
    for key in keys:
        public = key.public_key().public_bytes_raw()
        if public not in header.authorities:
            raise ConfigError(
                "recovery.authority",
                f"authority key {public_key_text(public)} is none of those that this recovery copy was made for",
                hint="it was made for " + ", ".join(public_key_text(one) for one in header.authorities),
            )
        number = header.authorities.index(public) + 1
        shares[number] = _share(recovery, key, public, number)
    if len(shares) < header.threshold:
        raise VerificationError(
            "recovery.threshold",
            f"the recovery copy opens with {header.threshold} of {len(header.authorities)} authority keys; "
            f"{len(shares)} were given",
            hint="name each with --authority: privyseal token pin recover FILE --authority KEY --authority KEY",
        )
    key_bytes = combine(dict(sorted(shares.items())[: header.threshold]))
    try:
        padded = bytearray(ChaCha20Poly1305(key_bytes).decrypt(_NONCE, recovery.pin, header.sha256))
    except InvalidTag as error:
        raise _tampered("its shares do not fit its PIN") from error
    if len(padded) != _PADDED_BYTES:
        raise _tampered("its PIN has a wrong length")
    pin = padded[1 : 1 + padded[0]]
    padded[:] = bytes(len(padded))
    return pin


def _share(recovery: PinRecovery, key: Ed25519PrivateKey, public: bytes, number: int) -> bytes:
    try:
        opened = open_sealed(authority_sealing_key(key), recovery.shares[number - 1], _info(recovery.header, public))
    except VerificationError as error:
        raise _tampered(f"the share of {public_key_text(public)} does not open") from error
    if len(opened) != 1 + _KEY_BYTES or opened[0] != number:
        raise _tampered(f"the share of {public_key_text(public)} is another one's")
    return opened[1:]


def _tampered(why: str) -> VerificationError:
    return VerificationError(
        "recovery.tampered",
        f"the recovery copy was changed: {why}",
        hint="take another copy of the file; the agent keeps one in its directory",
    )


def _info(header: RecoveryHeader, authority: bytes) -> bytes:
    return b"privyseal pin share v1\n" + header.sha256 + authority
