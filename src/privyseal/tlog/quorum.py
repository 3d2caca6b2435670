# SPDX-License-Identifier: Apache-2.0
"""Which witnesses' cosignatures make a checkpoint good enough: policy files of C2SP tlog-policy, as Sigsum has them.

A name can be member of one group only, and only of a group that is defined below it: a policy is a tree, and each
witness counts at one place. A witness with keys of two signature types is two names to a policy; they must stand in one
group `any`, so that it cannot count twice.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.tlog.checkpoint import Checkpoint, parse_checkpoint
from privyseal.tlog.cosignature import (
    Cosignature,
    CosignerKey,
    LogKey,
    cosignatures,
    parse_cosigner_vkey,
    parse_log_vkey,
)
from privyseal.tlog.note import Note, NoteVerifier, parse_note, verify_note

__all__ = [
    "NO_QUORUM",
    "CosignedCheckpoint",
    "Group",
    "PolicyLog",
    "PolicyWitness",
    "QuorumPolicy",
    "cosigned_by",
    "open_cosigned",
    "parse_policy",
    "policy_of_all",
]

MAX_POLICY_BYTES: Final = 256 * 1024

_CODE: Final = "quorum.malformed"
_NONE: Final = "none"
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_SPACE: Final = re.compile(r"[ \t]+")
_THRESHOLD: Final = re.compile(r"[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLog:
    """A log that the policy accepts; the name of its key is its origin."""

    key: LogKey
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWitness:
    """A witness.

    Attributes:
        name: By which the policy file refers to it.
        url: Its submission prefix, or empty.
    """

    name: str
    key: CosignerKey
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Acts as a witness if at least `threshold` of its members do."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumPolicy:
    """A policy.

    Attributes:
        groups: In the order of their definition: each one's members stand before it.
        quorum: Name of a witness or group, or `none`.
    """

    logs: tuple[PolicyLog, ...] = ()
    witnesses: tuple[PolicyWitness, ...] = ()
    groups: tuple[Group, ...] = ()
    quorum: str

    def is_met(self, cosigned: frozenset[str]) -> bool:
        """Whether the cosignatures of these witnesses, by their names here, are enough."""
        acting = {_NONE, *cosigned}
        for group in self.groups:
            if sum(member in acting for member in group.members) >= group.threshold:
                acting.add(group.name)
        return self.quorum in acting

    @property
    def wants_witnesses(self) -> bool:
        """Whether a checkpoint without any cosignature is not good enough."""
        return not self.is_met(frozenset())


#: The policy of whoever relies on no witness.
NO_QUORUM: Final = QuorumPolicy(quorum=_NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignedCheckpoint:
    """A checkpoint of a known log whose cosignatures meet a policy.

    Attributes:
        cosigned: Which witness, by its name in the policy, and its cosignature.
    """

    checkpoint: Checkpoint
    cosigned: tuple[tuple[str, Cosignature], ...]


@dataclass(slots=True)
class _Reading:
    logs: list[PolicyLog] = field(default_factory=list)
    witnesses: list[PolicyWitness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorums: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)

    def line(self, words: list[str]) -> None:
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self._log(PolicyLog(key=parse_log_vkey(vkey), url="".join(url)))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._witness(PolicyWitness(name=name, key=parse_cosigner_vkey(vkey), url="".join(url)))
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, tuple(members))
            case ["quorum", name]:
                self._quorum(name)
            case _:
                raise MalformedInputError(
                    _CODE,
                    "it is none of: log VKEY [URL], witness NAME VKEY [URL], group NAME all|any|K NAME..., quorum NAME",
                )

    def _log(self, log: PolicyLog) -> None:
        if any(log.key.public_key == other.key.public_key for other in self.logs):
            raise MalformedInputError(_CODE, f"the key of log {log.key.name[:80]} stands there twice")
        self.logs.append(log)

    def _witness(self, witness: PolicyWitness) -> None:
        if any(witness.key.public_key == other.key.public_key for other in self.witnesses):
            raise MalformedInputError(_CODE, f"the key of witness {witness.name[:80]} stands there twice")
        self._define(witness.name)
        self.witnesses.append(witness)

    def _group(self, name: str, threshold: str, members: tuple[str, ...]) -> None:
        for member in members:
            if member not in self.names:
                raise MalformedInputError(_CODE, f"{member[:80]!r} is not defined above")
            if member in self.members:
                raise MalformedInputError(_CODE, f"{member[:80]!r} is a member for the second time")
            self.members.add(member)
        least = {"any": 1, "all": len(members)}.get(threshold)
        if least is None:
            least = int(threshold) if _THRESHOLD.fullmatch(threshold) else 0
        if not 1 <= least <= len(members):
            raise MalformedInputError(_CODE, f"{threshold[:20]!r} is not all, any or a number up to {len(members)}")
        self._define(name)
        self.groups.append(Group(name=name, threshold=least, members=members))

    def _quorum(self, name: str) -> None:
        if name != _NONE and name not in self.names:
            raise MalformedInputError(_CODE, f"{name[:80]!r} is not defined above")
        self.quorums.append(name)

    def _define(self, name: str) -> None:
        if name == _NONE or name in self.names:
            raise MalformedInputError(_CODE, f"the name {name[:80]!r} is taken")
        self.names.add(name)

    def check_counts_once(self) -> None:
        """The keys of two types that one witness has must not both count.

        Which keys are one witness's is told by their key name, which every cosignature repeats.
        """
        for key_name, names in self._two_types().items():
            either = any(group.threshold == 1 and names <= set(group.members) for group in self.groups)
            if not either:
                raise MalformedInputError(
                    _CODE,
                    f"the witness {key_name[:80]} has keys of two types and would count twice; put "
                    f"{' and '.join(sorted(name[:80] for name in names))} into one group of their own: group NAME any",
                )

    def _two_types(self) -> dict[str, set[str]]:
        """Names that are members of groups, by key name, where one key name has both signature types."""
        types: dict[str, set[int]] = {}
        names: dict[str, set[str]] = {}
        for witness in self.witnesses:
            if witness.name in self.members:
                types.setdefault(witness.key.name, set()).add(witness.key.signature_type)
                names.setdefault(witness.key.name, set()).add(witness.name)
        return {name: names[name] for name, found in types.items() if len(found) > 1}


def parse_policy(data: bytes) -> QuorumPolicy:
    """A policy from its file.

    Raises:
        MalformedInputError: `quorum.malformed`, naming the line.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise MalformedInputError(_CODE, f"the quorum policy is longer than {MAX_POLICY_BYTES} bytes")
    if _FORBIDDEN.search(data):
        raise MalformedInputError(_CODE, "the quorum policy has control characters other than tab and newline")
    reading = _Reading()
    # Names are octets to the specification: whatever is not UTF-8 stays distinct, and is itself again when printed.
    for number, text in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), start=1):
        stripped = text.strip(" \t")
        if not stripped or stripped.startswith("#"):
            continue
        try:
            reading.line(_SPACE.split(stripped))
        except MalformedInputError as error:
            raise MalformedInputError(_CODE, f"line {number} of the quorum policy: {error.message}") from error
    reading.check_counts_once()
    if len(reading.quorums) != 1:
        raise MalformedInputError(_CODE, f"the quorum policy has {len(reading.quorums)} quorum lines; it needs one")
    return QuorumPolicy(
        logs=tuple(reading.logs),
        witnesses=tuple(reading.witnesses),
        groups=tuple(reading.groups),
        quorum=reading.quorums[0],
    )


def policy_of_all(keys: tuple[CosignerKey, ...]) -> QuorumPolicy:
    """The policy that each of these witnesses must have cosigned."""
    unique = tuple({key.public_key: key for key in keys}.values())
    witnesses = tuple(PolicyWitness(name=f"{key.name}+{key.key_id.hex()}", key=key) for key in unique)
    if not witnesses:
        return QuorumPolicy(quorum=_NONE)
    everyone = Group(name="all", threshold=len(witnesses), members=tuple(one.name for one in witnesses))
    return QuorumPolicy(witnesses=witnesses, groups=(everyone,), quorum=everyone.name)


def open_cosigned(
    data: bytes, policy: QuorumPolicy, logs: tuple[LogKey, ...], *, also: tuple[NoteVerifier, ...] = ()
) -> CosignedCheckpoint:
    """The checkpoint in a note, once a known log signed it and the policy's quorum cosigned it.

    Args:
        data: The note.
        policy: Whose cosignatures are needed.
        logs: The logs' keys: those of the policy, or what else is known. A key speaks for the log of its name.
        also: Further keys of that log, as `verify_note` takes them.

    Raises:
        MalformedInputError: `note.malformed`, `checkpoint.malformed`.
        VerificationError: `note.signature`, `note.unsigned`, `checkpoint.origin`, or `quorum.not_met`.
    """
    note = parse_note(data)
    checkpoint = parse_checkpoint(note.text)
    keys = tuple(key for key in logs if key.name == checkpoint.origin)
    if not keys:
        known = ", ".join(sorted({key.name for key in logs})) or "none"
        raise VerificationError(
            "checkpoint.origin", f"the checkpoint is of log {checkpoint.origin[:80]!r}; known is {known}"
        )
    verify_note(note, keys, also=also)
    cosigned = cosigned_by(note, policy)
    if not policy.is_met(frozenset(name for name, _ in cosigned)):
        names = ", ".join(name for name, _ in cosigned) or "no witness of the policy"
        raise VerificationError(
            "quorum.not_met",
            f"the checkpoint of size {checkpoint.size} is cosigned by {names}; that is not the quorum {policy.quorum}",
            hint="ask the witnesses that are missing for their cosignatures: privyseal log witness",
        )
    return CosignedCheckpoint(checkpoint=checkpoint, cosigned=cosigned)


def cosigned_by(note: Note, policy: QuorumPolicy) -> tuple[tuple[str, Cosignature], ...]:
    """The witnesses of a policy that cosigned a checkpoint, by their names there, with their cosignatures.

    Raises:
        VerificationError: `note.signature` if a line of one of them does not hold.
    """
    names = {witness.key: witness.name for witness in policy.witnesses}
    return tuple((names[one.key], one) for one in cosignatures(note, tuple(names)))
