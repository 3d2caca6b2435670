# SPDX-License-Identifier: Apache-2.0
"""The request statement: what a client asks to have signed, under its long-lived request key (DESIGN §4)."""

import hashlib
import re
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import MalformedInputError
from privyseal.tlog.entry import ArtifactDigest, canonical_json
from privyseal.wire.dsse import open_envelope, parse_envelope, seal

__all__ = [
    "MAX_ITEMS",
    "REQUEST_TYPE",
    "ClaimedFile",
    "RequestItem",
    "RequestStatement",
    "accepted_statement",
    "open_request",
    "seal_request",
    "statement_id",
]

REQUEST_TYPE: Final = "application/vnd.privyseal.request+json"
MAX_ITEMS: Final = 10_000
_MAX_TEXT: Final = 4096
_MAX_INTEGER: Final = 2**53 - 1
_MAX_ALGORITHM: Final = 16
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_HEX: Final = re.compile(r"[0-9a-f]{2,128}")


class ClaimedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The client's own words about the file: nobody else has seen it."""

    name: str
    sha256: str
    size: int


class RequestItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One signature that is asked for.

    Attributes:
        preimage: SHA-256 (hex) of the bytes that the signature will cover.
        artifact: The digest that the preimage names.
    """

    preimage: str
    artifact: ArtifactDigest
    claimed: ClaimedFile


class RequestStatement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for signatures; times are milliseconds since the epoch.

    Attributes:
        hub: Log origin of the hub it is meant for.
        created: Judged with `not_after` by every reader, whatever TLS certificates say.
    """

    v: int = 1
    hub: str
    profile: str
    format: str
    items: tuple[RequestItem, ...]
    idempotency_key: str
    created: int
    not_after: int


def statement_id(request_key: bytes, payload: bytes) -> str:
    """The name of a request: SHA-256 of the raw request key that signed it and its statement's bytes, hex.

    With the key in it, clients whose statements are alike in every byte still have requests of their own.
    """
    return hashlib.sha256(request_key + payload).hexdigest()


def seal_request(statement: RequestStatement, key: Ed25519PrivateKey) -> bytes:
    """The signed envelope of a statement."""
    return seal(REQUEST_TYPE, canonical_json(statement), (key,))


@lru_cache(maxsize=4)  # the jobs of a large request bring the same statement one after the other
def open_request(envelope: bytes, key: bytes) -> tuple[RequestStatement, str]:
    """The statement in an envelope that this raw request key signed, and its id.

    Raises:
        MalformedInputError: `envelope.malformed`, or `request.malformed` if it is not a canonical statement.
        VerificationError: `envelope.signature`.
    """
    payload = open_envelope(envelope, REQUEST_TYPE, key)
    statement = _parse(payload)
    _check_values(statement)
    texts = [statement.hub, statement.profile, statement.format, statement.idempotency_key]
    texts += [item.claimed.name for item in statement.items]
    if any(len(text) > _MAX_TEXT for text in texts):
        raise MalformedInputError("request.malformed", f"a name in the request is longer than {_MAX_TEXT} characters")
    return statement, statement_id(key, payload)


def _check_values(statement: RequestStatement) -> None:
    """Everything that will stand in a log entry fits the log's grammar; a client must not be able to spoil the log."""
    numbers = [statement.created, statement.not_after, *(item.claimed.size for item in statement.items)]
    digests = [digest for item in statement.items for digest in (item.preimage, item.claimed.sha256)]
    artifacts = [item.artifact for item in statement.items]
    sound = (
        all(0 <= number <= _MAX_INTEGER for number in numbers)
        and all(_SHA256.fullmatch(digest) for digest in digests)
        and all(len(one.alg) <= _MAX_ALGORITHM and _HEX.fullmatch(one.digest) for one in artifacts)
    )
    if not sound:
        raise MalformedInputError(
            "request.malformed", "a time, size or digest of the request statement is not what its field can hold"
        )


@lru_cache(maxsize=4)  # asked for again with each of the request's jobs
def accepted_statement(envelope: bytes) -> RequestStatement:
    """The statement of an envelope that was opened, and so judged, when it was accepted."""
    return _parse(parse_envelope(envelope, REQUEST_TYPE).payload)


def _parse(payload: bytes) -> RequestStatement:
    try:
        statement = msgspec.json.decode(payload, type=RequestStatement)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedInputError("request.malformed", f"not a request statement: {error}") from error
    if canonical_json(statement) != payload:
        raise MalformedInputError("request.malformed", "the request statement is not in canonical form (RFC 8785)")
    if statement.v != 1 or not 1 <= len(statement.items) <= MAX_ITEMS:
        raise MalformedInputError(
            "request.malformed",
            f"a request statement holds 1 to {MAX_ITEMS} items, this one {len(statement.items)}",
        )
    return statement
