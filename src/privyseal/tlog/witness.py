# SPDX-License-Identifier: Apache-2.0
"""What a witness does with a checkpoint that is put before it (C2SP tlog-witness, `add-checkpoint`).

Only the decision: whoever calls makes `Extension.seen` durable before the cosignature leaves, and lets no second
decision begin in between.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.tlog.checkpoint import Checkpoint, parse_checkpoint, parse_decimal
from privyseal.tlog.note import Note, NoteVerifier, decode_base64, decode_text, encode_base64, parse_note, verify_note
from privyseal.tlog.proof import verify_consistency
from privyseal.tlog.tree import EMPTY_ROOT, HASH_BYTES

__all__ = [
    "MAX_BODY_BYTES",
    "NOTHING_SEEN",
    "AddCheckpoint",
    "Extension",
    "Refusal",
    "Seen",
    "judge_checkpoint",
    "parse_add_checkpoint",
]

#: A note with 16 signatures of 5 kB, which verifiers must accept (C2SP signed-note), and the longest proof.
MAX_BODY_BYTES: Final = 128 * 1024

#: C2SP tlog-witness: a client must not send more lines.
_MAX_PROOF_LINES: Final = 63
_CODE: Final = "witness.request"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """The body of a request, by its form alone.

    Attributes:
        old_size: What the sender believes to be the size that the witness cosigned last.
        proof: Consistency proof from there to the checkpoint.
        note: The checkpoint with its signatures.
        checkpoint: What the note says.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint

    def encode(self) -> str:
        """The body; `parse_add_checkpoint` gives the same again."""
        lines = (f"old {self.old_size}", *(encode_base64(one) for one in self.proof), "", self.note.encode())
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The tree of one log that a witness cosigned last.

    Attributes:
        root: 32 bytes.
    """

    size: int
    root: bytes


#: Of a log of which nothing was cosigned yet.
NOTHING_SEEN: Final = Seen(size=0, root=EMPTY_ROOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """The checkpoint extends what was seen of its log: it may be cosigned once `seen` is durable.

    Attributes:
        text: The note's text, which the cosignature covers.
    """

    origin: str
    seen: Seen
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the checkpoint is not cosigned.

    Attributes:
        status: HTTP status of the answer.
        reason: In words.
        size: The size that was cosigned last, where the sender can go on from there (`text/x.tlog.size`); else None.
    """

    status: int
    reason: str
    size: int | None = None


def parse_add_checkpoint(body: str | bytes) -> AddCheckpoint:
    """The body of `add-checkpoint`; nothing is verified.

    Raises:
        MalformedInputError: `witness.request`, `note.malformed`, `checkpoint.malformed`.
    """
    text = decode_text(body, limit_bytes=MAX_BODY_BYTES, code=_CODE, what="the request")
    head, empty, rest = text.partition("\n\n")
    first, *lines = head.split("\n")
    if not empty or not first.startswith("old "):
        raise MalformedInputError(
            _CODE, "the request is a line `old SIZE`, a consistency proof, an empty line and a checkpoint"
        )
    if len(lines) > _MAX_PROOF_LINES:
        raise MalformedInputError(_CODE, f"the consistency proof has more than {_MAX_PROOF_LINES} lines")
    proof = tuple(decode_base64(line, _CODE, "a line of the consistency proof") for line in lines)
    if any(len(one) != HASH_BYTES for one in proof):
        raise MalformedInputError(_CODE, f"a line of the consistency proof has not {HASH_BYTES} bytes")
    note = parse_note(rest)
    return AddCheckpoint(
        old_size=parse_decimal(first.removeprefix("old "), _CODE, "the old size"),
        proof=proof,
        note=note,
        checkpoint=parse_checkpoint(note.text),
    )


def judge_checkpoint(
    body: str | bytes, *, logs: Mapping[str, tuple[NoteVerifier, ...]], seen: Mapping[str, Seen]
) -> Extension | Refusal:
    """Whether a checkpoint may be cosigned.

    Args:
        body: As it came.
        logs: The keys of each known log, by origin.
        seen: What was cosigned last of each log, by origin.
    """
    try:
        request = parse_add_checkpoint(body)
    except MalformedInputError as error:
        return Refusal(status=400, reason=error.message)
    checkpoint = request.checkpoint
    keys = logs.get(checkpoint.origin)
    if keys is None:
        return Refusal(status=404, reason=f"log {checkpoint.origin[:80]!r} is not one of this witness's")
    try:
        verify_note(request.note, keys)
    except VerificationError as error:
        return Refusal(status=403, reason=error.message)
    return _judge_growth(request, seen.get(checkpoint.origin, NOTHING_SEEN))


def _judge_growth(request: AddCheckpoint, last: Seen) -> Extension | Refusal:
    checkpoint, old_size = request.checkpoint, request.old_size
    if old_size > checkpoint.size:
        return Refusal(status=400, reason=f"the checkpoint's size {checkpoint.size} is below the old size {old_size}")
    if old_size != last.size:
        return Refusal(status=409, reason=f"size {last.size} was cosigned last, not {old_size}", size=last.size)
    if checkpoint.size == last.size and checkpoint.root != last.root:
        # Without the size: the sender must not take this for an invitation to go on from there.
        return Refusal(status=409, reason=f"another root was cosigned at size {last.size}")
    try:
        verify_consistency(
            old_size=last.size,
            new_size=checkpoint.size,
            old_root=last.root,
            new_root=checkpoint.root,
            proof=request.proof,
        )
    except VerificationError as error:
        return Refusal(status=422, reason=error.message)
    return Extension(
        origin=checkpoint.origin, seen=Seen(size=checkpoint.size, root=checkpoint.root), text=request.note.text
    )
