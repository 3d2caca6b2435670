# SPDX-License-Identifier: Apache-2.0
"""Receipts: offline proof that an entry stands in a log (C2SP tlog-proof, `c2sp.org/tlog-proof@v1`)."""

from dataclasses import dataclass
from typing import Final

from privyseal.errors import MalformedInputError
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, parse_decimal
from privyseal.tlog.note import NoteVerifier, decode_base64, decode_text, encode_base64, parse_note
from privyseal.tlog.proof import MAX_PROOF_HASHES, verify_inclusion
from privyseal.tlog.tree import HASH_BYTES, MAX_TREE_SIZE, leaf_hash

__all__ = ["HEADER", "MAX_RECEIPT_BYTES", "Receipt", "parse_receipt", "verify_receipt"]

HEADER: Final = "c2sp.org/tlog-proof@v1"

#: Room for the largest entry in `extra`, the longest proof and a checkpoint with many cosignatures.
MAX_RECEIPT_BYTES: Final = 1024 * 1024

_CODE: Final = "receipt.malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A tlog-proof as parsed: nothing is verified yet.

    Attributes:
        index: Zero-based index of the entry.
        proof: Inclusion proof, leaf side first.
        checkpoint: The signed note, verbatim.
        extra: Data that nothing authenticates by itself; here the entry's bytes. Empty if there is none.
    """

    index: int
    proof: tuple[bytes, ...]
    checkpoint: str
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_TREE_SIZE:
            raise MalformedInputError(_CODE, f"index {self.index} is not in 0..2^63-1")
        if len(self.proof) > MAX_PROOF_HASHES or any(len(value) != HASH_BYTES for value in self.proof):
            raise MalformedInputError(
                _CODE, f"an inclusion proof has at most {MAX_PROOF_HASHES} hashes of {HASH_BYTES} bytes"
            )
        parse_checkpoint(parse_note(self.checkpoint).text)

    def encode(self) -> str:
        """The receipt as text; `parse_receipt` gives the same receipt again."""
        lines = [HEADER]
        if self.extra:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [encode_base64(value) for value in self.proof]
        return "\n".join(lines) + "\n\n" + self.checkpoint


def parse_receipt(text: str | bytes) -> Receipt:
    """A receipt by its form; nothing is verified.

    Raises:
        MalformedInputError: `receipt.malformed`, and `note.malformed` or `checkpoint.malformed` for its
            checkpoint.
    """
    whole = decode_text(text, limit_bytes=MAX_RECEIPT_BYTES, code=_CODE, what="the receipt")
    head, separator, checkpoint = whole.partition("\n\n")
    # The longest head: header, extra, index and the proof; more lines are not worth splitting.
    lines = head.split("\n", MAX_PROOF_HASHES + 3)
    if not separator or lines.pop(0) != HEADER:
        raise MalformedInputError(_CODE, f"a receipt begins with {HEADER} and has an empty line before the checkpoint")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = decode_base64(lines.pop(0).removeprefix("extra "), _CODE, "the extra data")
        if not extra:
            raise MalformedInputError(_CODE, "a receipt without extra data has no extra line")
    if not lines or not lines[0].startswith("index "):
        raise MalformedInputError(_CODE, "a receipt has an index line before its inclusion proof")
    index = parse_decimal(lines.pop(0).removeprefix("index "), _CODE, "the entry's index")
    proof = tuple(decode_base64(line, _CODE, "a hash of the inclusion proof") for line in lines)
    return Receipt(index=index, proof=proof, checkpoint=checkpoint, extra=extra)


def verify_receipt(receipt: Receipt, *, entry: bytes, origin: str, verifiers: tuple[NoteVerifier, ...]) -> Checkpoint:
    """Check that an entry stands in the log at the receipt's index.

    Args:
        receipt: A parsed receipt.
        entry: The entry's bytes, recomputed or (if their meaning is checked afterwards) taken from `extra`.
        origin: The log that must have made it.
        verifiers: The log's keys.

    Returns:
        The checkpoint under which it was shown.

    Raises:
        MalformedInputError: `checkpoint.malformed`.
        VerificationError: `note.signature`, `note.unsigned`, `checkpoint.origin`, or `proof.inclusion`.
    """
    checkpoint = open_checkpoint(receipt.checkpoint, origin=origin, verifiers=verifiers)
    verify_inclusion(
        leaf=leaf_hash(entry),
        index=receipt.index,
        size=checkpoint.size,
        proof=receipt.proof,
        root=checkpoint.root,
    )
    return checkpoint
