# SPDX-License-Identifier: Apache-2.0
"""Checking a receipt: the RESULT entry stands in the pinned log, and it speaks of exactly this signature."""

from dataclasses import dataclass
from pathlib import Path

from privyseal.client.files import open_source
from privyseal.errors import MalformedInputError, UnsupportedInputError, VerificationError
from privyseal.formats.model import SignatureReport
from privyseal.identity.bundle import TrustBundle
from privyseal.tlog.checkpoint import Checkpoint, parse_checkpoint
from privyseal.tlog.entry import Result, parse_entry
from privyseal.tlog.note import parse_note
from privyseal.tlog.receipt import MAX_RECEIPT_BYTES, parse_receipt, verify_receipt

__all__ = ["CheckedReceipt", "check_receipt", "match_receipt", "read_receipt", "receipt_path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedReceipt:
    """A receipt whose proof holds.

    Attributes:
        index: Place of the RESULT entry.
        checkpoint: The tree under which the receipt shows it.
    """

    entry: Result
    index: int
    checkpoint: Checkpoint


def receipt_path(target: Path) -> Path:
    """Where the receipt of a signed file lies."""
    return target.with_name(target.name + ".tlog-proof")


def check_receipt(text: str | bytes, bundle: TrustBundle) -> CheckedReceipt:
    """Check a receipt against the pinned log key, without any network.

    Raises:
        MalformedInputError: `receipt.malformed` and its kin.
        VerificationError: `note.signature`, `proof.inclusion`, `receipt.not_a_result`.
    """
    receipt = parse_receipt(text)
    key = bundle.check_log(parse_checkpoint(parse_note(receipt.checkpoint).text))
    checkpoint = verify_receipt(receipt, entry=receipt.extra, origin=key.name, verifiers=(key,))
    entry = parse_entry(receipt.extra)
    if not isinstance(entry, Result) or entry.outcome != "ok":
        raise VerificationError("receipt.not_a_result", "the receipt is of an entry that records no signature")
    return CheckedReceipt(entry=entry, index=receipt.index, checkpoint=checkpoint)


def match_receipt(receipt: CheckedReceipt, report: SignatureReport, format_name: str) -> None:
    """The receipt speaks of this signature: key, format, artifact digest and signature value are recomputed.

    Raises:
        VerificationError: `receipt.mismatch`, naming what differs.
    """
    entry = receipt.entry
    pairs = {
        "key": (entry.key, report.spki_sha256.hex()),
        "format": (entry.format, format_name),
        "artifact digest": (
            (entry.artifact.alg, entry.artifact.digest),
            (report.artifact.algorithm, report.artifact.digest.hex()),
        ),
        "signature": (entry.signature, report.signature_sha256.hex()),
    }
    for what, (recorded, found) in pairs.items():
        if recorded != found:
            raise VerificationError(
                "receipt.mismatch",
                f"the receipt is of another signature: the {what} in the file is not the recorded one",
            )


def read_receipt(path: Path) -> bytes:
    """Read a receipt file; of one that is too large no more than shows that.

    Raises:
        MalformedInputError: `file.unreadable`.
    """
    try:
        with open_source(path) as source:
            return source.stream.read(MAX_RECEIPT_BYTES + 1)
    except OSError as error:
        raise MalformedInputError("file.unreadable", f"cannot read receipt {path}: {error.strerror}") from error
    except UnsupportedInputError as error:
        raise MalformedInputError("file.unreadable", f"the receipt {path} is no regular file") from error
