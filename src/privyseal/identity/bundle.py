# SPDX-License-Identifier: Apache-2.0
"""The trust bundle: what an agent or client pins when it joins, and what only a quorum of authority keys changes.

Its hash travels in every join code, so that first contact with a hub needs no certificate authority of the world.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import ConfigError, MalformedInputError, VerificationError
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from privyseal.tlog.cosignature import ML_DSA_44_COSIGNATURE, CosignerKey, parse_cosigner_vkey
from privyseal.tlog.entry import canonical_json
from privyseal.tlog.note import VerifierKey, parse_note, parse_vkey
from privyseal.tlog.quorum import NO_QUORUM, QuorumPolicy, parse_policy
from privyseal.wire.dsse import parse_envelope, seal, signers

__all__ = [
    "BUNDLE_TYPE",
    "AgentKey",
    "AuthorityKey",
    "BundleStatement",
    "FormerLog",
    "TrustBundle",
    "load_bundle",
    "open_bundle",
    "open_successor",
    "seal_bundle",
]

_CERTIFICATE: Final = re.compile(r"\s*-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_SEQUENCE: Final = b"\x30"

BUNDLE_TYPE: Final = "application/vnd.privyseal.bundle+json"


class AuthorityKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An administrator's public key, made off the hub."""

    name: str
    key: bytes


class AgentKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To what a PIN for one of this agent's tokens is sealed: its raw X25519 key."""

    name: str
    key: bytes


class FormerLog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A log that was given up, because its newest entries were lost; its receipts stay good.

    Attributes:
        key: Its verifier key; the name is its origin.
        heads: The newest checkpoints of it that were known then, as signed notes, in the order of their sizes.
    """

    key: str
    heads: tuple[str, ...]


class BundleStatement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the authority keys sign.

    Attributes:
        serial: Grows with every change.
        hub: The hub's name.
        ca: Certificate of the hub's TLS CA, PEM.
        log_key: Verifier key of the log (C2SP signed-note `vkey`), Ed25519; its signature is on every checkpoint. Its
            name is the log's origin.
        log_mldsa_key: Its ML-DSA-44 key, likewise; a published checkpoint may bear a signature of it, too.
        former: Logs that the present one continues, the oldest first.
        witnesses: Which witnesses' cosignatures are enough (C2SP tlog-policy); empty if there are none to rely on.
        quorum: How many authority keys must sign a change, a grant or an invitation.
        agents: Agents that a PIN can be sealed to.
    """

    v: int = 1
    serial: int
    hub: str
    ca: str
    log_key: str
    log_mldsa_key: str
    authorities: tuple[AuthorityKey, ...]
    quorum: int
    witnesses: str = ""
    former: tuple[FormerLog, ...] = ()
    agents: tuple[AgentKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBundle:
    """A checked trust bundle.

    Attributes:
        sha256: SHA-256 of the signed statement; this is what a join code carries.
        envelope: The signed form, as it is passed on.
        log_key: The key that speaks for the log.
        witnesses: Whose cosignatures make a checkpoint good enough; `NO_QUORUM` if nobody's are relied on.
    """

    statement: BundleStatement
    sha256: bytes
    envelope: bytes
    log_key: VerifierKey
    witnesses: QuorumPolicy

    @property
    def hub(self) -> str:
        """The hub's name."""
        return self.statement.hub

    @property
    def origin(self) -> str:
        """The log's origin."""
        return self.log_key.name

    def check_log(self, checkpoint: Checkpoint) -> VerifierKey:
        """The key that speaks for the log of a checkpoint: the present log, or one that was given up.

        Raises:
            VerificationError: `checkpoint.origin` for another log, `log.given_up` for a tree larger than the newest
                that was known when the log was given up: from then on nobody watches what its key signs.
        """
        if checkpoint.origin == self.origin:
            return self.log_key
        for former in self.statement.former:
            key = parse_vkey(former.key)
            if key.name == checkpoint.origin:
                newest = max(parse_checkpoint(parse_note(head).text).size for head in former.heads)
                if checkpoint.size > newest:
                    raise VerificationError(
                        "log.given_up",
                        f"log {key.name!r} was given up at {newest} entries; this checkpoint has {checkpoint.size}",
                    )
                return key
        raise VerificationError(
            "checkpoint.origin",
            f"the checkpoint is of log {checkpoint.origin[:80]!r}; expected {self.origin!r}",
        )

    @property
    def log_mldsa_key(self) -> CosignerKey:
        """The log's ML-DSA-44 key."""
        return parse_cosigner_vkey(self.statement.log_mldsa_key)

    @property
    def authority_keys(self) -> tuple[bytes, ...]:
        """Raw public keys."""
        return tuple(authority.key for authority in self.statement.authorities)


def seal_bundle(statement: BundleStatement, keys: tuple[Ed25519PrivateKey, ...]) -> TrustBundle:
    """Sign a bundle and check it as everybody else will, and its CA more closely.

    Raises:
        MalformedInputError: `bundle.malformed`. And what `open_bundle` raises.
    """
    from cryptography import x509  # noqa: PLC0415 - costs whoever only opens bundles 40 ms

    try:
        x509.load_pem_x509_certificate(statement.ca.encode())
    except ValueError as error:
        raise MalformedInputError("bundle.malformed", f"the CA is no certificate: {error}") from error
    return open_bundle(seal(BUNDLE_TYPE, canonical_json(statement), keys))


def open_bundle(envelope: bytes, expected_sha256: bytes | None = None) -> TrustBundle:
    """Read a trust bundle; the first one is believed by its hash, and must be signed by its own quorum.

    Raises:
        MalformedInputError: `envelope.malformed`, `bundle.malformed`.
        VerificationError: `bundle.hash` if it is not the expected one, `bundle.quorum` if too few authority keys
            signed it.
    """
    parsed = parse_envelope(envelope, BUNDLE_TYPE)
    digest = hashlib.sha256(parsed.payload).digest()
    if expected_sha256 is not None and digest != expected_sha256:
        raise VerificationError(
            "bundle.hash",
            "the hub's trust bundle is not the one that the join code names",
            hint="do not join: somebody stands between you and the hub, or the join code is for another hub",
        )
    try:
        statement = msgspec.json.decode(parsed.payload, type=BundleStatement)
        _check_pem(statement.ca)
        log_key = _check_log_keys(statement)
        witnesses = parse_policy(statement.witnesses.encode()) if statement.witnesses else NO_QUORUM
        _check_former(statement.former)
        _check_agents(statement.agents)
    except (msgspec.DecodeError, RecursionError, ValueError, MalformedInputError, VerificationError) as error:
        raise MalformedInputError("bundle.malformed", f"not a trust bundle: {error}") from error
    keys = {authority.key for authority in statement.authorities}
    if statement.v != 1 or not 1 <= statement.quorum <= len(keys) or any(len(key) != 32 for key in keys):
        raise MalformedInputError("bundle.malformed", "the trust bundle's authority keys and quorum make no sense")
    if len(signers(parsed, keys)) < statement.quorum:
        raise VerificationError(
            "bundle.quorum", f"the trust bundle is not signed by {statement.quorum} of its authority keys"
        )
    return TrustBundle(statement=statement, sha256=digest, envelope=envelope, log_key=log_key, witnesses=witnesses)


def _check_agents(agents: tuple[AgentKey, ...]) -> None:
    if len({agent.name for agent in agents}) != len(agents) or any(len(agent.key) != 32 for agent in agents):
        raise ValueError("an agent is named twice, or its sealing key is none")


def _check_former(former: tuple[FormerLog, ...]) -> None:
    """Former logs are cited by checkpoints that their own keys signed."""
    for log in former:
        key = parse_vkey(log.key)
        for head in log.heads:
            open_checkpoint(head, origin=key.name, verifiers=(key,))
        if not log.heads:
            raise ValueError(f"log {key.name} is cited without a checkpoint")


def open_successor(envelope: bytes, pinned: TrustBundle) -> TrustBundle:
    """Read the bundle that is to replace the one that was pinned: its authority keys must say so (promise 2).

    Raises:
        MalformedInputError: as `open_bundle`.
        VerificationError: as `open_bundle`; `bundle.successor` if it is for another hub, is no newer, or is not signed
            by the quorum of the pinned bundle's authority keys.
    """
    bundle = open_bundle(envelope)
    signed_by = signers(parse_envelope(envelope, BUNDLE_TYPE), pinned.authority_keys)
    if bundle.hub != pinned.hub:
        reason = f"it is for hub {bundle.hub!r}, not for {pinned.hub!r}"
    elif bundle.statement.serial <= pinned.statement.serial:
        reason = f"its serial {bundle.statement.serial} is not above {pinned.statement.serial}"
    elif len(signed_by) < pinned.statement.quorum:
        reason = f"{len(signed_by)} of the authority keys known here signed it, {pinned.statement.quorum} must"
    else:
        return bundle
    raise VerificationError(
        "bundle.successor",
        f"the trust bundle does not follow the one that was pinned: {reason}",
        hint="ask an administrator of the hub; a hub alone cannot change what is trusted",
    )


def _check_pem(text: str) -> None:
    """By its form alone: whoever only verifies receipts should not have to load X.509 for it (half of that time)."""
    found = _CERTIFICATE.fullmatch(text)
    if found is None or not base64.b64decode("".join(found[1].split()), validate=True).startswith(_SEQUENCE):
        raise ValueError("the CA is not one PEM certificate")


def _check_log_keys(statement: BundleStatement) -> VerifierKey:
    """The log's key, once both of its keys bear one name."""
    key, mldsa_key = parse_vkey(statement.log_key), parse_cosigner_vkey(statement.log_mldsa_key)
    if mldsa_key.signature_type != ML_DSA_44_COSIGNATURE or mldsa_key.name != key.name:
        raise MalformedInputError(
            "bundle.malformed", f"the log's keys are one Ed25519 and one ML-DSA-44 key under one name, {key.name!r}"
        )
    return key


def load_bundle(path: Path) -> TrustBundle:
    """Read the bundle that was pinned in a file.

    Raises:
        ConfigError: `file.missing`. And what `open_bundle` raises.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise ConfigError("file.missing", f"cannot read the trust bundle {path}: {error.strerror}") from error
    try:
        return open_bundle(encoded)
    except (MalformedInputError, VerificationError) as error:
        hint = error.hint or "a trust bundle is bundle.json in the directory of a client that has joined"
        raise type(error)(error.code, f"trust bundle {path}: {error.message}", hint=hint) from error
