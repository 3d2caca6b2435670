# SPDX-License-Identifier: Apache-2.0
"""`privyseal key custody` and `privyseal key accept`."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.moments import exact_moment, moment_text, parse_moment
from privyseal.cli.render import emit, table
from privyseal.client.custody_timeline import Stretch
from privyseal.client.log_access import open_log
from privyseal.client.log_custody import Count, CustodyReport, KeyCustody, report_custody
from privyseal.client.log_uses import Interval
from privyseal.client.sought import sought_by_digest
from privyseal.errors import ConfigError, VerificationError

__all__ = ["accept", "custody"]

_SECOND_MS: Final = 1_000
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def custody(
    key: str = "",
    /,
    *,
    from_: Annotated[str, Parameter(name="--from")] = "",
    to: str = "",
    log: str = "",
    bundle: Path | None = None,
    vkey: str = "",
    as_json: AsJson = False,
    config: str = "",
) -> int:
    """Who can have used a key, as its agents told the log: proven and unproven time, counters, freezes.

    The whole log is verified first, and that no agent's event is missing from it (exit code 10). A key that is frozen
    where the log ends gives exit code 3.

    Parameters
    ----------
    key
        A key profile, or a key by the SHA-256 of its SubjectPublicKeyInfo in hex (default: all).
    from_
        First day or moment (ISO 8601, UTC unless it says otherwise; default: when the log first speaks of the key).
    to
        Last day or moment (default: the log's last entry).
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
    interval = Interval(start=parse_moment(from_), end=parse_moment(to, whole_day=True))
    opened = open_log(log, bundle=bundle, vkey=vkey, config=config)
    found = report_custody(opened, key.lower() if sought_by_digest(key) else key, interval)
    emit(_data(found), _lines(found), as_json=as_json)
    frozen = [one.key for one in found.keys if one.is_frozen]
    if frozen and not as_json:
        raise VerificationError(
            "custody.frozen",
            f"frozen, and not accepted by a person since: {', '.join(f'sha256:{one}' for one in frozen)}",
            hint="find out who used the key; then, on the token's host: privyseal key accept",
        )
    return VerificationError.exit_status if frozen else 0


def _data(found: CustodyReport) -> dict[str, Any]:
    return {
        "origin": found.checkpoint.origin,
        "size": found.checkpoint.size,
        "pruned": found.pruned,
        "until": exact_moment(found.until_ms),
        "keys": [_key_data(one) for one in found.keys],
    }


def _key_data(one: KeyCustody) -> dict[str, Any]:
    return {
        "key": one.key,
        "token": one.token,
        "profiles": list(one.profiles),
        "coverage_percent": round(one.coverage, 4),
        "frozen": one.is_frozen,
        "custody": [
            {
                "since": exact_moment(part.since_ms),
                "until": exact_moment(part.until_ms),
                "state": part.state,
                "reasons": list(part.reasons),
            }
            for part in one.stretches
        ],
        "counters": [
            {
                "index": count.index,
                "time": exact_moment(count.entry.at),
                "enrolled": count.entry.enrolled,
                "now": count.entry.now,
                "results": count.entry.results,
                "unknowns": count.entry.unknowns,
                "verdict": count.entry.verdict,
                "anew": count.anew,
                "accepted": count.accepted,
            }
            for count in one.counts
        ],
        "freezes": [
            {"index": index, "time": exact_moment(freeze.at), "frozen": freeze.frozen, "code": freeze.code}
            for index, freeze in one.freezes
        ],
    }


def _lines(found: CustodyReport) -> Iterable[str]:
    for one in found.keys:
        yield f"key sha256:{one.key}, token {one.token}, {', '.join(one.profiles) or 'no key profile'}"
        yield from (f"  {line}" for line in _key_lines(one))
    yield f"the log was verified to its last entry: {found.checkpoint.size} entries; no agent's event is missing"
    if found.pruned:
        yield f"the first {found.pruned} entries were pruned: what agents told in them is not counted"


def _key_lines(one: KeyCustody) -> Iterable[str]:
    whole_ms = sum(part.length_ms for part in one.stretches)
    yield f"custody   {one.coverage:.2f} % of {_length(whole_ms)} proven"
    if one.stretches:
        yield from (f"  {line}" for line in table((("SINCE", "UNTIL", "LASTS", "STATE", "REASON"), *_rows(one))))
    yield from _counter_lines(one.counts)
    for _, freeze in one.freezes:
        word = "frozen" if freeze.frozen else "accepted"
        yield f"{word:<9} {moment_text(freeze.at)}  {freeze.code}"


def _rows(one: KeyCustody) -> Iterable[tuple[str, ...]]:
    return (_row(part) for part in one.stretches)


def _row(part: Stretch) -> tuple[str, ...]:
    return (
        moment_text(part.since_ms),
        moment_text(part.until_ms),
        _length(part.length_ms),
        part.state,
        ", ".join(part.reasons),
    )


def _counter_lines(counts: tuple[Count, ...]) -> Iterable[str]:
    """The newest count, and each that is more than one of many that match."""
    if not counts:
        yield "counter   none was told: the token has none, or none is configured"
    for count in counts:
        entry = count.entry
        if count is counts[-1] or count.anew or entry.verdict != "match":
            yield (
                f"counter   {moment_text(entry.at)}  {entry.verdict}: from {entry.enrolled} to {entry.now}, of them "
                f"{entry.results} results; {entry.unknowns} unknowns"
            )
        if count.anew and not count.accepted:
            yield "          counting began anew, and nobody had accepted that: uses before it may have gone unseen"


def _length(ms: int) -> str:
    """A duration by its two largest units."""
    seconds, parts = ms // _SECOND_MS, []
    for unit, size in _UNITS:
        if seconds >= size:
            parts.append(f"{seconds // size} {unit}")
            seconds %= size
    return " ".join(parts[:2]) or "0 s"


def accept(
    key: str,
    /,
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    token: str = "",
    as_json: AsJson = False,
) -> None:
    """Let a frozen key be used again, after its signature counter did not match. On the token's host; goes on record.

    Find out first who used the key: what was signed stays signed. The agent begins to count anew when it looks at the
    token next, and need not be restarted.

    Parameters
    ----------
    key
        The key by the SHA-256 of its SubjectPublicKeyInfo in hex.
    directory
        The agent's directory.
    token
        Name of the token in agent.toml; needed if there are several.
    as_json
        Print one JSON document.
    """
    from privyseal.cli.token_host import named_token  # noqa: PLC0415 - extra `agent`

    name = named_token(directory, token).name
    key = key.lower().removeprefix("sha256:")
    asyncio.run(_accept(directory, name, key))
    emit(
        {"key": key, "token": name, "accepted": True},
        (f"key sha256:{key}: with the next look at token {name} its counter is accepted, and it is used again",),
        as_json=as_json,
    )


async def _accept(directory: Path, name: str, key: str) -> None:
    from privyseal.agent.config import AgentFiles  # noqa: PLC0415 - extra `agent`
    from privyseal.agent.custody import accept_counter  # noqa: PLC0415
    from privyseal.identity.bundle import load_bundle  # noqa: PLC0415
    from privyseal.storage.journal import SqliteJournal  # noqa: PLC0415

    files = AgentFiles(directory)
    if not files.journal.is_file():
        raise ConfigError("file.missing", f"there is no journal at {files.journal}", hint="has the agent ever run?")
    journal = await SqliteJournal.open(files.journal, origin=load_bundle(files.bundle).origin)
    try:
        await accept_counter(journal, name, key)
    finally:
        await journal.close()
