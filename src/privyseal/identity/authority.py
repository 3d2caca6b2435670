# SPDX-License-Identifier: Apache-2.0
"""Authority statements: what administrators decide with keys that the hub never holds.

An invitation lets somebody join, a grant lets a client's request key use a `pinned` key profile, a revocation ends a
standing, an unlock hands a token's PIN to its agent, an order cancels a request or moves it in the queue. Each is a
DSSE envelope signed by the bundle's quorum; hub and agent check it by themselves, and so its way to the hub needs no
other login.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.identity.bundle import TrustBundle
from privyseal.tlog.entry import canonical_json
from privyseal.wire.dsse import key_id, parse_envelope, seal, signers

__all__ = [
    "AUTHORITY_TYPE",
    "AuthorityStatement",
    "GrantStatement",
    "Invitation",
    "PriorityName",
    "QueueCancel",
    "QueueMove",
    "QueueOrder",
    "Revocation",
    "SignedStatement",
    "Unlock",
    "UnlockQuestion",
    "open_authority",
    "seal_authority",
]

AUTHORITY_TYPE: Final = "application/vnd.privyseal.authority+json"


class _Statement(msgspec.Struct, frozen=True, kw_only=True, tag_field="action", forbid_unknown_fields=True):
    """Times are milliseconds since the epoch; `hub` is the log origin that it is meant for."""

    v: int = 1
    hub: str
    issued: int
    not_after: int


class Invitation(_Statement, frozen=True, tag="invite"):
    """Whoever knows the secret may join once, in this role and under this name."""

    role: str
    name: str
    profiles: tuple[str, ...]
    secret_sha256: str


class GrantStatement(_Statement, frozen=True, tag="grant"):
    """This request key (raw Ed25519) may use this key profile for these formats (`*` for all)."""

    request_key: bytes
    profile: str
    formats: tuple[str, ...]


class Revocation(_Statement, frozen=True, tag="revoke"):
    """The enrolment of this role and name ends."""

    role: str
    name: str


PriorityName = Literal["next", "release", "normal", "nightly"]


class QueueCancel(_Statement, frozen=True, tag="queue-cancel"):
    """What the token has not begun of this request is not signed, and a lease of it ends; `request` is its whole id.

    `reason` is told to who has the lease.
    """

    request: str
    reason: str = ""


class QueueMove(_Statement, frozen=True, tag="queue-move"):
    """What waits of this request waits in this class from now on; `request` is its whole id."""

    request: str
    priority: PriorityName


class UnlockQuestion(_Statement, frozen=True, tag="unlock-question"):
    """Which token is that, and which nonce goes into an unlock of it? `token` is its name at that agent."""

    agent: str
    token: str


class Unlock(_Statement, frozen=True, tag="unlock"):
    """This token may be given the PIN that is sealed here to its agent.

    Attributes:
        agent: The agent's name.
        token: The token's name in its agent.toml.
        serial: Its serial number.
        nonce: What the agent answered to the question, in hex; good once.
        forgive_refused: Also allow a PIN that the token refused before.
        sealed: The PIN, sealed to the agent's key for exactly this statement (`privyseal.identity.unlocking`).
    """

    agent: str
    token: str
    serial: str
    nonce: str
    forgive_refused: bool
    sealed: bytes


QueueOrder = QueueCancel | QueueMove
AuthorityStatement = Invitation | GrantStatement | Revocation | QueueOrder | UnlockQuestion | Unlock


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedStatement:
    """A checked statement, its SHA-256, and the names of the authority keys that signed it."""

    statement: AuthorityStatement
    sha256: bytes
    authorities: tuple[str, ...]


def seal_authority(statement: AuthorityStatement, keys: tuple[Ed25519PrivateKey, ...]) -> bytes:
    """The signed envelope of a statement."""
    return seal(AUTHORITY_TYPE, canonical_json(statement), keys)


def open_authority(envelope: bytes, bundle: TrustBundle, now_ms: int) -> SignedStatement:
    """Check a statement against the bundle's quorum, its hub and its dates.

    Raises:
        MalformedInputError: `envelope.malformed`, `authority.malformed`.
        VerificationError: `authority.quorum`, `authority.hub`, `authority.expired`.
    """
    parsed = parse_envelope(envelope, AUTHORITY_TYPE)
    try:
        statement = msgspec.json.decode(parsed.payload, type=AuthorityStatement)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedInputError("authority.malformed", f"not an authority statement: {error}") from error
    dates = (statement.issued, statement.not_after)
    dated = all(0 <= date < 2**53 for date in dates)
    if statement.v != 1 or not dated or canonical_json(statement) != parsed.payload:
        raise MalformedInputError("authority.malformed", "the authority statement is not in canonical form")
    signed_by = signers(parsed, bundle.authority_keys)
    if len(signed_by) < bundle.statement.quorum:
        raise VerificationError(
            "authority.quorum",
            f"the statement is signed by {len(signed_by)} of the hub's authority keys, {bundle.statement.quorum} must",
            hint="use the authority key that `hub init` made for this hub",
        )
    if statement.hub != bundle.hub:
        raise VerificationError("authority.hub", f"the statement is for {statement.hub!r}, not for {bundle.hub!r}")
    if now_ms > statement.not_after:
        raise VerificationError("authority.expired", "the authority statement has expired", hint="issue a new one")
    return SignedStatement(
        statement=statement,
        sha256=hashlib.sha256(parsed.payload).digest(),
        authorities=tuple(sorted(key_id(key) for key in signed_by)),
    )
