# SPDX-License-Identifier: Apache-2.0
"""Renewing a receipt: the same entry, proven under a later checkpoint that witnesses have cosigned."""

from dataclasses import replace

from privyseal.client.log import PublicLog
from privyseal.errors import LogIntegrityError, VerificationError
from privyseal.tlog.receipt import Receipt, parse_receipt, verify_receipt

__all__ = ["renew_receipt"]


def renew_receipt(log: PublicLog, text: str | bytes, note: str) -> Receipt:
    """The receipt of the same entry under another checkpoint of the log.

    Args:
        log: Its tiles give the new proof, which is checked.
        text: The receipt so far.
        note: The other checkpoint, a note.

    Raises:
        MalformedInputError: `receipt.malformed` and its kin.
        VerificationError: `note.signature`, `proof.inclusion`: the receipt so far does not hold;
            `receipt.beyond` if the other tree is too small to hold its entry.
        LogIntegrityError: `log.fork` if the log does not hold the entry any more; `log.checkpoint`, `log.tile`.
    """
    old = parse_receipt(text)
    verify_receipt(old, entry=old.extra, origin=log.origin, verifiers=(log.key,))
    size = log.open(note).size
    if old.index >= size:
        raise VerificationError(
            "receipt.beyond",
            f"the receipt is of entry {old.index}, and the checkpoint of a log of {size} entries",
            hint="take a newer checkpoint",
        )
    new = replace(old, proof=log.inclusion(old.index, size), checkpoint=note)
    try:
        verify_receipt(new, entry=new.extra, origin=log.origin, verifiers=(log.key,))
    except VerificationError as error:
        raise LogIntegrityError(
            "log.fork",
            f"the log of {size} entries at {log.place} does not hold entry {old.index} as the receipt shows it",
            hint="the log was rewritten: keep the receipt, it proves that",
        ) from error
    return new
