# SPDX-License-Identifier: Apache-2.0
"""`privyseal sign`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from privyseal.cli.progress import Watcher, watching
from privyseal.cli.render import emit, error_document, say, table
from privyseal.client.config import load_client_config
from privyseal.client.selection import Selection, select
from privyseal.client.signing import Outcome, Plan, Progress, Signer
from privyseal.client.timestamping import open_timestamper
from privyseal.formats.model import Placement, SignOptions

__all__ = ["sign"]

_SOME_FAILED: Final = 9
#: What can become of a file; `unsigned` is what a dry run, or an error elsewhere, leaves.
_STATES: Final = ("signed", "skipped", "unsigned", "failed")
_FLAG: Final = Parameter(negative="")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which files.

    Attributes:
        output: Write here instead of signing in place: a file, or a directory for several.
        files_from: Take names from this file, one a line or each ended by NUL; - is standard input. May be repeated.
        exclude: Leave out names that match this pattern. May be repeated.
        skip_signed: Leave files alone that carry a signature.
        continue_on_error: Sign the others if some cannot be read.
        dry_run: Say what would be signed.
    """

    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None
    files_from: Annotated[tuple[str, ...], _FLAG] = ()
    exclude: Annotated[tuple[str, ...], _FLAG] = ()
    skip_signed: Annotated[bool, _FLAG] = False
    continue_on_error: Annotated[bool, _FLAG] = False
    dry_run: Annotated[bool, _FLAG] = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What stands in the signature.

    Attributes:
        digest: Digest algorithm.
        placement: Where the signature goes in a file that has one: instead of it, nested in it, or as one more entry
            of the certificate table (UEFI).
        page_hashes: Put digests of the image's pages into the signature.
        description: Program name that Windows shows when it asks for consent.
        url: URL that Windows shows beside it.
        timestamp: URL of a TSA (RFC 3161) to ask instead of those in client.toml; may be repeated: asked in this order.
        no_timestamp: Sign without a timestamp although client.toml names TSAs.
    """

    digest: Literal["sha256", "sha384", "sha512"] = "sha256"
    placement: Literal["replace", "nested", "entry"] = "replace"
    page_hashes: Annotated[bool, _FLAG] = False
    description: Annotated[str, Parameter(name=["--description", "-d"])] = ""
    url: Annotated[str, Parameter(name=["--url", "-u"])] = ""
    timestamp: Annotated[tuple[str, ...], _FLAG] = ()
    no_timestamp: Annotated[bool, _FLAG] = False


def sign(
    *files: str,
    key: str,
    which: Which | None = None,
    how: How | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> int:
    """Sign files: hashed and embedded here, only the small structures that are signed travel.

    The receipt is left beside each signed file as FILE.tlog-proof. On any failure a file is as it was. Whatever was
    interrupted, the same command goes on where it stopped and signs nothing twice.

    Parameters
    ----------
    files
        Files, directories (everything in them that can be signed), or patterns.
    key
        Name of the key profile.
    as_json
        Print a JSON document; for several files one a line as they end, then a summary.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    which, how = which or Which(), how or How()
    loaded = load_client_config(config)
    selection = Selection(names=files, lists=which.files_from, excludes=which.exclude, output=which.output)
    works = select(selection)
    timestamper = None if how.no_timestamp else open_timestamper(loaded, how.timestamp, notice=say)
    signer = Signer(loaded, profile=key, timestamper=timestamper)
    if selection.is_one_file:
        (outcome,) = signer.sign_all(works, _plan(which, how))
        if outcome.error is not None:
            raise outcome.error
        emit(_data(outcome) | {"sent_bytes": signer.sent_bytes}, _lines(outcome), as_json=as_json)
        return 0
    with watching(quiet=as_json) as watcher:
        outcomes = signer.sign_all(works, _plan(which, how), lambda one: _tell(one, watcher, as_json=as_json))
        seconds = watcher.elapsed_seconds
    return _sum_up(outcomes, seconds, signer.sent_bytes, as_json=as_json)


def _plan(which: Which, how: How) -> Plan:
    return Plan(
        options=SignOptions(
            digest_algorithm=how.digest,
            program_name=how.description,
            program_url=how.url,
            page_hashes=how.page_hashes,
            placement=Placement(how.placement),
        ),
        continue_on_error=which.continue_on_error,
        skip_signed=which.skip_signed,
        dry_run=which.dry_run,
    )


def _tell(progress: Progress, watcher: Watcher, *, as_json: bool) -> None:
    """One line for each file as it ends."""
    outcome = progress.outcome
    if outcome is not None:
        watcher.clear()
        emit(_data(outcome), (_line(outcome),), as_json=as_json)
    watcher.show(progress.stage, progress.done, progress.total, progress.position)


def _sum_up(outcomes: tuple[Outcome, ...], seconds: float, sent_bytes: int, *, as_json: bool) -> int:
    """What became of all, and a table of those that were not signed."""
    counts = Counter(_state(outcome) for outcome in outcomes)
    rate = counts["signed"] / seconds if seconds > 0 else 0.0
    total = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    lines = [f"{total} in {seconds:.1f} s ({rate:.0f} a second, {sent_bytes} bytes sent)"]
    failed = [("FILE", "WHY")] + [(str(one.work.path), str(one.error)) for one in outcomes if one.error is not None]
    if len(failed) > 1:
        lines = ["", *table(failed), "", *lines]
    summary = {state: counts[state] for state in _STATES}
    emit({"summary": summary | {"seconds": round(seconds, 3), "sent_bytes": sent_bytes}}, lines, as_json=as_json)
    return _SOME_FAILED if len(failed) > 1 else 0


def _state(outcome: Outcome) -> str:
    if outcome.error is not None:
        return "failed"
    if outcome.signed is not None:
        return "signed"
    return "skipped" if outcome.skipped else "unsigned"


def _data(outcome: Outcome) -> dict[str, Any]:
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
        "key": signed.spki_sha256,
        "timestamp": None if signed.timestamped_at is None else signed.timestamped_at.isoformat(),
        "windows": signed.windows,
        "warnings": list(signed.warnings),
        "log_index": signed.log_index,
        "log_size": signed.log_size,
    }


def _line(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"failed    {outcome.work.path}: {outcome.error}"
    if outcome.signed is None:
        return f"{_state(outcome):<10}{outcome.work.path}" + (f": {outcome.skipped}" if outcome.skipped else "")
    return f"signed    {outcome.signed.target} (log entry {outcome.signed.log_index})"


def _lines(outcome: Outcome) -> tuple[str, ...]:
    signed = outcome.signed
    if signed is None:
        return (_line(outcome),)
    stamped = () if signed.timestamped_at is None else (f"timestamp {signed.timestamped_at.isoformat()}",)
    return (
        f"signed    {signed.target}",
        f"signer    {signed.subject}",
        f"artifact  {signed.artifact}",
        *stamped,
        f"receipt   {signed.receipt_path} (log entry {signed.log_index})",
        f"Windows   {signed.windows}",
        *(f"warning   {warning}" for warning in signed.warnings),
    )
