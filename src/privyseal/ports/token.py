# SPDX-License-Identifier: Apache-2.0
"""The Token port: a thing that holds private keys and signs digests with them (PKCS#11 words throughout)."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from privyseal.pki.mechanism import Mechanism

__all__ = [
    "KeyCounter",
    "KeyKind",
    "ManagedToken",
    "PinState",
    "ReaderUse",
    "Secret",
    "Token",
    "TokenInfo",
    "TokenKey",
    "UnlockableToken",
]

#: Keys that can be made on a token: RSA by its size, ECDSA by its curve.
KeyKind = Literal["rsa2048", "rsa3072", "rsa4096", "p256", "p384"]


class Secret(Protocol):
    """A PIN in memory that can be wiped."""

    @property
    def view(self) -> memoryview:
        """Its bytes, without a copy."""
        ...


class PinState(Enum):
    """What the token says of its user PIN (CKF_USER_PIN_COUNT_LOW, _FINAL_TRY, _LOCKED)."""

    OK = "ok"
    COUNT_LOW = "count-low"
    FINAL_TRY = "final-try"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """What a token says of itself (CK_TOKEN_INFO).

    Attributes:
        hardware: False for a key in a file (the software token, SoftHSM2); shown wherever the token is shown.
        min_pin_bytes, max_pin_bytes: Between which lengths the token takes a PIN.
    """

    label: str
    serial: str
    manufacturer: str
    model: str
    hardware: bool
    pin_state: PinState
    min_pin_bytes: int = 1
    max_pin_bytes: int = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A private key on the token that may sign, with the certificates that the token holds for it.

    Attributes:
        key_id: CKA_ID.
        label: CKA_LABEL.
        spki: SubjectPublicKeyInfo, DER.
        certificates: DER, leaf first, then whatever of its issuers the token holds; may be empty.
    """

    key_id: bytes
    label: str
    spki: bytes
    certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCounter:
    """How often a key was used, by the token's own count, which no program can set back.

    Attributes:
        key_id: CKA_ID.
        count: Grows by one with each signature; where it began says nothing.
        source: What was read, for people.
    """

    key_id: bytes
    count: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderUse:
    """Who is connected to the service through which a token is reached (pcscd), at one moment.

    Attributes:
        own: Connections of this token's adapter.
        connections: All connections of that service, `own` among them.
        card_events: How often a card came or went in the token's reader, modulo 2^16; None if nobody can tell.
    """

    own: int
    connections: int
    card_events: int | None


class Token(Protocol):
    """One token. Calls are answered one at a time, in order; each call has a deadline of its own.

    An adapter logs in at most once per session, and never presents a PIN that was refused or whose outcome is not
    known (DESIGN promise 5): such a call raises TokenError `token.pin_blocked` until a person acts.
    """

    async def info(self) -> TokenInfo:
        """What the token says of itself now. Needs no login.

        Raises:
            TokenError: `token.not_found` if the module loads but the token is absent; `token.module` if the module
                does not load; `token.timeout` if it did not answer in time.
        """
        ...

    async def keys(self) -> tuple[TokenKey, ...]:
        """The signing keys, in the order of their CKA_ID. Logs in.

        Raises:
            TokenError: as `info`, and `token.pin_incorrect`, `token.pin_locked`, `token.pin_blocked`,
                `token.pin_missing`.
        """
        ...

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        """Sign one digest. Logs in if needed.

        Returns:
            The RSA signature block, or a DER ECDSA-Sig-Value.

        Raises:
            TokenError: as `keys`, and `token.key_not_found`, `token.failed`. Its `begun` is True from the moment
                that the signing operation may have run on the token; then nobody may assume that it did not.
        """
        ...

    async def counters(self) -> tuple[KeyCounter, ...]:
        """The signature counters of the token's keys; empty if it has none, or none is configured. Needs no login.

        Raises:
            TokenError: as `info`, and `token.counter` if the token shows no counter of the configured kind,
                `token.reader` if it is not known which reader the token is in, `token.pcsc`, `token.pcscd`.
        """
        ...

    async def reader_use(self) -> ReaderUse | None:
        """Who is connected to the service through which the token is reached; None if nobody can tell.

        Raises:
            TokenError: as `info`.
        """
        ...

    async def probe(self, count: int) -> tuple[int, ...] | None:
        """How long the card takes for a command that changes nothing; the next call that needs a login logs in anew.

        Args:
            count: How many commands, one after the other; 1 to 1000.

        Returns:
            The round trip of each in microseconds; None if nobody can tell.

        Raises:
            TokenError: as `info`.
        """
        ...

    async def close(self) -> None:
        """End sessions and the worker process. Never raises; may be called twice."""
        ...


class UnlockableToken(Token, Protocol):
    """A token whose PIN people hand in and change while it is in use."""

    async def unlock(self, pin: bytes | bytearray | memoryview) -> None:
        """Hand in a PIN that a person typed, in place of any other; it is presented when next needed.

        Raises:
            TokenError: `token.pin_missing` or `token.pin_file` if it cannot be a PIN.
        """
        ...

    async def forget_pin(self) -> None:
        """Go by the configured source again, not by a PIN that was handed in."""
        ...

    async def recycle(self) -> None:
        """End the worker between two calls; the next call starts another, which logs in anew."""
        ...

    async def change_pin(self, new: Secret) -> None:
        """See `ManagedToken.change_pin`."""
        ...


class ManagedToken(Token, Protocol):
    """A token that a person sets up: new keys, and the certificates for them. Nothing here is tried again by itself."""

    async def generate_key(self, *, kind: KeyKind, key_id: bytes, label: str) -> TokenKey:
        """Make a signing key on the token, which it cannot leave. Logs in.

        Args:
            kind: What key.
            key_id: CKA_ID; empty for the first free one.
            label: CKA_LABEL.

        Raises:
            TokenError: as `Token.keys`, and `token.key_exists` if CKA_ID or label are in use, `token.failed` if the
                token makes no such keys. After `token.timeout` or `token.crashed` the key may be there.
        """
        ...

    async def store_certificates(self, *, key_id: bytes, chain: tuple[bytes, ...]) -> None:
        """Put a key's certificates on the token. Logs in.

        Args:
            key_id: CKA_ID of the key.
            chain: DER, leaf first. What the token holds already is not stored twice.

        Raises:
            TokenError: as `Token.keys`, and `token.key_not_found`, `token.certificate` if one cannot be read,
                `token.failed` with the function `C_CreateObject` or `C_OpenSession` if the token takes none.
        """
        ...

    async def change_pin(self, new: Secret) -> None:
        """Give the token another user PIN. Logs in with the present one first; both are journalled like a login.

        From then on the new PIN is used: a PIN file holds it; from elsewhere the PIN is remembered until the token is
        closed, and whoever changed it puts it there.

        Args:
            new: The new PIN; may be wiped once this has returned or raised, also by being cancelled.

        Raises:
            TokenError: as `Token.keys`, and `token.pin_length`, `token.pin_new` if the token does not take the new PIN,
                `token.pin_file` if the PIN file cannot be rewritten. After `token.timeout`, `token.crashed` or
                `token.failed` the PIN may have been changed: the next login finds out without another wrong attempt
                than the journal allows.
        """
        ...
