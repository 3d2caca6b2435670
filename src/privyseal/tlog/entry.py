# SPDX-License-Identifier: Apache-2.0
"""The entries of the log: their types, their grammar and their one canonical form.

An entry is RFC 8785 canonical JSON over a narrow grammar: ASCII keys, strings, integers below 2^53, lists, objects,
true, false and null. Within it msgspec's sorted encoder is canonical. At most 65,535 bytes, so that an entry fits the
uint16 length of a C2SP tlog-tiles entry bundle. Digests are lower-case hex. Names of people, machines and files never
stand here: keys are named by hash, names by salted hash.
"""

from typing import Final

import msgspec

from privyseal.errors import MalformedInputError
from privyseal.tlog.agent_entries import Custody, Freeze, Lease, PinEvent, Reconcile, Recover, TokenEvent
from privyseal.tlog.entry_base import BaseEntry, Integer

__all__ = [
    "MAX_ENTRY_BYTES",
    "Admin",
    "AgentEntry",
    "Anchor",
    "ArtifactDigest",
    "Claimed",
    "Custody",
    "Deny",
    "Enrol",
    "Entry",
    "Freeze",
    "GrantEntry",
    "Intent",
    "KeyEntry",
    "Lease",
    "PinEvent",
    "Reconcile",
    "Recover",
    "Result",
    "TimestampEntry",
    "TokenEvent",
    "Unknown",
    "canonical_json",
    "encode_entry",
    "parse_entry",
]

MAX_ENTRY_BYTES: Final = 65_535


class ArtifactDigest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The digest by which the format names the artifact.

    Attributes:
        alg: `sha256`, `sha384` or `sha512`.
        digest: In hex.
    """

    alg: str
    digest: str


class Claimed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the client says of the file; nobody else has seen it.

    Attributes:
        sha256: SHA-256 of the whole file before it was signed.
        size: Its size in bytes.
    """

    sha256: str
    size: Integer


class Intent(BaseEntry, frozen=True, tag="intent"):
    """A token is about to be used: durable before the job leaves the hub (promise 1).

    Attributes:
        request: SHA-256 of the raw request key followed by the request statement.
        item: Position in the statement.
        profile: Key profile.
        key: SHA-256 of the SubjectPublicKeyInfo that will sign; empty for a USB lease.
        format: What is signed, for example `authenticode-pe`; `usb-lease` if the whole device is handed over.
        binding: `bound`, `whole` or `opaque`.
        mechanism: PKCS#11 name of the signature scheme; empty for a USB lease.
        preimage: SHA-256 of the bytes that the signature covers.
        digest: What the token gets to sign.
        artifact: The artifact's digest.
        claimed: The client's claims about the file.
        client: SHA-256 of the client's request key.
        agent: SHA-256 of the agent's request key.
        authority: Index of the `enrol` or `grant` entry on which the client's permission rests.
        fence: Fence of the lease under which the token is used; never falls for a key at an agent.
    """

    request: str
    item: Integer
    profile: str
    key: str
    format: str
    binding: str
    mechanism: str
    preimage: str
    digest: str
    artifact: ArtifactDigest
    claimed: Claimed
    client: str
    agent: str
    authority: Integer
    fence: Integer


class Result(BaseEntry, frozen=True, tag="result"):
    """What became of an intent: durable before a signature is released (promise 1).

    Attributes:
        intent: Index of the `intent` entry.
        request: That of the intent.
        item: That of the intent.
        profile: That of the intent.
        key: That of the intent.
        format: That of the intent.
        artifact: That of the intent.
        fence: That of the intent.
        outcome: `ok`, `failed` or `not-used`.
        signature: SHA-256 of the signature value, or of what a USB lease was used for; empty unless `ok`.
        code: Why it failed; empty if `ok`.
    """

    intent: Integer
    request: str
    item: Integer
    profile: str
    key: str
    format: str
    artifact: ArtifactDigest
    fence: Integer
    outcome: str
    signature: str = ""
    code: str = ""


class Unknown(BaseEntry, frozen=True, tag="unknown"):
    """Nobody knows whether the token carried out an intent (promise 4).

    Attributes:
        intent: Index of the `intent` entry.
        request: That of the intent.
        item: That of the intent.
        profile: That of the intent.
        fence: That of the intent.
        code: What stood in the way of knowing.
    """

    intent: Integer
    request: str
    item: Integer
    profile: str
    fence: Integer
    code: str


class Deny(BaseEntry, frozen=True, tag="deny"):
    """A caller was refused; more than 60 times in a minute, and strangers, are only counted.

    Attributes:
        client: SHA-256 of the caller's request key; empty for the strangers of an hour.
        profile: Key profile that was asked for.
        request: The request that was refused, named as in `intent`; empty where several are counted.
        code: Why, as in docs/errors.
        count: How many refusals this stands for.
    """

    client: str
    profile: str
    request: str
    code: str
    count: int = 1


class Enrol(BaseEntry, frozen=True, tag="enrol"):
    """A client or agent joined, or its standing ended.

    Attributes:
        action: `join` or `revoke`.
        role: `client` or `agent`.
        name: SHA-256(salt || name); the salt is in the database, so that a name can be forgotten.
        key: SHA-256 of its request key.
        certificate: SHA-256 of its TLS certificate.
        profiles: Key profiles that a client may use; `*` for all.
        statement: SHA-256 of the authority statement on which this rests.
    """

    action: str
    role: str
    name: str
    key: str
    certificate: str
    profiles: tuple[str, ...]
    statement: str


class GrantEntry(BaseEntry, frozen=True, tag="grant"):
    """Authority keys granted a request key the use of a key profile.

    Attributes:
        client: SHA-256 of the client's request key.
        profile: Key profile.
        statement: SHA-256 of the authority statement.
        authorities: SHA-256 of each authority key that signed it.
    """

    client: str
    profile: str
    statement: str
    authorities: tuple[str, ...]


class KeyEntry(BaseEntry, frozen=True, tag="key"):
    """An agent announced a key profile, or a USB device that it lends, or changed what it says of it.

    Attributes:
        profile: Key profile, or name of the device.
        agent: SHA-256 of the agent's request key.
        key: SHA-256 of the SubjectPublicKeyInfo; empty for a device.
        certificate: SHA-256 of the signer's certificate; empty for a device.
        level: `traced` or `pinned`.
        opaque: Formats that may be signed by a bare digest; `*` for all.
        token: The token's serial number.
        hardware: Whether the token is hardware.
        witness: Whether witnesses must cosign: `off`, `async`, `before-release` or `before-use`.
        test: Whether its signatures are for trying things out only.
    """

    profile: str
    agent: str
    key: str
    certificate: str
    level: str
    opaque: tuple[str, ...]
    token: str
    hardware: bool
    witness: str
    test: bool


class TimestampEntry(BaseEntry, frozen=True, tag="timestamp"):
    """A TSA gave a timestamp token for a client: durable before the token leaves the hub.

    Attributes:
        client: SHA-256 of the client's request key.
        token: SHA-256 of the token (ContentInfo, DER).
        imprint: SHA-256 of the imprint. Over a SHA-256 imprint it is SHA-256 of what stands in `Result.signature`.
        tsa: SHA-256 of the TSA's certificate.
    """

    client: str
    token: str
    imprint: str
    tsa: str


class Anchor(BaseEntry, frozen=True, tag="anchor"):
    """A TSA's timestamp token over a checkpoint: what stands below it was written before that time.

    Attributes:
        size: Of the checkpoint; at most 65,536 entries back.
        root: Of the checkpoint.
        imprint: What the token is made over: SHA-256 of the checkpoint's text, its three lines without signatures.
        token: SHA-256 of the token (ContentInfo, DER).
        der: The token itself, base64 with padding; empty if it does not fit.
        tsa: SHA-256 of the TSA's certificate.
        client: SHA-256 of the request key of the client that asked for it; empty if the hub did so by itself.
    """

    size: Integer
    root: str
    imprint: str
    token: str
    der: str
    tsa: str
    client: str


class Admin(BaseEntry, frozen=True, tag="admin"):
    """An act on the hub itself.

    `genesis` opens a log under a trust bundle, and `bundle` puts another one in its place; with `confirm` the operator
    has said that this log is the newest, where no agent or witness could; `prune` says that old entries went, and
    `move` that the hub keeps its log in another database from here on. `queue-cancel` and `queue-move` are orders of
    authority keys about a request that was not signed yet.

    Attributes:
        action: `genesis`, `bundle`, `confirm`, `prune`, `move`, `queue-cancel` or `queue-move`.
        bundle: SHA-256 of the trust bundle's statement; empty for the last four.
        former: Of a `genesis` that continues a log that was given up: the newest checkpoints of it that were known, as
            signed notes.
        entries: Of a `prune`: how many entries from the log's beginning on are not kept any more; whole bundles of 256.
            Of a `move`: how many entries were moved.
        reason: Of a `prune`: why they went. Of a `move`: from where to where. Of a `queue-move`: the class of priority
            that the request was put into.
        request: Of an order about the queue: the request, named as in `intent`.
        statement: SHA-256 of the authority statement that holds the order.
        authorities: SHA-256 of each authority key that signed it.
    """

    action: str
    bundle: str
    former: tuple[str, ...] = ()
    entries: Integer = 0
    reason: str = ""
    request: str = ""
    statement: str = ""
    authorities: tuple[str, ...] = ()


#: What an agent tells of its tokens.
AgentEntry = TokenEvent | PinEvent | Recover | Custody | Reconcile | Freeze | Lease
Entry = Intent | Result | Unknown | Deny | Enrol | GrantEntry | KeyEntry | TimestampEntry | Anchor | Admin | AgentEntry

_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final[msgspec.json.Decoder[Entry]] = msgspec.json.Decoder(Entry)


def canonical_json(value: object) -> bytes:
    """Encode a value of the entry grammar canonically (RFC 8785)."""
    return _ENCODER.encode(value)


def encode_entry(entry: Entry) -> bytes:
    """The canonical bytes of an entry.

    Raises:
        MalformedInputError: `entry.too_large` above 65,535 bytes; `entry.malformed` if a value lies outside the
            grammar: what could not be read again must never be written.
    """
    data = _ENCODER.encode(entry)
    if len(data) > MAX_ENTRY_BYTES:
        raise MalformedInputError(
            "entry.too_large",
            f"a {entry.__struct_config__.tag} entry of {len(data)} bytes; at most 65,535 fit",
        )
    _decode(data)
    return data


def _decode(data: bytes) -> Entry:
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedInputError("entry.malformed", f"not a log entry: {error}") from error


def parse_entry(data: bytes) -> Entry:
    """Read an entry, refusing every form but the canonical one.

    Raises:
        MalformedInputError: `entry.too_large`, `entry.malformed`, or `entry.not_canonical`.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise MalformedInputError("entry.too_large", f"an entry of {len(data)} bytes; at most 65,535 fit")
    entry = _decode(data)
    # The types leave nothing open but order, white space, escapes and what a default would hide.
    if _ENCODER.encode(entry) != data:
        raise MalformedInputError("entry.not_canonical", "the entry is not in canonical form (RFC 8785)")
    return entry
