# SPDX-License-Identifier: Apache-2.0
"""Having a hub's newest checkpoint cosigned by witnesses (C2SP tlog-witness), as anybody may who can read the log."""

from dataclasses import dataclass, replace
from typing import Final, Self

from privyseal.client.log import PublicLog
from privyseal.client.witness_http import WitnessAnswer, add_checkpoint
from privyseal.errors import (
    ConfigError,
    LogIntegrityError,
    MalformedInputError,
    PrivysealError,
    UnavailableError,
    VerificationError,
)
from privyseal.tlog.checkpoint import Checkpoint, parse_decimal
from privyseal.tlog.cosignature import cosignatures
from privyseal.tlog.note import Note, NoteSignature, VerifierKey, parse_note
from privyseal.tlog.quorum import CosignedCheckpoint, PolicyWitness, QuorumPolicy, open_cosigned
from privyseal.tlog.witness import AddCheckpoint

__all__ = ["Witnessed", "witness_newest"]

_SIZE_TYPE: Final = "text/x.tlog.size"
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Newest:
    note: Note
    checkpoint: Checkpoint

    @classmethod
    def of(cls, log: PublicLog) -> Self:
        """The newest checkpoint of a log, signed by its key, and the note in which it came."""
        data = log.checkpoint_note()
        checkpoint = log.open(data)
        return cls(note=parse_note(data), checkpoint=checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """A checkpoint whose cosignatures meet the policy.

    Attributes:
        note: The cosigned note, as text.
        missing: Witnesses that did not cosign, by their names in the policy, and why.
    """

    note: str
    opened: CosignedCheckpoint
    missing: tuple[tuple[str, PrivysealError], ...]


class _AheadError(Exception):
    """A witness says that it has cosigned a larger tree than the checkpoint's."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def witness_newest(hub: PublicLog, policy: QuorumPolicy) -> Witnessed:
    """Put a log's newest checkpoint before each of a policy's witnesses that has a URL.

    Raises:
        LogIntegrityError: `log.rewound`, `log.fork` if a witness has seen another log than the hub shows.
        VerificationError: `quorum.not_met`.
        PrivysealError: what stood in the way of the first witness, if none cosigned.
    """
    newest = _Newest.of(hub)
    for _ in range(_ATTEMPTS):
        try:
            return _gather(hub, newest, policy)
        except _AheadError as ahead:
            # Somebody else may have shown it a newer checkpoint in the meantime.
            newest = _Newest.of(hub)
            if newest.checkpoint.size < ahead.size:
                raise LogIntegrityError(
                    "log.rewound",
                    f"a witness has cosigned a log of {ahead.size} entries; the hub now shows {newest.checkpoint.size}",
                    hint="the hub's log was cut, or the witness lies: ask another witness",
                ) from ahead
    raise UnavailableError("witness.busy", "the log grows faster than the witnesses are asked", hint="try again")


def _gather(hub: PublicLog, newest: _Newest, policy: QuorumPolicy) -> Witnessed:
    note = newest.note
    missing: list[tuple[str, PrivysealError]] = []
    for url in dict.fromkeys(witness.url for witness in policy.witnesses if witness.url):
        # One answer holds the cosignatures of all keys that a witness has.
        answering = tuple(witness for witness in policy.witnesses if witness.url == url)
        try:
            answered = _answered(hub, newest, answering)
        except LogIntegrityError:
            raise
        except PrivysealError as error:
            missing.extend((witness.name, error) for witness in answering)
            continue
        for witness in answering:
            try:
                note = _with(note, _own(answered, witness))
            except PrivysealError as error:
                missing.append((witness.name, error))
    logs = tuple(log.key for log in policy.logs) or (hub.key,)
    try:
        opened = open_cosigned(note.encode().encode(), policy, logs, also=hub.also)
    except VerificationError as error:
        if note is newest.note and missing:
            raise missing[0][1] from error
        raise
    return Witnessed(note=note.encode(), opened=opened, missing=tuple(missing))


def _answered(hub: PublicLog, newest: _Newest, answering: tuple[PolicyWitness, ...]) -> Note:
    """The checkpoint with the lines that a witness answers with; whose they are is not looked at yet."""
    url, old_size = answering[0].url, 0
    # Others' cosignatures are nothing to this witness, and many would be more than it takes.
    log_lines = tuple(line for line in newest.note.signatures if line.name == newest.checkpoint.origin)
    for _ in range(_ATTEMPTS):
        asked = AddCheckpoint(
            old_size=old_size,
            proof=hub.consistency(old_size, newest.checkpoint.size),
            note=replace(newest.note, signatures=log_lines),
            checkpoint=newest.checkpoint,
        )
        answer = add_checkpoint(url, asked.encode())
        if answer.status != 409 or answer.content_type != _SIZE_TYPE:
            return _note_of(answer, newest.note.text, url, hub.key)
        old_size = _size(answer, url)
        if old_size > newest.checkpoint.size:
            raise _AheadError(old_size)
    raise UnavailableError("witness.busy", f"the witness {answering[0].name} is asked by others all the time")


def _size(answer: WitnessAnswer, url: str) -> int:
    try:
        return parse_decimal(answer.body.decode("ascii").removesuffix("\n"), "witness.answer", "the size")
    except (MalformedInputError, UnicodeDecodeError) as error:
        raise UnavailableError("witness.answer", f"the witness at {url} answers with no size") from error


def _note_of(answer: WitnessAnswer, text: str, url: str, log_key: VerifierKey) -> Note:
    if answer.status != 200:
        raise _refusal(answer, url, log_key)
    try:
        return parse_note(f"{text}\n".encode() + answer.body)
    except MalformedInputError as error:
        raise UnavailableError("witness.answer", f"the witness at {url} answers with no cosignature") from error


def _own(answered: Note, witness: PolicyWitness) -> NoteSignature:
    """The cosignature of just this key; whatever else was answered is left out."""
    if not cosignatures(answered, (witness.key,)):
        names = ", ".join(sorted({f"{one.name}+{one.key_id.hex()}" for one in answered.signatures}))
        raise VerificationError(
            "witness.other_key",
            f"the witness at {witness.url} answers with no cosignature of the key "
            f"{witness.key.name}+{witness.key.key_id.hex()}; it has those of {names}",
            hint="compare its verifier key with what `privyseal witness show` prints there",
        )
    return answered.signatures_by(witness.key.name, witness.key.key_id)[0]


def _with(note: Note, line: NoteSignature) -> Note:
    """The note with this line, in the place of others of its key: the hub may have shown older ones already."""
    others = tuple(one for one in note.signatures if (one.name, one.key_id) != (line.name, line.key_id))
    return replace(note, signatures=(*others, line))


def _refusal(answer: WitnessAnswer, url: str, log_key: VerifierKey) -> PrivysealError:
    says = f"the witness at {url} refuses (HTTP {answer.status}): {answer.words}"
    if answer.status in {403, 404}:
        table = f'[[log]] origin = "{log_key.name}" key = "{log_key.vkey}"'
        return ConfigError("witness.unknown_log", says, hint=f"its witness.toml needs: {table}")
    if answer.status in {409, 422}:
        return LogIntegrityError(
            "log.fork",
            f"the hub's log does not extend the one that the witness at {url} has cosigned: {answer.words}",
            hint="keep the hub's checkpoint and the last cosigned one: two that contradict each other are the proof",
        )
    return UnavailableError("witness.refused", says, hint="look into the witness's own log")
