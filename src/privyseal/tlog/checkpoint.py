# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a log: a signed note over origin, tree size and root hash (C2SP tlog-checkpoint)."""

import re
from dataclasses import dataclass
from typing import Final

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.tlog.note import (
    MAX_NOTE_BYTES,
    Note,
    NoteSigner,
    NoteVerifier,
    decode_base64,
    decode_text,
    encode_base64,
    parse_note,
    verify_note,
)
from privyseal.tlog.tree import HASH_BYTES, MAX_TREE_SIZE

__all__ = [
    "Checkpoint",
    "open_checkpoint",
    "parse_checkpoint",
    "parse_decimal",
    "sign_checkpoint",
]

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint says.

    Attributes:
        origin: The log's identity.
        size: Tree size.
        root: 32 bytes.
        extensions: Opaque extension lines without their newlines. We write none: nobody audits them.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or _CONTROL.search(line):
                raise MalformedInputError(
                    "checkpoint.malformed", "origin and extension lines are not empty and each is one line"
                )
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise MalformedInputError("checkpoint.malformed", f"tree size {self.size} is not in 0..2^63-1")
        if len(self.root) != HASH_BYTES:
            raise MalformedInputError(
                "checkpoint.malformed", f"the root hash has {len(self.root)} bytes; expected {HASH_BYTES}"
            )

    @property
    def text(self) -> str:
        """The note text."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "\n".join(lines) + "\n"


def parse_decimal(text: str, code: str, what: str) -> int:
    """An ASCII decimal below 2^63 without leading zeroes.

    Raises:
        MalformedInputError: with `code`.
    """
    value = int(text) if _DECIMAL.fullmatch(text) else -1
    if not 0 <= value <= MAX_TREE_SIZE:
        raise MalformedInputError(code, f"{what} is not a decimal below 2^63 without leading zeroes")
    return value


def parse_checkpoint(text: str) -> Checkpoint:
    """A checkpoint from the text of its note. Nothing is verified; `open_checkpoint` does both.

    Raises:
        MalformedInputError: `checkpoint.malformed`.
    """
    code = "checkpoint.malformed"
    lines = decode_text(text, limit_bytes=MAX_NOTE_BYTES, code=code, what="the checkpoint").split("\n")
    if len(lines) < 4 or lines[-1]:
        raise MalformedInputError(code, "a checkpoint has an origin, a size and a root line, each ending in a newline")
    origin, size, root, *extensions = lines[:-1]
    return Checkpoint(
        origin=origin,
        size=parse_decimal(size, code, "the tree size"),
        root=decode_base64(root, code, "the root hash"),
        extensions=tuple(extensions),
    )


def sign_checkpoint(checkpoint: Checkpoint, signer: NoteSigner) -> str:
    """The checkpoint as a signed note; the caller has made sure that it extends all that the key signed.

    Raises:
        MalformedInputError: `note.malformed` if its lines cannot stand in a note.
    """
    text = checkpoint.text
    return Note(text=text, signatures=(signer.sign(text),)).encode()


def open_checkpoint(
    note: str | bytes, *, origin: str, verifiers: tuple[NoteVerifier, ...], also: tuple[NoteVerifier, ...] = ()
) -> Checkpoint:
    """The checkpoint in a signed note, once a known key's signature over it holds.

    Args:
        note: The signed note.
        origin: The log that it must speak of.
        verifiers: The log's keys. Witnesses' keys are counted apart: a witness does not speak for the log.
        also: Further keys of the log, as `verify_note` takes them.

    Raises:
        MalformedInputError: `note.malformed`, `checkpoint.malformed`.
        VerificationError: `note.signature`, `note.unsigned`, or `checkpoint.origin` for another log's
            checkpoint.
    """
    parsed = parse_note(note)
    verify_note(parsed, verifiers, also=also)
    checkpoint = parse_checkpoint(parsed.text)
    if checkpoint.origin != origin:
        raise VerificationError(
            "checkpoint.origin",
            f"the checkpoint is of log {checkpoint.origin[:80]!r}; expected {origin!r}",
        )
    return checkpoint
