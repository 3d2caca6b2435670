# SPDX-License-Identifier: Apache-2.0
"""Checking a receipt: the RESULT entry stands in the pinned log, and it speaks of exactly this signature."""

from dataclasses import dataclass
from pathlib import Path

from privyseal.client.files import open_source
from privyseal.errors import MalformedInputError, UnsupportedInputError, VerificationError
from privyseal.formats.model import SignatureReport
from privyseal.identity.bundle import TrustBundle
from privyseal.tlog.checkpoint import Checkpoint, parse_checkpoint
from privyseal.tlog.cosignature import LogKey
from privyseal.tlog.entry import Result, parse_entry
from privyseal.tlog.note import parse_note
from privyseal.tlog.quorum import CosignedCheckpoint, QuorumPolicy, open_cosigned
from privyseal.tlog.receipt import MAX_RECEIPT_BYTES, Receipt, parse_receipt, verify_receipt

__all__ = ["CheckedReceipt", "check_receipt", "match_receipt", "read_receipt", "receipt_path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedReceipt:
    """A receipt whose proof holds.

    Attributes:
        index: Place of the RESULT entry.
        checkpoint: The tree under which the receipt shows it.
        cosigned: Witnesses of the quorum policy that cosigned it, by their names there; empty without a policy.
    """

    entry: Result
    index: int
    checkpoint: Checkpoint
    cosigned: tuple[str, ...] = ()


def receipt_path(target: Path) -> Path:
    """Where the receipt of a signed file lies."""
    return target.with_name(target.name + ".tlog-proof")


def check_receipt(text: str | bytes, bundle: TrustBundle | None, policy: QuorumPolicy | None = None) -> CheckedReceipt:
    """Check a receipt without any network: against the pinned log key, and if wanted against a quorum of witnesses.

    Args:
        text: The receipt.
        bundle: Pins the log; None if the policy names it.
        policy: Whose cosignatures its checkpoint must carry.

    Raises:
        MalformedInputError: `receipt.malformed` and its kin.
        VerificationError: `note.signature`, `proof.inclusion`, `receipt.not_a_result`, `quorum.not_met`.
    """
    receipt = parse_receipt(text)
    shown = parse_checkpoint(parse_note(receipt.checkpoint).text)
    logs: tuple[LogKey, ...] = () if policy is None else tuple(log.key for log in policy.logs)
    pinned: tuple[LogKey, ...] = logs if bundle is None else (bundle.check_log(shown),)
    opened = None if policy is None else _open_cosigned(receipt, policy, logs or pinned)
    checkpoint = verify_receipt(receipt, entry=receipt.extra, origin=shown.origin, verifiers=pinned)
    entry = parse_entry(receipt.extra)
    if not isinstance(entry, Result) or entry.outcome != "ok":
        raise VerificationError("receipt.not_a_result", "the receipt is of an entry that records no signature")
    return CheckedReceipt(
        entry=entry,
        index=receipt.index,
        checkpoint=checkpoint,
        cosigned=() if opened is None else tuple(name for name, _ in opened.cosigned),
    )


def _open_cosigned(receipt: Receipt, policy: QuorumPolicy, logs: tuple[LogKey, ...]) -> CosignedCheckpoint:
    try:
        return open_cosigned(receipt.checkpoint.encode(), policy, logs)
    except VerificationError as error:
        if error.code != "quorum.not_met":
            raise
        raise VerificationError(
            error.code,
            f"the receipt does not meet the quorum policy: {error.message}",
            hint="its entry can be proven under a checkpoint that is cosigned now: "
            "privyseal log cosign --policy FILE RECEIPT",
        ) from error


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
