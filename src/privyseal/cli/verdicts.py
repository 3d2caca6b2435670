# SPDX-License-Identifier: Apache-2.0
"""What `verify` says of a file: as JSON, in detail, or in a line for each signature."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from privyseal.client.verifying import VerifyReport
from privyseal.formats.model import PageHashState, SignatureReport, TimestampReport
from privyseal.pki import oids
from privyseal.pki.x509 import Certificate, parse_certificate

__all__ = ["brief_lines", "detailed_lines", "verdict_data"]

_PURPOSES: Final = {
    oids.EKU_CODE_SIGNING: "code signing",
    oids.EKU_LIFETIME_SIGNING: "lifetime signing",
    oids.EKU_TIME_STAMPING: "time stamping",
    oids.ANY_EXTENDED_KEY_USAGE: "anything",
}
_PAGE_HASHES: Final = {
    PageHashState.ABSENT: "no page hashes",
    PageHashState.UNCHECKED: "page hashes, not checked",
    PageHashState.CHECKED: "page hashes, all right",
    PageHashState.WRONG: "page hashes, wrong",
}


def verdict_data(report: VerifyReport) -> dict[str, Any]:
    """One JSON document, of the same form whether the file verified or not."""
    receipt, error = report.receipt, report.error
    return {
        "file": str(report.path),
        "verified": error is None,
        "format": report.format,
        "signatures": [_signature_data(signature) for signature in report.signatures],
        "windows": report.signatures[0].windows if report.signatures else "",
        "receipt": None
        if receipt is None
        else {
            "log": receipt.checkpoint.origin,
            "index": receipt.index,
            "size": receipt.checkpoint.size,
            "cosigned": list(receipt.cosigned),
        },
        "unjudged_receipt": None if report.unjudged_receipt is None else str(report.unjudged_receipt),
        "log_size": report.log_size,
        "error": None
        if error is None
        else {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "exit": error.exit_status,
            "retryable": error.retryable,
        },
    }


def _signature_data(signature: SignatureReport) -> dict[str, Any]:
    signer = _signer(signature)
    return {
        "kind": signature.kind.value,
        "verified": not signature.problems,
        "subject": signature.subject,
        "issuer": "" if signer is None else signer.issuer,
        "serial": "" if signer is None else f"{signer.serial_number:x}",
        "key": signature.spki_sha256.hex(),
        "not_before": None if signer is None else signer.not_before.isoformat(),
        "not_after": None if signer is None else signer.not_after.isoformat(),
        "extended_key_usage": [] if signer is None else list(signer.extended_key_usage or ()),
        "artifact": f"{signature.artifact.algorithm}:{signature.artifact.digest.hex()}",
        "digest_algorithm": signature.digest_algorithm,
        "signature_sha256": signature.signature_sha256.hex(),
        "page_hashes": signature.page_hashes.value,
        "chain": _chain(signature),
        "anchored": signature.anchored,
        "timestamp": _moment(signature.timestamped_at),
        "timestamps": [
            {
                "gen_time": _moment(one.gen_time),
                "subject": one.subject,
                "code": one.problem_code,
                "problem": one.problem,
            }
            for one in signature.timestamps
        ],
        "countersignatures": signature.countersignatures,
        "findings": [
            {"severity": one.severity.value, "code": one.code, "message": one.message, "hint": one.hint}
            for one in signature.findings
        ],
        "windows": signature.windows,
    }


def brief_lines(report: VerifyReport) -> Iterator[str]:
    """A line for each signature, and one for what is wrong beside them."""
    reasons = {one.code for signature in report.signatures for one in signature.problems}
    # A file that failed has no line that says "verified", whichever of its parts hold.
    sound = "verified" if report.error is None else "holds   "
    for number, signature in enumerate(report.signatures):
        place = signature.kind.value if number == 0 else f"{signature.kind.value} {number + 1}"
        word = "failed  " if signature.problems else sound
        line = f"{word}  {report.path}  {place}  {signature.subject or 'no signer'}"
        if signature.problems:
            yield f"{line}  " + "; ".join(f"{one.message} [{one.code}]" for one in signature.problems)
            continue
        time = _moment(signature.timestamped_at)
        line += f"  {signature.digest_algorithm}  " + (f"timestamp {time}" if time else "no timestamp")
        yield line + "".join(f"  {one.code}" for one in signature.warnings)
    if report.error is not None and report.error.code not in reasons:
        yield f"failed    {report.path}  {report.error.message} [{report.error.code}]"


def detailed_lines(report: VerifyReport) -> Iterator[str]:
    """Everything that is known of one file."""
    yield f"{_verdict(report.error is None)}  {report.path}" + (f" ({report.format})" if report.format else "")
    for number, signature in enumerate(report.signatures, start=1):
        verdict = "does not hold" if signature.problems else "holds"
        yield f"signature {number} of {len(report.signatures)}, {signature.kind.value}: {verdict}"
        for label, text in _details(signature):
            yield f"  {label:<9} {text}"
    if report.receipt is not None:
        place = f"entry {report.receipt.index} of log {report.receipt.checkpoint.origin}"
        today = (
            "the hub was not asked"
            if report.log_size is None
            else f"the hub's log of {report.log_size} entries extends it"
        )
        cosigned = f", cosigned by {', '.join(report.receipt.cosigned)}" if report.receipt.cosigned else ""
        yield f"receipt   {place}{cosigned}; {today}"
    elif report.unjudged_receipt is None:
        yield "receipt   none"
    elif report.error is None:
        yield f"receipt   {report.unjudged_receipt} was not judged: that needs the hub's trust bundle (--bundle)"
    else:
        yield f"receipt   {report.unjudged_receipt} does not count"


def _details(signature: SignatureReport) -> Iterator[tuple[str, str]]:
    signer = _signer(signature)
    if signer is not None:
        yield "signer", signer.subject
        yield "issuer", f"{signer.issuer}, serial number {signer.serial_number:x}"
        yield "valid", f"{_moment(signer.not_before)} to {_moment(signer.not_after)}"
        purposes = signer.extended_key_usage
        yield "for", ", ".join(_PURPOSES.get(one, one) for one in purposes or ()) or "no purpose named"
        end = "which is trusted" if signature.anchored else "not trusted"
        yield "chain", " < ".join(_chain(signature)) + f", {end}"
    if signature.artifact.algorithm:
        yield "artifact", f"{signature.artifact.algorithm}:{signature.artifact.digest.hex()}"
        yield "digest", f"{signature.digest_algorithm}; {_PAGE_HASHES[signature.page_hashes]}"
    for timestamp in signature.timestamps:
        yield "timestamp", _timestamp(timestamp)
    if not signature.timestamps:
        yield "timestamp", "none"
    for finding in signature.findings:
        yield finding.severity.value, f"{finding.message} [{finding.code}]"
    if signature.windows:
        yield "windows", signature.windows


def _timestamp(timestamp: TimestampReport) -> str:
    said = f"{_moment(timestamp.gen_time) or 'unreadable'} by {timestamp.subject or 'an unknown TSA'}"
    return f"{said}; it counts for nothing" if timestamp.problem_code else said


def _signer(signature: SignatureReport) -> Certificate | None:
    return parse_certificate(signature.chain[0]) if signature.chain else None


def _chain(signature: SignatureReport) -> list[str]:
    return [parse_certificate(one).subject for one in signature.chain]


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _verdict(holds: bool) -> str:  # noqa: FBT001
    return "verified" if holds else "failed  "
