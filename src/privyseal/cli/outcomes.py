# SPDX-License-Identifier: Apache-2.0
"""What became of files, for people and for programs."""

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from privyseal.cli.progress import Watcher
from privyseal.cli.render import emit, error_document, table
from privyseal.errors import UnavailableError

if TYPE_CHECKING:
    from privyseal.client.signing import Outcome, Progress, SignedFile

__all__ = ["outcome_data", "outcome_lines", "sum_up", "tell"]

_SOME_FAILED: Final = 9
#: What can become of a file; `unsigned` is what a dry run, or an error elsewhere, leaves.
_STATES: Final = ("signed", "skipped", "unsigned", "failed")


def tell(progress: "Progress", watcher: Watcher, *, as_json: bool) -> None:
    """Print one line for each file as it ends."""
    outcome = progress.outcome
    if outcome is not None:
        watcher.clear()
        emit(outcome_data(outcome), (_line(outcome),), as_json=as_json)
    watcher.show(progress.stage, progress.done, progress.total, progress.position)


def sum_up(outcomes: "tuple[Outcome, ...]", seconds: float, sent_bytes: int, *, as_json: bool) -> int:
    """Print what became of all, and a table of those that were not signed; answers with the exit code."""
    counts = Counter(_state(outcome) for outcome in outcomes)
    rate = counts["signed"] / seconds if seconds > 0 else 0.0
    total = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    lines = [f"{total} in {seconds:.1f} s ({rate:.0f} a second, {sent_bytes} bytes sent)"]
    failed = [("FILE", "WHY")] + [(str(one.work.path), str(one.error)) for one in outcomes if one.error is not None]
    if len(failed) > 1:
        lines = ["", *table(failed), "", *lines]
    summary = {state: counts[state] for state in _STATES}
    emit({"summary": summary | {"seconds": round(seconds, 3), "sent_bytes": sent_bytes}}, lines, as_json=as_json)
    if not counts["failed"]:
        return 0
    if all(one.error is not None and one.error.retryable for one in outcomes):
        return UnavailableError.exit_status
    return _SOME_FAILED


def _state(outcome: "Outcome") -> str:
    if outcome.error is not None:
        return "failed"
    if outcome.signed is not None:
        return "signed"
    return "skipped" if outcome.skipped else "unsigned"


def outcome_data(outcome: "Outcome") -> dict[str, Any]:
    """One file's outcome for programs."""
    found: dict[str, Any] = {"file": str(outcome.work.path), "state": _state(outcome)}
    if outcome.error is not None:
        return found | {"error": error_document(outcome.error)}
    if outcome.signed is None:
        return found | {"output": str(outcome.work.target), "reason": outcome.skipped}
    signed = outcome.signed
    return found | {
        "output": str(signed.target),
        "receipt": str(signed.receipt_path),
        "format": signed.format,
        "artifact": signed.artifact,
        "subject": signed.subject,
        "test": signed.test,
        "key": signed.spki_sha256,
        "timestamp": None if signed.timestamped_at is None else signed.timestamped_at.isoformat(),
        "windows": signed.windows,
        "warnings": list(signed.warnings),
        "log_index": signed.log_index,
        "log_size": signed.log_size,
    }


def _line(outcome: "Outcome") -> str:
    if outcome.error is not None:
        return f"failed    {outcome.work.path}: {outcome.error}"
    if outcome.signed is None:
        return f"{_state(outcome):<10}{outcome.work.path}" + (f": {outcome.skipped}" if outcome.skipped else "")
    return f"signed    {outcome.signed.target} (log entry {outcome.signed.log_index}){_mark(outcome.signed)}"


def _mark(signed: "SignedFile") -> str:
    return " [test: not for anybody else]" if signed.test else ""


def outcome_lines(outcome: "Outcome") -> tuple[str, ...]:
    """The only file's outcome for people."""
    signed = outcome.signed
    if signed is None:
        return (_line(outcome),)
    stamped = () if signed.timestamped_at is None else (f"timestamp {signed.timestamped_at.isoformat()}",)
    return (
        f"signed    {signed.target}{_mark(signed)}",
        f"signer    {signed.subject}",
        f"artifact  {signed.artifact}",
        *stamped,
        f"receipt   {signed.receipt_path} (log entry {signed.log_index})",
        f"Windows   {signed.windows}",
        *(f"warning   {warning}" for warning in signed.warnings),
    )
