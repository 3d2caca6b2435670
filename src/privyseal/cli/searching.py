# SPDX-License-Identifier: Apache-2.0
"""`privyseal log find` and `privyseal log report`."""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from privyseal.cli.moments import exact_moment, moment_text, parse_moment
from privyseal.cli.render import emit, say, table
from privyseal.client.log_access import open_log
from privyseal.client.log_uses import Findings, Interval, Report, Sought, Use, find_uses, report_uses
from privyseal.client.sought import sought_by_digest, sought_by_file
from privyseal.errors import ConfigError, VerificationError

__all__ = ["find", "report"]

_OUTCOMES: Final = ("ok", "failed", "not-used", "unknown")
_COLUMNS: Final = (
    "index", "time", "outcome", "end_index", "end_time", "code", "profile", "key", "format", "binding",
    "artifact_algorithm", "artifact", "claimed_sha256", "claimed_size", "signature", "client", "agent", "request",
    "item", "fence",
)  # fmt: skip


def find(
    what: str,
    /,
    *,
    log: str = "",
    bundle: Path | None = None,
    vkey: str = "",
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> int:
    """What the log holds of a file, signed or not, or of a digest. The whole log is read and verified first.

    A file is looked for by its artifact digest, by its SHA-256 as the client claimed it, and by the signatures in it. A
    signed file is ours if one of its signatures is: else exit code 3, also if the same content was signed here.

    Parameters
    ----------
    what
        A file; or a digest in hex, of a file, artifact, preimage or signature value.
    log
        A directory that `privyseal log export` wrote, or the URL at which it is served (default: the hub).
    bundle
        Trust bundle that names the log's key (with --log).
    vkey
        The log's key itself (with --log).
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    sought = _sought(what)
    found = find_uses(open_log(log, bundle=bundle, vkey=vkey, config=config), sought)
    signed = {use.signature for use, why in found.uses if "signature" in why}
    strange = tuple(signature for signature in sought.signatures if signature not in signed)
    is_ours = bool(signed) if sought.signatures else bool(found.uses)
    lines = (
        *(line for use, why in found.uses for line in _use_lines(use, why)),
        *(f"{index:>6}  {moment_text(entry.ts)}  timestamp token={entry.token}" for index, entry in found.timestamps),
        *(f"a signature in the file is not in this log: {signature}" for signature in strange),
    )
    if not is_ours and not as_json:
        emit({}, lines, as_json=False)
    if not is_ours:
        raise VerificationError(
            "find.not_ours",
            f"{what} is not of this log: {found.checkpoint.origin}, {found.checkpoint.size} entries, all verified"
            + (f", the first {found.pruned} of them pruned and so not searched" if found.pruned else ""),
            hint="the content was signed here, but not with the signature in the file" if found.uses else "",
        )
    emit(_find_data(found, strange), lines, as_json=as_json)
    return 0


def _sought(what: str) -> Sought:
    digest = None if Path(what).exists() else sought_by_digest(what)
    if digest is not None:
        return digest
    sought, trouble = sought_by_file(Path(what))
    if trouble is not None:
        say(f"looked for by its SHA-256 alone: {trouble}")
    return sought


def _find_data(found: Findings, strange: tuple[str, ...]) -> dict[str, Any]:
    return {
        "origin": found.checkpoint.origin,
        "size": found.checkpoint.size,
        "pruned": found.pruned,
        "uses": [{"matched": list(why), **_row(use)} for use, why in found.uses],
        "timestamps": [
            {"index": index, "time": exact_moment(entry.ts), "token": entry.token, "tsa": entry.tsa}
            for index, entry in found.timestamps
        ],
        "unknown_signatures": list(strange),
    }


def _use_lines(use: Use, why: tuple[str, ...]) -> Iterable[str]:
    intent = use.intent
    yield (
        f"{use.index:>6}  {moment_text(intent.ts)}  intent    profile={intent.profile} key={intent.key} "
        f"format={intent.format} {intent.artifact.alg}={intent.artifact.digest} client={intent.client} "
        f"found by: {', '.join(why)}"
    )
    if use.end is None:
        yield "        no result is recorded"
    else:
        more = f"signature={use.signature}" if use.signature else f"code={use.end.code}"
        kind = use.end.__struct_config__.tag
        yield f"{use.end_index:>6}  {moment_text(use.end.ts)}  {kind:<9} outcome={use.outcome} {more}"


def _row(use: Use) -> dict[str, Any]:
    """A use for programs: flat, each value as the log has it."""
    intent, end = use.intent, use.end
    values = (
        use.index,
        exact_moment(intent.ts),
        use.outcome,
        use.end_index,
        None if end is None else exact_moment(end.ts),
        "" if end is None else end.code,
        intent.profile,
        intent.key,
        intent.format,
        intent.binding,
        intent.artifact.alg,
        intent.artifact.digest,
        intent.claimed.sha256,
        intent.claimed.size,
        use.signature,
        intent.client,
        intent.agent,
        intent.request,
        intent.item,
        intent.fence,
    )
    return dict(zip(_COLUMNS, values, strict=True))


def report(  # noqa: PLR0913 - a command's options
    *,
    key: str,
    from_: Annotated[str, Parameter(name="--from")] = "",
    to: str = "",
    log: str = "",
    bundle: Path | None = None,
    vkey: str = "",
    as_csv: Annotated[bool, Parameter(name="--csv", negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Everything that a key was used for in an interval: what an incident asks. The whole log is verified first.

    An intent without result is told, too: the token may have signed.

    Parameters
    ----------
    key
        A key profile, or a key by the SHA-256 of its SubjectPublicKeyInfo in hex.
    from_
        First day or moment (ISO 8601, UTC unless it says otherwise; default: the log's beginning).
    to
        Last day or moment (default: now).
    log
        A directory that `privyseal log export` wrote, or the URL at which it is served (default: the hub).
    bundle
        Trust bundle that names the log's key (with --log).
    vkey
        The log's key itself (with --log).
    as_csv
        Print CSV with a heading; the counts go to stderr.
    as_json
        Print JSON Lines: one object for each use, then one with the counts.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    if as_csv and as_json:
        raise ConfigError("usage.arguments", "--csv and --json are two ways to say the same", hint="leave one out")
    interval = Interval(start=parse_moment(from_), end=parse_moment(to, whole_day=True))
    opened = open_log(log, bundle=bundle, vkey=vkey, config=config)
    found = report_uses(opened, key.lower() if sought_by_digest(key) else key, interval)
    if as_csv:
        _print_csv(found)
        say(_counts_line(key, found))
        return
    for use in found.uses if as_json else ():
        emit(_row(use), (), as_json=True)
    emit({"summary": _counts(found)}, (*_report_table(found), _counts_line(key, found)), as_json=as_json)


def _counts(found: Report) -> dict[str, Any]:
    return {
        "origin": found.checkpoint.origin,
        "size": found.checkpoint.size,
        "uses": len(found.uses),
        **{outcome: found.count(outcome) for outcome in _OUTCOMES},
        "without_result": found.count("open"),
        "pruned": found.pruned,
    }


def _counts_line(key: str, found: Report) -> str:
    ended = ", ".join(f"{found.count(outcome)} {outcome}" for outcome in _OUTCOMES)
    pruned = f"; the first {found.pruned} entries were pruned, and are not counted" if found.pruned else ""
    return f"{key}: {len(found.uses)} uses: {ended}; {found.count('open')} intents have no result{pruned}"


def _report_table(found: Report) -> Iterable[str]:
    if not found.uses:
        return ()
    heading = ("INDEX", "TIME", "OUTCOME", "FORMAT", "ARTIFACT", "CLIENT")
    rows = (
        (
            str(use.index),
            moment_text(use.intent.ts),
            use.outcome,
            use.intent.format,
            f"{use.intent.artifact.alg}:{use.intent.artifact.digest}",
            use.intent.client,
        )
        for use in found.uses
    )
    return table((heading, *rows))


def _print_csv(found: Report) -> None:
    writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_row, found.uses))
